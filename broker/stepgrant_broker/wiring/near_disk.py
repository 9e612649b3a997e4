"""On which CPU the disk of a file says that it is done.

Rules:
* Who waits for the disk on another CPU is woken by a second interrupt, from CPU to CPU (figures: DECISIONS 81).
* A disk with a queue for each CPU answers where it was asked: there no CPU is nearer than another. So it is where one
  interrupt does most of the disk's work.
* It is a hint and nothing depends on it: where Linux does not tell, as of a disk behind a network or a mapper, nobody
  is near.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_ROOT: Final = Path("/")


def near_disk(file: Path, root: Path = _ROOT) -> frozenset[int]:
    """The CPUs that the interrupts of the file's disk go to, where they are not spread over all; or none.

    `file` may be yet to come. `root`: where `sys` and `proc` are mounted (sysfs-bus-pci: `msi_irqs`; proc(5):
    `interrupts`, `irq`).
    """
    try:
        there = next(one for one in (file.absolute(), *file.absolute().parents) if one.exists())
        device = there.stat().st_dev
        disk = (root / "sys/dev/block" / f"{os.major(device)}:{os.minor(device)}").resolve(strict=True)
        folder = next(up / "msi_irqs" for up in disk.parents if (up / "msi_irqs").is_dir())
        mine = {one.name for one in folder.iterdir()}
        made = {name: times for name, times in _made((root / "proc/interrupts").read_text()).items() if name in mine}
        busiest = max(made, key=lambda name: made[name])
        if made[busiest] * 2 <= sum(made.values()):
            return frozenset()
        return cpus_of((root / "proc/irq" / busiest / "effective_affinity_list").read_text())
    except (OSError, ValueError, StopIteration):
        return frozenset()


def _made(interrupts: str) -> dict[str, int]:
    """How often each interrupt of a device came, on all CPUs together."""
    header, *lines = interrupts.splitlines()
    width = len(header.split())
    numbered = [(name.strip(), rest.split()[:width]) for name, _, rest in (line.partition(":") for line in lines)]
    return {name: sum(map(int, times)) for name, times in numbered if name.isdigit()}


def cpus_of(text: str) -> frozenset[int]:
    """The CPUs of a list such as `0-2,7`. Raises ValueError for what is none."""
    found = set[int]()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)
