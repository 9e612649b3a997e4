"""The signers that the suite runs over. A new one joins by a function here and a line in `ADAPTERS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from stepgrant_broker.domain.ports import Signer
from stepgrant_broker.signing.local import LocalSigner


def local(folder: Path) -> Signer:
    return LocalSigner.open(folder / "keys", create=True)


Make: TypeAlias = Callable[[Path], Signer]
ADAPTERS: Final[Mapping[str, Make]] = {"local": local}
