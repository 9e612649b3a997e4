"""Kills at the six moments around a mint of Vault, and outages while logins are taken back.

Nothing that was minted may outlive its lease, or two sweeps once all is up again. What lives is asked of Vault (leases,
tokens) and of PostgreSQL (roles, sessions) themselves. One run has several brokers, each killed at one moment.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, Literal

from faults.hall import Hall
from faults.lab import STORES, IssuerName, Logins, StoreName
from faults.matrix import played, summed
from faults.tales import Tale
from soak import result as soak

MOMENTS: Final = {
    "before intend": "usecase.before_intend",
    "after intend": "usecase.after_intend",
    "after intent commit": "usecase.before_mint",
    "after Vault's reply": "usecase.after_mint",
    "after lease commit": "usecase.after_lease",
    "before reply": "api.before_reply",
}
REPLY_OF_BEGIN: Final = 5
"""An agent's first mint is answered by the broker's fifth answer: two of the token exchange, open, plan, begin."""

KILLS: Final = 3
"""In each run: a login that nobody can name is waited out, and the next mint of the run waits with it."""


@dataclass(frozen=True)
class Orphaning:
    """One run whose brokers are killed at these moments, one after the other."""

    store: StoreName
    moments: tuple[str, ...]
    issuer: IssuerName = "vault-database"
    agents: int = 1
    by_agent: str = ""

    @property
    def name(self) -> str:
        """What replays it."""
        return f"{self.store}/{','.join(self.moments)}"

    @classmethod
    def read(cls, name: str) -> Orphaning:
        """The case of this name. Raises `ValueError`."""
        store, _, moments = name.partition("/")
        found = [cls(one, tuple(moments.split(","))) for one in STORES if one == store]
        if not found or not set(found[0].moments) <= set(MOMENTS):
            raise ValueError(f"{name!r} is not store/moment,moment,...; moments are {', '.join(MOMENTS)}")
        return found[0]

    def by_brokers(self) -> Iterator[str]:
        """Each is killed at one moment."""
        for number, moment in enumerate(self.moments):
            # A later broker has no exchange and no opening to answer: the agent is in the middle of its call.
            nth = REPLY_OF_BEGIN if moment == "before reply" and number == 0 else 1
            yield f"{MOMENTS[moment]}@{nth}=kill"


@dataclass(frozen=True)
class Outage:
    """One run under which a server is away for a time, from when there is a login to be taken back."""

    what: Literal["vault", "postgres"]
    seconds: int
    store: StoreName = "sqlite"
    issuer: IssuerName = "vault-database"
    agents: int = 1
    by_agent: str = ""

    @property
    def name(self) -> str:
        """What it is."""
        return f"outage of {self.what} for {self.seconds} s"

    def by_brokers(self) -> Iterable[str]:
        """None has a failpoint."""
        return ()

    def alone(self, place: Hall) -> list[Future[Tale]]:
        """Play it in a hall of its own."""
        return [place.play(self, self.harm)]

    def harm(self, tale: Tale, over: threading.Event) -> None:
        """Take the server away, and bring it back. Vault hangs, PostgreSQL is stopped."""
        logins = _needed(tale.brokers.lab.logins)
        while not over.wait(0.02) and not logins.alive():
            continue
        if self.what == "vault":
            logins.vault.pause()
            time.sleep(self.seconds)
            logins.vault.resume()
        else:
            logins.postgres.stop()
            time.sleep(self.seconds)
            logins.postgres.start()


def _needed(logins: Logins | None) -> Logins:
    if logins is None:
        raise ValueError("an outage needs a lab with logins")
    return logins


def all_moments(draw: random.Random, size: int) -> list[Orphaning]:
    """Runs with `size` kills in all; every moment comes as often as any other."""
    moments: list[str] = []
    while len(moments) < size:
        some = list(MOMENTS)
        draw.shuffle(some)
        moments += some
    del moments[size:]
    cut = [tuple(moments[start : start + KILLS]) for start in range(0, size, KILLS)]
    return [Orphaning(STORES[number % 2], some) for number, some in enumerate(cut)]


def play(cases: Sequence[Orphaning], outages: Sequence[Outage] = ()) -> soak.Result:
    """Play these; the outages, which harm all that goes on beside them, one by one and last."""
    done = [played(lambda place: [place.play(case) for case in cases], each=KILLS)]
    done += [played(one.alone, each=0) for one in outages]
    counts: Counter[str] = Counter(outages=len(outages))
    for case, tale in zip(cases, done[0].tales, strict=True):
        for moment in case.moments:
            counts[moment if tale.did(MOMENTS[moment], "kill") else "not reached"] += 1
    return summed(done, counts)


def slice(seed: int, size: int) -> soak.Result:  # noqa: A001 - the one name that soak looks for
    """`size` kills that follow from the seed, and an outage of each server."""
    draw = random.Random(f"orphans {seed}")
    outages = [Outage("vault", draw.randint(5, 30)), Outage("postgres", draw.randint(1, 30))]
    return play(all_moments(draw, size), outages)


def replay(name: str) -> soak.Result:
    """One run again. Raises `ValueError`."""
    return play([Orphaning.read(name)])
