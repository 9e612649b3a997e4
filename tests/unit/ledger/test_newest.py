"""The head file: whole or not there, only forward, and what it says of a store."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conformance.store.making import NOW, Chain
from notehands import LOG, ORIGIN, OTHER, Hand, signed
from stepgrant import tlog
from stepgrant.merkle import EMPTY_ROOT
from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.domain.log import SignedHead
from stepgrant_broker.domain.restoring import KnownHead, StoreRolledBack
from stepgrant_broker.ledger.growing import grow
from stepgrant_broker.ledger.newest import HeadFile, contradicted
from stepgrant_broker.store.sqlite import SqliteStore

RENAMED = f"{ORIGIN}/r1"


def note(size: int, origin: str = ORIGIN, hand: Hand = LOG, root: bytes = bytes(32)) -> bytes:
    return signed(tlog.Head(origin, size, root).text, hand)


@pytest.fixture
def file(tmp_path: Path) -> HeadFile:
    return HeadFile(tmp_path)


def size(file: HeadFile) -> int | None:
    known = file.read()
    return None if known is None else known.size


def keep(file: HeadFile, note: bytes) -> None:
    """As a broker does that finds each head in it to be a beginning of its tree."""
    proven = file.read()
    while (found := file.keep(note, proven)) is not None:
        proven = found


# ----------------------------------------------------------------------------------------------------------------- file


def test_where_nothing_was_kept_there_is_nothing(file: HeadFile) -> None:
    assert file.read() is None


def test_it_keeps_the_note_as_it_is_for_this_user_alone(file: HeadFile) -> None:
    keep(file, note(3))
    assert file.path.read_bytes() == note(3)
    assert file.read() == KnownHead(ORIGIN, 3, bytes(32), str(file.path))
    assert {stat.S_IMODE(path.stat().st_mode) for path in file.path.parent.iterdir()} == {0o600}
    assert {path.name for path in file.path.parent.iterdir()} == {"newest-head", ".newest-head.lock"}


def test_it_only_moves_forward(file: HeadFile) -> None:
    """A replica that is slower than the others must not take back what they kept."""
    for kept, newest in ((5, 5), (3, 5), (5, 5), (9, 9), (8, 9)):
        keep(file, note(kept))
        assert size(file) == newest


def test_what_was_not_shown_to_be_a_beginning_is_never_written_over(file: HeadFile) -> None:
    """Not by a larger head either: of a log that lost its end and grew again."""
    first = KnownHead(ORIGIN, 5, bytes(32), str(file.path))
    assert file.keep(note(5), None) is None
    for proven in (None, KnownHead(ORIGIN, 4, bytes(32), str(file.path)), KnownHead(ORIGIN, 5, b"x" * 32, first.where)):
        for later in (note(9), note(5), note(3), note(9, RENAMED)):
            assert file.keep(later, proven) == first
            assert file.path.read_bytes() == note(5)
    assert file.keep(note(9), first) is None
    assert size(file) == 9


def test_many_writers_leave_the_newest(file: HeadFile) -> None:
    sizes = [(7 * number) % 101 for number in range(1, 101)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: keep(file, note(one)), sizes))
    assert size(file) == 100
    assert {path.name for path in file.path.parent.iterdir()} == {"newest-head", ".newest-head.lock"}


def test_another_log_is_refused_and_a_restored_one_goes_on(file: HeadFile) -> None:
    keep(file, note(9))
    for other in ("other.example/log", f"{ORIGIN}x", f"{ORIGIN}/r"):
        with pytest.raises(StoreRolledBack, match=f"knows the log '{ORIGIN}'"):
            keep(file, note(20, other))
    assert size(file) == 9
    keep(file, note(4, RENAMED))
    assert file.read() == KnownHead(RENAMED, 4, bytes(32), str(file.path))
    with pytest.raises(StoreRolledBack):
        keep(file, note(30))
    file.replace(note(1))
    assert file.read() == KnownHead(ORIGIN, 1, bytes(32), str(file.path))


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", note(3)[:-10], b"\xff\n1\n", note(3).replace(b"\n3\n", b"\n03\n")]
)
def test_a_damaged_file_is_not_passed_over(file: HeadFile, content: bytes) -> None:
    file.path.write_bytes(content)
    file.path.chmod(0o600)
    for act in (file.read, lambda: file.keep(note(99), None)):
        with pytest.raises(StoreUnavailable, match="is damaged") as error:
            act()
        assert str(file.path) in error.value.detail
    assert file.path.read_bytes() == content


def test_a_file_that_others_could_have_written_is_refused(file: HeadFile) -> None:
    keep(file, note(3))
    for mode in (0o620, 0o602):
        file.path.chmod(mode)
        with pytest.raises(StoreUnavailable, match="alone can write"):
            file.read()
    file.path.unlink()
    file.path.symlink_to("/etc/hostname")
    with pytest.raises(StoreUnavailable, match="cannot read"):
        file.read()


def test_what_cannot_be_kept_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="a store that was rolled back could not be told"):
        HeadFile(tmp_path / "missing").keep(note(3), None)


def test_a_write_that_breaks_off_leaves_what_was_there(file: HeadFile, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(file, note(3))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(StoreUnavailable, match="No space left on device"):
            keep(file, note(4))
    assert size(file) == 3
    assert {path.name for path in file.path.parent.iterdir()} == {"newest-head", ".newest-head.lock"}


# ---------------------------------------------------------------------------------------------------------------- store


async def grown(store: SqliteStore, count: int) -> list[tuple[int, bytes]]:
    """A log of so many entries, in uneven batches; each head on the way."""
    chain, heads = Chain.of_run(), []
    for _ in range(0, count, 50):
        await store.commit(chain.adds(50))
    while (tail := await store.log_tail(37)).leaves:
        growth = grow(tail, NOW)
        assert await store.log_append(growth)
        heads.append((growth.after.size, growth.after.root))
    return heads


async def keys() -> list[tlog.NoteKey]:
    return [LOG.key]


async def test_every_head_on_the_way_is_continued_and_no_other(store: SqliteStore) -> None:
    """Over the borders of tiles: 600 entries."""
    for at, root in await grown(store, 600):
        assert await contradicted(store, ORIGIN, KnownHead(ORIGIN, at, root, "x"), keys) is None
        forked = KnownHead(ORIGIN, at, bytes([root[0] ^ 1]) + root[1:], "x")
        assert f"the first {at} of its 600 entries" in str(await contradicted(store, ORIGIN, forked, keys))
    assert await contradicted(store, ORIGIN, KnownHead(ORIGIN, 0, EMPTY_ROOT, "x"), keys) is None
    told = await contradicted(store, ORIGIN, KnownHead(ORIGIN, 601, None, "the file"), keys)
    assert told == "its log has 600 entries, but the file knows 601"


async def test_tiles_that_are_gone_are_no_continuation(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = await grown(store, 50)

    async def nothing(_: object) -> dict[tuple[int, int], bytes]:
        return {}

    monkeypatch.setattr(store, "log_tiles", nothing)
    known = KnownHead(ORIGIN, *heads[0], "x")
    assert "are not those that" in str(await contradicted(store, ORIGIN, known, keys))


async def test_a_log_of_another_name_is_another_log(store: SqliteStore) -> None:
    for other in ("other.example/log", RENAMED):
        told = await contradicted(store, ORIGIN, KnownHead(other, 1, bytes(32), "the file"), keys)
        assert told == f"its log is called {ORIGIN!r}, but the file knows {other!r} at 1 entries"


async def test_a_new_name_counts_once_a_key_of_ours_has_signed_under_it(store: SqliteStore) -> None:
    """The database alone cannot say that it was restored: who writes there would say it to go back."""
    known = KnownHead(ORIGIN, 9, bytes(32), "the file")
    for before in (None, note(3, ORIGIN), note(4, RENAMED, OTHER), b"nonsense"):
        if before is not None:
            number = len(before)
            await store.log_publish(SignedHead(number, number.to_bytes(32, "big"), NOW, before))
        told = str(await contradicted(store, RENAMED, known, keys))
        assert "no head under that name is signed by this broker's keys" in told
    await store.log_publish(SignedHead(1000, bytes(32), NOW, note(1000, RENAMED, Hand(RENAMED))))
    assert await contradicted(store, RENAMED, known, keys) is not None
    hand = Hand(RENAMED)

    async def ours() -> list[tlog.NoteKey]:
        return [hand.key]

    await store.log_publish(SignedHead(1001, bytes(32), NOW, note(1001, RENAMED, hand)))
    assert await contradicted(store, RENAMED, known, ours) is None
