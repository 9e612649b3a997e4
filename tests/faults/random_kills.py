"""SIGKILL at random times, to the broker or to the agent, some in each run: what no named point would find."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from faults.lab import ISSUERS, STORES, IssuerName, StoreName
from faults.matrix import played, summed
from faults.tales import Tale
from soak import result as soak

Who = Literal["broker", "agent"]
KILLS: Final = 5
"""In each run at most."""

STRIKE: Final = 3
"""So many of them, as measured: a run that ends before has fewer."""

LONGEST_MS: Final = 2500


@dataclass(frozen=True)
class Scattered:
    """One run with some kills, each so many milliseconds after the one before."""

    seed: int
    number: int
    store: StoreName
    issuer: IssuerName
    kills: tuple[tuple[Who, int], ...]
    agents: int = 1
    by_agent: str = ""

    @property
    def name(self) -> str:
        """What finds it again."""
        kills = ",".join(f"{who}+{ms}" for who, ms in self.kills)
        return f"{self.seed}.{self.number}/{self.store}/{self.issuer}/{kills}"

    def by_brokers(self) -> Iterable[str]:
        """None has a failpoint."""
        return ()

    def harm(self, tale: Tale, over: threading.Event) -> None:
        """Kill, until the run is over."""
        for who, ms in self.kills:
            if over.wait(ms / 1000):
                return
            agent = tale.workmen[0].process
            pid = tale.brokers.lab.nursery.pid if who == "broker" else agent.pid if agent is not None else None
            if pid is not None and (who == "broker" or (agent is not None and agent.poll() is None)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def scattered(seed: int, size: int) -> list[Scattered]:
    """Runs with about `size` kills in all."""
    draw = random.Random(f"random-kills {seed}")
    whos: tuple[Who, ...] = ("broker", "agent")
    return [
        Scattered(
            seed, number, draw.choice(STORES), draw.choice(ISSUERS),
            tuple((draw.choice(whos), draw.randint(0, LONGEST_MS)) for _ in range(KILLS)),
        )
        for number in range(-(-size // STRIKE))
    ]  # fmt: skip


def play(cases: Iterable[Scattered]) -> soak.Result:
    """Play these."""
    done = played(lambda place: [place.play(case, case.harm) for case in cases], each=STRIKE)
    return summed([done], Counter())


def slice(seed: int, size: int) -> soak.Result:  # noqa: A001 - the one name that soak looks for
    """Runs with about `size` kills that follow from the seed; when they strike depends on this machine too."""
    return play(scattered(seed, size))
