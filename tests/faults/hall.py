"""A hall of labs: each kind once, made when it is first needed, two of them at work at a time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from faults.lab import ISSUERS, STORES, IssuerName, Lab, Services, StoreName, lab
from faults.nursery import Nursery
from faults.tales import Fault, Meanwhile, Tale, settle, tell

SLOTS: Final = 2


class Placed(Fault, Protocol):
    """A fault that says on which lab."""

    @property
    def store(self) -> StoreName:
        """The broker's store."""

    @property
    def issuer(self) -> IssuerName:
        """Where the tools' credentials come from."""


@dataclass
class Slot:
    """A nursery and the labs whose brokers it forks, one case at a time."""

    folder: Path
    services: Services
    stack: ExitStack
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    labs: dict[tuple[StoreName, IssuerName], Lab] = field(default_factory=dict)
    nursery: Nursery | None = None

    def lab(self, store: StoreName, issuer: IssuerName) -> Lab:
        """The lab of this kind."""
        if self.nursery is None:
            self.nursery = self.stack.enter_context(Nursery())
        if (store, issuer) not in self.labs:
            made = lab(self.nursery, self.folder / f"{store}-{issuer}", store, issuer, self.services)
            self.labs[store, issuer] = self.stack.enter_context(made)
        return self.labs[store, issuer]

    def play(self, case: Placed, meanwhile: Meanwhile | None) -> Tale:
        """Live a case."""
        return tell(self.lab(case.store, case.issuer), case, meanwhile)

    def settle(self) -> list[str]:
        """What is not confirmed dead in any lab."""
        return [found for one in self.labs.values() for found in settle(one)]


@dataclass
class Hall:
    """Where cases are played."""

    slots: list[Slot]

    def settle(self) -> list[str]:
        """Once all cases are over: what any of them was given and is not confirmed dead, however long that takes."""
        settling = [slot.pool.submit(slot.settle) for slot in self.slots]
        return [found for slot in settling for found in slot.result()]

    def play(self, case: Placed, meanwhile: Meanwhile | None = None) -> Future[Tale]:
        """Live a case as soon as its slot is free."""
        turn = (STORES.index(case.store) + ISSUERS.index(case.issuer)) % SLOTS
        return self.slots[turn].pool.submit(self.slots[turn].play, case, meanwhile)


@contextmanager
def hall(folder: Path, services: Services) -> Iterator[Hall]:
    """A hall in this folder; all its processes end with the block."""
    with ExitStack() as stack:
        slots = [Slot(folder / str(number), services, stack.enter_context(ExitStack())) for number in range(SLOTS)]
        try:
            yield Hall(slots)
        finally:
            for slot in slots:
                slot.pool.shutdown(cancel_futures=True)
