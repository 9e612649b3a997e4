"""What a thief makes of an erased run who has the database, every key of the installation, and a dictionary.

The dictionary holds every value that the run ever committed to, and the thief knows how commitments are made. With the
chain's key each one is found; without it none is, whatever other key is tried.
"""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from fakes.hand import Hand, hand
from fakes.tale import whole_life
from stepgrant import canonical
from stepgrant._receipt_entries import commitments, read_event
from stepgrant_broker.domain import aad
from stepgrant_broker.domain.commitments import data_key, opening
from stepgrant_broker.domain.ports import Wrapped
from stepgrant_broker.signing.wrap import LocalWrap, WrapError
from stepgrant_broker.usecases.erase import erase_run

Dictionary = frozenset[tuple[str, bytes]]
"""Fields with values."""


async def committed(broker: Hand, run: str) -> dict[str, str]:
    """What the run's entries commit to: commitment to path."""
    entries = await broker.store.entries("acme", run, limit=1000)
    events = [read_event(entry.data) for entry in entries]
    return {c: path for event in events for path, c in commitments(event)}


async def dictionary(broker: Hand, run: str, wanted: Iterable[str]) -> Dictionary:
    """The true values, and many others like them."""
    payloads = await broker.store.payloads("acme", run, list(wanted))
    true = {(payload.field, payload.value()) for payload in payloads.values()}
    return frozenset(true | {(field, canonical.dumps(f"guess {n}")) for field, _ in true for n in range(20)})


def keys_of_a_thief(folder: Path) -> set[bytes]:
    """Every chain key in the database that the key folder opens, under every run's name, and all key files."""
    wrap = LocalWrap.open(folder / "keys")
    db = sqlite3.connect(folder / "store" / "stepgrant.db")
    runs = {run for (run,) in db.execute("SELECT id FROM runs")} | {""}
    found = {path.read_bytes().strip()[:43] for path in (folder / "keys").iterdir()} | {bytes(32), b""}
    found |= {canonical.b64u_decode(text.decode()) for text in list(found) if len(text) == 43 and b"{" not in text}
    for wrapped in (Wrapped(*row) for row in db.execute("SELECT key_id, nonce, ciphertext FROM chain_keys")):
        for run in runs:
            try:
                found.add(wrap.unwrap(wrapped, aad.chain_key("acme", run)))
            except WrapError:
                continue
    db.close()
    return found | {data_key(key) for key in found if len(key) == 32}


def attack(wanted: Iterable[str], guesses: Dictionary, keys: Iterable[bytes]) -> set[str]:
    """The commitments that a guess opens."""
    goal, opened = set(wanted), set[str]()
    for key in keys:
        for field, value in guesses:
            c = canonical.b64u(hmac.digest(opening(key, field, value), value, hashlib.sha256))
            if c in goal:
                opened.add(c)
    return opened


async def test_guesses_are_worthless_once_the_key_is_gone(tmp_path: Path) -> None:
    async with hand(tmp_path) as broker:
        run = await whole_life(broker)
        await broker.open("another", who="k9")
        wanted = await committed(broker, run)
        guesses = await dictionary(broker, run, wanted)
        known = attack(wanted, guesses, keys_of_a_thief(tmp_path))
        erased_handles = {c for c, path in wanted.items() if path in {"grant.handle_c", "body.lease_c"}}
        assert wanted.keys() - known - erased_handles == set(), "with the key, the dictionary opens everything"

        await erase_run(broker.ports, broker.operator, run)
        assert (await committed(broker, run)).keys() >= wanted.keys(), "the entries still commit to it"
        keys = keys_of_a_thief(tmp_path)
        assert len(keys) > 4
        assert attack(wanted, guesses, keys) == set()


async def test_no_row_and_no_file_shows_a_value_or_says_which_it_was(tmp_path: Path) -> None:
    """Also what the tenant's key commits to, the digests of requests, is gone for this run."""
    async with hand(tmp_path) as broker:
        run = await whole_life(broker)
        values = [value for _, value in await dictionary(broker, run, await committed(broker, run))]
        long_enough = [value for value in values if len(value) > 12]
        await erase_run(broker.ports, broker.operator, run)
        db = sqlite3.connect(tmp_path / "store" / "stepgrant.db")
        assert db.execute("SELECT count(*) FROM answers WHERE run = ?", (run,)).fetchone() == (0,)
        assert db.execute("SELECT count(*) FROM payloads WHERE chain = ?", (run,)).fetchone() == (0,)
        db.close()
        files = b"".join(path.read_bytes() for path in (tmp_path / "store").iterdir())
        shown = [value for value in long_enough if value in files and b"workload:" not in value]
        assert shown == []
