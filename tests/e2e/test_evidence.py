"""The auditor's story beside real OPA, Vault, PostgreSQL and a witness: README's auditor section, line by line.

One run is asked about, approved and done; another waits for people. Then everything happens to the evidence that can:
a receipt leaves the house, a fork is shown to the witness, keys are rotated, history is decided again, a policy is
tried on what waits, the log is exported in two goes, a run is erased, and at last a backup is put back.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.evidence_stage import AGENT_S, EvidenceStage
from e2e.forked_children import ForkedProcesses
from stepgrant import merkle, receipt, tlog
from stepgrant.merkle import Edge
from stepgrant_broker.demo.processes import wait_for
from stepgrant_broker.demo.stage import LOGS
from stepgrant_demo_real.stage import STORE

pytestmark = [pytest.mark.needs("opa", "vault", "postgres"), pytest.mark.timeout(900)]
RUN, WAITING = "order-1729", "order-1730"


@pytest.fixture
def stage() -> Iterator[EvidenceStage]:
    """The set. PostgreSQL of root runs as another user and must be able to pass through the folder."""
    folder = Path(tempfile.mkdtemp(prefix="stepgrant-evidence-"))
    folder.chmod(0o711)
    (folder / LOGS).mkdir(mode=0o700)
    try:
        with ForkedProcesses(folder / LOGS) as processes, ExitStack() as stack:
            made = EvidenceStage(folder, processes)
            (folder / LOGS).rmdir()
            stack.enter_context(made.asking)
            made.raise_curtain(stack)
            yield made
    finally:
        shutil.rmtree(folder)


def test_the_auditors_section_of_the_readme(stage: EvidenceStage) -> None:
    key = the_log_gets_a_witness(stage)
    a_run_is_approved_and_done_another_waits(stage)
    taken = a_receipt_leaves_the_house(stage)
    the_witness_refuses_a_fork(stage, key)
    keys_are_rotated(stage, taken)
    history_is_decided_again(stage)
    a_candidate_is_tried_on_what_waits(stage)
    the_log_is_exported_in_two_goes(stage)
    the_whole_database_is_checked(stage)
    a_run_is_erased(stage, taken)
    a_backup_is_put_back(stage, taken)
    assert stage.unread == []


def the_log_gets_a_witness(stage: EvidenceStage) -> tlog.NoteKey:
    vkey = httpx.get(f"{stage.url}/v1/log/keys", trust_env=False, timeout=30).text.strip()
    (stage.desk / "log.vkey").write_text(vkey)
    witness = stage.start_witness(vkey)
    stage.restart_brokers(LOG_POLICY_FILE=str(stage.desk / "log.policy"))
    policy = tlog.read_log_policy((stage.desk / "log.policy").read_text())
    _, note = tlog.read_signed_head(stage.checkpoint(), tlog.read_vkey(vkey).name)
    assert set(policy.check(note)) == {"w"}
    assert witness.process.poll() is None
    return tlog.read_vkey(vkey)


def a_run_is_approved_and_done_another_waits(stage: EvidenceStage) -> None:
    for run in (RUN, WAITING):
        parked = stage.agent_until(run, "has settings", run.replace("-", "_"), "team")
        assert parked.wait_end(AGENT_S) != 0
    question = stage.waiting_question(RUN)
    answered = stage.command("approval", "approve", question, "--note", "looked at it", "--yes", client="dana")
    assert answered.process.returncode == 0, answered.said
    done = stage.agent_until(RUN, "active")
    assert done.wait_end(AGENT_S) == 0
    (stage.desk / "head.txt").write_bytes(stage.checkpoint())


def a_receipt_leaves_the_house(stage: EvidenceStage) -> bytes:
    """Step, policy text, approval, credential and its end are answered from one file, by the public keys alone."""
    exported = stage.readme("keys export")
    assert exported.code == 0, exported.err
    got = stage.readme("receipt get")
    assert got.code == 0, got.err
    data = (stage.desk / "order.json").read_bytes()
    checked = verify_offline(stage)
    assert checked["complete"] is True
    assert "https://" not in (stage.desk / "order.html").read_text()
    events = read(stage, data).events
    kinds = [event.type for event in events]
    assert {"approval_decided", "grant_issued", "grant_revoked", "run_ended"} <= set(kinds)
    return data


def read(stage: EvidenceStage, data: bytes, keys: str = "keys.json") -> receipt.Verified:
    return receipt.verify(
        json.loads(data),
        keys=json.loads((stage.desk / keys).read_text()),
        log_policy=(stage.desk / "log.policy").read_text(),
    )


def verify_offline(stage: EvidenceStage) -> Any:  # noqa: ANN401 - JSON
    """The README's line, in a process that knows nothing of the brokers."""
    done = stage.offline(*stage.readme_words("receipt verify"), "--json")
    assert done.code == 0, done.err
    return done.document


