"""The log's part of `make bench`: integration, proofs and memory at a million entries, and what a grant feels of it.

Gates: at least 5,000 entries/s integrated by a broker that serves; a proof of inclusion and its check at most 2 ms
(p50) at the full size; the broker's resident memory there at most 20 MiB over that at 10,000 entries; the p50 of begin
while the sequencer works off a backlog at most 1.5x that beside an idle one, in turns (medians of the rounds).
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import httpx

from bench.agents import Agent
from bench.entries import CHAIN, fill, hashes
from bench.load import cpu_seconds, load
from bench.server import child
from stepgrant import merkle, tlog
from stepgrant._exchange import WorkloadKey
from stepgrant_broker.config import explicit_settings
from stepgrant_broker.wiring import opened, prepare

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.load import Measured
    from bench.server import Child
    from stepgrant_broker.config import Settings

Gate: TypeAlias = tuple[str, float, float, str]
"""What was measured, its value, the most that it may be, and the unit."""
FEW: Final = 10_000
RATE_GATE, PROOF_GATE_MS, MEMORY_GATE_MIB, DELAY_GATE = 5_000.0, 2.0, 20.0, 1.5
PROOFS: Final = 500
TILES: Final = 300
BEGINS: Final = 200
ROUNDS: Final = 7
BACKLOG: Final = 40_000
PATIENCE_S: Final = 900.0
MIB: Final = 1024


def settings_of(folder: Path) -> Settings:
    """Of a broker in this folder."""
    return explicit_settings(data_dir=folder, host="127.0.0.1", log_level="error")


def size_of(client: httpx.Client) -> int:
    """The size of the newest head that the broker shows."""
    answer = client.get("/v1/log/checkpoint")
    if answer.status_code == httpx.codes.NOT_FOUND:
        return 0
    return tlog.read_head(tlog.read_note(answer.raise_for_status().content).text).size


def until_integrated(client: httpx.Client, size: int) -> None:
    """Wait for the log to have this size."""
    end = time.monotonic() + PATIENCE_S
    while size_of(client) < size:
        if time.monotonic() > end:
            raise TimeoutError(f"the log has {size_of(client)} of {size} entries")
        time.sleep(0.05)


def memory_mib(pid: int) -> float:
    """What a process has resident."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"), re.MULTILINE)
    if found is None:
        raise RuntimeError("no VmRSS")
    return int(found[1]) / MIB


@contextmanager
def serving(folder: Path, **more: object) -> Iterator[tuple[Child, httpx.Client]]:
    """A broker on this folder, and a client of it."""
    with child("broker.py", str(folder), json.dumps(more)) as broker, httpx.Client(base_url=broker.url) as client:
        yield broker, client


def begins(broker: Child, count: int, name: str) -> Measured:
    """So many begins at one connection."""
    agent = Agent(broker.url, WorkloadKey.load(broker.said["key"]), f"{name}-{time.time_ns()}")
    return load(broker.url, broker.process.pid, [[agent.begin(f"s{n}") for n in range(count)]])


def grown(folder: Path, count: int) -> dict[str, float]:
    """A broker that finds `count` entries waiting, integrates them, and is then used: its rate and its memory."""
    settings = settings_of(folder)
    prepare(settings, create=True)
    fill(settings.database_file, count)
    draw = random.Random(6)
    with serving(folder) as (broker, client):
        started, used = time.perf_counter(), cpu_seconds(broker.process.pid)
        until_integrated(client, count)
        seconds, used = time.perf_counter() - started, cpu_seconds(broker.process.pid) - used
        begins(broker, BEGINS, "use")
        for tile in [tlog.Tile(draw.choice((0, None)), draw.randrange(count // 256)) for _ in range(TILES)]:
            client.get(f"/v1/log/{tile.path}").raise_for_status()
        return {"rate": count / seconds, "cpu": used / count * 1e6, "memory": memory_mib(broker.process.pid)}


async def proofs(folder: Path) -> float:
    """The p50 of a proof of inclusion, made from the store and checked against the head; ms."""
    draw, times = random.Random(7), list[float]()
    settings = settings_of(folder)
    async with opened(settings) as broker:
        head = (await broker.store.log_tail(1)).head
        positions = [draw.randrange(head.size) for _ in range(PROOFS)]
        known = hashes(settings.database_file, positions)
        for position in positions:
            started = time.perf_counter()
            path = await broker.log.inclusion(position, head.size)
            merkle.verify_inclusion(merkle.leaf_hash(known[position]), position, head.size, path, head.root)
            times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times)


def delay(rounds: int) -> dict[str, float]:
    """The p50 of begin beside an idle sequencer and beside one with a backlog, in turns; medians, ms."""
    idle, busy, left = list[float](), list[float](), list[int]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(settings_of(folder), create=True)
        with serving(folder, log_every_ms=50) as (broker, client):
            begins(broker, BEGINS, "warm")
            for number in range(rounds):
                until_integrated(client, size_of(client))
                idle.append(begins(broker, BEGINS, "idle").p50)
                # All in one transaction: the sequencer would otherwise be done with them when the last one comes.
                fill(
                    settings_of(folder).database_file,
                    BACKLOG,
                    first_run=number * (BACKLOG // CHAIN),
                    together=BACKLOG,
                )
                busy.append(begins(broker, BEGINS, "busy").p50)
                left.append(BACKLOG * (number + 1) - size_of(client))
                until_integrated(client, BACKLOG * (number + 1))
    return {
        "begin_idle_p50_ms": statistics.median(idle),
        "begin_busy_p50_ms": statistics.median(busy),
        "begin_busy_left": statistics.median(left),
    }


def measure(count: int, rounds: int = ROUNDS) -> dict[str, float]:
    """All figures of the log, by name; `count` entries are the full size."""
    with tempfile.TemporaryDirectory() as name:
        print(f"the log at {FEW} and at {count} entries …", file=sys.stderr, flush=True)
        few, many = grown(Path(name, "few"), FEW), grown(Path(name, "many"), count)
        proof = asyncio.run(proofs(Path(name, "many")))
    print("begins beside the sequencer …", file=sys.stderr, flush=True)
    return {
        "log_entries": float(count),
        "log_integrated_per_s": many["rate"],
        "log_integrated_cpu_us": many["cpu"],
        "log_proof_p50_ms": proof,
        "log_memory_few_mib": few["memory"],
        "log_memory_full_mib": many["memory"],
        **delay(rounds),
    }


def gates(figures: dict[str, float]) -> list[Gate]:
    """What has to hold of the log."""
    return [
        ("time for 1,000 entries integrated", 1e6 / figures["log_integrated_per_s"], 1e6 / RATE_GATE, "ms"),
        ("proof of inclusion and its check, p50", figures["log_proof_p50_ms"], PROOF_GATE_MS, "ms"),
        (
            f"memory over that at {FEW} entries",
            figures["log_memory_full_mib"] - figures["log_memory_few_mib"],
            MEMORY_GATE_MIB,
            "MiB",
        ),
        (
            "p50 of begin beside a working sequencer",
            figures["begin_busy_p50_ms"] / figures["begin_idle_p50_ms"],
            DELAY_GATE,
            "x idle",
        ),
    ]
