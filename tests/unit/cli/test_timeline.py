"""The story of a run: what a person reads of it, from nothing but its verified entries."""

from __future__ import annotations

import json

import pytest

from receipts import START, Book
from stepgrant import receipt
from stepgrant.canonical import dumps
from stepgrant.cli import timeline, timeline_view
from stepgrant.cli.output import Output
from stepgrant.cli.timeline import Mark, Story
from stories import HOLDER, Run, eventful


def told(run: Run, now: int | None = None) -> Story:
    verified = receipt.verify(dumps(run.receipt()), run.book.jwks)
    return timeline.tell(verified.events, now=now)


def texts(story: Story, step: str | None = None) -> list[str]:
    return [line.text for block in story.blocks if block.step == step for line in block.lines]


def all_texts(story: Story) -> str:
    return "\n".join(line.text for block in story.blocks for line in block.lines)


def test_steps_stand_in_their_order_between_the_events_of_the_run() -> None:
    blocks = [block.step for block in told(eventful()).blocks]
    assert blocks == [None, "plan", "read", "charge", None, None, "charge", "publish", None, "publish", None, "publish",
                      None]  # fmt: skip


def test_title_and_facts_name_the_exact_action() -> None:
    block = next(block for block in told(eventful()).blocks if block.step == "charge")
    assert block.title == "3. charge"
    assert block.facts == ("card.charge", "(amount=100, invoice=inv_9)", "once", "epoch 1")


def test_life_of_a_credential_is_told_with_the_time_since_it_was_issued() -> None:
    lines = texts(told(eventful()), "charge")
    issued = "credential issued: jwt for https://shop.example, at most 1 min, to be redeemed before use"
    assert lines[1] == f"{issued}, counts 100 spend_usd"
    assert lines[2] == "wkl_shop redeemed it after 50 ms, and may act for 10 s"
    assert lines[3] == "credential over after 3.27 s: its holder went silent"


def test_crash_doubt_and_hook_are_told_in_words() -> None:
    story = told(eventful())
    assert texts(story, "charge")[4] == "IN DOUBT, it may have happened: its holder went silent before it could report"
    assert texts(story)[1].startswith("the holder of epoch 1 went silent (crashed, killed or frozen)")
    assert texts(story)[2].startswith(
        "after 1.6 s resumed by workload wkl_agent (enrolled key) with a new key under epoch 2"
    )
    assert texts(story)[3] == "2 finished steps kept, not run again: plan, read"
    assert texts(story, "charge")[5].startswith("doubt settled: the hook asked the target (charge~reconcile~1)")


def test_who_approved_after_how_long_and_with_which_words() -> None:
    lines = texts(told(eventful()), "publish")
    assert lines[:3] == [
        "a person must say yes: tool_asks (policy 3:4fGh2kQx)",
        "apr_1 asks editors, 1 d to answer",
        "Ada Lovelace approved it after 1 min, saying looks right",
    ]


def test_totals() -> None:
    assert dict(told(eventful()).totals) == {
        "time": "1 min 10 s in all, 1 min 06 s of it held by nobody, 1 min from question to answer",
        "steps": "3 done with a credential, 1 recorded without one, 2 kept over a resume, 1 doubt",
        "credentials": "3 issued, 2 redeemed",
        "people": "asked 1 time",
        "holders": "1 older holder fenced",
        "ledger": "30 entries",
    }


def test_a_live_run_says_what_somebody_still_has_to_do() -> None:
    run = Run()
    run.opened()
    action = run.action("card.charge", None, "once", {})
    run.prepared(10, "charge", action)
    run.add(20, "step_in_doubt", step="charge", attempt=1, cause="tool_raised", body={"since": START + 20})
    asked = {"groups": [], "quorum": 2, "answer_by": START + 60_000, "why_again": "policy_stricter"}
    run.add(30, "approval_requested", step="publish", attempt=1, approval={"id": "apr_1"}, body=asked)
    story = told(run, now=START + 5_000)
    assert story.state == "open"
    assert story.open == (
        "approval apr_1 waits for an answer",
        "step charge is in doubt: the tool raised an error, which does not say that nothing happened",
    )
    assert dict(story.totals)["time"].startswith("5 s in all")
    assert texts(story, "publish") == [
        "apr_1 asks 2 of any approver, 59.9 s to answer; asked again: policy asks for more now"
    ]


