"""From verified entries to facts (`_receipt_facts`). Pure.

Rules:
* Whoever signed the entries decides what is in them: a member of another type counts as not there, nothing is raised.
* Entries are taken in their order, once. What an entry is about is in its own members, never guessed from neighbours;
  the one thing that is: a grant was issued under the newest decision of its step before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from stepgrant._receipt_entries import Event
from stepgrant._receipt_facts import Actor, Answer, Approval, Decision, Erased, Facts, Grant, Redemption, Step
from stepgrant._receipt_policies import revisions
from stepgrant.canonical import JsonValue

_ANSWERED: Final = frozenset({"approved", "denied"})
_OUTCOMES: Final = frozenset({"step_recorded", "step_completed", "step_failed", "step_reconciled"})
_STATES: Final = {"step_suspended": "suspended", "step_in_doubt": "in_doubt"}
_ACTING: Final = frozenset({"workload", "person"})
_NOT_ACTING: Final = frozenset({"approval_decided", "step_replayed"})
"""Who approves does not act, nor does who is told an old result."""


def gather(events: Sequence[Event], policies: Mapping[str, Mapping[str, str]]) -> Facts:
    """The facts of these events. `policies`: the text of revisions, as far as the receipt has it."""
    gatherer = _Gatherer(policies)
    for event in events:
        gatherer.take(event)
    return gatherer.facts(tuple(revisions(events)))


class _Gatherer:
    def __init__(self, policies: Mapping[str, Mapping[str, str]]) -> None:
        self._policies = policies
        self._holders: dict[str, Actor] = {}
        self._decisions: list[Decision] = []
        self._latest: dict[str | None, Decision] = {}
        self._approvals: dict[str, Approval] = {}
        self._grants: dict[str, Grant] = {}
        self._steps: dict[str, Step] = {}
        self._erased: Erased | None = None

    def take(self, event: Event) -> None:
        body = event.part("body")
        if event.type in {"run_opened", "run_resumed"}:
            self._held(event)
        if event.type == "run_erased":
            self._erased = Erased(event.ts, self._actor(event), event.cause or text(body.get("cause")))
        self._decided(event)
        self._asked(event)
        self._granted(event)
        if event.step is not None:
            self._stepped(event, event.step)

    def facts(self, decided_under: tuple[str, ...]) -> Facts:
        approvals, grants = tuple(self._approvals.values()), tuple(self._grants.values())
        of_step: dict[str | None, tuple[list[Decision], list[Approval], list[Grant]]] = {}
        for decision in self._decisions:
            of_step.setdefault(decision.step, ([], [], []))[0].append(decision)
        for approval in approvals:
            of_step.setdefault(approval.step, ([], [], []))[1].append(approval)
        for grant in grants:
            of_step.setdefault(grant.step, ([], [], []))[2].append(grant)
        steps = []
        for key, step in self._steps.items():
            mine = of_step.get(key, ([], [], []))
            steps.append(replace(step, decisions=tuple(mine[0]), approvals=tuple(mine[1]), grants=tuple(mine[2])))
        return Facts(tuple(steps), tuple(self._decisions), approvals, grants, self._erased, decided_under)

    # ------------------------------------------------------------------------------------------------------- actors

    def _actor(self, event: Event) -> Actor:
        by, agent = event.part("by"), event.part("agent")
        kind = text(by.get("kind")) or "unknown"
        subject = text(event.disclosed.get("by.subject"))
        if kind != "workload":
            return Actor(kind, subject, text(event.part("body").get("operator")))
        name, version, jkt = (text(agent.get(member)) for member in ("name", "version", "jkt"))
        actor = Actor(kind, subject, None, name, version, jkt, event.epoch)
        holder = self._holders.get(jkt or "")
        if holder is None:
            return actor
        # Each holder has a key of its own, while an entry's epoch is that of its step, which may be an older one.
        return replace(actor, id=holder.id, epoch=holder.epoch, attested=holder.attested)

    def _held(self, event: Event) -> None:
        body, jkt = event.part("body"), text(event.part("agent").get("jkt"))
        if jkt is not None:
            method = text(_object(body.get("attestation")).get("method"))
            self._holders[jkt] = Actor("workload", None, text(body.get("workload")), epoch=event.epoch, attested=method)

    # ---------------------------------------------------------------------------------------------------- decisions

    def _decided(self, event: Event) -> None:
        made, body = event.part("decision"), event.part("body")
        named = text(made.get("decision_id"))
        before = self._latest.get(event.step)
        if not made or (event.type == "approval_requested" and before is not None and before.decision_id == named):
            return  # the question repeats the decision that asks it
        revision = text(made.get("policy_revision"))
        decision = Decision(
            at=event.ts,
            seq=event.seq,
            step=event.step,
            attempt=event.attempt,
            phase=text(body.get("phase")) or event.type.removeprefix("run_"),
            effect=text(made.get("effect")),
            reasons=texts(made.get("reasons")),
            decision_id=named,
            revision=revision,
            engine=text(body.get("engine")),
            policy=self._policies.get(revision or ""),
            input=event.preimages.get("decision.input"),
        )
        self._decisions.append(decision)
        self._latest[event.step] = decision

    # ---------------------------------------------------------------------------------------------------- approvals

    def _asked(self, event: Event) -> None:
        named, body = text(event.part("approval").get("id")), event.part("body")
        if named is None:
            return
        known = self._approvals.get(named) or Approval(
            named, event.step, None, (), None, None, None, (), None, None
        )  # fmt: skip
        if event.type == "approval_requested":
            known = replace(
                known,
                asked_at=event.ts,
                groups=texts(body.get("groups")),
                quorum=whole(body.get("quorum")),
                answer_by=whole(body.get("answer_by")),
                why_again=text(body.get("why_again")),
            )
        elif event.type == "approval_decided":
            answer = Answer(
                event.ts, self._actor(event), text(body.get("verdict")), event.disclosed.get("approval.note")
            )
            settled = text(body.get("settled"))
            known = replace(
                known, answers=(*known.answers, answer), settled=settled if settled in _ANSWERED else known.settled
            )
        elif event.type == "grant_issued":
            known = replace(known, used_by=text(event.part("grant").get("jti")))
        self._approvals[named] = known

    # ------------------------------------------------------------------------------------------------------- grants

    def _granted(self, event: Event) -> None:
        jti, body = text(event.part("grant").get("jti")), event.part("body")
        if jti is None:
            return
        grant = self._grants.get(jti) or Grant(
            jti, event.step, event.attempt, event.epoch, None, None, None, None, None, None, None, None, None, (),
            None, None, unused=False, confirmed_at=None, failed=None,
        )  # fmt: skip
        match event.type:
            case "grant_issued":
                grant = self._issued(event, grant)
            case "lease_recorded":
                grant = replace(grant, expires_at=whole(event.part("grant").get("exp")))
            case "grant_failed":
                grant = replace(grant, failed=text(body.get("detail")) or "unknown")
            case "grant_redeemed":
                one = Redemption(event.ts, text(body.get("server")), whole(body.get("act_before")))
                grant = replace(grant, redemptions=(*grant.redemptions, one))
            case "grant_revoked":
                grant = _revoked(event, grant)
            case _:
                pass
        self._grants[jti] = grant

    def _issued(self, event: Event, grant: Grant) -> Grant:
        body, named = event.part("body"), event.part("grant")
        return replace(
            grant,
            issuer=text(named.get("issuer")),
            audience=text(body.get("audience")),
            issued_at=event.ts,
            expires_at=whole(named.get("exp")),
            redeem=text(body.get("redeem")),
            revocation=text(body.get("revocation")),
            holder=self._actor(event),
            decision=self._latest.get(event.step),
            approval=text(event.part("approval").get("id")),
        )

    # -------------------------------------------------------------------------------------------------------- steps

    def _stepped(self, event: Event, key: str) -> None:
        action, body = event.part("action"), event.part("body")
        step = self._steps.get(key) or Step(key, None, None, None, None, None, (), (), (), (), None, None)
        asked = _object(event.preimages.get("action.digest"))
        if action:
            step = replace(
                step,
                tool=text(action.get("tool")) or step.tool,
                effect=text(action.get("effect")) or step.effect,
                resource=event.disclosed.get("action.resource", step.resource),
                args=asked.get("args", step.args),
            )
        if event.type in {"step_prepared", "step_recorded"}:
            step = replace(step, position=whole(body.get("position")))
        if event.type in _OUTCOMES:
            status, result = text(event.part("outcome").get("status")), event.preimages.get("outcome.result")
            step = replace(step, status=status, result=result)
        elif event.type in _STATES:
            step = replace(step, status=_STATES[event.type])
        actor = self._actor(event)
        if actor.kind in _ACTING and event.type not in _NOT_ACTING and actor not in step.who:
            step = replace(step, who=(*step.who, actor))
        self._steps[key] = step


def _revoked(event: Event, grant: Grant) -> Grant:
    """The first one takes it back; one of an issuer that confirms may come later, or be the only one."""
    body = event.part("body")
    if grant.revoked_at is None:
        grant = replace(grant, revoked_at=event.ts, cause=event.cause, unused=body.get("unused") is True)
    if body.get("confirmed") is True and grant.revocation == "confirmed" and grant.confirmed_at is None:
        grant = replace(grant, confirmed_at=event.ts)
    return grant


def text(value: JsonValue) -> str | None:
    """The value if it is text."""
    return value if isinstance(value, str) else None


def texts(value: JsonValue) -> tuple[str, ...]:
    """The texts in an array."""
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def whole(value: JsonValue) -> int | None:
    """The value if it is a whole number."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _object(value: JsonValue) -> Mapping[str, JsonValue]:
    return value if isinstance(value, dict) else {}
