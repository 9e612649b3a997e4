"""The agent's folder, once for each rehearsal: what one leaves there, the next must not find.

Rules:
* The author's folder is read and never written; copies lie in the rehearsal's own folder and go with it.
* What a copy needs not (version control, virtual environments, caches, the development broker's data) is left out.
* A folder that is too large to copy many times is refused with a way out (`--in-place`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from stepgrant.cli.exits import CommandError

LEFT_OUT: Final = frozenset({
    ".git", ".hg", ".svn", ".venv", "venv", ".tox", ".nox", "node_modules", "__pycache__", ".mypy_cache", ".ruff_cache",
    ".pytest_cache", ".cache", ".stepgrant",
})  # fmt: skip
MAX_FILES: Final = 5_000
MAX_BYTES: Final = 100_000_000


def refuse_large(folder: Path) -> None:
    """Raises `CommandError` for a folder that is no agent's project."""
    count, size = 0, 0
    for path in _files(folder):
        count, size = count + 1, size + path.lstat().st_size
        if count > MAX_FILES or size > MAX_BYTES:
            raise CommandError(
                f"{folder} is too large to be copied for each rehearsal; start it from the agent's own folder, or say "
                "--in-place, if the agent can be started again and again where it is"
            )


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        yield from (Path(place, name) for name in names)


def copy(folder: Path, to: Path) -> Path:
    """A fresh copy of the agent's folder."""
    # Links stay links, and what is neither file nor folder (a socket of a running program) is no part of a project.
    shutil.copytree(folder, to, symlinks=True, ignore=_ignored)
    return to


def _ignored(place: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if name in LEFT_OUT or _is_special(Path(place, name))]


def _is_special(path: Path) -> bool:
    return not (path.is_symlink() or path.is_file() or path.is_dir())


def anchored(words: Sequence[str], folder: Path) -> list[str]:
    """The command with its program by an absolute path where it is named by a relative one: `.venv/bin/python`."""
    program = words[0]
    here = folder / program
    return [str(here.absolute()) if os.sep in program and here.exists() else program, *words[1:]]
