"""Bytes of the ledger that are almost right: whoever has no key gets none through, and all errors are named ones.

Two inputs in ten are receipts (of both versions; of a run, a step, a grant), changed as a document (members, values,
entries moved, doubled, cut), in one of their entries, or as bytes. The rest are the log's own formats (`log_bytes`).

Unsigned: the signatures are the true ones, so every change must be refused. Signed: the broker's own key signed the
changed head (a compromised broker); then it may verify or not, but nothing foreign may be raised, also not by who tells
people what it says.
"""

from __future__ import annotations

import base64
import copy
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from forging import b64, eddsa
from receipts import ORIGIN, RUN, WITNESSES, Book, finished, jcs, sha, vkey
from security.fuzz import log_bytes, odd_json
from soak import result as soak
from soak.result import Result
from stepgrant import receipt
from stepgrant.errors import ReceiptError

ODD: Final[tuple[object, ...]] = (
    "run_ended", "run_opened", "run_erased", "step_completed", "acme", "run_01", "step", "grant", "grn_1", "s1", -1, 0,
    7, 2**53, b64(bytes(32)), base64.b64encode(bytes(32)).decode(), [], {}, None,
)  # fmt: skip
RECEIPTS_OF: Final = 5
"""One input in so many is a receipt."""


@dataclass
class Desk:
    """True receipts, and whom their verifier trusts."""

    book: Book = field(default_factory=lambda: finished(eddsa(b"ledger bytes")))
    trust: str = ""
    true: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.trust = "\n".join(
            [
                f"log {vkey(ORIGIN, 1, self.book.key)}",
                f"witness alice {vkey('alice', 4, WITNESSES['alice'])}",
                "quorum alice",
            ]
        )
        alice = ("alice",)
        self.true = [
            self.book.receipt(),
            self.book.logged(cosigned=alice),
            self.book.logged(cosigned=alice, scope=("step", "s1")),
            self.book.logged(cosigned=alice, scope=("grant", "grn_1"), extra=(1, 2)),
        ]

    def verify(self, raw: bytes, version: int) -> receipt.Verified:
        return receipt.verify(raw, self.book.jwks, log_policy=self.trust if version > 1 else None)


def _entry(rng: random.Random, value: dict[str, Any]) -> None:
    """One entry says something else; its text may be none."""
    entries = value["entries"]
    at = rng.randrange(len(entries))
    fields = json.loads(base64.urlsafe_b64decode(entries[at] + "=="))
    changed = odd_json.changed(rng, fields, ODD)
    entries[at] = b64(jcs(changed) if rng.random() < 0.6 else odd_json.text(rng, changed))
    if rng.random() < 0.5:  # and those after it are chained to it
        for later in range(at + 1, len(entries)):
            before = base64.urlsafe_b64decode(entries[later - 1] + "==")
            fields = json.loads(base64.urlsafe_b64decode(entries[later] + "=="))
            entries[later] = b64(jcs({**fields, "prev": b64(sha(before))}))
        if isinstance(value.get("head"), dict):
            value["head"]["hash"] = b64(sha(base64.urlsafe_b64decode(entries[-1] + "==")))


def _changed(rng: random.Random, value: dict[str, Any]) -> None:
    if rng.random() < 0.5:
        _entry(rng, value)
        return
    name = rng.choice(sorted(value))
    value[name] = odd_json.changed(rng, value[name], ODD)


def _signed(rng: random.Random, book: Book) -> bytes:
    """A changed receipt of the run that the broker's own key signed: its head, or its entries before all else."""

    def change(value: dict[str, Any]) -> None:
        _changed(rng, value)
        if not isinstance(value.get("head"), dict):
            value["head"] = {"hash": "x"}

    if rng.random() < 0.5:
        return jcs(book.receipt(change))
    forged = Book(book.key, entries=list(book.entries), disclosures=dict(book.disclosures))
    at = rng.randrange(len(forged.entries))
    for number in range(at, len(forged.entries)):
        fields = json.loads(forged.entries[number])
        if number == at:
            part = rng.choice(["body", "action", "decision", "grant", "outcome", "by", "agent", "approval"])
            fields[part] = odd_json.changed(rng, fields.get(part) or {}, ODD)
        before = sha(forged.entries[number - 1]) if number else bytes(32)
        forged.entries[number] = jcs({**fields, "prev": b64(before)})
    held = b"".join(forged.entries)
    forged.disclosures = {c: one for c, one in forged.disclosures.items() if c.encode() in held}
    scope = rng.choice([None, ("run", RUN), ("step", "s1"), ("grant", "grn_1")])
    return jcs(forged.receipt() if scope is None else forged.logged(scope=scope, extra=(1, 2)))


