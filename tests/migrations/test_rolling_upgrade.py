"""A rolling upgrade as it happens: brokers with runs under way, and the next version's revision comes under them.

The next version is made here: a revision behind the newest one, with every kind of change that a migration may make.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest

from checker.check import check
from conformance.store.adapters import PostgresDatabase
from cuts import ALL_HERE
from faults.doors import CALM, Doors, Life, Refused, doors
from stepgrant_broker.store import schema
from stepgrant_broker.store.faults import SchemaNewer
from stepgrant_broker.store.postgres import PostgresStore
from stepgrant_broker.wiring import build

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer

NEXT: Final = f"{int(schema.revisions()[-1]) + 1:04}"
REVISION: Final = f"""
import sqlalchemy as sa
from alembic import op

from stepgrant_broker.store.tables import METADATA

revision, down_revision = "{NEXT}", "{schema.revisions()[-1]}"


def upgrade() -> None:
    for name in METADATA.tables:
        op.add_column(name, sa.Column("next_word", sa.Text()))
        op.add_column(name, sa.Column("next_count", sa.BigInteger(), nullable=False, server_default=sa.text("7")))
        op.create_index("ix_next_" + name, name, ["next_count"])
    op.create_table("next_things", sa.Column("id", sa.Text(), primary_key=True))
"""
BRIEF_MS: Final = 1000
AFTER: Final = 10
MADE_SINCE: Final = "SELECT count(*) FROM {} WHERE next_count = 7 AND next_word IS NULL"


Upgrade = Callable[[str], None]


@pytest.fixture
def upgrade(tmp_path: Path) -> Upgrade:
    """`stepgrant db migrate` of the next version."""
    migrations = tmp_path / "migrations"
    shutil.copytree(schema.MIGRATIONS, migrations, ignore=shutil.ignore_patterns("__pycache__"))
    (migrations / "versions" / f"{NEXT}_next.py").write_text(REVISION, encoding="utf-8")

    def migrate(url: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(schema, "MIGRATIONS", migrations)
            schema.revisions.cache_clear()
            schema.migrate(url)
            schema.check(url)
        schema.revisions.cache_clear()

    return migrate


async def busy(life: Life, over: asyncio.Event) -> int:
    """Records one step after the other, and some more once it is over; how many.

    While tables are held a call may be given up by name, and is made again. Once it is over none may.
    """
    number, left = 0, AFTER
    while left:
        allowed = not over.is_set()
        try:
            await life.step(f"s{number}", "record", epoch=1, name="note", result=number)
        except Refused as refused:
            if refused.code != "ledger_unavailable" or not allowed:
                raise
            await asyncio.sleep(refused.retry_s)
            continue
        number += 1
        left -= not allowed
    return number


async def upgraded_under(life: Life, upgrade: Upgrade) -> int:
    """The upgrade comes while they are asked; how many steps were recorded meanwhile, each acknowledged."""
    over = asyncio.Event()
    asking = asyncio.create_task(busy(life, over))
    await asyncio.to_thread(upgrade, life.doors.database_url)
    over.set()
    return await asking


def row(made: Doors, run: str) -> Any:  # noqa: ANN401 - a row
    tables = made.evidence(run).tables
    assert tables is not None
    return tables.runs[0]


async def test_brokers_of_before_go_on_while_and_after_it_is_upgraded(
    postgres_server: PostgresServer, tmp_path: Path, upgrade: Upgrade
) -> None:
    """Runs that were under way are ended by the old brokers, new ones are lived, lapsed ones swept; none is lost."""
    url = PostgresDatabase.on(postgres_server).location
    async with doors(tmp_path, url, [CALM, {"lease_ms": BRIEF_MS}]) as made:
        old = Doors(made.brokers[:1], made.clients[:1], url, made.keys, made.operator)
        brief = Life(Doors(made.brokers[1:], made.clients[1:], url, made.keys, made.operator), "brief")
        life, asking, later = Life(old, "job"), Life(old, "asking"), Life(old, "later")
        under_way = await life.first_epoch()
        await asking.open(1)
        recorded = await upgraded_under(asking, upgrade)
        with pytest.raises(SchemaNewer):
            schema.check(url)

        await life.second_epoch(under_way)
        await brief.open(1)
        with psycopg.connect(url) as db:
            assert db.execute(ALL_HERE).rowcount > 0  # who connects anew goes on, too
        await later.second_epoch(await later.first_epoch())
        await asyncio.sleep(max(0.0, row(made, brief.run)["lease_until"] / 1000 - time.time()) + 0.1)
        assert await made.brokers[0].sweep_now() == 1
        assert row(made, brief.run)["state"] == "parked"

        assert life.shape() == later.shape()
        steps = [entry["step"] for entry in asking.shape() if entry["type"] == "step_recorded"]
        assert steps == [f"s{number}" for number in range(recorded)]
        assert [str(one) for one in check(made.evidence())] == []
        assert [str(finding) async for finding in made.brokers[1].ledger_check().findings()] == []
        with psycopg.connect(url) as db:
            for table in ("runs", "run_epochs", "steps", "grants", "approvals", "entries"):
                assert db.execute(MADE_SINCE.format(table).encode()).fetchall() != [(0,)]


async def test_a_broker_of_before_does_not_start_again_on_it(
    postgres_server: PostgresServer, tmp_path: Path, upgrade: Upgrade
) -> None:
    """It cannot know what the newer schema asks of it; the one that runs beside it is served on."""
    url = PostgresDatabase.on(postgres_server).location
    async with doors(tmp_path, url, [CALM]) as made:
        life = Life(made, "job")
        await life.open(1)
        await asyncio.to_thread(upgrade, url)
        with pytest.raises(SchemaNewer, match=f"schema {NEXT}, this one knows {schema.revisions()[-1]}"):
            async with build(made.brokers[0].settings):
                pytest.fail("it started")
        with pytest.raises(SchemaNewer, match="a newer version wrote the database"):
            PostgresStore(url)
        with pytest.raises(SchemaNewer, match="a newer version wrote the database"):
            schema.migrate(url)
        await life.step("plan", "record", epoch=1, name="plan", result=1)
        assert [entry["type"] for entry in life.shape()] == ["run_opened", "step_recorded"]
