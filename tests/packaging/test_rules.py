"""The rules of tests/conftest.py, each shown by a test that breaks it in a pytest run of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[2]
LEAVING = {
    "connect": 'socket.create_connection(("192.0.2.1", 9), timeout=1)',
    "connect_v6": 'socket.socket(socket.AF_INET6).connect(("2001:db8::1", 9))',
    "send": 'socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 9))',
    "send_message": 'socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendmsg([b"x"], [], 0, ("192.0.2.1", 9))',
    "resolve": 'socket.getaddrinfo("example.invalid", 443)',
    "resolve_v4": 'socket.gethostbyname("example.invalid")',
    "resolve_back": 'socket.gethostbyaddr("192.0.2.1")',
}
SOURCE = """
import importlib.util, os, socket, warnings
import pytest
from hypothesis import settings

def test_loopback():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(("localhost", server.getsockname()[1])).close()

def test_skip():
    pytest.skip("no")

@pytest.mark.skip(reason="no")
def test_skip_mark(): ...

@pytest.mark.xfail(reason="no")
def test_xfail():
    assert 1 == 2

def test_warning():
    warnings.warn("old", DeprecationWarning)

def test_settings_of_the_developer():
    assert not [name for name in os.environ if name.startswith("STEPGRANT_")]

def test_folder_is_no_package():
    assert importlib.util.find_spec("broker") is None

def test_profile():
    assert settings().max_examples == 50
""" + "".join(f"\ndef test_{name}():\n    {line}\n" for name, line in LEAVING.items())
SKIPPED_MODULES = {
    "test_skipped.py": "import pytest\n\npytest.skip('no', allow_module_level=True)\n\ndef test_it(): ...\n",
    "test_importorskip.py": "import pytest\n\npytest.importorskip('not_there', reason='no')\n\ndef test_it(): ...\n",
}


def pytest_run(folder: Path, files: dict[str, str], **environment: str) -> tuple[int, str]:
    """Run pytest over `files`, with our configuration and conftest.py: its exit code and output."""
    for part in ("broker", "tests"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "pyproject.toml", folder)
    for part in ("conftest.py", "services.py", "scratch.py"):
        shutil.copy(ROOT / "tests" / part, folder / "tests")
    for name, source in files.items():
        (folder / "tests" / name).write_text(source, encoding="utf-8")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_") and name != "CI"}
    command = [str(Path(sys.executable).parent / "pytest"), f"--junitxml={folder / 'report.xml'}"]
    done = subprocess.run(command, cwd=folder, env=inherited | environment, check=False, capture_output=True, text=True)
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """Test name -> (outcome, message) of a run as a developer starts it."""
    folder = tmp_path_factory.mktemp("rules")
    pytest_run(folder, {"test_it.py": SOURCE}, STEPGRANT_URL="https://broker.example")
    found = {}
    for case in ET.parse(folder / "report.xml").iter("testcase"):  # noqa: S314  (pytest has just written it)
        child = next((one for one in case if one.tag in {"failure", "error", "skipped"}), None)
        found[case.get("name", "")] = ("passed", "") if child is None else (child.tag, child.get("message", ""))
    return found


@pytest.mark.parametrize("name", LEAVING)
def test_leaving_loopback_fails(outcomes: dict[str, tuple[str, str]], name: str) -> None:
    outcome, message = outcomes[f"test_{name}"]

    assert outcome == "failure"
    assert "OutsideLoopbackError: a test may talk to loopback only" in message


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("test_loopback", "passed"),
        ("test_profile", "passed"),
        ("test_settings_of_the_developer", "passed"),
        # Else `broker.stepgrant_broker` would be a second copy of every module, with classes that equal no other.
        ("test_folder_is_no_package", "passed"),
        ("test_skip", "skipped"),
        ("test_warning", "failure"),
    ],
)
def test_rule_holds(outcomes: dict[str, tuple[str, str]], name: str, expected: str) -> None:
    assert outcomes[name][0] == expected


def test_skip_is_a_failure_in_ci(tmp_path: Path) -> None:
    selected = (
        SOURCE.partition("def test_warning")[0] + "\ndef test_profile():\n    assert settings().max_examples == 100\n"
    )
    code, out = pytest_run(tmp_path, {"test_it.py": selected}, CI="true")

    assert out.count("nothing may be skipped in CI (") >= len(("test_skip", "test_skip_mark", "test_xfail"))
    assert out.splitlines()[-1].strip("= ").startswith("2 failed, 2 passed, 1 error in ")
    assert code == 1


def test_expected_failure_counts_in_ci(tmp_path: Path) -> None:
    source = "import pytest\n\n@pytest.mark.xfail(reason='no')\ndef test_it():\n    assert 1 == 2\n"
    code, out = pytest_run(tmp_path, {"test_it.py": source}, CI="true")

    assert "nothing may be skipped in CI" in out
    assert code == 1


def test_skipped_module_is_an_error_in_ci(tmp_path: Path) -> None:
    code, out = pytest_run(tmp_path, SKIPPED_MODULES, CI="true")

    assert out.splitlines()[-1].strip("= ").startswith("2 errors in ")
    assert "nothing may be skipped in CI" in out
    assert code == 2


def test_named_profile_and_unknown_marker(tmp_path: Path) -> None:
    files = {
        "test_deep.py": "from hypothesis import settings\n\nassert settings().max_examples == 5000\n",
        "test_marker.py": "import pytest\n\n@pytest.mark.slwo\ndef test_it(): ...\n",
    }
    code, out = pytest_run(tmp_path, files, HYPOTHESIS_PROFILE="deep")

    assert "'slwo' not found in `markers`" in out
    assert out.splitlines()[-1].strip("= ").startswith("1 error in ")
    assert code == 2


def test_threads_that_are_measured_start_beside_each_other(tmp_path: Path) -> None:
    """An audit hook in Python lets another thread go on while one's tracing is set up, which CPython 3.11 refuses."""
    files = {"test_it.py": "import sys\n\ndef test_it():\n    sys.audit('socket.gethostbyname', 'example.invalid')\n"}
    plugin = {"PYTHONPATH": str(ROOT / "tests"), "PYTEST_PLUGINS": "tools.measured"}

    assert "1 failed" in pytest_run(tmp_path / "closed", files)[1]
    for part in (".cache", "broker/stepgrant_broker/domain", "broker/stepgrant_broker/usecases"):
        (tmp_path / "measured" / part).mkdir(parents=True)
    assert "1 passed" in pytest_run(tmp_path / "measured", files, **plugin)[1]


def test_nothing_makes_a_package_of_a_folder() -> None:
    """Importlib mode would then import `broker.stepgrant_broker` beside `stepgrant_broker`."""
    folders = [ROOT / name for name in ("broker", "policies", "sdk")]

    assert [one for one in [ROOT, *folders] if (one / "__init__.py").exists() or (one / "conftest.py").exists()] == []
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_the_files_that_start_first_are_there(pytestconfig: pytest.Config) -> None:
    conftest = pytestconfig.pluginmanager.get_plugin(str(ROOT / "tests" / "conftest.py"))
    assert conftest is not None
    assert len(set(conftest.LONG)) == len(conftest.LONG) > 0
    assert [name for name in conftest.LONG if not (ROOT / "tests" / f"{name}.py").is_file()] == []
