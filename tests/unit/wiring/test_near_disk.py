"""Which CPU hears a disk: what Linux tells of it, in folders of its shape."""

import os
from pathlib import Path

import pytest

from stepgrant_broker.wiring.near_disk import cpus_of, near_disk

INTERRUPTS = """           CPU0       CPU1       CPU2
   1:          9          0          0   IO-APIC   1-edge      i8042
  35:          3          0          0   PCI-MSIX-0000:00:02.0   0-edge      virtio1-config
  36:          1          0    {first}   PCI-MSIX-0000:00:02.0   1-edge      virtio1-req.0
  37:          0    {second}          0   PCI-MSIX-0000:00:02.0   2-edge      virtio1-req.1
  38:          0     9999999          0   PCI-MSIX-0000:00:04.0   1-edge      virtio3-rx
 NMI:          0          0          0   Non-maskable interrupts
 ERR:          0
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine whose one disk holds the temporary folder, and asks by two queues of which one is at rest."""
    told = tmp_path / "told"
    pci = told / "sys/devices/pci0000:00/0000:00:02.0"
    disk = pci / "virtio1/block/vda"
    disk.mkdir(parents=True)
    for number in ("35", "36", "37"):
        (pci / "msi_irqs").mkdir(exist_ok=True)
        (pci / "msi_irqs" / number).touch()
        (told / "proc/irq" / number).mkdir(parents=True)
        (told / "proc/irq" / number / "effective_affinity_list").write_text(
            {"36": "2\n", "37": "1\n"}.get(number, "0\n")
        )
    device = tmp_path.stat().st_dev
    (told / "sys/dev/block").mkdir(parents=True)
    (told / "sys/dev/block" / f"{os.major(device)}:{os.minor(device)}").symlink_to(disk)
    say(told, 4000, 20)
    return told


def say(root: Path, first: int, second: int) -> None:
    """How often each of the two queues' interrupts came."""
    (root / "proc/interrupts").write_text(INTERRUPTS.format(first=first, second=second))


def test_it_is_where_the_busy_queues_interrupt_goes(root: Path, tmp_path: Path) -> None:
    assert near_disk(tmp_path / "stepgrant.db", root) == {2}


def test_a_file_that_is_yet_to_come_lies_where_its_folder_will(root: Path, tmp_path: Path) -> None:
    assert near_disk(tmp_path / "no" / "such" / "folder" / "stepgrant.db", root) == {2}


def test_with_a_queue_for_each_cpu_none_is_nearer(root: Path, tmp_path: Path) -> None:
    say(root, 2000, 2001)
    assert near_disk(tmp_path, root) == frozenset()


@pytest.mark.parametrize(
    "missing", ["sys/dev/block", "sys/devices/pci0000:00/0000:00:02.0/msi_irqs", "proc/interrupts", "proc/irq/36"]
)
def test_where_nothing_is_told_nobody_is_near(root: Path, tmp_path: Path, missing: str) -> None:
    (root / missing).rename(root / "elsewhere")
    assert near_disk(tmp_path, root) == frozenset()


@pytest.mark.parametrize("text", ["", "none\n", "-", "1,,2"])
def test_what_cannot_be_read_names_no_cpu(root: Path, tmp_path: Path, text: str) -> None:
    (root / "proc/irq/36/effective_affinity_list").write_text(text)
    assert near_disk(tmp_path, root) == frozenset()


def test_a_list_of_cpus() -> None:
    assert cpus_of("0-2,7\n") == {0, 1, 2, 7}
    assert cpus_of("3") == {3}


def test_of_this_machine_it_says_what_it_may() -> None:
    assert near_disk(Path(__file__)) <= set(range(os.cpu_count() or 1))
