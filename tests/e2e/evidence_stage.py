"""The set for the auditor's story: real OPA, Vault and PostgreSQL, two brokers, a witness, and the README's lines.

It is the real demo's set with one change of policy: activating an account needs an approval of the group `security`, so
that there are runs which wait for people. Every line of the README's auditor section is run here as it stands there, in
one folder, as one person who may do all of it: operator of the brokers' host, and operator by role.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg

from faults.forks import lived
from processes import COMMAND
from stepgrant.cli.client_file import load
from stepgrant_broker.demo.processes import Child, wait_for
from stepgrant_broker.demo.stage import clean_environment
from stepgrant_broker.policy.bundle import SETTINGS, read_directory
from stepgrant_broker.policy.opa_bundle import opa_bundle
from stepgrant_demo_real.stage import STORE, RealStage

ROOT: Final = Path(__file__).parent.parent.parent
BIN: Final = Path(sys.executable).parent
SECTION: Final = "## For the auditor"
AGENT_S: Final = 90.0
COMMAND_S: Final = 120.0
WITNESS: Final = "witness.example"


def readme_lines() -> list[str]:
    """The commands of the README's auditor section."""
    section = (ROOT / "README.md").read_text().partition(SECTION)[2].partition("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


@dataclass
class Done:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:  # noqa: ANN401 - JSON
        """Its one JSON document."""
        return json.loads(self.out)


@dataclass
class EvidenceStage(RealStage):
    """The set, and the desk at which the auditor's commands are typed."""

    unread: list[str] = field(default_factory=readme_lines)
    """The lines of the README that were not run yet."""
    path: str = field(default_factory=lambda: os.environ["PATH"])
    asking: httpx.Client = field(default_factory=lambda: httpx.Client(trust_env=False, timeout=60))

    @property
    def desk(self) -> Path:
        """Where commands are typed."""
        made = self.folder / "desk"
        made.mkdir(exist_ok=True)
        return made

    def _policy_bundle(self) -> Path:
        bundle = super()._policy_bundle()
        settings = self.folder / "policy" / SETTINGS
        rules = json.loads(settings.read_text())
        rules["agents"][self.agent]["tools"]["account.activate"] |= {"ask": True, "approval": {"groups": ["security"]}}
        settings.write_text(json.dumps(rules))
        bundle.write_bytes(opa_bundle(read_directory(self.folder / "policy")))
        return bundle

    def candidate(self) -> None:
        """A policy that is thought about: nobody may activate an account at all."""
        folder = self.desk / "candidate"
        for file in sorted((self.folder / "policy").rglob("*")):
            if file.is_file():
                copy = folder / file.relative_to(self.folder / "policy")
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(file.read_bytes())
        rules = json.loads((folder / SETTINGS).read_text())
        del rules["agents"][self.agent]["tools"]["account.activate"]
        (folder / SETTINGS).write_text(json.dumps(rules))

    def readme(self, beginning: str, *more: str) -> Done:
        """Run the README's line with this beginning, and with what a test needs besides."""
        return self.say(*self.readme_words(beginning), *more)

    def readme_words(self, beginning: str) -> list[str]:
        """The words of the README's line with this beginning, which counts as run."""
        (line,) = [line for line in readme_lines() if line.startswith(f"stepgrant {beginning}")]
        if line in self.unread:
            self.unread.remove(line)
        return shlex.split(line)[1:]

    def say(self, *words: str, environment: dict[str, str] | None = None) -> Done:
        """Run one `stepgrant` command at the desk."""
        client = load(self.key_file("ops"))
        own = {"PATH": self.path, "STEPGRANT_URL": self.url, "STEPGRANT_TOKEN": client.token, "COLUMNS": "160"}
        given = self.broker_environment() | own if environment is None else environment
        return Done(*lived(COMMAND, *words, environment=given, patience_s=COMMAND_S, folder=self.desk))

    def offline(self, *words: str) -> Done:  # type: ignore[override]  # the demo's own takes no part in this story
        """The same where nothing of the brokers is known: no settings, no address, no token."""
        return self.say(*words, environment={"PATH": os.environ["PATH"], "COLUMNS": "160"})

    def find_opa(self) -> None:
        """From here on there is an `opa` on the path of whoever types commands at the desk."""
        programs = self.folder / "bin"
        programs.mkdir()
        (programs / "opa").symlink_to(self.opa.binary)
        self.path = f"{programs}:{self.path}"

    def counts(self) -> tuple[int, ...]:
        """How many entries, leases and questions there are. The log is no measure: it takes entries up later."""
        with self.people() as people:
            asked = people.get("/v1/approvals", status="pending")["approvals"]
            live = people.get("/v1/grants", live="true")["grants"]
        (entries,) = self.postgres.sql("SELECT count(*) FROM entries", STORE)
        return int(entries), len(asked), len(live)

    # --- the run ---------------------------------------------------------------------------------------------------

    def agent_until(self, run_key: str, ends: str, *customer: str) -> Child:
        """An agent process of this run, until it has said this or ended."""
        child = self.start_agent(f"agent-{run_key}-{ends.split(maxsplit=1)[0]}", "agent", *customer, run_key=run_key)
        child.wait_line(ends, AGENT_S)
        return child

    def waiting_question(self, run_key: str) -> str:
        """The id of the question that the run waits for."""
        with self.people() as people:
            (run,) = [run for run in people.get("/v1/runs", agent=self.agent)["runs"] if run["key"] == run_key]
            asked = people.get("/v1/approvals", run=run["id"], status="pending")["approvals"]
        return str(asked[0]["id"])

    # --- the log and its witness -----------------------------------------------------------------------------------

    def checkpoint(self) -> bytes:
        """The newest head that counts, once there is one."""
        found: list[bytes] = []

        def there() -> bool:
            answer = self.asking.get(f"{self.url}/v1/log/checkpoint")
            if answer.status_code == 200:
                found.append(answer.content)
            return bool(found)

        wait_for(there, AGENT_S, lambda: "no head counts")
        return found[-1]

    def start_witness(self, vkey: str) -> Child:
        """The witness's process; its policy file is written beside the desk's other files."""
        command = [
            *(str(BIN / "stepgrant"), "ledger", "witness", "--name", WITNESS, "--log", vkey),
            *("--folder", str(self.folder / "witness"), "--port", "0"),
        ]
        child = self.processes.start("witness", command, clean_environment({}))
        said = child.wait_line(f"witness {WITNESS} {WITNESS}+", AGENT_S).split()
        policy = self.desk / "log.policy"
        policy.write_text(f"log {vkey}\nwitness w {said[2]} {said[3]}\nquorum w\n")
        return child

    def restart_brokers(self, **settings: str) -> None:
        """End both brokers and start them with these settings as well."""
        self.end_brokers()
        self.settings |= settings
        serve = [str(BIN / "stepgrant"), "serve"]
        for child, port in zip(list(self.brokers), self.before_brokers.backends, strict=True):
            again = self.processes.start(f"{child.name}+", serve, self.broker_environment(port))
            self.brokers[self.brokers.index(child)] = again
            self.await_answer(again, f"http://127.0.0.1:{port}/readyz")

    def end_brokers(self) -> None:
        """Both, in good order."""
        self.processes.end([child for child in self.brokers if child.process.poll() is None])

    # --- the database ----------------------------------------------------------------------------------------------

    def copy_store(self, source: str, copy: str) -> None:
        """Copy a whole database; nobody may be connected to either."""
        with psycopg.connect(self.postgres.url(), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{copy}"'.encode())
            connection.execute(f'CREATE DATABASE "{copy}" TEMPLATE "{source}" OWNER "{STORE}"'.encode())
