"""Runs as a healthy broker writes them, however rough they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from checker.ledgers import LOGIN, STATIC, TTL_MS, WINDOW_MS, Ledger


def started(run: str = "run_1", key: str = "job") -> Ledger:
    """A run with every class of step done."""
    ledger = Ledger(run, key)
    ledger.open()
    ledger.record("plan")
    ledger.done("look", "stock.read", "read")
    ledger.done("note", "note.put", "idempotent")
    ledger.done("pay")
    return ledger


def plain() -> Ledger:
    ledger = started()
    ledger.end()
    return ledger


def killed_with_a_credential() -> Ledger:
    """Unused: taken back, decided again. Used, idempotent: once more, under the same key."""
    ledger = started()
    unused = ledger.begin("mail", "mail.send")
    used = ledger.begin("again", "note.put", "idempotent")
    ledger.redeem(used)
    ledger.did(used)
    ledger.now += WINDOW_MS
    ledger.revoke(unused, unused=True)
    ledger.revoke(used)
    ledger.resume()
    for step in ("plan", "look", "note", "pay"):
        ledger.replay(step)
    ledger.decide("mail")
    jti = ledger.grant("mail")
    ledger.redeem(jti)
    ledger.did(jti)
    ledger.complete("mail")
    ledger.revoke(jti)
    ledger.done("again", "note.put", "idempotent", attempt=2)
    ledger.end()
    return ledger


def in_doubt(verdict: str = "done") -> Ledger:
    """Redeemed, and killed: the hook looks when the credential is dead."""
    ledger = started()
    jti = ledger.begin("charge", "fee.charge", settle_ms=500)
    ledger.redeem(jti)
    if verdict == "done":
        ledger.did(jti)
    ledger.now += WINDOW_MS + 500
    ledger.revoke(jti)
    ledger.doubt("charge")
    ledger.resume()
    ledger.done("charge~reconcile~1", "fee.charge.reconcile", "read")
    ledger.reconcile("charge", verdict, via="charge~reconcile~1")
    if verdict == "done":
        ledger.replay("charge")
    else:
        ledger.done("charge", "fee.charge", attempt=2, settle_ms=500)
    ledger.end()
    return ledger


def not_done() -> Ledger:
    return in_doubt("not_done")


def a_person_says() -> Ledger:
    """A person's word needs no look."""
    ledger = started()
    jti = ledger.begin("wire", "wire.send", **STATIC)
    ledger.park()
    ledger.revoke(jti)
    ledger.doubt("wire")
    ledger.reconcile("wire", "not_done", operator="Ann")
    ledger.now += TTL_MS
    ledger.resume()
    ledger.begin("wire", "wire.send", attempt=2, **STATIC)
    ledger.complete("wire")
    ledger.revoke("grn_" + str(ledger.names))
    ledger.end()
    return ledger


def a_tool_that_raised() -> Ledger:
    """`NotExecuted` lets it run again; a failure of a once step stays."""
    ledger = started()
    first = ledger.begin("mail", "mail.send")
    ledger.fail("mail", "not_executed")
    ledger.revoke(first)
    second = ledger.begin("mail", "mail.send", attempt=2)
    ledger.redeem(second)
    ledger.fail("mail", "failed")
    ledger.revoke(second)
    ledger.replay("mail")
    ledger.end("failed")
    return ledger


def a_login() -> Ledger:
    """An intent that came to nothing, one that a crash left, and one that was used and confirmed dead."""
    ledger = started()
    lost = ledger.begin("migrate", "db.migrate", **LOGIN)
    ledger.issuer_failed(lost)
    ledger.decide("migrate")
    crashed = ledger.grant("migrate", **LOGIN)
    ledger.revoke(crashed, unused=True, confirmed=False)
    ledger.now += WINDOW_MS
    ledger.resume()
    ledger.revoke(crashed)
    ledger.decide("migrate")
    jti = ledger.grant("migrate", **LOGIN)
    ledger.lease(jti)
    ledger.did(jti, login="v-migrate-1")
    ledger.complete("migrate")
    ledger.revoke(jti, confirmed=False)
    ledger.books.append({"login": "v-migrate-1", "alive": True, "sessions": 1, "at": ledger.now})
    ledger.end()
    ledger.revoke(jti)
    ledger.books.append({"login": "v-migrate-1", "alive": False, "sessions": 0, "at": ledger.now + 1})
    return ledger


def a_reply_that_was_lost() -> Ledger:
    """The SDK says that no tool saw it; it is dead; another one comes for the same attempt."""
    ledger = started()
    lost = ledger.begin("migrate", "db.migrate", **LOGIN)
    ledger.lease(lost)
    ledger.heard.pop()
    ledger.revoke(lost, confirmed=False)
    ledger.revoke(lost)
    ledger.decide("migrate")
    jti = ledger.grant("migrate", not_received=True, **LOGIN)
    ledger.lease(jti)
    ledger.did(jti, login="v-migrate-2")
    ledger.complete("migrate")
    ledger.revoke(jti)
    ledger.end()
    return ledger


