"""Wrapping anew what rests under an older key: all of it, beside brokers that write, and nothing but the wrapping."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.hand import Hand
from fakes.tale import INPUT
from stepgrant import canonical
from stepgrant_broker.domain import aad
from stepgrant_broker.domain.chain_keys import Keys
from stepgrant_broker.domain.reads import Page
from stepgrant_broker.signing.wrap import LocalWrap, WrapError
from stepgrant_broker.store.sealing import Clear
from stepgrant_broker.store.sqlite import SqliteStore
from stepgrant_broker.usecases.rewrap import Rewrapped, rewrap
from stepgrant_broker.usecases.set_secret import set_secret

STRANGE = b"w" * 32


class Beside:
    """The store while another broker works beside it: what that one does comes before the named call, so many times.

    `asked`: the calls in their order.
    """

    def __init__(self, store: SqliteStore, before: str, act: Callable[[], Awaitable[object]], times: int = 1) -> None:
        self._store, self._before, self._act, self._times = store, before, act, times
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the store has
        async def call(*args: object) -> object:
            self.asked.append(name)
            if name == self._before and self.asked.count(name) <= self._times:
                await self._act()
            return await getattr(self._store, name)(*args)

        return call


@pytest.fixture
def wrap(broker: Hand) -> LocalWrap:
    found = broker.ports.wrap
    assert isinstance(found, LocalWrap)
    return found


@pytest.fixture
def late(broker: Hand, tmp_path: Path) -> Hand:
    """A broker on the same store that does not know of any newer key yet."""
    old = LocalWrap.open(tmp_path / "keys")
    return replace(broker, ports=replace(broker.ports, wrap=old, keys=Keys()))


async def wrapped_by(broker: Hand, *runs: str) -> set[str]:
    """The ids of the keys that chains are wrapped by."""
    found = [await broker.store.chain_key("acme", run) for run in runs]
    return {key.wrapped.key_id for key in found if key is not None}


async def test_all_of_it_comes_under_the_newest_key_and_stays_what_it_is(
    broker: Hand, wrap: LocalWrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Page by page; no chain hears of it."""
    monkeypatch.setattr("stepgrant_broker.usecases.rewrap.BATCH", 2)
    runs = [str((await broker.open(f"job-{number}", who=f"k{number}"))["run"]) for number in range(4)]
    await set_secret(broker.ports, "acme", broker.operator, name="crm", value="hunter2", hosts=("crm.example",))
    old, entries = wrap.key_id, [await broker.entries(run) for run in (None, *runs)]
    before = await broker.store.chain_key("acme", runs[0])
    assert before is not None
    plain = wrap.unwrap(before.wrapped, aad.chain_key("acme", runs[0]))
    assert await rewrap(broker.store, wrap) == Rewrapped(0, 0, 0, 0), "nothing is older than the newest"

    new = await wrap.rotate()
    assert await rewrap(broker.store, wrap) == Rewrapped(len(runs) + 1, 1, 0, 0)

    assert await wrapped_by(broker, "", *runs) == {new} != {old}
    after, secret = await broker.store.chain_key("acme", runs[0]), await broker.store.secret("acme", "crm")
    assert after is not None
    assert wrap.unwrap(after.wrapped, aad.chain_key("acme", runs[0])) == plain
    assert secret is not None
    assert secret.wrapped.key_id == new
    assert wrap.unwrap(secret.wrapped, aad.static_secret("acme", "crm")) == b"hunter2"
    with pytest.raises(WrapError):
        wrap.unwrap(secret.wrapped, aad.static_secret("acme", "other"))
    assert [await broker.entries(run) for run in (None, *runs)] == entries
    assert await rewrap(broker.store, wrap) == Rewrapped(0, 0, 0, 0)


