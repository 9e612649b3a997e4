"""Entries that a timeline does not expect: told as far as they go, never dropped, never in the way of the rest."""

from __future__ import annotations

import pytest

from receipts import START
from stepgrant import receipt
from stepgrant.canonical import dumps
from stepgrant.cli import timeline
from stepgrant.cli.timeline import Story
from stories import Run


def told(run: Run) -> Story:
    return timeline.tell(receipt.verify(dumps(run.receipt()), run.book.jwks).events)


def texts(story: Story, step: str | None = None) -> list[str]:
    return [line.text for block in story.blocks if block.step == step for line in block.lines]


@pytest.mark.parametrize("odd", [[], {}, 7, None, "\x1b[2J"])
def test_an_action_that_makes_no_sense_is_told_as_far_as_it_goes(odd: object) -> None:
    """Whoever signed a receipt decides what is in it, and nothing of it may keep the rest untold."""
    run = Run()
    run.opened()
    run.add(5, "step_suspended", step="s", attempt=1, action={"tool": odd, "effect": odd, "resource_c": None})
    story = told(run)
    assert texts(story, "s") == ["suspended by the framework: neither failed nor in doubt"]
    assert all(fact.isprintable() for block in story.blocks for fact in block.facts)


def test_entry_of_an_unknown_type_is_told_not_dropped() -> None:
    run = Run()
    run.opened()
    run.add(5, "run_admired", body={})
    assert texts(told(run))[1] == "an entry of a newer kind: run_admired"


def test_entry_of_another_shape_does_not_keep_the_rest_untold() -> None:
    run = Run()
    run.opened()
    run.add(5, "grant_issued", step="s", attempt=1, grant={"jti": "grn_1"}, body={})
    run.ended(6)
    story = told(run)
    assert texts(story, "s") == ["grant_issued: this entry has not what its type should have"]
    assert texts(story)[-1] == "completed; this is final"


@pytest.mark.parametrize(("verb", "words"), [("resume", "may resume"), ("takeover", "may take over")])
def test_question_about_the_run_itself_tells_who_wants_it(verb: str, words: str) -> None:
    run = Run()
    run.opened()
    asker = dumps({"run": "run_1", "subject": "workload:ada\x1b"})
    action = {"tool": f"stepgrant.run.{verb}", "resource_c": None, "effect": "once"}
    asked = {"binding_c": run.book.commit("approval.binding", "sha-256:b"), "issuer": "jwt", "groups": [],
             "quorum": 1, "answer_by": START + 60_005, "valid_for_ms": 900_000}  # fmt: skip
    run.add(5, "approval_requested", step="~resume", attempt=1, approval={"id": "apr_1"}, body=asked,
            action=action | {"digest_c": run.book.commit_digest("action.digest", asker)})  # fmt: skip
    line = texts(told(run))[-1]
    assert line == f"apr_1 asks any approver whether workload:ada\\x1b {words}, 1 min to answer"


def test_death_that_an_operator_vouched_for_is_not_told_as_the_issuers_word() -> None:
    run = Run()
    run.opened()
    action = run.action("t", None, "once", {})
    run.issued(2, "s", action, "grn_1", revocation="confirmed", redeem="optional", intent=True)
    run.over(4, "s", "grn_1", "fenced")
    run.over(9, "s", "grn_1", "declared_dead")
    assert texts(told(run), "s")[-1] == "an operator declares it dead, after 7 ms"
