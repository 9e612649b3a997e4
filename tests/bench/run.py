"""`make bench`: what a governed step costs, as ratios to an empty FastAPI POST measured in the same run; and the log.

Gates: broker CPU per begin <= 6x, p50 at one run <= 7x, durable commits per call <= 1 at one run and <= 0.5 at sixteen.
Of the log: `bench/log.py`.
Absolute figures are printed and told. Rounds are interleaved with the yardstick; figures are medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import stepgrant
from bench import checking, log
from bench.agents import Agent
from bench.load import Measured, load, post
from bench.log import Gate
from bench.server import Child, child
from stepgrant._exchange import WorkloadKey

CPU_GATE, P50_GATE, COMMITS_GATE_1, COMMITS_GATE_16 = 6.0, 7.0, 1.0, 0.5
ROUNDS, WARM = 5, 200


@dataclass
class Figures:
    """All rounds of one measurement."""

    rounds: list[Measured] = field(default_factory=list)
    commits: list[float] = field(default_factory=list)

    def middle(self, of: Callable[[Measured], float]) -> float:
        """The median over the rounds."""
        return statistics.median(of(one) for one in self.rounds)


def commits_of(broker: Child) -> float:
    """The broker's durable transactions so far."""
    return float(broker.ask()["commits"])


def yardstick_round(child_: Child, count: int) -> Measured:
    """One round of the empty POST at one connection."""
    body = json.dumps({"epoch": 1, "tool": "bench.pay", "resource": "order/991", "amount": 10}).encode()
    request = post(child_.url, "/empty", body, {"X-Filler": "x" * 700})
    return load(child_.url, child_.process.pid, [[request] * count])


def begins(broker: Child, key: WorkloadKey, runs: int, each: int, figures: Figures, name: str) -> None:
    """One round of begins at `runs` distinct runs."""
    agents = [Agent(broker.url, key, f"{name}-{time.time_ns()}-{n}") for n in range(runs)]
    requests = [[agent.begin(f"s{n}") for n in range(each)] for agent in agents]
    before = commits_of(broker)
    figures.rounds.append(load(broker.url, broker.process.pid, requests))
    figures.commits.append((commits_of(broker) - before) / (runs * each))


@stepgrant.tool(name="bench.read", effect="read", step_id="{n}")
def nothing(n: str) -> str:
    """A tool that does nothing."""
    return n


