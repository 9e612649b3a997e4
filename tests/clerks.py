"""One agent with a tool of each kind, and people with different rights, for tests over a real broker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from stepgrant_broker.testing import TestHost

SETTINGS: Final[dict[str, Any]] = {
    "agents": {
        "clerk": {
            "tools": {
                "book.read": {"effect": "read"},
                "card.charge": {"effect": "once", "redeem": "optional", "ttl": 5},
                "file.publish": {"effect": "once", "ask": True},
            }
        }
    },
    "approval": {"groups": ["press"], "quorum": 1, "answer_within": 600, "valid_for": 600},
    "flows": {},
    "resume": {"ask_after_parked_seconds": 86400},
    "ttl": {"read": 60, "idempotent": 60, "once": 60},
}


class People:
    """Client files of people with different rights, and the tokens in them."""

    def __init__(self, host: TestHost, folder: Path) -> None:
        self._host = host
        self._folder = folder
        self.tokens: list[str] = []

    def file(self, name: str, *roles: str, groups: tuple[str, ...] = ()) -> str:
        """A new person's client file."""
        token = self._host.operator(name, roles=roles, groups=groups)
        self.tokens.append(token)
        path = self._folder / f"{name}.json"
        path.write_text(json.dumps({"url": self._host.url, "token": token}), encoding="utf-8")
        path.chmod(0o600)
        return str(path)
