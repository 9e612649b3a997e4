"""After a restore: nothing of the lost part comes back, and nothing in it counts as not done."""

from __future__ import annotations

from checker.cases.marked import breaks
from checker.ledgers import Ledger
from checker.rare_lives import put_back


@breaks("I5")
def an_epoch_that_the_lost_part_may_have_used() -> Ledger:
    return put_back(jump=1)


@breaks("I5")
def a_restore_that_takes_nothing_back() -> Ledger:
    return put_back(takes_back=False)


@breaks("I8")
def a_restore_without_doubt() -> Ledger:
    return put_back(doubts=False)


@breaks("I6")
def an_answer_of_before_the_restore() -> Ledger:
    return put_back(voids=False)
