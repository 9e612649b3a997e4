"""Commands are forked by a process that has imported what they need: how long Python takes to start is not tested."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from faults.forks import forking


@pytest.fixture(scope="session", autouse=True)
def _forking() -> Iterator[None]:
    with forking():
        yield
