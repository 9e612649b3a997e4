"""OPA, Vault and PostgreSQL on loopback, for trying out.

  python deploy/services find      [SERVICE ...]   where the binaries are
  python deploy/services provision [SERVICE ...]   build or fetch those that are not found (--quick: not Vault)
  python deploy/services up        [SERVICE ...]   start them (all that are not running yet) and say where they are
  python deploy/services status    [--json]        what runs
  python deploy/services env                       the same as variables: eval "$(python3 deploy/services env)"
  python deploy/services down      [SERVICE ...]   stop them and remove their data

SERVICE is opa, vault or postgres; without one, all three. `find` and `provision` know `logreader` too, which tests of
the log need; `provision` makes it beside the three, and without Go only says so. The servers of `up` keep nothing:
`down` removes their folders.
Exit code 0; 1 if something is missing or failed, with one line on stderr for each.
"""

import argparse
import contextlib
import fcntl
import json
import os
import shlex
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from stepgrant_services.binaries import find
from stepgrant_services.building import provision
from stepgrant_services.errors import ServiceError, ServiceMissing
from stepgrant_services.opa import OpaServer
from stepgrant_services.postgres import PostgresServer
from stepgrant_services.server import Server
from stepgrant_services.vault import VaultServer

SERVICES: Final = ("opa", "vault", "postgres")
SLOW: Final = ("vault",)
FOR_TESTS: Final = ("logreader",)


def say(line: str) -> None:
    """A line for people, on stderr: stdout holds only results."""
    print(line, file=sys.stderr, flush=True)


def default_home() -> Path:
    """Where the servers of `up` live: below the temporary folder, because PostgreSQL of root must be able to enter."""
    return Path(tempfile.gettempdir()) / f"stepgrant-services-{os.geteuid()}"


@contextlib.contextmanager
def locked(home: Path) -> Iterator[None]:
    """The home, made if need be, with one `up` or `down` at a time.

    Raises:
        ServiceError: the folder belongs to somebody else, who could have put anything there.
    """
    with contextlib.suppress(FileExistsError):
        home.mkdir(mode=0o711, parents=True)
    found = home.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise ServiceError(f"{home} is not a folder that only you can write to; name another with --home")
    with (home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def server(service: str, home: Path) -> Server:
    """The detached server of `home`, running or not."""
    folder = home / service
    folder.mkdir(mode=0o700, exist_ok=True)
    made: Mapping[str, Callable[..., Server]] = {"opa": OpaServer, "vault": VaultServer, "postgres": PostgresServer}
    return made[service](folder=folder)


def told(one: Server) -> dict[str, str]:
    """What a person needs to use a running server; a secret is named by its file."""
    told = {"service": one.name, "pid": str(one.pid), "log": str(one.log)}
    if isinstance(one, OpaServer):
        return told | {"url": one.url}
    if isinstance(one, VaultServer):
        return told | {"url": one.addr, "root_token_file": str(one.root_token_file)}
    if isinstance(one, PostgresServer):
        return told | {
            "url": f"postgresql://{one.user}@{one.host_port}/postgres",
            "password_file": str(one.password_file),
        }
    raise TypeError(one)


def find_them(services: list[str]) -> int:
    """Print each binary with its version; 1 if one is missing."""
    missing = 0
    for service in services:
        try:
            found = find(service)
        except ServiceMissing as error:
            missing = 1
            say(f"{service}: {error}")
        else:
            print(f"{service} {found.version} {found.path} ({found.source})")
    return missing


def provision_them(services: list[str], *, quick: bool) -> int:
    """Make each binary that is not found. `quick`: what takes long, or cannot be made here, is only told about."""
    missing = 0
    for service in services:
        try:
            found = find(service) if quick and service in SLOW else provision(service, say)
        except ServiceError as error:
            missing = missing if quick or service in FOR_TESTS else 1
            say(f"{service}: {error}")
        else:
            say(f"{service}: {found.version} ({found.source})")
    return missing


def up(services: list[str], home: Path) -> int:
    """Start what does not run, and print where everything is."""
    with locked(home):
        for service in services:
            one = server(service, home)
            try:
                one.start()
            except BaseException:
                one.close()
                raise
            print(" ".join(f"{name}={value}" for name, value in told(one).items()), flush=True)
    return 0


def down(services: list[str], home: Path) -> int:
    """Stop what runs in this home, and remove its data. What else runs on this machine is not touched."""
    if not home.exists():
        return 0
    with locked(home):
        for service in services:
            one = server(service, home)
            was = f"process {one.pid} ended" if one.alive else "was not running"
            one.close()
            print(f"{service}: {was}", flush=True)
    if not [path for path in home.iterdir() if path.name != ".lock"]:
        shutil.rmtree(home)
    return 0


def status(services: list[str], home: Path, *, as_json: bool) -> int:
    """Print what runs; 1 if not all of `services` do."""
    known = [server(service, home) for service in services if (home / service / "process.json").exists()]
    alive = [told(one) for one in known if one.alive]
    if as_json:
        print(json.dumps(alive, indent=2))
    else:
        for one in alive:
            print(" ".join(f"{name}={value}" for name, value in one.items()))
        for service in sorted(set(services) - {one["service"] for one in alive}):
            print(f"service={service} not running")
    return 0 if len(alive) == len(services) else 1


def env(home: Path) -> int:
    """Print shell lines that export where the running servers are; secrets only as files."""
    for service in SERVICES:
        said: dict[str, object] = {}
        one = server(service, home) if (home / service / "process.json").exists() else None
        if isinstance(one, OpaServer) and one.alive:
            said = {"OPA_URL": one.url}
        elif isinstance(one, VaultServer) and one.alive:
            said = {"VAULT_ADDR": one.addr, "VAULT_TOKEN_FILE": one.root_token_file}
        elif isinstance(one, PostgresServer) and one.alive:
            said = {"PGHOST": "127.0.0.1", "PGPORT": one.port, "PGUSER": one.user, "PGDATABASE": "postgres"}
            said["PGPASSFILE"] = one.pgpass_file
        for name, value in said.items():
            print(f"export {name}={shlex.quote(str(value))}")
    return 0


def main(arguments: list[str]) -> int:
    """Run one command; its exit code."""
    parser = argparse.ArgumentParser(prog="services", usage=__doc__, add_help=False)
    parser.add_argument("command", choices=["find", "provision", "up", "status", "env", "down"])
    parser.add_argument("service", nargs="*")
    parser.add_argument("--home", type=Path, default=default_home())
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    programs = given.command in {"find", "provision"}
    services = given.service or [*SERVICES, *(FOR_TESTS if given.command == "provision" else ())]
    if unknown := sorted(set(services) - {*SERVICES, *(FOR_TESTS if programs else ())}):
        parser.error(f"no service {', '.join(unknown)}")
    commands: dict[str, Callable[[], int]] = {
        "find": lambda: find_them(services),
        "provision": lambda: provision_them(services, quick=given.quick),
        "up": lambda: up(services, given.home),
        "status": lambda: status(services, given.home, as_json=given.json),
        "env": lambda: env(given.home),
        "down": lambda: down(services, given.home),
    }
    # A build that is told to stop must end its compilers and remove what is half made.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        return commands[given.command]()
    except ServiceError as error:
        say(str(error))
        return 1
