"""Folders of grant entries, with what a grant counts: labels and meters from its commit, once per step."""

from __future__ import annotations

from stepgrant_broker.domain.decisions import EFFECTS, NOTHING, REDEEM_MODES
from stepgrant_broker.domain.fold.common import (
    At,
    add_all,
    bump,
    bump_all,
    evolve,
    the_run,
    with_approval,
    with_grant,
    with_history,
    with_step,
)
from stepgrant_broker.domain.ports import REVOCATIONS
from stepgrant_broker.domain.state import IN_FLIGHT, ApprovalStatus, Grant, GrantStatus, Run, StepState, View


def _grant(run: Run, at: At) -> Grant:
    action, body = at.part("action"), at.body
    named, approval = at.part("grant"), at.f.get("approval")
    return Grant(
        jti=named["jti"],
        run=run.id,
        tenant=run.tenant,
        step=at.step,
        attempt=at.f["attempt"],
        epoch=at.f["epoch"],
        issuer=named["issuer"],
        revocation=REVOCATIONS[body["revocation"]],
        tool=action["tool"],
        effect=EFFECTS[action["effect"]],
        redeem=REDEEM_MODES[body["redeem"]],
        jkt=body["jkt"],
        audience=body["audience"],
        digest_c=action["digest_c"],
        status=GrantStatus.INTENT if body["intent"] else GrantStatus.ISSUED,
        issued_at=body["issued_at"],
        exp=named["exp"],
        approval=approval["id"] if approval else None,
        labels=tuple(body["labels"]),
        meters=body["meters"],
        params=body["params"],
        request=body.get("request"),
        not_received=body.get("not_received", False),
        handle_c=named.get("handle_c"),
    )


def issued(view: View, at: At) -> View:
    """A grant is recorded: its step is started, its approval spent, its labels and meters counted."""
    grant = _grant(the_run(view), at)
    step = view.steps[at.step]
    in_flight = step.state in IN_FLIGHT
    step = evolve(
        step,
        state=StepState.STARTED,
        attempt=grant.attempt,
        epoch=grant.epoch,
        grant=grant.jti,
        started_ever=True,
        approval=grant.approval or step.approval,
        fail_status=None,
        doubt=None,
        doubt_since=None,
    )
    run = the_run(view)
    history = run.history
    history = evolve(
        history,
        tools=bump(history.tools, grant.tool),
        effects=bump(history.effects, grant.effect),
        labels=bump_all(history.labels, grant.labels, 1),
        meters=add_all(history.meters, grant.meters, 1),
        in_flight=history.in_flight + (0 if in_flight else 1),
    )
    view = evolve(
        view,
        run=evolve(run, history=history),
        steps={**view.steps, step.key: step},
        grants={**view.grants, grant.jti: grant},
    )
    if grant.approval is not None:
        spent = evolve(view.approvals[grant.approval], status=ApprovalStatus.CONSUMED, consumed_by=grant.jti)
        view = with_approval(view, spent)
    return view


def failed(view: View, at: At) -> View:
    """The issuer gave nothing: all that the grant counted comes back, and the step is as before."""
    grant = view.grants[at.part("grant")["jti"]]
    view = with_grant(view, evolve(grant, status=GrantStatus.FAILED))
    return _land(_give_back(view, grant, labels=True), grant)


def lease_recorded(view: View, at: At) -> View:
    """An outside issuer's lease stands in the record; only now may the credential leave."""
    grant = view.grants[at.part("grant")["jti"]]
    recorded = evolve(grant, status=GrantStatus.ISSUED, exp=at.part("grant")["exp"], lease_c=at.body["lease_c"])
    return with_grant(view, recorded)


def redeemed(view: View, at: At) -> View:
    """A resource server spends the one use."""
    grant, body = view.grants[at.part("grant")["jti"]], at.body
    return with_grant(
        view,
        evolve(
            grant,
            redeemed_at=at.ts,
            redemption_id=body["redemption_id"],
            redeemer=body["server"],
            proof_jti=body["proof_jti"],
            act_before=body["act_before"],
        ),
    )


def revoked(view: View, at: At) -> View:
    """The grant is over. Provably unused: approval, labels and meters come back, and its step may start again."""
    grant = view.grants[at.part("grant")["jti"]]
    after = evolve(
        grant,
        status=GrantStatus.REVOKED,
        revoked_at=grant.revoked_at or at.ts,
        confirmed_at=at.ts if at.body["confirmed"] else grant.confirmed_at,
        cause=grant.cause or at.f.get("cause"),
    )
    view = with_grant(view, after)
    if at.body["unused"]:
        return _land(_give_back(view, grant, labels=True), grant)
    if at.body.get("meters_back"):
        return _give_back(view, grant, labels=False)
    return view


def _give_back(view: View, grant: Grant, *, labels: bool) -> View:
    """What the grant counted in meters, and with `labels` all that it counted, and its approval."""
    run = the_run(view)
    history = evolve(run.history, meters=add_all(run.history.meters, grant.meters, -1))
    known = evolve(view.grants[grant.jti], meters=NOTHING)
    if labels:
        history = evolve(history, labels=bump_all(history.labels, grant.labels, -1))
        known = evolve(known, labels=())
    view = with_grant(with_history(view, history), known)
    spent = view.approvals.get(grant.approval or "")
    if labels and spent is not None and spent.consumed_by == grant.jti:
        view = with_approval(view, evolve(spent, status=ApprovalStatus.APPROVED, consumed_by=None))
    return view


def _land(view: View, grant: Grant) -> View:
    """Nothing came of the grant: a step that it had started is prepared again."""
    step = view.steps.get(grant.step)
    if step is None or step.grant != grant.jti or step.state not in IN_FLIGHT:
        return view
    view = with_step(view, evolve(step, state=StepState.PREPARED))
    history = the_run(view).history
    return with_history(view, evolve(history, in_flight=max(0, history.in_flight - 1)))
