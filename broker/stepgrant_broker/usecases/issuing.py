"""From an allowed call to its credential: the order, the recorded grant or intent, the mint, the release.

A grant that is not recorded is never released. One of ours is minted after its commit; one from outside is prepared
before the commit that records its intent, and released after a second one that records its lease (`leases.py`).
"""

from __future__ import annotations

from typing import Any

from stepgrant_broker.domain import deciding
from stepgrant_broker.domain.caller import AgentCaller
from stepgrant_broker.domain.calls import Ready, StepCall
from stepgrant_broker.domain.decisions import RedeemMode
from stepgrant_broker.domain.errors import InvalidToken, IssuerUnavailable
from stepgrant_broker.domain.grants import is_open, tool_audience
from stepgrant_broker.domain.holding import refuse_quarantined
from stepgrant_broker.domain.journal import BROKER, Journal
from stepgrant_broker.domain.ports import GrantOrder, Issuer
from stepgrant_broker.domain.releasing import fail_grant
from stepgrant_broker.domain.state import Grant
from stepgrant_broker.domain.values import Struct, field
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases import answers, leases
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.transact import Change, Repeat, journal_for, transact


class Granted(Struct, frozen=True):
    """What one try of a call comes to: its answer and, where a grant was recorded, what is to be minted for it."""

    answer: dict[str, Any]
    ready: Ready | None = None
    order: GrantOrder | None = None


class Desk(Struct):
    """One call on its way. `intents`: what was prepared outside, in all tries; at most one of them gets recorded.

    `call` is one of the step that it is about, once that is known.
    """

    ports: Ports
    caller: AgentCaller
    call: StepCall
    scope: str
    intents: list[leases.Intent] = field(default_factory=list)
    taking_back: bool = False
    """A try committed that it takes back the credential of an equal call; this call's proof is used up by that."""

    def intent_of(self, granted: Granted) -> leases.Intent | None:
        """What was prepared for the grant that got recorded."""
        if not self.intents:
            return None
        wanted = granted.order.jti if granted.order is not None else None
        return next((intent for intent in self.intents if intent.order.jti == wanted), None)

    def unused(self, granted: Granted) -> list[leases.Intent]:
        """What was prepared in tries that were refused."""
        recorded = self.intent_of(granted)
        return [intent for intent in self.intents if intent is not recorded]


def _issuer(ports: Ports, name: str) -> Issuer:
    issuer = ports.issuers.get(name)
    if issuer is None:
        raise IssuerUnavailable(f"policy chose issuer {name}, which this broker does not have")
    return issuer


async def issue(desk: Desk, allowed: deciding.Allowed, loaded: Loaded, journal: Journal) -> tuple[Ready, GrantOrder]:
    """Write the grant, or an outside issuer's intent. Raises `IssuerUnavailable`, `Quarantined`, `InvalidToken`."""
    ports, caller, call, spec = desk.ports, desk.caller, desk.call, allowed.allow.grant
    issuer = _issuer(ports, spec.issuer)
    refuse_quarantined(loaded.quarantines, loaded.now, issuer=spec.issuer)
    facts = deciding.IssuerFacts(
        issuer.name, issuer.revocation, issuer.outside, issuer.max_ttl_s, issuer.tokens_of_ours
    )
    exp = deciding.expiry(allowed, facts, now=journal.now, not_after=caller.not_after, limits=ports.limits)
    if exp <= journal.now:
        raise InvalidToken("identity or approval ends too soon for a grant; exchange again")
    audience = spec.audience or tool_audience(call.tool)
    redeem = deciding.redeem_mode(allowed, call, facts)
    if spec.redeem is None and spec.audience is not None and redeem is RedeemMode.REQUIRED:
        # Nobody can redeem where no server is enrolled: that nobody did would prove nothing.
        served = await ports.served.has(ports.reads, caller.tenant, audience, loaded.now)
        redeem = RedeemMode.REQUIRED if served else RedeemMode.OPTIONAL
    order = _order(desk, allowed, journal, exp, audience, str(redeem))
    if ports.failpoints is not None:
        ports.failpoints.hit("usecase.before_intend")
    intent = await leases.prepare(issuer, order)
    if intent is not None:
        desk.intents.append(intent)
    if ports.failpoints is not None:
        ports.failpoints.hit("usecase.after_intend")
    ready = deciding.issue(
        journal,
        call,
        allowed,
        facts,
        jti=order.jti,
        exp=exp,
        audience=audience,
        redeem=redeem,
        request=desk.scope,
        handle=intent.handle if intent is not None else None,
    )
    return ready, order


def _order(
    desk: Desk,
    allowed: deciding.Allowed,
    journal: Journal,
    exp: int,
    audience: str,
    redeem: str,
) -> GrantOrder:
    caller, call, run = desk.caller, desk.call, journal.run
    return GrantOrder(
        tenant=run.tenant,
        run=run.id,
        step=call.step,
        attempt=allowed.ask.attempt,
        epoch=run.epoch,
        jti="grn_" + desk.ports.ids.ulid(journal.now),
        subject=caller.subject,
        client_id=caller.workload.id,
        instance=caller.jkt,
        jkt=run.jkt,
        audience=audience,
        tool=call.tool,
        resource=call.resource,
        args_digest=call.digest,
        effect=str(call.effect),
        idempotency_key=journal.step(call.step).idempotency_key,
        redeem=redeem,
        issued_at=journal.now,
        expires_at=exp,
        policy_revision=allowed.decided.revision,
        decision_id=allowed.decided.decision_id,
        approval_id=allowed.approval.id if allowed.approval is not None else None,
        principal=None,
        params=allowed.allow.grant.params,
        csr=None if call.csr is None else call.csr.pem,
    )


async def release(desk: Desk, granted: Granted) -> dict[str, Any]:
    """Mint for what was recorded. What the issuer cannot give is recorded too, and nothing is released.

    Raises `IssuerUnavailable`, `IssuerRefused`, and for an outside issuer what `leases.mint` raises.
    """
    ready, order = granted.ready, granted.order
    if order is None or ready is None or ready.grant is None:
        return granted.answer
    grant, intent = ready.grant, desk.intent_of(granted)
    if intent is not None:
        minted, grant = await leases.mint(desk.ports, desk.caller, intent, grant)
        answer = {**granted.answer, "grant": answers.grant(grant, ready.step)}
        return {**answer, "credential": answers.credential(minted, grant, order.run)}
    ports = desk.ports
    try:
        issuer = _issuer(ports, grant.issuer)
        if ports.failpoints is not None:
            ports.failpoints.hit("usecase.before_mint")
        minted = await issuer.mint(order, None)
        issuer.check(order, minted)
    except IssuerUnavailable as fault:
        await _record_failure(ports, grant, fault.detail)
        raise
    if ports.failpoints is not None:
        ports.failpoints.hit("usecase.after_mint")
    return {**granted.answer, "credential": answers.credential(minted, grant, order.run)}


async def _record_failure(ports: Ports, grant: Grant, detail: str) -> None:
    async def work(loaded: Loaded) -> Change[None] | Repeat[None]:
        journal = journal_for(ports, loaded, BROKER)
        known = journal.view.grants.get(grant.jti)
        if known is None or not is_open(known):
            return Repeat(None)
        fail_grant(journal, known, detail)
        return Change(None, journal)

    await transact(ports, Query(grant.tenant, run=grant.run, step=grant.step), work)
