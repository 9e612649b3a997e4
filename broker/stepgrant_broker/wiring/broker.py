"""A broker put together: adapters, ports, policy, sweeper and HTTP application, opened and closed in order.

Rules:
* Keys and database belong together. Keys are only made together with a new database: with new keys, an old ledger could
  neither be read nor continued, and nobody would notice at the start.
* A clock or failpoints of a test are refused unless the settings say `test_mode`.
* It opens whole or not at all: what was opened before a failure is closed again.
* The HTTP application is made, and its libraries are loaded, by who serves it: a command beside a running broker does
  not wait for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgrant import canonical
from stepgrant_broker.api.metrics import Metrics
from stepgrant_broker.config import PREFIX, SettingsError
from stepgrant_broker.domain.chain_keys import Keys
from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.identity.nonces import LABEL, Nonces
from stepgrant_broker.issuers.jwt import JwtIssuer
from stepgrant_broker.issuers.static import StaticIssuer
from stepgrant_broker.ledger.newest import HeadFile
from stepgrant_broker.ledger.public_log import PublicLog
from stepgrant_broker.ledger.receipt import make_receipt
from stepgrant_broker.ledger.seen import Seen
from stepgrant_broker.ledger.sequencer import Sequencer
from stepgrant_broker.ledger.verify import LedgerCheck
from stepgrant_broker.policy import bundle as bundles
from stepgrant_broker.policy import contract
from stepgrant_broker.signing.local import LocalSigner
from stepgrant_broker.store.sealing import Seal
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.wiring.checking import the_log
from stepgrant_broker.wiring.clock import SystemClock, SystemIds
from stepgrant_broker.wiring.databases import check_database, is_built, migrate_database, open_store
from stepgrant_broker.wiring.failpoints import parse
from stepgrant_broker.wiring.following import Following
from stepgrant_broker.wiring.identity import open_identities, trust_of
from stepgrant_broker.wiring.key_keeping import KeyKeeping
from stepgrant_broker.wiring.policy import ActivePolicy, always
from stepgrant_broker.wiring.policy_engines import Wanted, engines_of
from stepgrant_broker.wiring.restoring import origin_of
from stepgrant_broker.wiring.seams import Seams
from stepgrant_broker.wiring.sequencing import Sequencing
from stepgrant_broker.wiring.signers import signer_of
from stepgrant_broker.wiring.sweeper import Sweeper
from stepgrant_broker.wiring.watching import cancelled, watch_policy
from stepgrant_broker.wiring.witnessing import witnesses_of
from stepgrant_broker.wiring.wrapping import make_wrap_keys, wrap_of

if TYPE_CHECKING:
    from fastapi import FastAPI

    from stepgrant_broker.api.token import Identities as Attests
    from stepgrant_broker.config import Settings
    from stepgrant_broker.domain.ports import Issuer
    from stepgrant_broker.ledger.findings import Progress
    from stepgrant_broker.policy.bundle import Bundle
    from stepgrant_broker.vault.client import Vault
    from stepgrant_broker.wiring.databases import AnyStore
    from stepgrant_broker.wiring.policy import Returns


@dataclass(slots=True)
class Broker:
    """A running broker. `make_app` gives what `serve` serves; everything else is for local commands and tests."""

    settings: Settings
    ports: Ports
    store: AnyStore
    policy: ActivePolicy
    metrics: Metrics
    sweeper: Sweeper
    sequencing: Sequencing
    log: PublicLog
    seen: Seen
    make_app: Callable[[], FastAPI]
    vault: Vault | None
    keys: KeyKeeping
    trusted: tuple[str, ...]

    async def tenants(self) -> tuple[str, ...]:
        """All tenants, and the one that local commands administer (which begins with its first entry)."""
        known = [tenant.id for tenant in await self.ports.reads.tenants()]
        return tuple(dict.fromkeys([*known, self.settings.tenant]))

    async def activate(self, bundle: Bundle, *, returns: Returns = always) -> str:
        """Make this the policy of all tenants, those to come of the trust file included; the revision.

        `returns` as of `ActivePolicy.activate`. Raises `PolicyInvalid`, `PolicyUnavailable` when OPA has not got it,
        `PolicySuperseded`, `StoreUnavailable`.
        """
        tenants = dict.fromkeys([*await self.tenants(), *self.trusted])
        return await self.policy.activate(self.ports, bundle, tenants, returns=returns)

    async def sweep_now(self) -> int:
        """One round of the sweeper; how many runs were parked."""
        return await self.sweeper.round()

    async def receipt(self, run: str, tenant: str | None = None, **options: Any) -> dict[str, Any]:  # noqa: ANN401
        """A receipt of a run; options as of `ledger.receipt.make_receipt`."""
        ports = self.ports
        return await make_receipt(
            ports.reads, ports.wrap, ports.signer, tenant or self.settings.tenant, run, log=self.log, **options
        )  # fmt: skip

    def ledger_check(self, watch: Callable[[Progress], None] | None = None, **log: Any) -> LedgerCheck:  # noqa: ANN401
        """A check of everything; iterate over its `findings()`. Options as of `wiring.checking.the_log`."""
        seen = the_log(self.store, self.log, self.settings, **log)
        made = LedgerCheck(
            self.store, self.store, self.ports.wrap, bundles.digest_of, log=seen, signer=self.keys.signer
        )
        if watch is not None:
            made.watch = watch
        return made


def bundle_of(files: Mapping[str, str]) -> Bundle:
    """The policy of these files (path below its root to text). Raises `PolicyInvalid`."""
    return bundles.from_files(dict(files))


def starter_with(settings: Mapping[str, Any]) -> Bundle:
    """The starter policy with these settings (`stepgrant_config/data.json`). Raises `PolicyInvalid`."""
    return bundles.read_starter(canonical.dumps(dict(settings)))


def policy_of(settings: Settings) -> Bundle:
    """The policy that the settings name, or the starter policy. Raises `PolicyInvalid`."""
    return bundles.read_directory(settings.policy_dir) if settings.policy_dir is not None else bundles.read_starter()


@asynccontextmanager
async def build(
    settings: Settings, *, create: bool = False, policy: Bundle | None = None, seams: Seams | None = None
) -> AsyncIterator[Broker]:
    """Open a broker, with its policy active and its sweeper running.

    Args:
        settings: what the operator set.
        create: make database and keys if neither is there (`init`, `dev`, tests); otherwise their absence is an error.
        policy: instead of the one that the settings name.
        seams: of a test.

    Raises:
        SettingsError: a seam for tests without `test_mode`.
        PolicyInvalid: the policy has findings.
        PolicySuperseded: the settings' files were active before, and nobody said that they are to come back.
        StepgrantFault: database or keys cannot be used (`StoreUnavailable`, `SignerUnavailable` and below), or the
            store is behind what was seen of it outside (`StoreRolledBack`).
    """
    if seams is not None and not settings.test_mode:
        raise SettingsError([f"{PREFIX}TEST_MODE: production takes no clock, identifiers or failpoints of a test"])
    async with AsyncExitStack() as stack:
        broker = await _open(stack, settings, seams or Seams(), create=create)
        await broker.seen.refuse_rolled_back(ask_witnesses=True)
        bundle = policy if policy is not None else await asyncio.to_thread(policy_of, settings)
        wanted = Wanted(broker, patient=settings.policy_engine == "opa")
        stack.push_async_callback(wanted.stop)
        meant = policy is not None or settings.watch_policy
        await wanted.want(bundle, returns=always if meant else lambda last: last == settings.policy_instead_of)
        following = Following(broker, wanted, lambda: policy if policy is not None else policy_of(settings))
        following.start()
        stack.push_async_callback(following.stop)
        if broker.vault is not None:
            broker.vault.start()
        await broker.keys.begin()
        stack.push_async_callback(broker.keys.stop)
        broker.sweeper.start()
        stack.push_async_callback(broker.sweeper.stop)
        broker.sequencing.start()
        stack.push_async_callback(broker.sequencing.stop)
        if settings.watch_policy and settings.policy_dir is not None:
            watching = asyncio.create_task(watch_policy(broker, wanted, settings.policy_dir, bundle.digest))
            stack.push_async_callback(cancelled, watching)
        yield broker


@asynccontextmanager
async def opened(settings: Settings, *, looking: bool = False) -> AsyncIterator[Broker]:
    """Store, keys and ports alone, for commands beside a running broker: no policy is activated and nothing swept.

    Raises `StepgrantFault` when database or keys are missing or cannot be used and, unless it is only for `looking`,
    `StoreRolledBack` where the head file knows more than the store.
    """
    async with AsyncExitStack() as stack:
        broker = await _open(stack, settings, Seams(), create=False)
        if not looking:
            await broker.seen.refuse_rolled_back(ask_witnesses=False)
        yield broker


def prepare(settings: Settings, *, create: bool, build_database: Callable[[Settings], None] = migrate_database) -> None:
    """Bring the database to this version; with `create`, make database and keys where there is neither.

    Raises `SchemaMissing`, `SchemaNewer`, `SchemaForeign`, `StoreUnavailable`, `SignerUnavailable`.
    """
    if is_built(settings):
        migrate_database(settings)
    elif create:
        _make_private(settings.keys_folder.parent)
        if settings.postgres_url is None:
            _make_private(settings.database_file.parent)
        # Keys first: a database without keys would never get any.
        if settings.signer == "local":
            LocalSigner.open(settings.keys_folder, create=True)
        make_wrap_keys(settings)
        build_database(settings)
    else:
        check_database(settings)


def _make_private(folder: Path) -> None:
    """Make a folder, and what is missing above it, for this user alone: who writes there can put other keys there."""
    for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        try:
            missing.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StoreUnavailable(f"the folder {missing} cannot be made: {error.strerror}") from None


async def _open(stack: AsyncExitStack, settings: Settings, seams: Seams, *, create: bool) -> Broker:
    await asyncio.to_thread(prepare, settings, create=create)
    clock, ids = seams.clock or SystemClock(), seams.ids or SystemIds()
    failpoints = seams.failpoints or (parse(settings.failpoints) if settings.failpoints else None)
    vault, from_vault = _vault(stack, settings)
    wrap = await wrap_of(settings, vault)
    signer = signer_of(settings, vault, clock)
    keys = Keys()
    seal = Seal(wrap, keys)
    store = await asyncio.to_thread(open_store, settings, clock=seams.clock, failpoints=failpoints, seal=seal)
    stack.push_async_callback(store.close)
    if failpoints is not None:
        failpoints.hit("start.recovery")
    policy = ActivePolicy(engines_of(settings, lambda: "dec_" + ids.ulid(clock.now())))
    stack.push_async_callback(policy.close)
    jwt, static = JwtIssuer(signer, settings.public_url), StaticIssuer(store, wrap)
    issuers: dict[str, Issuer] = {jwt.name: jwt, static.name: static, **from_vault}
    ports = Ports(
        store, store, policy, contract.parse, issuers, signer, wrap, clock, ids, failpoints, settings.limits(), keys
    )
    metrics = Metrics()
    keeping = KeyKeeping(ports, store, signer, metrics)
    await keeping.load()
    metrics.watch_queue(lambda: store.waiting)
    metrics.watch_vault(None if vault is None else lambda: vault.healthy)
    witnesses = witnesses_of(stack, settings, metrics.witness_refused)
    file, origin = HeadFile(settings.newest_folder), await origin_of(settings, store)
    sequencer = Sequencer(store, signer, clock, origin, witnesses=witnesses, outside=file)
    seen = Seen(store, sequencer, file, witnesses)
    public_log = PublicLog(store, sequencer)
    if witnesses is not None:
        witnesses.prove_from(public_log)
    trust = trust_of(settings)
    identities = open_identities(stack, trust, settings, store)
    given = seams.identities(identities) if seams.identities is not None else identities
    app = partial(_app, ports, settings, Nonces(wrap.derive(LABEL)), given, public_log, metrics)
    sweeper = Sweeper(ports, metrics, settings.sweep_ms)
    sequencing = Sequencing(sequencer, metrics, settings.log_every_ms)
    trusted = tuple(dict.fromkeys(issuer.tenant for issuer in trust.issuers))
    return Broker(
        settings, ports, store, policy, metrics, sweeper, sequencing, public_log, seen, app, vault, keeping, trusted
    )


def _vault(stack: AsyncExitStack, settings: Settings) -> tuple[Vault | None, Mapping[str, Issuer]]:
    """Vault and its issuers, where the settings name one. Raises `SettingsError`."""
    if settings.vault_addr is None:
        return None, {}
    try:
        from stepgrant_broker.wiring.vault import open_vault  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        raise SettingsError([f"{PREFIX}VAULT_ADDR: it needs `pip install 'stepgrant[vault]'`"]) from None
    return open_vault(stack, settings)


def _app(
    ports: Ports, settings: Settings, nonces: Nonces, identities: Attests, log: PublicLog, metrics: Metrics
) -> FastAPI:
    from stepgrant_broker.api.app import create_app  # noqa: PLC0415 - see the rules above
    from stepgrant_broker.api.context import ApiSettings  # noqa: PLC0415

    receipts = partial(make_receipt, ports.reads, ports.wrap, ports.signer, log=log, failpoints=ports.failpoints)
    return create_app(
        ports,
        settings=ApiSettings(settings.public_url, settings.max_body_bytes),
        nonces=nonces,
        identities=identities,
        make_receipt=receipts,
        log=log,
        metrics=metrics,
    )
