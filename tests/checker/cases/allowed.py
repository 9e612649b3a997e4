"""I6: a failed dependency never becomes an allow, and nothing else does, either."""

from __future__ import annotations

from checker.cases.marked import breaks
from checker.ledgers import LOGIN, Ledger
from checker.lives import started


def prepared() -> Ledger:
    """A step that nobody has decided."""
    ledger = started()
    ledger.prepare("mail", "mail.send")
    return ledger


def asked(**limits: int) -> Ledger:
    """A step about which people were asked."""
    ledger = prepared()
    ledger.decide("mail", "require_approval")
    ledger.ask("apr_1", "mail", **limits)
    return ledger


def answered(**limits: int) -> Ledger:
    """A step that people approved."""
    ledger = asked(**limits)
    ledger.answer("apr_1")
    return ledger


def granted(ledger: Ledger, effect: str = "require_approval") -> Ledger:
    """The step is decided again and granted with its approval."""
    ledger.decide("mail", effect)
    ledger.grant("mail", approval="apr_1")
    return ledger


@breaks("I6")
def nobody_decided() -> Ledger:
    ledger = prepared()
    ledger.grant("mail")
    return ledger


@breaks("I6")
def denied() -> Ledger:
    ledger = prepared()
    ledger.decide("mail", "deny")
    ledger.grant("mail")
    return ledger


@breaks("I6")
def denied_whatever_people_said() -> Ledger:
    return granted(answered(), "deny")


@breaks("I6")
def one_decision_for_two_grants() -> Ledger:
    ledger = started()
    ledger.revoke(ledger.begin("mail", "mail.send"), unused=True)
    ledger.grant("mail")
    return ledger


@breaks("I6")
def a_decision_of_an_older_epoch() -> Ledger:
    ledger = prepared()
    ledger.decide("mail")
    ledger.now += 10_000
    ledger.resume()
    ledger.grant("mail")
    return ledger


@breaks("I6")
def advice_is_no_decision() -> Ledger:
    ledger = prepared()
    ledger.decide("mail", phase="prepare")
    ledger.grant("mail")
    return ledger


@breaks("I6")
def an_allow_without_a_reason() -> Ledger:
    ledger = prepared()
    ledger.decide("mail", reasons=[])
    ledger.grant("mail")
    return ledger


@breaks("I6")
def the_same_decision_again() -> Ledger:
    """As a cache would give it while the engine is down."""
    ledger = prepared()
    ledger.decide("mail", decision_id="dec_1")
    ledger.grant("mail")
    return ledger


@breaks("I6")
def a_policy_that_was_never_activated() -> Ledger:
    ledger = prepared()
    ledger.decide("mail", policy_revision="2:sha-256:y")
    ledger.grant("mail")
    return ledger


@breaks("I6")
def opened_without_an_allow() -> Ledger:
    ledger = Ledger()
    ledger.open(decision=ledger.decision("deny"))
    return ledger


@breaks("I6")
def resumed_without_an_allow() -> Ledger:
    ledger = started()
    ledger.resume(decision=None)
    return ledger


@breaks("I6")
def people_were_not_asked() -> Ledger:
    ledger = prepared()
    ledger.decide("mail", "require_approval")
    ledger.grant("mail")
    return ledger


@breaks("I6")
def people_have_not_answered() -> Ledger:
    return granted(asked())


@breaks("I6")
def an_approval_that_is_not_there() -> Ledger:
    ledger = prepared()
    ledger.decide("mail")
    ledger.grant("mail", approval="apr_9")
    return ledger


@breaks("I6")
def an_approval_of_another_step() -> Ledger:
    ledger = answered()
    ledger.prepare("call", "phone.call")
    ledger.decide("call", "require_approval")
    ledger.grant("call", approval="apr_1")
    return ledger


@breaks("I6")
def people_said_no() -> Ledger:
    ledger = asked()
    ledger.answer("apr_1", settled="denied", verdict="deny")
    return granted(ledger)


@breaks("I6")
def one_person_counted_twice() -> Ledger:
    ledger = asked(quorum=2)
    ledger.answer("apr_1", "Ann", "pending")
    ledger.answer("apr_1", "Ann")
    return granted(ledger)


@breaks("I6")
def an_approval_that_was_used() -> Ledger:
    ledger = granted(answered())
    jti = next(reversed(ledger.grants))
    ledger.fail("mail", "not_executed")
    ledger.revoke(jti)
    ledger.prepare("mail", "mail.send", attempt=2)
    return granted(ledger)


@breaks("I6")
def an_approval_that_is_too_old() -> Ledger:
    ledger = answered(valid_for_ms=1000)
    ledger.now += 1000
    return granted(ledger)


@breaks("I6")
def an_answer_that_came_too_late() -> Ledger:
    ledger = prepared()
    ledger.decide("mail", "require_approval")
    ledger.ask("apr_1", "mail", answer_by=ledger.now)
    ledger.answer("apr_1")
    return ledger


@breaks("I6")
def an_answer_by_a_workload() -> Ledger:
    ledger = answered()
    ledger.entries[-1]["by"]["kind"] = "workload"
    return ledger


@breaks("I6")
def an_answer_to_no_question() -> Ledger:
    ledger = answered()
    ledger.entries[-1]["approval"] = {"id": "apr_9"}
    return ledger


@breaks("I6")
def an_engine_that_knows_nothing_of_it() -> Ledger:
    ledger = started()
    names = [one["decision"]["decision_id"] for one in ledger.entries if one["decision"]]
    ledger.books += [{"answered": name, "effect": "allow"} for name in names[:-1]]
    return ledger


@breaks("I6")
def an_engine_that_denied() -> Ledger:
    ledger = started()
    names = [one["decision"]["decision_id"] for one in ledger.entries if one["decision"]]
    ledger.books += [{"answered": name, "effect": "allow"} for name in names[:-1]]
    ledger.books.append({"answered": names[-1], "effect": "deny"})
    return ledger


@breaks("I6")
def an_allow_while_the_engine_was_down() -> Ledger:
    ledger = prepared()
    ledger.books.append({"down": "policy", "from": ledger.now, "to": ledger.now + 1000})
    ledger.decide("mail")
    return ledger


@breaks("I6")
def a_lease_while_the_issuer_was_down() -> Ledger:
    ledger = started()
    jti = ledger.begin("migrate", "db.migrate", **LOGIN)
    ledger.books.append({"down": "issuer", "from": ledger.now, "to": ledger.now + 1000})
    ledger.lease(jti)
    return ledger


@breaks("I6")
def a_grant_while_the_ledger_was_down() -> Ledger:
    ledger = prepared()
    ledger.decide("mail")
    ledger.books.append({"down": "ledger", "from": ledger.now, "to": ledger.now + 1000})
    ledger.grant("mail")
    return ledger


@breaks("I6")
def nobody_said_that_it_is_another_call() -> Ledger:
    ledger = prepared()
    ledger.decide("mail", duplicate="ask")
    ledger.grant("mail")
    return ledger


@breaks("I6")
def a_workload_said_that_it_is_another_call() -> Ledger:
    ledger = prepared()
    ledger.decide("mail", duplicate="ask")
    ledger.same("mail", "pay", "run")
    ledger.entries[-1]["by"]["kind"] = "workload"
    return ledger
