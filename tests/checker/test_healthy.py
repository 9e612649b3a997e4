"""What a healthy broker writes, however rough its run was, gives nothing: a referee that cries wolf is of no use."""

from __future__ import annotations

from dataclasses import replace

import pytest

from checker.cases.allowed import an_allow_while_the_engine_was_down
from checker.cases.ends import ended_with_a_login, seen
from checker.cases.holders import a_zombie_that_was_obeyed
from checker.cases.subtle import waiting
from checker.check import check
from checker.evidence import Evidence
from checker.ledgers import Ledger
from checker.lives import LIVES, Life, started
from checker.rare_lives import RARE


@pytest.mark.parametrize("life", [*LIVES, *RARE], ids=lambda life: life.__name__)
def test_nothing_is_broken(life: Life) -> None:
    ledger = life()
    assert check(ledger.evidence()) == []
    assert check(ledger.evidence(settled_at=ledger.now + 1)) == []


@pytest.mark.parametrize("life", [*LIVES, *RARE], ids=lambda life: life.__name__)
def test_nothing_is_broken_at_any_moment(life: Life) -> None:
    """Whenever the broker is killed, what it has written by then is healthy."""
    ledger = life()
    for length in range(1, len(ledger.entries)):
        cut = replace(ledger, entries=ledger.entries[:length])
        assert check(cut.evidence(tables=None, books=[], heard=[])) == []


def test_a_login_may_live_until_its_death_is_confirmed() -> None:
    ledger, jti = ended_with_a_login(confirmed=False)
    seen(ledger, jti)
    assert check(ledger.evidence()) == []
    assert check(ledger.evidence(settled_at=ledger.now + 200)) != []


def test_a_witness_with_a_clock_of_its_own_says_nothing_about_when() -> None:
    for obeyed in (a_zombie_that_was_obeyed, an_allow_while_the_engine_was_down):
        ledger = obeyed()
        assert isinstance(ledger, Ledger)
        assert check(ledger.evidence()) != []
        assert check(ledger.evidence(one_clock=False)) == []


@pytest.mark.parametrize("effect", ["allow", "require_approval"])
def test_a_run_that_people_let_go_on(effect: str) -> None:
    ledger = waiting()
    ledger.answer("apr_1")
    ledger.resume(decision=ledger.decision(effect), approval={"id": "apr_1"})
    ledger.approvals["apr_1"]["consumed_by"] = "epoch:2"
    assert check(ledger.evidence()) == []


def test_a_time_that_never_falls_is_no_clock() -> None:
    """After a clock fell by an hour entries keep the older time, and what was made since then seems to have run out."""
    ledger = started()
    jti = ledger.begin("mail", "mail.send")
    ledger.now += 3_600_000
    ledger.redeem(jti, act_before=ledger.grants[jti]["exp"])
    assert {one.invariant for one in check(ledger.evidence())} == {"I3"}
    assert check(ledger.evidence(one_clock=False)) == []


def test_runs_without_a_key_are_many() -> None:
    one, two = (started(run, "").evidence() for run in ("run_1", "run_2"))
    assert check(Evidence([*one.entries, *two.entries[1:]])) == []


def test_types_that_are_not_known_say_nothing() -> None:
    ledger = started()
    ledger.add("moon_phase", step="pay", body={"phase": "full"})
    assert check(ledger.evidence()) == []
