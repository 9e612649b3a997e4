"""What tests/services.py does to a whole run: deselects and counts, or fails; and fails over what was left behind."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import services
from stepgrant_services import PostgresServer, VaultServer, server
from stepgrant_services.processes import marked, started_at

# Processes within processes: on a busy machine each of them takes its time.
pytestmark = pytest.mark.timeout(240)

ROOT = Path(__file__).parents[2]
NEEDING = """
import pytest

def test_plain(): ...

def test_vault(vault_server): ...

@pytest.mark.needs("opa", "vault")
def test_both(): ...

@pytest.mark.parametrize("engine", ["embedded", pytest.param("opa", marks=pytest.mark.needs("opa"))])
def test_engine(engine): ...
"""
LEAVES_SERVER = """
from stepgrant_services import OpaServer

def test_forgets(opa_binary):
    OpaServer(binary=opa_binary).start()
"""
LEAVES_PROCESS = """
import subprocess, sys

def test_forgets():
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(90)"], start_new_session=True).returncode = 0
"""
LEAVES_TOKEN = """
def test_forgets(vault_server):
    vault_server.request("POST", "auth/token/create", {"meta": {"stepgrant": "grant-1"}, "ttl": "1h"})
"""
LEAVES_ROLE = """
def test_forgets(postgres_server):
    postgres_server.sql("create role \\"v-approle-billing-1\\" login")
"""


TO_THINGS = "PATIENCE_S: Final = 60.0"
TO_PROCESSES = "PROCESSES_S: Final = 60.0"
"""How long the plugin gives to what may still go away."""


def pytest_run(
    folder: Path, source: str, *arguments: str, hurried: str = "", **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run pytest over one module with our configuration, plugin and tool, in an environment without CI.

    `hurried`: a patience of the plugin that is of no use, since what is left here stays.
    """
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "tests").mkdir()
    (folder / "deploy").symlink_to(ROOT / "deploy")
    shutil.copy(ROOT / "tests" / "conftest.py", folder / "tests")
    plugin = (ROOT / "tests" / "services.py").read_text(encoding="utf-8")
    assert hurried in plugin
    plugin = plugin.replace(hurried, hurried.replace("60.0", "1.0")) if hurried else plugin
    shutil.copy(ROOT / "tests" / "scratch.py", folder / "tests")
    (folder / "tests" / "services.py").write_text(plugin, encoding="utf-8")
    (folder / "tests" / "test_it.py").write_text(source, encoding="utf-8")
    unwanted = ("PYTEST_", "CI", "STEPGRANT_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    command = [str(Path(sys.executable).parent / "pytest"), *arguments]
    env = inherited | environment
    return subprocess.run(command, cwd=folder, env=env, check=False, capture_output=True, text=True, timeout=200)


@pytest.fixture
def nothing(tmp_path: Path) -> dict[str, str]:
    """Settings with which no OPA and no Vault is found."""
    return {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.mark.parametrize("workers", ["0", "2"])
def test_what_cannot_run_is_counted_in_one_line(tmp_path: Path, nothing: dict[str, str], workers: str) -> None:
    done = pytest_run(tmp_path, NEEDING, "-n", workers, **nothing)

    *_, loud, closing = done.stdout.splitlines()
    expected = (
        "3 TESTS DID NOT RUN, because there is no opa (2), vault (2) here. `make test-all` gets them and runs all."
    )
    assert loud == expected
    assert "2 passed" in closing
    assert done.returncode == 0


@pytest.mark.parametrize("setting", ["CI", "STEPGRANT_TEST_ALL"])
def test_where_all_has_to_run_a_missing_service_is_a_failure(
    tmp_path: Path, nothing: dict[str, str], setting: str
) -> None:
    done = pytest_run(tmp_path, NEEDING, **nothing, **{setting: "true"})

    assert "DID NOT RUN" not in done.stdout
    assert "no vault found by STEPGRANT_VAULT, on PATH or in " in done.stdout
    assert "no opa found by STEPGRANT_OPA, on PATH or in " in done.stdout
    assert "2 passed, 3 errors" in done.stdout.splitlines()[-1]
    assert done.returncode == 1


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_forgotten_server_fails_the_run_and_is_ended(tmp_path: Path, opa_binary: Path, workers: str) -> None:
    done = pytest_run(tmp_path, LEAVES_SERVER, "-n", workers, STEPGRANT_OPA=str(opa_binary))

    assert "a test started it and did not close it" in done.stdout
    assert "1 passed, 1 error" in done.stdout.splitlines()[-1]
    assert done.returncode == 1
    assert not [one for one in marked(services.MARK, os.environ[services.MARK]) if str(tmp_path) in one[1]]


def test_a_forgotten_process_fails_the_run_and_is_ended(tmp_path: Path) -> None:
    done = pytest_run(tmp_path, LEAVES_PROCESS, hurried=TO_PROCESSES)

    assert "this run left behind:" in done.stdout
    pid = int(done.stdout.partition("  process ")[2].partition(":")[0])
    assert "1 passed, 1 error" in done.stdout.splitlines()[-1]
    assert done.returncode == 1
    assert not started_at(pid)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (LEAVES_TOKEN, r"the tests left 1 things in Vault: token "),
        (LEAVES_ROLE, "the tests left 1 things in PostgreSQL: role v-approle-billing-1"),
    ],
    ids=["token", "role"],
)
def test_what_is_left_in_a_service_fails_the_run(
    tmp_path: Path, vault_binary: Path, postgres_binaries: Path, source: str, message: str
) -> None:
    named = {"STEPGRANT_VAULT": str(vault_binary), "STEPGRANT_POSTGRES_BIN": str(postgres_binaries)}
    done = pytest_run(tmp_path, source, hurried=TO_THINGS, **named)

    assert message in done.stdout
    assert "1 passed, 1 error" in done.stdout.splitlines()[-1]
    assert done.returncode == 1


def test_leases_of_every_mount_are_counted_until_they_are_revoked(new_vault: Callable[..., VaultServer]) -> None:
    with new_vault() as vault:
        assert vault.leftovers() == []
        vault.request("POST", "sys/mounts/deep/pki", {"type": "pki"})
        vault.request(
            "POST", "deep/pki/root/generate/internal", {"common_name": "test", "key_bits": 256, "key_type": "ec"}
        )
        vault.request("POST", "deep/pki/roles/one", {"allow_any_name": True, "generate_lease": True, "key_type": "ec"})
        lease = vault.request("POST", "deep/pki/issue/one", {"common_name": "a", "ttl": "60s"})["lease_id"]

        assert vault.leftovers() == [f"lease {lease}"]
        vault.request("PUT", "sys/leases/revoke", {"lease_id": lease, "sync": True})
        assert vault.leftovers() == []
        vault.request("POST", "auth/token/create", {"meta": {"other": "thing"}})
        assert vault.leftovers() == []


def test_roles_that_are_not_vaults_are_not_counted(postgres_server: PostgresServer) -> None:
    postgres_server.sql('create role "value" login')

    assert postgres_server.leftovers() == []


def test_both_halves_use_one_mark() -> None:
    assert server.MARK == services.MARK
