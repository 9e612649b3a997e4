"""A database that goes back under a running sequencer, as in a failover to a standby that lagged: no second past."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conformance.store.making import Chain, SetClock
from logs import ORIGIN, copied
from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.domain.restoring import KnownHead, StoreRolledBack
from stepgrant_broker.ledger.newest import HeadFile
from stepgrant_broker.ledger.public_log import PublicLog
from stepgrant_broker.ledger.sequencer import Sequencer
from stepgrant_broker.signing.local import LocalSigner
from stepgrant_broker.store.sqlite import SqliteStore


@pytest.fixture
def file(tmp_path: Path) -> HeadFile:
    return HeadFile(tmp_path)


@pytest.fixture
def replica(store: SqliteStore, signer: LocalSigner, file: HeadFile) -> Callable[[], Sequencer]:
    """Another broker's sequencer; all share store, keys and head file."""
    return lambda: Sequencer(store, signer, SetClock(), ORIGIN, outside=file)


async def grown(store: SqliteStore, count: int) -> None:
    await store.commit(Chain.of_run().adds(count))


async def refused(sequencer: Sequencer, size: int, known: int) -> str:
    with pytest.raises(StoreRolledBack) as error:
        await sequencer.round()
    assert error.value.more == {"size": size, "known_size": known}
    assert "stepgrant db restored" in error.value.detail
    assert sequencer.rolled_back == error.value.detail
    return error.value.detail


async def published(store: SqliteStore) -> list[int]:
    return [head.size for head in await store.log_published_after(0, 100)]


async def test_what_shows_the_loss_is_never_written_over(
    store: SqliteStore, replica: Callable[[], Sequencer], file: HeadFile, tmp_path: Path
) -> None:
    sequencer = replica()
    await grown(store, 5)
    await sequencer.round()
    back = copied(tmp_path)
    await grown(store, 4)
    await sequencer.round()
    counted, evidence = sequencer.counted, file.path.read_bytes()
    await PublicLog(store, sequencer).continues()

    back()
    assert "its log has 5 entries, but this process knows 9" in await refused(sequencer, 5, 9)
    await grown(store, 7)
    await refused(sequencer, 5, 9)
    assert await published(store) == [5]

    # Another one, which never saw the nine, has integrated the others: by its size alone this log has grown.
    assert await Sequencer(store, sequencer._signer, SetClock(), ORIGIN).round() == 7
    assert "the first 9 of its 12 entries are not those that this process knows" in await refused(sequencer, 12, 9)
    with pytest.raises(StoreRolledBack):
        await PublicLog(store, sequencer).continues()
    with pytest.raises(StoreUnavailable) as error:
        await PublicLog(store, sequencer).catch_up()
    assert error.value.code == "ledger_unavailable"
    assert sequencer.counted == counted
    assert file.path.read_bytes() == evidence


async def test_a_replica_that_was_behind_believes_what_another_one_kept(
    store: SqliteStore, replica: Callable[[], Sequencer], file: HeadFile, tmp_path: Path
) -> None:
    late, ahead = replica(), replica()
    await grown(store, 5)
    await late.round()
    back = copied(tmp_path)
    await grown(store, 4)
    await ahead.round()
    evidence = file.path.read_bytes()

    back()
    await grown(store, 7)
    assert f"the first 9 of its 12 entries are not those that {file.path} knows" in await refused(late, 12, 9)
    assert await published(store) == [5]
    assert file.path.read_bytes() == evidence


class Overtaken(HeadFile):
    """A file in which another replica keeps a head behind this one's first look."""

    looked: KnownHead | None = None

    def read(self) -> KnownHead | None:
        known, self.read = self.looked, super().read  # type: ignore[method-assign]
        return known


async def test_a_head_that_came_into_the_file_meanwhile_is_compared_too(
    store: SqliteStore, signer: LocalSigner, replica: Callable[[], Sequencer], file: HeadFile, tmp_path: Path
) -> None:
    await grown(store, 5)
    await replica().round()
    first, back = file.read(), copied(tmp_path)
    await grown(store, 4)
    await replica().round()

    for goes_back, size in ((False, 16), (True, 12)):
        if goes_back:
            back()
        await grown(store, 7)
        overtaken = Overtaken(tmp_path)
        overtaken.looked = first
        sequencer = Sequencer(store, signer, SetClock(), ORIGIN, outside=overtaken)
        evidence = file.path.read_bytes()
        if goes_back:
            await refused(sequencer, size, 16)
            assert sequencer.counted is None
            assert file.path.read_bytes() == evidence
        else:
            await sequencer.round()
            known = file.read()
            assert known is not None
            assert known.size == size


async def test_it_goes_on_once_the_newer_database_is_there_again(
    store: SqliteStore, replica: Callable[[], Sequencer], file: HeadFile, tmp_path: Path
) -> None:
    sequencer = replica()
    await grown(store, 5)
    await sequencer.round()
    older = copied(tmp_path)
    await grown(store, 4)
    await sequencer.round()
    newer = copied(tmp_path)
    older()
    await refused(sequencer, 5, 9)
    newer()
    await grown(store, 1)
    await sequencer.round()
    assert sequencer.rolled_back is None
    assert sequencer.counted is not None
    assert sequencer.counted.size == 10
    assert file.path.read_bytes() == sequencer.counted.note
