"""Receipts as anybody with a key can make them: right ones, and ones with any fault put in. Base install only.

It is written from the rules of the format, not from the code that makes or verifies receipts.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from forging import ForgersKey, b64, eddsa

START = 1_800_000_000_000
COSIGNED_S = 1_800_000_001
ORIGIN = "broker.example/log"
WITNESSES = {name: eddsa(name.encode()) for name in ("alice", "bob")}
TENANT, RUN, KID = "acme", "run_01", "head-key"
HEAD_CONTEXT = b"stepgrant run head v1\x00"
Change = Callable[[dict[str, Any]], object]


def tree(leaves: list[bytes]) -> tuple[bytes, list[list[str]]]:
    """The root over these leaves, and for each its path, by the definition (RFC 6962 §2.1)."""
    if len(leaves) == 1:
        return sha(b"\x00" + leaves[0]), [[]]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    (left, lefts), (right, rights) = tree(leaves[:k]), tree(leaves[k:])
    other = {side: base64.b64encode(side).decode() for side in (left, right)}
    paths = [[*path, other[right]] for path in lefts] + [[*path, other[left]] for path in rights]
    return sha(b"\x01" + left + right), paths


def note_line(name: str, kind: int, key: ForgersKey, text: bytes) -> str:
    """A signature line of a note (C2SP signed-note, tlog-cosignature)."""
    public = base64.urlsafe_b64decode(key.jwk["x"] + "==")
    key_id = sha(name.encode() + b"\n" + bytes([kind]) + public)[:4]
    if kind == 4:
        blob = COSIGNED_S.to_bytes(8, "big") + key.sign(b"cosignature/v1\ntime %d\n" % COSIGNED_S + text)
    else:
        blob = key.sign(text)
    return f"— {name} {base64.b64encode(key_id + blob).decode()}\n"


def vkey(name: str, kind: int, key: ForgersKey) -> str:
    """A verifier key's line."""
    typed = bytes([kind]) + base64.urlsafe_b64decode(key.jwk["x"] + "==")
    return f"{name}+{sha(name.encode() + bytes([10]) + typed)[:4].hex()}+{base64.b64encode(typed).decode()}"


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
                     "ts": max(START + 10 * len(self.entries), last["ts"] if isinstance(last["ts"], int) else 0)},
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

    def logged(
        self, change: Change = nothing, *, scope: tuple[str, str] = ("run", RUN), cosigned: tuple[str, ...] = (),
        own: ForgersKey | None = None, extra: Collection[int] = (),
    ) -> dict[str, Any]:  # fmt: skip
        """Version 2, in a log that has other leaves around and between the entries. `change` comes last.

        `extra`: the seq of entries that the scope rests on.
        """
        entries = [json.loads(entry) for entry in self.entries]
        about: dict[str, Callable[[dict[str, Any]], object]] = {
            "run": lambda entry: entry["run"],
            "step": lambda entry: entry["step"],
            "grant": lambda entry: (entry["grant"] if isinstance(entry.get("grant"), dict) else {}).get("jti"),
        }
        mine = [at for at, entry in enumerate(entries) if about[scope[0]](entry) == scope[1] or at in extra]
        leaves: list[bytes] = []
        for entry in self.entries:
            leaves += [sha(b"of another run %d" % len(leaves)), sha(entry)]
        leaves.append(sha(b"the last one"))
        root, proofs = tree(leaves)
        text = f"{ORIGIN}\n{len(leaves)}\n{base64.b64encode(root).decode()}\n"
        lines = [note_line(ORIGIN, 1, own or self.key, text.encode())]
        lines += [note_line(name, 4, WITNESSES[name], text.encode()) for name in cosigned]
        value = {**self.receipt(), "v": 2, "scope": {"kind": scope[0], "id": scope[1]}, "policies": []}
        value["entries"] = [value["entries"][at] for at in mine]
        value["log"] = {
            "checkpoint": text + "\n" + "".join(lines),
            "proofs": [{"index": 2 * at + 1, "hashes": proofs[2 * at + 1]} for at in mine],
        }
        if scope[0] != "run":
            value["head"], value["complete"] = None, False
            held = b"".join(self.entries[at] for at in mine)
            value["disclosures"] = [one for one in value["disclosures"] if one["c"].encode() in held]
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
