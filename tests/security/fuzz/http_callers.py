"""Who calls: an agent, a resource server or a person, as the endpoint needs; one time in five not proven."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import schemathesis

from stepgrant._dpop import DpopKey
from stepgrant._exchange import TokenRequest, WorkloadKey, exchange_sync
from stepgrant_broker.testing import TestHost

CORRUPTED: Final = 0.2
KEYED: Final = 0.9
FRESH_S: Final = 60.0
AUDIENCE: Final = "https://tool.example"


@dataclass(frozen=True)
class Sent:
    """How a request was authenticated. `corrupted`: in which way not; `needed`: the endpoint asks who calls."""

    corrupted: str
    needed: bool


@dataclass
class Process:
    """A workload's process, which exchanges its identity again before its token grows old."""

    host: TestHost
    key: WorkloadKey
    dpop: DpopKey = field(default_factory=DpopKey)
    token: str = ""
    nonce: str | None = None
    at: float = -FRESH_S
    proof: str = ""

    def headers(self, method: str, path: str) -> dict[str, str]:
        """Token and a fresh proof."""
        if time.monotonic() - self.at > FRESH_S:
            with httpx.Client() as client:
                got = exchange_sync(client, TokenRequest(self.host.url, self.key, self.dpop))
            self.token, self.nonce, self.at = got.token.value, got.nonce, time.monotonic()
        self.proof = self.dpop.proof(method, self.host.url + path, token=self.token, nonce=self.nonce)
        return {"Authorization": f"DPoP {self.token}", "DPoP": self.proof}


class Callers:
    """One of each kind, and the ways in which a caller is not who it says."""

    def __init__(self, host: TestHost, rng: random.Random) -> None:
        self.rng = rng
        self.agent = Process(host, _key(host.enroll("agent", agents=("agent",))))
        self.server = Process(host, _key(host.enroll("tool", audiences=(AUDIENCE,))))
        self.succeed()
        self.person = host.operator("Olga")
        whoami = httpx.get(f"{host.url}/v1/whoami", headers={"Authorization": f"Bearer {self.person}"}).json()
        self.own: Final = frozenset(
            {whoami["id"], self.agent.key.workload_id, self.server.key.workload_id, "agent", "tool", "jwt"}
        )
        """What nobody may remove or switch off: the ids of the callers, their agent, their issuer."""
        self.used: list[dict[str, str]] = []

    def authenticate(
        self, case: schemathesis.Case[Any], who: str = "", corrupted: float = CORRUPTED, keyed: float = KEYED
    ) -> Sent:
        """Put the headers into the case. `who` calls, or one whom the endpoint takes; the rest are probabilities."""
        kinds = {name for one in case.operation.definition.raw.get("security", []) for name in one}
        path = case.formatted_path
        for name in ("Authorization", "DPoP"):
            case.headers.pop(name, None)
        kind = who or (self.rng.choice(sorted(kinds)) if kinds else "nobody")
        if case.path == "/v1/grants/{jti}/redeem":
            kind = "server"
        headers = self._true(kind, case.method, path)
        way = ""
        if self.rng.random() < corrupted:
            way, headers = self._corrupt(case.method, path, headers)
        case.headers.update(headers)
        if case.method != "GET" and self.rng.random() < keyed:
            case.headers["Idempotency-Key"] = f"key-{self.rng.getrandbits(64):x}"
        return Sent(way, bool(kinds))

    def _true(self, kind: str, method: str, path: str) -> dict[str, str]:
        if kind == "person":
            return {"Authorization": f"Bearer {self.person}"}
        if kind == "nobody":
            return {}
        process = {"server": self.server, "successor": self.successor}.get(kind, self.agent)
        return process.headers(method, path)

    def succeed(self) -> None:
        """The agent's next process starts: a run is resumed with a key that never held it."""
        self.successor = Process(self.agent.host, self.agent.key)

    def remember(self, headers: Mapping[str, str]) -> None:
        """These were taken, so nobody may come with them again. What was refused used up no proof."""
        self.used = [*self.used[-20:], {name: headers[name] for name in ("Authorization", "DPoP") if name in headers}]

    def _corrupt(self, method: str, path: str, true: dict[str, str]) -> tuple[str, dict[str, str]]:
        agent, rng = self.agent, self.rng
        other = DpopKey()
        ways: dict[str, Callable[[], dict[str, str]]] = {
            "nothing": dict,
            "no proof": lambda: {"Authorization": f"DPoP {agent.token or 'x'}"},
            "bearer": lambda: {"Authorization": f"Bearer {agent.token or 'x'}"},
            "rubbish": lambda: {"Authorization": rng.choice(["DPoP", "Basic YTpi", "Bearer sgo_x", "DPoP a.b.c", "x"])},
            "another key": lambda: {
                "Authorization": f"DPoP {agent.token}",
                "DPoP": other.proof(method, agent.host.url + path, token=agent.token, nonce=agent.nonce),
            },
            "another path": lambda: agent.headers(method, path + "x"),
            "another method": lambda: agent.headers("PATCH", path),
            "another nonce": lambda: {
                **agent.headers(method, path),
                "DPoP": agent.dpop.proof(method, agent.host.url + path, token=agent.token, nonce="old"),
            },
            "used before": lambda: dict(rng.choice(self.used)) if self.used else {},
            "cut": lambda: {name: value[: rng.randrange(len(value))] for name, value in true.items()},
            "two schemes": lambda: {"Authorization": f"Bearer {agent.token}", "DPoP": "x"},
        }
        way = rng.choice(sorted(ways))
        return way, ways[way]()


def _key(path: Path) -> WorkloadKey:
    return WorkloadKey.load(path)