@pytest.mark.parametrize(
    ("lapsed", "kind", "words"),
    [
        (True, "resume", "the holder of epoch 1 went silent, its lease had lapsed 2 s ago; resumed by"),
        (False, "takeover", "the holder of epoch 1 still had its lease; taken over by"),
    ],
)
def test_taking_over_says_that_the_older_holder_gets_nothing(lapsed: bool, kind: str, words: str) -> None:
    run = Run()
    run.opened()
    run.resumed(4_000, kind=kind, lapsed=lapsed, gone=2_000)
    story = told(run)
    assert texts(story)[1].startswith(words)
    assert texts(story)[1].endswith("; epoch 1 is fenced: if it wakes up, it gets nothing")
    assert dict(story.totals)["holders"] == "1 older holder fenced"


def test_same_decision_at_prepare_and_start_is_told_once() -> None:
    run = Run()
    run.opened()
    action = run.action("t", None, "once", {})
    run.prepared(1, "s", action)
    run.decided(1, "s", action, "allow", "tool_listed", phase="prepare")
    run.decided(2, "s", action, "allow", "tool_listed", phase="prepare")
    run.decided(3, "s", action, "allow", "tool_listed", phase="start")
    assert texts(told(run), "s") == [
        "allowed: tool_listed (policy 3:4fGh2kQx)",
        "decided again for the credential: the same answer",
    ]


def test_each_denial_is_told() -> None:
    run = Run()
    run.opened()
    action = run.action("t", None, "once", {})
    run.prepared(1, "s", action)
    run.decided(2, "s", action, "deny", "tool_not_listed")
    run.decided(3, "s", action, "deny", "tool_not_listed")
    story = told(run)
    assert texts(story, "s") == ["DENIED: tool_not_listed (policy 3:4fGh2kQx)"] * 2
    assert "2 denials" in dict(story.totals)["steps"]


@pytest.mark.parametrize("hostile", ["\x1b[2J\x1b[1;1Hall is well", "a\u202etxt.exe", "one\ntwo", "\x9b31m"])
def test_what_agents_and_people_wrote_cannot_act_on_the_terminal(hostile: str) -> None:
    run = Run()
    run.opened()
    action = run.action(hostile, hostile, "once", {hostile: hostile})
    run.prepared(1, hostile, action)
    run.decided(2, hostile, action, "deny", hostile)
    run.issued(3, hostile, action, "grn_1", audience=hostile, labels=[hostile], meters={hostile: 5})
    run.completed(4, hostile, hostile)
    run.over(5, hostile, "grn_1", hostile)
    story = told(run)
    for block in story.blocks:
        assert all(text.isprintable() for text in (block.title, *block.facts, *(line.text for line in block.lines)))


def test_undisclosed_values_are_left_out() -> None:
    run = eventful()
    value = run.receipt()
    value["disclosures"] = []
    verified = receipt.verify(dumps(value), run.book.jwks)
    story = timeline.tell(verified.events)
    assert "a person approved it after 1 min" in all_texts(story)
    assert "Ada" not in all_texts(story)
    assert "inv_9" not in json.dumps(timeline.as_json(story))


def test_secondary_words() -> None:
    run = Run()
    run.opened()
    action = run.action("t", None, "once", {})
    run.prepared(1, "s", action)
    run.issued(2, "s", action, "grn_1", revocation="none", redeem="optional", intent=True)
    run.add(3, "lease_recorded", step="s", attempt=1, grant={"jti": "grn_1"}, body={"lease_c": "x"})
    run.over(4, "s", "grn_1", "outcome_unknown")
    run.over(5, "s", "grn_1", "outcome_unknown")
    run.add(6, "step_failed", step="s", attempt=1, outcome={"status": "not_executed"}, body={})
    run.add(7, "step_suspended", step="s", attempt=1)
    run.add(8, "step_reconciled", step="s", attempt=1, body={"verdict": "unknown", "operator": "opr_1"})
    run.add(9, "grant_failed", step="s", attempt=1, grant={"jti": "grn_2"}, body={"detail": "no route"})
    run.add(10, "step_completed", step="s", attempt=1, outcome={"status": "completed"}, body={"withheld": True})
    run.add(11, "run_quarantined", by=("person", "Ada"), body={"by": "agent"})
    run.add(12, "run_released", by=("person", "Ada"))
    run.add(13, "run_ended", by=("person", "Ada"), outcome={"status": "cancelled"}, body={"status": "cancelled"})
    story = told(run)
    issued = "credential issued: jwt for https://shop.example, at most 1 min, a static secret, which nobody can revoke"
    assert texts(story, "s") == [
        f"{issued}, recorded before the issuer is asked",
        "the issuer's lease is recorded after 1 ms",
        "credential over after 2 ms, perhaps used: its outcome is not known",
        "the issuer confirms that it is revoked, after 3 ms",
        "did not happen: the tool said so, or no server redeemed its credential",
        "suspended by the framework: neither failed nor in doubt",
        f"{HOLDER}: still unknown",
        "no credential: no route; nothing was released",
        "completed; its result was not stored (it held a live secret, is not JSON, or is too large)",
    ]
    assert texts(story)[1:] == [
        "Ada threw the kill switch on its agent: quarantined",
        "Ada lifted the quarantine: parked",
        "cancelled by Ada; this is final",
    ]
    assert story.state == "cancelled"


