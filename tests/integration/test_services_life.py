"""Servers of the services tool end when they should, and only those; what they were told stays theirs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stepgrant_services import OpaServer, PostgresServer, ServiceError, VaultServer
from stepgrant_services.postgres import give_back_memory
from stepgrant_services.processes import PORTS, PROC, free_port, owns, running, started_at

# Processes within processes: on a busy machine each of them takes its time.
pytestmark = pytest.mark.timeout(240)

TOOL = Path(__file__).parents[2] / "deploy" / "services"
PATIENCE_S = 60.0
SLEEP = "import time; time.sleep(60)"
# A test process that somebody kills: it starts the three, says where they are, and waits.
CHILD = """
import sys, time
sys.path.insert(0, {tool!r})
from pathlib import Path
from stepgrant_services import OpaServer, PostgresServer, VaultServer
servers = [OpaServer(binary=Path({opa!r})), VaultServer(binary=Path({vault!r})), PostgresServer(binaries=Path({pg!r}))]
for server in servers:
    server.start()
    print(server.pid, server._child.pid, server.folder, flush=True)
time.sleep(600)
"""


def wait_until(true: Callable[[], bool]) -> bool:
    """Whether `true` became so in time."""
    end = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def home() -> Iterator[Path]:
    """A home for `up` that PostgreSQL's other user can enter, which pytest's own folders are not."""
    folder = Path(tempfile.mkdtemp(prefix="stepgrant-test-home-"))
    folder.chmod(0o711)
    yield folder
    tool("down", "--home", str(folder))
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def chosen(opa_binary: Path, vault_binary: Path, postgres_binaries: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The binaries that this run found, for processes of the tool."""
    monkeypatch.setenv("STEPGRANT_OPA", str(opa_binary))
    monkeypatch.setenv("STEPGRANT_VAULT", str(vault_binary))
    monkeypatch.setenv("STEPGRANT_POSTGRES_BIN", str(postgres_binaries))


def tool(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(TOOL), *words], capture_output=True, text=True, check=False, timeout=PATIENCE_S * 2
    )


def running_in(home: Path) -> dict[str, dict[str, str]]:
    """What `status` tells, by service."""
    return {one["service"]: one for one in json.loads(tool("status", "--json", "--home", str(home)).stdout)}


@pytest.mark.parametrize("whom", ["parent", "keepers"])
def test_nothing_outlives_a_killed_parent(
    opa_binary: Path, vault_binary: Path, postgres_binaries: Path, whom: str
) -> None:
    source = CHILD.format(tool=str(TOOL), opa=str(opa_binary), vault=str(vault_binary), pg=str(postgres_binaries))
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        lines = [parent.stdout.readline().split() for _ in range(3)]
        servers = [(int(pid), started_at(int(pid))) for pid, _, _ in lines]
        keepers = [(int(pid), started_at(int(pid))) for _, pid, _ in lines]
        assert all(running(*one) for one in servers + keepers)
        for pid, _ in [(parent.pid, "")] if whom == "parent" else keepers:
            os.kill(pid, signal.SIGKILL)
        gone = wait_until(lambda: not any(running(*one) for one in servers + keepers))
        parent.kill()

    assert gone
    # Only a keeper can remove what it kept; when it was killed itself, the folders stay.
    folders = [Path(folder) for _, _, folder in lines]
    if whom == "parent":
        assert wait_until(lambda: not any(folder.exists() for folder in folders))
    for folder in folders:
        give_back_memory(folder / "data")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.usefixtures("chosen")
def test_two_parallel_ups_give_the_same_three_servers(home: Path) -> None:
    command = [sys.executable, str(TOOL), "up", "--home", str(home)]
    ups = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [up.communicate(timeout=PATIENCE_S * 2)[0] for up in ups]

    assert [up.returncode for up in ups] == [0, 0]
    assert told[0] == told[1]
    assert list(running_in(home)) == ["opa", "vault", "postgres"]
    done = tool("down", "--home", str(home))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" ended\n") == 3
    assert not home.exists()


