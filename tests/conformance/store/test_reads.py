"""`Reads` and `SecretSource`: lists and pages, who sees what, and the sweeper's work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from conformance.store.adapters import AnyStore
from conformance.store.making import (
    NOW,
    Chain,
    SetClock,
    a_grant,
    a_payload,
    a_step,
    an_approval,
)
from stepgrant import canonical
from stepgrant_broker.domain.errors import InvalidRequest
from stepgrant_broker.domain.grants import MINT_DEADLINE_MS
from stepgrant_broker.domain.ports import Revocation, Wrapped
from stepgrant_broker.domain.reads import Backlog, Due, Listed, Page
from stepgrant_broker.domain.state import ApprovalStatus, GrantStatus, RunState
from stepgrant_broker.ledger.growing import grow

WRAPPED = Wrapped("k", b"n", b"c")


async def all_pages(ask: Callable[[Page], Awaitable[Listed[Any]]], limit: int) -> list[Any]:
    found: list[Any] = []
    page = Page(limit)
    while True:
        listed = await ask(page)
        assert 0 < len(listed.rows) <= limit
        found += listed.rows
        if listed.next is None:
            return found
        page = Page(limit, listed.next)


async def test_runs_newest_first_page_by_page(store: AnyStore) -> None:
    chains = [Chain.of_run(opened_at=NOW + number // 3) for number in range(10)]
    for chain in chains:
        await store.commit(chain.adds(1, lease_until=NOW))
    expected = sorted((chain.the_run for chain in chains), key=lambda run: (run.opened_at, run.id), reverse=True)
    for limit in (1, 3, 5, 9, 10, 11):
        found = await all_pages(lambda page: store.runs("acme", page), limit)
        assert found == [(run, NOW) for run in expected]


async def test_runs_by_workload_agent_and_state(store: AnyStore) -> None:
    chains = [
        Chain.of_run(workload=workload, agent=agent, state=state)
        for workload in ("w1", "w2")
        for agent in ("a1", "a2")
        for state in (RunState.OPEN, RunState.PARKED)
    ]
    for chain in chains:
        await store.commit(chain.adds(1))
    for filters in ({"workload": "w1"}, {"agent": "a2"}, {"state": "open"}, {"workload": "w2", "state": "parked"}):
        found = await all_pages(lambda page, filters=filters: store.runs("acme", page, **filters), 2)  # type: ignore[misc]
        expected = {c.run for c in chains if all(getattr(c.row, name) == value for name, value in filters.items())}
        assert {run.id for run, _ in found} == expected
        assert len(found) == len(expected)
    assert (await store.runs("acme", Page(), agent="nobody")).rows == ()


async def test_steps_in_the_order_of_their_position(store: AnyStore) -> None:
    chain, other = Chain.of_run(), Chain.of_run()
    steps = [a_step(chain.the_run, key=f"k{9 - n}", position=n // 2) for n in range(8)]
    await store.commit(chain.adds(1, rows=tuple(reversed(steps))))
    await store.commit(other.adds(1, rows=(a_step(other.the_run),)))
    expected = sorted(steps, key=lambda step: (step.position, step.key))
    assert await all_pages(lambda page: store.steps("acme", str(chain.run), page), 3) == expected
    assert (await store.steps("globex", str(chain.run), Page())).rows == ()


async def test_grants_of_a_run_and_live_ones(store: AnyStore, clock: SetClock) -> None:
    chain, other = Chain.of_run(), Chain.of_run()
    live = a_grant(chain.the_run, "s", issued_at=NOW + 3, exp=NOW + 10)
    over = a_grant(chain.the_run, "s", issued_at=NOW + 2, exp=NOW + 5)
    dead = a_grant(chain.the_run, "s", issued_at=NOW + 1, status=GrantStatus.REVOKED, revocation=Revocation.CONFIRMED)
    theirs = a_grant(other.the_run, "s", issued_at=NOW)
    await store.commit(chain.adds(1, rows=(over, live, dead)))
    await store.commit(other.adds(1, rows=(theirs,)))
    clock.time = NOW + 5
    assert await all_pages(lambda page: store.grants("acme", page), 2) == [live, over, dead, theirs]
    assert await all_pages(lambda page: store.grants("acme", page, run=chain.run), 2) == [live, over, dead]
    assert (await store.grants("acme", Page(), live=True)).rows == (live, theirs)
    assert (await store.grants("acme", Page(), run=chain.run, live=True)).rows == (live,)
    assert (await store.grants("globex", Page())).rows == ()


async def test_approvals_of_a_run_and_by_status(store: AnyStore) -> None:
    chain, other = Chain.of_run(), Chain.of_run()
    asked = an_approval(chain.the_run, "s", requested_at=NOW + 2)
    given = an_approval(chain.the_run, "s", requested_at=NOW + 1, status=ApprovalStatus.APPROVED)
    theirs = an_approval(other.the_run, "s")
    await store.commit(chain.adds(1, rows=(given, asked)))
    await store.commit(other.adds(1, rows=(theirs,)))
    assert await all_pages(lambda page: store.approvals("acme", page), 1) == [asked, given, theirs]
    assert (await store.approvals("acme", Page(), status="pending")).rows == (asked, theirs)
    assert (await store.approvals("acme", Page(), run=chain.run, status="approved")).rows == (given,)
    assert (await store.approvals("globex", Page())).rows == ()


async def test_a_page_does_not_shift_when_rows_come(store: AnyStore) -> None:
    chains = [Chain.of_run(opened_at=NOW + number) for number in range(4)]
    for chain in chains:
        await store.commit(chain.adds(1))
    first = await store.runs("acme", Page(2))
    await store.commit(Chain.of_run(opened_at=NOW + 9).adds(1))
    second = await store.runs("acme", Page(2, first.next))
    assert [run.id for run, _ in (*first.rows, *second.rows)] == [chain.run for chain in reversed(chains)]


async def test_a_cursor_gives_no_other_tenants_rows(store: AnyStore) -> None:
    for chain in (*(Chain.of_run(opened_at=NOW + n) for n in range(3)), Chain.of_run("globex", opened_at=NOW - 1)):
        await store.commit(chain.adds(1))
    cursor = (await store.runs("acme", Page(1))).next
    assert cursor is not None
    assert [run.tenant for run, _ in (await store.runs("globex", Page(9, cursor))).rows] == ["globex"]


FOREIGN: dict[str, str] = {
    "empty": "",
    "not base64url": "?",
    "not JSON": "AA",
    "too short": canonical.b64u(b"[1]"),
    "too long": canonical.b64u(b'[1,"a","b"]'),
    "an object": canonical.b64u(b"{}"),
    "a text for the number": canonical.b64u(b'["a","b"]'),
    "a number for the text": canonical.b64u(b"[1,2]"),
    "only a number": canonical.b64u(b"[1]"),
    "null": canonical.b64u(b"[null]"),
    "true for a number": canonical.b64u(b'[true,"a"]'),
    "a large number": canonical.b64u(b'[1e300,"a"]'),
    "large": "x" * 5000,
}


@pytest.mark.parametrize("cursor", FOREIGN.values(), ids=FOREIGN)
async def test_a_foreign_cursor_is_refused_by_name(store: AnyStore, cursor: str) -> None:
    page = Page(10, cursor)
    for ask in (store.runs, store.grants, store.approvals, lambda tenant, page: store.steps(tenant, "run", page)):
        with pytest.raises(InvalidRequest, match="cursor") as caught:
            await ask("acme", page)
        assert caught.value.field == "after"


@pytest.mark.parametrize("limit", [-1, 0, 1001])
async def test_a_page_without_bounds_is_refused(store: AnyStore, limit: int) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await store.runs("acme", Page(limit))
    assert caught.value.field == "limit"


async def test_entries_of_chains_are_apart(store: AnyStore) -> None:
    chain, own, theirs = Chain.of_run(), Chain.of_tenant(), Chain.of_tenant("globex")
    for some in (chain, own, theirs):
        await store.commit(some.adds(2))
    assert len(await store.entries("acme", chain.run)) == 2
    assert len(await store.entries("acme", None)) == 2
    assert await store.entries("globex", chain.run) == ()
    assert await store.entries("acme", chain.run, limit=0) == ()
    with pytest.raises(InvalidRequest):
        await store.entries("acme", chain.run, limit=-1)


async def test_lapsed(store: AnyStore) -> None:
    """Open runs of all tenants, the longest lapsed first."""
    cases = [
        ("acme", RunState.OPEN, NOW), ("globex", RunState.OPEN, NOW - 5), ("acme", RunState.OPEN, NOW + 1),
        ("acme", RunState.PARKED, NOW), ("acme", RunState.QUARANTINED, NOW),
    ]  # fmt: skip
    chains = []
    for tenant, state, lease in cases:
        chains.append(Chain.of_run(tenant, state=state))
        await store.commit(chains[-1].adds(1, lease_until=lease))
    ended = Chain.of_run(state=RunState.COMPLETED, ended_at=NOW)
    await store.commit(ended.adds(1, lease_until=NOW))
    assert await store.lapsed(NOW, 10) == (("globex", chains[1].run), ("acme", chains[0].run))
    assert await store.lapsed(NOW, 1) == (("globex", chains[1].run),)
    assert await store.lapsed(NOW, -1) == ()
    assert await store.lapsed(NOW - 6, 10) == ()


async def test_held(store: AnyStore) -> None:
    mine, parked, other = Chain.of_run(agent="a"), Chain.of_run(workload="w", state=RunState.PARKED), Chain.of_run()
    ended = Chain.of_run(agent="a", workload="w", state=RunState.FAILED, ended_at=NOW)
    foreign = Chain.of_run("globex", agent="a", workload="w")
    closed = a_grant(mine.the_run, "s", issuer="i", status=GrantStatus.REVOKED)
    await store.commit(mine.adds(1, rows=(closed,)))
    await store.commit(parked.adds(1))
    await store.commit(other.adds(1, rows=(a_grant(other.the_run, "s", issuer="i"),)))
    await store.commit(ended.adds(1, rows=(a_grant(ended.the_run, "s", issuer="i"),)))
    await store.commit(foreign.adds(1, rows=(a_grant(foreign.the_run, "s", issuer="i"),)))

    async def held(**names: str) -> set[str]:
        asked: dict[str, str | None] = {"agent": None, "workload": None, "issuer": None, **names}
        return set(await store.held("acme", **asked))

    assert await held(agent="a") == {mine.run}
    assert await held(workload="w") == {parked.run}
    assert await held(issuer="i") == {other.run}
    assert await held(agent="a", issuer="i") == {mine.run, other.run}
    assert await held() == set()
    assert await held(agent="nobody") == set()


async def test_whether_an_agent_ever_had_a_run(store: AnyStore) -> None:
    for chain in (Chain.of_run(agent="a"), Chain.of_run(agent="a"), Chain.of_run("globex", agent="theirs")):
        await store.commit(chain.adds(1))
    over = Chain.of_run(agent="bygone", state=RunState.FAILED, ended_at=NOW)
    await store.commit(over.adds(1))
    found = {name: await store.had_runs("acme", name) for name in ("a", "bygone", "theirs", "A", "")}
    assert found == {"a": True, "bygone": True, "theirs": False, "A": False, "": False}


@pytest.mark.parametrize(
    ("state", "due"),
    [
        ({"status": GrantStatus.INTENT}, NOW + MINT_DEADLINE_MS),
        ({"status": GrantStatus.INTENT, "revocation": Revocation.NONE}, NOW + MINT_DEADLINE_MS),
        ({"status": GrantStatus.ISSUED}, NOW + 60_000),
        ({"status": GrantStatus.REVOKED, "revoked_at": NOW + 5}, NOW + 5),
        ({"status": GrantStatus.REVOKED, "revoked_at": NOW + 5, "confirmed_at": NOW + 6}, None),
        ({"status": GrantStatus.FAILED}, None),
        ({"status": GrantStatus.ISSUED, "revocation": Revocation.EXPIRY}, None),
    ],
)
async def test_leases_due(store: AnyStore, state: dict[str, Any], due: int | None) -> None:
    chain = Chain.of_run()
    grant = a_grant(chain.the_run, "s", **{"revocation": Revocation.CONFIRMED, **state})
    await store.commit(chain.adds(rows=(grant,)))
    mine = Due(grant.tenant, grant.run, grant.jti, grant.issuer, due or 0)
    for now in (NOW, NOW + 5, NOW + MINT_DEADLINE_MS - 1, NOW + MINT_DEADLINE_MS, NOW + 59_999, NOW + 60_000):
        assert (mine in await store.leases_due(now, 1000)) is (due is not None and due <= now), now
    assert await store.leases_due(NOW + 10**9, 0) == ()


async def test_what_is_due_comes_in_pages_and_is_counted_whole(store: AnyStore) -> None:
    """Also where several were due at the same moment, and in two tenants under one id."""
    due = []
    for number, (tenant, at) in enumerate([("acme", 3), ("acme", 1), ("globex", 1), ("acme", 1), ("acme", 7)]):
        chain = Chain.of_run(tenant)
        lease = {"revocation": Revocation.CONFIRMED, "status": GrantStatus.REVOKED, "revoked_at": NOW + at}
        grant = a_grant(chain.the_run, "s", issuer=f"i{number}", **lease)
        await store.commit(chain.adds(rows=(grant,)))
        due.append(Due(tenant, grant.run, grant.jti, f"i{number}", NOW + at))
    expected = sorted(due[:-1], key=lambda one: (one.due_at, one.tenant, one.jti))
    for limit in (1, 2, 3, 4, 5):
        found, after = list[Due](), None
        while page := await store.leases_due(NOW + 6, limit, after):
            found, after = [*found, *page], page[-1]
        assert found == expected, limit
    assert await store.leases_left(NOW + 6) == (4, NOW + 1)
    assert await store.leases_left(NOW + 1) == (3, NOW + 1)
    assert await store.leases_left(NOW) == (0, None)


async def test_what_waits_is_counted_over_all_tenants(store: AnyStore) -> None:
    await store.log_origin("log")
    assert await store.backlog(NOW) == Backlog(0, None, 0, 0)
    parked, ended = {"state": RunState.PARKED, "parked_at": NOW}, {"state": RunState.COMPLETED, "ended_at": NOW}
    for tenant, state in (("acme", parked), ("globex", parked), ("acme", {}), ("acme", ended)):
        chain = Chain.of_run(tenant, **state)
        asked = [
            an_approval(chain.the_run, "s"),
            an_approval(chain.the_run, "s", answer_by=NOW + 5),
            an_approval(chain.the_run, "s", status=ApprovalStatus.APPROVED, settled_at=NOW),
        ]
        await store.commit(chain.adds(3, rows=tuple(asked), lease_until=NOW))
    # Nobody answers what a run that ended has asked, nor what nobody may answer any more.
    assert await store.backlog(NOW + 4) == Backlog(12, NOW, 2, 6)
    assert await store.backlog(NOW + 5) == Backlog(12, NOW, 2, 3)
    assert await store.log_append(grow(await store.log_tail(5), NOW))
    assert (await store.backlog(NOW)).entries == 7
    assert await store.log_append(grow(await store.log_tail(9), NOW))
    assert await store.backlog(NOW) == Backlog(0, None, 2, 6)


async def test_what_a_commit_erases_is_gone_and_nothing_else(store: AnyStore) -> None:
    chain, other = Chain.of_run(), Chain.of_run()
    gone, kept = a_payload(), a_payload()
    await store.commit(chain.adds(payloads=(gone, kept)))
    await store.commit(other.adds(payloads=(gone,)))
    await store.commit(chain.adds(erase=(gone.c,)))
    assert await store.payloads("acme", chain.run or "", [gone.c, kept.c]) == {kept.c: kept}
    assert await store.payloads("acme", other.run or "", [gone.c]) == {gone.c: gone}
