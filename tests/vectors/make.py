"""Golden bytes of entries v1, of receipts v2, and of the log's heads, tiles and proofs.

The real use cases made them, over fixed times and randomness.

`PYTHONPATH=tests python -m vectors.make` writes them anew; `tests/unit/ledger/test_golden.py` compares. Format v1 is
frozen: files that exist may gain entries of new types, but the bytes of an entry that a use case writes do not change.
Whoever has to regenerate because they did has made a new version, and says so in DECISIONS.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from changing import replace
from fakes.clock import ArmedFailpoints, StandingClock
from fakes.erased_tale import erased_life, kept_life
from fakes.hand import Hand
from fakes.lost_tale import lost_life
from fakes.restored_tale import restored_life
from fakes.tale import whole_life
from fakes.world import AUDIENCE
from stepgrant import canonical, tlog
from stepgrant._keys import SecretKey
from stepgrant.receipt import verify
from stepgrant_broker.config import explicit_settings
from stepgrant_broker.domain.ids import ulid
from stepgrant_broker.domain.ports import Evaluation, PolicyEngine
from stepgrant_broker.domain.reads import Reads
from stepgrant_broker.usecases.enroll import Enrolment, enroll
from stepgrant_broker.usecases.operators import authenticate_operator, create_operator
from stepgrant_broker.wiring import Broker, build, bundle_of
from stepgrant_broker.wiring.seams import Seams

HERE = Path(__file__).parent
HEADS_KEY = {
    # RFC 8037 appendix A: the example key of RFC 8032, known to everybody.
    "kty": "OKP",
    "crv": "Ed25519",
    "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
}

POLICY = """# METADATA
# title: The policy of the golden vectors
package stepgrant

default decision := {"effect": "deny", "reasons": ["no_rule_matched"]}

decision := input.claimed.context.decide

decision := {"effect": "allow", "reasons": ["run_allowed"]} if {
	not input.claimed.context.decide
	startswith(input.action.tool, "stepgrant.run.")
	not input.claimed.labels[input.action.tool]
}
"""


class FixedIds:
    """`Ids` that give the same values each time."""

    def __init__(self) -> None:
        self._count = 0

    def _next(self) -> int:
        self._count += 1
        return self._count

    def ulid(self, now: int) -> str:
        return ulid(now, self._next().to_bytes(10, "big"))

    def random(self, size: int) -> bytes:
        return hashlib.shake_128(b"golden" + self._next().to_bytes(8, "big")).digest(size)


class Named:
    """The real engine under a name that does not change with its version."""

    def __init__(self, engine: PolicyEngine) -> None:
        self._engine = engine

    async def evaluate(self, policy_input: bytes) -> Evaluation:
        return replace(await self._engine.evaluate(policy_input), engine="golden/1")

    async def close(self) -> None:
        await self._engine.close()


async def make(folder: Path) -> dict[str, bytes]:
    """The golden files by name."""
    files = await _make(folder / "whole", whole_life)
    lost = await _make(folder / "lost", lost_life)
    restored = await _make(folder / "restored", restored_life)
    erased = await _make(folder / "erased", erased_life)
    kept = await _make(folder / "kept", kept_life)
    return {
        **files,
        "entry_v1/erased.jsonl": erased["entry_v1/run.jsonl"],
        "entry_v1/kept.jsonl": kept["entry_v1/run.jsonl"],
        "receipt_v2/erased.json": erased["receipt_v2/run.json"],
        "entry_v1/lost.jsonl": lost["entry_v1/run.jsonl"],
        "entry_v1/restored.jsonl": restored["entry_v1/run.jsonl"],
        "entry_v1/restored_tenant.jsonl": restored["entry_v1/tenant.jsonl"],
        "entry_v1/signing_keys.jsonl": await _signing_keys(folder / "keys"),
    }


async def _signing_keys(folder: Path) -> bytes:
    """A tenant's chain in which a key followed another one, and that one was revoked."""
    clock, keys = StandingClock(), folder / "keys"
    keys.mkdir(mode=0o700, parents=True)
    old, new = (SecretKey(ec.derive_private_key(number, ec.SECP256R1())) for number in (1, 2))
    _key_file(keys / "access-1.jwk", old.to_private_jwk())
    _key_file(keys / "access-2.jwk", {**new.to_private_jwk(), "signs_from": clock.now() - 1})
    settings = explicit_settings(data_dir=folder, tenant="acme", test_mode=True, sweep_ms=600_000, log_every_ms=60_000)
    policy = bundle_of({"stepgrant/main.rego": POLICY})
    async with build(settings, create=True, policy=policy, seams=Seams(clock=clock, ids=FixedIds())) as broker:
        await broker.keys.revoke(old.public.jkt, "a laptop was stolen")
        return await chain(broker.ports.reads, None)


