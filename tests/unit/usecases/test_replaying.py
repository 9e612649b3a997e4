"""Decisions made again from the record alone: whole lives, other times, and records that say what policy did not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from fakes.clock import StandingClock
from fakes.hand import REGO, Hand, allow, ask, hand
from fakes.lost_tale import lost_life
from fakes.tale import answer_approval, whole_life
from fakes.world import AUDIENCE
from stepgrant import canonical
from stepgrant.cli.people import People
from stepgrant_broker.commands.recorded import Source
from stepgrant_broker.domain.errors import PolicyDenied
from stepgrant_broker.domain.replaying import Decisions, Recorded
from stepgrant_broker.ledger.disclosed import Chain
from stepgrant_broker.policy.bundle import Bundle, from_files
from stepgrant_broker.policy.engines import Engines
from stepgrant_broker.policy.replaying import Made, Replay, Texts, Verdict, Why
from stepgrant_broker.usecases.activate_policy import activate_policy, next_revision
from stepgrant_broker.usecases.evidence import evidence
from stepgrant_broker.usecases.park import park

YEARS_AGO = 1_500_000_000_000
Entry = dict[str, Any]
BY_TIME = REGO.replace(
    "decision := input.claimed.context.decide\n",
    'decision := object.union(input.claimed.context.decide, {"reasons": [at]})\n\n'
    'at := concat("_", ["at", format_int(input.time.unix, 10)])\n',
)
assert BY_TIME != REGO


async def page_of(broker: Hand, run: str | None) -> dict[str, Any]:
    """The whole chain as it goes over the wire."""
    found = await evidence(broker.ports, "acme", run, after=-1, limit=5000)
    return {
        "entries": [{"seq": row.seq, "data": canonical.b64u(row.data)} for row in found.entries],
        "disclosures": list(found.disclosures),
        "damaged": list(found.damaged),
    }


def rewritten(page: dict[str, Any], change: Callable[[Entry], None]) -> dict[str, Any]:
    """The chain with some entries changed and all hashes made right again, as somebody can who has the database."""
    prev, rows = canonical.b64u(bytes(32)), []
    for row in page["entries"]:
        entry = json.loads(canonical.b64u_decode(row["data"]))
        change(entry)
        data = canonical.dumps({**entry, "prev": prev})
        prev = canonical.b64u(hashlib.sha256(data).digest())
        rows.append({"seq": row["seq"], "data": canonical.b64u(data)})
    return {**page, "entries": rows}


def decisions_in(page: dict[str, Any], run: str | None) -> list[Recorded]:
    reader = Decisions()
    found = [one for shown in Chain(run).read(page) for one in reader.read(shown)]
    return [*found, *reader.end()]


async def texts(broker: Hand) -> Texts:
    kept = await broker.ports.reads.policies("acme")
    known = {one.revision: await broker.ports.reads.policy("acme", one.revision) for one in kept}
    return Texts(lambda revision: json.loads(found.text) if (found := known.get(revision)) is not None else None)


@contextmanager
def replay(known: Texts, candidate: Bundle | None = None) -> Iterator[Replay]:
    with Engines(None) as engines:
        yield Replay(engines, known, candidate)


async def made(broker: Hand, run: str | None, change: Callable[[Entry], None] | None = None) -> list[Made]:
    page = await page_of(broker, run)
    with replay(await texts(broker)) as maker:
        return maker.make(decisions_in(page if change is None else rewritten(page, change), run))


def verdicts(found: Sequence[Made]) -> dict[Verdict, int]:
    return {one: sum(each.verdict is one for each in found) for one in {each.verdict for each in found}}


@pytest.mark.parametrize(("life", "at_least"), [(whole_life, 10), (lost_life, 8)])
async def test_each_decision_of_a_whole_life_comes_out_as_recorded(
    broker: Hand, life: Callable[[Hand], Awaitable[str]], at_least: int
) -> None:
    found = await made(broker, await life(broker))
    assert [(one.recorded.seq, one.why, one.detail) for one in found if one.verdict is not Verdict.EQUAL] == []
    assert len(found) >= at_least
    assert {one.recorded.phase for one in found} >= {"open", "begin", "resume"}


async def test_an_opening_that_policy_refused_is_made_again_from_the_tenants_own_chain(broker: Hand) -> None:
    with pytest.raises(PolicyDenied):
        await broker.open(labels={"stepgrant.run.open": "no"})
    (refused,) = await made(broker, None)
    assert (refused.verdict, refused.recorded.phase, refused.recorded.effect) == (Verdict.EQUAL, "open", "deny")
    assert refused.recorded.run is None


async def test_time_is_that_of_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Years ago an answer was valid for a minute, and policy put the second into its reason."""
    monkeypatch.setattr("fakes.hand.StandingClock", lambda: StandingClock(YEARS_AGO))
    async with hand(tmp_path) as broker:
        await _time_is_that_of_the_record(broker)


