"""What a user gets with `pip install stepgrant`: built here, installed offline in an empty environment, and used there.

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


@dataclass(frozen=True)
class Built:
    """The two files that a release consists of."""

    wheel: Path
    sdist: Path


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the base install and nothing else."""

    folder: Path

    def run(self, *command: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
        """Run a program of this environment, cut off from the checkout's own paths and settings."""
        full = [str(self.folder / "bin" / command[0]), *command[1:]]
        return subprocess.run(full, cwd=cwd, env=self.settings(), check=False, capture_output=True, text=True)

    @staticmethod
    def settings() -> dict[str, str]:
        """What of our environment a program of this one may see."""
        return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_", "PYTEST_"))}

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
    assert WHEELHOUSE.is_dir(), f"{WHEELHOUSE} is missing: run `make setup`"
    folder = tmp_path_factory.mktemp("base") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    environment = Environment(folder)
    environment.install(str(built.wheel))
    return environment


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


def test_sdk_tests_pass_on_the_base_install(base: Environment, tmp_path: Path) -> None:
    """Last in this file: it adds the test tools to the environment."""
    base.install(*TEST_TOOLS)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    # What a failure would say is not worth rewriting all modules, which nothing here has in its cache.
    done = base.run("pytest", "--assert=plain", "tests/sdk", cwd=tmp_path)

    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed in " in done.stdout.splitlines()[-1]
