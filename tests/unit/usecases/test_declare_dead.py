"""A credential whose issuer can never confirm its death: an operator vouches for it, once its longest life is over."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fakes.hand import Hand
from fakes.outside import LOGIN, OutsideIssuer, grants, opened, payloads_behind
from stepgrant import canonical
from stepgrant_broker.domain.errors import Forbidden, InvalidRequest, PriorCredentialLive, UnknownGrant
from stepgrant_broker.domain.grants import LATE_MINT_MS, LONGEST_LIFE_MS, MINT_DEADLINE_MS
from stepgrant_broker.domain.state import GrantStatus
from stepgrant_broker.usecases.declare_dead import declare_dead
from stepgrant_broker.usecases.end import cancel_by_person
from stepgrant_broker.usecases.erase import erase_run
from stepgrant_broker.usecases.sweep import sweep
from stepgrant_broker.wiring.doctor import records

LONGEST_MS = MINT_DEADLINE_MS + LATE_MINT_MS + LONGEST_LIFE_MS


def without(broker: Hand, issuer: OutsideIssuer) -> None:
    """Its operators removed the issuer from the file, or renamed it, and restarted the broker."""
    kept = {name: one for name, one in broker.ports.issuers.items() if name != issuer.name}
    broker.ports = replace(broker.ports, issuers=kept)


async def left(broker: Hand, issuer: OutsideIssuer) -> tuple[str, str]:
    """A run that was resumed, and the login that its first holder left at an issuer that is gone."""
    run = await opened(broker)
    jti = str((await broker.begin(run, decision=LOGIN))["grant"]["jti"])
    without(broker, issuer)
    broker.clock.tick(31_000)
    await sweep(broker.ports)
    await broker.open(who="k2")
    return run, jti


async def last_entry(broker: Hand, run: str) -> dict[str, object]:
    entry = canonical.loads((await broker.ports.reads.entries("acme", run, limit=500))[-1].data)
    assert isinstance(entry, dict)
    return entry


async def test_what_waited_for_the_confirmation_goes_on_and_the_record_says_who_vouched(
    broker: Hand, issuer: OutsideIssuer
) -> None:
    run, jti = await left(broker, issuer)
    (grant,) = await grants(broker, run)
    broker.clock.tick(LONGEST_MS)
    await broker.open(who="k3")
    with pytest.raises(PriorCredentialLive):
        await broker.begin(run, "s2", who="k3", epoch=3, resource="order/2")
    answer = await declare_dead(broker.ports, broker.operator, jti, broker.request())
    assert (answer["status"], answer["cause"]) == ("revoked", "lease_lapsed"), "why it was taken back stays"
    entry = await last_entry(broker, run)
    assert (entry["type"], entry["cause"], entry["body"]) == (
        "grant_revoked", "declared_dead", {"unused": False, "confirmed": True},
    )  # fmt: skip
    assert entry["by"] != {"kind": "broker", "subject_c": None}
    assert (await grants(broker, run))[0].confirmed_at == broker.clock.now()
    assert await payloads_behind(broker, grant) == []
    assert (await sweep(broker.ports)).unconfirmed == 0
    assert (await broker.begin(run, "s2", who="k3", epoch=3, resource="order/2"))["outcome"] == "run"
    await cancel_by_person(broker.ports, broker.operator, run, broker.request())
    assert (await erase_run(broker.ports, broker.operator, run))["erased_at"] is not None


async def test_nobody_can_know_it_before_the_longest_life_is_over(broker: Hand, issuer: OutsideIssuer) -> None:
    run, jti = await left(broker, issuer)
    (grant,) = await grants(broker, run)
    over = grant.issued_at + LONGEST_MS + broker.ports.limits.leeway_ms
    before = await broker.entries(run)
    for wait in (over - broker.clock.now(), 1):
        broker.clock.ms = over - wait
        with pytest.raises(PriorCredentialLive) as early:
            await declare_dead(broker.ports, broker.operator, jti, broker.request())
        assert early.value.retry_after_ms == wait
        assert await broker.entries(run) == before
    broker.clock.tick(1)
    await declare_dead(broker.ports, broker.operator, jti, broker.request())
    assert (await broker.entries(run))[len(before) :] == ["grant_revoked"]


async def test_an_intent_that_nobody_ended_is_ended_with_it(broker: Hand, issuer: OutsideIssuer) -> None:
    run = await opened(broker)

    def crash() -> None:
        raise ConnectionResetError

    broker.failpoints.armed = {"usecase.before_mint": crash}
    with pytest.raises(ConnectionResetError):
        await broker.begin(run, decision=LOGIN)
    without(broker, issuer)
    broker.clock.tick(LONGEST_MS + broker.ports.limits.leeway_ms)
    (grant,) = await grants(broker, run)
    assert grant.status is GrantStatus.INTENT
    await declare_dead(broker.ports, broker.operator, grant.jti, broker.request())
    assert (await broker.entries(run))[-2:] == ["grant_revoked", "grant_revoked"]
    (grant,) = await grants(broker, run)
    assert (grant.status, grant.cause, grant.confirmed_at) == (
        GrantStatus.REVOKED, "declared_dead", broker.clock.now(),
    )  # fmt: skip


async def test_of_what_is_dead_nothing_is_written(broker: Hand, issuer: OutsideIssuer) -> None:
    run = await opened(broker)
    jti = (await broker.begin(run, decision=LOGIN))["grant"]["jti"]
    await broker.complete(run)
    assert issuer.alive == {}
    before = await broker.entries(run)
    await declare_dead(broker.ports, broker.operator, jti, broker.request())
    assert await broker.entries(run) == before


async def test_only_an_operator_and_only_what_waits_for_a_confirmation(broker: Hand, issuer: OutsideIssuer) -> None:
    run, jti = await left(broker, issuer)
    broker.clock.tick(LONGEST_MS)
    before = await broker.entries(run)
    with pytest.raises(Forbidden):
        await declare_dead(broker.ports, broker.approver(), jti, broker.request())
    with pytest.raises(UnknownGrant):
        await declare_dead(broker.ports, broker.operator, "grn_nobody", broker.request())
    assert await broker.entries(run) == before
    other = str((await broker.open("other", who="k9"))["run"])
    token = (await broker.begin(other, who="k9"))["grant"]["jti"]
    with pytest.raises(InvalidRequest, match="no confirmation is waited for"):
        await declare_dead(broker.ports, broker.operator, token, broker.request())
    assert (await broker.entries(other))[-1] == "grant_issued"


async def test_the_doctor_names_issuers_that_are_gone_and_the_way_out(broker: Hand, issuer: OutsideIssuer) -> None:
    run, jti = await left(broker, issuer)
    broker.clock.tick(LONGEST_MS)

    async def said() -> dict[str, str]:
        """What it finds of work left undone; of a broker it takes the ports alone."""
        return {one.name: one.fix or "" async for one in records.work(broker)}  # type: ignore[arg-type]

    assert "stepgrant grant declare-dead" in (await said())["issuers"]
    await declare_dead(broker.ports, broker.operator, jti, broker.request())
    assert "issuers" not in await said()
    assert (await grants(broker, run))[0].confirmed_at is not None
