"""Where the kill matrix runs: a broker's data on either store, its tools on tokens or on database logins, all real.

    with lab(nursery, folder, "postgres", "vault-database", Services(vault, postgres)) as made: ...

Nothing runs in a lab when it is made but its target; `faults.tales` starts brokers and agents in it.
"""

from __future__ import annotations

import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from checker.evidence import Evidence
from checker.reading import read_lines, read_postgres, read_sqlite
from faults.nursery import QUICK, Nursery
from faults.processes import SETTINGS, Line, Place, Target
from logins import broker_token
from stepgrant_broker.issuers.vault_database import DatabaseConfig
from stepgrant_broker.testing import start
from vaulted import mounted, unique

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer, VaultServer

StoreName = Literal["sqlite", "postgres"]
IssuerName = Literal["jwt", "vault-database"]
STORES: Final[tuple[StoreName, ...]] = ("sqlite", "postgres")
ISSUERS: Final[tuple[IssuerName, ...]] = ("jwt", "vault-database")

LEASE_MS: Final = 3000
SWEEP_MS: Final = 200
TTL_S: Final = 12
"""A login that nobody can name any more is waited out: it has to be short here."""
EFFECTS: Final = {
    "stock.read": "read", "note.put": "idempotent", "card.charge": "once", "news.publish": "once",
}  # fmt: skip
ASKING: Final = "news.publish"
MIGRATING: Final = threading.Lock()
"""Alembic has one context for a process: no two labs may migrate at once."""

TABLE: Final = """
CREATE TABLE effects (
    id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(),
    login text NOT NULL DEFAULT session_user, run text, step text, attempt int, epoch int, key text,
    tool text, answer text)"""
CREATION: Final = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE "
BOOK: Final = """
SELECT json_build_object('did', tool, 'answer', answer, 'run', run, 'step', step, 'attempt', attempt, 'epoch', epoch,
    'key', key, 'login', login, 'at', (extract(epoch FROM at) * 1000)::bigint) FROM effects ORDER BY id"""
ALIVE: Final = """
SELECT json_build_object('login', rolname, 'alive', true, 'sessions', (SELECT count(*) FROM pg_stat_activity
    WHERE usename = rolname), 'at', (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
FROM pg_roles WHERE rolname LIKE 'v-%' AND pg_has_role(rolname, '{group}', 'member')"""


@dataclass(frozen=True)
class Services:
    """The real servers that labs may use; `None` where no lab does."""

    vault: VaultServer | None = None
    postgres: PostgresServer | None = None


@dataclass(frozen=True)
class Logins:
    """A mount of Vault that makes logins for one database of its own, and what both say of them."""

    vault: VaultServer
    postgres: PostgresServer
    config: DatabaseConfig
    group: str

    @property
    def role(self) -> str:
        """What policy names in `params.role`."""
        return self.config.roles[0]

    def sql(self, text: str) -> list[str]:
        """Ask the database as its owner."""
        return self.postgres.sql(text, str(self.config.database))

    def book(self) -> list[Line]:
        """What was done, as the database wrote it down."""
        return [json.loads(row) for row in self.sql(BOOK)]

    def alive(self) -> list[Line]:
        """The logins of this mount that PostgreSQL still has."""
        return [json.loads(row) for row in self.sql(ALIVE.format(group=self.group))]

    def leases(self) -> list[str]:
        """The leases of this mount that Vault still knows."""
        return self.vault._leases(f"{self.config.mount}/creds/")

    def settings(self, folder: Path) -> dict[str, Any]:
        """Those of a broker that may use it, with a session of least rights."""
        issuers = folder / "issuers.toml"
        issuers.write_text(
            f'[issuer.{self.config.name}]\nkind = "vault-database"\nmount = "{self.config.mount}"\n'
            f'roles = ["{self.role}"]\nhost = "{self.config.host}"\nport = {self.config.port}\n'
            f'database = "{self.config.database}"\nmax_ttl_s = {self.config.max_ttl_s}\n'
        )
        token = broker_token(self.vault, self.config.broker_rules(), folder)
        return {
            "vault_addr": self.vault.addr, "vault_auth": "token", "vault_token_file": str(token),
            "issuers_file": str(issuers),
        }  # fmt: skip