@pytest.mark.usefixtures("chosen")
def test_down_touches_nothing_else(home: Path, opa_server: Callable[..., OpaServer]) -> None:
    tool("up", "opa", "--home", str(home))
    ours = running_in(home)["opa"]
    with opa_server() as another, subprocess.Popen([sys.executable, "-c", SLEEP]) as bystander:
        state = home / "opa" / "process.json"
        given_again = {**json.loads(state.read_text(encoding="utf-8")), "pid": bystander.pid}
        (home / "postgres").mkdir()
        (home / "postgres" / "process.json").write_text(json.dumps(given_again), encoding="utf-8")
        done = tool("down", "--home", str(home))

        assert done.stdout.splitlines() == [
            f"opa: process {ours['pid']} ended",
            "vault: was not running",
            "postgres: was not running",
        ]
        assert another.alive
        assert bystander.poll() is None
        bystander.kill()


@pytest.mark.usefixtures("chosen")
def test_up_replaces_a_server_that_was_killed(home: Path) -> None:
    tool("up", "postgres", "--home", str(home))
    first = running_in(home)["postgres"]
    os.kill(int(first["pid"]), signal.SIGKILL)
    assert wait_until(lambda: not started_at(int(first["pid"])))

    assert tool("status", "postgres", "--home", str(home)).stdout == "service=postgres not running\n"
    assert tool("up", "postgres", "--home", str(home)).returncode == 0
    assert running_in(home)["postgres"]["pid"] != first["pid"]


@pytest.mark.parametrize("mode", [0o777, 0o722])
def test_a_home_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    done = tool("up", "--home", str(tmp_path))

    assert done.returncode == 1
    assert done.stderr == f"{tmp_path} is not a folder that only you can write to; name another with --home\n"
    assert list(tmp_path.iterdir()) == []


def test_a_linked_home_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")

    assert "is not a folder that only you can write to" in tool("up", "--home", str(tmp_path / "link")).stderr
    assert list((tmp_path / "real").iterdir()) == []


def test_secrets_are_in_no_argument_and_in_private_files(
    vault_server: VaultServer, postgres_server: PostgresServer
) -> None:
    for server, secret, path in (
        (vault_server, vault_server.root_token, vault_server.root_token_file),
        (postgres_server, postgres_server.password, postgres_server.password_file),
    ):
        arguments = (PROC / str(server.pid) / "cmdline").read_bytes()
        assert secret.encode() not in arguments
        assert path.stat().st_mode & 0o777 == 0o600
        assert server.log.stat().st_mode & 0o777 == 0o600
        assert secret not in server.tail()


def test_settings_of_the_developer_do_not_reach_a_server(
    new_vault: Callable[..., VaultServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_ADDR", "http://192.0.2.1:8200")
    monkeypatch.setenv("PGHOST", "192.0.2.1")
    with new_vault() as vault:
        names = (PROC / str(vault.pid) / "environ").read_bytes()

        assert b"VAULT_ADDR" not in names
        assert b"PGHOST" not in names


def test_a_server_that_cannot_start_shows_the_end_of_its_log(opa_binary: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.rego").write_text("package p\n\nallow := = true\n", encoding="utf-8")
    opa = OpaServer(tmp_path, binary=opa_binary)
    try:
        with pytest.raises(ServiceError, match=r"(?s)opa ended while starting; the end of its log:.*rego_parse_error"):
            opa.start()
    finally:
        opa.close()


def test_another_server_on_the_port_is_never_taken_for_ours(
    opa_server: Callable[..., OpaServer], opa_binary: Path
) -> None:
    with opa_server() as first:
        assert owns(first.pid, first.port)
        assert not owns(os.getpid(), first.port)
        second = OpaServer(binary=opa_binary)
        second.port = first.port
        with pytest.raises(ServiceError, match="address already in use"):
            second.start()
        second.close()


def test_a_taken_port_is_given_up_for_the_next(
    opa_server: Callable[..., OpaServer], opa_binary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opa_server() as first:
        ports = iter([first.port, free_port()])
        monkeypatch.setattr("stepgrant_services.server.free_port", lambda: next(ports))
        with OpaServer(binary=opa_binary) as second:
            assert second.port != first.port


def test_ports_are_none_that_the_kernel_gives_to_clients() -> None:
    setting = PROC / "sys" / "net" / "ipv4" / "ip_local_port_range"
    lowest, highest = map(int, setting.read_text(encoding="ascii").split())
    ports = {free_port() for _ in range(50)}

    assert ports <= set(PORTS)
    assert not [port for port in ports if lowest <= port <= highest]


def test_a_paused_server_answers_nobody_until_it_is_resumed(opa_server: Callable[..., OpaServer]) -> None:
    with opa_server() as opa:
        opa.pause()
        try:
            with pytest.raises(TimeoutError):
                opa._answers()
        finally:
            opa.resume()
        assert opa._answers()
