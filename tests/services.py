"""Real OPA, Vault and PostgreSQL for tests, and a log reader in Go: fixtures over `deploy/services`, and their debts.

- One private instance for each xdist worker, started on first use, ended by process id at the end of the session.
- A test that asks for a service that is not here fails with CI=true and in `make test-all`. Elsewhere it is deselected,
  and the terminal's summary counts those tests in one line.
- At the end Vault holds no lease and no per-grant token of ours, PostgreSQL no login of Vault's, and no process of this
  run is left. Anything else fails the run.

    def test_something(postgres_server, vault_server): ...                  # shared by the tests of a worker
    def test_fault(new_vault):
        with new_vault(durable=True) as vault: ...                          # one of its own
    @pytest.mark.needs("opa")                                               # for what asks with `getfixturevalue`

conftest.py loads this as a plugin, also with the base install and without `deploy/`, so it imports our tool late.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from stepgrant_services import OpaServer, PostgresServer, VaultServer

# conftest.py takes the developer's settings away before any test runs; those that name a binary count.
ENVIRONMENT: Final = dict(os.environ)
EVERYTHING: Final = ENVIRONMENT.get("CI", "").lower() in {"1", "true"} or bool(ENVIRONMENT.get("STEPGRANT_TEST_ALL"))
FIXTURES: Final = {
    "opa_binary": "opa",
    "vault_binary": "vault",
    "postgres_binaries": "postgres",
    "log_reader": "logreader",
}
MARK: Final = "TESTS_OF_STEPGRANT"
PATIENCE_S: Final = 60.0
PROCESSES_S: Final = 60.0
NOT_RUN: Final = pytest.StashKey[dict[str, int]]()
LEFT: Final = pytest.StashKey[list[str]]()


# --- binaries and servers --------------------------------------------------------------------------------------------


@lru_cache
def found(service: str) -> Path:
    """The program of `service`; a failure of the test that says what to do if there is none."""
    from stepgrant_services import ServiceMissing, find  # noqa: PLC0415  (see the module's rules)

    try:
        return find(service, ENVIRONMENT).path
    except ServiceMissing as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def opa_binary() -> Path:
    return found("opa")


@pytest.fixture(scope="session")
def vault_binary() -> Path:
    return found("vault")


@pytest.fixture(scope="session")
def postgres_binaries() -> Iterator[Path]:
    """The folder with `postgres`, `initdb` and `psql`. From here on new servers are copies of one cluster."""
    folder = found("postgres").parent
    from stepgrant_services import PostgresServer  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="stepgrant-postgres-") as model:  # pytest's are closed to its user
        PostgresServer.make_model(Path(model), binaries=folder)
        PostgresServer.model = Path(model)
        yield folder
        PostgresServer.model = None


@pytest.fixture(scope="session")
def log_reader() -> Path:
    """The reader of logs in Go (tests/independent/go)."""
    return found("logreader")


@pytest.fixture(scope="session")
def opa_server(opa_binary: Path) -> Iterator[Callable[..., OpaServer]]:
    """`opa_server(*paths, bundle=False, options=())`: an OPA that serves; `with` ends it, or else the session does."""
    from stepgrant_services import OpaServer  # noqa: PLC0415

    with ExitStack() as stack:
        yield lambda *paths, **more: stack.enter_context(OpaServer(*paths, binary=opa_binary, **more))


@pytest.fixture(scope="session")
def new_vault(vault_binary: Path) -> Iterator[Callable[..., VaultServer]]:
    """`new_vault(durable=False)`: a Vault of one's own, for faults; ended as `opa_server`'s."""
    from stepgrant_services import VaultServer  # noqa: PLC0415

    with ExitStack() as stack:
        yield lambda **more: stack.enter_context(VaultServer(binary=vault_binary, **more))


@pytest.fixture(scope="session")
def new_postgres(postgres_binaries: Path) -> Iterator[Callable[..., PostgresServer]]:
    """`new_postgres(options=None)`: a PostgreSQL of one's own, for faults; ended as `opa_server`'s."""
    from stepgrant_services import PostgresServer  # noqa: PLC0415

    with ExitStack() as stack:
        yield lambda **more: stack.enter_context(PostgresServer(binaries=postgres_binaries, **more))


@pytest.fixture(scope="session")
def postgres_server(postgres_binaries: Path) -> Iterator[PostgresServer]:
    """The worker's PostgreSQL: `.url(database)`, `.create_database()`. Do not stop it: others use it too."""
    from stepgrant_services import PostgresServer  # noqa: PLC0415

    # The data does not outlive the run, so no test waits for a disk; a killed process loses nothing by it.
    # Nothing here grows old enough to be vacuumed, but a worker would look at each database, ever more often.
    options = {"fsync": "off", "synchronous_commit": "on", "max_connections": "200", "autovacuum": "off", "jit": "off"}
    with PostgresServer(binaries=postgres_binaries, options=options) as server:
        yield server
        nothing_left("PostgreSQL", server.leftovers)


