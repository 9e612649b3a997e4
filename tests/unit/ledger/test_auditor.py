"""An auditor who trusts nobody here: a public key, a log policy and one file, against what the real use cases wrote."""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from auditing import ANSWERED_S, answered_in
from fakes.hand import Hand, hand
from fakes.ledgers import Ledger
from fakes.tale import whole_life
from notehands import ALICE
from stepgrant import canonical, receipt, tlog
from stepgrant_broker.ledger.public_log import PublicLog
from stepgrant_broker.ledger.receipt import make_receipt
from stepgrant_broker.ledger.sequencer import Sequencer
from stepgrant_broker.usecases.erase import erase_run

ORIGIN, RESOURCE = "broker.example/log", "order/1"


class Cosigned:
    """A witness that cosigns what it is shown."""

    def __init__(self, log_key: tlog.NoteKey) -> None:
        self.text = f"log {log_key.vkey}\nwitness alice {ALICE.key.vkey}\nquorum alice\n"
        self.policy = tlog.read_log_policy(self.text)

    async def cosign(self, head: tlog.Head, _note: tlog.Note) -> list[tlog.NoteSignature]:
        return [ALICE.sign(head.text)]


async def evidence(
    store: Any, wrap: Any, signer: Any, clock: Any, run: str, **options: Any  # noqa: ANN401 - real ones
) -> tuple[bytes, bytes, str]:  # fmt: skip
    """What the auditor takes home: the receipt, the keys, and the log policy."""
    origin = await store.log_origin(ORIGIN)
    (key,) = await signer.public_keys("heads")
    public = base64.urlsafe_b64decode(str(key.jwk["x"]) + "==")
    witness = Cosigned(tlog.note_key(origin, tlog.ED25519, public))
    log = PublicLog(store, Sequencer(store, signer, clock, origin, witnesses=witness))
    value = await make_receipt(store, wrap, signer, "acme", run, log=log, **options)
    return canonical.dumps(value), canonical.dumps({"keys": [dict(key.jwk)]}), witness.text


@pytest.mark.parametrize("scope", ["run", "step", "grant"])
async def test_the_questions_are_answered_offline_in_under_a_second(ledger: Ledger, scope: str, tmp_path: Path) -> None:
    everything = receipt.verify(canonical.dumps(await _whole(ledger)), await ledger.keys())
    jti = next(grant.jti for grant in everything.grants if grant.approval is not None)
    about: dict[str, Any] = {"run": {}, "step": {"scope": ("step", "s3")}, "grant": {"scope": ("grant", jti)}}
    file, keys, policy = await evidence(
        ledger.store, ledger.wrap, ledger.signer, ledger.clock, ledger.run, **about[scope]
    )  # fmt: skip

    told = receipt.verify(file, keys, log_policy=policy)
    step = told.step(4)

    # 1. Does it hold, and who stands behind it?
    assert told.logged is not None
    assert list(told.logged.cosigned) == ["alice"]
    # 2. Who did step 4?
    assert (step.key, step.tool, step.resource, step.args) == ("s3", "pay", RESOURCE, {"amount": 1})
    assert {(one.kind, one.subject, one.agent, one.epoch) for one in step.who} == {
        ("workload", "workload:agent", "agent", 1)
    }
    # 3. Under which policy text?
    (asked, allowed) = step.decisions
    assert (asked.effect, allowed.effect) == ("require_approval", "allow")
    assert allowed.policy is not None
    assert allowed.policy["stepgrant/main.rego"].startswith("package stepgrant")
    # 4. With whose approval?
    (approval,) = step.approvals
    assert [(one.kind, one.subject, one.id) for one in approval.approved_by] == [("person", "ann", "opr_ann")]
    assert approval.used_by == jti
    # 5. With which credential?
    (grant,) = step.grants
    assert (grant.jti, grant.issuer, grant.audience) == (jti, "jwt", "https://tool.example")
    # 6. When was it revoked?
    assert (grant.revoked_at, grant.cause, grant.end) == (1_800_000_000_100, "failed", "refused")
    # 7. Is anything missing?
    assert [gap.code for gap in told.missing] == ([] if scope == "run" else ["part_only"])
    # All of it by a process that only has the files, its start included.
    assert answered_in(tmp_path, file, keys, policy, 4) < ANSWERED_S


async def _whole(ledger: Ledger) -> dict[str, Any]:
    return await make_receipt(ledger.store, ledger.wrap, ledger.signer, "acme", ledger.run)


async def test_a_process_that_knows_the_files_only_agrees(ledger: Ledger, tmp_path: Path) -> None:
    """The command, without a broker, a network, or anything in its environment."""
    file, keys, policy = await evidence(ledger.store, ledger.wrap, ledger.signer, ledger.clock, ledger.run)
    for name, data in (("receipt.json", file), ("keys.json", keys), ("log-policy", policy.encode())):
        (tmp_path / name).write_bytes(data)
    words = [
        "receipt",
        "show",
        "receipt.json",
        "--key",
        "keys.json",
        "--log-policy",
        "log-policy",
        "--html",
        "page.html",
    ]
    command = [sys.executable, "-m", "stepgrant.cli.main", *words]
    path = os.pathsep.join(filter(None, sys.path))
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=tmp_path, env={"PYTHONPATH": path}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    said = done.stdout.decode()
    assert "The receipt holds: 49 entries of " in said
    assert "cosigned by alice at 2027-01-15T08:00:00Z" in said
    assert "Missing" not in said
    assert "person ann (opr_ann) approved it" in (tmp_path / "page.html").read_text(encoding="utf-8")


async def test_after_the_erasure_it_is_still_known_who_when_and_under_which_policy(tmp_path: Path) -> None:
    async with hand(tmp_path) as held:
        run = await whole_life(held)
        before = await _receipts(held, run)
        await erase_run(held.ports, held.operator, run)
        after = await _receipts(held, run)
    for scope in ("run", "step"):
        told = receipt.verify(*after[scope][:2], log_policy=after[scope][2])
        assert told.erased is not None
        assert told.erased.who.id == held.operator.id
        assert told.disclosed == 0
        assert "erased" in {gap.code for gap in told.missing}
        step = told.step("s3")
        assert (step.args, step.resource, step.who[0].subject) == (None, None, None)
        assert step.who[0].agent == "agent"
        assert [one.id for one in step.approvals[0].approved_by] == ["opr_ann"]
        assert step.decisions[-1].policy is not None
        assert step.grants[0].revoked_at is not None
        page = receipt.as_html(told)
        assert ("The values of this run were erased at" in page, RESOURCE in page) == (True, False)
    whole = receipt.verify(after["run"][0], after["run"][1])
    assert whole.complete
    whole.continues(receipt.verify(before["run"][0], before["run"][1]))


async def _receipts(held: Hand, run: str) -> dict[str, tuple[bytes, bytes, str]]:
    about: dict[str, dict[str, Any]] = {"run": {}, "step": {"scope": ("step", "s3")}}
    return {
        name: await evidence(held.store, held.ports.wrap, held.ports.signer, held.clock, run, **options)
        for name, options in about.items()
    }
