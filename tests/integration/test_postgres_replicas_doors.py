"""Two to four brokers on one PostgreSQL: any of them serves any call, and nobody can tell from the ledger which did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from checker.check import check
from conformance.store.adapters import PostgresDatabase
from faults.doors import Life, doors

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer

MOST: Final = 4


async def test_each_call_of_a_run_goes_to_the_next_of_four(tmp_path: Path, postgres_server: PostgresServer) -> None:
    """Every call that there is in a run's life; its entries are those that one broker alone writes."""
    shapes = []
    for number in (MOST, 1):
        url = PostgresDatabase.on(postgres_server).location
        async with doors(tmp_path / str(number), url, [{}] * number) as made:
            life = Life(made, "job")
            await life.second_epoch(await life.first_epoch())
            assert all(one >= len(made.served) for one in made.served), "each of them had a good part of the calls"
            assert [str(finding) async for finding in made.brokers[-1].ledger_check().findings()] == []
            assert [str(one) for one in check(made.evidence())] == []
            shapes.append(life.shape())
    assert shapes[0] == shapes[1]
    assert {"run_opened", "run_resumed", "run_parked", "run_ended"} < {entry["type"] for entry in shapes[0]}