def make_logins(vault: VaultServer, postgres: PostgresServer, ttl_s: int = TTL_S) -> Logins:
    """A database with the table `effects`, and a role of Vault whose logins may write there."""
    database = postgres.create_database().rpartition("/")[2]
    group = f"matrix_{secrets.token_hex(6)}"
    postgres.sql(
        f"{TABLE}; CREATE ROLE {group} NOLOGIN; GRANT SELECT, INSERT ON effects TO {group};"
        f"GRANT USAGE ON SEQUENCE effects_id_seq TO {group}",
        database,
    )
    host, _, port = postgres.host_port.rpartition(":")
    config = DatabaseConfig(
        name=unique("matrix-db"), mount=mounted(vault, "database"), roles=("matrix-tool",), max_ttl_s=ttl_s,
        token_role="stepgrant", host=host, port=int(port), database=database,
    )  # fmt: skip
    url = f"postgresql://{{{{username}}}}:{{{{password}}}}@{postgres.host_port}/{database}?sslmode=disable"
    vault.request("POST", f"{config.mount}/config/app", {
        "plugin_name": "postgresql-database-plugin", "connection_url": url, "allowed_roles": ["*"],
        "username": postgres.user, "password": postgres.password, "password_authentication": "scram-sha-256",
    })  # fmt: skip
    vault.request("POST", f"{config.mount}/roles/{config.roles[0]}", {
        "db_name": "app", "default_ttl": ttl_s, "max_ttl": ttl_s,
        "creation_statements": [
            CREATION + group
        ],
        "revocation_statements": [
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}'",
            'DROP ROLE IF EXISTS "{{name}}"',
        ],
    })  # fmt: skip
    vault.request("POST", "auth/token/roles/stepgrant", {
        "orphan": True, "renewable": False, "token_no_default_policy": True, "token_type": "service",
        "allowed_policies_glob": ["stepgrant.*"], "token_explicit_max_ttl": 400,
    })  # fmt: skip
    for name, text in config.vault_policies().items():
        vault.request("PUT", f"sys/policies/acl/{name}", {"policy": text})
    return Logins(vault, postgres, config, group)


def policy_of(target: str, logins: Logins | None) -> dict[str, Any]:
    """The starter policy's settings: the agent `worker` may use the four tools, and is asked about for one."""
    given: dict[str, Any] = {"audience": target}
    if logins is not None:
        given = {"issuer": logins.config.name, "params": {"role": logins.role}, "ttl": logins.config.max_ttl_s}
    tools: dict[str, dict[str, Any]] = {name: {"effect": effect, **given} for name, effect in EFFECTS.items()}
    if logins is not None:  # a hook is never handed its tool's login unless a line of its own says so
        tools |= {f"{name}.reconcile": {"effect": "read", **given} for name in EFFECTS if EFFECTS[name] == "once"}
    tools[ASKING]["ask"] = True
    return {**SETTINGS, "agents": {"worker": {"tools": tools}}}