async def _time_is_that_of_the_record(broker: Hand) -> None:
    bundle = from_files({"stepgrant/main.rego": BY_TIME})
    revision = await next_revision(broker.ports, bundle.digest)
    await broker.engine.load(revision, bundle)
    await activate_policy(broker.ports, "acme", None, revision=revision, text=bundle.files)
    run = (await broker.open())["run"]
    question = ask(valid_for=60)
    asked = await broker.begin(run, decision=question)
    await answer_approval(broker, run, asked["approval_id"])
    broker.clock.tick(20_000)
    granted = await broker.begin(run, decision=question)
    assert granted["outcome"] == "run"

    found = await made(broker, run)

    assert [(one.verdict, one.recorded.effect) for one in found] == [
        (Verdict.EQUAL, "allow"), (Verdict.EQUAL, "require_approval"), (Verdict.EQUAL, "allow")
    ]  # fmt: skip
    assert found[-1].recorded.reasons[0] == f"at_{broker.clock.now() // 1000}"
    assert found[-1].recorded.reasons[1].startswith("approved:")


GRANT = allow(ttl=30, redeem="required", params={"scope": "one"}) | {"labels": ["pii:a"], "meters": {"usd": 5}}


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


@dataclass
class Wire:
    """Stands for the connection to a broker: one page, and that is all."""

    page: dict[str, Any]

    def get(self, path: str, **_: object) -> dict[str, Any]:
        assert path.endswith("/decisions")
        return {**self.page, "next": None}


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
    whole, forged = (Source(cast("People", Wire(one)), run) for one in (page, rewritten(page, change)))

    before, after = ([one.seq for batch in source.batches() for one in batch] for source in (whole, forged))

    assert (before, whole.broken) == ([0, 2], None)
    assert (after, forged.broken is not None and (forged.broken.run, forged.broken.seq)) == ([0, 2], (run, 3))


async def test_a_text_that_runs_no_more_is_a_difference_and_never_equal(broker: Hand) -> None:
    run = (await broker.open())["run"]
    await broker.begin(run, decision=GRANT)
    known = decisions_in(await page_of(broker, run), run)
    silent = from_files({"stepgrant/main.rego": "package stepgrant\n\nother := 1\n"})

    with replay(await texts(broker), silent) as maker:
        found = maker.make(known)

    assert verdicts(found) == {Verdict.EQUAL: 2}
    assert [one.would_fail is not None or (one.would is not None and one.would.effect == "deny") for one in found] == [
        True, True
    ]  # fmt: skip
    assert all(one.changes for one in found)


async def test_an_engine_of_another_version_is_asked_for_and_missing(broker: Hand) -> None:
    run = (await broker.open())["run"]
    await broker.begin(run, decision=GRANT)

    def change(entry: Entry) -> None:
        if entry["type"] == "decision":
            entry["body"]["engine"] = "regorus/0.0.1"

    found = await made(broker, run, change)

    assert verdicts(found) == {Verdict.NOT_REPLAYABLE: 2}
    assert {one.why for one in found} == {Why.ENGINE_MISSING}
    assert [one.engine_assumed for one in found] == [True, False]


async def test_after_a_lost_reply_the_second_grant_counts_nothing_twice(broker: Hand) -> None:
    run = (await broker.open())["run"]
    key = broker.request()
    await broker.begin(run, decision=GRANT, request=key)
    again = await broker.begin(run, decision=GRANT, request=key, not_received=True)
    assert again["outcome"] == "run"
    await park(broker.ports, broker.agent(), run, 1, "requested", broker.request())
    await broker.open(who="k2")
    await broker.begin(run, decision=GRANT, who="k2", epoch=2)

    found = await made(broker, run)

    assert verdicts(found) == {Verdict.EQUAL: 5}
    assert AUDIENCE in {one.again.terms.get("audience") for one in found if one.again is not None}


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
