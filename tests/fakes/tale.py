"""One run's whole life through the real use cases, so long that every type of entry that they write occurs in it."""

from __future__ import annotations

from fakes.hand import Hand, allow, ask, deny
from stepgrant import canonical
from stepgrant_broker.domain.decisions import Effect
from stepgrant_broker.domain.errors import IssuerRefused, PolicyDenied
from stepgrant_broker.domain.outcomes import Result, Verdict
from stepgrant_broker.domain.reads import Page
from stepgrant_broker.domain.state import FailStatus, IdSource
from stepgrant_broker.usecases.decide_approval import decide_approval
from stepgrant_broker.usecases.end import end
from stepgrant_broker.usecases.enroll import unenroll
from stepgrant_broker.usecases.fail import fail
from stepgrant_broker.usecases.operators import create_operator, remove_operator
from stepgrant_broker.usecases.park import park
from stepgrant_broker.usecases.quarantine import quarantine, release
from stepgrant_broker.usecases.reconcile import reconcile
from stepgrant_broker.usecases.record import RecordCall, record
from stepgrant_broker.usecases.set_secret import remove_secret, set_secret
from stepgrant_broker.usecases.suspend import suspend
from stepgrant_broker.usecases.sweep import sweep

PRINCIPAL = "user:claire@example.com"
INPUT = canonical.dumps({"customer": "ada", "keys": ["alpha", "beta"]})
RUN_TYPES = frozenset(
    {
        "run_opened", "run_resumed", "run_parked", "run_quarantined", "run_released", "run_ended", "step_prepared",
        "decision", "approval_requested", "approval_decided", "grant_issued", "grant_failed", "grant_redeemed",
        "grant_revoked", "step_recorded", "step_replayed", "step_completed", "step_failed", "step_suspended",
        "step_in_doubt", "step_reconciled",
    }
)  # fmt: skip
TENANT_TYPES = frozenset({"workload_enrolled", "policy_activated", "operator_action", "decision"})


async def whole_life(hand: Hand) -> str:
    """Live it; the run's id."""
    opened = await hand.open("nightly", input_bytes=INPUT, principal=PRINCIPAL, labels={"team": "ops"})
    run = str(opened["run"])
    await _plan(hand, run)
    await _first_epoch(hand, run)
    await _second_epoch(hand, run)
    await quarantine(hand.ports, hand.operator, "run", run)
    await release(hand.ports, hand.operator, "run", run)
    hand.clock.tick(1000)
    await hand.open("nightly", who="k3", input_bytes=INPUT)
    await end(hand.ports, hand.agent("k3"), run, 3, "completed", Result(b'{"rotated":2}'), hand.request())
    await administration(hand)
    return run


async def _plan(hand: Hand, run: str) -> None:
    call = RecordCall("plan", 1, "model.plan", b'{"prompt":"rotate"}', IdSource.EXPLICIT, Result(b'["alpha","beta"]'))
    for _ in range(2):
        await record(hand.ports, hand.agent(), run, call, hand.request())


async def _first_epoch(hand: Hand, run: str) -> None:
    done = await hand.begin(run, "s1", allow(redeem="required"))
    hand.clock.tick(100)
    await hand.redeem(done["grant"]["jti"], rid="s1")
    await hand.complete(run, "s1")
    await hand.begin(run, "s2", deny("amount_over_limit"))
    asked = await hand.begin(run, "s3", ask(groups=["finance"]))
    await answer_approval(hand, run, str(asked["approval_id"]))
    await hand.begin(run, "s3", ask(groups=["finance"]))
    status, request = FailStatus.NOT_EXECUTED, hand.request()
    await fail(hand.ports, hand.agent(), run, "s3", 1, 1, status=status, error="timed out", request=request)
    left = await hand.begin(run, "s4", allow(effect="idempotent"), effect=Effect.IDEMPOTENT)
    await hand.redeem(left["grant"]["jti"], rid="s4")
    await suspend(hand.ports, hand.agent(), run, "s4", 1, 1, hand.request())
    doubtful = await hand.begin(run, "s5", {**allow(ttl=30), "labels": ["pii:customer"], "meters": {"usd": 2.5}})
    await hand.redeem(doubtful["grant"]["jti"], rid="s5")
    hand.clock.tick(hand.ports.limits.lease_ms + 1)
    await sweep(hand.ports)


async def answer_approval(hand: Hand, run: str, approval_id: str) -> None:
    """A person of finance approves it."""
    listed = await hand.ports.reads.approvals("acme", Page(), run=run)
    approval = next(one for one in listed.rows if one.id == approval_id)
    payload = (await hand.ports.reads.payloads("acme", run, [approval.binding_c]))[approval.binding_c]
    digest = str(canonical.loads(payload.value()))
    await decide_approval(
        hand.ports, hand.approver("ann", "finance"), approval_id, verdict="approve", digest=digest, note="looks right",
        request=hand.request(),
    )  # fmt: skip


async def _second_epoch(hand: Hand, run: str) -> None:
    hand.clock.tick(60_000)
    await hand.open("nightly", who="k2", input_bytes=INPUT)
    who = hand.agent("k2")
    await hand.begin(
        run, "s5~reconcile~1", allow(effect="read"), epoch=2, effect=Effect.READ, tool="pay.reconcile", who="k2"
    )
    await hand.complete(run, "s5~reconcile~1", epoch=2, who="k2")
    said = Verdict(1, "done", Result(b'{"rotated":"beta"}'), evidence="version 7 at the target", via="s5~reconcile~1")
    await reconcile(hand.ports, who, run, "s5", 2, said, hand.request())
    try:
        await hand.begin(run, "s6", allow(issuer="static", params={"secret": "missing"}), epoch=2, who="k2")
    except IssuerRefused:
        hand.clock.tick(1)
    await hand.begin(run, "s1", allow(), epoch=2, who="k2")
    await park(hand.ports, hand.agent("k2"), run, 2, "requested", hand.request())


async def administration(hand: Hand) -> None:
    """What people do in the tenant's own chain."""
    ports, operator = hand.ports, hand.operator
    made = await create_operator(ports, "acme", operator, name="Bea", roles=["approver"], groups=["finance"])
    await remove_operator(ports, "acme", operator, str(made["id"]))
    for name in ("crm", "erp"):
        await set_secret(ports, "acme", operator, name=name, value="hunter2", hosts=("crm.example",))
    await remove_secret(ports, "acme", operator, "erp")
    await quarantine(ports, operator, "agent", "other-agent", beforehand=True)
    await quarantine(ports, operator, "issuer", "static")
    await release(ports, operator, "issuer", "static")
    try:
        await hand.open("refused", labels={"stepgrant.run.open": "no"})
    except PolicyDenied:
        hand.clock.tick(1)
    await unenroll(ports, "acme", operator, hand.server.id)
