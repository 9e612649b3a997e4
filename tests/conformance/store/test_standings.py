"""How runs stand, over all stores: the query and the domain's rule say the same of every run."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from conformance.store.adapters import AnyStore
from conformance.store.making import NOW, Chain, SetClock, a_step, an_approval
from stepgrant_broker.domain import standing
from stepgrant_broker.domain.errors import InvalidRequest
from stepgrant_broker.domain.ids import RESUME_STEP
from stepgrant_broker.domain.reads import Page
from stepgrant_broker.domain.standing import Standing
from stepgrant_broker.domain.state import ApprovalStatus, RunState, StepState

REASONS = ("queued", "requested", "error", "lease_lapsed", "released", "awaiting_approval", "in_doubt", "suspended",
           "set_aside")  # fmt: skip
QUESTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "none": (),
    "pending": ({"step": "s"},),
    "over": ({"step": "s", "answer_by": NOW - 1},),
    "answered": ({"step": "s", "status": ApprovalStatus.APPROVED, "settled_at": NOW - 5},),
    "one of two": ({"step": "s", "status": ApprovalStatus.DENIED, "settled_at": NOW - 5}, {"step": "s2"}),
    "resume": ({"step": RESUME_STEP},),
    "resume over": ({"step": RESUME_STEP, "answer_by": NOW},),
}


async def stored(store: AnyStore, run: dict[str, Any], lease: int, questions: str, *, doubt: bool) -> Chain:
    """A run with its questions, and one step."""
    chain = Chain.of_run(**run)
    rows: list[Any] = [an_approval(chain.the_run, **one) for one in QUESTIONS[questions]]
    rows.append(a_step(chain.the_run, key="d", state=StepState.IN_DOUBT if doubt else StepState.STARTED))
    await store.commit(chain.adds(1, rows=tuple(rows), lease_until=lease))
    return chain


def every_run() -> list[tuple[dict[str, Any], int]]:
    """Each state and reason, with the end of the lease."""
    made: list[tuple[dict[str, Any], int]] = [
        ({"state": RunState.COMPLETED, "ended_at": NOW}, NOW),
        ({"state": RunState.QUARANTINED}, NOW),
    ]
    made += [({"state": RunState.PARKED, "park_reason": reason, "parked_at": NOW - 9}, NOW - 9) for reason in REASONS]
    made += [({"state": RunState.OPEN}, lease) for lease in (NOW - 1, NOW, NOW + 1)]
    return made


@pytest.mark.parametrize(
    ("values", "open_question"),
    [
        ({}, True),
        ({"state": StepState.AWAITING_APPROVAL}, True),
        ({"duplicate": "run"}, False),
        ({"started_ever": True}, False),
        ({"state": StepState.ADOPTED, "same_as": "old"}, False),
    ],
)
async def test_a_suspected_duplicate_is_a_doubt_until_somebody_said_what_it_is(
    store: AnyStore, values: dict[str, Any], *, open_question: bool
) -> None:
    chain = Chain.of_run(state=RunState.PARKED, park_reason="in_doubt", parked_at=NOW - 9)
    await store.commit(chain.adds(1, rows=(a_step(chain.the_run, duplicate_of="old", **values),), lease_until=0))
    (known,) = (await store.standings("acme", Page(1000))).rows
    assert known.doubtful is open_question
    assert len((await store.standings("acme", Page(1000), resumable=True)).rows) == (not open_question)


async def test_the_query_finds_what_the_rule_says(store: AnyStore) -> None:
    """Every reason and state, with every question, with and without doubt."""
    for (run, lease), questions, doubt in itertools.product(every_run(), QUESTIONS, (False, True)):
        await stored(store, run, lease, questions, doubt=doubt)
    everything = (await store.standings("acme", Page(1000))).rows
    assert len(everything) == len(every_run()) * len(QUESTIONS) * 2

    expected = [known.run.id for known in reversed(everything) if standing.is_resumable(known)]
    found = (await store.standings("acme", Page(1000), resumable=True)).rows

    assert [known.run.id for known in found] == expected
    assert 0 < len(expected) < len(everything)
    assert {known.now for known in everything} == {NOW}


FACTS: list[tuple[str, dict[str, Any], int, str, bool, int | None]] = [
    ("held", {"state": RunState.OPEN}, NOW + 7, "none", False, NOW + 7),
    ("lapsed", {"state": RunState.OPEN}, NOW - 7, "pending", True, NOW - 7),
    ("lapsed, resume asked about", {"state": RunState.OPEN}, NOW - 7, "resume", False, None),
    ("queued", {"park_reason": "queued"}, 0, "none", False, NOW - 9),
    ("died over a question", {"park_reason": "lease_lapsed"}, 0, "pending", True, NOW - 9),
    ("asked", {"park_reason": "awaiting_approval"}, 0, "one of two", False, None),
    ("answered", {"park_reason": "awaiting_approval"}, 0, "answered", True, NOW),
    ("answered too late", {"park_reason": "awaiting_approval"}, 0, "over", False, NOW),
    ("in doubt", {"park_reason": "in_doubt"}, 0, "none", True, None),
    ("settled", {"park_reason": "in_doubt"}, 0, "answered", False, NOW),
    ("settled, but asked", {"park_reason": "in_doubt"}, 0, "pending", False, None),
    ("suspended", {"park_reason": "suspended"}, 0, "none", False, None),
    ("set aside", {"park_reason": "set_aside"}, 0, "none", False, None),
]


@pytest.mark.parametrize(
    ("run", "lease", "questions", "doubt", "at"), [pytest.param(*fact[1:], id=fact[0]) for fact in FACTS]
)
async def test_since_when(
    store: AnyStore,
    run: dict[str, Any],
    lease: int,
    questions: str,
    doubt: bool,  # noqa: FBT001 - a fact
    at: int | None,
) -> None:
    made = {"state": RunState.PARKED, "parked_at": NOW - 9, **run}
    chain = await stored(store, made, lease, questions, doubt=doubt)

    (known,) = (await store.standings("acme", Page(1), run=chain.run)).rows

    assert standing.resumable_at(known) == at
    assert standing.is_resumable(known) == (at is not None and at <= NOW)


async def test_a_question_that_is_over_keeps_nobody(store: AnyStore, clock: SetClock) -> None:
    chain = Chain.of_run(state=RunState.PARKED, park_reason="awaiting_approval", parked_at=NOW)
    await store.commit(chain.adds(1, rows=(an_approval(chain.the_run, "s", answer_by=NOW + 100),)))
    assert (await store.standings("acme", Page(), resumable=True)).rows == ()

    clock.time = NOW + 100

    (known,) = (await store.standings("acme", Page(), resumable=True)).rows
    assert (known.run.id, standing.resumable_at(known)) == (chain.run, NOW + 100)


async def test_oldest_first_page_by_page_and_by_filter(store: AnyStore) -> None:
    chains = [
        Chain.of_run(opened_at=NOW + n, agent=f"a{n % 2}", workload=f"w{n % 3}", state=RunState.PARKED,
                     park_reason="queued", parked_at=NOW)
        for n in range(6)
    ]  # fmt: skip
    for chain in chains:
        await store.commit(chain.adds(1, lease_until=NOW))
    found: list[Standing] = []
    after: str | None = None
    for _ in range(3):
        page = await store.standings("acme", Page(2, after), resumable=True)
        found, after = [*found, *page.rows], page.next
    assert after is None
    assert [known.run.id for known in found] == [chain.run for chain in chains]
    newest = await store.standings("acme", Page(2))
    assert [known.run.id for known in newest.rows] == [chains[5].run, chains[4].run]
    assert newest.next is not None
    assert [k.run.id for k in (await store.standings("acme", Page(9, newest.next))).rows][:1] == [chains[3].run]
    mine = (await store.standings("acme", Page(), agent="a1", workload="w0", resumable=True)).rows
    assert [known.run.id for known in mine] == [chains[3].run]
    assert (await store.standings("globex", Page(), resumable=True)).rows == ()
    assert (await store.standings("acme", Page(), state="open")).rows == ()


async def test_a_page_of_no_size_and_a_foreign_cursor_are_refused(store: AnyStore) -> None:
    for page in (Page(0), Page(1001), Page(1, "AA")):
        with pytest.raises(InvalidRequest):
            await store.standings("acme", page, resumable=True)
