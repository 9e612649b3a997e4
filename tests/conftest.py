"""Rules for every test, whatever its folder.

- Hypothesis profiles: `dev` (quick, the default), `ci` (with CI=true), `deep` (HYPOTHESIS_PROFILE=deep). `dev` and `ci`
  are derandomized: the same code gives the same answer, so a red run is never luck.
- Nothing is skipped in CI. What is missing there is a failure, or a guard would go untested unseen.
- Loopback only. A test that looks up a name or connects elsewhere fails, whatever library does it (in its own process;
  what it starts is not watched).
- The developer's own STEPGRANT_* settings do not reach a test.
- With xdist the files that take longest start first (`LONG`), so that no worker is left alone with one at the end.
- What Python compiles is kept in .cache/pycache, also where PYTHONDONTWRITEBYTECODE is set: hundreds of processes are
  started, and each would compile all that it imports, and rewrite all test modules, anew.

- What collecting makes (half a million objects) stays until the end: the collector of garbage is told to pass it by.

This file runs with the base install too (tests/sdk), so it imports nothing of the broker.
"""

import gc
import ipaddress
import os
import signal
import sys
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase

# The first is loaded before the settings are cleaned below: it keeps those that name binaries.
pytest_plugins = ("services", "scratch")
ROOT = Path(__file__).parent.parent
IN_CI = os.environ.get("CI", "").lower() in {"1", "true"}
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)
LONG = (
    "e2e/test_rehearse_command", "integrations/test_langgraph_suite", "e2e/test_rehearse", "faults/test_matrix",
    "faults/test_orphans", "security/fuzz/test_http_walk", "faults/test_broker_kills", "faults/test_agent_kills",
    "e2e/test_demo_real", "faults/test_services_load", "packaging/test_wheel", "contract/sdk/test_worker",
    "property/test_model", "e2e/test_examples", "e2e/test_restore", "e2e/test_readme", "faults/test_vault_faults",
    "faults/test_zombie_schedules", "faults/test_zombies", "faults/test_takeovers", "faults/test_clock_jumps",
    "faults/test_postgres_faults", "faults/test_duplicates", "faults/test_opa_faults", "faults/test_opa_load",
    "faults/test_store_faults", "security/tamper/test_matrix", "security/fuzz/test_tokens",
    "security/fuzz/test_ledger_bytes", "e2e/test_demo", "e2e/test_evidence", "integration/test_restored",
    "integration/test_export", "independent/test_go_reader", "integration/test_services_session",
    "conformance/store/test_durability", "conformance/store/test_round_trip", "property/test_merkle",
    "packaging/test_rules", "packaging/test_containers", "conformance/store/test_load",
    "integration/test_postgres_replicas", "contract/api/test_codes", "contract/sdk/test_adapter_seam",
    "contract/sdk/test_doubt", "contract/sdk/test_steps", "security/identity/test_forged", "contract/cli/test_people",
    "integrations/test_langgraph_calls", "conformance/policy/test_policy_engine", "soak/test_soak",
    "packaging/test_setup", "packaging/test_compose", "migrations/test_rolling_upgrade", "faults/test_postgres_full",
    "integration/test_deploy_readme", "integration/test_postgres_replicas_doors",
)  # fmt: skip
"""The test files that take longest, by their seconds; where the next one stands matters little."""
LOCAL_NAMES = frozenset({"", "localhost"})


class OutsideLoopbackError(RuntimeError):
    """A test tried to leave this machine."""


def pytest_configure(config: pytest.Config) -> None:
    """Clean the environment, load the Hypothesis profile, close the network: before any test module is imported."""
    for name in [name for name in os.environ if name.startswith("STEPGRANT_")]:
        del os.environ[name]
    _keep_what_is_compiled()
    # A shell that starts us in the background has SIGINT ignored, for us and for all that we start; tests press Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.option.loadscopereorder = False  # xdist would begin with the files that have many tests, not much to do
    settings.register_profile("dev", max_examples=50, stateful_step_count=30, derandomize=True, deadline=None)
    settings.register_profile("ci", max_examples=100, stateful_step_count=50, derandomize=True, deadline=None)
    settings.register_profile(
        "deep",
        max_examples=5000,
        stateful_step_count=100,
        deadline=None,
        database=DirectoryBasedExampleDatabase(ROOT / ".cache" / "hypothesis"),
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if IN_CI else "dev"))
    # CPython 3.11 ends a thread that it begins to trace while another one is in an audit hook that hears of the same;
    # `make test` runs the measured tests once more, with the network closed.
    if not config.pluginmanager.hasplugin("tools.measured"):
        sys.addaudithook(_refuse_outside)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Go through nothing of it again, neither while it grows nor in any test: half a second each time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest files first, for xdist's workers; one process alone keeps to the order that was asked for."""
    if hasattr(config, "workerinput"):
        place = {str(ROOT / "tests" / f"{name}.py"): number for number, name in enumerate(LONG)}
        items.sort(key=lambda item: place.get(str(item.path), len(LONG)))


def _keep_what_is_compiled() -> None:
    """In this process, in its xdist workers, and in whatever tests start."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = str(ROOT / ".cache" / "pycache")
    sys.dont_write_bytecode = False


def _refuse_outside(event: str, arguments: tuple[object, ...]) -> None:
    """Audit hook: raise before a socket connects, sends to, or resolves anything but loopback."""
    if event in {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}:
        host = arguments[0]
    elif event in {"socket.connect", "socket.sendto", "socket.sendmsg"}:
        address = arguments[1]
        if not isinstance(address, tuple):  # AF_UNIX, netlink: cannot leave the machine
            return
        host = address[0]
    else:
        return
    if not _is_local(host):
        raise OutsideLoopbackError(f"a test may talk to loopback only, not to {host!r} ({event})")


def _is_local(host: object) -> bool:
    if host is None:
        return True
    text = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    if text in LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that skips itself, or is expected to fail, fails in CI."""
    return _refuse_skip((yield), item.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """As above, for a module that skips all of itself."""
    return _refuse_skip((yield), collector.nodeid)


def _refuse_skip(report: Report, name: str) -> Report:
    if IN_CI and report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        vars(report).pop("wasxfail", None)  # with it, pytest prints a failure but does not count it
        report.longrepr = f"{name}: nothing may be skipped in CI ({reason})"
    return report
