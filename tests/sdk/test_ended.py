"""What is told of a run that is over when the broker's word about it is missing, late, or not to be believed."""

# ruff: noqa: ANN401 - a test hands on whatever the code under test takes and gives

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import stepgrant
from faces import IMPATIENT, Face, faces
from receipts import RUN, Book, jcs
from scripted import Item, Lost, Reply, ScriptedBroker, problem, scripted
from stepgrant import errors
from stepgrant._ended import SEARCHED

ENDED = problem("run_ended", 409, detail="the run is completed; that is final")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ScriptedBroker]:
    with scripted(tmp_path) as made:
        yield made


def page(*rows: tuple[str, str, str], after: str | None = None) -> Reply:
    """A list of runs: id, key, state."""
    runs = [{"id": run, "key": key, "agent": "agent", "state": state, "epoch": 1} for run, key, state in rows]
    return Reply({"runs": runs, "now": 1_800_000_000_000, "next": after})


def record(result: Any, *, status: str = "completed") -> Book:
    """The record of a run with this result."""
    book = Book()
    book.add("run_opened", body={"input_c": book.commit_digest("run.input", jcs({"order": 7}))})
    book.add("run_ended", outcome={"status": status, "result_c": book.commit_digest("outcome.result", jcs(result))})
    return book


async def refused(face: Face, broker: ScriptedBroker, *items: Item, **options: Any) -> errors.RunEnded:
    """What a caller is told whose run is over; `items` answer the look for it."""
    broker.will("runs", ENDED)
    broker.will("list", *items)
    with pytest.raises(errors.RunEnded) as over:
        async with face.run(**broker.at(timeouts=IMPATIENT, **options)):
            pytest.fail("nobody may enter")
    return over.value


@faces
async def test_the_recorded_result_is_told(face: Face, broker: ScriptedBroker) -> None:
    broker.will("run.receipt", Reply(record({"paid": [1.5, None]}).receipt()))
    over = await refused(face, broker, page((RUN, "job", "completed")), input={"order": 7})
    assert (over.run_key, over.run, over.state, over.recorded) == ("job", RUN, "completed", True)
    assert over.result == {"paid": [1.5, None]}
    assert broker.verbs == ["runs", "list", "run.receipt"]


@faces
async def test_a_refusal_that_names_the_run_spares_the_search(face: Face, broker: ScriptedBroker) -> None:
    broker.will("runs", problem("run_ended", 409, detail="the run is completed; …", run=RUN, state="completed"))
    broker.will("run.receipt", Reply(record({"paid": 7}).receipt()))
    with pytest.raises(errors.RunEnded) as over:
        async with face.run(**broker.at(timeouts=IMPATIENT)):
            pytest.fail("nobody may enter")
    assert (over.value.run, over.value.state, over.value.result) == (RUN, "completed", {"paid": 7})
    assert broker.verbs == ["runs", "run.receipt"]


@faces
@pytest.mark.parametrize(
    "named",
    [{"run": RUN, "state": "open"}, {"run": RUN}, {"run": "../keys", "state": "failed"}, {"run": 7, "state": "failed"}],
    ids=["not over", "no state", "no id", "no text"],
)
async def test_a_name_that_is_none_is_searched_for(face: Face, broker: ScriptedBroker, named: dict[str, Any]) -> None:
    broker.will("runs", problem("run_ended", 409, **named))
    broker.will("list", page((RUN, "job", "completed")))
    broker.will("run.receipt", Reply(record({"paid": 7}).receipt()))
    with pytest.raises(errors.RunEnded) as over:
        async with face.run(**broker.at(timeouts=IMPATIENT)):
            pytest.fail("nobody may enter")
    assert (over.value.run, over.value.state, over.value.result) == (RUN, "completed", {"paid": 7})
    assert broker.verbs == ["runs", "list", "run.receipt"]


@faces
async def test_a_key_is_looked_for_on_so_many_pages(face: Face, broker: ScriptedBroker) -> None:
    others = [page(("run_other", "other", "completed"), after="more")] * 99
    over = await refused(face, broker, *others)
    assert (over.run_key, over.run, over.state) == ("job", None, None)
    assert str(over).startswith("run 'job' is over (the run is completed; that is final); nothing was done now.")
    looks = broker.calls("list")
    assert len(looks) == SEARCHED / 500
    assert looks[1].path == "/v1/runs?agent=agent&limit=500&after=more"


