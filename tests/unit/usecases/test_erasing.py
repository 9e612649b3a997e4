"""Erasing a run: who may, when, what goes and what stays; and retention, which the sweeper runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable

import pytest

from fakes.hand import Hand, with_limits
from fakes.outside import LOGIN, OutsideIssuer, opened
from fakes.tale import INPUT, PRINCIPAL, whole_life
from stepgrant import canonical, receipt
from stepgrant_broker.domain.erasing import LeasesNotConfirmed, RunNotEnded
from stepgrant_broker.domain.errors import (
    FateUnknown,
    Forbidden,
    RunEnded,
    StoreUnavailable,
    UnknownRun,
)
from stepgrant_broker.domain.outcomes import Result
from stepgrant_broker.domain.writes import Query
from stepgrant_broker.ledger.receipt import make_receipt
from stepgrant_broker.usecases.end import cancel_by_person, end
from stepgrant_broker.usecases.erase import erase_run
from stepgrant_broker.usecases.revoke import revoke_grant
from stepgrant_broker.usecases.sweep import sweep

DAY = 86_400_000


async def ended(broker: Hand, name: str = "job", status: str = "completed") -> str:
    """A run with an input and a step, at its end."""
    run = str((await broker.open(name, input_bytes=INPUT, principal=PRINCIPAL))["run"])
    answer = await broker.begin(run)
    await broker.redeem(answer["grant"]["jti"])
    await broker.complete(run)
    result = Result(b'{"secret":"result"}')
    await end(broker.ports, broker.agent(), run, 1, status, result, broker.request())  # type: ignore[arg-type]
    return run


def behind(broker: Hand, run: str) -> dict[str, int]:
    """How many rows stand behind the run's commitments, read past the store."""
    db = sqlite3.connect(broker.store._readers._file.path)
    asked = {"payloads": "chain", "chain_keys": "key_id <> 'erased------------' AND run", "answers": "run"}
    found = {
        table: db.execute(f"SELECT count(*) FROM {table} WHERE {column} = ?", (run,)).fetchone()[0]  # noqa: S608
        for table, column in asked.items()
    }
    db.close()
    return found


NOTHING = {"payloads": 0, "chain_keys": 0, "answers": 0}


async def test_one_commit_takes_everything_and_the_entry_says_who(broker: Hand) -> None:
    run, beside = await ended(broker), await ended(broker, "other")
    kept, before, commits = behind(broker, beside), await broker.entries(run), broker.store.commits
    assert min(behind(broker, run).values()) > 0
    answer = await erase_run(broker.ports, broker.operator, run)
    assert broker.store.commits == commits + 1
    assert await broker.entries(run) == [*before, "run_erased"]
    assert behind(broker, run) == NOTHING
    assert behind(broker, beside) == kept
    known = (await broker.store.load(Query("acme", run=run))).view.run
    assert known is not None
    assert answer == {
        "run": run, "state": "completed", "erased_at": known.erased_at, "head": known.head, "entries": len(before) + 1,
    }  # fmt: skip
    (last,) = await broker.store.entries("acme", run, after=len(before) - 1)
    entry = canonical.loads(last.data)
    assert isinstance(entry, dict)
    assert (entry["body"], entry.get("cause")) == ({"operator": broker.operator.id}, None)


async def test_erasing_again_answers_the_same_and_writes_nothing(broker: Hand) -> None:
    run = await ended(broker)
    first = await erase_run(broker.ports, broker.operator, run)
    commits = broker.store.commits
    broker.clock.tick(1000)
    assert await erase_run(broker.ports, broker.operator, run) == first
    assert broker.store.commits == commits


async def test_only_an_operator_erases_and_only_what_has_ended(broker: Hand) -> None:
    run, going = await ended(broker), str((await broker.open("going"))["run"])
    refused: tuple[tuple[type[Exception], object, str], ...] = (
        (Forbidden, broker.approver("ann", "finance"), run),
        (RunNotEnded, broker.operator, going),
        (UnknownRun, broker.operator, "run_none"),
    )
    before = behind(broker, run), behind(broker, going)
    for error, person, name in refused:
        with pytest.raises(error):
            await erase_run(broker.ports, person, name)  # type: ignore[arg-type]
    assert (behind(broker, run), behind(broker, going)) == before
    assert "run_erased" not in [*await broker.entries(run), *await broker.entries(going)]


async def test_handles_are_kept_until_their_death_is_confirmed(broker: Hand, issuer: OutsideIssuer) -> None:
    run = await opened(broker)
    await broker.begin(run, decision=LOGIN)
    issuer.confirms = False
    await cancel_by_person(broker.ports, broker.operator, run, broker.request())
    before = behind(broker, run)
    with pytest.raises(LeasesNotConfirmed):
        await erase_run(broker.ports, broker.operator, run)
    kept = with_limits(broker.ports, kept_ms={"cancelled": 1})
    broker.clock.tick(5)
    assert (await sweep(kept)).erased == 0, "nor by retention"
    assert behind(broker, run) == before
    issuer.confirms = True
    await sweep(broker.ports)
    await erase_run(broker.ports, broker.operator, run)
    assert behind(broker, run) == NOTHING
    assert issuer.alive == {}


async def test_nothing_changes_an_erased_run_any_more(broker: Hand) -> None:
    run = await ended(broker)
    (grant,) = (await broker.store.load(Query("acme", run=run, step="s1"))).view.grants
    request = broker.request()
    await erase_run(broker.ports, broker.operator, run)
    entries = await broker.entries(run)
    for refused in (
        revoke_grant(broker.ports, broker.operator, grant, request),
        broker.open("job", who="k2", input_bytes=INPUT),
        end(broker.ports, broker.agent(), run, 1, "completed", Result(None), broker.request()),
    ):
        with pytest.raises(RunEnded) as over:
            await refused
        assert over.value.more == {"run": run, "state": "completed"}
    assert await broker.entries(run) == entries
    assert behind(broker, run)["payloads"] == 0


