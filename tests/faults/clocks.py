"""Wall clocks of real processes, set by a test while they run: libfaketime, which looks into a file every second.

Monotonic time goes on as it is, as it does on a machine whose clock somebody sets.
"""

from __future__ import annotations

import importlib.util
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from stepgrant_services import PostgresServer

LOOKED_S: Final = 1.1
LIBRARY: Final = "vendor/libfaketime/src/libfaketime.so.1"


class WallClock:
    """One machine's clock. `environment` puts a process on that machine; `set` may be called at any time."""

    def __init__(self, folder: Path) -> None:
        found = importlib.util.find_spec("libfaketime")
        if found is None or found.origin is None:
            raise RuntimeError("libfaketime is not installed")
        self._file = folder / "clock"
        # A server that runs as another user may not see where Python's packages are.
        library = folder / "libfaketime.so.1"
        shutil.copy(Path(found.origin).parent / LIBRARY, library)
        library.chmod(0o755)
        self.environment: Mapping[str, str] = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "0",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        self._write(0)

    def set(self, seconds: int) -> None:
        """It shows the true time and so many seconds when this returns."""
        self._write(seconds)
        time.sleep(LOOKED_S)

    def _write(self, seconds: int) -> None:
        new = self._file.with_name("clock.new")
        new.write_text(f"{seconds:+d}\n", encoding="ascii")
        new.chmod(0o644)
        new.rename(self._file)


class OffPostgres(PostgresServer):
    """A PostgreSQL whose machine has a clock of its own."""

    clock: WallClock

    def _settings(self) -> Mapping[str, str]:
        return {**super()._settings(), **self.clock.environment}

    def _prepare(self) -> None:
        super()._prepare()
        self.folder.chmod(0o711)
        self.clock = WallClock(self.folder)
