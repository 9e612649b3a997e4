"""What `stepgrant dev` sets up beside the broker: a workload key for agents, and a client file for you.

Both lie in the data folder, mode 0600, and are kept from one start to the next while they still fit.
"""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stepgrant.cli import client_file
from stepgrant.cli.client_file import Client
from stepgrant.cli.exits import CommandError

if TYPE_CHECKING:
    from stepgrant_broker.wiring import Broker

CLIENT_FILE: Final = "operator.json"
KEY_FILE: Final = "workload.json"
WORKLOAD: Final = "dev"
DEFAULT_AGENT: Final = "my-agent"


@dataclass(frozen=True, slots=True)
class Session:
    """What an agent and a person need. `key_changed`: runs that the older key opened can only be resumed by it."""

    url: str
    agents: tuple[str, ...]
    key_file: Path
    client_file: Path
    key_changed: bool

    @property
    def environment(self) -> dict[str, str]:
        """What an agent finds in its environment."""
        return {"STEPGRANT_URL": self.url, "STEPGRANT_WORKLOAD_KEY": str(self.key_file.absolute())}


async def set_up(broker: Broker, url: str, agents: Sequence[str]) -> Session:
    """Enrol a workload for these agents and those of the policy's settings, and make or keep the client file."""
    from stepgrant_broker.wiring.bootstrap import ensure_workload

    folder = broker.settings.data_dir
    names = tuple(sorted({*agents, *configured(broker)})) or (DEFAULT_AGENT,)
    key_file = folder / KEY_FILE
    before = _content(key_file)
    await ensure_workload(broker, key_file, WORKLOAD, agents=names)
    await _client(broker, url, folder / CLIENT_FILE)
    return Session(url, names, key_file, folder / CLIENT_FILE, before is not None and before != _content(key_file))


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def configured(broker: Broker) -> tuple[str, ...]:
    """The agents that the starter policy's settings list; other policies may keep them elsewhere."""
    bundle = broker.policy.bundle
    settings = bundle.data.get("stepgrant_config") if bundle is not None else None
    agents = settings.get("agents") if isinstance(settings, dict) else None
    return tuple(agents) if isinstance(agents, dict) else ()


async def _client(broker: Broker, url: str, path: Path) -> None:
    from stepgrant_broker.domain.errors import Unauthenticated
    from stepgrant_broker.usecases.operators import authenticate_operator
    from stepgrant_broker.wiring.bootstrap import new_operator

    known = _known(path)
    if known is not None:
        try:
            await authenticate_operator(broker.ports, known.token)
        except Unauthenticated:
            known = None
    if known is not None and known.url == url:
        return
    token = known.token if known is not None else (await new_operator(broker, _me()))[1]
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    client_file.save(fresh, Client(url, token, str(path)))
    fresh.replace(path)


def _known(path: Path) -> Client | None:
    return client_file.load(path) if path.exists() else None


def _me() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "developer"


def refuse_open_folder(folder: Path) -> None:
    """Raises `CommandError` for a data folder in which others can exchange files."""
    if folder.exists() and folder.stat().st_mode & 0o022:
        raise CommandError(f"others can write to {folder}; run: chmod 700 {folder}", code="configuration_error")
