"""A pure world: one run in memory, driven through the domain's machines with given decisions, times and randomness.

It is no second store: it holds the view that the journal of each act leaves behind, and every sealed entry.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

from changing import replace
from stepgrant import canonical
from stepgrant_broker.domain import approvals, deciding, duplicates, leasing, outcomes, redeeming, runs, steps
from stepgrant_broker.domain.caller import AgentCaller, PersonCaller
from stepgrant_broker.domain.calls import Ask, BeingRevoked, Ready, Settled, StepCall
from stepgrant_broker.domain.commitments import Committer
from stepgrant_broker.domain.decisions import Allow, ApprovalSpec, Decided, Decision, Effect, GrantSpec, RequireApproval
from stepgrant_broker.domain.entries import GENESIS, Entry, Head
from stepgrant_broker.domain.errors import PriorCredentialLive
from stepgrant_broker.domain.holding import require_holder
from stepgrant_broker.domain.journal import BROKER, By, Journal
from stepgrant_broker.domain.ports import Revocation
from stepgrant_broker.domain.settings import Limits
from stepgrant_broker.domain.state import Approval, FailStatus, Grant, IdSource, RunState, Step, View
from stepgrant_broker.domain.writes import Loaded, ProofUse, Quarantine, Tenant, Workload

START = 1_800_000_000_000
AUDIENCE = "https://tool.example"
DECISION = MappingProxyType(
    {"effect": "allow", "reasons": ["test"], "policy_revision": "1:x", "input_c": "c", "decision_id": "dec_1"}
)
JWT = deciding.IssuerFacts("jwt", Revocation.EXPIRY, outside=False, max_ttl_s=300, tokens_of_ours=True)
LOGIN = deciding.IssuerFacts("db", Revocation.CONFIRMED, outside=True, max_ttl_s=300, tokens_of_ours=False)
STATIC = deciding.IssuerFacts("static", Revocation.NONE, outside=False, max_ttl_s=300, tokens_of_ours=False)


def allow(effect: Effect = Effect.ONCE, **grant: object) -> Allow:
    """An allow that confirms this effect."""
    return Allow(("test",), GrantSpec(effect=effect, **grant))  # type: ignore[arg-type]


def ask_people(effect: Effect = Effect.ONCE, **spec: object) -> RequireApproval:
    """A decision that asks for people."""
    return RequireApproval(("test",), ApprovalSpec(**spec), GrantSpec(effect=effect))  # type: ignore[arg-type]


def workload(name: str = "w1", audiences: tuple[str, ...] = ()) -> Workload:
    """An enrolment of the tenant `acme`."""
    return Workload(f"wkl_{name}", "acme", name, "enrolled_key", ("agent",), audiences, {}, f"jkt-{name}", START)


def agent(key: str = "k1", name: str = "w1", *, now: int = START, tenant: str = "acme") -> AgentCaller:
    """A workload process with this key, attested just now."""
    return AgentCaller(
        tenant, f"workload:{name}", "enrolled_key", tenant, {}, replace(workload(name), tenant=tenant), key, now,
        now + 3_600_000, "sha-256:e", ProofUse("p", now), "p",
    )  # fmt: skip


def server(name: str = "tool", audience: str = AUDIENCE) -> AgentCaller:
    """A resource server enrolled for one audience."""
    return replace(agent("server-key"), workload=workload(name, (audience,)), subject=f"workload:{name}")


def person(name: str = "ann", *, roles: tuple[str, ...] = ("approver",), groups: tuple[str, ...] = ()) -> PersonCaller:
    """A person with a token."""
    return PersonCaller("acme", f"opr_{name}", name, frozenset(roles), frozenset(groups))


def call(step: str = "s1", *, epoch: int = 1, effect: Effect = Effect.ONCE, **more: object) -> StepCall:
    """A call of tool `pay` on `order/1`."""
    args = more.pop("args", {"amount": 1})
    resource = more.pop("resource", "order/1")
    tool = str(more.pop("tool", "pay"))
    assert resource is None or isinstance(resource, str)
    preimage = canonical.action_bytes(tool, resource, args)  # type: ignore[arg-type]
    values = {
        "step": step, "epoch": epoch, "tool": tool, "resource": resource, "args": args,
        "digest": canonical.digest_bytes(preimage), "preimage": preimage, "effect": effect,
        "id_source": IdSource.EXPLICIT,
    }  # fmt: skip
    return StepCall(**{**values, **more})  # type: ignore[arg-type]


@dataclass
class World:
    """One run of tenant `acme`, with everything in memory."""

    now: int = START
    lease_until: int = 0
    view: View = field(default_factory=View)
    entries: list[Entry] = field(default_factory=list)
    limits: Limits = field(default_factory=Limits)
    quarantines: tuple[Quarantine, ...] = ()
    ids: int = 0

    def fresh(self, prefix: str) -> str:
        """The next identifier."""
        self.ids += 1
        return f"{prefix}_{self.ids:04d}"

    def salt(self, size: int) -> bytes:
        """Deterministic salts."""
        return len(self.entries).to_bytes(2, "big") * (size // 2)

    def loaded(self) -> Loaded:
        """What a store would give."""
        return Loaded(
            self.now, Tenant("acme", 0, GENESIS, 0), self.view, self.lease_until, None, None, self.quarantines
        )

    def journal(self, by: By = BROKER) -> Journal:
        """A journal at the run's head."""
        head = Head("acme", "run_1", 0, GENESIS, 0) if self.view.run is None else self.loaded().head()
        return Journal(view=self.view, head=head, now=self.now, by=by, committer=Committer(b"k" * 32), random=self.salt)

    def keep(self, journal: Journal) -> None:
        """Commit: the journal's view is the world's."""
        self.view = journal.view
        self.entries.extend(journal.entries)

    @property
    def epoch(self) -> int:
        """The run's epoch."""
        assert self.view.run is not None
        return self.view.run.epoch

    @property
    def state(self) -> RunState:
        """The run's state."""
        assert self.view.run is not None
        return self.view.run.state

    def step(self, key: str = "s1") -> Step:
        """A step."""
        return self.view.steps[key]

    def grant(self, key: str = "s1") -> Grant:
        """The newest grant of a step."""
        return self.view.grants[self.step(key).grant or ""]

    def approval(self) -> Approval:
        """The newest approval."""
        return max(self.view.approvals.values(), key=lambda a: a.id)

    def hold(self, journal: Journal) -> None:
        """Commit and renew the lease."""
        self.keep(journal)
        self.lease_until = self.now + self.limits.lease_ms

    def open(self, who: AgentCaller | None = None, principal: str | None = None) -> None:
        """Open the run."""
        who = who or agent()
        journal = self.journal(By("workload", who.subject))
        runs.open_run(
            journal, who, run_key="job", agent="agent", version=None, labels={}, input_c=None,
            principal=(principal, "claimed") if principal else None, decision=DECISION,
        )  # fmt: skip
        self.hold(journal)

    def resume(self, who: AgentCaller, *, takeover: bool = False) -> None:
        """Resume or take over."""
        journal = self.journal(By("workload", who.subject))
        subject_c = journal.commit.peek("by.subject", who.subject)
        run = self.loaded().view.run
        assert run is not None
        held = runs.claim(self.loaded(), run, who, subject_c, takeover=takeover)
        runs.resume_run(journal, who, held, version=None, decision=DECISION, approval=None)
        self.hold(journal)

    def lapse(self) -> None:
        """Let the lease run out."""
        self.now = max(self.now, self.lease_until) + 1

    def begin(
        self,
        what: StepCall,
        decision: Decision | None = None,
        *,
        who: AgentCaller | None = None,
        act: bool = True,
        request: str | None = None,
        issuer: deciding.IssuerFacts = JWT,
    ) -> Settled:
        """Prepare (`act=False`) or begin a step under this decision."""
        who = who or agent(self.view.run.jkt if self.view.run else "k1")
        require_holder(self.loaded(), who, what.epoch)
        journal = self.journal(By("workload", who.subject))
        request = request or self.fresh("req")
        what = steps.meant(journal, what)
        considered = steps.consider(journal, what, self.limits, act=act, request=request)
        if isinstance(considered, BeingRevoked):
            self.hold(journal)
            raise PriorCredentialLive("being revoked", step=considered.step)
        if not isinstance(considered, Ask):
            self.hold(journal)
            return considered
        shown = None if considered.new else approvals.shown_to_policy(journal, what.step)
        decided = Decided(decision or allow(what.effect), "1:x", self.fresh("dec"), "test", b"{}")
        if replayed := duplicates.replay_by_policy(journal, what, considered, decided, phase="begin"):
            self.hold(journal)
            return replayed
        action = steps.prepare(journal, what, considered)
        settled = deciding.settle(
            journal, what, considered, action, decided, phase="begin",
            approval_id=lambda: self.fresh("apr"), shown=shown, limits=self.limits,
        )  # fmt: skip
        if not isinstance(settled, deciding.Allowed):
            self.hold(journal)
            return settled
        if not act:
            self.hold(journal)
            return Ready(self.step(what.step))
        exp = deciding.expiry(settled, issuer, now=self.now, not_after=who.not_after, limits=self.limits)
        ready = deciding.issue(
            journal, what, settled, issuer, jti=self.fresh("grn"), exp=exp, audience=AUDIENCE, request=request,
            redeem=deciding.redeem_mode(settled, what, issuer), handle="handle" if issuer.outside else None,
        )  # fmt: skip
        self.hold(journal)
        return ready

    def lease(self, jti: str, name: str = "lease") -> Grant:
        """Record the lease of an intent."""
        journal = self.journal()
        grant = leasing.record_lease(journal, jti, lease=name, expires_at=self.view.grants[jti].exp)
        self.keep(journal)
        return grant

    def die(self, jti: str) -> tuple[str, ...] | None:
        """Record the issuer's confirmation."""
        journal = self.journal()
        erased = leasing.record_death(journal, jti)
        self.keep(journal)
        return erased

    def redeem(
        self, key: str = "s1", *, who: AgentCaller | None = None, digest: str | None = None, rid: str = "r1"
    ) -> Grant:
        """Redeem the newest grant of a step."""
        journal = self.journal(By("resource_server", "workload:tool"))
        grant = redeeming.redeem(
            journal, self.loaded(), who or server(), self.grant(key).jti, redemption_id=rid,
            args_digest=digest or call(key).digest, proof_jti="pj", limits=self.limits,
        )  # fmt: skip
        self.keep(journal)
        return grant

    def complete(self, key: str = "s1", result: bytes = b'"ok"', attempt: int | None = None) -> Step:
        """Complete a step."""
        journal = self.journal()
        step = outcomes.complete(journal, key, attempt or self.step(key).attempt, outcomes.Result(result))
        self.hold(journal)
        return step

    def fail(self, status: FailStatus, key: str = "s1") -> Step:
        """Fail a step."""
        journal = self.journal()
        step = outcomes.fail(journal, key, self.step(key).attempt, status, "boom")
        self.hold(journal)
        return step

    def suspend(self, key: str = "s1") -> Step:
        """Suspend a step."""
        journal = self.journal()
        step = outcomes.suspend(journal, key, self.step(key).attempt)
        self.hold(journal)
        return step

    def answer(self, verdict: str = "approve", who: PersonCaller | None = None, digest: str | None = None) -> Approval:
        """Answer the newest approval with the digest that was shown."""
        approval = self.approval()
        who = who or person()
        journal = self.journal(By("person", who.name))
        shown = digest or self.shown(approval)
        done = approvals.decide(journal, approval, who, verdict=verdict, digest=shown, note=None)
        self.keep(journal)
        return done

    def shown(self, approval: Approval) -> str:
        """The digest that a person would be shown."""
        what = call(approval.step)
        binding = approvals.Binding("acme", "run_1", approval.step, what.digest, approval.effect, approval.issuer, {})
        return binding.text()

    def park(self, reason: str = "requested") -> None:
        """Park the run."""
        journal = self.journal()
        runs.park(journal, reason)
        self.keep(journal)
        self.lease_until = self.now

    def end(self, status: str = "completed") -> None:
        """End the run."""
        journal = self.journal()
        runs.end(journal, status, None)
        self.keep(journal)
