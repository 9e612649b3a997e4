"""One suite for the port `PolicyEngine`, run over every adapter of `adapters.py`."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import TypeAlias

import pytest

from conformance.policy.adapters import ADAPTERS, ON_OPA, Start
from engines import PATIENCE_S
from opas import Serve, serving
from stepgrant_broker.domain.ports import PolicyEngine
from stepgrant_broker.policy.bundle import Bundle

Running: TypeAlias = Callable[..., Awaitable[PolicyEngine]]


ENGINES = [*sorted(ADAPTERS), *(pytest.param(name, marks=pytest.mark.needs("opa")) for name in sorted(ON_OPA))]


@pytest.fixture(scope="session")
def opa_of(opa_server: Serve, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Bundle], str]:
    """The URL of an OPA that serves this policy; one for each policy."""
    known: dict[str, str] = {}

    def url_of(bundle: Bundle) -> str:
        if bundle.digest not in known:
            known[bundle.digest] = serving(opa_server, bundle, tmp_path_factory.mktemp("opa")).url
        return known[bundle.digest]

    return url_of


@pytest.fixture(params=ENGINES)
async def running(request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    """Starts the adapter with a policy; everything that was started is closed."""
    name = request.param
    opa_of: Callable[[Bundle], str] = (lambda _: "") if name in ADAPTERS else request.getfixturevalue("opa_of")
    async with AsyncExitStack() as stack:

        async def start(bundle: Bundle, *, revision: str = "1:test", deadline_s: float = PATIENCE_S) -> PolicyEngine:
            adapter: Start = ADAPTERS[name] if name in ADAPTERS else partial(ON_OPA[name], opa_of(bundle))
            return await stack.enter_async_context(adapter(revision, bundle, deadline_s))

        yield start
