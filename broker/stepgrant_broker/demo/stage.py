"""The demo's set: a folder, a broker, five targets, two people, and the environment of the agent.

    folder/broker/     the broker's database and keys
    folder/policy/     the starter policy with the demo's settings and the addresses of this run
    folder/keys/       one key file for each enrolled workload and person, mode 0600
    folder/books/      one book for each target
    folder/logs/       what each process said

Every process gets an environment without settings of ours from outside, so that nothing but this file sets the scene.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from stepgrant.cli.client_file import load
from stepgrant.cli.cmd_workloads import enroll_with_new_key
from stepgrant.cli.command import Cli
from stepgrant.cli.people import People
from stepgrant_broker.demo.checks import Broken
from stepgrant_broker.demo.evidence import Books, Note, read_book
from stepgrant_broker.demo.processes import Child, Processes, wait_for
from stepgrant_broker.ledger.newest import NAME as PUBLIC
from stepgrant_broker.policy.bundle import SETTINGS, demo_settings, starter_files

TARGETS: Final = ("billing", "identity", "mail", "search", "storage")
"""In the order in which the agent takes them."""
DONE_FIRST: Final = TARGETS[:2]
"""Rotated when the agent is killed for the first time."""
SLOW: Final = "mail"
"""The target that takes its time to answer, so that the agent can be killed between the work and the answer."""
STOLEN: Final = "search"
"""The target for which the thief gets a credential."""
KEEPER: Final = "identity"
"""The target that says which keys are valid; old ones are revoked there."""
AGENT: Final = "rotator"
APPROVERS: Final = "security"
"""The group of people that policy asks."""
RUN_KEY: Final = "rotate-keys"
LAST_STEP: Final = "revoke-old"
LEASE_MS: Final = 3_000
REDEEM_WINDOW_MS: Final = 2_000
LEEWAY_MS: Final = 1_000
SLOW_REPLY_S: Final = 5.0
START_S: Final = 30.0
COMMAND_S: Final = 30.0
LOGS: Final = "logs"
FOLDERS: Final = ("broker", "policy", "keys", "books", LOGS, "evidence")


def free_addresses(number: int) -> list[str]:
    """So many different addresses on the loopback that nothing uses now."""
    probes = [socket.socket() for _ in range(number)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [f"http://127.0.0.1:{probe.getsockname()[1]}" for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def clean_environment(more: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without settings of Stepgrant and proxies, which could lead a call elsewhere."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("STEPGRANT_") and not name.lower().endswith("_proxy")
    }
    return {**kept, "PYTHONUNBUFFERED": "1", **more}


def policy_files(addresses: Mapping[str, str]) -> dict[str, bytes]:
    """The starter policy with the demo's settings: each tool may touch these resources, at these addresses only."""
    settings = json.loads(demo_settings())
    tools = settings["agents"][AGENT]["tools"]
    tools["keys.rotate"]["resources"] = dict(addresses)
    tools["keys.revoke_old"] |= {"resources": {KEEPER: addresses[KEEPER]}, "approval": {"groups": [APPROVERS]}}
    return {**starter_files(), SETTINGS: json.dumps(settings, indent=2).encode()}