def sdk_steps(broker: Child, count: int) -> list[float]:
    """The SDK's whole step (begin and complete over HTTP), ms each."""
    os.environ["STEPGRANT_URL"], os.environ["STEPGRANT_WORKLOAD_KEY"] = broker.url, broker.said["key"]
    times = []
    with stepgrant.run(f"sdk-{time.time_ns()}", agent="bench"):
        for n in range(WARM // 4 + count):
            started = time.perf_counter()
            nothing(f"s{n}")
            times.append((time.perf_counter() - started) * 1000)
    return times[WARM // 4 :]


def measure(count: int) -> dict[str, float]:
    """All rounds; the figures by name."""
    empty, one, sixteen, whole = Figures(), Figures(), Figures(), []
    with tempfile.TemporaryDirectory() as folder, child("yardstick.py") as stick, child("broker.py", folder) as broker:
        key = WorkloadKey.load(broker.said["key"])
        yardstick_round(stick, WARM)
        begins(broker, key, 1, WARM, Figures(), "warm")
        begins(broker, key, 16, WARM // 16, Figures(), "warm")
        for number in range(ROUNDS):
            print(f"round {number + 1} of {ROUNDS} …", file=sys.stderr, flush=True)
            empty.rounds.append(yardstick_round(stick, count))
            begins(broker, key, 1, count, one, "one")
            begins(broker, key, 16, max(8, count // 16), sixteen, "sixteen")
            whole += sdk_steps(broker, count // 2)
        inside = in_process(count)
    return {
        "yardstick_p50_ms": empty.middle(lambda m: m.p50),
        "yardstick_cpu_us": empty.middle(lambda m: m.cpu_us),
        "begin_1_p50_ms": one.middle(lambda m: m.p50),
        "begin_1_p99_ms": one.middle(lambda m: m.p99),
        "begin_1_per_s": one.middle(lambda m: m.rate),
        "begin_1_cpu_us": one.middle(lambda m: m.cpu_us),
        "begin_1_commits": statistics.median(one.commits),
        "begin_16_p50_ms": sixteen.middle(lambda m: m.p50),
        "begin_16_p99_ms": sixteen.middle(lambda m: m.p99),
        "begin_16_per_s": sixteen.middle(lambda m: m.rate),
        "begin_16_cpu_us": sixteen.middle(lambda m: m.cpu_us),
        "begin_16_commits": statistics.median(sixteen.commits),
        "sdk_step_p50_ms": statistics.median(whole),
        "in_process_step_p50_ms": inside,
    }


def in_process(count: int) -> float:
    """Begin and complete without HTTP, in a process of its own; median ms."""
    with tempfile.TemporaryDirectory() as folder, child("inside.py", folder, str(count)) as done:
        return float(done.said["p50_ms"])


def gates_of(figures: dict[str, float]) -> list[Gate]:
    """What has to hold of a step."""
    stick, cpu = figures["yardstick_p50_ms"], figures["yardstick_cpu_us"]
    return [
        ("broker CPU per begin, 1 run", figures["begin_1_cpu_us"] / cpu, CPU_GATE, "x yardstick"),
        ("broker CPU per begin, 16 runs", figures["begin_16_cpu_us"] / cpu, CPU_GATE, "x yardstick"),
        ("p50 of begin, 1 run", figures["begin_1_p50_ms"] / stick, P50_GATE, "x yardstick"),
        ("durable commits per begin, 1 run", figures["begin_1_commits"], COMMITS_GATE_1, ""),
        ("durable commits per begin, 16 runs", figures["begin_16_commits"], COMMITS_GATE_16, ""),
    ]


def report(figures: dict[str, float], gates: list[Gate]) -> list[str]:
    """Print the table; the gates that were missed."""
    for name, value in figures.items():
        print(f"{name:28} {value:10.3f}")
    missed = []
    for what, value, gate, unit in gates:
        held = value <= gate
        print(f"{'ok  ' if held else 'MISS'} {what}: {value:.2f} {unit} (gate {gate})")
        missed += [] if held else [what]
    return missed


def verified(entries: int) -> dict[str, float]:
    """`stepgrant ledger verify` over so many entries."""
    found = checking.measure(entries)
    return {"verify_entries": found.entries, "verify_s": found.seconds, "verify_memory_mib": found.rss_mib}


def verified_gates(figures: dict[str, float]) -> list[Gate]:
    """What has to hold of it, for any number of entries."""
    seconds = figures["verify_s"] * checking.GATE_ENTRIES / figures["verify_entries"]
    return [(f"ledger verify of {checking.GATE_ENTRIES} entries", seconds, checking.GATE_S, "s")]


PARTS = {"steps": (measure, gates_of), "verify": (verified, verified_gates), "log": (log.measure, log.gates)}


def main() -> int:
    """Measure, print, and say whether the gates held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=600, help="requests in a round")
    parser.add_argument("--entries", type=int, default=1_000_000, help="the log's full size")
    parser.add_argument("--only", choices=[*PARTS], help="one part alone")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON only")
    options = parser.parse_args()
    sizes = {"steps": options.count, "verify": checking.GATE_ENTRIES, "log": options.entries}
    figures, gates = dict[str, float](), list[Gate]()
    for name, (part, part_gates) in PARTS.items():
        if options.only in {None, name}:
            found = part(sizes[name])
            figures |= found
            gates += part_gates(found)
    if options.json:
        print(json.dumps(figures, indent=2))
        return 0
    return 1 if report(figures, gates) else 0


if __name__ == "__main__":
    raise SystemExit(main())
