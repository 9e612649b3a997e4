"""A disk is lost, an older copy is put back, an agent of the lost time goes on: it gets nothing, and nothing twice."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

import stepgrant
from clerks import SETTINGS
from commandline import Done, caller
from logs import backed_up
from processes import started
from processes import stepgrant as process
from stepgrant import errors
from stepgrant.cli.exits import ExitCode
from stepgrant_broker.wiring import starter_with

pytestmark = pytest.mark.timeout(300)  # processes of their own may have to wait for a busy machine
Run = Callable[..., Done]
RESTORED = ["db", "restored", "--note", "the disk failed; the copy of noon"]
ROOT = ["--client", "root.client.json"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The settings of a broker of its own, in the environment: SQLite, a policy of its own, always the same address."""
    policy = tmp_path / "policy"
    for path, text in starter_with(SETTINGS).files.items():
        (policy / path).parent.mkdir(parents=True, exist_ok=True)
        (policy / path).write_text(text)
    port = free_port()
    known = {
        "STEPGRANT_BROKER_DATA_DIR": str(tmp_path / "data"),
        "STEPGRANT_BROKER_POLICY_DIR": str(policy),
        "STEPGRANT_BROKER_PORT": str(port),
        "STEPGRANT_BROKER_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "STEPGRANT_BROKER_LEASE_MS": "600000",
    }
    for name, value in known.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return known


@pytest.fixture
def run(settings: dict[str, str], capsys: pytest.CaptureFixture[str]) -> Run:
    """A command line on the broker's host."""
    assert settings
    return caller(capsys, [])


@contextmanager
def serving(folder: Path, settings: dict[str, str], name: str) -> Iterator[None]:
    """A broker, which SIGKILL ends."""
    with started(folder, folder / f"{name}.log", "serve", "--json", **settings) as broker:
        broker.wait_for('"url": "http')
        yield
        broker.process.send_signal(signal.SIGKILL)
        assert broker.ended() == -signal.SIGKILL


def put_back(data: Path, copy: Path) -> None:
    for path in data.glob("stepgrant.db*"):
        path.unlink()
    backed_up(copy, data / "stepgrant.db")
    (data / "stepgrant.db").chmod(0o600)


def tools(charged: list[int], backup: Callable[[], None]) -> tuple[Callable[..., int], Callable[..., int]]:
    """An agent's tools; the database is copied while the second one does its work."""

    def charge(amount: int) -> int:
        backup()
        charged.append(amount)
        return amount

    look = stepgrant.tool(name="book.read", effect="read", step_id="look-{number}")(lambda number: number)
    return look, stepgrant.tool(name="card.charge", effect="once", step_id="pay")(charge)


def test_after_a_restore_a_zombie_gets_nothing(
    run: Run, tmp_path: Path, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, copy, charged = tmp_path / "data", tmp_path / "noon.db", list[int]()
    look, pay = tools(charged, lambda: backed_up(data / "stepgrant.db", copy))
    zombie = ExitStack()
    assert run("db", "migrate").code == 0
    with serving(tmp_path, settings, "first"):
        assert run("operator", "create", "root", "--role", "operator", "--local").code == 0
        assert run("workload", "enroll", "clerks", "--agent", "clerk", "--out", "key.json", *ROOT).code == 0
        monkeypatch.setenv("STEPGRANT_URL", settings["STEPGRANT_BROKER_PUBLIC_URL"])
        monkeypatch.setenv("STEPGRANT_WORKLOAD_KEY", str(tmp_path / "key.json"))
        url = settings["STEPGRANT_BROKER_PUBLIC_URL"]
        held = zombie.enter_context(stepgrant.run("job", agent="clerk"))
        assert (look(number=1), pay(amount=7), look(number=2)) == (1, 7, 2)
        assert run("receipt", "get", held.id, "--out", "before.json", *ROOT).code == 0
        (tmp_path / "keys").write_bytes(httpx.get(f"{url}/v1/log/keys", timeout=30).content)

    put_back(data, copy)
    _refused(run, tmp_path)
    _restored(run, tmp_path, settings)

    def goes_on() -> None:
        with stepgrant.run("job", agent="clerk") as again:
            assert (again.epoch, look(number=1)) == (1_000_002, 1)
            pay(amount=7)

    with serving(tmp_path, settings, "second"):
        with pytest.raises(errors.Quarantined):
            look(number=3)
        with pytest.raises(errors.Quarantined):
            goes_on()
        assert run("quarantine", "run", "job", "--release", *ROOT).code == 0
        with pytest.raises(errors.StaleEpoch):
            look(number=4)
        with pytest.raises(errors.InDoubt) as doubt:
            goes_on()
        assert (doubt.value.why, charged) == ("restored", [7])
        shown = run("run", "show", "job", *ROOT)
        assert "put the store back to an earlier state" in shown.out
        assert "step pay is in doubt" in shown.out
        assert run("receipt", "verify", "before.json", "--key", "keys").code == 0
        with suppress(errors.RunNotHeld):
            zombie.close()
    assert run("ledger", "verify").code == 0


def _refused(run: Run, folder: Path) -> None:
    """Neither a broker nor a command that writes goes over the copy, and nobody is asked where nobody is."""
    before = (folder / "data" / "stepgrant.db").read_bytes()
    refused = run("serve")
    assert refused.code == ExitCode.CONFLICT
    assert "the store was rolled back: its log has" in refused.err
    assert run("operator", "create", "other", "--role", "operator", "--local").code == ExitCode.CONFLICT
    assert run("ledger", "verify").code == ExitCode.REFUSED
    unasked = run(*RESTORED)
    assert (unasked.code, "repeat with --yes" in unasked.err) == (ExitCode.USAGE, True)
    assert (folder / "data" / "stepgrant.db").read_bytes() == before


def _restored(run: Run, folder: Path, settings: dict[str, str]) -> None:
    """Killed in its middle and begun again, it comes to its end; once more there is nothing to do."""
    test = {"STEPGRANT_BROKER_TEST_MODE": "1", "STEPGRANT_BROKER_FAILPOINTS": "usecase.after_commit@1=kill"}
    killed = process(folder, *RESTORED, "--yes", **settings, **test)
    assert killed.returncode == -signal.SIGKILL
    assert run("operator", "create", "other", "--role", "operator", "--local").code == ExitCode.CONFLICT
    done = run(*RESTORED, "--yes", "--json")
    told = done.json
    assert (done.code, told["tenants"], told["runs"], told["steps_in_doubt"]) == (0, 1, 1, 1)
    assert told["origin"] == f"{told['previous_origin']}/r1"
    assert told["vkey"].startswith(f"{told['origin']}+")
    assert told["size"] < told["known_size"]
    again = run(*RESTORED, "--yes")
    assert (again.code, "nothing is to be restored" in again.err) == (ExitCode.CONFLICT, True)