def test_calls_whose_ids_were_lost() -> None:
    run = Run()
    run.opened()
    action = run.action("t", None, "once", {})
    decision = run.decision("allow", "ok")
    for at, step, word in ((1, "asked", "ask"), (2, "known", "replay")):
        body = {"phase": "begin", "engine": "test", "duplicate": word}
        run.add(at, "decision", step=step, attempt=1, action=action, decision=decision, body=body)
    run.add(3, "step_adopted", step="known", attempt=1, action=action, body={"from": "old\x1b"})
    note = run.book.commit("duplicate.note", "one was ordered")
    for at, verdict in ((4, "replay"), (5, "run")):
        body = {"verdict": verdict, "of": "old", "operator": "opr_1", "note_c": note}
        run.add(at, "duplicate_decided", step="asked", attempt=1, action=action, by=("person", "Ada"), body=body)
    story = told(run)
    asked, same, other = texts(story, "asked")
    assert asked.startswith("it equals a step that was completed before the crash; a person says if it is that one: ok")
    assert same == "Ada: this is the same as old, whose result counts, because one was ordered"
    assert other == "Ada: this is another call than old, because one was ordered"
    known, adopted = texts(story, "known")
    assert known.startswith("it is the step that was completed before the crash, says policy: ok")
    assert adopted == "the same call under a new id; it goes on as old\\x1b"


def test_a_queued_run_that_is_set_aside_and_released() -> None:
    run = Run()
    run.opened()
    run.add(0, "run_parked", body={"reason": "queued"})
    run.resumed(5, gone=5)
    why = run.book.commit("park.detail", "ValueError: no\x1b[2J")
    run.add(6, "run_parked", body={"reason": "error", "detail_c": why})
    why = run.book.commit("park.detail", "5 tries without a result")
    run.add(7, "run_parked", body={"reason": "set_aside", "detail_c": why})
    run.add(8, "run_released", by=("person", "Ada"))
    story = told(run)
    said = texts(story)
    assert said[1] == "stored for a worker"
    assert said[3:] == [
        "parked by its holder after an error (ValueError: no\\x1b[2J)",
        "set aside: nobody opens it until a person releases it (5 tries without a result)",
        "Ada released it: it may be tried again",
    ]


def test_screen_shows_every_line_uncut_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    story = told(eventful())
    timeline_view.show(story, Output())
    printed = capsys.readouterr().out
    for block in story.blocks:
        for line in block.lines:
            assert f" {line.text}\n" in printed
    assert "\x1b" not in printed
    assert not any(line.endswith(" ") for line in printed.splitlines())


def test_marks_say_what_a_line_is_about() -> None:
    marks = {line.mark for block in told(eventful()).blocks for line in block.lines}
    assert marks == set(Mark) - {Mark.PLAIN}


def test_nothing_to_tell() -> None:
    assert timeline.tell(()).blocks == ()
    assert Book().entries == []


def test_a_restore_says_what_is_not_known_and_who_goes_on() -> None:
    run = Run()
    run.opened()
    action = run.action("card.charge", None, "once", {})
    run.prepared(10, "charge", action)
    asked = {"groups": [], "quorum": 1, "answer_by": START + 60_000}
    run.add(20, "approval_requested", step="publish", attempt=1, approval={"id": "apr_1"}, body=asked)
    run.add(30, "step_in_doubt", step="charge", attempt=1, cause="restored", body={"since": START + 30})
    by = ("person", "local administrator")
    restored = {"from_epoch": 1, "origin": "broker.example/log/r1"}
    run.add(30, "run_restored", by=by, cause="restored", body=restored)
    run.add(30, "run_quarantined", by=by, cause="restored", body={"by": "restored"})
    run.add(1_030, "run_released", by=by, body={})
    story = told(run)
    lost = (
        "what this run did after that is not in the record. Epoch 1 and whatever came after it are fenced, "
        "and what people had answered is void"
    )
    assert texts(story)[1:] == [
        f"local administrator put the store back to an earlier state: {lost}",
        "quarantined after the restore: a person looks at its targets, then releases it",
        "local administrator lifted the quarantine: parked",
    ]
    assert story.state == "parked"
    assert dict(story.totals)["time"].startswith("1.03 s in all, 1 s of it held by nobody")
    assert story.open == (
        "step charge is in doubt: the store was put back to before this, and what the lost part did is not known",
    )