@pytest.mark.parametrize("where", ["store.before_apply", "store.before_commit", "store.after_commit"])
async def test_it_is_whole_or_not_at_all(broker: Hand, where: str) -> None:
    run = await ended(broker)
    before, there = behind(broker, run), where == "store.after_commit"

    def fail() -> None:
        raise OSError(5, "gone")

    broker.failpoints.armed = {where: fail}
    with pytest.raises(FateUnknown if there else StoreUnavailable):
        await erase_run(broker.ports, broker.operator, run)
    broker.failpoints.armed.clear()
    assert behind(broker, run) == (NOTHING if there else before)
    assert ("run_erased" in await broker.entries(run)) is there
    assert (await erase_run(broker.ports, broker.operator, run))["state"] == "completed"
    assert behind(broker, run) == NOTHING


async def test_a_receipt_of_an_erased_run_verifies_and_shows_nothing(broker: Hand) -> None:
    run = await whole_life(broker)
    ports = broker.ports
    args = (ports.reads, ports.wrap, ports.signer, "acme", run)
    before = await make_receipt(*args)
    await erase_run(ports, broker.operator, run)
    made = await make_receipt(*args)
    keys = {"keys": [dict(key.jwk) for key in await ports.signer.public_keys("heads")]}
    verified = receipt.verify(canonical.dumps(made), canonical.dumps(keys))
    assert verified.complete
    assert (made["disclosures"], made["entries"][:-1]) == ([], before["entries"])
    verified.continues(receipt.verify(canonical.dumps(before), canonical.dumps(keys)))
    assert receipt.verify(canonical.dumps(before), canonical.dumps(keys)).complete, "what was disclosed stays disclosed"


# ---------------------------------------------------------------------------------------------------------- retention


async def test_nothing_is_erased_by_itself(broker: Hand) -> None:
    run = await ended(broker)
    broker.clock.tick(10_000 * DAY)
    assert (await sweep(broker.ports)).erased == 0
    assert "run_erased" not in await broker.entries(run)


async def test_each_outcome_is_kept_for_its_own_time(broker: Hand) -> None:
    done, failed, cancelled = [await ended(broker, name, name) for name in ("completed", "failed", "cancelled")]
    ports = with_limits(broker.ports, kept_ms={"completed": 30 * DAY, "failed": 90 * DAY})

    async def erased() -> set[str]:
        return {run for run in (done, failed, cancelled) if "run_erased" in await broker.entries(run)}

    broker.clock.tick(30 * DAY - 1)
    assert ((await sweep(ports)).erased, await erased()) == (0, set())
    broker.clock.tick(1)
    assert ((await sweep(ports)).erased, await erased()) == (1, {done})
    assert ((await sweep(ports)).erased, await erased()) == (0, {done})
    broker.clock.tick(1000 * DAY)
    assert ((await sweep(ports)).erased, await erased()) == (1, {done, failed})
    (last,) = (await broker.store.entries("acme", done, limit=500))[-1:]
    entry = canonical.loads(last.data)
    assert isinstance(entry, dict)
    assert (entry["cause"], entry["by"], entry["body"]) == ("retention", {"kind": "broker", "subject_c": None}, {})


async def test_one_round_erases_a_few_the_oldest_first(broker: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepgrant_broker.usecases.sweep.ERASED_AT_ONCE", 2)
    runs = []
    for number in range(3):
        runs.append(await ended(broker, f"job-{number}"))
        broker.clock.tick(10)
    ports = with_limits(broker.ports, kept_ms={"completed": DAY})
    broker.clock.tick(DAY)
    assert (await sweep(ports)).erased == 2
    assert [("run_erased" in await broker.entries(run)) for run in runs] == [True, True, False]
    assert (await sweep(ports)).erased == 1


async def after_its_end(broker: Hand, passed: int) -> tuple[str, Callable[[], Awaitable[object]]]:
    """A run that ended so long ago, and a call about it that a person made just now, to be made again."""
    run, request = str((await broker.open())["run"]), broker.request()
    jti = (await broker.begin(run))["grant"]["jti"]
    await end(broker.ports, broker.agent(), run, 1, "failed", Result(None), broker.request())
    broker.clock.tick(passed)

    def revoke() -> Awaitable[object]:
        return revoke_grant(broker.ports, broker.operator, jti, request)

    await revoke()
    return run, revoke


async def test_retention_leaves_an_answer_to_its_end_once_those_of_the_runs_life_are_over(broker: Hand) -> None:
    """To look for them is to look through all answers of the tenant, and retention erases many runs."""
    run, revoke = await after_its_end(broker, DAY)
    assert (await sweep(with_limits(broker.ports, kept_ms={"failed": DAY}))).erased == 1
    assert behind(broker, run) == {**NOTHING, "answers": 1}
    with pytest.raises(RunEnded, match="erased with its run"):
        await revoke()
    broker.clock.tick(DAY)
    await sweep(broker.ports)
    assert behind(broker, run) == NOTHING


@pytest.mark.parametrize("who", ["a person", "retention, before those of its life are over"])
async def test_otherwise_they_go_with_the_run(broker: Hand, who: str) -> None:
    run, _ = await after_its_end(broker, DAY - 1)
    assert behind(broker, run)["answers"] > 1
    if who == "a person":
        broker.clock.tick(1)
        await erase_run(broker.ports, broker.operator, run)
    else:
        assert (await sweep(with_limits(broker.ports, kept_ms={"failed": DAY - 1}))).erased == 1
    assert behind(broker, run) == NOTHING
