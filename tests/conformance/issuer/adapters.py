"""The issuers that the suite runs over. A new one joins by a function here and a line in `ADAPTERS` (and `NEEDS`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from changing import replace
from fakes.lying_vault import LyingVault
from fakes.outside import OutsideIssuer
from logins import ROLE, database_lab, nowhere
from papers import API_KEY, kv_lab, pki_lab
from stepgrant_broker.domain import aad
from stepgrant_broker.domain.ports import GrantOrder, Issuer, Minted, SecretRecord
from stepgrant_broker.issuers.jwt import JwtIssuer
from stepgrant_broker.issuers.static import StaticIssuer
from stepgrant_broker.signing.local import LocalSigner
from stepgrant_broker.signing.publishing import ALGORITHMS
from stepgrant_broker.signing.transit import TransitSigner
from stepgrant_broker.signing.wrap import LocalWrap
from stepgrant_broker.wiring.clock import SystemClock
from vaulted import transit_signer

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
    """One issuer: the thing itself, the same with its backend broken, an order that it serves, and what is secret.

    `works` asks the credential's target whether it still lets it in; `None` where there is no target.
    """

    issuer: Issuer
    broken: Issuer
    order: GrantOrder
    secret: str | None = None
    works: Callable[[Minted], Awaitable[bool]] | None = None

    def ordered(self, **changed: Any) -> GrantOrder:  # noqa: ANN401 - members of the order
        return replace(self.order, **changed)


@asynccontextmanager
async def jwt(_: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Adapter]:
    signer = LocalSigner.open(folder / "keys", create=True)
    url = "https://broker.example"
    yield Adapter(JwtIssuer(signer, url), JwtIssuer(LocalSigner({}), url), ORDER)


@asynccontextmanager
async def static(_: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Adapter]:
    wrap, other = (LocalWrap.open(folder / name, create=True) for name in ("keys", "other"))
    wrapped = wrap.wrap(SECRET.encode(), aad.static_secret("acme", "crm"))
    secrets = Secrets(SecretRecord("acme", "crm", ("crm.example",), "X-Api-Key", wrapped))
    order = replace(ORDER, params={"secret": "crm"}, redeem="optional")
    yield Adapter(StaticIssuer(secrets, wrap), StaticIssuer(secrets, other), order, SECRET)


@asynccontextmanager
async def outside(_request: pytest.FixtureRequest, _folder: Path) -> AsyncIterator[Adapter]:
    """The fake of an issuer outside, which tests of its faults use."""
    yield Adapter(OutsideIssuer(), OutsideIssuer(up=False), replace(ORDER, redeem="optional"))


LOGIN: Final = replace(ORDER, params={"role": ROLE}, redeem="optional", audience="")


@asynccontextmanager
async def vault_database(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Adapter]:
    vault, postgres = request.getfixturevalue("vault_server"), request.getfixturevalue("postgres_server")
    async with database_lab(vault, postgres, folder) as lab, nowhere(folder) as unreached:
        yield Adapter(lab.issuer, lab.config.build(unreached), LOGIN, works=lab.works)


@asynccontextmanager
async def honest_fake(_: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Adapter]:
    """The server that lies in other tests, while it is honest: what it says must be what Vault says."""
    with LyingVault() as fake:
        async with fake.issuer(folder) as issuer, nowhere(folder) as unreached:
            broken = fake.config.build(unreached)
            yield Adapter(issuer, broken, LOGIN, works=fake.works)


@asynccontextmanager
async def jwt_on_transit(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Adapter]:
    """The same tokens, signed by keys that are in Vault."""
    url, server = "https://broker.example", request.getfixturevalue("vault_server")
    async with transit_signer(server) as signer, nowhere(folder) as unreached:
        broken = TransitSigner(unreached, "transit", dict.fromkeys(ALGORITHMS, "nowhere"), SystemClock())
        yield Adapter(JwtIssuer(signer, url), JwtIssuer(broken, url), ORDER)


@asynccontextmanager
async def vault_kv(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Adapter]:
    async with kv_lab(request.getfixturevalue("vault_server"), folder) as lab, nowhere(folder) as unreached:
        order = replace(ORDER, params={"version": 1}, redeem="optional")
        yield Adapter(lab.issuer, lab.config.build(unreached), order, API_KEY)


@asynccontextmanager
async def vault_pki(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Adapter]:
    async with pki_lab(request.getfixturevalue("vault_server"), folder) as lab, nowhere(folder) as unreached:
        order = lab.order(ORDER, redeem="optional")
        yield Adapter(lab.issuer, lab.config.build(unreached), order)


Make: TypeAlias = Callable[[pytest.FixtureRequest, Path], AbstractAsyncContextManager[Adapter]]
ADAPTERS: Final[Mapping[str, Make]] = {
    "jwt": jwt,
    "static": static,
    "outside": outside,
    "vault-database": vault_database,
    "vault-database-fake": honest_fake,
    "jwt-on-transit": jwt_on_transit,
    "vault-kv": vault_kv,
    "vault-pki": vault_pki,
}
NEEDS: Final[Mapping[str, Sequence[str]]] = {
    "vault-database": ("vault", "postgres"),
    **dict.fromkeys(("jwt-on-transit", "vault-kv", "vault-pki"), ("vault",)),
}
PARAMS: Final = [
    pytest.param(name, marks=[pytest.mark.needs(*NEEDS[name])] if name in NEEDS else []) for name in sorted(ADAPTERS)
]