def the_witness_refuses_a_fork(stage: EvidenceStage, key: tlog.NoteKey) -> None:
    """Even one that is signed by the log's own key: somebody has all rights in Vault."""
    head, _ = tlog.read_signed_head(stage.checkpoint(), key.name)
    leaves = [merkle.leaf_hash(b"another history %d" % number) for number in range(head.size)]
    edge, _ = Edge().append(leaves)
    text = tlog.Head(key.name, head.size, edge.root).text
    answer = stage.vault.request(
        "PUT", "transit/sign/stepgrant-heads", {"input": base64.b64encode(text.encode()).decode()}
    )
    signature = base64.b64decode(str(answer["data"]["signature"]).rpartition(":")[2])
    note = tlog.Note(text, (tlog.NoteSignature(key.name, key.id, signature),))
    note.verified([key])
    body = tlog.AddCheckpoint(head.size, (), note.encoded()).encoded()
    url = (stage.desk / "log.policy").read_text().splitlines()[1].split()[3]
    refused = httpx.post(f"{url}/add-checkpoint", content=body, trust_env=False, timeout=30)
    assert refused.status_code in {409, 422}, refused.text


def keys_are_rotated(stage: EvidenceStage, taken: bytes) -> None:
    """The keys are Vault's, where the brokers may only sign: the command says what its administrator has to do."""
    before = {key["kid"] for key in stage.say("keys", "list", "--json").document["keys"]}
    told = stage.readme("keys rotate")
    assert told.code == 5
    (path,) = re.findall(r"vault write -f (\S+)", told.err)
    stage.vault.request("POST", path, {})
    wait_for(lambda: len(stage.say("keys", "list", "--json").document["keys"]) > len(before), AGENT_S, lambda: "no key")
    assert read(stage, taken).complete


def history_is_decided_again(stage: EvidenceStage) -> None:
    """By the engine that decided: OPA, which has to be on the path here. Another one proves nothing."""
    told = stage.readme("decision replay", "--json")
    assert told.code == 1
    assert told.document["not_replayable"] == told.document["decisions"] > 0
    stage.find_opa()
    done = stage.readme("decision replay", "--json")
    assert done.code == 0, done.err
    assert done.document["equal"] == told.document["decisions"]


def a_candidate_is_tried_on_what_waits(stage: EvidenceStage) -> None:
    """It says what would change, and changes nothing: no entry, no question, no answer."""
    stage.candidate()
    before = stage.counts()
    done = stage.readme("policy preflight", "--json")
    assert done.code == 0, done.err
    assert WAITING in done.out
    assert stage.counts() == before


def the_log_is_exported_in_two_goes(stage: EvidenceStage) -> None:
    """What comes later goes behind it; nothing is missing in between."""
    out = stage.desk / "events.jsonl"
    assert stage.readme("ledger export").code == 0
    first = out.read_text().splitlines()
    size = int(stage.checkpoint().split(b"\n")[1])
    assert stage.say("quarantine", "agent", "nobody", "--beforehand", "--yes").code == 0
    wait_for(lambda: int(stage.checkpoint().split(b"\n")[1]) > size, AGENT_S, lambda: "the log stands still")
    assert stage.readme("ledger export").code == 0
    lines = out.read_text().splitlines()
    assert lines[: len(first)] == first
    positions = [json.loads(line)["metadata"]["sequence"] for line in lines]
    assert positions == list(range(len(lines)))
    assert len(lines) > len(first)


def the_whole_database_is_checked(stage: EvidenceStage) -> None:
    done = stage.readme("ledger verify")
    assert done.code == 0, done.out + done.err


def a_run_is_erased(stage: EvidenceStage, taken: bytes) -> None:
    refused = stage.say("run", "erase", WAITING, "--yes")
    assert refused.code != 0
    done = stage.readme("run erase")
    assert done.code == 0, done.err
    again = stage.say("receipt", "get", RUN)
    assert again.code == 0, again.err
    # The new key signs by now, or not yet: who has both reads it in any case.
    assert stage.say("keys", "export", "--out", "keys-now.json").code == 0
    assert read(stage, again.out.encode(), "keys-now.json").complete
    assert read(stage, taken).complete
    checked = stage.say("ledger", "verify")
    assert checked.code == 0, checked.out + checked.err


def a_backup_is_put_back(stage: EvidenceStage, taken: bytes) -> None:
    stage.end_brokers()
    stage.copy_store(STORE, "backup")
    stage.restart_brokers()
    lost = stage.agent_until("order-1731", "has settings", "order_1731", "team")
    assert lost.wait_end(AGENT_S) != 0
    size = int(stage.checkpoint().split(b"\n")[1])
    wait_for(lambda: int(stage.checkpoint().split(b"\n")[1]) >= size, AGENT_S, lambda: "the log stands still")
    stage.end_brokers()
    stage.copy_store("backup", STORE)
    refused = stage.say("serve")
    assert refused.code != 0
    assert "db restored" in refused.err
    done = stage.readme("db restored")
    assert done.code == 0, done.err
    stage.restart_brokers()
    with stage.people() as people:
        runs = {run["key"]: run["state"] for run in people.get("/v1/runs", agent=stage.agent)["runs"]}
    assert "order-1731" not in runs
    assert runs[WAITING] == "quarantined"
    assert read(stage, taken).complete
    checked = stage.say("ledger", "verify")
    assert checked.code == 0, checked.out + checked.err
