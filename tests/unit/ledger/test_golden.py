"""Format v1 is frozen: the same acts give the same bytes, and the bytes of before are understood for ever."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.erased_tale import DAY_MS, ERASED_TYPES
from fakes.lost_tale import LOST_TYPES
from fakes.restored_tale import RESTORED_TYPES
from fakes.tale import RUN_TYPES, TENANT_TYPES
from stepgrant import canonical, merkle, receipt, tlog
from stepgrant._receipt_entries import check_link, read_event
from stepgrant_broker.domain import fold
from stepgrant_broker.domain.entries import Entry, EntryType, check_members
from stepgrant_broker.domain.state import ApprovalStatus, GrantStatus, RunState, StepState, View
from vectors.make import HERE, make

PINNED = {
    "entry_v1/run.jsonl": "sha-256:TRvv-zWMlBH6y4R8e5l5aPwxVESzE3pCru2V2UpxiXA",
    "entry_v1/tenant.jsonl": "sha-256:AZj9zV9oRXEx6geMnnGkDfd2qETFlUvjOXx5pcMEN0w",
    "entry_v1/receipt.json": "sha-256:5WUHGpJQckkkDRemgGPB07rKhFnS7kpcixGDt2i3BWk",
    "entry_v1/lost.jsonl": "sha-256:NqO2T6p6Qjr4zXT6FUKg8SeSM36cQAZvJHpyTCmt278",
    "entry_v1/restored.jsonl": "sha-256:SWBHRkudczVm3ngdcVlTPZM1RKY8A4neQ3sI_F0hBNU",
    "entry_v1/restored_tenant.jsonl": "sha-256:jr77KIMk2QlMME8aGMEK_E0TgodutbSiykcmTwySAUg",
    "entry_v1/erased.jsonl": "sha-256:eaSivO76exDBQe_D5UzVP264NFX7lyLGMcPzGH1Hp-M",
    "entry_v1/kept.jsonl": "sha-256:wiaXAonXmefJ7YuQgYrFtcCZYTNfjn6WPvPFFJlAzEc",
    "receipt_v2/erased.json": "sha-256:e0VwMf6Tva4wPZ7tQzwbu_uslmeHxofIALkUI3OH_o0",
    "entry_v1/signing_keys.jsonl": "sha-256:FNfG3KW1oiguar7bCKrfvjfsNzIMwHLg5FKhxnE8MP4",
    "entry_v1/keys.json": "sha-256:5iYzVofbrCIa8Hz02Olyxjdq-vgYKHigc1AmBxZRO4E",
    "receipt_v2/run.json": "sha-256:TyxyBAgSUUbQtmhDIJvo7tlyLsmOxWX2utGouRkDfcs",
    "receipt_v2/grant.json": "sha-256:i2SX7z-bl9fjDN3Y1Ohr_iYqW9JSS8fwHfCCMBNd34o",
    "receipt_v2/step.json": "sha-256:Ct6RjGPmsiXDZ0yLa1sAaXykOdaZvaYn9bwLrd_sc14",
    "log_v1/vkey": "sha-256:qdY71dYOPuT60ackEFWENMWAyxa5ie-Dz9hzM6IqU_s",
    "log_v1/checkpoint": "sha-256:END9OFEmgccA6yxrrRO2Nh60seywu_onhfFtyyBhyQg",
    "log_v1/tile-0": "sha-256:PH_Oqqhp-E8-af5sEgQbIsCJMMQUjc9O_ns1EMWDtCM",
    "log_v1/tile-entries": "sha-256:Qb2VhX7wjTzOCPszdC3xvxr461dUpuFUcOhvfBy8ab8",
    "log_v1/proof-of-entry-0": "sha-256:lU5RRQ9A7da3q0cVTQ8jbHzjVYN4U9zXfG9wuGhMBvs",
}
"""Written a second time here, so that regenerating the files alone does not make a change pass."""
NO_LONGER_MADE = {"entry_v1/receipt.json"}
"""Version 1 of receipts verifies for ever; nothing makes it any more."""


def lines(name: str) -> list[bytes]:
    return (HERE / "entry_v1" / name).read_bytes().splitlines()


@pytest.mark.parametrize("name", sorted(PINNED))
def test_the_golden_files_are_those_of_before(name: str) -> None:
    assert canonical.digest_bytes((HERE / name).read_bytes()) == PINNED[name]


def test_every_golden_file_is_pinned() -> None:
    assert {str(path.relative_to(HERE)) for path in HERE.glob("*_v*/*")} == PINNED.keys()


async def test_the_same_acts_give_the_same_bytes(tmp_path: Path) -> None:
    """If this fails, an entry is written differently from before: see tests/vectors/make.py before regenerating."""
    made = await make(tmp_path)
    for name in ("run.jsonl", "tenant.jsonl", "lost.jsonl", "restored.jsonl", "restored_tenant.jsonl", "erased.jsonl"):
        for number, (now, before) in enumerate(zip(made[f"entry_v1/{name}"].splitlines(), lines(name), strict=True)):
            assert now.decode() == before.decode(), f"{name} line {number + 1}"
    assert made == {name: (HERE / name).read_bytes() for name in PINNED.keys() - NO_LONGER_MADE}


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("run.jsonl", RUN_TYPES),
        ("tenant.jsonl", TENANT_TYPES),
        ("lost.jsonl", LOST_TYPES),
        ("restored.jsonl", RESTORED_TYPES),
        ("erased.jsonl", ERASED_TYPES),
        ("kept.jsonl", ERASED_TYPES),
        ("signing_keys.jsonl", frozenset({"policy_activated", "key_rotated", "key_revoked"})),
        ("restored_tenant.jsonl", TENANT_TYPES - {"decision"} | {"store_restored"}),
    ],
)
def test_every_type_that_use_cases_write_is_among_them_and_chained(name: str, types: frozenset[str]) -> None:
    before = None
    seen = set()
    for position, data in enumerate(lines(name)):
        event = read_event(data, position)
        run = event.fields["run"]
        assert run is None or isinstance(run, str)
        check_link(event, before, tenant="acme", run=run, position=position)
        check_members(event.fields)
        assert event.hash == canonical.b64u(hashlib.sha256(data).digest())
        seen.add(event.type)
        before = event
    assert seen == types


def folded(name: str) -> View:
    view = View()
    for data in lines(name):
        event = read_event(data)
        members, kind = dict(event.fields), EntryType(event.type)
        digest = canonical.b64u_decode(event.hash)
        place = ("acme", str(members["run"]), event.seq, event.ts, kind, event.step)
        view = fold.apply(view, Entry(*place, digest, event.hash, data, members))
    return view


def test_entries_of_before_are_folded_as_they_were() -> None:
    view = folded("run.jsonl")
    assert view.run is not None
    assert (view.run.state, view.run.epoch, view.run.step_count) == (RunState.COMPLETED, 3, 8)
    assert dict(view.run.history.meters) == {"usd": 2_500_000}
    assert {key: step.state for key, step in view.steps.items()} == {
        "plan": StepState.RECORDED,
        "s1": StepState.COMPLETED,
        "s2": StepState.DENIED,
        "s3": StepState.FAILED,
        "s4": StepState.SUSPENDED,
        "s5": StepState.COMPLETED,
        "s5~reconcile~1": StepState.COMPLETED,
        "s6": StepState.PREPARED,
    }


def test_lost_ids_of_before_are_folded_as_they_were() -> None:
    view = folded("lost.jsonl")
    assert view.run is not None
    assert (view.run.state, view.run.epoch, view.run.step_count) == (RunState.COMPLETED, 2, 8)
    names = {key: step.same_as for key, step in view.steps.items() if step.state is StepState.ADOPTED}
    assert names == {"call_5": "call_1", "call_6": "call_2", "call_7": "call_3"}
    assert {key for key, step in view.steps.items() if step.state is StepState.COMPLETED} == view.steps.keys() - names
    assert (view.steps["call_3"].duplicate, view.steps["call_8"].duplicate) == ("replay", "run")
    assert view.steps["call_8"].duplicate_of == "call_4"


def test_restores_of_before_are_folded_as_they_were() -> None:
    view = folded("restored.jsonl")
    assert view.run is not None
    assert (view.run.state, view.run.epoch, view.run.park_reason) == (RunState.PARKED, 1_000_001, "released")
    assert {key: (step.state, step.doubt) for key, step in view.steps.items()} == {
        "s1": (StepState.IN_DOUBT, "restored"),
        "s2": (StepState.IN_DOUBT, "restored"),
    }
    assert [grant.status for grant in view.grants.values()] == [GrantStatus.REVOKED]
    assert [approval.status for approval in view.approvals.values()] == [ApprovalStatus.VOID]


def test_erasures_of_before_are_folded_as_they_were() -> None:
    asked, kept = (folded(name).run for name in ("erased.jsonl", "kept.jsonl"))
    assert asked is not None
    assert kept is not None
    assert (asked.state, asked.erased_at, asked.ended_at) == (RunState.COMPLETED, asked.last_ts, asked.last_ts)
    assert kept.erased_at == (kept.ended_at or 0) + 30 * DAY_MS


def test_a_receipt_of_an_erased_run_shows_no_value_and_verifies() -> None:
    data, keys = (HERE / "receipt_v2/erased.json").read_bytes(), (HERE / "entry_v1" / "keys.json").read_bytes()
    told = receipt.verify(data, keys)
    assert (told.complete, told.disclosed, told.events[-1].type) == (True, 0, "run_erased")
    assert told.hidden > 0


@pytest.mark.parametrize("name", ["entry_v1/receipt.json", "receipt_v2/run.json"])
def test_a_receipt_of_before_verifies_and_one_flipped_byte_makes_it_fail(name: str) -> None:
    data, keys = (HERE / name).read_bytes(), (HERE / "entry_v1" / "keys.json").read_bytes()
    told = receipt.verify(data, keys)
    assert (told.complete, told.hidden, len(told.events)) == (True, 0, len(lines("run.jsonl")))
    for position in range(0, len(data), 997):
        flipped = bytearray(data)
        flipped[position] ^= 1
        with pytest.raises(receipt.ReceiptError):
            receipt.verify(bytes(flipped), keys)


def test_the_log_of_before_verifies() -> None:
    """Receipt, checkpoint, tiles and proof file say one thing, under the log's key alone."""
    files = {path.name: path.read_bytes() for path in (HERE / "log_v1").iterdir()}
    key = tlog.read_vkey(files["vkey"].decode())
    head, note = tlog.read_signed_head(files["checkpoint"], key.name)
    assert note.verified([key]) == {key: None}
    leaves = tlog.tiles.read_bundle(files["tile-entries"], head.size)
    assert files["tile-0"] == b"".join(map(merkle.leaf_hash, leaves))
    edge, _ = merkle.Edge().append(map(merkle.leaf_hash, leaves))
    assert edge.root == head.root
    told = receipt.verify((HERE / "receipt_v2" / "run.json").read_bytes(), files["vkey"], need_log=True)
    assert told.logged is not None
    assert [leaves[index] for index in told.logged.indexes] == [
        canonical.b64u_decode(event.hash) for event in told.events
    ]
    proof = tlog.read_proof(files["proof-of-entry-0"], key.name)
    proof.verify(canonical.b64u_decode(told.events[0].hash))
    step = receipt.verify((HERE / "receipt_v2" / "step.json").read_bytes(), files["vkey"])
    assert step.scope[0] == "step"
    assert {event.step for event in step.events} == {step.scope[1]}
    assert set(step.policies) <= set(told.policies)
    grant = receipt.verify((HERE / "receipt_v2" / "grant.json").read_bytes(), files["vkey"])
    assert [event.type for event in grant.events] == [
        "step_prepared", "decision", "approval_requested", "approval_decided", "decision", "grant_issued",
        "grant_revoked",
    ]  # fmt: skip
    assert grant.policies == told.policies
    life, whole = grant.grant(grant.scope[1]), told.grant(grant.scope[1])
    assert replace(life, holder=whole.holder) == whole  # the entry that attested the holder is not in the part
