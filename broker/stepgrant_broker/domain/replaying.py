"""Recorded decisions made again: what a chain says of each, and what another look at the same input comes to.

Rules:
* Everything is taken from the record: the input with its time, the approvals as they stood when it was decided, what
  the step had counted by then, and the time of the entry. No clock is asked.
* What policy says is closed by the same functions as then (`deciding.close`, `approvals.find`), so what a person's
  answer or the broker itself made of it is made again, too.
* Grant terms are compared as far as policy sets them. When a grant ends also depends on issuer and identity, so only
  that it is not longer than policy allows is compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from stepgrant import canonical
from stepgrant_broker.domain import approvals, deciding, fold
from stepgrant_broker.domain.calls import Ask, StepCall
from stepgrant_broker.domain.commitments import Committer
from stepgrant_broker.domain.decisions import (
    Allow,
    Decision,
    Deny,
    Effect,
    GrantSpec,
    RedeemMode,
    RequireApproval,
    effect_of,
)
from stepgrant_broker.domain.entries import GENESIS, Entry, EntryType, Head
from stepgrant_broker.domain.grants import tool_audience
from stepgrant_broker.domain.ids import RESUME_STEP
from stepgrant_broker.domain.journal import BROKER, Journal
from stepgrant_broker.domain.state import IdSource, View

OWN_ISSUER: Final = "jwt"
"""The issuer whose credentials are tokens of ours; only they can be redeemed."""
DECIDED: Final = frozenset({EntryType.DECISION, EntryType.RUN_OPENED, EntryType.RUN_RESUMED})
"""Entries that say what policy decided. A question to people repeats the decision that stands before it."""
_PHASES: Final = {EntryType.RUN_OPENED: "open", EntryType.RUN_RESUMED: "resume"}

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Shown:
    """An entry with what is disclosed of it: the input of its decision, and what its question is bound to.

    `spoiled`: what is stored for the input is not what the entry commits to.
    """

    entry: Entry
    input: Document | None = None
    binding: str | None = None
    spoiled: bool = False


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded decision, with everything that making it again needs. `ts` in ms since the epoch.

    `phase`: open, resume, prepare, start or begin. `engine` is None where the entry does not name it. `view` is the run
    before the decision, `bindings` what its approvals are bound to, by the text that people saw. `then`: the grant that
    followed at once, or the question that was put; `asked` is what that question is bound to.
    """

    tenant: str
    run: str | None
    seq: int
    ts: int
    phase: str
    step: str | None
    decision_id: str
    revision: str
    engine: str | None
    effect: str
    reasons: tuple[str, ...]
    input: Document | None = field(repr=False)
    spoiled: bool = False
    duplicate: str | None = None
    view: View = field(default_factory=View, repr=False)
    bindings: Mapping[str, str] = field(default_factory=dict, repr=False)
    then: Entry | None = field(default=None, repr=False)
    asked: str | None = None


@dataclass(frozen=True, slots=True)
class Remade:
    """What the decision comes to this time. `terms`: of its grant or question, as far as policy sets them."""

    effect: str
    reasons: tuple[str, ...]
    terms: Mapping[str, Any]


class Decisions:
    """Reads one chain from its first entry on."""

    def __init__(self) -> None:
        self.view = View()
        """The run after the entries that were read so far."""
        self.bindings: dict[str, str] = {}
        self._waiting: Recorded | None = None

    def read(self, shown: Shown) -> Iterator[Recorded]:
        """The decision before this entry, once it is known what followed from it."""
        entry = shown.entry
        if self._waiting is not None:
            follows = _follows(self._waiting, entry)
            yield replace(self._waiting, then=entry, asked=shown.binding) if follows else self._waiting
            self._waiting = None
        if entry.type in DECIDED and entry.fields["decision"] is not None:
            self._waiting = _recorded(shown, self.view, dict(self.bindings))
        if entry.type is EntryType.APPROVAL_REQUESTED and shown.binding is not None:
            self.bindings[shown.binding] = entry.fields["body"]["binding_c"]
        if entry.run is not None:
            self.view = fold.apply(self.view, entry)

    def end(self) -> Iterator[Recorded]:
        """The last decision."""
        if self._waiting is not None:
            yield self._waiting
            self._waiting = None


