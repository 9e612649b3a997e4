"""I9: after the end of a run nothing that it was given still works."""

from __future__ import annotations

from checker.cases.marked import breaks
from checker.evidence import Evidence
from checker.ledgers import LOGIN, Ledger
from checker.lives import started


def ended_with_a_login(*, confirmed: bool) -> tuple[Ledger, str]:
    """A run that had a login; the login's grant."""
    ledger = started()
    jti = ledger.begin("migrate", "db.migrate", **LOGIN)
    ledger.lease(jti)
    ledger.complete("migrate")
    ledger.revoke(jti, confirmed=False)
    ledger.end()
    if confirmed:
        ledger.revoke(jti)
    return ledger, jti


def seen(ledger: Ledger, jti: str, *, alive: bool = True) -> None:
    """The server says so of its login."""
    row = ledger.grants[jti]
    place = {name: row[name] for name in ("run", "step", "attempt", "epoch")}
    ledger.books.append({"login": "v-1", "alive": alive, "sessions": 0, "at": ledger.now + 100, **place})


@breaks("I9")
def an_end_that_takes_nothing_back() -> Ledger:
    ledger = started()
    ledger.begin("mail", "mail.send")
    ledger.end()
    return ledger


@breaks("I9")
def a_grant_after_the_end() -> Evidence:
    ledger = started()
    ledger.prepare("mail", "mail.send")
    ledger.decide("mail")
    ledger.end()
    ledger.grant("mail")
    return ledger.evidence(tables=None)


@breaks("I9")
def a_redemption_after_the_end() -> Evidence:
    ledger = started()
    jti = ledger.begin("mail", "mail.send")
    ledger.revoke(jti, unused=True)
    ledger.end()
    ledger.redeem(jti)
    return ledger.evidence()


@breaks("I9")
def a_lease_after_the_end() -> Ledger:
    ledger = started()
    jti = ledger.begin("migrate", "db.migrate", **LOGIN)
    ledger.revoke(jti, unused=True)
    ledger.end()
    ledger.lease(jti)
    return ledger


@breaks("I9")
def a_login_that_acts_after_the_end() -> Ledger:
    ledger, jti = ended_with_a_login(confirmed=True)
    ledger.did(jti, at=ledger.now + 100)
    return ledger


@breaks("I9")
def a_death_that_nobody_confirms() -> Evidence:
    ledger, _ = ended_with_a_login(confirmed=False)
    return ledger.evidence(settled_at=ledger.now + 50)


@breaks("I9")
def a_login_that_is_still_there() -> Ledger:
    """The issuer confirmed its death, and the server says that it lives."""
    ledger, jti = ended_with_a_login(confirmed=True)
    seen(ledger, jti)
    return ledger
