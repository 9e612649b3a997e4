"""Who may act: the fence, proofs, identities, the kill switch between load and commit."""

import pytest

from changing import replace
from fakes.hand import Hand, allow, deciding
from fakes.world import call
from stepgrant_broker.domain.caller import AgentCaller
from stepgrant_broker.domain.decisions import Effect
from stepgrant_broker.domain.errors import (
    InvalidProof,
    InvalidToken,
    Quarantined,
    StaleEpoch,
    UnknownRun,
    WrongHolder,
)
from stepgrant_broker.domain.outcomes import Result
from stepgrant_broker.domain.ports import Evaluation
from stepgrant_broker.domain.reads import Page
from stepgrant_broker.usecases.begin import begin
from stepgrant_broker.usecases.complete import complete
from stepgrant_broker.usecases.enroll import unenroll
from stepgrant_broker.usecases.quarantine import quarantine


async def test_a_zombie_and_a_stranger_get_nothing(broker: Hand) -> None:
    run = (await broker.open())["run"]
    broker.clock.tick(31_000)
    await broker.open(who="k2")
    before = await broker.entries(run)
    with pytest.raises(StaleEpoch):
        await broker.begin(run)
    with pytest.raises(WrongHolder):
        await broker.begin(run, epoch=2)
    with pytest.raises(UnknownRun):
        await broker.begin("run_nope")
    assert await broker.entries(run) == before


async def test_a_replayed_proof_is_refused_and_leaves_nothing(broker: Hand) -> None:
    run = (await broker.open())["run"]
    caller = broker.agent()
    await begin(broker.ports, caller, run, call("a", **deciding(allow())), broker.request())
    before = await broker.entries(run)
    with pytest.raises(InvalidProof, match="used before"):
        await begin(broker.ports, caller, run, call("b", **deciding(allow())), broker.request())
    assert await broker.entries(run) == before


async def test_a_copy_of_a_request_does_not_get_its_stored_answer(broker: Hand) -> None:
    """Found by tests/faults/test_duplicates.py: the very bytes sent again were answered, on any replica, for a day."""
    run = (await broker.open())["run"]
    await broker.begin(run)
    caller, request = broker.agent(), broker.request()

    async def ask(who: AgentCaller) -> object:
        return await complete(broker.ports, who, run, "s1", 1, 1, Result(b"1"), request)

    first, before = await ask(caller), await broker.entries(run)
    with pytest.raises(InvalidProof, match="used before"):
        await ask(caller)
    assert await ask(broker.agent()) == first
    assert await broker.entries(run) == before


async def test_an_identity_that_ends_now_gets_no_grant(broker: Hand) -> None:
    run = (await broker.open())["run"]
    caller = replace(broker.agent(), not_after=broker.clock.now() + 400)
    with pytest.raises(InvalidToken, match="too soon"):
        await begin(broker.ports, caller, run, call(**deciding(allow())), broker.request())
    assert await broker.entries(run) == ["run_opened"]


async def test_a_removed_workload_gets_nothing_though_its_token_lives(broker: Hand) -> None:
    run = (await broker.open())["run"]
    granted = await broker.begin(run, "a")
    await unenroll(broker.ports, "acme", broker.operator, broker.workload.id, broker.request())
    with pytest.raises(Quarantined):
        await broker.begin(run, "b")
    with pytest.raises(Quarantined):
        await broker.redeem(granted["grant"]["jti"])


class SwitchThrownMeanwhile:
    """The real engine; the first time it is asked, somebody throws the kill switch before it answers."""

    def __init__(self, broker: Hand) -> None:
        self.broker = broker
        self.thrown = False

    async def evaluate(self, policy_input: bytes) -> Evaluation:
        """As the port says."""
        if not self.thrown:
            self.thrown = True
            await quarantine(self.broker.ports, self.broker.operator, "agent", "agent")
        return await self.broker.engine.evaluate(policy_input)

    async def close(self) -> None:
        """The engine is the hand's."""


async def test_a_call_in_flight_cannot_outrun_the_kill_switch(broker: Hand) -> None:
    run = (await broker.open("one"))["run"]
    other = Hand(**{**vars(broker), "ports": replace(broker.ports, policy=SwitchThrownMeanwhile(broker))})
    with pytest.raises(Quarantined):
        await other.begin(run)
    assert (await broker.entries(run)).count("grant_issued") == 0


async def test_an_open_in_flight_cannot_outrun_the_kill_switch(broker: Hand) -> None:
    other = Hand(**{**vars(broker), "ports": replace(broker.ports, policy=SwitchThrownMeanwhile(broker))})
    with pytest.raises(Quarantined):
        await other.open("two")
    assert (await broker.ports.reads.runs("acme", Page())).rows == ()


async def test_a_quarantined_issuer_mints_nothing_and_its_grants_are_dropped(broker: Hand) -> None:
    run = (await broker.open())["run"]
    await broker.begin(run, "a")
    await quarantine(broker.ports, broker.operator, "issuer", "jwt")
    assert (await broker.entries(run))[-1] == "grant_revoked"
    with pytest.raises(Quarantined, match="issuer jwt"):
        await broker.begin(run, "b")


async def test_the_lease_is_renewed_by_every_call_that_changes_something(broker: Hand) -> None:
    run = (await broker.open())["run"]
    for step in ("a", "b", "c"):
        broker.clock.tick(20_000)
        await broker.begin(run, step, effect=Effect.READ, decision=allow(effect="read"))
    await complete_all(broker, run)


async def complete_all(broker: Hand, run: str) -> None:
    """Complete a, b and c."""
    for step in ("a", "b", "c"):
        done = await complete(broker.ports, broker.agent(), run, step, 1, 1, Result(b"1"), broker.request())
        assert done["state"] == "completed"
