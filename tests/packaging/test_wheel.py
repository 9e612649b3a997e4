"""What a user gets with `pip install stepgrant`: built here, installed offline in an empty environment, and used there.

Twice: the base install, with which the SDK's own tests pass, and `[broker,embedded]`, with whose `stepgrant` a project
is made, an agent is governed and the demo is shown, all of it from the files of the wheel.

Everything comes from the wheelhouse that `make setup` fills. Without it these tests fail, in CI and elsewhere: a check
of the base install that is left out would hide the first import of a broker library in the SDK.
"""

import configparser
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
WHEELHOUSE = ROOT / ".cache" / "wheelhouse"
PACKAGES = ("sdk/stepgrant", "broker/stepgrant_broker", "policies/stepgrant_policies")
BROKER_IMPORTS = (
    "alembic", "fastapi", "hvac", "httptools", "opa_client", "opentelemetry", "psycopg", "pydantic_settings", "regorus",
    "rich", "sqlalchemy", "sqlmodel", "starlette", "structlog", "typer", "uvicorn", "uvloop",
)  # fmt: skip
# What tests/sdk needs besides the base install.
TEST_TOOLS = ("hypothesis", "pytest", "pytest-asyncio", "pytest-timeout", "rfc8785")
# Modules of the SDK that need more than the base install, by what they need.
NEEDS_MORE = ("stepgrant.cli", "stepgrant.integrations", "stepgrant.testing.plugin")
IMPORT_ALL = """
import importlib, pkgutil, stepgrant
names = [m.name for m in pkgutil.walk_packages(stepgrant.__path__, "stepgrant.", onerror=lambda name: None)]
names = [n for n in names if not n.startswith({skipped!r})]
for name in names:
    importlib.import_module(name)
print(stepgrant.__file__, len(names))
"""
# An agent whose one step tells which files it was governed by; the new project's policy allows `greet`.
TELL_FILES = """
import sys, stepgrant, stepgrant_broker, stepgrant_policies
@stepgrant.tool(effect="read")
def greet():
    return [package.__file__ for package in (stepgrant, stepgrant_broker, stepgrant_policies)]
with stepgrant.run("files", agent="my-agent"):
    print(sys.executable, *greet())
"""
DEMO_S = 200
"""For a machine that does other things as well; tests/e2e/test_demo.py says the same."""


@dataclass(frozen=True)
class Built:
    """The two files that a release consists of."""

    wheel: Path
    sdist: Path


