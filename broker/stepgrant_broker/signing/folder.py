"""A folder of key files, of mode 0700 and 0600, that this process's user owns.

Rules:

* Nothing is made unless the caller says `create`: a broker that finds no keys where its keys should be must not go on
  with new ones, for then nothing that it signed or wrapped before would be its own.
* A file that others can read is refused, not repaired: the key may be known already.
* A file appears whole or not at all (written aside, synced, linked), and never replaces another. Two processes that
  create at once end up with one key. One exception: a key that is over gives way to its public part, and its bytes are
  overwritten; what copies, backups and the disk itself kept of them is beyond this process.
* Names are `<purpose>-<number>.<kind>`; the highest number is the newest.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from stepgrant_broker.domain.errors import SignerUnavailable

_NAME: Final = re.compile(r"(?P<purpose>[a-z]+)-(?P<number>[1-9][0-9]{0,5})\.(?P<kind>[a-z]+)")
_MAX_FILE_BYTES: Final = 16_384


MADE: Final = "`stepgrant db migrate` makes those of a new installation; an older one's come from its backup"


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A file of a folder: which of its purpose, and what stands in it (secret, mostly)."""

    number: int
    content: bytes = field(repr=False)


class KeyFolder:
    """An open key folder. Raises `SignerUnavailable`, naming path and fix, for everything that is wrong with it."""

    def __init__(self, path: str | os.PathLike[str], *, create: bool = False) -> None:
        self.path = Path(path)
        self._create = create
        try:
            if create:
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            info = self.path.lstat()
        except OSError as error:
            raise SignerUnavailable(f"no key folder at {self.path}: {error.strerror}; {MADE}") from None
        if not stat.S_ISDIR(info.st_mode):
            raise SignerUnavailable(f"{self.path} is not a folder")
        if info.st_uid != os.geteuid():
            raise SignerUnavailable(f"{self.path} belongs to another user")
        if info.st_mode & 0o077:
            raise SignerUnavailable(f"{self.path} is open to others; run: chmod 700 {self.path}")

    def read(self, purpose: str, kind: str, make: Callable[[], bytes]) -> list[bytes]:
        """The contents of all files of this purpose and kind, newest first; with `create`, `make` gives the first."""
        return [file.content for file in self.files(purpose, kind, make)]

    def files(self, purpose: str, kind: str, make: Callable[[], bytes]) -> list[KeyFile]:
        """As `read`, with their numbers."""
        numbers = self._numbers(purpose, kind)
        if not numbers:
            if not self._create:
                raise SignerUnavailable(f"there is no {purpose} key in {self.path}; {MADE}")
            self._write(f"{purpose}-1.{kind}", make())
            numbers = self._numbers(purpose, kind)
        return [KeyFile(number, self._content(f"{purpose}-{number}.{kind}")) for number in numbers]

    def add(self, purpose: str, kind: str, content: bytes) -> int:
        """Write a key newer than all that are there; its number. Raises `SignerUnavailable` if another one came first.

        A folder without any has lost them, and gets none here.
        """
        numbers = self._numbers(purpose, kind)
        if not numbers:
            raise SignerUnavailable(f"there is no {purpose} key in {self.path}; {MADE}")
        if not self._write(f"{purpose}-{numbers[0] + 1}.{kind}", content):
            raise SignerUnavailable(f"another process has just made a {purpose} key in {self.path}; look again")
        return numbers[0] + 1

    def destroy(self, purpose: str, kind: str, number: int, public: bytes) -> None:
        """Put what is public in the place of a key, and overwrite the key's bytes. Raises `SignerUnavailable`."""
        path = self.path / f"{purpose}-{number}.{kind}"
        aside = self._aside(path.name)
        try:
            old = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                self._fill(aside, public)
                aside.replace(path)
                self._sync()
                # Only now: a crash before it leaves the key, one after it leaves at most its bytes outside of any file.
                os.pwrite(old, bytes(os.fstat(old).st_size), 0)
                os.fsync(old)
            finally:
                os.close(old)
        except OSError as error:
            raise SignerUnavailable(f"cannot replace {path}: {error.strerror}") from None

    def stamp(self) -> tuple[tuple[str, int, int, int], ...]:
        """What changes whenever a file comes, goes, or is written. Raises `SignerUnavailable`."""
        try:
            with os.scandir(self.path) as found:
                # Files that are written aside come and go.
                ours = (entry for entry in found if _NAME.fullmatch(entry.name))
                stats = [(entry.name, entry.stat(follow_symlinks=False)) for entry in ours]
        except OSError as error:
            raise SignerUnavailable(f"cannot read {self.path}: {error.strerror}") from None
        return tuple(sorted((name, stat.st_ino, stat.st_mtime_ns, stat.st_mode) for name, stat in stats))

    def _numbers(self, purpose: str, kind: str) -> list[int]:
        found = [_NAME.fullmatch(path.name) for path in self.path.iterdir()]
        ours = [match for match in found if match and (match["purpose"], match["kind"]) == (purpose, kind)]
        return sorted((int(match["number"]) for match in ours), reverse=True)

    def _content(self, name: str) -> bytes:
        path = self.path / name
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise SignerUnavailable(f"cannot read {path}: {error.strerror}") from None
        with os.fdopen(handle, "rb") as file:
            info = os.fstat(handle)
            if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid():
                raise SignerUnavailable(f"{path} is not a file of this user")
            if info.st_mode & 0o077:
                raise SignerUnavailable(
                    f"{path} can be read by others, so its key may be known; restrict it or replace it"
                )
            return file.read(_MAX_FILE_BYTES)

    def _write(self, name: str, content: bytes) -> bool:
        """False if there is a file of this name: another process was first, and its key counts."""
        aside = self._aside(name)
        try:
            try:
                self._fill(aside, content)
                os.link(aside, self.path / name)
            except FileExistsError:
                return False
            finally:
                aside.unlink()
            self._sync()
        except OSError as error:
            raise SignerUnavailable(f"cannot write {self.path / name}: {error.strerror}") from None
        return True

    def _aside(self, name: str) -> Path:
        return self.path / f".{name}.{secrets.token_hex(8)}"

    def _fill(self, path: Path, content: bytes) -> None:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(handle)

    def _sync(self) -> None:
        handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
