"""Hot reload: every change is told once, and a broken one changes nothing but what people read."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engines import PATIENCE_S
from policies import ALLOW
from stepgrant_broker.policy.bundle import Bundle, from_files, read_directory
from stepgrant_broker.policy.embedded import EmbeddedEngine
from stepgrant_broker.policy.findings import Finding, PolicyInvalid
from stepgrant_broker.policy.watch import watch

INTERVAL_S = 0.02


@dataclass
class Heard:
    changed: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    refuse: bool = False

    async def on_change(self, bundle: Bundle) -> None:
        if self.refuse:
            raise PolicyInvalid([Finding("a.rego", 1, "refused", "no", "yes")])
        self.changed.append(bundle.digest)

    async def on_broken(self, invalid: PolicyInvalid) -> None:
        self.broken.append(invalid.findings[0].code)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(40):
        while not true():  # noqa: ASYNC110  (what is waited for is a file system)
            await asyncio.sleep(INTERVAL_S)


def save(path: Path, text: str) -> None:
    """At once: nobody reads half of it."""
    fresh = path.parents[1] / "fresh"
    fresh.write_text(text)
    fresh.rename(path)


async def quiet() -> None:
    await asyncio.sleep(8 * INTERVAL_S)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "stepgrant").mkdir()
    (tmp_path / "stepgrant" / "main.rego").write_text(ALLOW)
    return tmp_path


@pytest.fixture
async def heard(root: Path) -> AsyncIterator[Heard]:
    found = Heard()
    known = read_directory(root).digest
    task = asyncio.ensure_future(
        watch(root, changed=found.on_change, broken=found.on_broken, known=known, interval_s=INTERVAL_S)
    )
    yield found
    assert not task.done()
    task.cancel()


def digest(text: str) -> str:
    return from_files({"stepgrant/main.rego": text}).digest


async def test_what_is_known_is_no_change(root: Path, heard: Heard) -> None:
    (root / "README.md").write_text("# mine")
    save(root / "stepgrant" / "main_test.rego", "package main_test\n")
    await quiet()
    assert (heard.changed, heard.broken) == ([], [])


async def test_each_change_is_told_once(root: Path, heard: Heard) -> None:
    for text in (ALLOW + "\n", ALLOW + "\n\n", ALLOW):
        save(root / "stepgrant" / "main.rego", text)
        await until(lambda text=text: heard.changed[-1:] == [digest(text)])  # type: ignore[misc]
    await quiet()
    assert heard.changed == [digest(ALLOW + "\n"), digest(ALLOW + "\n\n"), digest(ALLOW)]


async def test_a_file_that_comes_or_goes_is_a_change(root: Path, heard: Heard) -> None:
    more = root / "stepgrant" / "more.rego"
    save(more, "package stepgrant.more\n")
    await until(lambda: len(heard.changed) == 1)
    more.unlink()
    await until(lambda: heard.changed[-1] == digest(ALLOW))


async def test_what_is_broken_is_told_once_and_so_is_its_mending(root: Path, heard: Heard) -> None:
    save(root / "stepgrant" / "data.json", "{")
    await until(lambda: heard.broken == ["bad_json"])
    await quiet()
    (root / "stepgrant" / "data.json").unlink()
    await until(lambda: heard.changed == [digest(ALLOW)])
    assert heard.broken == ["bad_json"]


async def test_a_refusal_by_the_callback_is_told_and_the_next_change_is_tried(root: Path, heard: Heard) -> None:
    heard.refuse = True
    save(root / "stepgrant" / "main.rego", ALLOW + "\n")
    await until(lambda: heard.broken == ["refused"])
    heard.refuse = False
    save(root / "stepgrant" / "main.rego", ALLOW + "\n\n")
    await until(lambda: heard.changed == [digest(ALLOW + "\n\n")])


async def test_a_folder_that_goes_away_is_told(root: Path, heard: Heard) -> None:
    (root / "stepgrant" / "main.rego").unlink()
    await until(lambda: heard.broken == ["no_rules"])
    assert heard.changed == []


async def test_a_running_engine_keeps_the_last_good_policy(root: Path) -> None:
    engine = EmbeddedEngine(decision_ids=lambda: "dec_1", probe_deadline_s=PATIENCE_S)
    await engine.load("1:" + digest(ALLOW), read_directory(root))
    told: list[str] = []

    async def activate(bundle: Bundle) -> None:
        await engine.load("2:" + bundle.digest, bundle)

    async def tell(invalid: PolicyInvalid) -> None:
        told.append(str(invalid))

    task = asyncio.ensure_future(watch(root, changed=activate, broken=tell, known=digest(ALLOW), interval_s=INTERVAL_S))
    save(root / "stepgrant" / "main.rego", ALLOW.replace("input.action.tool", "input.action.toool"))
    await until(lambda: bool(told))
    assert "stepgrant/main.rego:5: unknown_input" in told[0]
    assert engine.revision == "1:" + digest(ALLOW)
    save(root / "stepgrant" / "main.rego", ALLOW + "\n")
    await until(lambda: engine.revision == "2:" + digest(ALLOW + "\n"))
    task.cancel()
    await engine.close()
