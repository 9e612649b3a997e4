"""Static secrets that people already have: wrapped at rest, for named hosts, given out only under a grant."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final

from stepgrant_broker.domain import aad
from stepgrant_broker.domain.caller import PersonCaller, Request
from stepgrant_broker.domain.errors import InvalidRequest, NotFound
from stepgrant_broker.domain.ids import NAME
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.ports import SecretRecord, Wrapped
from stepgrant_broker.domain.writes import Loaded
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.tenant_call import Effectuated, operator_action, require_operator, tenant_call

HOST: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,252}[a-z0-9])?(?::[0-9]{1,5})?")
HEADER: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
SECRET_MAX: Final = 16_384


def view(secret: SecretRecord) -> dict[str, Any]:
    """A secret on the wire: everything but the secret."""
    return {
        "name": secret.name,
        "hosts": list(secret.hosts),
        "header": secret.header,
        "set_at": secret.set_at,
        "revocation": "none",
    }


async def set_secret(
    ports: Ports,
    tenant: str,
    person: PersonCaller | None,
    *,
    name: str,
    value: str,
    hosts: tuple[str, ...],
    header: str = "Authorization",
    request: Request | None = None,
) -> dict[str, Any]:
    """Set or replace a secret. Raises `Forbidden`, `InvalidRequest` (which never repeats the value)."""
    require_operator(person, "set a secret")
    if not NAME.fullmatch(name):
        raise InvalidRequest("name is letters, digits and . _ / : @ -", field="name")
    if not hosts or any(not HOST.fullmatch(host) for host in hosts):
        raise InvalidRequest("name at least one host, as host or host:port in lower case", field="hosts")
    if not HEADER.fullmatch(header):
        raise InvalidRequest("header is a header name", field="header")
    if not 1 <= len(value) <= SECRET_MAX or not value.isprintable():
        raise InvalidRequest(f"the value is 1 to {SECRET_MAX} printable characters", field="value")
    wrapped = ports.wrap.wrap(value.encode(), aad.static_secret(tenant, name))

    def act(journal: Journal, _: Loaded) -> Effectuated:
        secret = SecretRecord(tenant, name, tuple(sorted(set(hosts))), header, wrapped, set_at=journal.now)
        operator_action(journal, "secret_set", target=name, detail={"hosts": list(secret.hosts), "header": header})
        return Effectuated(view(secret), (secret,))

    return await tenant_call(ports, tenant, person, call="set secret", act=act, request=request)


async def remove_secret(
    ports: Ports, tenant: str, person: PersonCaller | None, name: str, request: Request | None = None
) -> dict[str, Any]:
    """Forget a secret; its wrapped bytes are overwritten. Raises `Forbidden`, `NotFound`."""
    require_operator(person, "remove a secret")
    known = next((s for s in await ports.reads.secrets(tenant) if s.name == name), None)
    if known is None:
        raise NotFound("no such secret")

    def act(journal: Journal, _: Loaded) -> Effectuated:
        empty = Wrapped(known.wrapped.key_id, nonce=b"", ciphertext=b"")
        gone = replace(known, wrapped=empty, removed_at=journal.now)
        operator_action(journal, "secret_removed", target=name)
        return Effectuated(view(gone), (gone,))

    return await tenant_call(ports, tenant, person, call="remove secret", act=act, request=request)
