"""What the broker needs in Vault, brought about: look first, then change only what is different.

Rules:
* Nothing is deleted and nothing of others is touched: what is there and does not fit is named, not replaced.
* `plan` only reads. Doing its calls once leaves a Vault for which the next plan is empty.
* No call holds a secret. Keys are made by Vault and cannot leave it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from stepgrant_broker.vault.client import Vault, data_of
from stepgrant_broker.vault.faults import VaultBad, VaultMissing
from stepgrant_broker.vault.methods import Session
from stepgrant_broker.vault.wire import VaultToken

if TYPE_CHECKING:
    from stepgrant_broker.vault.wire import Wire

Fields = Mapping[str, Any]
TOKEN: Final[Fields] = {
    "token_no_default_policy": True,
    "token_ttl": 3600,
    "token_max_ttl": 86_400,
    "token_explicit_max_ttl": 0,
    "token_num_uses": 0,
    "token_period": 0,
}
"""Of a login: an hour, renewed up to a day, then a new one; no use limit."""
GRANT_TOKEN: Final[Fields] = {
    "orphan": True,
    "renewable": False,
    "allowed_policies_glob": [],
    "disallowed_policies": [],
    "disallowed_policies_glob": [],
    "token_no_default_policy": True,
    "token_type": "service",
    "token_period": 0,
    "token_num_uses": 0,
    "path_suffix": "",
}
JWT_TIMES: Final[Fields] = {"expiration_leeway": -1, "not_before_leeway": -1, "clock_skew_leeway": 5}
"""By default Vault accepts a JWT until 150 s after its end, and 60 s more for clocks."""


class AdminToken:
    """A login by a token that somebody hands over for one command; it is not given back."""

    def __init__(self, token: str) -> None:
        self._token = VaultToken(token)

    async def login(self, wire: Wire) -> Session:
        """The token, as it is."""
        return Session(self._token, None, renewable=False, ours=False)

    def changed(self) -> bool:
        """False: it is one token."""
        return False


@dataclass(frozen=True, slots=True)
class Call:
    """One change: what is sent, and what for."""

    method: str
    path: str
    body: Fields
    why: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """How Vault should be. Paths have no slash at either end.

    Args:
        mounts: secrets engines by path; those of issuers are the operator's own and only looked for.
        keys: Transit keys by path (`transit/keys/<name>`), with their type.
        policies: by name.
        token_roles: for per-grant tokens, by name, with the policies that such a token may have and its longest life.
        logins: auth methods by path, with their type; `None` for one that must be there already.
        login_roles: by path.
    """

    mounts: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    policies: Mapping[str, str] = field(default_factory=dict)
    token_roles: Mapping[str, Fields] = field(default_factory=dict)
    logins: Mapping[str, str | None] = field(default_factory=dict)
    login_roles: Mapping[str, Fields] = field(default_factory=dict)


async def plan(vault: Vault, wanted: Wanted) -> list[Call]:
    """The calls that are needed, in order. Raises `VaultFault`; `VaultBad` for what is there and does not fit."""
    calls = await _mounts(vault, wanted.mounts)
    calls += [call for path, kind in wanted.keys.items() if (call := await _key(vault, path, kind))]
    for name, text in wanted.policies.items():
        there = await _look(vault, f"sys/policies/acl/{name}")
        if there is None or there.get("policy") != text:
            calls.append(Call("PUT", f"sys/policies/acl/{name}", {"policy": text}, "a policy"))
    for name, fields in wanted.token_roles.items():
        calls += await _differing(vault, f"auth/token/roles/{name}", fields, "the role of per-grant tokens")
    calls += await _logins(vault, wanted.logins)
    for path, fields in wanted.login_roles.items():
        calls += await _differing(vault, path, fields, "the role that the broker logs in with")
    return calls


async def apply(vault: Vault, calls: list[Call]) -> None:
    """Do them. Raises `VaultFault` at the first that fails; doing the next plan goes on from there."""
    for call in calls:
        await vault.request(call.method, call.path, dict(call.body))


async def _mounts(vault: Vault, mounts: Mapping[str, str]) -> list[Call]:
    there = data_of(await vault.request("GET", "sys/mounts")) if mounts else {}
    calls = []
    for path, kind in mounts.items():
        found = there.get(f"{path}/")
        if found is None:
            calls.append(Call("POST", f"sys/mounts/{path}", {"type": kind}, f"the {kind} engine"))
        elif found.get("type") != kind:
            raise VaultBad(f"{path} is a mount of another kind than {kind}; name another path")
    return calls


async def _logins(vault: Vault, logins: Mapping[str, str | None]) -> list[Call]:
    there = data_of(await vault.request("GET", "sys/auth")) if logins else {}
    calls = []
    for path, kind in logins.items():
        found = there.get(f"{path}/")
        if found is None and kind is None:
            raise VaultBad(f"there is no auth method at {path}; enable and configure it first, it says whom to trust")
        if found is None:
            calls.append(Call("POST", f"sys/auth/{path}", {"type": kind}, f"the {kind} login"))
        elif kind is not None and found.get("type") != kind:
            raise VaultBad(f"auth/{path} is of another kind than {kind}; name another path")
    return calls


async def _key(vault: Vault, path: str, kind: str) -> Call | None:
    there = await _look(vault, path)
    if there is None:
        body = {"type": kind, "exportable": False, "allow_plaintext_backup": False}
        return Call("POST", path, body, "a signing key, which cannot leave Vault")
    if there.get("type") != kind or there.get("exportable") or there.get("allow_plaintext_backup"):
        raise VaultBad(f"{path} is there, and is no {kind} key that cannot leave Vault; name another key")
    return None


async def _differing(vault: Vault, path: str, fields: Fields, why: str) -> list[Call]:
    there = await _look(vault, path)
    if there is not None and all(_same(there.get(name), value) for name, value in fields.items()):
        return []
    return [Call("POST", path, fields, why)]


async def _look(vault: Vault, path: str) -> dict[str, Any] | None:
    try:
        return data_of(await vault.request("GET", path))
    except VaultMissing:
        return None


def _same(there: object, wanted: object) -> bool:
    """Whether Vault shows this value; it leaves out some that are empty."""
    if isinstance(wanted, list):
        return sorted(there if isinstance(there, list) else []) == sorted(wanted)
    return there == wanted or (not wanted and not there)
