"""A run with everything in it, as its receipt: for tests of whoever tells it. Base install only."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from forging import b64
from receipts import START, Book, jcs
from stepgrant import receipt

REVISION = "3:sha-256:4fGh2kQxAbCdEf"
HOLDER, APPROVER, SERVER = "wkl_agent", "Ada Lovelace", "wkl_shop"


@dataclass
class Run:
    """Writes entries as the broker does, at the times that the test says (ms after the run was opened)."""

    book: Book = field(default_factory=Book)
    epoch: int = 1
    position: int = 0

    def add(self, at: int, kind: str, *, by: tuple[str, str | None] = ("workload", HOLDER), **members: object) -> None:
        subject = None if by[1] is None else self.book.commit("by.subject", by[1])
        who = {"kind": by[0], "subject_c": subject}
        self.book.add(kind, ts=START + at, **{"by": who, "epoch": self.epoch, **members})

    def action(self, tool: str, resource: str | None, effect: str, args: dict[str, Any]) -> dict[str, Any]:
        preimage = jcs({"action": tool, "args": args, "resource": resource})
        resource_c = None if resource is None else self.book.commit("action.resource", resource)
        digest_c = self.book.commit_digest("action.digest", preimage)
        return {"tool": tool, "resource_c": resource_c, "digest_c": digest_c, "effect": effect}

    def decision(self, effect: str, *reasons: str) -> dict[str, Any]:
        asked = self.book.commit_digest("decision.input", b'{"input":1}')
        named = {"effect": effect, "reasons": list(reasons), "policy_revision": REVISION, "decision_id": "dec_1"}
        return {**named, "input_c": asked}

    def opened(self) -> None:
        body = {"run_key": "order-1729", "workload": HOLDER, "labels": {}, "attestation": {"method": "enrolled_key"}}
        self.add(0, "run_opened", decision=self.decision("allow", "open_allowed"), body=body)

    def resumed(self, at: int, *, kind: str = "resume", lapsed: bool = True, gone: int = 0) -> None:
        self.epoch += 1
        attestation = {"method": "enrolled_key"}
        body = {"workload": HOLDER, "kind": kind, "attestation": attestation, "lease_lapsed": lapsed, "parked_ms": gone}
        self.add(at, "run_resumed", decision=self.decision("allow", "resume_by_same_subject"), body=body)

    def prepared(self, at: int, step: str, action: dict[str, Any], attempt: int = 1) -> None:
        self.position += attempt == 1
        body = {"idempotency_key": f"sg-{step}", "position": self.position, "revision": 1}
        self.add(at, "step_prepared", step=step, attempt=attempt, action=action, body=body)

    def decided(
        self, at: int, step: str, action: dict[str, Any], effect: str, *reasons: str, phase: str = "begin"
    ) -> None:
        decision = self.decision(effect, *reasons)
        body = {"phase": phase, "engine": "test"}
        self.add(at, "decision", step=step, attempt=1, action=action, decision=decision, body=body)

    def issued(self, at: int, step: str, action: dict[str, Any], jti: str, **body: object) -> None:
        grant = {"jti": jti, "issuer": "jwt", "exp": START + at + 60_000}
        full = {"audience": "https://shop.example", "redeem": "required", "revocation": "confirmed", "labels": [],
                "issued_at": START + at, "meters": {}, "params": {}, "jkt": "j", "intent": False, **body}  # fmt: skip
        self.add(at, "grant_issued", step=step, attempt=1, action=action, grant=grant, body=full)

    def redeemed(self, at: int, step: str, jti: str) -> None:
        body = {"server": SERVER, "redemption_id": "r", "proof_jti": "p", "act_before": START + at + 10_000}
        grant = {"jti": jti, "issuer": "jwt", "exp": START}
        self.add(at, "grant_redeemed", step=step, attempt=1, grant=grant, by=("resource_server", SERVER), body=body)

    def over(self, at: int, step: str, jti: str, cause: str, *, unused: bool = False) -> None:
        grant = {"jti": jti, "issuer": "jwt", "exp": START}
        body = {"unused": unused, "confirmed": True}
        self.add(at, "grant_revoked", step=step, attempt=1, grant=grant, cause=cause, body=body)

    def completed(self, at: int, step: str, result: object) -> None:
        outcome = {"status": "completed", "result_c": self.book.commit_digest("outcome.result", jcs(result))}
        self.add(at, "step_completed", step=step, attempt=1, outcome=outcome, body={"withheld": False})

    def recorded(self, at: int, step: str, result: object) -> None:
        self.position += 1
        action = self.action(step, None, "read", {})
        outcome = {"status": "recorded", "result_c": self.book.commit_digest("outcome.result", jcs(result))}
        body = {"idempotency_key": "k", "id_source": "explicit", "position": self.position, "withheld": False}
        self.add(at, "step_recorded", step=step, attempt=1, action=action, outcome=outcome, body=body)

    def receipt(self) -> dict[str, Any]:
        """Signed a minute after the last entry."""

        def change(value: dict[str, Any]) -> None:
            value["head"]["ts"] = START + 1_000_000
            self._without_default(value)

        return self.book.receipt(change)

    def logged(self, **options: Any) -> dict[str, Any]:  # noqa: ANN401 - of `Book.logged`
        """The same in a log, of the whole run or a part; options are those of `Book.logged`."""
        value = self.book.logged(**options)
        self._without_default(value)
        return value

    @staticmethod
    def _without_default(value: dict[str, Any]) -> None:
        """The book's own default subject is in none of these entries."""
        value["disclosures"] = [one for one in value["disclosures"] if one["value"] != "workload:w1"]

    def ended(self, at: int, status: str = "completed") -> None:
        self.add(at, "run_ended", outcome={"status": status}, body={"status": status})


