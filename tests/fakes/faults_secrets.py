"""Looking for secrets: every form in which one could stand somewhere, and every place where something rests.

The forms are made here by themselves, not with the SDK's own tripwire: a form that it forgot is to be found.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from urllib.parse import quote, quote_plus

from stepgrant_broker.demo.leaks import leaks_in, secrets_in

SHORTEST = 8
"""A form that is shorter stands anywhere by chance."""


def forms(secret: bytes) -> set[bytes]:
    """As it is, in hex, percent-encoded, as JSON escapes it, reversed, and in base64 wherever it begins in a text."""
    text = secret.decode("latin-1")
    found = {
        secret,
        secret[::-1],
        secret.hex().encode(),
        secret.hex().upper().encode(),
        quote(secret, safe="").encode(),
        quote_plus(secret, safe="").encode(),
        json.dumps(text)[1:-1].encode(),
    }
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + secret).rstrip(b"=")
        inside = encoded[(0, 2, 3)[before] : (before + len(secret)) * 4 // 3]
        found |= {inside, inside.replace(b"+", b"-").replace(b"/", b"_")}
    return {form for form in found if len(form) >= SHORTEST}


class Secrets:
    """Everything that is secret, by name."""

    def __init__(self) -> None:
        self._forms: dict[str, set[bytes]] = {}

    def add(self, name: str, *secrets: str | bytes) -> None:
        """Know these."""
        for secret in secrets:
            raw = secret.encode() if isinstance(secret, str) else secret
            self._forms.setdefault(name, set()).update(forms(raw))

    def add_token(self, name: str, token: str) -> None:
        """A signed token: the whole, and its signature, without which it is nothing."""
        self.add(name, token, token.rpartition(".")[2])

    def add_file(self, path: Path) -> None:
        """What is secret in a key file."""
        self.add(path.name, *secrets_in(path))

    @property
    def names(self) -> set[str]:
        """What is known."""
        return set(self._forms)

    def found_in(self, data: str | bytes | Iterable[str]) -> list[str]:
        """What of it stands there, in any form, and whatever has the shape of a token or a private key."""
        if isinstance(data, str):
            data = data.encode("utf-8", "surrogatepass")
        elif not isinstance(data, bytes):
            data = "\n".join(data).encode("utf-8", "surrogatepass")
        known = [name for name, needles in self._forms.items() if any(needle in data for needle in needles)]
        return known + leaks_in(data, ())


def rows(database: Path) -> Iterator[tuple[str, bytes]]:
    """Every value of every table with its place. A value that is larger than a page lies in pieces in the file."""
    db = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
    try:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            cursor = db.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - a name from the schema
            columns = [column[0] for column in cursor.description]
            for row in cursor:
                for column, value in zip(columns, row, strict=True):
                    yield f"{table}.{column}", value if isinstance(value, bytes) else str(value).encode()
    finally:
        db.close()


def processes() -> Iterator[tuple[int, bytes, bytes]]:
    """All processes below this one: pid, command line, environment (Linux)."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, parent = int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue  # it ended meanwhile
        parents[pid] = parent
    ours = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    for pid in sorted(ours - {os.getpid()}):
        try:
            yield pid, Path(f"/proc/{pid}/cmdline").read_bytes(), Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue  # as above


def files(folder: Path, leave_out: Iterable[Path]) -> Mapping[Path, bytes]:
    """All files below a folder but these."""
    left_out = set(leave_out)
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path not in left_out}


@contextmanager
def logged(into: StringIO) -> Iterator[None]:
    """All loggers of this process at level debug: ours, and those of the libraries beneath us."""
    root, handler = logging.getLogger(), logging.StreamHandler(into)
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.setLevel(before)
        root.removeHandler(handler)
