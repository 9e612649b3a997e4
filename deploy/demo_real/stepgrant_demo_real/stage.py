"""The set of the real demo: three services, two brokers behind a gate, a database behind another, one agent's key.

    folder/broker/     the brokers' keys
    folder/policy/     the starter policy with this demo's settings; folder/opa/ the bundle that OPA loads
    folder/keys/       key files of the workload and of people, and Vault's secret id, mode 0600
    folder/logs/       what each process said, and Vault's audit log

Vault, PostgreSQL and OPA have folders of their own, made and removed by `deploy/services`.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import stepgrant_demo_real
from stepgrant.cli.cmd_workloads import enroll_with_new_key
from stepgrant.cli.command import Cli
from stepgrant_broker.demo.checks import Broken
from stepgrant_broker.demo.processes import Child
from stepgrant_broker.demo.stage import LEASE_MS, LEEWAY_MS, LOGS, Stage, clean_environment, free_addresses
from stepgrant_broker.policy.bundle import SETTINGS, read_directory, starter_files
from stepgrant_broker.policy.opa_bundle import opa_bundle
from stepgrant_demo_real import vaulting
from stepgrant_demo_real.gate import Gate, listen
from stepgrant_demo_real.witness import Witness, make_owned_database
from stepgrant_services import OpaServer, PostgresServer, VaultServer

AGENT: Final = "provisioner"
RUN_KEY: Final = "account-for-acme"
FOLDERS: Final = ("broker", "policy", "opa", "keys", LOGS, "evidence")
HOME: Final = Path(stepgrant_demo_real.__file__).resolve().parent
REPLICAS: Final = 2
STORE: Final = "broker"
"""The brokers' database, and the role that owns it and nothing else."""


