"""The issuers that the suite runs over. A new one joins by a function here and a line in `ADAPTERS`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

from fakes.outside import OutsideIssuer
from stepgrant_broker.domain import aad
from stepgrant_broker.domain.ports import GrantOrder, Issuer, SecretRecord
from stepgrant_broker.issuers.jwt import JwtIssuer
from stepgrant_broker.issuers.static import StaticIssuer
from stepgrant_broker.signing.local import LocalSigner
from stepgrant_broker.signing.wrap import LocalWrap

NOW: Final = 1_800_000_000_000
SECRET: Final = "hunter2-of-the-crm"

ORDER: Final = GrantOrder(
    tenant="acme",
    run="run_01",
    step="charge",
    attempt=2,
    epoch=9,
    jti="grn_01",
    subject="workload:acme/agent",
    client_id="wkl_01",
    instance="jkt-holder",
    jkt="jkt-holder",
    audience="https://tool.example",
    tool="refund.create",
    resource="order/991",
    args_digest="sha-256:" + "a" * 43,
    effect="once",
    idempotency_key="sg-1",
    redeem="required",
    issued_at=NOW + 250,
    expires_at=NOW + 60_000,
    policy_revision="3:sha-256:x",
    decision_id="dec_01",
    approval_id="apr_01",
    principal=None,
    params={},
)


class Secrets:
    """`SecretSource` in memory."""

    def __init__(self, *records: SecretRecord) -> None:
        self.records = {(record.tenant, record.name): record for record in records}

    async def secret(self, tenant: str, name: str) -> SecretRecord | None:
        return self.records.get((tenant, name))


@dataclass(frozen=True)
class Adapter:
    """One issuer: the thing itself, the same with its backend broken, an order that it serves, and what is secret."""

    issuer: Issuer
    broken: Issuer
    order: GrantOrder
    secret: str | None = None

    def ordered(self, **changed: Any) -> GrantOrder:  # noqa: ANN401 - members of the order
        return replace(self.order, **changed)


async def jwt(folder: Path) -> Adapter:
    signer = LocalSigner.open(folder / "keys", create=True)
    url = "https://broker.example"
    return Adapter(JwtIssuer(signer, url), JwtIssuer(LocalSigner({}), url), ORDER)


async def static(folder: Path) -> Adapter:
    wrap, other = (LocalWrap.open(folder / name, create=True) for name in ("keys", "other"))
    wrapped = wrap.wrap(SECRET.encode(), aad.static_secret("acme", "crm"))
    secrets = Secrets(SecretRecord("acme", "crm", ("crm.example",), "X-Api-Key", wrapped))
    order = replace(ORDER, params={"secret": "crm"}, redeem="optional")
    return Adapter(StaticIssuer(secrets, wrap), StaticIssuer(secrets, other), order, SECRET)


async def outside(folder: Path) -> Adapter:
    """The fake of an issuer outside, which tests of its faults use."""
    return Adapter(OutsideIssuer(), OutsideIssuer(up=False), replace(ORDER, redeem="optional"))


Make: TypeAlias = Callable[[Path], Awaitable[Adapter]]
ADAPTERS: Final[Mapping[str, Make]] = {"jwt": jwt, "static": static, "outside": outside}