@dataclass
class Lab:
    """One broker's data and surroundings."""

    nursery: Nursery
    folder: Path
    store: StoreName
    url: str
    settings: dict[str, Any]
    policy: dict[str, Any]
    agent_key: Path
    operator: str = field(repr=False)
    target: Target | None = None
    logins: Logins | None = None
    database_url: str | None = field(default=None, repr=False)

    def order(self, failpoints: str, log: Path) -> dict[str, Any]:
        """What the nursery needs to start its broker."""
        return {
            "settings": self.settings, "policy": self.policy, "failpoints": failpoints, "log": str(log),
            "obey_modes": False,
        }  # fmt: skip

    def evidence(self, run: str | None = None) -> Evidence:
        """What the database holds of a run (or of all), with the target's book."""
        if self.database_url is not None:
            read = read_postgres(self.database_url, run)
        else:
            read = read_sqlite(self.folder / "broker" / "stepgrant.db", run)
        books = self.book() if run is None else [line for line in self.book() if line.get("run") == run]
        return read.beside(books=[*books, *(self.logins.alive() if self.logins is not None else ())])

    def book(self) -> list[Line]:
        """What the target, or the database, wrote down itself."""
        if self.logins is not None:
            return self.logins.book()
        return [dict(line) for line in read_lines(self.target.path)] if self.target is not None else []

    def alive(self) -> list[str]:
        """The logins that are alive: leases of Vault, roles of PostgreSQL."""
        if self.logins is None:
            return []
        return [*self.logins.leases(), *(str(one) for one in self.logins.alive())]

    def tokens(self, runs: Sequence[str]) -> list[str]:
        """The tokens of Vault that could still make a login for one of these runs."""
        if self.logins is None:
            return []
        return [one for one in self.logins.vault._tokens() if any(run in one for run in runs)]


def until_none(look: Callable[[], Sequence[str]], patience_s: float, pause_s: float = 0.1) -> Sequence[str]:
    """Wait until there is nothing; what still is there when there is no more patience. Pauses grow up to five times."""
    end, pause = time.monotonic() + patience_s, pause_s
    while (left := look()) and time.monotonic() < end:
        time.sleep(pause)
        pause = min(1.2 * pause, 5 * pause_s)
    return left


@contextmanager
def lab(
    nursery: Nursery, folder: Path, store: StoreName, issuer: IssuerName, services: Services, **more: object
) -> Iterator[Lab]:
    """A lab of this kind in this (new) folder. `more`: settings of the broker."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        settings: dict[str, Any] = {"lease_ms": LEASE_MS, "sweep_ms": SWEEP_MS, **QUICK, **more}
        database_url = None
        if store == "postgres":
            database_url = _needed(services.postgres, "PostgreSQL").create_database()
            settings["database_url"] = database_url
        logins = None
        if issuer == "vault-database":
            logins = make_logins(_needed(services.vault, "Vault"), _needed(services.postgres, "PostgreSQL"))
            settings |= logins.settings(folder)
        place = Place.free()
        stack.callback(place.socket.close)
        policy = policy_of(place.url, logins)
        keys, operator = _enrolled(folder, settings, policy, place.url)
        port = _port(stack)
        url = f"http://127.0.0.1:{port}"
        settings |= {"data_dir": str(folder / "broker"), "port": port, "public_url": url}
        target = stack.enter_context(place.target(url, keys["target"], folder / "book"))
        yield Lab(
            nursery, folder, store, url, settings, policy, keys["worker"], operator,
            target if logins is None else None, logins, database_url,
        )  # fmt: skip


def _needed(service: Any, name: str) -> Any:  # noqa: ANN401 - one of the servers
    if service is None:
        raise ValueError(f"this lab needs {name}")
    return service


def _enrolled(
    folder: Path, settings: Mapping[str, Any], policy: dict[str, Any], target: str
) -> tuple[dict[str, Path], str]:
    """Make the broker's data: the key files of agent and target, and a person's token."""
    given = {name: value for name, value in settings.items() if name != "lease_ms"}
    with MIGRATING, start(folder / "broker", settings=policy, **given) as host:
        keys = {
            "target": host.enroll("target", audiences=[target]),
            "worker": host.enroll("worker", agents=["worker"]),
        }
        return keys, host.operator("Olga")


def _port(stack: ExitStack) -> int:
    """A port for brokers that come one after the other: bound but not listening, nobody else can take it meanwhile."""
    reserved = stack.enter_context(socket.socket())
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    return int(reserved.getsockname()[1])