def an_approval() -> Ledger:
    """Asked, parked, answered, resumed, given back with an unused grant, used."""
    ledger = started()
    ledger.prepare("refund", "refund.create")
    ledger.decide("refund", "require_approval")
    ledger.ask("apr_1", "refund", quorum=2)
    ledger.park()
    ledger.answer("apr_1", "Ann", "pending")
    ledger.answer("apr_1", "Bea")
    ledger.now += 100_000_000
    ledger.resume()
    ledger.decide("refund", "require_approval")
    unused = ledger.grant("refund", approval="apr_1")
    ledger.revoke(unused, unused=True)
    ledger.decide("refund")
    jti = ledger.grant("refund", approval="apr_1")
    ledger.redeem(jti)
    ledger.complete("refund")
    ledger.revoke(jti)
    ledger.end()
    return ledger


def denied() -> Ledger:
    """Denied, and allowed by the policy of later."""
    ledger = started()
    ledger.prepare("mail", "mail.send")
    ledger.decide("mail", "deny")
    ledger.decide("mail", phase="prepare")
    ledger.decide("mail", phase="start")
    jti = ledger.grant("mail")
    ledger.redeem(jti)
    ledger.complete("mail")
    ledger.revoke(jti)
    ledger.end()
    return ledger


def the_kill_switch() -> Ledger:
    ledger = started()
    jti = ledger.begin("mail", "mail.send")
    ledger.revoke(jti, unused=True)
    ledger.park("run_quarantined")
    ledger.park("run_released")
    ledger.resume()
    ledger.end("cancelled")
    return ledger


def other_arguments() -> Ledger:
    """Before anything was started, other arguments are another question."""
    ledger = started()
    ledger.prepare("mail", "mail.send", args="a")
    ledger.decide("mail", "deny")
    ledger.begin("mail", "mail.send", args="b", revision=2)
    ledger.redeem("grn_" + str(ledger.names))
    ledger.complete("mail")
    ledger.revoke("grn_" + str(ledger.names))
    ledger.end()
    return ledger


def lost_ids() -> Ledger:
    """A framework came back with new call ids: one call is found in doubt, one completed."""
    ledger = started()
    jti = ledger.begin("call-1", "fee.charge", args="x", id_source="call_id")
    ledger.redeem(jti)
    ledger.did(jti)
    ledger.now += WINDOW_MS
    ledger.revoke(jti)
    ledger.doubt("call-1")
    ledger.resume()
    ledger.adopt("call-2", "call-1")
    ledger.done("call-1~reconcile~1", "fee.charge.reconcile", "read")
    ledger.reconcile("call-1", "done", via="call-1~reconcile~1")
    ledger.heard.append({"told": "call-2", "value": 1})
    ledger.adopt("call-3", "pay")
    ledger.replay("pay")
    ledger.done("call-4", "fee.charge", args="x", id_source="call_id")
    ledger.end()
    return ledger


def repeated() -> Ledger:
    """A call that may be a completed one again: people say so, people say no, policy says so, or it is plain."""
    ledger = started()
    for number in range(4):
        ledger.done(f"call-{number}", "fee.charge", args=number, id_source="call_id")
    ledger.now += WINDOW_MS
    ledger.resume()
    for number, verdict in enumerate(("replay", "run")):
        ledger.prepare(f"new-{number}", "fee.charge", args=number, id_source="call_id", duplicate_of=f"call-{number}")
        ledger.decide(f"new-{number}", duplicate="ask")
        ledger.same(f"new-{number}", f"call-{number}", verdict)
    ledger.replay("call-0")
    ledger.heard.append({"told": "new-0", "value": "call-0"})
    ledger.decide("new-1")
    ledger.redeem(ledger.grant("new-1"))
    ledger.complete("new-1")
    ledger.revoke(next(reversed(ledger.grants)))
    ledger.decide("call-2", duplicate="replay")
    ledger.adopt("new-2", "call-2")
    ledger.replay("call-2")
    ledger.replay("call-3")
    ledger.done("new-3", "fee.charge", args=3, id_source="call_id")
    ledger.end()
    return ledger


def blocked() -> Ledger:
    """A step in doubt stops only what is new since then."""
    ledger = started()
    jti = ledger.begin("charge", "fee.charge")
    ledger.redeem(jti)
    ledger.revoke(jti)
    ledger.doubt("charge")
    other = ledger.begin("charge-2", "fee.charge")
    ledger.now += WINDOW_MS
    ledger.revoke(other, unused=True)
    ledger.resume()
    ledger.decide("charge-2")
    ledger.redeem(ledger.grant("charge-2"))
    ledger.complete("charge-2")
    ledger.done("elsewhere", "fee.charge", resource="another")
    return ledger


Life: TypeAlias = Callable[[], Ledger]

LIVES: Final[tuple[Life, ...]] = (
    plain, killed_with_a_credential, in_doubt, not_done, a_person_says, a_tool_that_raised, a_login,
    a_reply_that_was_lost, an_approval, denied, the_kill_switch, other_arguments, lost_ids, repeated, blocked,
)  # fmt: skip
