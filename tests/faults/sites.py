"""Brokers to attack: one on SQLite, or several on one database behind a gate, with a target, an agent and a rescuer.

All are processes of their own, so a test can freeze, kill and start again each of them. `Site.url` is what agents call;
`Site.doors` are the brokers' own addresses, for a test that says which of them it talks to. Proofs are for `Site.url`
whichever door they come through, as behind any load balancer.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from checker.evidence import Evidence, Line
from checker.reading import read_postgres, read_sqlite
from faults.nursery import QUICK, Nursery
from faults.processes import Place, Puppet, Target, settings_for
from stepgrant_broker.testing import start
from stepgrant_demo_real.gate import Gate, listen

NAMES: Final = ("one", "two", "three", "four")
AGENTS: Final = ("worker", "rescuer", "stranger")


@dataclass
class Site:
    """Running brokers. `keys`: key files of `target`, `worker`, `rescuer` (may take over) and `stranger` (may not)."""

    url: str
    doors: Sequence[str]
    nurseries: Sequence[Nursery]
    orders: Sequence[dict[str, Any]]
    target: Target
    keys: Mapping[str, Path]
    folder: Path
    database_url: str | None
    operator: str = field(repr=False)

    def up(self, number: int = 0, failpoints: str = "") -> None:
        """Start a broker that is down. Raises `RuntimeError` when it does not start."""
        said = self.nurseries[number].fork({**self.orders[number], "failpoints": failpoints})
        if "up" not in said:
            raise RuntimeError((self.folder / "log").read_text(encoding="utf-8")[-3000:])

    def crash(self) -> None:
        """`kill -9` for every broker, then a new start on the same data."""
        for nursery in self.nurseries:
            nursery.kill()
        for number in range(len(self.nurseries)):
            self.up(number)

    def freeze(self, number: int) -> None:
        """A broker stands still, in the middle of whatever it does."""
        self.nurseries[number].signal(signal.SIGSTOP)

    def thaw(self, number: int) -> None:
        """It goes on, and knows nothing of the time that passed."""
        self.nurseries[number].signal(signal.SIGCONT)

    def puppet(self, heard: Path, who: str = "worker", **more: str) -> Puppet:
        """An agent to be told what to do; it writes down what it heard, as the checker reads it."""
        return Puppet(self.url, self.keys[who], self.target.url, FAULTS_HEARD=str(heard), **more)

    def state(self, run: str) -> str:
        """The state of a run, as its row has it."""
        tables = self.evidence(run=run).tables
        if tables is None:
            raise RuntimeError("there are no tables")
        return str(tables.runs[0]["state"])

    def evidence(self, *heard: Sequence[Line], run: str | None = None) -> Evidence:
        """What is in the database and in the target's book, of all runs or of one, beside what agents heard."""
        file = self.folder / "one" / "stepgrant.db"
        read = read_sqlite(file, run) if self.database_url is None else read_postgres(self.database_url, run)
        return read.beside(books=self.target.book(run), heard=heard)


@contextmanager
def site(
    folder: Path,
    *,
    brokers: int = 1,
    database_url: str | None = None,
    environments: Sequence[Mapping[str, str]] = (),
    **settings: Any,  # noqa: ANN401 - fields of the broker's settings
) -> Iterator[Site]:
    """One to four brokers that run until the block ends. `environments`: more environment for the process of each."""
    (folder / "one").mkdir(mode=0o700, parents=True)
    place, ports = Place.free(), []
    with ExitStack() as stack:
        for _ in range(brokers):
            # Bound but not listening: the broker can take it again and again, and nobody else can meanwhile.
            reserved = stack.enter_context(socket.socket())
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reserved.bind(("127.0.0.1", 0))
            ports.append(int(reserved.getsockname()[1]))
        doors = [f"http://127.0.0.1:{port}" for port in ports]
        url = doors[0] if brokers == 1 else stack.enter_context(Gate("brokers", listen(), ports)).url
        shared: dict[str, Any] = {
            "keys_dir": str(folder / "keys"),
            **({"database_url": database_url} if database_url else {}),
        }
        policy = settings_for(place.url)
        with start(folder / "one", settings=policy, **shared) as host:
            keys = {"target": host.enroll("target", audiences=[place.url])}
            keys |= {name: host.enroll(name, agents=["worker"]) for name in AGENTS}
            operator = host.operator("Olga")
        policy["agents"]["worker"]["takeover"] = {"subjects": ["workload:default/rescuer"]}
        orders = [
            {
                "settings": {
                    "data_dir": str(folder / name), "port": port, "public_url": url, **QUICK, **shared, **settings,
                },
                "policy": policy, "log": str(folder / "log"), "obey_modes": False,
            }
            for name, port in zip(NAMES[:brokers], ports, strict=True)
        ]  # fmt: skip
        target = stack.enter_context(place.target(url, keys["target"], folder / "book"))
        more = [*environments, *[{}] * (brokers - len(environments))]
        nurseries = [stack.enter_context(Nursery(**one)) for one in more]
        made = Site(url, doors, nurseries, orders, target, keys, folder, database_url, operator)
        stack.callback(_end, nurseries)
        for number in range(brokers):
            made.up(number)
        yield made


def _end(nurseries: Sequence[Nursery]) -> None:
    for nursery in nurseries:
        if nursery.pid is not None:
            nursery.signal(signal.SIGCONT)
            nursery.end()
