"""The signers that the suite runs over. A new one joins by a function here and a line in `ADAPTERS`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final, TypeAlias

import pytest

from stepgrant_broker.domain.ports import SigningKeys
from stepgrant_broker.signing.local import LocalSigner
from vaulted import transit_signer


@asynccontextmanager
async def local(_: pytest.FixtureRequest, folder: Path) -> AsyncIterator[SigningKeys]:
    yield LocalSigner.open(folder / "keys", create=True)


@asynccontextmanager
async def transit(request: pytest.FixtureRequest, _: Path) -> AsyncIterator[SigningKeys]:
    async with transit_signer(request.getfixturevalue("vault_server")) as signer:
        yield signer


Make: TypeAlias = Callable[[pytest.FixtureRequest, Path], AbstractAsyncContextManager[SigningKeys]]
ADAPTERS: Final[Mapping[str, Make]] = {"local": local, "transit": transit}
NEEDS: Final[Mapping[str, str]] = {"transit": "vault"}
PARAMS: Final = [
    pytest.param(name, marks=[pytest.mark.needs(NEEDS[name])] if name in NEEDS else []) for name in sorted(ADAPTERS)
]