def _one_receipt(rng: random.Random, desk: Desk, counts: Counter[str], *, signed: bool) -> str | None:
    """One changed receipt: what it broke, or None."""
    true = rng.choice(desk.true)
    version = 1 if signed else true["v"]
    if signed:
        raw = _signed(rng, desk.book)
    else:
        value = copy.deepcopy(true)
        _changed(rng, value)
        raw = jcs(value) if rng.random() < 0.7 else odd_json.text(rng, value)
    try:
        told = desk.verify(raw, version)
        page = receipt.as_html(told) if signed else ""
    except ReceiptError as error:
        counts[type(error).__name__] += 1
        return f"the true one was refused: {error}" if raw == jcs(true) and not signed else None
    except Exception as error:  # noqa: BLE001 - a foreign error is what is looked for
        return f"{type(error).__name__} ({error}) for {raw[:3000]!r}"
    counts["verified, signed" if signed else "verified, unchanged"] += 1
    if signed:
        return None if page.endswith("</html>\n") else "no whole page"
    return f"verified without the key: {raw[:3000]!r}" if _differs(raw, true) else None


def _differs(raw: bytes, true: dict[str, Any]) -> bool:
    """Whether it says anything else. To disclose less is everybody's right, and to add a note's unknown signature."""
    value = json.loads(raw)
    disclosed, policies, log = value.pop("disclosures"), value.pop("policies", []), value.pop("log", None)
    known = {one["c"]: one for one in true["disclosures"]}
    rest = {name: member for name, member in true.items() if name not in {"disclosures", "policies", "log"}}
    if log is not None and (
        log["proofs"] != true["log"]["proofs"]
        or log["checkpoint"].partition("\n\n")[0] != true["log"]["checkpoint"].partition("\n\n")[0]
    ):
        return True
    if jcs(value) != jcs(rest) or policies:
        return True
    return any(not one.items() <= known[one["c"]].items() for one in disclosed)


def _one_of_the_log(rng: random.Random, chosen: log_bytes.Format, counts: Counter[str]) -> str | None:
    """One input of one of the log's formats: what it broke, or None."""
    raw = log_bytes.mutated(rng, chosen.samples)
    try:
        wrong = chosen.read(raw)
    except ReceiptError as error:
        counts[f"{chosen.name}: {type(error).__name__}"] += 1
        return f"a true one of the {chosen.name} was refused: {error}" if raw in chosen.samples else None
    except Exception as error:  # noqa: BLE001 - a foreign error is what is looked for
        return f"{chosen.name}: {type(error).__name__} ({error}) for {raw[:3000]!r}"
    counts[f"{chosen.name}: read"] += 1
    return None if wrong is None else f"{chosen.name}: {wrong}: {raw[:3000]!r}"


def slice(seed: int, size: int) -> Result:  # noqa: A001 - the name that soak looks for
    """`size` inputs; every third receipt is signed by the broker's own key."""
    rng = random.Random(seed)
    desk, formats = Desk(), log_bytes.Log().formats()
    counts: Counter[str] = Counter({"inputs": size})
    found: list[str] = []
    for number in range(size):
        if number % RECEIPTS_OF == 0:
            counts["receipts"] += 1
            broken = _one_receipt(rng, desk, counts, signed=number % (3 * RECEIPTS_OF) == 0)
        else:
            broken = _one_of_the_log(rng, formats[number % len(formats)], counts)
        if broken is not None:
            found.append(broken)
        if number % 10_000 == 0:
            soak.progress(number)
    return Result(dict(counts), found[:20])
