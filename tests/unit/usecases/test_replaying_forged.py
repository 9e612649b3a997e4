"""Records that say what policy did not, and brokers that lie about what was decided on: each is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import pytest

from fakes.hand import Hand, ask
from fakes.records import GRANT, Entry, decisions_in, made, page_of, replay, rewritten, texts, verdicts
from fakes.tale import answer_approval
from stepgrant import canonical
from stepgrant_broker.commands.recorded import Source, of_broker
from stepgrant_broker.policy.replaying import Verdict, Why

if TYPE_CHECKING:
    from stepgrant.cli.people import People


def _grant(entry: Entry, name: str, value: Any) -> None:  # noqa: ANN401 - JSON
    if entry["type"] == "grant_issued":
        entry["body"][name] = value


def _longer(entry: Entry) -> None:
    if entry["type"] == "grant_issued":
        entry["grant"]["exp"] += 1000


def _other_issuer(entry: Entry) -> None:
    if entry["type"] == "grant_issued":
        entry["grant"]["issuer"] = "static"


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda entry: _grant(entry, "audience", "https://evil.example"), ["audience"]),
        (lambda entry: _grant(entry, "params", {"scope": "all"}), ["params"]),
        (lambda entry: _grant(entry, "labels", []), ["labels"]),
        (lambda entry: _grant(entry, "meters", {"usd": 1}), ["meters"]),
        (lambda entry: _grant(entry, "redeem", "optional"), ["redeem"]),
        (_longer, ["lifetime_ms"]),
        (_other_issuer, ["issuer"]),
    ],
)  # fmt: skip
async def test_a_grant_that_policy_did_not_give_is_named_by_its_term(
    broker: Hand, change: Callable[[Entry], None], names: list[str]
) -> None:
    run = (await broker.open())["run"]
    assert (await broker.begin(run, decision=GRANT))["outcome"] == "run"
    assert verdicts(await made(broker, run)) == {Verdict.EQUAL: 2}

    forged = (await made(broker, run, change))[-1]

    assert (forged.verdict, forged.why, list(forged.terms)) == (Verdict.DIFFERENT, Why.OTHER_TERMS, names)


def _question(name: str, value: Any) -> Callable[[Entry], None]:  # noqa: ANN401 - JSON
    def change(entry: Entry) -> None:
        if entry["type"] == "approval_requested":
            entry["body"][name] = value

    return change


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (_question("groups", []), "groups"),
        (_question("quorum", 1), "quorum"),
        (_question("valid_for_ms", 9_000_000), "valid_for_ms"),
        (_question("answer_by", 9_000_000_000_000), "answer_ms"),
    ],
)
async def test_a_question_that_policy_did_not_put_so_is_named(
    broker: Hand, change: Callable[[Entry], None], name: str
) -> None:
    run = (await broker.open())["run"]
    await broker.begin(run, decision=ask(groups=["managers"], quorum=2))

    forged = (await made(broker, run, change))[-1]

    assert (forged.why, list(forged.terms)) == (Why.OTHER_TERMS, [name])


def _allowed(entry: Entry) -> None:
    if entry["type"] == "decision":
        entry["decision"] |= {"effect": "allow", "reasons": ["ok", "approved:apr_nobody"]}


async def test_a_recorded_allow_that_policy_never_gave_is_different(broker: Hand) -> None:
    run = (await broker.open())["run"]
    await broker.begin(run, decision=ask())

    forged = (await made(broker, run, _allowed))[-1]

    assert (forged.verdict, forged.why) == (Verdict.DIFFERENT, Why.OTHER_DECISION)
    assert forged.again is not None
    assert (forged.again.effect, forged.again.reasons) == ("require_approval", ("ok",))


async def test_an_answer_to_another_question_allows_nothing(broker: Hand) -> None:
    """The approval that the record names was given, but about other arguments."""
    run = (await broker.open())["run"]
    first = await broker.begin(run, decision=ask(), args={"amount": 1})
    await answer_approval(broker, run, first["approval_id"])
    await broker.begin(run, decision=ask(), args={"amount": 1000})

    def change(entry: Entry) -> None:
        if entry["type"] == "step_prepared":
            # The revision is what voids the answer.
            entry["body"]["revision"] = 1
        if entry["type"] == "decision" and entry["seq"] > 3:
            entry["decision"] |= {"effect": "allow", "reasons": ["ok", f"approved:{first['approval_id']}"]}

    forged = (await made(broker, run, change))[-1]

    assert forged.why is Why.OTHER_DECISION
    assert forged.again is not None
    assert forged.again.effect == "require_approval"


def _without_end(entry: Entry) -> None:
    if entry["type"] == "grant_issued":
        del entry["grant"]["exp"]


def _of_no_type(entry: Entry) -> None:
    if entry["type"] == "grant_issued":
        del entry["body"]["audience"]


@pytest.mark.parametrize("change", [_without_end, _of_no_type])
async def test_a_record_that_cannot_have_been_written_is_named_by_its_place(
    broker: Hand, change: Callable[[Entry], None]
) -> None:
    run = (await broker.open())["run"]
    await broker.begin(run, decision=GRANT)
    page = await page_of(broker, run)
    whole, forged = (Source(iter([one]), run) for one in (page, rewritten(page, change)))

    before, after = ([one.seq for batch in source.batches() for one in batch] for source in (whole, forged))

    assert (before, whole.broken) == ([0, 2], None)
    assert (after, forged.broken is not None and (forged.broken.run, forged.broken.seq)) == ([0, 2], (run, 3))


def _lie(name: str, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:  # noqa: ANN401 - JSON
    return lambda one: {**one, name: value}


def _other_input(one: dict[str, Any]) -> dict[str, Any]:
    """The input of a decision with another amount, and its digest made right."""
    told = json.loads(canonical.b64u_decode(one["preimage"]))
    body = canonical.dumps({**told, "time": {**told["time"], "hour": 3}})
    return {**one, "preimage": canonical.b64u(body), "value": canonical.digest_bytes(body)}


@pytest.mark.parametrize(
    "lie",
    [
        _other_input,
        _lie("preimage", canonical.b64u(b"{}")),
        _lie("value", "sha-256:" + "A" * 43),
        _lie("r", "A" * 43),
        _lie("r", "?"),
        _lie("field", "run.input"),
    ],
    ids=["other_input", "other_preimage", "other_digest", "other_r", "no_r", "other_field"],
)
async def test_a_broker_cannot_pass_off_another_input_for_the_recorded_one(
    broker: Hand, lie: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    run = (await broker.open())["run"]
    await broker.begin(run, decision=GRANT)
    page = await page_of(broker, run)
    told = [lie(one) if one["field"] == "decision.input" else one for one in page["disclosures"]]

    with replay(await texts(broker)) as maker:
        found = maker.make(decisions_in({**page, "disclosures": told}, run))

    assert verdicts(found) == {Verdict.TAMPERED: 2}
    assert {one.why for one in found} == {Why.INPUT_CHANGED}


async def test_what_a_question_is_bound_to_counts_beside_an_input_that_does_not(broker: Hand) -> None:
    """A lie about the question's input makes neither that question nor the answer to it another one."""
    run = (await broker.open())["run"]
    asked = await broker.begin(run, decision=ask())
    await answer_approval(broker, run, asked["approval_id"])
    assert (await broker.begin(run, decision=ask()))["outcome"] == "run"
    page = await page_of(broker, run)
    entries = [canonical.loads(canonical.b64u_decode(row["data"])) for row in page["entries"]]
    (question,) = [one for one in entries if one["type"] == "approval_requested"]  # type: ignore[index, call-overload]
    lied = question["decision"]["input_c"]  # type: ignore[index, call-overload]
    told = [_other_input(one) if one["c"] == lied else one for one in page["disclosures"]]

    with replay(await texts(broker)) as maker:
        found = maker.make(decisions_in({**page, "disclosures": told}, run))

    assert [one.verdict for one in found] == [Verdict.EQUAL, Verdict.TAMPERED, Verdict.EQUAL]


async def test_a_broker_whose_pages_never_end_is_left(broker: Hand) -> None:
    run = (await broker.open())["run"]
    page = await page_of(broker, run)
    asked: list[str] = []

    class Endless:
        def get(self, path: str, **_: object) -> dict[str, Any]:
            asked.append(path)
            return {**page, "next": 0}

    source = of_broker(cast("People", Endless()), run)

    assert [one.seq for batch in source.batches() for one in batch] == [0]
    assert source.broken is not None
    assert len(asked) == 2
