"""The demo's checks, fed the evidence of broken promises: each of them has to say so.

The story is only worth its checks. `test_demo.py` runs it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from stepgrant.receipt import Event
from stepgrant_broker.demo import evidence, leaks
from stepgrant_broker.demo.checks import Check, Checks, Finding

TARGETS = ("billing", "mail")


def note(target: str, **changes: object) -> dict[str, Any]:
    return {
        "did": "rotated",
        "key_id": f"{target}/rotation-1",
        "replaces": f"{target}/old",
        "idempotency_key": f"key-{target}",
        "run": "run_1",
        "step": f"rotate:{target}",
        "epoch": 1,
        "grant": f"grn_{target}",
        "redeemed": True,
        **changes,
    }


def books(**changes: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {"billing": [note("billing")], "mail": [note("mail")], **changes}


def event(
    seq: int,
    kind: str,
    *,
    epoch: int = 1,
    step: str | None = None,
    disclosed: Mapping[str, Any] | None = None,
    **fields: Any,  # noqa: ANN401 - members of an entry
) -> Event:
    return Event(
        seq=seq,
        ts=seq,
        type=kind,
        step=step,
        attempt=1,
        epoch=epoch,
        hash=str(seq),
        fields=fields,
        disclosed=disclosed or {},
    )


def test_one_failed_check_fails_the_demo_and_is_told_like_the_others() -> None:
    told: list[Check] = []
    checks = Checks(told.append, chapter="one")

    assert checks.check("this holds", len("seen") > 0, "seen")
    assert not checks.check("this does not", Finding(holds=False, evidence="seen too"))

    assert not checks.all_hold
    assert [made.claim for made in checks.failed] == ["this does not"]
    assert [made.evidence for made in told] == ["seen", "seen too"]


def test_a_demo_without_checks_has_shown_nothing() -> None:
    assert not Checks(lambda _: None).all_hold


def test_one_note_each_is_exactly_once() -> None:
    assert evidence.rotated_once(books(), TARGETS).holds


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (books(mail=[note("mail"), note("mail", grant="grn_other")]), "mail 2x"),
        (books(mail=[]), "mail 0x"),
        (books(search=[note("search")]), "search 1x"),
        ({}, "no books"),
    ],
    ids=["twice", "never", "a target that nobody asked for", "no books"],
)
def test_anything_but_once_is_found_in_the_books(broken: Mapping[str, Any], told: str) -> None:
    finding = evidence.rotated_once(broken, TARGETS)
    assert not finding.holds
    assert told in finding.evidence


def test_a_line_that_is_still_being_written_is_left_for_later(tmp_path: Path) -> None:
    file = tmp_path / "book.jsonl"
    file.write_text(json.dumps(note("mail")) + "\n" + '{"did": "rot')
    assert evidence.read_book(file) == [note("mail")]


def test_a_process_that_made_a_plan_of_its_own_is_found_by_its_label() -> None:
    assert evidence.one_plan(books()).holds
    assert not evidence.one_plan(books(mail=[note("mail", key_id="mail/rotation-2")])).holds


def test_revoking_is_once_at_the_keeper_and_exactly_these_keys() -> None:
    keys = ["billing/old", "mail/old"]
    revoked: dict[str, object] = {"did": "revoked_old", "keys": keys}
    assert evidence.revoked_once({"mail": [revoked]}, "mail", keys).holds
    broken_books: list[dict[str, list[dict[str, object]]]] = [
        {"mail": [revoked, revoked]},
        {"mail": []},
        {"billing": [revoked]},
        {"mail": [{**revoked, "keys": ["billing/old"]}]},
    ]
    for broken in broken_books:
        assert not evidence.revoked_once(broken, "mail", keys).holds


# ---------------------------------------------------------------------------------------------- the run's own entries


def redeemed(target: str, seq: int) -> list[Event]:
    step = f"rotate:{target}"
    return [
        event(seq, "step_prepared", step=step, body={"idempotency_key": f"key-{target}"}),
        event(seq + 1, "grant_redeemed", step=step, grant={"jti": f"grn_{target}"}),
    ]


def test_each_act_in_a_book_has_a_grant_that_was_redeemed_once() -> None:
    assert evidence.acts_were_granted(books(), [*redeemed("billing", 0), *redeemed("mail", 2)]).holds


@pytest.mark.parametrize(
    ("broken", "events"),
    [
        (books(), redeemed("billing", 0)),
        (books(), [*redeemed("billing", 0), *redeemed("mail", 2), *redeemed("mail", 4)]),
        (books(mail=[note("mail", redeemed=False)]), [*redeemed("billing", 0), *redeemed("mail", 2)]),
        (books(mail=[note("mail"), note("mail")]), [*redeemed("billing", 0), *redeemed("mail", 2)]),
        (books(mail=[note("mail", idempotency_key="other")]), [*redeemed("billing", 0), *redeemed("mail", 2)]),
        ({}, [*redeemed("billing", 0)]),
    ],
    ids=["not redeemed", "redeemed twice", "taken offline", "one grant, two acts", "another idempotency key", "no act"],
)
def test_an_act_without_a_grant_of_its_own_is_found(broken: Mapping[str, Any], events: list[Event]) -> None:
    assert not evidence.acts_were_granted(broken, events).holds


def test_a_refused_request_is_no_act() -> None:
    refused = {"did": "refused", "status": 401, "code": "invalid_token"}
    assert evidence.acts({"billing": [note("billing"), refused]}) == [note("billing")]


def test_a_lease_that_was_taken_while_it_ran_is_found() -> None:
    lapsed = event(1, "run_resumed", epoch=2, body={"kind": "resume", "lease_lapsed": True})
    assert evidence.leases_lapsed([lapsed]).holds
    assert not evidence.leases_lapsed([]).holds
    for body in ({"kind": "takeover", "lease_lapsed": True}, {"kind": "resume", "lease_lapsed": False}):
        assert not evidence.leases_lapsed([lapsed, event(2, "run_resumed", epoch=3, body=body)]).holds


def held(seq: int, epoch: int, jkt: str) -> Event:
    return event(seq, "run_opened" if seq == 0 else "run_resumed", epoch=epoch, agent={"jkt": jkt})


def test_each_resume_has_a_key_of_its_own_and_the_next_epoch() -> None:
    assert evidence.keys_are_fresh([held(0, 1, "a"), held(1, 2, "b")]).holds
    assert not evidence.keys_are_fresh([held(0, 1, "a"), held(1, 2, "a")]).holds
    assert not evidence.keys_are_fresh([held(0, 1, "a"), held(1, 3, "b")]).holds
    assert not evidence.keys_are_fresh([held(0, 1, "a")]).holds


@pytest.mark.parametrize("late", ["grant_issued", "grant_redeemed", "step_completed", "decision", "step_replayed"])
def test_whatever_a_fenced_holder_still_got_is_found(late: str) -> None:
    story = [held(0, 1, "a"), event(1, late, epoch=1), held(2, 2, "b")]
    assert evidence.fenced_got_nothing(story).holds
    finding = evidence.fenced_got_nothing([*story, event(3, late, epoch=1)])
    assert not finding.holds
    assert finding.evidence == f"{late} of epoch 1"


def test_the_broker_may_take_back_what_a_fenced_holder_had() -> None:
    taken = [event(2 + n, kind, epoch=1) for n, kind in enumerate(sorted(evidence.ABOUT_OLDER_EPOCHS))]
    assert evidence.fenced_got_nothing([held(0, 1, "a"), held(1, 2, "b"), *taken]).holds


def grant(**changes: object) -> list[Event]:
    facts = {"jti": "grn_1", "exp": 60_000, "audience": "http://127.0.0.1:1", "resource": "mail", **changes}
    issued = event(
        0, "grant_issued", step="rotate:mail", disclosed={"action.resource": facts["resource"]},
        grant={"jti": facts["jti"], "exp": facts["exp"]}, body={"audience": facts["audience"], "issued_at": 0},
    )  # fmt: skip
    return [issued, event(1, "grant_revoked", grant={"jti": facts["jti"]})]


@pytest.mark.parametrize(
    "events",
    [
        grant(audience="http://127.0.0.1:2"),
        grant(exp=60_001),
        grant(exp=0),
        grant(exp=None),
        grant(resource="billing"),
        grant()[:1],
        [*grant(), *grant()],
        [],
    ],
    ids=["elsewhere", "too long", "dead at once", "no end", "of another resource", "alive", "issued twice", "none"],
)
def test_a_grant_that_is_not_narrow_is_found(events: list[Event]) -> None:
    assert evidence.grants_are_narrow(grant(), {"mail": "http://127.0.0.1:1"}, 60_000).holds
    assert not evidence.grants_are_narrow(events, {"mail": "http://127.0.0.1:1"}, 60_000).holds


def approval(*, kind: str = "person", epoch: int = 2, verdict: str = "approve", granted: str = "apr_1") -> list[Event]:
    return [
        event(0, "approval_requested", step="revoke-old", approval={"id": "apr_1"}),
        event(1, "approval_decided", by={"kind": kind}, body={"verdict": verdict}, approval={"id": "apr_1"}),
        event(2, "grant_issued", step="revoke-old", epoch=epoch, approval={"id": granted}),
    ]


def test_the_last_step_rests_on_the_answer_of_a_person() -> None:
    assert evidence.approved_by_a_person(approval(), "revoke-old").holds
    for broken in (
        approval(kind="agent"),
        approval(epoch=1),
        approval(verdict="deny"),
        approval(granted="apr_2"),
        approval()[1:],
        [*approval(), *approval()],
    ):
        assert not evidence.approved_by_a_person(broken, "revoke-old").holds


def settled(*, verdict: str = "done", via: str = "rotate:mail~reconcile~1", grants: int = 1) -> list[Event]:
    step = "rotate:mail"
    return [
        *(event(0, "grant_issued", step=step) for _ in range(grants)),
        event(1, "step_in_doubt", step=step),
        event(2, "grant_issued", step="rotate:mail~reconcile~1"),
        event(3, "step_reconciled", step=step, body={"verdict": verdict, "via": via}),
    ]


def test_doubt_is_settled_by_a_look_under_its_own_grant_and_never_by_doing_it_again() -> None:
    assert evidence.settled_by_looking(settled(), "rotate:mail").holds
    for broken in (settled(verdict="not_done"), settled(via="nothing"), settled(grants=2), settled()[:2]):
        assert not evidence.settled_by_looking(broken, "rotate:mail").holds


# --------------------------------------------------------------------------------------------------- looking for leaks

TOKEN = "eyJ0eXAiOiJhdCtqd3QifQ.eyJhdWQiOiJodHRwIn0." + "A" * 86  # made up


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key.json"
    path.write_text(json.dumps({"jwk": {"kty": "EC", "x": "cHVibGlj", "d": "c2VjcmV0LWtleQ"}}))
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    "leaked",
    [TOKEN, "sgo_" + "a" * 32, "-----BEGIN EC PRIVATE KEY-----", "c2VjcmV0LWtleQ", "secret-key"],
    ids=["token", "operator token", "private key", "known", "known, decoded"],
)
def test_a_secret_that_rests_is_found_wherever_it_lies(tmp_path: Path, key_file: Path, leaked: str) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "stepgrant.db-wal").write_bytes(b"\x00\xff" + leaked.encode() + b"\x00")
    finding = leaks.nothing_leaked(tmp_path, [key_file])
    assert not finding.holds
    assert "stepgrant.db-wal" in finding.evidence
    assert leaked not in finding.evidence


def test_key_files_may_hold_keys_but_only_for_their_owner(tmp_path: Path, key_file: Path) -> None:
    (tmp_path / "log").write_text("cHVibGlj")
    assert leaks.nothing_leaked(tmp_path, [key_file]).holds
    key_file.chmod(0o640)
    assert leaks.nothing_leaked(tmp_path, [key_file]).evidence == "key.json can be read by others"


def test_a_search_that_knows_nothing_or_sees_nothing_finds_nothing_out(tmp_path: Path, key_file: Path) -> None:
    assert not leaks.nothing_leaked(tmp_path, [key_file]).holds
    (tmp_path / "log").write_text("nothing")
    assert leaks.nothing_leaked(tmp_path, [key_file]).holds
    assert not leaks.nothing_leaked(tmp_path, []).holds
    key_file.write_text("{}")
    assert leaks.nothing_leaked(tmp_path, [key_file]).evidence == "key.json holds no secret to look for"
