"""Who calls: an agent, a resource server or a person, as the endpoint needs; and those who are not proven."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import schemathesis

from security.fuzz.http_unproven import WAYS, Headers, Known, Place, Used
from stepgrant._dpop import DpopKey
from stepgrant._exchange import TokenRequest, WorkloadKey, exchange_sync
from stepgrant_broker.testing import TestHost

KEYED: Final = 0.9
ODD_KEYS: Final = (None, "", "x", "k" * 300, "é", "a b")
FRESH_S: Final = 60.0
AUDIENCE: Final = "https://tool.example"
SEEN: Final = ("/v1/runs", "/v1/runs/none")
"""Two places at which a proof is used at the start, so that there is always one that was used elsewhere."""


@dataclass
class Process:
    """A workload's process, which exchanges its identity again before its token grows old."""

    host: TestHost
    client: httpx.Client
    key: WorkloadKey
    dpop: DpopKey = field(default_factory=DpopKey)
    token: str = ""
    nonce: str | None = None
    at: float = -FRESH_S

    def fresh(self) -> None:
        """Have a token that is far from its end, and a nonce that is current."""
        if time.monotonic() - self.at > FRESH_S:
            got = exchange_sync(self.client, TokenRequest(self.host.url, self.key, self.dpop))
            self.token, self.nonce, self.at = got.token.value, got.nonce, time.monotonic()

    def headers(self, method: str, path: str) -> Headers:
        """Token and a fresh proof."""
        self.fresh()
        return {"Authorization": f"DPoP {self.token}", "DPoP": self.proof(method, path)}

    def proof(self, method: str, path: str, *, key: DpopKey | None = None, nonce: str | None = None) -> str:
        """A proof for its token, by its key and nonce or by others."""
        return (key or self.dpop).proof(method, self.host.url + path, token=self.token, nonce=nonce or self.nonce)


class Callers:
    """One of each kind, and the ways in which a caller is not who it says. Close it."""

    def __init__(self, host: TestHost, rng: random.Random) -> None:
        self.rng, self._host, self._client = rng, host, httpx.Client(base_url=host.url, trust_env=False)
        self.agent = self._process("agent", agents=("agent",))
        self.server = self._process("tool", audiences=(AUDIENCE,))
        self.succeed()
        self.person = host.operator("Olga")
        whoami = self._client.get("/v1/whoami", headers={"Authorization": f"Bearer {self.person}"}).json()
        self.own: Final = frozenset(
            {whoami["id"], self.agent.key.workload_id, self.server.key.workload_id, "agent", "tool", "jwt"}
        )
        """What nobody may remove or switch off: the ids of the callers, their agent, their issuer."""
        self._used: list[Used] = []
        for path in SEEN:
            headers = self.agent.headers("GET", path)
            self._client.get(path, headers=headers)
            self._used.append(Used("GET", path, headers))

    def _process(self, name: str, **enrolment: tuple[str, ...]) -> Process:
        return Process(self._host, self._client, WorkloadKey.load(self._host.enroll(name, **enrolment)))

    def close(self) -> None:
        """Close the connections that tokens were exchanged over."""
        self._client.close()

    def succeed(self) -> None:
        """The agent's next process starts: a run is resumed with a key that never held it."""
        self.successor = Process(self._host, self._client, self.agent.key)

    def authenticate(self, case: schemathesis.Case[Any], who: str = "", way: str = "", keyed: float = KEYED) -> None:
        """Put the headers into the case. `who` calls, or one whom the endpoint takes; `way`: as in `WAYS`."""
        place = Place(case.method, case.formatted_path, kinds_of(case))
        kind = who or (self.rng.choice(sorted(place.kinds)) if place.kinds else "nobody")
        if case.path == "/v1/grants/{jti}/redeem":
            kind = "server"
        headers = self._true(kind, place)
        if way:
            self.agent.fresh()
            known = Known(self.agent, self.person, tuple(self._used), self.rng)
            headers = WAYS[way][1](known, place, headers)
        for name in ("Authorization", "DPoP"):
            case.headers.pop(name, None)
        case.headers.update(headers)
        self.key(case, keyed)

    def key(self, case: schemathesis.Case[Any], keyed: float = KEYED) -> None:
        """Give the call a key that is new; else, as `keyed` is a probability, an odd one or none."""
        case.headers.pop("Idempotency-Key", None)
        fine = self.rng.random() < keyed
        key = f"key-{self.rng.getrandbits(64):x}" if fine else self.rng.choice(ODD_KEYS)
        if case.method != "GET" and key is not None:
            case.headers["Idempotency-Key"] = key

    def _true(self, kind: str, place: Place) -> Headers:
        if kind == "person":
            return {"Authorization": f"Bearer {self.person}"}
        if kind == "nobody":
            return {}
        process = {"server": self.server, "successor": self.successor}.get(kind, self.agent)
        return process.headers(place.method, place.path)

    def remember(self, case: schemathesis.Case[Any]) -> None:
        """Its proof was taken, so nobody may come with it again. What was refused used up no proof."""
        headers = {name: case.headers[name] for name in ("Authorization", "DPoP")}
        kept = self._used[: len(SEEN)], self._used[len(SEEN) :][-20:]
        self._used = [*kept[0], *kept[1], Used(case.method, case.formatted_path, headers)]


def kinds_of(case: schemathesis.Case[Any]) -> frozenset[str]:
    """Who may call this endpoint, of `person` and `workload`."""
    return frozenset(name for one in case.operation.definition.raw.get("security", []) for name in one)
