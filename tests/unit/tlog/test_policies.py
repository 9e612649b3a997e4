"""Which log and which witnesses are trusted, as text, and which heads count under it."""

from __future__ import annotations

from itertools import count

import pytest

from notehands import ALICE, BOB, LOG, OTHER, Hand, head_of, signed
from stepgrant import tlog

POLICY = f"""# whom the auditor trusts
log {LOG.key.vkey}
witness alice {ALICE.key.vkey} https://alice.example/witness
witness bob {BOB.key.vkey}

group both all alice bob
group some any alice bob
quorum QUORUM
"""


def policy(quorum: str) -> tlog.LogPolicy:
    return tlog.read_log_policy(POLICY.replace("QUORUM", quorum))


@pytest.mark.parametrize(
    ("quorum", "hands"),
    [("none", []), ("alice", [ALICE]), ("some", [BOB]), ("both", [ALICE, BOB])],
)
def test_head_counts_with_the_witnesses_that_are_asked_for(quorum: str, hands: list[Hand]) -> None:
    times = policy(quorum).check(tlog.read_note(signed(head_of(3), LOG, *hands)))
    assert set(times) == {{ALICE: "alice", BOB: "bob"}[hand] for hand in hands}


@pytest.mark.parametrize(("quorum", "hands"), [("alice", [BOB]), ("some", []), ("both", [ALICE])])
def test_head_without_them_does_not(quorum: str, hands: list[Hand]) -> None:
    with pytest.raises(tlog.WitnessesMissing, match="too few witnesses"):
        policy(quorum).check(tlog.read_note(signed(head_of(3), LOG, *hands)))


def test_head_without_the_logs_own_signature_does_not_count() -> None:
    for hands in ([OTHER, ALICE], [ALICE, BOB]):
        with pytest.raises(tlog.NoteInvalid, match="unknown_key"):
            policy("some").check(tlog.read_note(signed(head_of(3), *hands)))


def test_a_group_of_groups() -> None:
    text = POLICY.replace("quorum QUORUM", "group top 2 both alice\nquorum top")
    read = tlog.read_log_policy(text)
    assert read.witnesses["alice"].url == "https://alice.example/witness"
    assert set(read.check(tlog.read_note(signed(head_of(3), LOG, ALICE, BOB)))) == {"alice", "bob"}
    with pytest.raises(tlog.WitnessesMissing):
        read.check(tlog.read_note(signed(head_of(3), LOG, ALICE)))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("quorum carol", "line 8"),
        ("group all-of-them 3 alice bob\nquorum none", "a number of the members"),
        ("group twice any alice alice\nquorum none", "named twice"),
        ("group alice any bob\nquorum none", "is taken"),
        ("group none any bob\nquorum none", "is taken"),
        (f"witness carol {LOG.key.vkey}\nquorum none", "not of kind 4"),
        (f"log {ALICE.key.vkey}\nquorum none", "not of kind 1"),
        ("quorum none\nquorum none", "line 9"),
        ("nonsense", "line 8"),
        ("", "incomplete"),
    ],
    ids=count(),  # the keys are new in each process
)
def test_what_is_no_policy_is_refused(line: str, why: str) -> None:
    with pytest.raises(tlog.LogPolicyInvalid, match=why):
        tlog.read_log_policy(POLICY.replace("quorum QUORUM\n", line))
