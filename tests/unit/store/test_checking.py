"""A write set that contradicts itself never reaches the database: each rule of `checking.py`, broken once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from changing import replace
from conformance.store.making import NOW, Chain, a_grant, a_run, a_step, an_answer, an_approval, an_epoch
from stepgrant_broker.domain.ports import Wrapped
from stepgrant_broker.domain.writes import ChainKey, Quarantine, Tenant, WriteSet
from stepgrant_broker.store.checking import check
from stepgrant_broker.store.faults import WriteSetMalformed

WRAPPED = Wrapped("k", b"n", b"c")


def whole(chain: Chain) -> WriteSet:
    return chain.adds(2, rows=(a_step(chain.the_run), ChainKey("acme", str(chain.run), WRAPPED)), lease_until=NOW)


def with_rows(chain: Chain, *rows: object) -> WriteSet:
    return replace(whole(chain), rows=(chain.row, *rows))


BROKEN: dict[str, Callable[[Chain, Chain], WriteSet]] = {
    "entries without their chain's row": lambda c, _: replace(whole(c), rows=()),
    "an entry of another run": lambda c, o: replace(whole(c), entries=o.adds(2).entries),
    "an entry of the tenant": lambda c, _: replace(whole(c), entries=Chain.of_tenant().adds(2).entries),
    "an entry too late": lambda c, _: replace(whole(c), expect_seq=1),
    "a row before its entries": lambda c, _: replace(whole(c), rows=(replace(c.the_run, seq=1),)),
    "another head": lambda c, _: replace(whole(c), rows=(replace(c.the_run, head="A" * 43),)),
    "two rows of the chain": lambda c, _: with_rows(c, c.row),
    "another run's row": lambda c, o: with_rows(c, o.row),
    "only another run's row": lambda c, _: replace(whole(c), rows=(replace(c.the_run, id="run_x"),)),
    "a tenant's row in a run's set": lambda c, _: with_rows(c, Tenant("acme", 0, "h", 0)),
    "a new run without its row": lambda c, _: c.bare(lease_until=NOW),
    "a step of another run": lambda c, o: with_rows(c, a_step(o.the_run)),
    "a grant of another run": lambda c, o: with_rows(c, a_grant(o.the_run, "s")),
    "an approval of another run": lambda c, o: with_rows(c, an_approval(o.the_run, "s")),
    "an epoch of another run": lambda c, o: with_rows(c, an_epoch(o.the_run, 1)),
    "a key of another run": lambda c, o: with_rows(c, ChainKey("acme", str(o.run), WRAPPED)),
    "the tenant's key in a run's set": lambda c, _: with_rows(c, ChainKey("acme", "", WRAPPED)),
    "a step of another tenant": lambda c, _: with_rows(c, a_step(a_run("globex"))),
    "a kill switch of another tenant": lambda c, _: with_rows(c, Quarantine("globex", "agent", "a", NOW)),
    "a tenant that is another": lambda c, _: replace(whole(c), tenant="globex"),
    "an answer of another run": lambda c, o: replace(whole(c), answer=an_answer(o)),
    "an answer of another tenant": lambda c, _: replace(whole(c), answer=an_answer(c, tenant="globex")),
    "a lease without a run": lambda _, __: Chain.of_tenant().adds(1, lease_until=NOW),
    "a step in a tenant's set": lambda c, _: Chain.of_tenant().adds(1, rows=(a_step(c.the_run),)),
    "a run's row in a tenant's set": lambda c, _: replace(Chain.of_tenant().adds(1), rows=(c.row,)),
    "a row that moves without entries": lambda c, _: replace(whole(c), entries=()),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken(name: str) -> None:
    writes = BROKEN[name](Chain.of_run(), Chain.of_run())
    with pytest.raises(WriteSetMalformed) as caught:
        check(writes)
    assert caught.value.code == "internal"


def test_whole() -> None:
    check(whole(Chain.of_run()))
    check(Chain.of_tenant().adds(3, rows=(Quarantine("acme", "agent", "a", NOW), ChainKey("acme", "", WRAPPED))))
    check(Chain.of_tenant().bare())
