"""The machine on a real store: SQLite in a folder of its own, or a PostgreSQL database that somebody made."""

from __future__ import annotations

import asyncio
import tempfile
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from fakes.hand import REGO, Hand, hand
from fakes.world import AUDIENCE
from model.acts import Model
from model.real import Real
from soak.result import Result
from stepgrant_broker.issuers.static import StaticIssuer
from stepgrant_broker.policy.bundle import from_files
from stepgrant_broker.store.postgres import PostgresStore
from stepgrant_broker.store.sealing import Seal
from stepgrant_broker.store.sqlite import SqliteStore
from stepgrant_broker.usecases.activate_policy import activate_policy, next_revision
from stepgrant_broker.usecases.enroll import Enrolment, enroll
from stepgrant_broker.usecases.operators import authenticate_operator, create_operator

STEPS: Final = 30
Reopen = Callable[[], Awaitable[Any]]


async def _moved(held: Hand, store: PostgresStore) -> None:
    """The hand's broker on another store, with the policy, the enrolments and the operator that it had."""
    issuers = {**held.ports.issuers, "static": StaticIssuer(store, held.ports.wrap)}
    ports = replace(held.ports, store=store, reads=store, issuers=issuers)
    bundle = from_files({"stepgrant/main.rego": REGO})
    revision = await next_revision(ports, bundle.digest)
    await held.engine.load(revision, bundle)
    await activate_policy(ports, "acme", None, revision=revision, text=bundle.files)
    jwk = {"kty": "EC", "crv": "P-256", "x": "x", "y": "y"}
    agent = await enroll(ports, "acme", None, Enrolment("agent", ("agent",), (), jwk, "j1"))
    server = await enroll(ports, "acme", None, Enrolment("tool", (), (AUDIENCE,), jwk, "j2"))
    token = await create_operator(ports, "acme", None, name="Olga", roles=["operator"])
    workload, tool = await store.workload(agent["id"]), await store.workload(server["id"])
    assert workload is not None
    assert tool is not None
    operator = await authenticate_operator(ports, token["token"])
    vars(held).update(ports=ports, store=store, workload=workload, server=tool, operator=operator)


async def _made(stack: AsyncExitStack, folder: Path, url: str | None) -> Real:
    held = await stack.enter_async_context(hand(folder))

    async def reopened() -> SqliteStore | PostgresStore:
        seal = Seal(held.ports.wrap, held.ports.keys)
        if url is None:
            path = folder / "store" / "stepgrant.db"
            return SqliteStore(path, clock=held.clock, failpoints=held.failpoints, seal=seal)
        return PostgresStore(url, clock=held.clock, failpoints=held.failpoints, seal=seal, readers=1)

    if url is not None:
        first = await reopened()
        assert isinstance(first, PostgresStore)
        await _moved(held, first)

    async def close() -> None:
        await held.store.close()  # the one that it has by then

    stack.push_async_callback(close)
    return Real(held, reopened)


@contextmanager
def machine(url: str | None) -> Iterator[type[Model]]:
    """The machine over SQLite, or over the migrated and empty PostgreSQL database at `url`."""
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        stack = AsyncExitStack()
        wait = runner.get_loop().run_until_complete  # `run` also moves Ctrl-C over and back: a twentieth of a walk
        real = wait(_made(stack, Path(folder), url))
        try:
            yield type("OnStore", (Model,), {"real": real, "wait": staticmethod(wait), "counts": Counter()})
        finally:
            wait(stack.aclose())


def walk(number: int, size: int, url: str | None = None) -> Result:
    """`size` examples of up to 30 calls; what the model and the broker disagree on, with the shortest way there."""
    how = settings(
        max_examples=size, stateful_step_count=STEPS, deadline=None, database=None, report_multiple_bugs=False,
        phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    with machine(url) as made:
        try:
            run_state_machine_as_test(seed(number)(made), settings=how)
        except Exception as error:  # noqa: BLE001 - whatever Hypothesis found is a violation
            return Result(dict(made.counts), ["".join(traceback.format_exception(error))[-6000:]])
        return Result(dict(made.counts))


def slice(number: int, size: int) -> Result:  # noqa: A001 - the name that soak looks for
    """`size` examples over SQLite."""
    return walk(number, size)
