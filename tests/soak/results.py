"""What a soak has found so far, in a file for each commit and kind: it is where an interrupted one goes on."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from soak.kinds import Kind
from soak.slices import Slice

FOLDER: Final = Path(__file__).parents[1] / "soak-results"
ROOT: Final = Path(__file__).parents[2]


def commit() -> str:
    """The commit that is soaked; `-changed` when the tree is not what was committed."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)  # noqa: S607
        return done.stdout.strip() if done.returncode == 0 else ""

    name = git("rev-parse", "--short=12", "HEAD") or "unknown"
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!tests/soak-results")
    return f"{name}-changed" if changed else name


@dataclass
class Record:
    """All slices of one kind for one commit."""

    commit: str
    kind: str
    total: int
    unit: str
    slices: list[Slice] = field(default_factory=list)

    @property
    def done(self) -> int:
        """How much of the total is done."""
        return sum(one.size for one in self.slices)

    @property
    def counts(self) -> dict[str, int]:
        """Added up."""
        counts: Counter[str] = Counter()
        for one in self.slices:
            counts.update(one.counts)
        return dict(sorted(counts.items()))

    @property
    def figures(self) -> dict[str, float]:
        """The largest of each."""
        worst: dict[str, float] = {}
        for one in self.slices:
            for name, value in one.figures.items():
                worst[name] = max(value, worst.get(name, value))
        return dict(sorted(worst.items()))

    @property
    def violations(self) -> list[tuple[Slice, str]]:
        """Each with its slice."""
        return [(one, text) for one in self.slices for text in one.violations]

    def path(self, folder: Path) -> Path:
        """Its file."""
        return folder / f"{self.commit}-{self.kind}.json"

    def save(self, folder: Path) -> None:
        """Write it whole."""
        folder.mkdir(exist_ok=True)
        summary = {
            "commit": self.commit, "kind": self.kind, "unit": self.unit, "done": self.done, "total": self.total,
            "violations": len(self.violations), "counts": self.counts, "figures": self.figures,
            "seconds": round(sum(one.seconds for one in self.slices), 1),
        }  # fmt: skip
        text = json.dumps({**summary, "slices": [asdict(one) for one in self.slices]}, indent=1)
        fresh = self.path(folder).with_suffix(".new")
        fresh.write_text(text + "\n", encoding="utf-8")
        fresh.replace(self.path(folder))

    @classmethod
    def resumed(cls, folder: Path, commit: str, name: str, kind: Kind, total: int) -> Record:
        """What was done before for this commit, or nothing."""
        record = cls(commit, name, total, kind.unit)
        path = record.path(folder)
        if path.exists():
            said: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            record.slices = [Slice(**one) for one in said["slices"]]
        return record


def replays(record: Record) -> Iterator[str]:
    """Each violation, with the command that does it again."""
    for one, text in record.violations:
        yield f"{record.kind}, seed {one.seed}: {text}\n    again: {again(record.kind, one)}"


def again(kind: str, one: Slice) -> str:
    """The command that does a slice again."""
    return f"PYTHONPATH=tests .venv/bin/python -m soak replay {kind} {one.seed}:{one.size}"


def table(records: Iterable[Record]) -> str:
    """The closing table."""
    rows = [("kind", "done", "of", "violations", "minutes", "counts")]
    for one in records:
        minutes = f"{sum(some.seconds for some in one.slices) / 60:.1f}"
        counts = ", ".join(f"{value} {name}" for name, value in [*one.counts.items(), *one.figures.items()])
        rows.append((one.kind, str(one.done), f"{one.total} {one.unit}", str(len(one.violations)), minutes, counts))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join("  ".join([*map(str.ljust, row[:5], widths), row[5]]).rstrip() for row in rows)
