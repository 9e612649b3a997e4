"""A real broker, a real agent on the SDK, the command line as its people; processes are forked, as in `tests/e2e`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clerks import SETTINGS, People
from commandline import Done, caller
from faults.forks import forking
from stepgrant_broker.testing import TestHost, start


@pytest.fixture(scope="session", autouse=True)
def _forking() -> Iterator[None]:
    with forking():
        yield


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestHost]:
    """A broker, with the environment of an agent that is enrolled for `clerk`."""
    with start(tmp_path / "broker", settings=SETTINGS, lease_s=3) as running:
        monkeypatch.setenv("STEPGRANT_URL", running.url)
        monkeypatch.setenv("STEPGRANT_WORKLOAD_KEY", str(running.enroll("clerks", agents=["clerk"])))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nowhere"))
        monkeypatch.chdir(tmp_path)
        yield running


@pytest.fixture
def people(host: TestHost, tmp_path: Path) -> People:
    """Makes client files."""
    return People(host, tmp_path)


@pytest.fixture
def run(people: People, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run a command line; no token of anybody is printed."""
    return caller(capsys, people.tokens)


@pytest.fixture
def root(people: People) -> list[str]:
    """The options of somebody who may do everything."""
    return ["--client", people.file("root", "operator", "approver", groups=("press",))]


@pytest.fixture
def beside(host: TestHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestHost:
    """The broker's own host: local commands find its database and keys."""
    monkeypatch.setenv("STEPGRANT_BROKER_DATA_DIR", str(tmp_path / "broker"))
    monkeypatch.setenv("STEPGRANT_BROKER_PUBLIC_URL", host.url)
    return host
