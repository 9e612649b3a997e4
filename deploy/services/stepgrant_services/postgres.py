"""PostgreSQL: a cluster of its own, TCP only, SCRAM passwords, UTF-8.

Root cannot run it; root starts it as the user `postgres`, else `nobody`, who owns the data folder and nothing else.
"""

import contextlib
import ctypes
import os
import pwd
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final
from urllib.parse import quote

from stepgrant_services.errors import ServiceError
from stepgrant_services.keeper import as_user
from stepgrant_services.processes import started_at
from stepgrant_services.server import Server

OTHER_USERS: Final = ("postgres", "nobody")
IPC_RMID: Final = 0
SQL_S: Final = 30.0
# A restart right after a kill: the backends of the killed server have not all noticed yet.
NOT_YET: Final = ("shared memory block", 'lock file "postmaster.pid" already exists')


def give_back_memory(data: Path) -> None:
    """Remove the kernel's shared memory segment that a killed server of this data folder has left."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        segment = int((data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[6].split()[1])
        ctypes.CDLL(None).shmctl(segment, IPC_RMID, None)


class PostgresServer(Server):
    """A server for databases of tests. `options` are settings, such as `{"max_connections": "50"}`.

    `stop()` is a fast shutdown, `stop(signal.SIGQUIT)` an immediate one, `kill()` a crash; `start()` recovers.
    `model`, where a program sets it, is a folder made by `make_model`: new servers are copies of it.
    """

    name: ClassVar[str] = "postgres"
    model: ClassVar[Path | None] = None
    end_signal: ClassVar[int] = signal.SIGINT
    abandon_signal: ClassVar[int] = signal.SIGQUIT

    def __init__(
        self,
        *,
        options: Mapping[str, str] | None = None,
        binaries: Path | None = None,
        folder: Path | None = None,
    ) -> None:
        super().__init__(binaries / "postgres" if binaries else None, folder=folder)
        self.options = dict(options or {})
        self.user = "postgres"
        self.data = self.folder / "data"
        self.password_file = self.folder / "password"
        self.pgpass_file = self.folder / "pgpass"  # as libpq reads it (PGPASSFILE)

    @property
    def password(self) -> str:
        """The superuser's password (letters and digits)."""
        return self.password_file.read_text(encoding="ascii")

    def url(self, database: str = "postgres", *, user: str | None = None, password: str | None = None) -> str:
        """`postgresql://USER:PASSWORD@127.0.0.1:PORT/DATABASE`; without `user`, the superuser's."""
        name, word = (user, password or "") if user is not None else (self.user, self.password)
        return f"postgresql://{quote(name, safe='')}:{quote(word, safe='')}@{self.host_port}/{quote(database, safe='')}"

    @classmethod
    def make_model(cls, folder: Path, *, binaries: Path | None = None) -> None:
        """A cluster that never ran, in this empty folder, which must exist: to copy one takes a tenth of an `initdb`.

        Its copies have one superuser's password.
        """
        cls(binaries=binaries, folder=folder)._prepare()  # noqa: SLF001  (its own class)

    def create_database(self, name: str | None = None) -> str:
        """A new empty database (without `name`, of a new name); its URL as superuser."""
        name = name or f"test_{secrets.token_hex(6)}"
        # A copy of files needs two checkpoints, which cost nothing where none is waited for; a log of pages costs more.
        strategy = " strategy file_copy" if self.options.get("fsync") == "off" else ""
        self.sql(f'create database "{name}"{strategy}')
        return self.url(name)

    def sql(self, text: str, database: str = "postgres") -> list[str]:
        """The rows that `text` gives, columns separated by `|`, as the superuser.

        Raises:
            ServiceError: PostgreSQL refused, with its words.
        """
        done = self._psql(text, database)
        if done.returncode:
            raise ServiceError(f"postgres refused: {done.stderr.strip()}")
        return done.stdout.splitlines()

    def leftovers(self) -> list[str]:
        """The logins that Vault made here and nobody removed."""
        return [f"role {name}" for name in self.sql("select rolname from pg_roles where rolname like 'v-%'")]

    def close(self) -> None:
        """As every server's; also takes back the kernel's memory that a killed one leaves."""
        self.stop()
        give_back_memory(self.data)
        super().close()

    # --- inside ----------------------------------------------------------------------------------------------------

    def _psql(self, text: str, database: str) -> "subprocess.CompletedProcess[str]":
        # A psql of a developer reads ~/.psqlrc and PG* settings; this one does not.
        program = str(self.binary.with_name("psql"))
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", self.user, "-d", database]
        return subprocess.run(
            [program, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *where, "-c", text],
            env={"PATH": os.environ.get("PATH", ""), "PGPASSWORD": self.password, "PGCONNECT_TIMEOUT": "5"},
            capture_output=True,
            text=True,
            check=False,
            timeout=SQL_S,
            stdin=subprocess.DEVNULL,
        )

    def _user(self) -> tuple[int, int] | None:
        if os.geteuid() != 0:
            return None
        for name in OTHER_USERS:
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return entry.pw_uid, entry.pw_gid
        raise ServiceError("PostgreSQL does not run as root, and there is no user `postgres` or `nobody` to run it as")

    def _prepare(self) -> None:
        if self.model is not None and self.model != self.folder and not self.data.exists():
            self._copy(self.model)
        if not self.password_file.exists():
            self.password_file.touch(mode=0o600)
            self.password_file.write_text(secrets.token_hex(16), encoding="ascii")
        self._secrets.append(self.password)
        if self.data.exists():
            return
        self.data.mkdir(mode=0o700)
        user = self._user()
        if user is not None:
            os.chown(self.data, *user)
            self.folder.chmod(0o711)  # to be passed through, not read
        for_once = self.folder / "password-for-initdb"
        for_once.touch(mode=0o600)
        for_once.write_text(self.password, encoding="ascii")
        if user is not None:
            os.chown(for_once, *user)
        try:
            if self._initdb(for_once, "C.UTF-8") and self._initdb(for_once, "C"):
                raise ServiceError(f"initdb failed:\n{self.tail()}")
        finally:
            for_once.unlink()

    def _copy(self, model: Path) -> None:
        """Its cluster and password."""
        shutil.copyfile(model / "password", self.password_file)
        self.password_file.chmod(0o600)
        shutil.copytree(model / "data", self.data)
        self.folder.chmod(0o711)
        user = self._user()
        if user is not None:
            for path in (self.data, *self.data.rglob("*")):
                os.chown(path, *user)

    def _initdb(self, password: Path, locale: str) -> int:
        """Its exit code; `password` is a file."""
        fixed = ["-U", self.user, "-A", "scram-sha-256", "-E", "UTF8", "--no-sync", "--no-instructions"]
        where = ["-D", str(self.data), f"--locale={locale}", f"--pwfile={password}"]
        self.log.touch(mode=0o600)
        with self.log.open("ab") as log:
            done: subprocess.CompletedProcess[bytes] = subprocess.run(
                [str(self.binary.with_name("initdb")), *where, *fixed],
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=False,
                timeout=SQL_S * 4,
                **as_user(self._user()),
            )
        return done.returncode

    def _command(self) -> list[str]:
        self.pgpass_file.touch(mode=0o600)
        self.pgpass_file.write_text(f"127.0.0.1:{self.port}:*:{self.user}:{self.password}\n", encoding="ascii")
        fixed = {"listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": ""}
        settings = [part for name, value in {**self.options, **fixed}.items() for part in ("-c", f"{name}={value}")]
        return [str(self.binary), "-D", str(self.data), *settings]

    def _answers(self) -> bool:
        try:
            return self._psql("select 1", "postgres").returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def _recovers(self, tail: str) -> bool:
        held = self.data / "postmaster.pid"
        with contextlib.suppress(OSError, IndexError, ValueError):
            # A killed server that nobody has waited for yet still has its number, which PostgreSQL takes for a life.
            if not started_at(int(held.read_text(encoding="utf-8").splitlines()[0])):
                held.unlink()
        return any(words in tail for words in NOT_YET)
