"""Receipts as anybody with a key can make them: right ones, and ones with any fault put in. Base install only.

It is written from the rules of the format, not from the code that makes or verifies receipts.
"""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from forging import ForgersKey, b64, eddsa

START = 1_800_000_000_000
TENANT, RUN, KID = "acme", "run_01", "head-key"
HEAD_CONTEXT = b"stepgrant run head v1\x00"
Change = Callable[[dict[str, Any]], object]


def jcs(value: object) -> bytes:
    """Canonical for the plain values used here: no floats, ASCII keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def digest(data: bytes) -> str:
    return "sha-256:" + b64(sha(data))


def nothing(_: dict[str, Any]) -> None:
    """No change."""


@dataclass
class Book:
    """A run's chain in the making, with what may be disclosed of it."""

    key: ForgersKey = field(default_factory=eddsa)
    k_run: bytes = b"k" * 32
    entries: list[bytes] = field(default_factory=list)
    disclosures: dict[str, dict[str, Any]] = field(default_factory=dict)

    def commit(self, name: str, value: object, preimage: bytes | None = None) -> str:
        """The commitment to a value, which is then disclosed."""
        data = jcs(value)
        r = hmac.digest(self.k_run, name.encode() + b"\x00" + data, "sha256")
        c = b64(hmac.digest(r, data, "sha256"))
        self.disclosures[c] = {"c": c, "field": name, "r": b64(r), "value": value}
        if preimage is not None:
            self.disclosures[c]["preimage"] = b64(preimage)
        return c

    def commit_digest(self, name: str, preimage: bytes) -> str:
        """The commitment to the digest of these bytes."""
        return self.commit(name, digest(preimage), preimage)

    def add(self, kind: str, **members: object) -> None:
        """One more entry; `members` replace what v1 has by default."""
        entry: dict[str, Any] = {
            "v": 1, "tenant": TENANT, "run": RUN, "seq": len(self.entries), "ts": START + 10 * len(self.entries),
            "type": kind, "step": None, "attempt": None, "epoch": 1,
            "prev": b64(sha(self.entries[-1]) if self.entries else bytes(32)), "salt": b64(b"s" * 16),
            "by": {"kind": "workload", "subject_c": self.commit("by.subject", "workload:w1")},
            "agent": {"name": "rotator", "jkt": "jkt-1", "version": None}, "mode": "enforce", "action": None,
            "decision": None, "body": {},
        }  # fmt: skip
        self.entries.append(jcs({**entry, **members}))

    def receipt(self, change: Change = nothing, *, sign: bool = True, kid: str = KID) -> dict[str, Any]:
        """The receipt; `change` is applied before the head is signed (`sign`) or after everything."""
        last = json.loads(self.entries[-1])
        value: dict[str, Any] = {
            "v": 1, "kind": "stepgrant.receipt", "tenant": TENANT, "run": RUN,
            "entries": [b64(entry) for entry in self.entries],
            "disclosures": [copy.deepcopy(self.disclosures[c]) for c in sorted(self.disclosures)],
            "head": {"tenant": TENANT, "run": RUN, "seq": len(self.entries), "hash": b64(sha(self.entries[-1])),
                     "ts": START + 10 * len(self.entries)},
            "complete": last["type"] == "run_ended",
        }  # fmt: skip
        if sign:
            change(value)
        head = {"v": 1, **value["head"]}
        signature = self.key.sign(HEAD_CONTEXT + jcs(head))
        value["head"]["signature"] = {"kid": kid, "alg": "EdDSA", "value": b64(signature)}
        if not sign:
            change(value)
        return value

    @property
    def jwks(self) -> dict[str, Any]:
        """The public key as the broker publishes it."""
        return {"keys": [{**self.key.jwk, "kid": KID, "use": "sig", "alg": "EdDSA"}]}


def finished(key: ForgersKey | None = None) -> Book:
    """A short run: opened, one step granted and completed, ended."""
    book = Book(key or eddsa())
    action = jcs({"action": "keys.rotate", "args": {"name": "alpha"}, "resource": "key/alpha"})
    named = {
        "tool": "keys.rotate",
        "resource_c": book.commit("action.resource", "key/alpha"),
        "digest_c": book.commit_digest("action.digest", action),
        "effect": "once",
    }
    decision = {
        "effect": "allow",
        "reasons": ["tool_allowed"],
        "policy_revision": "1:sha-256:x",
        "decision_id": "dec_1",
    }
    asked = book.commit_digest("decision.input", jcs({"action": {"tool": "keys.rotate"}}))
    book.add(
        "run_opened",
        decision={**decision, "input_c": asked},
        body={
            "run_key": "nightly",
            "workload": "wkl_1",
            "labels": {},
            "input_c": book.commit_digest("run.input", b"{}"),
        },
    )
    book.add("step_prepared", step="s1", attempt=1, action=named, body={"idempotency_key": "sg-1"})
    book.add("decision", step="s1", attempt=1, action=named, decision={**decision, "input_c": asked})
    book.add("grant_issued", step="s1", attempt=1, action=named, grant={"jti": "grn_1", "issuer": "jwt", "exp": START})
    result = {"status": "completed", "result_c": book.commit_digest("outcome.result", b'{"ok":true}')}
    book.add("step_completed", step="s1", attempt=1, action=named, outcome=result, body={"withheld": False})
    book.add("grant_revoked", step="s1", attempt=1, action=named, cause="completed")
    book.add("run_ended", outcome={"status": "completed"}, body={"status": "completed"})
    return book