def _follows(decision: Recorded, entry: Entry) -> bool:
    """Whether this entry, the next one of the chain, says what the decision led to."""
    if entry.type is EntryType.APPROVAL_REQUESTED:
        return bool(entry.fields["decision"]["decision_id"] == decision.decision_id)
    granted = entry.type is EntryType.GRANT_ISSUED and decision.phase in {"start", "begin"}
    return granted and decision.effect == "allow" and entry.step == decision.step


def _recorded(shown: Shown, view: View, bindings: Mapping[str, str]) -> Recorded:
    entry, made = shown.entry, shown.entry.fields["decision"]
    body = entry.fields["body"]
    return Recorded(
        tenant=entry.tenant,
        run=entry.run,
        seq=entry.seq,
        ts=entry.ts,
        phase=_PHASES.get(entry.type) or str(body.get("phase")),
        step=entry.step,
        decision_id=made["decision_id"],
        revision=made["policy_revision"],
        engine=body.get("engine"),
        effect=made["effect"],
        reasons=tuple(made["reasons"]),
        input=shown.input,
        spoiled=shown.spoiled,
        duplicate=body.get("duplicate"),
        view=view,
        bindings=bindings,
    )


def journal_at(view: View, tenant: str, now: int) -> Journal:
    """A journal to look at a run with. Nothing is written to it, and it opens no commitment."""
    run = view.run
    head = Head(tenant, run.id if run else None, run.seq if run else 0, GENESIS, 0)
    return Journal(view=view, head=head, now=now, by=BROKER, committer=Committer(b""), random=bytes)


def call_of(document: Document) -> StepCall:
    """The call that an input of a step is about. Raises `LookupError`, `ValueError`, `TypeError` for another input."""
    action, requested = document["action"], document["requested"]
    return StepCall(
        step=document["step"]["key"],
        epoch=document["run"]["epoch"],
        tool=action["tool"],
        resource=action["resource"],
        args=action["args"],
        digest=action["digest"],
        # Only whether there are arguments is asked of it.
        preimage=None if action["args"] is None else b"",
        effect=Effect(action["effect"]),
        id_source=IdSource.EXPLICIT,
        idempotency_key=action["idempotency_key"],
        issuer=requested["issuer"],
        ttl_s=requested["ttl"],
        params=requested["params"],
    )


def remade(known: Recorded, said: Decision) -> Remade:
    """What the recorded decision would have come to, had policy `said` this. Needs `known.input`."""
    journal = journal_at(known.view, known.tenant, known.ts)
    document = known.input or {}
    terms: Mapping[str, Any] = {}
    if known.phase == "open":
        decision = deciding.on_open(said)
    elif known.phase == "resume":
        decision, terms = of_resume(journal, known.bindings, str(document["identity"]["subject"]), said)
    else:
        decision, terms = of_step(journal, known.bindings, document, said, known.duplicate)
    return Remade(effect_of(decision), decision.reasons, terms)


def of_resume(
    journal: Journal, bindings: Mapping[str, str], subject: str, said: Decision
) -> tuple[Decision, Mapping[str, Any]]:
    """What policy's word on a resume by this subject comes to, and what it would ask people."""
    binding = approvals.binding_of_resume(journal.run, subject, said)
    return _with_people(journal, bindings, RESUME_STEP, binding, said)