@dataclass(frozen=True)
class Environment:
    """A virtual environment with what was installed there from the wheelhouse, and nothing else."""

    folder: Path

    @classmethod
    def made(cls, folder: Path) -> "Environment":
        """An empty one."""
        assert WHEELHOUSE.is_dir(), f"{WHEELHOUSE} is missing: run `make setup`"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        return cls(folder)

    def run(self, *command: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
        """Run a program of this environment, cut off from the checkout's own paths and settings."""
        full = [str(self.folder / "bin" / command[0]), *command[1:]]
        return subprocess.run(full, cwd=cwd, env=self.settings(), check=False, capture_output=True, text=True)

    def settings(self) -> dict[str, str]:
        """What of our environment a program of this one may see; its own programs come first, as after `activate`."""
        left = ("PYTHON", "PIP_", "PYTEST_", "STEPGRANT_", "UV_", "XDG_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(left)}
        return kept | {"PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}

    def pip(self, what: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Let the checkout's own pip work here: to put one into each environment takes longer than all that it does."""
        pip = [sys.executable, "-m", "pip", "--python", str(self.folder / "bin" / "python"), "--isolated", what]
        done = subprocess.run(
            [*pip, "--disable-pip-version-check", *arguments],
            cwd=self.folder, env=self.settings(), check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done

    def install(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Install with the wheelhouse as the only source; what is never imported is never compiled."""
        return self.pip("install", "--quiet", "--no-compile", "--no-index", "--find-links", str(WHEELHOUSE), *arguments)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    target = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(ROOT)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return Built(next(target.glob("*.whl")), next(target.glob("*.tar.gz")))


@pytest.fixture(scope="module")
def base(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment.made(tmp_path_factory.mktemp("base") / "venv")
    environment.install(str(built.wheel))
    return environment


@pytest.fixture(scope="module")
def whole(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """`[broker,embedded]`, by uv: pip, which `base` shows to work, would take several times as long."""
    environment = Environment.made(tmp_path_factory.mktemp("whole") / "venv")
    uv = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--no-config", "--no-cache"]
    source = ["--offline", "--no-index", "--find-links", str(WHEELHOUSE)]
    python = str(environment.folder / "bin" / "python")
    done = subprocess.run(
        [*uv, *source, "--python", python, f"{built.wheel}[broker,embedded]"],
        cwd=environment.folder, env=environment.settings(), check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return environment


@pytest.fixture(scope="module")
def demo(whole: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator["subprocess.Popen[str]"]:
    """The installed `stepgrant demo`, running: it mostly waits, so other tests can run meanwhile."""
    folder = tmp_path_factory.mktemp("demo")
    process = subprocess.Popen(
        [str(whole.folder / "bin" / "stepgrant"), "demo", "--json", "--limit", str(DEMO_S)],
        cwd=folder, env=whole.settings() | {"TMPDIR": str(folder)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        yield process
        process.terminate()  # the demo then ends what it started; nothing happens to one that is over


def project() -> dict[str, dict[str, object]]:
    """The parsed pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_wheel_holds_every_file_of_the_three_packages(built: Built) -> None:
    expected = {
        path.relative_to((ROOT / package).parent).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(built.wheel) as wheel:
        inside = {name for name in wheel.namelist() if ".dist-info/" not in name}

    assert inside == expected


def test_wheel_holds_types_policies_and_migrations(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        inside = wheel.namelist()

    assert {"stepgrant/py.typed", "stepgrant_broker/py.typed"} <= set(inside)
    assert [name for name in inside if name.startswith("stepgrant_policies/") and name.endswith(".rego")]
    assert [name for name in inside if name.startswith("stepgrant_broker/store/migrations/") and name.endswith(".py")]
    assert [name for name in inside if name.endswith(".dist-info/licenses/LICENSE")]


def test_every_entry_point_leads_to_a_module(built: Built) -> None:
    """A pytest plugin or a command that is not there would stop every pytest, or every `stepgrant`, at its start."""
    with zipfile.ZipFile(built.wheel) as wheel:
        inside = set(wheel.namelist())
        name = next(name for name in inside if name.endswith(".dist-info/entry_points.txt"))
        points = configparser.ConfigParser(delimiters=("=",))
        points.read_string(wheel.read(name).decode("utf-8"))
    targets = {
        value.partition(":")[0].replace(".", "/") for group in points.sections() for value in points[group].values()
    }

    assert set(points.sections()) == {"console_scripts", "pytest11", "stepgrant.commands", "stepgrant.testing"}
    assert [one for one in targets if f"{one}.py" not in inside and f"{one}/__init__.py" not in inside] == []


def test_sdist_holds_what_its_tests_and_lock_need(built: Built) -> None:
    with tarfile.open(built.sdist) as sdist:
        inside = {name.partition("/")[2] for name in sdist.getnames()}

    assert {"LICENSE", "Makefile", "README.md", "pyproject.toml", "requirements.lock", "tests/conftest.py"} <= inside
    assert not [name for name in inside if name.startswith((".venv", ".cache", ".stepgrant"))]


def test_base_install_brings_no_dependency_of_an_extra(base: Environment) -> None:
    listing = base.pip("list", "--format=json")
    installed = {canonicalize_name(one["name"]) for one in json.loads(listing.stdout)}
    extras = project()["project"]["optional-dependencies"]
    assert isinstance(extras, dict)
    foreign = {canonicalize_name(Requirement(text).name) for texts in extras.values() for text in texts} - {"stepgrant"}

    assert {"stepgrant", "httpx", "pyjwt", "cryptography", "msgspec"} <= installed
    assert not foreign & installed


@pytest.mark.parametrize("name", BROKER_IMPORTS)
def test_base_install_cannot_import(base: Environment, name: str) -> None:
    done = base.run("python", "-I", "-c", f"import {name}", cwd=base.folder)

    assert done.returncode == 1
    assert f"No module named '{name}'" in done.stderr


def test_base_install_imports_every_module_of_the_sdk(base: Environment) -> None:
    done = base.run("python", "-I", "-W", "error", "-c", IMPORT_ALL.format(skipped=NEEDS_MORE), cwd=base.folder)

    assert done.returncode == 0, done.stderr
    origin, count = done.stdout.split()
    assert Path(origin).is_relative_to(base.folder)
    assert int(count) > 1


def test_importing_the_sdk_loads_no_broker_module(base: Environment) -> None:
    """The broker's files are in the wheel, so only this shows that the SDK leaves them alone."""
    code = "import stepgrant, sys; print([name for name in sys.modules if name.startswith('stepgrant_')])"
    done = base.run("python", "-I", "-c", code, cwd=base.folder)

    assert done.stdout.strip() == "[]", done.stderr


def test_command_without_its_extra_says_what_to_install(base: Environment) -> None:
    done = base.run("stepgrant", "--help", cwd=base.folder)

    assert done.returncode != 0
    assert len((done.stdout + done.stderr).strip().splitlines()) == 1
    assert "stepgrant[cli]" in done.stdout + done.stderr


def test_version_is_the_same_everywhere(base: Environment, built: Built) -> None:
    code = "import stepgrant, importlib.metadata as m; print(stepgrant.__version__, m.version('stepgrant'))"
    done = base.run("python", "-I", "-c", code, cwd=base.folder)
    version = project()["project"]["version"]

    assert done.stdout.split() == [version, version]
    assert built.wheel.name.startswith(f"stepgrant-{version}-")


def test_every_extra_resolves_from_the_lock(built: Built, base: Environment) -> None:
    extras = project()["project"]["optional-dependencies"]
    assert isinstance(extras, dict)
    done = base.install("--dry-run", "--report", "-", f"{built.wheel}[{','.join(extras)}]")

    names = {canonicalize_name(one["metadata"]["name"]) for one in json.loads(done.stdout)["install"]}
    assert {"fastapi", "gordon-to-regorus", "hvac", "opa-python-client", "psycopg", "sqlmodel", "typer"} <= names


def test_new_project_is_governed_from_the_wheel(whole: Environment, tmp_path: Path) -> None:
    assert whole.run("stepgrant", "init", "project", cwd=tmp_path).returncode == 0
    project = tmp_path / "project"
    tested = whole.run("stepgrant", "policy", "test", cwd=project)
    (project / "files.py").write_text(TELL_FILES, encoding="utf-8")
    done = whole.run("stepgrant", "dev", "--port", "0", "--", "python", "files.py", cwd=project)

    assert tested.returncode == 0, tested.stderr
    assert done.returncode == 0, done.stderr
    python, *files = done.stdout.split()
    assert python == str(whole.folder / "bin" / "python")
    assert [Path(file).parent.name for file in files] == ["stepgrant", "stepgrant_broker", "stepgrant_policies"]
    assert [file for file in files if not Path(file).is_relative_to(whole.folder)] == []


@pytest.mark.usefixtures("demo")  # it starts here and is looked at below: two processors are enough for both
def test_sdk_tests_pass_on_the_base_install(base: Environment, tmp_path: Path) -> None:
    """The last one that uses `base`: it adds the test tools to the environment."""
    base.install(*TEST_TOOLS)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    # What a failure would say is not worth rewriting all modules, which nothing here has in its cache.
    done = base.run("pytest", "--assert=plain", "tests/sdk", cwd=tmp_path)

    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed in " in done.stdout.splitlines()[-1]


def test_demo_holds_from_the_wheel(demo: "subprocess.Popen[str]") -> None:
    out, errors = demo.communicate(timeout=DEMO_S + 20)

    assert errors == ""
    summary = json.loads(out)
    assert (summary["failed"], summary["ok"], demo.returncode) == ([], True, 0)
