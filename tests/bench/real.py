"""`make bench-real`: a begin beside real OPA and PostgreSQL, and a grant of Vault, on the same cores in the same run.

Gates: p50 of begin at one run <= 12x and the broker's own CPU <= 9x an empty FastAPI POST; a Vault grant's p50 is at
most 6 ms over Vault's own time, which is the same two requests sent raw. The CPU of OPA, Vault and PostgreSQL is on the
machine and in the latencies, not in the broker's CPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import httpx

from bench.agents import Agent
from bench.broker import POLICY
from bench.load import load
from bench.run import ROUNDS, WARM, Figures, begins, yardstick_round
from bench.server import child
from stepgrant._exchange import WorkloadKey
from stepgrant_broker.policy.opa_bundle import opa_bundle
from stepgrant_broker.wiring import bundle_of
from vaulted import vault_with_logins

ROOT: Final = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "deploy" / "services"))

from stepgrant_services import OpaServer, PostgresServer, VaultServer  # noqa: E402 - a tool of ours beside the product

P50_GATE, CPU_GATE, VAULT_GATE_MS = 12.0, 9.0, 6.0
LOGINS: Final = """package stepgrant

default decision := {"effect": "deny", "reasons": ["no_rule_matched"]}

decision := {"effect": "allow", "reasons": ["run"]} if startswith(input.action.tool, "stepgrant.run.")

decision := {"effect": "allow", "reasons": ["ok"], "grant": {
	"effect": "once",
	"issuer": "app-db",
	"ttl": 60,
	"params": {"role": "app-ro"},
}} if input.action.tool == "look_up"
"""


def beside_opa(count: int, folder: Path, stack: ExitStack) -> dict[str, float]:
    """Begins on OPA and PostgreSQL, between rounds of the yardstick."""
    bundle = folder / "bundle.tar.gz"
    bundle.write_bytes(opa_bundle(bundle_of(POLICY)))
    opa, postgres = stack.enter_context(OpaServer(bundle, bundle=True)), stack.enter_context(PostgresServer())
    settings = {"policy_engine": "opa", "opa_url": opa.url, "database_url": postgres.create_database()}
    empty, one, sixteen = Figures(), Figures(), Figures()
    stick = stack.enter_context(child("yardstick.py"))
    broker = stack.enter_context(child("broker.py", str(folder / "opa"), json.dumps(settings)))
    key = WorkloadKey.load(broker.said["key"])
    yardstick_round(stick, WARM)
    begins(broker, key, 16, WARM // 4, Figures(), "warm")
    for number in range(ROUNDS):
        print(f"round {number + 1} of {ROUNDS} …", file=sys.stderr, flush=True)
        empty.rounds.append(yardstick_round(stick, count))
        begins(broker, key, 1, count, one, "one")
        begins(broker, key, 16, max(8, count // 16), sixteen, "sixteen")
    return {
        "yardstick_p50_ms": empty.middle(lambda m: m.p50),
        "yardstick_cpu_us": empty.middle(lambda m: m.cpu_us),
        "begin_1_p50_ms": one.middle(lambda m: m.p50),
        "begin_1_p99_ms": one.middle(lambda m: m.p99),
        "begin_1_cpu_us": one.middle(lambda m: m.cpu_us),
        "begin_16_per_s": sixteen.middle(lambda m: m.rate),
        "begin_16_p50_ms": sixteen.middle(lambda m: m.p50),
        "begin_16_cpu_us": sixteen.middle(lambda m: m.cpu_us),
    }


def raw_grant(client: httpx.Client, addr: str, token: str) -> float:
    """Vault's own time for a grant: a token for one policy, and a login read with it; ms."""
    body = {"policies": ["stepgrant.app-db.app-ro"], "ttl": "70s", "explicit_max_ttl": "70s", "renewable": False}
    started = time.perf_counter()
    made = client.post(f"{addr}/v1/auth/token/create/stepgrant", json=body, headers={"X-Vault-Token": token})
    own = made.raise_for_status().json()["auth"]["client_token"]
    client.get(f"{addr}/v1/database/creds/app-ro", headers={"X-Vault-Token": own}).raise_for_status()
    return (time.perf_counter() - started) * 1000


def beside_vault(count: int, folder: Path, stack: ExitStack) -> dict[str, float]:
    """Grants of a database login, and the same requests raw, in turn."""
    vault, postgres = stack.enter_context(VaultServer()), stack.enter_context(PostgresServer())
    # Keys stay local: a grant of Vault signs nothing.
    more = {**vault_with_logins(vault, postgres, folder), "signer": "local", "policy": LOGINS}
    settings = {name: str(value) for name, value in more.items()}
    broker = stack.enter_context(child("broker.py", str(folder / "vault"), json.dumps(settings)))
    agent = Agent(broker.url, WorkloadKey.load(broker.said["key"]), "logins")
    client = stack.enter_context(httpx.Client(trust_env=False))
    ours, raw = list[float](), list[float]()
    for number in range(count):
        raw.append(raw_grant(client, vault.addr, vault.root_token))
        ours += load(broker.url, broker.process.pid, [[agent.begin(f"s{number}", "look_up")]]).latencies
    vault.request("PUT", "sys/leases/revoke-prefix/database", {"sync": True})
    return {"vault_raw_p50_ms": statistics.median(raw[5:]), "vault_grant_p50_ms": statistics.median(ours[5:])}


def report(figures: dict[str, float]) -> int:
    """Print the table; how many gates were missed."""
    cpu, p50 = figures["yardstick_cpu_us"], figures["yardstick_p50_ms"]
    gates = [
        ("p50 of begin, 1 run", figures["begin_1_p50_ms"] / p50, P50_GATE, "x yardstick"),
        ("broker CPU per begin, 1 run", figures["begin_1_cpu_us"] / cpu, CPU_GATE, "x yardstick"),
        ("broker CPU per begin, 16 runs", figures["begin_16_cpu_us"] / cpu, CPU_GATE, "x yardstick"),
        (
            "Vault grant over Vault's own time", figures["vault_grant_p50_ms"] - figures["vault_raw_p50_ms"],
            VAULT_GATE_MS, "ms",
        ),
    ]  # fmt: skip
    for name, value in figures.items():
        print(f"{name:28} {value:10.3f}")
    for what, value, gate, unit in gates:
        print(f"{'ok  ' if value <= gate else 'MISS'} {what}: {value:.2f} {unit} (gate {gate})")
    return sum(value > gate for _, value, gate, _ in gates)


def main() -> int:
    """Measure, print, and say whether the gates held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=400, help="requests in a round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        figures = beside_opa(options.count, Path(place), stack)
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        figures |= beside_vault(max(40, options.count // 5), Path(place), stack)
    return 1 if report(figures) else 0


if __name__ == "__main__":
    raise SystemExit(main())