def of_step(
    journal: Journal, bindings: Mapping[str, str], document: Document, said: Decision, duplicate: str | None = None
) -> tuple[Decision, Mapping[str, Any]]:
    """What policy's word on a step comes to, and the terms of what it grants, or of what it asks people.

    `duplicate`: what was done about a call that may be a completed step once more.
    """
    call = call_of(document)
    decision = deciding.close(said, call)
    if duplicate in {"ask", "replay"}:
        word = deciding.word_on_duplicate(Ask(1, 1, new=False, previous_outcome=None, equal_to="~"), decision)
        return decision, {"duplicate": word}
    if isinstance(decision, Deny):
        return decision, {}
    binding = deciding.binding_of(journal, call, decision.grant)
    decision, asked = _with_people(journal, bindings, call.step, binding, decision)
    return decision, granted(journal, call, decision) if isinstance(decision, Allow) else asked


def _with_people(
    journal: Journal, bindings: Mapping[str, str], step: str, binding: approvals.Binding, said: Decision
) -> tuple[Decision, Mapping[str, Any]]:
    decision, _ = deciding.with_people(journal, step, bindings.get(binding.text(), ""), said)
    if isinstance(decision, Deny) or not isinstance(said, RequireApproval):
        return decision, {}
    asked = said.approval
    return decision, {
        "groups": sorted(asked.groups),
        "quorum": asked.quorum,
        "issuer": binding.issuer,
        "binding": binding.text(),
        "answer_ms": 1000 * asked.answer_within_s,
        "valid_for_ms": 1000 * asked.valid_for_s,
    }


def granted(journal: Journal, call: StepCall, allow: Allow) -> Mapping[str, Any]:
    """The terms that a grant under this decision has by policy alone."""
    spec, held = allow.grant, deciding.counted_meters(journal, call.step)
    meters = {name: micro - held.get(name, 0) for name, micro in allow.meters.items()}
    terms: dict[str, Any] = {
        "issuer": spec.issuer,
        "audience": spec.audience or tool_audience(call.tool),
        **_redeem(spec, call),
        "params": dict(spec.params),
        "labels": sorted(set(allow.labels) - deciding.counted_labels(journal, call.step)),
        "meters": {name: micro for name, micro in meters.items() if micro > 0},
    }
    return terms if spec.ttl_s is None else {**terms, "lifetime_ms": 1000 * spec.ttl_s}


def _redeem(spec: GrantSpec, call: StepCall) -> Mapping[str, Any]:
    """Whether it had to be redeemed; nothing where that was not policy's word, but whether a server was enrolled."""
    if spec.issuer != OWN_ISSUER:
        return {"redeem": RedeemMode.OPTIONAL.value}
    default = RedeemMode.default_for(call.effect)
    if spec.redeem is None and spec.audience is not None and default is RedeemMode.REQUIRED:
        return {}
    return {"redeem": (spec.redeem or default).value}


def recorded_terms(known: Recorded) -> Mapping[str, Any]:
    """The terms of what followed from the decision, as they are recorded; empty where nothing did."""
    if known.then is None:
        return {} if known.duplicate is None else {"duplicate": known.duplicate}
    fields = known.then.fields
    body = fields["body"]
    if known.then.type is EntryType.GRANT_ISSUED:
        named = {name: body[name] for name in ("audience", "redeem", "params", "labels", "meters")}
        return {"issuer": fields["grant"]["issuer"], **named, "lifetime_ms": fields["grant"]["exp"] - body["issued_at"]}
    terms = {name: body[name] for name in ("quorum", "issuer", "valid_for_ms")}
    terms |= {"groups": sorted(body["groups"]), "answer_ms": body["answer_by"] - known.then.ts}
    return terms if known.asked is None else {**terms, "binding": known.asked}


def differing(recorded: Mapping[str, Any], said: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the recorded terms that are not what policy says; of times, those that are longer."""
    return tuple(
        sorted(name for name, value in recorded.items() if name in said and not _holds(name, value, said[name]))
    )


def _holds(name: str, recorded: Any, said: Any) -> bool:  # noqa: ANN401 - any JSON value
    if name.endswith("_ms"):
        return bool(recorded <= said)
    return canonical.dumps(recorded) == canonical.dumps(said)