@dataclass(slots=True)
class Stage:
    """Everything that runs, and the ways to look at it."""

    folder: Path
    processes: Processes
    url: str = ""
    addresses: dict[str, str] = field(default_factory=dict)
    agent: str = AGENT
    run_key: str = RUN_KEY
    broker: Child | None = None
    targets: dict[str, Child] = field(default_factory=dict)

    def set_up(self) -> None:
        """Start broker and targets and enrol who takes part. Raises `Broken`."""
        for name in FOLDERS:
            (self.folder / name).mkdir(mode=0o700)
        self.url, *addresses = free_addresses(1 + len(TARGETS))
        self.addresses = dict(zip(TARGETS, addresses, strict=True))
        for path, text in policy_files(self.addresses).items():
            file = self.folder / "policy" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text)
        self._start_broker()
        self._enrol()
        self._start_targets()

    def _start_broker(self) -> None:
        environment = clean_environment(
            {
                "STEPGRANT_BROKER_DATA_DIR": str(self.folder / "broker"),
                "STEPGRANT_BROKER_POLICY_DIR": str(self.folder / "policy"),
                "STEPGRANT_BROKER_PUBLIC_URL": self.url,
                "STEPGRANT_BROKER_PORT": self.url.rpartition(":")[2],
                "STEPGRANT_BROKER_LEASE_MS": str(LEASE_MS),
                "STEPGRANT_BROKER_REDEEM_WINDOW_MS": str(REDEEM_WINDOW_MS),
                "STEPGRANT_BROKER_LEEWAY_MS": str(LEEWAY_MS),
                "STEPGRANT_BROKER_SWEEP_MS": "200",
            }
        )
        self.broker = self.processes.start("broker", [*_module("broker"), str(self.folder / "keys")], environment)
        self.await_answer(self.broker, f"{self.url}/readyz")

    def _enrol(self) -> None:
        cli = Cli(client_file=self.key_file("ops"))
        enroll_with_new_key(cli, self.agent, agents=[self.agent], audiences=[], path=self.key_file(self.agent))
        for name, address in self.addresses.items():
            enroll_with_new_key(cli, name, agents=[], audiences=[address], path=self.key_file(name))

    def _start_targets(self) -> None:
        for name, address in self.addresses.items():
            command = [
                *_module("target"), "--name", name, "--port", address.rpartition(":")[2], "--broker", self.url,
                "--key", str(self.key_file(name)), "--book", str(self.book_file(name)),
            ]  # fmt: skip
            if name == SLOW:
                command += ["--slow-reply", str(SLOW_REPLY_S)]
            self.targets[name] = self.processes.start(name, command, clean_environment({}))
        for name, address in self.addresses.items():
            self.await_answer(self.targets[name], f"{address}/healthz")

    def await_answer(self, child: Child, url: str) -> None:
        """Wait until it answers there with success. Raises `Broken` if it ends, or does not in time."""

        def ready() -> bool:
            if child.process.poll() is not None:
                raise Broken(f"{child.name} ended ({child.process.returncode}); {child.last_words()}")
            try:
                return client.get(url).is_success
            except httpx.TransportError:
                return False

        # One for all tries: what it loads to check certificates would take what is waited for its processor.
        with httpx.Client(trust_env=False, timeout=1) as client:
            wait_for(ready, START_S, lambda: f"{child.name} does not answer at {url}; {child.last_words()}")

    def key_file(self, name: str) -> Path:
        """The key file of a workload, or the client file of a person."""
        return self.folder / "keys" / f"{name}.json"

    def book_file(self, name: str) -> Path:
        """A target's book."""
        return self.folder / "books" / f"{name}.jsonl"

    def book(self, name: str) -> list[Note]:
        """A target's book so far."""
        return read_book(self.book_file(name))

    def books(self) -> Books:
        """All books so far."""
        return {name: self.book(name) for name in TARGETS}

    def start_agent(self, name: str, role: str = "agent", *arguments: str) -> Child:
        """Start an agent process. It gets the broker's address and its workload's key file, and nothing else."""
        more = {"STEPGRANT_URL": self.url, "STEPGRANT_WORKLOAD_KEY": str(self.key_file(self.agent))}
        return self.processes.start(name, [*_module(role), self.run_key, *arguments], clean_environment(more))

    def command(self, *words: str, client: str) -> Child:
        """Run one `stepgrant` command line of a person, a process like all others, to its end."""
        name = f"command-{words[0]}-{words[1]}"
        command = [*_stepgrant(), *words, "--client", str(self.key_file(client))]
        child = self.processes.start(name, command, clean_environment({}))
        child.wait_end(COMMAND_S)
        return child

    def offline(self, *words: str) -> Child:
        """Run one `stepgrant` command line in a fresh process with no environment: no address, no token, no home."""
        environment = {name: value for name, value in os.environ.items() if name == "PYTHONPATH"}
        child = self.processes.start(f"offline-{words[0]}-{words[1]}", [*_stepgrant(), *words], environment)
        child.wait_end(COMMAND_S)
        return child

    def people(self) -> People:
        """The broker, as the operator."""
        return People(load(self.key_file("ops")))

    def run(self) -> dict[str, Any]:
        """The agent's run, as the broker shows it. Raises `Broken`."""
        with self.people() as people:
            runs = people.get("/v1/runs", agent=self.agent)["runs"]
        if len(runs) != 1:
            raise Broken(f"there is not exactly one run but {len(runs)}")
        return dict(runs[0])

    def steps(self) -> dict[str, dict[str, Any]]:
        """The run's steps by their key."""
        path = f"/v1/runs/{self.run()['id']}/steps"
        with self.people() as people:
            return {step["key"]: step for step in people.pages(path, "steps")}

    def step(self, key: str) -> dict[str, Any]:
        """One step. Raises `Broken`."""
        steps = self.steps()
        if key not in steps:
            raise Broken(f"the broker knows no step {key}, only {', '.join(steps) or 'none'}")
        return steps[key]

    def curtain(self) -> list[int]:
        """End broker and targets; their exit codes."""
        return self.processes.end([*self.targets.values(), *([self.broker] if self.broker is not None else [])])

    def secret_files(self) -> list[Path]:
        """The files that are there to hold keys: workloads', people's, the broker's own; not the head of the log."""
        own = [path for path in (self.folder / "broker" / "keys").rglob("*") if path.is_file() and path.name != PUBLIC]
        return [*(self.folder / "keys").iterdir(), *own]


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", f"stepgrant_broker.demo.{name}"]


def _stepgrant() -> list[str]:
    return [sys.executable, "-m", "stepgrant.cli.main"]
