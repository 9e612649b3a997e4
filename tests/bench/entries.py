"""Very many entries in a database, quickly: what a broker would have written, put in place past it.

Each is a real entry of format v1: the types, members and sizes of a `once` step from its first call to its outcome,
sealed into chains of a thousand. Members that are the same in each chain are made once, so the bytes of an entry are a
template with its own `prev`, `run`, `salt`, `seq` and `ts` in their canonical places; the first chain is compared with
what `domain.entries.seal` makes of the same. Tables besides the entries are not filled: the log reads none of them.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, TypeAlias

from stepgrant import canonical
from stepgrant_broker.domain.entries import GENESIS, SALT_BYTES, Head, seal

VECTORS: Final = Path(__file__).parents[1] / "vectors" / "entry_v1" / "run.jsonl"
CHAIN: Final = 1000
BUSY_MS: Final = 60_000
STARTS_AT: Final = 1_800_000_000_000
LIFE: Final = ("step_prepared", "decision", "grant_issued", "grant_redeemed", "step_completed", "grant_revoked")
MARKS: Final = {"prev": '"<prev>"', "run": '"<run>"', "salt": '"<salt>"', "seq": "71717171", "ts": "81818181"}
Row: TypeAlias = tuple[str, str, int, str, str | None, int, bytes, bytes]
INSERT: Final = "INSERT INTO entries (tenant, chain, seq, type, step, ts, hash, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


def drafts() -> list[dict[str, Any]]:
    """One step's entries as the golden vectors have them, without what sealing adds."""
    known: dict[str, dict[str, Any]] = {}
    for line in VECTORS.read_text(encoding="utf-8").splitlines():
        fields = json.loads(line)
        if fields["step"] is not None:
            known.setdefault(fields["type"], fields)
    added = {"v", "tenant", "run", "seq", "ts", "prev", "salt"}
    return [{name: value for name, value in known[kind].items() if name not in added} for kind in LIFE]


def salt_of(number: int) -> bytes:
    """The salt of the entry with this number: different for each, and the same at each filling."""
    return hashlib.sha256(b"salt %d" % number).digest()[:SALT_BYTES]


class Template:
    """The bytes of a type's entries."""

    def __init__(self, draft: dict[str, Any]) -> None:
        fields = {**draft, "v": 1, "tenant": "default", "prev": "<prev>", "run": "<run>", "salt": "<salt>"}
        text = canonical.dumps({**fields, "seq": int(MARKS["seq"]), "ts": int(MARKS["ts"])}).decode()
        self.type, self.step = str(draft["type"]), draft["step"]
        order = sorted(MARKS, key=lambda name: text.index(MARKS[name]))
        if order != ["prev", "run", "salt", "seq", "ts"]:
            raise ValueError("the members of an entry are not in the order of their names")
        for name, mark in MARKS.items():
            if text.count(mark) != 1:
                raise ValueError(f"{name} is not told from the rest")
            text = text.replace("%", "%%") if name == "prev" else text
            text = text.replace(mark, '"%s"' if mark.startswith('"') else "%d")
        self.text = text

    def filled(self, prev: str, run: str, salt: str, seq: int, ts: int) -> bytes:
        """The entry's bytes."""
        return (self.text % (prev, run, salt, seq, ts)).encode()


def run_id(number: int) -> str:
    """A run's id, in the order of the numbers."""
    return f"run_{number:026d}"


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def rows(count: int, first_run: int = 0) -> Iterator[Row]:
    """Rows of `count` entries, chain after chain."""
    templates, digest = [Template(draft) for draft in drafts()], b""
    for number in range(count):
        seq, run = number % CHAIN, run_id(first_run + number // CHAIN)
        prev = GENESIS if seq == 0 else _text(digest)
        kind = templates[number % len(templates)]
        ts = STARTS_AT + number
        data = kind.filled(prev, run, _text(salt_of(number)), seq, ts)
        digest = hashlib.sha256(data).digest()
        yield "default", run, seq, kind.type, kind.step, ts, digest, data


def sealed(count: int) -> list[bytes]:
    """The first chain as the domain itself seals it."""
    made, head = list[bytes](), Head("default", run_id(0), 0, GENESIS, 0)
    given = drafts()
    for number in range(count):
        (entry,), head = seal(head, [given[number % len(given)]], [salt_of(number)], STARTS_AT + number)
        made.append(entry.data)
    return made


def fill(database: Path, count: int, first_run: int = 0, *, together: int = CHAIN) -> None:
    """Put `count` waiting entries into a database, `together` in a transaction. Raises `ValueError`."""
    checked = 50
    if [row[7] for row in rows(min(count, checked))] != sealed(min(count, checked)):
        raise ValueError("the template does not make what the domain seals")
    with closing(sqlite3.connect(database, isolation_level=None)) as db:
        # A crash here costs the filling only; a broker on the same file syncs as always.
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA cache_size = -200000")
        db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        made = rows(count, first_run)
        while part := list(itertools.islice(made, together)):
            db.execute("BEGIN IMMEDIATE")
            db.executemany(INSERT, part)
            db.execute("COMMIT")


def hashes(database: Path, positions: Sequence[int]) -> dict[int, bytes]:
    """The hashes of entries by leaf index."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as db:
        asked = "SELECT hash FROM entries WHERE leaf_index = ?"
        return {at: bytes(db.execute(asked, (at,)).fetchone()[0]) for at in positions}
