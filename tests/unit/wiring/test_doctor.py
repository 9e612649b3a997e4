"""What the doctor makes of clocks, versions, packages and credentials outside, where something is wrong with them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from fakes.clock import StandingClock
from fakes.hand import Hand, hand
from fakes.outside import LOGIN, OutsideIssuer
from stepgrant_broker.config import Settings
from stepgrant_broker.usecases.enroll import Enrolment, enroll
from stepgrant_broker.usecases.misses import LONGEST_MS
from stepgrant_broker.usecases.sweep import Sweeping, sweep
from stepgrant_broker.wiring import Broker
from stepgrant_broker.wiring.doctor import host, records
from stepgrant_broker.wiring.doctor.clocks import apart
from stepgrant_broker.wiring.doctor.findings import Area, Found, State
from stepgrant_broker.wiring.doctor.versions import TESTED, version_of

JWK = {"kty": "EC", "crv": "P-256", "x": "x", "y": "y"}


async def looked(look: AsyncIterator[Found]) -> dict[str, Found]:
    """The findings by name; what is not well says what to do."""
    found = {one.name: one async for one in look}
    assert all(one.fix for one in found.values() if one.state is not State.OK)
    return found


# --- clocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "ahead"), [(1000, 0), (1500, 0), (2000, 0), (2001, 1), (999, -1), (5000, 3000), (0, -1000)]
)
def test_a_clock_that_was_read_between_two_moments(there: int, ahead: int) -> None:
    assert apart(there, 1000, 2000) == ahead


@pytest.mark.parametrize(
    ("ahead_ms", "state"), [(0, "ok"), (5000, "ok"), (-5000, "ok"), (5001, "fail"), (-5001, "fail")]
)
async def test_the_clock_of_the_store(
    broker: Broker, clock: StandingClock, monkeypatch: pytest.MonkeyPatch, ahead_ms: int, state: str
) -> None:
    here_s = (clock.now() - ahead_ms) / 1000
    monkeypatch.setattr(records, "time", SimpleNamespace(time=lambda: here_s))
    assert broker.ports.limits.leeway_ms == 5000
    found = (await looked(records.clock(broker)))["clock"]
    assert (found.area, found.state) == ("database", state)
    assert f"{ahead_ms if state == 'fail' else abs(ahead_ms)} ms" in found.what


@pytest.mark.parametrize(("back_ms", "state"), [(5000, "ok"), (5001, "fail")])
async def test_entries_of_the_future(
    broker: Broker, clock: StandingClock, monkeypatch: pytest.MonkeyPatch, back_ms: int, state: str
) -> None:
    monkeypatch.setattr(records, "time", SimpleNamespace(time=lambda: clock.now() / 1000))
    await enroll(broker.ports, "default", None, Enrolment("late", ("late",), (), JWK, "j1"))
    clock.tick(-back_ms)
    found = (await looked(records.clock(broker)))["clock"]
    assert (found.state, "tenant default has entries 5 s in the future" in found.what) == (state, state == "fail")


# --- versions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("products", "said", "known"),
    [
        (("OPA",), "1.0.0", "OPA 1.0.0"),
        (("OPA",), "1.22.2", "OPA 1.22.2"),
        (("OPA",), "v1.4.0-dev", "OPA 1.4.0"),
        (("Vault", "OpenBao"), "1.16.0", "Vault 1.16.0"),
        (("Vault", "OpenBao"), "1.21.1+ent", "Vault 1.21.1"),
        (("Vault", "OpenBao"), "2.4.1", "OpenBao 2.4.1"),
        (("PostgreSQL",), "15.18 (Debian 15.18-0+deb12u1)", "PostgreSQL 15.18"),
        (("PostgreSQL",), "18beta1", "PostgreSQL 18"),
    ],
)
def test_a_version_that_the_broker_is_tested_with(products: tuple[str, ...], said: str, known: str) -> None:
    assert version_of(Area("x"), said, *products) == Found("x", "version", State.OK, known)


@pytest.mark.parametrize(
    ("products", "said", "told"),
    [
        (("OPA",), "0.70.0", "it is version 0.70.0"),
        (("OPA",), "2.0.0", "it is version 2.0.0"),
        (("Vault", "OpenBao"), "1.15.9", "it is version 1.15.9"),
        (("Vault", "OpenBao"), "3.0.0", "it is version 3.0.0"),
        (("PostgreSQL",), "14.20", "it is version 14.20"),
        (("PostgreSQL",), "19devel", "it is version 19"),
        (("OPA",), "unknown", "it does not say which version it is"),
        (("OPA",), "1" * 5000, "it does not say which version it is"),
        (("OPA",), "\x1b[2J1.2.3", "it does not say which version it is"),
        (("Vault", "OpenBao"), None, "it does not say which version it is"),
        (("Vault", "OpenBao"), 1.21, "it does not say which version it is"),
    ],
)
def test_a_version_that_it_is_not_tested_with(products: tuple[str, ...], said: object, told: str) -> None:
    found = version_of(Area("x"), said, *products)
    assert (found.name, found.state, found.what) == ("version", State.WARN, told)
    assert all(
        f"{product} {'.'.join(map(str, TESTED[product][0]))} or newer, before" in found.fix for product in products
    )


async def test_a_package_that_is_missing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await looked(host.host(settings)))["versions"].state is State.OK
    monkeypatch.setattr(host, "PACKAGES", (*host.PACKAGES, "stepgrant-not-there"))
    found = (await looked(host.host(settings)))["versions"]
    assert (found.state, found.what) == (State.FAIL, "not installed: stepgrant-not-there")
    assert found.fix == "pip install 'stepgrant[broker]'"


# --- credentials that should be dead ---------------------------------------------------------------------------------


@pytest.fixture
async def issuer() -> OutsideIssuer:
    return OutsideIssuer()


@pytest.fixture
async def held(tmp_path: Path, issuer: OutsideIssuer) -> AsyncIterator[Hand]:
    """A broker whose only agent has a login outside, and is gone since."""
    async with hand(tmp_path) as made:
        made.ports = replace(made.ports, issuers={**made.ports.issuers, "outside": issuer})
        await made.begin(str((await made.open())["run"]), decision=LOGIN)
        made.clock.tick(31_000)
        yield made


async def work(made: Hand) -> dict[str, Found]:
    """What is found of work left undone; of a broker it takes the ports alone."""
    return await looked(records.work(made))  # type: ignore[arg-type]


async def test_a_credential_whose_issuer_is_down(held: Hand, issuer: OutsideIssuer) -> None:
    issuer.up, memory = False, Sweeping()
    await sweep(held.ports, memory)
    assert (await work(held))["leases"].state is State.OK, "it has been due for less than a minute"
    held.clock.tick(records.LATE_MS)
    found = await work(held)
    assert (found["leases"].area, found["leases"].state, "issuers" in found) == ("work", State.FAIL, False)
    assert found["leases"].what == "1 credential outside should be dead and may live: outside 1"
    assert "the sweeper then takes them back by itself" in found["leases"].fix
    issuer.up = True
    held.clock.tick(LONGEST_MS)
    await sweep(held.ports, memory)
    assert ((await work(held))["leases"].state, issuer.alive) == (State.OK, {})


async def test_a_credential_whose_issuer_is_no_longer_configured(held: Hand) -> None:
    held.ports = replace(held.ports, issuers={"jwt": held.ports.issuers["jwt"]})
    await sweep(held.ports)
    held.clock.tick(records.LATE_MS)
    found = await work(held)
    assert (found["leases"].state, found["issuers"].state) == (State.FAIL, State.FAIL)
    assert found["issuers"].what.endswith("they are not configured: outside")
    assert "put them back under these names" in found["issuers"].fix


async def test_runs_that_nobody_parks(held: Hand) -> None:
    assert (await work(held))["sweeper"].state is State.OK
    held.clock.tick(records.LATE_MS)
    assert (await work(held))["sweeper"].state is State.WARN