def _key_file(path: Path, jwk: Mapping[str, object]) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(jwk, file)


async def _make(folder: Path, life: Callable[[Hand], Awaitable[str]]) -> dict[str, bytes]:
    """The files of one life, lived by a broker of its own."""
    keys = folder / "broker" / "keys"
    keys.mkdir(mode=0o700, parents=True)
    _key_file(keys / "heads-1.jwk", HEADS_KEY)
    settings = explicit_settings(
        data_dir=folder / "broker", tenant="acme", test_mode=True, sweep_ms=600_000, log_every_ms=60_000
    )
    clock, failpoints = StandingClock(), ArmedFailpoints()
    seams = Seams(clock=clock, ids=FixedIds(), failpoints=failpoints)
    policy = bundle_of({"stepgrant/main.rego": POLICY})
    async with build(settings, create=True, policy=policy, seams=seams) as broker:
        held = await hand(broker, clock, failpoints)
        run = await life(held)
        receipt = await broker.receipt(run)
        head, _ = tlog.read_signed_head(receipt["log"]["checkpoint"].encode())
        steps = [canonical.loads(entry.data) for entry in await broker.ports.reads.entries("acme", run)]
        issued = [one for one in steps if isinstance(one, dict) and one["type"] == "grant_issued"]
        step = str(issued[0]["step"])
        public = {"keys": [dict(key.jwk) for key in await broker.ports.signer.public_keys("heads")]}
        return {
            "entry_v1/run.jsonl": await chain(broker.ports.reads, run),
            "entry_v1/tenant.jsonl": await chain(broker.ports.reads, None),
            "entry_v1/keys.json": canonical.dumps(public),
            "receipt_v2/run.json": canonical.dumps(receipt),
            "receipt_v2/grant.json": canonical.dumps(await broker.receipt(run, scope=("grant", _approved(issued)))),
            "receipt_v2/step.json": canonical.dumps(await broker.receipt(run, scope=("step", step))),
            "log_v1/vkey": "".join(f"{line}\n" for line in await broker.log.vkeys()).encode(),
            "log_v1/checkpoint": receipt["log"]["checkpoint"].encode(),
            "log_v1/tile-0": await broker.log.tile(tlog.Tile(0, 0, head.size).path) or b"",
            "log_v1/tile-entries": await broker.log.tile(tlog.Tile(None, 0, head.size).path) or b"",
            "log_v1/proof-of-entry-0": _proof(receipt, public),
        }


def _approved(issued: list[dict[str, Any]]) -> str:
    """The first grant that spent an approval; of a life without people the first one."""
    jti = next((one for one in issued if "approval" in one), issued[0])["grant"]["jti"]
    return str(jti)


def _proof(value: dict[str, Any], keys: dict[str, Any]) -> bytes:
    logged = verify(value, keys).logged
    return b"" if logged is None else logged.tlog_proof(0)


async def hand(broker: Broker, clock: StandingClock, failpoints: ArmedFailpoints) -> Hand:
    """The broker's use cases in the hand of the tale."""
    ports = replace(broker.ports, policy=Named(broker.policy))
    jwk = {"kty": "EC", "crv": "P-256", "x": "x", "y": "y"}
    agent = await enroll(ports, "acme", None, Enrolment("agent", ("agent",), (), jwk, "j1"))
    server = await enroll(ports, "acme", None, Enrolment("tool", (), (AUDIENCE,), jwk, "j2"))
    olga = await create_operator(ports, "acme", None, name="Olga", roles=["operator"])
    workload, tool = await broker.store.workload(agent["id"]), await broker.store.workload(server["id"])
    assert workload is not None
    assert tool is not None
    operator = await authenticate_operator(ports, olga["token"])
    return Hand(ports, clock, failpoints, broker.store, broker.policy, workload, tool, operator)  # type: ignore[arg-type]


async def chain(reads: Reads, run: str | None) -> bytes:
    """The exact bytes of each entry, one a line (canonical JSON has no line breaks)."""
    entries = await reads.entries("acme", run)
    return b"".join(entry.data + b"\n" for entry in entries)


def main() -> None:
    """Write the golden files."""
    with tempfile.TemporaryDirectory() as folder:
        files = asyncio.run(make(Path(folder)))
    for name, data in files.items():
        (HERE / name).parent.mkdir(exist_ok=True)
        (HERE / name).write_bytes(data)
        sys.stdout.write(f"{name}: {len(data)} bytes, {canonical.digest_bytes(data)}\n")


if __name__ == "__main__":
    main()
