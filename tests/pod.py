"""`docker` for tests of what `deploy/README.md` says to do with containers, where none can be run: programs instead.

    docker() { python tests/pod.py "$@"; }      # with PODS_STATE=<a folder>, and on the PATH: opa, bao, psql, stepgrant

- A service's command runs as a program of this machine, with the environment that a container would have (the image's,
  `env_file`, `environment`) and nothing of the caller's but where programs are.
- Paths are those of its container: each is looked up in the service's mounts and replaced by the file behind it. A path
  below `/` that no mount covers, and a mounted file that is not there, end it with an error, as they would a container.
- Services start after what they depend on, one-shot ones once in each command; one with a health check counts when that
  succeeds.
- What it cannot show: users and rights, read-only mounts, networks. PostgreSQL is one that runs already: `postgres`
  makes role and database in it. Commands and options that `deploy/README.md` does not use are errors.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import containers

PATIENCE_S: Final = 120.0
GLANCE_S: Final = 0.2
INHERITED: Final = ("PATH", "PYTHONPYCACHEPREFIX", "TESTS_OF_STEPGRANT")
ADMINISTRATOR: Final = ("PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGSSLMODE")
ABSOLUTE: Final = re.compile(r"(?<![\w:/.}])/[\w.-]+(?:/[\w.-]+)*")
DATA: Final = "/var/lib/stepgrant"
PROGRAMS: Final = re.compile(r"/(usr/)?bin/[\w.-]+")


class WrongError(Exception):
    """What a container runtime would refuse."""


class Service:
    """One service of the compose file, on this machine."""

    def __init__(self, name: str, said: dict[str, Any], secrets: dict[str, Any]) -> None:
        self.name = name
        self.said = said
        self.state = Path(os.environ["PODS_STATE"])
        self.process = self.state / f"{name}.pid"
        unnamed = containers.Mount(f"of-{name}", DATA, volume=True)
        self.mounts = {mount.target: self._behind(mount) for mount in [unnamed, *containers.mounts(said, secrets)]}

    def _behind(self, mount: containers.Mount) -> Path:
        if mount.volume:
            found = self.state / "volumes" / mount.source
            found.mkdir(parents=True, exist_ok=True)
            return found
        found = Path(substituted(mount.source))
        if not found.exists():
            raise WrongError(f"{self.name}: bind source path does not exist: {found}")
        return found

    @property
    def pid(self) -> int:
        """Of its process."""
        return int(json.loads(self.process.read_text(encoding="utf-8"))["pid"])

    @property
    def ours(self) -> bool:
        """Whether it runs the image that `deploy/Dockerfile` makes."""
        return containers.is_ours(self.said)

    def here(self, text: str) -> str:
        """`text` with the paths of the container replaced by those behind them."""

        def behind(found: re.Match[str]) -> str:
            path = found[0]
            for target, place in self.mounts.items():
                if path == target or path.startswith(target + "/"):
                    return f"{place}{path[len(target) :]}"
            if path == "/tmp" and "/tmp" in self.said.get("tmpfs", []):  # noqa: S108 - the container's
                return str(self.state)
            if path.startswith("/opt/stepgrant/"):
                return str(dockerfile().with_name(Path(path).name))
            if path == "/opa" or PROGRAMS.fullmatch(path):
                return Path(path).name
            raise WrongError(f"{self.name}: nothing is mounted at {path}")

        return ABSOLUTE.sub(behind, text)

    def environment(self) -> dict[str, str]:
        """What a process in it has."""
        kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
        files = [Path(substituted(name)).read_text(encoding="utf-8") for name in self.said.get("env_file", [])]
        image = containers.image_environment(dockerfile().read_text(encoding="utf-8")) if self.ours else {}
        image.pop("PATH", None)
        given = image | containers.service_environment(self.said, files)
        return kept | {name: self.here(value) for name, value in given.items()}

    def words(self) -> list[str]:
        """The command."""
        entry = self.said.get("entrypoint", ["stepgrant"] if self.ours else ["opa"] if self.name == "opa" else [])
        return [self.here(word.replace("$$", "$")) for word in [*entry, *self.said["command"]]]

    def run(self) -> None:
        """To its end, which must be a good one."""
        subprocess.run(self.words(), env=self.environment(), cwd=self.state, check=True)

    def start(self) -> None:
        """In the background, until it is healthy; anew if it runs with other settings."""
        given = self.environment()
        if self.process.exists():
            if json.loads(self.process.read_text(encoding="utf-8"))["environment"] == given:
                return
            self.stop()
        with (self.state / f"{self.name}.log").open("ab") as log:
            run = subprocess.Popen(self.words(), env=given, cwd=self.state, stdout=log, stderr=log)
        self.process.write_text(json.dumps({"pid": run.pid, "environment": given}), encoding="utf-8")
        _, *check = self.said["healthcheck"]["test"]
        end = time.monotonic() + PATIENCE_S
        check = [self.here(word) if word.startswith("/") else word for word in check]
        while subprocess.run(
            check, env=self.environment(), cwd=self.state, check=False, capture_output=True
        ).returncode:
            if run.poll() is not None or time.monotonic() > end:
                said = (self.state / f"{self.name}.log").read_text(encoding="utf-8")
                raise WrongError(f"{self.name} is not healthy ({' '.join(check)}):\n{said}")
            time.sleep(GLANCE_S)

    def stop(self) -> None:
        """End it."""
        pid = self.pid
        os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + PATIENCE_S
        while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
            time.sleep(GLANCE_S)
        self.process.unlink()

    def make_database(self) -> None:
        """What the image of PostgreSQL does with its variables."""
        given = self.environment() | {name: os.environ[name] for name in ADMINISTRATOR}
        name, password = given["POSTGRES_USER"], Path(given["POSTGRES_PASSWORD_FILE"]).read_text(encoding="utf-8")
        for text in (
            f"CREATE ROLE {name} LOGIN PASSWORD '{password.strip()}'",
            f"CREATE DATABASE {given['POSTGRES_DB']} OWNER {name} ENCODING 'UTF8' TEMPLATE template0",
        ):
            subprocess.run(["psql", "-q", "-d", "postgres", "-c", text], env=given, check=True)  # noqa: S607
        self.process.touch()


def substituted(text: str) -> str:
    """With `${NAME}` and `${NAME:?why}` replaced as compose does."""

    def value(found: re.Match[str]) -> str:
        if not os.environ.get(found[1]):
            raise WrongError(f"required variable {found[1]} is missing a value: {found[2]}")
        return os.environ[found[1]]

    return re.sub(r"\$\{(\w+)(?::\?([^}]*))?\}", value, text)


def dockerfile() -> Path:
    """Of the repository whose compose file is used."""
    return Path(os.environ["COMPOSE_FILE"]).with_name("Dockerfile")


class Pod:
    """The compose file."""

    def __init__(self) -> None:
        self.done: set[str] = set()
        self.said = containers.read_yaml(Path(os.environ["COMPOSE_FILE"]).read_text(encoding="utf-8"))
        # Whatever command: compose reads the settings of all services that take part.
        for service in self.said["services"].values():
            for name in service.get("env_file", []):
                if not Path(substituted(name)).exists():
                    raise WrongError(f"env file {substituted(name)} not found")

    def service(self, name: str) -> Service:
        return Service(name, self.said["services"][name], self.said["secrets"])

    def before(self, name: str) -> None:
        """Bring up what it depends on."""
        for other in self.said["services"][name].get("depends_on", {}):
            self.up(other)

    def up(self, name: str) -> None:
        """Bring it up after what it depends on, once."""
        if name in self.done:
            return
        self.before(name)
        self.done.add(name)
        match self.service(name), name:
            case _, "pod":
                return
            case service, "postgres":
                if not service.process.exists():
                    service.make_database()
            case service, _ if service.said["restart"] == "no":
                service.run()
            case service, _:
                service.start()

    def up_all(self) -> None:
        """Bring up what no profile keeps back."""
        for name, service in self.said["services"].items():
            if "profiles" not in service:
                self.up(name)

    def restart(self, names: list[str]) -> None:
        """End them, then start them."""
        for name in names:
            self.service(name).stop()
        for name in names:
            self.service(name).start()

    def compose(self, words: list[str]) -> None:
        """`docker compose ...`."""
        match words:
            case ["up", "-d"]:
                self.up_all()
            case ["run", "--rm", "-T", name]:
                self.before(name)
                self.service(name).run()
            case ["exec", "-T", "-e", setting, name, *command]:
                self.inside(name, command, dict([setting.split("=", 1)]))
            case ["exec", "-T", name, *command]:
                self.inside(name, command, {})
            case ["restart", *names]:
                self.restart(names)
            case ["cp", source, target]:
                name, _, path = source.partition(":")
                shutil.copy(self.service(name).here(path), target)
            case _:
                raise WrongError(f"docker compose {shlex.join(words)}")

    def inside(self, name: str, command: list[str], more: dict[str, str]) -> None:
        """A command in a container that runs, where its image says that one works."""
        service = self.service(name)
        os.kill(service.pid, 0)
        given = service.environment() | {key: service.here(value) for key, value in more.items()}
        subprocess.run(command, env=given, cwd=service.here(DATA), check=True)


def docker(words: list[str]) -> None:
    """`docker ...`."""
    match words:
        case ["build", "-f", file, "-t", _, context]:
            if wrong := containers.docker_findings(Path(file).read_text(encoding="utf-8"), Path(context)):
                raise WrongError("; ".join(wrong))
        case ["run", "--rm", "-u", _, "-v", mount, "-w", place, _, *command]:
            source, _, target = mount.partition(":")
            given = {name: os.environ[name] for name in INHERITED if name in os.environ}
            subprocess.run(["stepgrant", *command], env=given, cwd=place.replace(target, source), check=True)  # noqa: S607
        case ["run", "--rm", "-u", _, "--entrypoint", "chown" | "rm" as program, "-v", mount, _, option, *rest]:
            source, _, target = mount.partition(":")
            paths = [Path(source + word.removeprefix(target)) for word in rest if word.startswith(target)]
            if len(paths) != 1 or not paths[0].exists():
                raise WrongError(f"{program} {option} {shlex.join(rest)}: no such file or folder")
            if program == "rm":
                paths[0].unlink()
        case ["compose", *rest]:
            Pod().compose(rest)
        case _:
            raise WrongError(f"docker {shlex.join(words)}")


if __name__ == "__main__":
    try:
        docker(sys.argv[1:])
    except WrongError as wrong:
        sys.exit(f"docker: {wrong}")
    except subprocess.CalledProcessError as failed:
        sys.exit(failed.returncode or 1)
