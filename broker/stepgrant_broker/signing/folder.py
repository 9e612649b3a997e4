"""A folder of key files, of mode 0700 and 0600, that this process's user owns.

Rules:

* Nothing is made unless the caller says `create`: a broker that finds no keys where its keys should be must not go on
  with new ones, for then nothing that it signed or wrapped before would be its own.
* A file that others can read is refused, not repaired: the key may be known already.
* A file appears whole or not at all (written aside, synced, linked), and never replaces another. Two processes that
  create at once end up with one key.
* Names are `<purpose>-<number>.<kind>`; the highest number is the newest.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from stepgrant_broker.domain.errors import SignerUnavailable

_NAME: Final = re.compile(r"(?P<purpose>[a-z]+)-(?P<number>[1-9][0-9]{0,5})\.(?P<kind>[a-z]+)")
_MAX_FILE_BYTES: Final = 16_384


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
            raise SignerUnavailable(
                f"no key folder at {self.path}: {error.strerror}; `stepgrant init` makes one"
            ) from None
        if not stat.S_ISDIR(info.st_mode):
            raise SignerUnavailable(f"{self.path} is not a folder")
        if info.st_uid != os.geteuid():
            raise SignerUnavailable(f"{self.path} belongs to another user")
        if info.st_mode & 0o077:
            raise SignerUnavailable(f"{self.path} is open to others; run: chmod 700 {self.path}")

    def read(self, purpose: str, kind: str, make: Callable[[], bytes]) -> list[bytes]:
        """The contents of all files of this purpose and kind, newest first; with `create`, `make` gives the first."""
        names = self._names(purpose, kind)
        if not names:
            if not self._create:
                raise SignerUnavailable(f"there is no {purpose} key in {self.path}; `stepgrant init` makes one")
            self._write(f"{purpose}-1.{kind}", make())
            names = self._names(purpose, kind)
        return [self._content(name) for name in names]

    def _names(self, purpose: str, kind: str) -> list[str]:
        found = [_NAME.fullmatch(path.name) for path in self.path.iterdir()]
        ours = [match for match in found if match and (match["purpose"], match["kind"]) == (purpose, kind)]
        return [match[0] for match in sorted(ours, key=lambda match: int(match["number"]), reverse=True)]

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

    def _write(self, name: str, content: bytes) -> None:
        aside = self.path / f".{name}.{secrets.token_hex(8)}"
        try:
            handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(handle)
                os.link(aside, self.path / name)
            except FileExistsError:
                return  # another process was first; its key counts
            finally:
                aside.unlink()
            self._sync()
        except OSError as error:
            raise SignerUnavailable(f"cannot write {self.path / name}: {error.strerror}") from None

    def _sync(self) -> None:
        handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