@dataclass
class RealStage(Stage):
    """Everything that runs, and the ways to look at it."""

    agent: str = AGENT
    run_key: str = RUN_KEY
    brokers: list[Child] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    opa: OpaServer = field(init=False)
    vault: VaultServer = field(init=False)
    postgres: PostgresServer = field(init=False)
    witness: Witness = field(init=False)
    before_brokers: Gate = field(init=False)
    before_database: Gate = field(init=False)
    store_url: str = ""
    store_password: str = field(default_factory=vaulting.new_password, repr=False)
    maker_password: str = field(default_factory=vaulting.new_password, repr=False)

    def raise_curtain(self, stack: ExitStack) -> None:
        """Start everything; `stack` ends the services and gates. Raises `Broken`, and what the services raise."""
        for name in FOLDERS:
            (self.folder / name).mkdir(mode=0o700)
        self._start_services(stack)
        self._set_up_database(stack)
        self._set_up_vault()
        self._start_brokers(stack)
        cli = Cli(client_file=self.key_file("ops"))
        enroll_with_new_key(cli, self.agent, agents=[self.agent], audiences=[], path=self.key_file(self.agent))

    def _start_services(self, stack: ExitStack) -> None:
        """All three at once; each waits mostly for its disk."""
        self.postgres = PostgresServer(options={"log_connections": "on"})
        self.vault = VaultServer(durable=True)
        self.opa = OpaServer(self._policy_bundle(), bundle=True)
        services = (self.postgres, self.vault, self.opa)
        for one in services:
            stack.callback(one.close)
        with ThreadPoolExecutor(len(services)) as pool:
            for started in [pool.submit(one.start) for one in services]:
                started.result()
        self.settings |= {"POLICY_ENGINE": "opa", "OPA_URL": self.opa.url}

    def _set_up_database(self, stack: ExitStack) -> None:
        self.store_url = self.postgres.url(STORE, user=STORE, password=self.store_password)
        make_owned_database(self.postgres.url(), STORE, self.store_password)
        self.witness = stack.enter_context(Witness(self.postgres.create_database("app")))
        self.witness.build(self.maker_password)
        self.before_database = stack.enter_context(Gate("database", listen(), [self.postgres.port]))

    def _set_up_vault(self) -> None:
        issuers = self.folder / "issuers.toml"
        vaulting.issuers_file(issuers, self.before_database.port)
        database = f"127.0.0.1:{self.postgres.port}/app"
        vaulting.set_up_database(self.vault, database, self.maker_password, self.audit_file)
        setup = self.local(
            *("vault", "setup", "--addr", self.vault.addr, "--token-file", str(self.vault.root_token_file)),
            *("--issuers", str(issuers), "--transit", "--secret-id-file", str(self.secret_id_file)),
        )
        if setup.process.returncode != 0:
            raise Broken(f"stepgrant vault setup failed; {setup.last_words()}")
        self.settings |= {
            "VAULT_ADDR": self.vault.addr,
            "VAULT_ROLE_ID": vaulting.broker_role_id(self.vault),
            "VAULT_SECRET_ID_FILE": str(self.secret_id_file),
            "ISSUERS_FILE": str(issuers),
            "SIGNER": "transit",
        }

    def _policy_bundle(self) -> Path:
        policy = self.folder / "policy"
        files = {**starter_files(), SETTINGS: (HOME / "policy.json").read_bytes()}
        for path, text in files.items():
            file = policy / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text)
        bundle = self.folder / "opa" / "policy.tar.gz"
        bundle.write_bytes(opa_bundle(read_directory(policy)))
        self.settings["POLICY_DIR"] = str(policy)
        return bundle

    def _start_brokers(self, stack: ExitStack) -> None:
        ports = [int(address.rpartition(":")[2]) for address in free_addresses(REPLICAS)]
        self.before_brokers = stack.enter_context(Gate("brokers", listen(), ports))
        self.url = self.before_brokers.url
        self.settings |= {
            "DATA_DIR": str(self.folder / "broker"),
            "DATABASE_URL": self.store_url,
            "PUBLIC_URL": self.url,
            "LEASE_MS": str(LEASE_MS),
            "LEEWAY_MS": str(LEEWAY_MS),
            "SWEEP_MS": "200",
        }
        first = [sys.executable, "-m", "stepgrant_broker.demo.broker", str(self.folder / "keys")]
        for number, port in enumerate(ports, 1):
            command = first if number == 1 else [sys.executable, "-m", "stepgrant.cli.main", "serve"]
            child = self.processes.start(f"broker-{number}", command, self.broker_environment(port))
            self.brokers.append(child)
            self.await_answer(child, f"http://127.0.0.1:{port}/readyz")

    def broker_environment(self, port: int = 0) -> dict[str, str]:
        """The settings of a broker, as its environment."""
        settings = self.settings | {"PORT": str(port)}
        return clean_environment({f"STEPGRANT_BROKER_{name}": value for name, value in settings.items()})

    def start_agent(self, name: str, role: str = "agent", *arguments: str, run_key: str | None = None) -> Child:
        """Start an agent process. It gets the gate's address and its workload's key file, and nothing else."""
        more = {
            "STEPGRANT_URL": self.url,
            "STEPGRANT_WORKLOAD_KEY": str(self.key_file(self.agent)),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(HOME.parent), os.environ.get("PYTHONPATH")))),
        }
        command = [sys.executable, "-m", f"stepgrant_demo_real.{role}", run_key or self.run_key, *arguments]
        return self.processes.start(name, command, clean_environment(more))

    def local(self, *words: str) -> Child:
        """Run one `stepgrant` command line as the brokers' operator on their host, to its end."""
        command = [sys.executable, "-m", "stepgrant.cli.main", *words]
        child = self.processes.start(f"local-{words[0]}", command, self.broker_environment())
        child.wait_end(60)
        return child

    def curtain(self) -> list[int]:
        """End the brokers that still run; their exit codes."""
        return self.processes.end([child for child in self.brokers if child.process.poll() is None])

    @property
    def audit_file(self) -> Path:
        """Vault's audit log."""
        return self.folder / LOGS / "vault-audit.log"

    @property
    def secret_id_file(self) -> Path:
        """The brokers' secret id for Vault."""
        return self.folder / "keys" / "secret-id"

    def known_secrets(self) -> list[str]:
        """What is secret and stands in no key file."""
        return [self.vault.root_token, self.postgres.password, self.store_password, self.maker_password]
