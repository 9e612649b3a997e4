"""Issuers of identity tokens as an operator trusts them: right claims of each method, and trust files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from stepgrant_broker.identity.trust import Trust
from stepgrant_broker.identity.trust_file import read
from stepgrant_broker.wiring.identity import METHODS

BROKER: Final = "https://broker.example"
ISSUERS: Final[Mapping[str, str]] = {
    "oidc": "https://ci.example",
    "spiffe-jwt": "",
    "kubernetes": "https://kubernetes.default.svc.cluster.local",
}
CLAIMS: Final[Mapping[str, Mapping[str, Any]]] = {
    "oidc": {"iss": ISSUERS["oidc"], "sub": "repo/acme/refunds", "repository_id": "42"},
    "spiffe-jwt": {"sub": "spiffe://prod.example/agents/refunds"},
    "kubernetes": {
        "iss": ISSUERS["kubernetes"],
        "sub": "system:serviceaccount:payments:refunds",
        "kubernetes.io": {
            "namespace": "payments",
            "node": {"name": "node-1", "uid": "5a3c0f1e-0000-4000-8000-000000000001"},
            "pod": {"name": "refunds-7f9c", "uid": "5a3c0f1e-0000-4000-8000-000000000002"},
            "serviceaccount": {"name": "refunds", "uid": "5a3c0f1e-0000-4000-8000-000000000003"},
        },
    },
}
RULES: Final[Mapping[str, str]] = {
    "oidc": 'subject = "repo/acme/refunds"\nclaims = { repository_id = "42" }',
    "spiffe-jwt": 'path = "/agents/refunds"',
    "kubernetes": 'namespace = "payments"\nservice_account = "refunds"',
}


def claims_of(method: str, now_s: int, *, audience: str = BROKER, **changed: Any) -> dict[str, Any]:  # noqa: ANN401
    """Right claims of a method; a claim that is given replaces the right one, `...` leaves it out."""
    times = {"iat": now_s - 1, "nbf": now_s - 1, "exp": now_s + 600}
    given = {**CLAIMS[method], "aud": audience, "jti": "0123456789abcdef", **times, **changed}
    return {name: value for name, value in given.items() if value is not ...}


def issuer_table(method: str, name: str | None = None, /, **changed: Any) -> str:  # noqa: ANN401 - values of TOML
    """An `[[issuer]]`; a key that is given replaces the right one, `...` leaves it out."""
    given: dict[str, Any] = {"name": name or method, "method": method, "tenant": "acme", "audience": BROKER}
    given |= {"trust_domain": "prod.example"} if method == "spiffe-jwt" else {"issuer": ISSUERS[method]}
    given |= {"jwks_file": "keys.json"} if not {"jwks_url", "discovery"} & set(changed) else {}
    return "\n".join(["[[issuer]]", *_lines({**given, **changed})])


def rule_table(method: str, when: str | None = None, /, **changed: Any) -> str:  # noqa: ANN401 - values of TOML
    """A `[[rule]]` that makes the right identity of the method the workload `refunds` for the agent `agent`."""
    given = {"issuer": method, "workload": "refunds", "agents": ["agent"], **changed}
    return "\n".join(["[[rule]]", *_lines(given), RULES[method] if when is None else when])


def _lines(given: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {json.dumps(value)}" for key, value in given.items() if value is not ...]


def trust_text(*tables: str) -> str:
    return "\n\n".join(tables) + "\n"


def read_trust(folder: Path, *tables: str, own_url: str = "https://me.example") -> Trust:
    """Write a trust file and read it."""
    file = folder / "trust.toml"
    file.write_text(trust_text(*tables), encoding="utf-8")
    file.chmod(0o600)
    return read(file, METHODS, own_url=own_url)


Sign: Final = Callable[[Mapping[str, Any], Mapping[str, Any]], str]