def eventful() -> Run:
    """Opened; a plan; a read; killed while charging; resumed; the hook looked; parked for a person; back; ended."""
    run = Run()
    run.opened()
    run.recorded(40, "plan", ["read", "charge", "publish"])
    read = run.action("invoice.read", "inv/9", "read", {"id": "inv_9"})
    run.prepared(50, "read", read)
    run.decided(50, "read", read, "allow", "tool_listed")
    run.issued(50, "read", read, "grn_1", redeem="optional", labels=["pii:customer"])
    run.completed(120, "read", {"amount": 100})
    run.over(120, "read", "grn_1", "completed")
    charge = run.action("card.charge", None, "once", {"invoice": "inv_9", "amount": 100})
    run.prepared(130, "charge", charge)
    run.decided(130, "charge", charge, "allow", "tool_listed", "amount_ok")
    run.issued(130, "charge", charge, "grn_2", meters={"spend_usd": 100_000_000})
    run.redeemed(180, "charge", "grn_2")
    run.over(3_400, "charge", "grn_2", "lease_lapsed")
    run.add(3_400, "step_in_doubt", step="charge", attempt=1, by=("broker", None), cause="lease_lapsed",
            body={"since": START + 3_400})  # fmt: skip
    run.add(3_400, "run_parked", by=("broker", None), cause="lease_lapsed", body={"reason": "lease_lapsed"})
    run.resumed(5_000, gone=1_600)
    for step in ("plan", "read"):
        run.add(5_010, "step_replayed", step=step, attempt=1, body={"as": "completed"})
    run.add(5_200, "step_reconciled", step="charge", attempt=1, epoch=1,
            outcome={"status": "done", "result_c": run.book.commit_digest("outcome.result", b'{"id":"ch_7"}')},
            body={"verdict": "done", "via": "charge~reconcile~1"})  # fmt: skip
    publish = run.action("report.publish", "web", "once", {"text": "paid"})
    run.prepared(5_300, "publish", publish)
    run.decided(5_300, "publish", publish, "require_approval", "tool_asks")
    asked = {"binding_c": run.book.commit("approval.binding", "sha-256:b"), "issuer": "jwt", "groups": ["editors"],
             "quorum": 1, "answer_by": START + 5_300 + 86_400_000, "valid_for_ms": 900_000}  # fmt: skip
    run.add(5_300, "approval_requested", step="publish", attempt=1, approval={"id": "apr_1"}, body=asked)
    run.add(5_320, "run_parked", body={"reason": "awaiting_approval"})
    note = run.book.commit("approval.note", "looks right")
    run.add(65_320, "approval_decided", step="publish", by=("person", APPROVER), approval={"id": "apr_1"},
            body={"verdict": "approve", "settled": "approved", "operator": "opr_1", "note_c": note})  # fmt: skip
    run.resumed(70_000, gone=64_680)
    run.decided(70_010, "publish", publish, "allow", "tool_asks", "approved:apr_1")
    run.issued(70_010, "publish", publish, "grn_3")
    run.redeemed(70_040, "publish", "grn_3")
    run.completed(70_090, "publish", "https://web.example/1")
    run.over(70_090, "publish", "grn_3", "completed")
    run.ended(70_100)
    return run


def rewritten(run: Run, **options: Any) -> receipt.Verified:  # noqa: ANN401 - of `Book.logged`
    """Verify it as it is now."""
    return receipt.verify(run.logged(**options), run.book.jwks)


def issued(**body: object) -> Run:
    """A run in which one credential was issued."""
    run = Run()
    run.opened()
    action = run.action("card.charge", "inv/9", "once", {"amount": 1})
    run.prepared(10, "charge", action)
    run.decided(10, "charge", action, "allow", "listed")
    run.issued(10, "charge", action, "grn_1", **body)
    return run


def rechain(run: Run) -> None:
    """Chain the entries anew after they were changed."""
    before = bytes(32)
    for at, entry in enumerate(run.book.entries):
        run.book.entries[at] = jcs({**json.loads(entry), "prev": b64(before)})
        before = hashlib.sha256(run.book.entries[at]).digest()


def erasure(run: Run) -> None:
    """Erase its values."""
    run.add(90_000, "run_erased", by=("person", "Olga"), cause="operator", body={})
