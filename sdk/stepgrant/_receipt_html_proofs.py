"""The last tables of the page: every entry with what it stands for, its hash, and its place in the log."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from stepgrant import _receipt_words as words
from stepgrant._receipt_entries import Event, commitments
from stepgrant._receipt_html_tables import hidden_word, json_text, time
from stepgrant._receipt_html_tags import Markup, facts, folded, lines, section, table, tag, text
from stepgrant._receipt_verified import Verified
from stepgrant.canonical import dumps


def entries(verified: Verified) -> Markup:
    """Each entry: its hash, the values that were disclosed of it, its leaf and the path from there to the root."""
    columns = ("Entry", "When", "What", "Step", "Evidence")
    rows = [_entry(verified, position, event) for position, event in enumerate(verified.events)]
    made = table("Each entry of the receipt, as it was hashed.", columns, rows, named="entries-table")
    return section("entries", "Entries and proofs", _head(verified), made)


def _head(verified: Verified) -> Markup:
    if verified.logged is None:
        return tag("p", "It has no proof that the log holds its entries.", class_="warning")
    logged = verified.logged
    told = facts(
        (
            ("Log", tag("code", logged.origin)),
            ("Size", text(logged.size)),
            ("Root", tag("code", base64.b64encode(logged.root).decode("ascii"))),
        )
    )
    return tag("div", told, folded("The signed head", tag("pre", lines(logged.checkpoint.decode()))))


def _entry(verified: Verified, position: int, event: Event) -> Iterator[Markup]:
    yield text(event.seq)
    yield time(event.ts)
    yield text(event.type if event.known else f"{event.type} (a newer type, hashed and not understood)")
    yield text(event.step or "")
    yield folded(
        f"hash {event.hash[:12]}…",
        facts(_facts(verified, position, event)),
        tag("pre", lines(dumps(dict(event.fields)).decode())),
    )


def _facts(verified: Verified, position: int, event: Event) -> Iterator[tuple[str, str]]:
    yield "Hash", tag("code", event.hash)
    if verified.logged is not None:
        yield "Leaf", text(verified.logged.indexes[position])
        path = "\n".join(base64.b64encode(one).decode("ascii") for one in verified.logged.hashes[position])
        yield "Path to the root", tag("pre", lines(path)) if path else text("the leaf is the root")
    for name, _ in commitments(event):
        shown = name.removeprefix("*.")
        if name in event.preimages:
            yield shown, json_text(event.preimages[name])
        elif name in event.disclosed:
            yield shown, json_text(event.disclosed[name])
        else:
            yield shown, tag("span", hidden_word(verified), class_="quiet")


def title(verified: Verified) -> str:
    """What the page is about."""
    kind, name = verified.scope
    return f"Receipt of run {verified.run}" if kind == "run" else f"Receipt of {kind} {name} in run {verified.run}"


def signed(verified: Verified) -> Iterator[tuple[str, str]]:
    """By which keys it was verified, as names and values."""
    if verified.kid is not None:
        yield "Head signed by", tag("code", verified.kid)
        yield "Head signed at", time(verified.head_ts)
    yield "Last entry's hash", tag("code", verified.head_hash)
    for name, at in words.witnesses(verified):
        yield f"Witness {name}", text(f"cosigned at {at}")
    if verified.logged is not None and not verified.logged.cosigned:
        yield "Witnesses", text(words.NO_WITNESS)
