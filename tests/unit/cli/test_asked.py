"""A question is answered as it is shown: the digest is computed from what is printed; any other value is noticed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from stepgrant import canonical
from stepgrant.cli import asked as about

ACTION = {"tool": "pay", "resource": "order/1", "args": {"amount": 5}}
RESUME = {"run": "run_1", "subject": "wkl_ada"}


def question(resume: Mapping[str, Any] | None = None, **bound: object) -> dict[str, Any]:
    """A question as the broker tells it, whole."""
    of = resume or {"action": ACTION["tool"], "resource": ACTION["resource"], "args": ACTION["args"]}
    named: dict[str, Any] = {
        "tenant": "acme", "run": "run_1", "step": "~resume" if resume else "s1", "digest": canonical.digest(dict(of)),
        "effect": "once", "issuer": "orders-db", "params": {"role": "rw"},
    } | bound  # fmt: skip
    tool = "stepgrant.run.takeover" if resume else "pay"
    return {
        "tool": tool, "digest": canonical.digest(named), "bound": named, "resume": resume,
        "action": {"tool": tool, "resource": None, "args": None} if resume else ACTION,
        **{name: named[name] for name in ("run", "step", "effect", "issuer")},
    }  # fmt: skip


def printed(asked: Mapping[str, Any]) -> str:
    values = (line for name, lines in about.values(asked) for line in (name, *lines))
    return "\n".join([about.heading(asked), *(f"{name} {value}" for name, value in about.facts(asked)), *values])


@pytest.mark.parametrize("asked", [question(), question(RESUME)], ids=["action", "resume"])
def test_a_whole_question_fits_its_digest(asked: dict[str, Any]) -> None:
    assert about.mismatch(asked) is None
    assert about.mismatch({**asked, "digest": "sha-256:" + "A" * 43}) is not None


@pytest.mark.parametrize("name", ["tenant", "run", "step", "digest", "effect", "issuer", "params"])
@pytest.mark.parametrize("resume", [None, RESUME], ids=["action", "resume"])
def test_no_bound_value_can_be_another_one(resume: Mapping[str, Any] | None, name: str) -> None:
    asked = question(resume)
    told = {**asked, "bound": {**asked["bound"], name: {"role": "ro"} if name == "params" else "other"}}
    assert about.mismatch(told) == "what it is bound to has another digest"


@pytest.mark.parametrize("name", ["run", "step", "effect", "issuer"])
@pytest.mark.parametrize("resume", [None, RESUME], ids=["action", "resume"])
def test_what_stands_beside_it_is_what_is_bound(resume: Mapping[str, Any] | None, name: str) -> None:
    assert about.mismatch({**question(resume), name: "other"}) == "it is bound to another run, step, effect or issuer"


@pytest.mark.parametrize(
    "action", [{"tool": "look"}, {"resource": "order/2"}, {"resource": None}, {"args": {"amount": 4}}, {"args": None}]
)
def test_another_action_is_noticed(action: dict[str, Any]) -> None:
    assert about.mismatch({**question(), "action": {**ACTION, **action}}) == "it is bound to another action"
    assert about.mismatch({**question(), "action": None}) == "it is bound to another action"


def test_another_asker_is_noticed() -> None:
    told = {**question(RESUME), "resume": {**RESUME, "subject": "wkl_eve"}}
    assert about.mismatch(told) == "it is bound to another resume"
    # All that is shown agrees, but the answer would count for another run.
    other = question({**RESUME, "run": "run_2"})
    assert about.mismatch(other) == "it is bound to another resume"
    # A question about an action does not pass for one about a resume, nor the other way round.
    assert about.mismatch({**question(), "resume": RESUME}) == "it is bound to another resume"
    assert about.mismatch({**question(RESUME), "resume": None}) == "it is bound to another action"


def test_what_was_not_kept_is_not_taken_on_trust() -> None:
    assert about.mismatch({**question(), "bound": None}) == about.UNKEPT
    assert "issuer parameters\nnot known" in printed({**question(), "bound": None})
    assert about.mismatch({**question(), "bound": {"digest": 2**60}}) == "what it is bound to has another digest"


def test_everything_that_is_bound_is_printed() -> None:
    action = printed(question())
    for words in ("tool pay", "resource order/1", '"amount": 5', "effect once", "issuer orders-db", '"role": "rw"'):
        assert words in action
    takeover = printed(question(RESUME))
    for words in ("going on with this run", "asks for takeover", "who wkl_ada", "issuer orders-db", '"role": "rw"'):
        assert words in takeover
    resume = question(RESUME)
    assert "asks for resume" in printed({**resume, "action": {**resume["action"], "tool": "stepgrant.run.resume"}})
