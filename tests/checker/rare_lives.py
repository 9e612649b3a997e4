"""Runs as a healthy broker writes them, in the corners where a referee is most easily wrong."""

from __future__ import annotations

from typing import Final

from checker.ledgers import LOGIN, TTL_MS, WINDOW_MS, Ledger
from checker.lives import Life, started


def kept_ids() -> Ledger:
    """Ids that their author keeps are never lost: equal calls under other such ids are other calls."""
    ledger = started()
    ledger.done("first", "fee.charge", args="x")
    ledger.done("call-1", "fee.charge", args="y", id_source="call_id")
    ledger.record("call-2")
    ledger.now += WINDOW_MS
    ledger.resume()
    ledger.done("second", "fee.charge", args="x")
    ledger.done("third", "fee.charge", args="y")
    ledger.done("call-3", "plan", "read", args="call-2", id_source="call_id")
    ledger.end()
    return ledger


def failures() -> Ledger:
    """An outcome that is not known is a failure where it can be had again, or where nothing was used."""
    ledger = started()
    jti = ledger.begin("again", "note.put", "idempotent")
    ledger.redeem(jti)
    ledger.fail("again", "unknown")
    ledger.revoke(jti)
    ledger.done("again", "note.put", "idempotent", attempt=2)
    unused = ledger.begin("mail", "mail.send")
    ledger.fail("mail", "unknown")
    ledger.revoke(unused)
    ledger.done("mail", "mail.send", attempt=2)
    ledger.end()
    return ledger


def looks() -> Ledger:
    """`done` and `unknown` may be said at once; only `not_done` has to wait."""
    ledger = started()
    jti = ledger.begin("charge", "fee.charge", settle_ms=60_000)
    ledger.redeem(jti)
    ledger.did(jti)
    ledger.revoke(jti)
    ledger.doubt("charge")
    ledger.reconcile("charge", "unknown", via="charge~reconcile~1")
    ledger.done("charge~reconcile~1", "fee.charge.reconcile", "read")
    ledger.reconcile("charge", "done", via="charge~reconcile~1")
    ledger.end()
    return ledger


def two_doubts() -> Ledger:
    """The second look is about the second attempt only."""
    ledger = started()
    for attempt in (1, 2):
        jti = ledger.begin("charge", "fee.charge", attempt=attempt)
        ledger.redeem(jti)
        ledger.revoke(jti)
        ledger.doubt("charge")
        ledger.now += WINDOW_MS
        ledger.done(f"charge~reconcile~{attempt}", "fee.charge.reconcile", "read")
        ledger.reconcile("charge", "not_done", via=f"charge~reconcile~{attempt}")
    ledger.done("charge", "fee.charge", attempt=3)
    ledger.end()
    return ledger


def an_approval_that_is_inherited() -> Ledger:
    """The reply was lost after a person's yes had been used: the next grant takes it over, however late."""
    ledger = started()
    ledger.prepare("index", "db.index")
    ledger.decide("index", "require_approval")
    ledger.ask("apr_1", "index", valid_for_ms=1000)
    ledger.answer("apr_1")
    ledger.decide("index", "require_approval")
    lost = ledger.grant("index", approval="apr_1", **LOGIN)
    ledger.lease(lost)
    ledger.heard.pop()
    ledger.revoke(lost, confirmed=False)
    ledger.now += 5000
    ledger.revoke(lost)
    ledger.decide("index", "require_approval")
    jti = ledger.grant("index", approval="apr_1", not_received=True, inherits=lost, **LOGIN)
    ledger.lease(jti)
    ledger.complete("index")
    ledger.revoke(jti)
    ledger.end()
    return ledger


def run_out() -> Ledger:
    """What has run out needs nobody to take it back."""
    ledger = started()
    ledger.begin("list", "stock.list", "read")
    ledger.now += TTL_MS
    ledger.resume()
    ledger.done("list", "stock.list", "read", attempt=2)
    return ledger


def a_login_in_use() -> Ledger:
    """Two logins live; a third was never made."""
    ledger = started()
    for number in range(2):
        ledger.lease(ledger.begin(f"index-{number}", "db.index", "idempotent", **LOGIN))
    ledger.issuer_failed(ledger.begin("index-2", "db.index", "idempotent", **LOGIN))
    ledger.books += [{"login": f"v-{number}", "alive": True, "sessions": 1, "at": ledger.now} for number in range(2)]
    return ledger


def put_back(*, jump: int = 1_000_000, takes_back: bool = True, doubts: bool = True, voids: bool = True) -> Ledger:
    """A restore: what was under way is in doubt, answers are void, and people look before anybody goes on."""
    ledger = started()
    ledger.now += WINDOW_MS
    jti = ledger.begin("mail", "mail.send")
    ledger.prepare("wire", "wire.send")
    ledger.decide("wire", "require_approval")
    ledger.ask("apr_1", "wire")
    ledger.answer("apr_1")
    if takes_back:
        ledger.revoke(jti)
    if doubts:
        ledger.doubt("mail")
        ledger.doubt("wire")
    before, ledger.epoch = ledger.epoch, ledger.epoch + jump
    ledger.add("run_restored", by="person", body={"from_epoch": before, "origin": "broker.example/log/r1"})
    ledger.state["epoch"] = ledger.epoch
    ledger.park("run_quarantined")
    ledger.park("run_released")
    if not (doubts and takes_back):
        return ledger
    for step in ("mail", "wire"):
        ledger.reconcile(step, "not_done", operator="Ann")
    ledger.resume()
    ledger.prepare("wire", "wire.send", attempt=2)
    ledger.decide("wire", "require_approval")
    if voids:
        ledger.ask("apr_2", "wire")
        ledger.answer("apr_2")
    jti = ledger.grant("wire", approval="apr_2" if voids else "apr_1")
    ledger.redeem(jti)
    ledger.complete("wire")
    ledger.revoke(jti)
    ledger.end()
    return ledger


RARE: Final[tuple[Life, ...]] = (
    kept_ids, failures, looks, two_doubts, an_approval_that_is_inherited, run_out, a_login_in_use,
    put_back,
)  # fmt: skip
