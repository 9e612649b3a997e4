"""As in `tests/e2e`: commands are forked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from faults.forks import forking


@pytest.fixture(scope="session", autouse=True)
def _forking() -> Iterator[None]:
    with forking():
        yield