@faces
@pytest.mark.parametrize(
    "item",
    [problem("forbidden", 403), problem("ledger_unavailable", 503), Reply({"runs": 7}), Lost()],
    ids=["forbidden", "unavailable", "unreadable", "lost"],
)
async def test_a_look_that_fails_hides_nothing(face: Face, broker: ScriptedBroker, item: Item) -> None:
    over = await refused(face, broker, *[item] * 99)
    assert (over.run_key, over.state, over.recorded) == ("job", None, False)


@faces
async def test_what_is_not_over_yet_is_not_read(face: Face, broker: ScriptedBroker) -> None:
    over = await refused(face, broker, page((RUN, "job", "open")))
    assert (over.run, over.state) == (None, None)
    assert broker.verbs == ["runs", "list"]


def forged(book: Book) -> dict[str, Any]:
    """The same record with another result than was committed to."""
    receipt = book.receipt()
    for one in receipt["disclosures"]:
        if one["field"] == "outcome.result":
            other = Book()
            other.commit_digest("outcome.result", jcs({"paid": 9}))
            one.update(value=next(iter(other.disclosures.values()))["value"])
    return receipt


def failed(_: Book) -> dict[str, Any]:
    """A record that ends otherwise than the list says."""
    return record(1, status="failed").receipt()


@faces
@pytest.mark.parametrize(
    "change", [forged, failed, lambda _: {"entries": ["!"], "disclosures": []}], ids=["forged", "other end", "garbage"]
)
async def test_a_record_that_does_not_hold_is_not_taken(face: Face, broker: ScriptedBroker, change: Any) -> None:
    broker.will("run.receipt", Reply(change(record({"paid": 7}))))
    over = await refused(face, broker, page((RUN, "job", "completed")))
    assert (over.run, over.state, over.recorded, over.result) == (RUN, "completed", False, None)


@faces
async def test_the_record_of_another_run_is_not_taken(face: Face, broker: ScriptedBroker) -> None:
    broker.will("run.receipt", Reply(record({"paid": 7}).receipt()))
    over = await refused(face, broker, page(("run_02", "job", "completed")))
    assert (over.run, over.recorded, over.result) == ("run_02", False, None)


@faces
async def test_a_closed_input_may_have_been_another(face: Face, broker: ScriptedBroker) -> None:
    receipt = record(None).receipt()
    receipt["disclosures"] = [one for one in receipt["disclosures"] if one["field"] != "run.input"]
    broker.will("run.receipt", Reply(receipt))
    over = await refused(face, broker, page((RUN, "job", "completed")), input={"order": 7})
    assert (over.recorded, over.other_input) == (False, False)


def test_a_worker_does_not_ask_how_it_ended(broker: ScriptedBroker) -> None:
    """There are other runs: whoever ended this one knows."""
    from stepgrant._agent import Handle, agent  # noqa: PLC0415
    from stepgrant._outcomes import ListedRun  # noqa: PLC0415
    from stepgrant._worker import Settings, Worker, _Job  # noqa: PLC0415
    from stepgrant._worker_find import Backoff, Finder  # noqa: PLC0415

    handle: Handle[Any, Any] = agent("agent", **broker.at())(lambda: pytest.fail("it is over"))
    worker = Worker([handle], Settings(), lambda _: None)
    job = _Job(Finder(handle, Backoff()), ListedRun(RUN, "job", "agent", "parked", 1))
    broker.will("runs", ENDED)
    with pytest.raises(errors.RunEnded), worker._opening(job):
        pytest.fail("nobody may enter")
    assert broker.verbs == ["runs"]


def test_who_is_not_to_be_told_more_still_learns_how_it_ended(broker: ScriptedBroker) -> None:
    broker.will("runs", problem("run_ended", 409, detail="the run is failed", run=RUN, state="failed"))
    with pytest.raises(errors.RunEnded) as over, stepgrant.run(agent="agent", **broker.at()):
        pytest.fail("nobody may enter")
    assert (over.value.run, over.value.state, str(over.value)) == (RUN, "failed", "the run is failed")
    assert broker.verbs == ["runs"]


def test_a_run_without_a_key_cannot_be_looked_for(broker: ScriptedBroker) -> None:
    broker.will("runs", ENDED)
    with pytest.raises(errors.RunEnded, match=r"^the run is completed"), stepgrant.run(agent="agent", **broker.at()):
        pytest.fail("nobody may enter")
    assert broker.verbs == ["runs"]
