"""What the broker leans on: OPA, Vault with its issuers, issuers of identities. Each is asked what a broker asks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Final

from stepgrant import canonical
from stepgrant._keys import JoseError
from stepgrant_broker.config import PREFIX, SettingsError
from stepgrant_broker.domain.errors import StepgrantFault
from stepgrant_broker.policy.findings import PolicyInvalid
from stepgrant_broker.wiring.doctor.findings import Area, Found
from stepgrant_broker.wiring.doctor.versions import version_of

if TYPE_CHECKING:
    from stepgrant_broker.config import Settings
    from stepgrant_broker.vault.client import Vault
    from stepgrant_broker.wiring.broker import Broker

MIN_SESSION_S: Final = 60
NO_KEY: Final = "stepgrant-doctor-looks-for-no-key"

OPA, VAULT, ISSUERS, IDENTITY = Area("opa"), Area("vault"), Area("issuers"), Area("identity")


async def outside(settings: Settings, broker: Broker | None) -> AsyncIterator[Found]:
    """OPA, Vault and identities, as far as the settings name them."""
    looks = [_opa(settings, broker), _identities(settings)]
    if settings.vault_addr is None:
        pass
    elif broker is None or broker.vault is None:
        yield VAULT.unseen("session", "the database cannot be read, so the broker's own parts were not opened")
    else:
        looks.append(_vault(settings, broker.vault))
    for look in looks:
        async for found in look:
            yield found


async def _opa(settings: Settings, broker: Broker | None) -> AsyncIterator[Found]:
    if settings.policy_engine != "opa":
        return
    from stepgrant_broker.wiring.broker import policy_of  # noqa: PLC0415 - it imports every adapter
    from stepgrant_broker.wiring.policy import as_it_stands  # noqa: PLC0415 - as above
    from stepgrant_broker.wiring.policy_engines import engines_of  # noqa: PLC0415 - as above

    try:
        bundle = policy_of(settings)
        if broker is not None:
            bundle = await as_it_stands(broker.ports, bundle)
        engine = engines_of(settings, lambda: "dec_doctor")()
    except PolicyInvalid:
        yield OPA.unseen("revision", "the broker's own policy has findings, so OPA's cannot be compared with it")
        return
    except SettingsError as error:
        yield OPA.fail("settings", "; ".join(error.problems), "correct these settings")
        return
    version: str | None = None
    try:
        await engine.load("doctor", bundle)
        version = (await engine.evaluate(canonical.dumps({}))).engine.removeprefix("opa/")
    except PolicyInvalid as invalid:
        yield OPA.fail(
            "answers", invalid.detail, "OPA answers what is no decision: is it data.stepgrant of this policy?"
        )
    except StepgrantFault as fault:
        yield OPA.fail("revision", fault.detail, f"start OPA with the bundle of this policy; see {PREFIX}OPA_URL")
    else:
        yield OPA.ok("revision", f"it decides by {bundle.digest}, as the broker wants")
    finally:
        await engine.close()
    if version is None:
        yield OPA.unseen("version", "OPA tells it only with a decision by the broker's policy")
    else:
        yield version_of(OPA, version, "OPA")


async def _vault(settings: Settings, vault: Vault) -> AsyncIterator[Found]:
    from stepgrant_broker.vault.client import NO_TOKEN, data_of  # noqa: PLC0415 - an extra
    from stepgrant_broker.vault.faults import VaultFault  # noqa: PLC0415 - as above

    try:
        status = await vault.request("GET", "sys/seal-status", token=NO_TOKEN)
    except VaultFault as fault:
        yield VAULT.fail("reachable", fault.detail, f"is it up, and is {PREFIX}VAULT_ADDR right?")
        return
    yield version_of(VAULT, status.get("version"), "Vault", "OpenBao")
    if status.get("sealed") is not False:
        yield VAULT.fail("sealed", "Vault is sealed", "unseal it; grants of its issuers wait until then")
        return
    yield VAULT.ok("reachable", "unsealed")
    try:
        session = data_of(await vault.request("GET", "auth/token/lookup-self"))
    except VaultFault as fault:
        yield VAULT.fail("login", fault.detail, "see the vault_… settings, and `stepgrant vault setup`")
        return
    life = session.get("ttl")
    if isinstance(life, int) and 0 < life < MIN_SESSION_S and not session.get("renewable"):
        yield VAULT.warn("login", f"the session ends in {life} s and cannot be renewed", "give it a longer token_ttl")
    else:
        yield VAULT.ok("login", f"by {settings.vault_auth}")
    if "root" in (session.get("policies") or []):
        yield VAULT.warn("login", "the broker is root to Vault", "give it the policies of `stepgrant vault setup`")
    for look in (_signing(settings, vault), _issuers(settings, vault)):
        async for found in look:
            yield found


async def _signing(settings: Settings, vault: Vault) -> AsyncIterator[Found]:
    """Every key signs once, verified; Vault cannot tell a key that is missing from one that is forbidden."""
    if settings.signer != "transit":
        return
    from stepgrant_broker.wiring.clock import SystemClock  # noqa: PLC0415 - it imports every adapter
    from stepgrant_broker.wiring.signers import signer_of  # noqa: PLC0415 - as above

    signer = signer_of(settings, vault, SystemClock())
    for purpose, name in settings.transit_keys.items():
        try:
            await signer.sign(purpose, b"stepgrant doctor")
        except StepgrantFault as fault:
            mend = "`stepgrant vault setup` makes the keys and lets the broker sign"
            yield VAULT.fail(f"key {name}", fault.detail, mend)
        else:
            yield VAULT.ok(f"key {name}", f"signs {purpose}")


async def _issuers(settings: Settings, vault: Vault) -> AsyncIterator[Found]:
    from stepgrant_broker.vault.faults import VaultFault  # noqa: PLC0415 - an extra
    from stepgrant_broker.wiring.vault import configured_issuers  # noqa: PLC0415 - as above

    for name, config in configured_issuers(settings).items():
        wrong = 0
        try:
            for problem in await _missing(vault, config.broker_rules()):
                wrong += 1
                yield ISSUERS.fail(name, problem, "`stepgrant vault setup` gives the broker what it needs")
            for problem in await config.probe(vault):
                wrong += 1
                yield ISSUERS.fail(name, problem, "change it in Vault; until then no grant of it is given")
        except VaultFault as fault:
            wrong += 1
            yield ISSUERS.fail(name, fault.detail, "the message says what Vault lacks")
        if not wrong:
            yield ISSUERS.ok(name, f"{config.kind}: Vault has what it needs, and the broker may use it")


async def _missing(vault: Vault, rules: Mapping[str, tuple[str, ...]]) -> list[str]:
    from stepgrant_broker.vault.client import data_of  # noqa: PLC0415 - an extra

    answer = data_of(await vault.request("POST", "sys/capabilities-self", {"paths": sorted(rules)}))
    problems = []
    for path, wanted in sorted(rules.items()):
        held = answer.get(path)
        allowed = set(held) if isinstance(held, list) else set()
        lacks = [] if "root" in allowed else [one for one in wanted if one not in allowed]
        if lacks:
            problems.append(f"the broker lacks {', '.join(lacks)} on {path}")
    return problems


async def _identities(settings: Settings) -> AsyncIterator[Found]:
    from stepgrant_broker.domain.errors import IssuerUnavailable  # noqa: PLC0415 - with the rest of identities
    from stepgrant_broker.wiring.identity import issued_identity, trust_of  # noqa: PLC0415 - it imports every adapter

    try:
        trust = trust_of(settings)
    except SettingsError as error:
        for problem in error.problems:
            yield IDENTITY.fail("trust_file", problem, "correct the file; the broker does not start with it")
        return
    if not trust.issuers:
        yield IDENTITY.ok("issuers", "none but enrolled keys")
    for issuer in trust.issuers:
        try:
            _, keys = issued_identity(trust, issuer)
        except SettingsError as error:
            yield IDENTITY.fail(issuer.name, "; ".join(error.problems), "correct the file")
            continue
        try:
            await keys.find(NO_KEY, min(issuer.algorithms))
        except JoseError:
            yield IDENTITY.ok(issuer.name, f"{issuer.method}: its keys can be fetched")
        except IssuerUnavailable as fault:
            yield IDENTITY.fail(
                issuer.name, fault.detail, "can this host reach it? workloads of it are refused until then"
            )
        finally:
            await keys.close()