@pytest.fixture(scope="session")
def vault_server(vault_binary: Path) -> Iterator[VaultServer]:
    """The worker's Vault in dev mode: `.addr`, `.root_token_file`, `.request(...)`. Do not seal or stop it."""
    from stepgrant_services import VaultServer  # noqa: PLC0415

    with VaultServer(binary=vault_binary) as server:
        yield server
        nothing_left("Vault", server.leftovers)


def nothing_left(where: str, leftovers: Callable[[], list[str]]) -> None:
    """Fail unless `leftovers` is empty within a few seconds (revocation by accessor works in the background)."""
    end = time.monotonic() + PATIENCE_S
    while (left := leftovers()) and time.monotonic() < end:
        time.sleep(0.1)
    if left:
        pytest.fail(f"the tests left {len(left)} things in {where}: {', '.join(left[:20])}", pytrace=False)


# --- what could not run ----------------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    """Mark this run's processes, before xdist starts its workers."""
    config.addinivalue_line("markers", "needs(*services): the test needs opa, vault, postgres or logreader")
    config.stash[NOT_RUN] = {}
    config.stash[LEFT] = []
    if not is_worker(config):
        os.environ[MARK] = uuid.uuid4().hex


def is_worker(config: pytest.Config) -> bool:
    """Whether this process runs tests for another one (xdist)."""
    return hasattr(config, "workerinput")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what needs a service that is not here, unless everything has to run."""
    needed = {item.nodeid: needs(item) for item in items}
    absent = set() if EVERYTHING else {service for service in set().union(*needed.values()) if is_absent(service)}
    left_out = [item for item in items if needed[item.nodeid] & absent]
    for item in left_out:
        for service in needed[item.nodeid] & absent:
            config.stash[NOT_RUN][service] = config.stash[NOT_RUN].get(service, 0) + 1
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not needed[item.nodeid] & absent]
        config.stash[NOT_RUN]["in all"] = len(left_out)


def needs(item: pytest.Item) -> set[str]:
    """The services that `item` needs, by its fixtures and its marks."""
    by_fixture = {FIXTURES[name] for name in getattr(item, "fixturenames", ()) if name in FIXTURES}
    return by_fixture.union(*(mark.args for mark in item.iter_markers("needs")))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A marked test fails without its service even if it never asks for it: else it would pass and show nothing."""
    for service in sorted(needs(item)):
        found(service)


def is_absent(service: str) -> bool:
    """Whether no program of `service` can be found."""
    from stepgrant_services import ServiceMissing, find  # noqa: PLC0415

    try:
        find(service, ENVIRONMENT)
    except ServiceMissing:
        return True
    return False


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The one loud line."""
    not_run = config.stash[NOT_RUN].copy()
    total = not_run.pop("in all", 0)
    if total:
        services = ", ".join(f"{service} ({count})" for service, count in sorted(not_run.items()))
        line = (
            f"{total} TESTS DID NOT RUN, because there is no {services} here. `make test-all` gets them and runs all."
        )
        terminalreporter.write_line(line, red=True, bold=True)


# --- what was left ---------------------------------------------------------------------------------------------------


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A server that no test ended, or a process of this run that still is there, fails the run."""
    config = session.config
    config.stash[LEFT] = config.stash[LEFT] + unended()
    if is_worker(config):
        output: dict[str, Any] = getattr(config, "workeroutput")  # noqa: B009  (xdist adds it)
        output["services_not_run"] = config.stash[NOT_RUN]
        output["services_left"] = config.stash[LEFT]
        return
    config.stash[LEFT] = config.stash[LEFT] + left_processes()
    left = config.stash[LEFT]
    if left:
        text = "this run left behind:\n  " + "\n  ".join(left)
        report = pytest.TestReport(
            nodeid="tests/services.py::nothing_left",
            location=("tests/services.py", None, "nothing_left"),
            keywords={},
            outcome="failed",
            longrepr=text,
            when="teardown",
        )
        config.hook.pytest_runtest_logreport(report=report)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:  # noqa: ANN401  (xdist's, which has no types)
    """xdist: a worker ended; every worker collects the same tests, so each counts the same."""
    output: Mapping[str, Any] = getattr(node, "workeroutput", {})
    stash: pytest.Stash = node.config.stash
    stash[NOT_RUN] = stash[NOT_RUN] | output.get("services_not_run", {})
    stash[LEFT] = stash[LEFT] + output.get("services_left", [])


def unended() -> list[str]:
    """The servers of this process that nobody closed; they are closed now."""
    try:
        from stepgrant_services.server import LIVE  # noqa: PLC0415
    except ImportError:  # the base install's tests have no deploy/
        return []
    left = [f"{server.name} (process {server.pid}): a test started it and did not close it" for server in LIVE]
    for server in list(LIVE):
        server.close()
    return left


def left_processes() -> list[str]:
    """The processes that carry this run's mark when all should have ended; they are killed now."""
    try:
        from stepgrant_services.processes import marked  # noqa: PLC0415
    except ImportError:
        return []
    end = time.monotonic() + PROCESSES_S
    while (left := marked(MARK, os.environ[MARK])) and time.monotonic() < end:
        time.sleep(0.1)
    for pid, _ in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return [f"process {pid}: {command}" for pid, command in left]
