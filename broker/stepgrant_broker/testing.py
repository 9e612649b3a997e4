"""A broker for tests, behind the entry point `stepgrant.testing`; `stepgrant.testing._host` says what it has to do.

Real SQLite in a folder, the real embedded policy engine, real HTTP on a free loopback port. One background thread owns
event loop, store and engine; every method may be called from any other thread. Only time and failures are the test's.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import structlog

from stepgrant.receipt import Event, read_event
from stepgrant_broker.config import Settings, explicit_settings
from stepgrant_broker.domain.caller import PersonCaller, Request
from stepgrant_broker.domain.errors import UnknownApproval
from stepgrant_broker.domain.reads import Page
from stepgrant_broker.domain.state import Approval, ApprovalStatus, Run
from stepgrant_broker.domain.writes import Query
from stepgrant_broker.usecases import answers
from stepgrant_broker.usecases.decide_approval import decide_approval
from stepgrant_broker.usecases.operators import authenticate_operator
from stepgrant_broker.usecases.set_secret import set_secret
from stepgrant_broker.wiring import (
    AdvancingClock,
    Broker,
    Bundle,
    SystemClock,
    build,
    bundle_of,
    listen,
    starter_with,
)
from stepgrant_broker.wiring.bootstrap import enrol_workload, new_operator
from stepgrant_broker.wiring.broker import prepare
from stepgrant_broker.wiring.fresh import new_database
from stepgrant_broker.wiring.identity import identities_behind
from stepgrant_broker.wiring.logs import configure_events
from stepgrant_broker.wiring.seams import Seams
from stepgrant_broker.wiring.server import Listening, new_event_loop, served

if TYPE_CHECKING:
    from stepgrant_broker.domain.ports import Failpoints

T = TypeVar("T")
PATIENCE_S: Final = 60.0


class TestHost:
    """A running broker. Close it, or use it in a `with` block."""

    __test__ = False  # pytest: this is no test class

    def __init__(
        self, settings: Settings, listening: Listening, policy: Bundle | None, failpoints: Failpoints | None
    ) -> None:
        self.settings = settings
        self.url = listening.url
        self.clock = AdvancingClock(SystemClock())
        self._numbers = itertools.count(1)
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._broker: Broker | None = None
        self._started: Future[Broker] = Future()
        seams = Seams(clock=self.clock, failpoints=failpoints, identities=identities_behind(self.clock))
        self._thread = threading.Thread(
            target=self._own, args=(listening, policy, seams), name="stepgrant-test-broker", daemon=True
        )
        self._thread.start()
        self._broker = self._started.result(PATIENCE_S)

    # ------------------------------------------------------------------------------------------------ its own thread

    def _own(self, listening: Listening, policy: Bundle | None, seams: Seams) -> None:
        try:
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                runner.run(self._run(listening, policy, seams))
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the start
            if not self._started.done():
                self._started.set_exception(error)
        finally:
            listening.socket.close()

    async def _run(self, listening: Listening, policy: Bundle | None, seams: Seams) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with build(self.settings, create=True, policy=policy, seams=seams) as broker, served(broker, listening):
            self._started.set_result(broker)
            await self._stop.wait()

    def call(self, work: Callable[[Broker], Coroutine[Any, Any, T]]) -> T:
        """Run `work(broker)` on the broker's own loop and wait for what it gives."""
        if self._broker is None or self._loop is None or not self._thread.is_alive():
            raise RuntimeError("the test broker is closed")
        return asyncio.run_coroutine_threadsafe(work(self._broker), self._loop).result(PATIENCE_S)

    def close(self) -> None:
        """Stop and join the thread. Calling it again does nothing."""
        loop, stop, self._broker = self._loop, self._stop, None
        if loop is not None and stop is not None and self._thread.is_alive():
            loop.call_soon_threadsafe(stop.set)
        self._thread.join(PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------- what people would do

    @property
    def issuer_url(self) -> str:
        """The `iss` of its tokens."""
        return self.settings.public_url

    @property
    def tenant(self) -> str:
        """The tenant of workloads, people and runs."""
        return self.settings.tenant

    def enroll(self, name: str, *, agents: Sequence[str] = (), audiences: Sequence[str] = ()) -> Path:
        """Enrol a new workload key; its file (0600)."""
        path = self.settings.data_dir / "workloads" / f"{next(self._numbers)}.json"
        path.parent.mkdir(mode=0o700, exist_ok=True)
        self.call(lambda broker: enrol_workload(broker, path, name, agents=agents, audiences=audiences))
        return path

    def operator(
        self, name: str, *, roles: Sequence[str] = ("operator", "approver"), groups: Sequence[str] = ()
    ) -> str:
        """Create a person; the token."""
        return self.call(lambda broker: new_operator(broker, name, roles=roles, groups=groups))[1]

    def approve(self, approval_id: str, *, token: str | None = None, note: str = "") -> None:
        """Say yes, as the person of `token`; without one, as many new people as it takes, of the groups it takes."""
        self.call(lambda broker: self._answer(broker, approval_id, "approve", token, note))

    def deny(self, approval_id: str, *, token: str | None = None, note: str = "") -> None:
        """Say no."""
        self.call(lambda broker: self._answer(broker, approval_id, "deny", token, note))

    async def _answer(self, broker: Broker, approval_id: str, verdict: str, token: str | None, note: str) -> None:
        tenant = self.settings.tenant
        approval, digest = await _shown(broker, tenant, approval_id)
        while approval.status is ApprovalStatus.PENDING:
            person = await self._person(broker, token, approval)
            request = Request(f"test-{next(self._numbers)}", b"{}")
            await decide_approval(
                broker.ports, person, approval_id, verdict=verdict, digest=digest, note=note or None, request=request
            )
            approval, digest = await _shown(broker, tenant, approval_id)
            if token is not None:
                return

    async def _person(self, broker: Broker, token: str | None, approval: Approval) -> PersonCaller:
        if token is None:
            name = f"test approver {next(self._numbers)}"
            _, token = await new_operator(broker, name, roles=("approver",), groups=approval.groups)
        return await authenticate_operator(broker.ports, token)

    def set_policy(self, files: Mapping[str, str]) -> str:
        """Activate a policy (path to text); the revision."""
        return self.call(lambda broker: broker.activate(bundle_of(files)))

    def set_settings(self, settings: Mapping[str, object]) -> str:
        """Activate the starter policy with these settings; the revision."""
        return self.call(lambda broker: broker.activate(starter_with(settings)))

    def set_secret(self, name: str, value: str, *, hosts: Sequence[str], header: str = "Authorization") -> None:
        """Store a secret for the issuer `static`."""
        tenant = self.settings.tenant
        self.call(
            lambda broker: set_secret(
                broker.ports, tenant, None, name=name, value=value, hosts=tuple(hosts), header=header
            )
        )

    def advance(self, seconds: float) -> None:
        """Move the broker's clock forward.

        Assertions of workloads still count at the system's time. Proofs may be ten minutes off; whoever advances more
        than that in all moves the SDK's clock too, as `stepgrant.testing.TestBroker` does.
        """
        self.clock.advance(int(seconds * 1000))

    def sweep_now(self) -> int:
        """Do the sweeper's work now; how many runs were parked."""
        return self.call(lambda broker: broker.sweep_now())

    # ------------------------------------------------------------------------------------------ what tests assert on

    def run(self, run: str) -> Run | None:
        """A run by its id."""
        tenant = self.settings.tenant

        async def read(broker: Broker) -> Run | None:
            return (await broker.ports.store.load(Query(tenant, run=run))).view.run

        return self.call(read)

    def runs(self, **filters: str) -> tuple[Run, ...]:
        """Runs, newest first; filters as of `Reads.runs` (agent=, state=, workload=)."""
        tenant = self.settings.tenant

        async def read(broker: Broker) -> tuple[Run, ...]:
            listed = await broker.ports.reads.runs(tenant, Page(500), **filters)
            return tuple(run for run, _ in listed.rows)

        return self.call(read)

    def entries(self, run: str | None = None) -> tuple[Event, ...]:
        """The entries of a run, or of the tenant's own chain."""
        tenant = self.settings.tenant

        async def read(broker: Broker) -> tuple[Event, ...]:
            found: list[Event] = []
            while page := await broker.ports.reads.entries(tenant, run, after=len(found) - 1):
                found.extend(read_event(entry.data) for entry in page)
            return tuple(found)

        return self.call(read)

    def receipt(self, run: str) -> dict[str, Any]:
        """A receipt of the run."""
        return self.call(lambda broker: broker.receipt(run))

    def ledger_findings(self) -> list[str]:
        """What `stepgrant ledger verify` finds; empty when all holds."""

        async def check(broker: Broker) -> list[str]:
            return [str(finding) async for finding in broker.ledger_check().findings()]

        return self.call(check)


async def _shown(broker: Broker, tenant: str, approval_id: str) -> tuple[Approval, str]:
    """The approval and the digest that is shown for it. Raises `UnknownApproval`."""
    loaded = await broker.ports.store.load(Query(tenant, approval=approval_id))
    run, approval = loaded.view.run, loaded.view.approvals.get(approval_id)
    if run is None or approval is None:
        raise UnknownApproval("no such approval")
    payloads = await broker.ports.reads.payloads(tenant, run.id, [approval.binding_c])
    return approval, str(answers.committed(payloads, approval.binding_c))


def start(
    folder: Path,
    *,
    settings: Mapping[str, object] | None = None,
    lease_s: float = 30,
    policy: Any = None,  # noqa: ANN401 - `Start` lets every option be an object
    failpoints: Any = None,  # noqa: ANN401 - as above
    **options: object,
) -> TestHost:
    """Start a broker below `folder`; it answers when this returns.

    Args:
        folder: holds its database, keys and the key files that it makes.
        settings: the starter policy's settings (`stepgrant_config/data.json`); by default its own.
        lease_s: how long a silent holder keeps its run.
        policy: a whole policy instead (a mapping of path to text).
        failpoints: a test's failpoints (`domain.ports.Failpoints`).
        options: more fields of `config.Settings`.

    Raises:
        SettingsError: a wrong option.
        PolicyInvalid: the policy has findings.
    """
    if not structlog.is_configured():
        configure_events(level="error")
    bundle = bundle_of(policy) if policy is not None else starter_with(settings) if settings is not None else None
    given = {
        "data_dir": folder,
        "test_mode": True,
        "lease_ms": int(lease_s * 1000),
        "sweep_ms": 200,
        **options,
        "host": "127.0.0.1",
        "port": 0,
    }
    wanted = explicit_settings(**given)
    if wanted.postgres_url is None:
        prepare(wanted, create=True, build_database=lambda settings: new_database(settings.database_file))
    listening = listen(wanted)
    made = explicit_settings(**{**given, "port": listening.port, "public_url": listening.url})
    return TestHost(made, listening, bundle, failpoints)