@pytest.mark.parametrize(
    ("before", "done"),
    [("secrets_under_others", Rewrapped(2, 0, 0, 0)), ("seal_clear", Rewrapped(1, 0, 0, 1))],
)
async def test_what_a_broker_wraps_meanwhile_under_the_old_key_is_found_or_said_to_be_left(
    broker: Hand, wrap: LocalWrap, late: Hand, before: str, done: Rewrapped
) -> None:
    """By the second walk, or, when it came after that, by the last count: then it is to be begun again."""
    new = await wrap.rotate()
    store = Beside(broker.store, before, lambda: late.open("late", who="k2"))
    assert await rewrap(store, wrap) == done
    assert await rewrap(broker.store, wrap) == Rewrapped(done.left, 0, 0, 0)
    (run,) = [row.id for row, _ in (await broker.store.runs("acme", Page())).rows]
    assert await wrapped_by(broker, "", run) == {new}


async def test_what_rests_in_clear_is_sealed_and_its_traces_go(broker: Hand, wrap: LocalWrap, tmp_path: Path) -> None:
    file = tmp_path / "store" / "stepgrant.db"
    clear = SqliteStore(file, clock=broker.clock, seal=Clear())
    try:
        plain = replace(broker, store=clear, ports=replace(broker.ports, store=clear, reads=clear))
        run = (await plain.open(input_bytes=INPUT))["run"]
    finally:
        await clear.close()
    assert count_clear(file) > 0
    store = Beside(broker.store, "", broker.store.tenants)

    done = await rewrap(store, wrap)

    assert (done.chain_keys, done.secrets, done.left) == (0, 0, 0)
    assert done.payloads > 0
    assert count_clear(file) == 0
    assert store.asked.count("compact") == 1
    assert not any(INPUT in one.read_bytes() for one in file.parent.iterdir())
    assert (await broker.open(who="k2", takeover=True))["run"] == run
    store.asked.clear()
    assert (await rewrap(store, wrap)).payloads == 0
    assert "compact" not in store.asked, "a file is not written anew for nothing"


def count_clear(file: Path) -> int:
    db = sqlite3.connect(file)
    try:
        return int(db.execute("SELECT count(*) FROM payloads WHERE key_id IS NULL").fetchone()[0])
    finally:
        db.close()


async def test_what_does_not_unwrap_stops_it_and_its_page_stays_as_it_is(broker: Hand, wrap: LocalWrap) -> None:
    old, run = wrap.key_id, (await broker.open())["run"]
    stranger = LocalWrap([STRANGE], STRANGE)
    with pytest.raises(WrapError):
        await rewrap(broker.store, stranger)
    assert await wrapped_by(broker, "", run) == {old}


async def test_of_two_at_once_each_row_is_replaced_by_one(broker: Hand, wrap: LocalWrap) -> None:
    """What was replaced since it was read is left to whoever did it, and not asked for again for ever."""
    new, run = await wrap.rotate(), (await broker.open())["run"]
    faster: list[Rewrapped] = []

    async def beside() -> None:
        faster.append(await rewrap(broker.store, wrap))

    assert await rewrap(Beside(broker.store, "rewrap", beside), wrap) == Rewrapped(0, 0, 0, 0)
    assert faster == [Rewrapped(1, 0, 0, 0)]
    assert await wrapped_by(broker, "", run) == {new}


async def test_what_changes_all_the_time_does_not_hold_it_up(broker: Hand, wrap: LocalWrap, tmp_path: Path) -> None:
    """A secret that is set anew whenever it was read is left, and said to be."""
    await wrap.rotate()
    files = sorted((tmp_path / "keys").glob("wrap-*.key"))
    old_first = LocalWrap([canonical.b64u_decode(file.read_text().strip()) for file in files], STRANGE)
    assert old_first.key_id != wrap.key_id
    late = replace(broker.ports, wrap=old_first)

    async def set_again() -> None:
        await set_secret(late, "acme", broker.operator, name="crm", value="hunter2", hosts=("crm.example",))

    await set_again()
    store = Beside(broker.store, "rewrap", set_again, times=20)
    assert await rewrap(store, wrap) == Rewrapped(1, 0, 0, 1), "the tenant's own key alone"
    assert store.asked.count("rewrap") == 3, "that key, and the secret once in each of the two walks"
    assert await rewrap(broker.store, wrap) == Rewrapped(0, 1, 0, 0)
