"""Runs, leases, steps, grants, approvals and doubt, as protocol.md tells them, in the slow and plain way.

It imports nothing of the broker, and knows no tables, entries or commits. Times are milliseconds. A method says what
the broker may answer (`said`) and changes the model only if the call is answered. Where the page leaves something open,
the model leaves it open too:

* which of several reasons a refusal names (a set of codes);
* how a step is called between attempts: `row` is only its line in the table of §4.

Where the page is silent the model was made to say what the broker does, which shows that the broker is steady in it
and not that it is right: advice changes nothing of an attempt under way; the holder's report settles a doubt of its
own epoch (DECISIONS.md, 15); an unknown outcome of a provably unused grant is `not_executed`, of a read or an
idempotent step a failed attempt; a new question makes the older one void, and one is used again only for the same
quorum; an allow spends an approval that is bound to it; an older credential is looked at before policy is asked; a
`once` step goes into doubt at a park, a sweep and an end too; a revoke of an unused grant takes its attempt back; the
same outcome twice is answered twice; an approval is `unknown_approval` once its run has ended.
"""

from __future__ import annotations

from model.said import Refused, Said, answered, refused
from model.things import LEASE, RESUME, VALID_S, WINDOW, Approval, Call, Decision, Grant, Run, Step, question


class Plain:
    """One broker as its protocol tells it, for runs that the caller names."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.runs: dict[str, Run] = {}

    # --- runs ----------------------------------------------------------------------------------------------------

    def open(self, name: str, key: str, *, value: object, on_resume: str = "allow", takeover: bool = False) -> Said:
        """Open, resume or take over. `on_resume`: what policy says of the latter two (fixed by the run's labels)."""
        run = self.runs.get(name)
        if run is None:
            self.runs[name] = Run(key, value, on_resume, self.now + LEASE, {key})
            return answered(epoch=1, resumed=False, doubts=())
        wrong = {"run_ended"} if run.ended else set()
        wrong |= {"quarantined"} if run.state == "quarantined" else set()
        wrong |= {"lease_held"} if run.state == "open" and self.now < run.lease_until and not takeover else set()
        wrong |= {"duplicate_request"} if value != run.input else set()
        wrong |= {"wrong_holder", "invalid_request"} if key in run.keys else set()
        if wrong:
            return refused(*wrong)
        if run.on_resume == "deny":
            return refused("policy_denied")
        if run.on_resume == "ask":
            outcome, met = self._ask(run, (RESUME, 0, "once"), 1)
            if met is None:
                return refused("policy_denied" if outcome == "denied" else outcome)
            met.spent_on = Grant(RESUME, 1, run.epoch, "once", 0, required=False, at=self.now, exp=0)
        run.release()
        run.state, run.key, run.epoch, run.lease_until = "open", key, run.epoch + 1, self.now + LEASE
        run.keys.add(key)
        for approval in run.approvals:
            if approval.status == "approved" and not approval.back:
                approval.back, approval.counts_from = True, self.now
        doubts = tuple(sorted(name for name, step in run.steps.items() if step.row == "in_doubt"))
        return answered(epoch=run.epoch, resumed=True, doubts=doubts)

    def heartbeat(self, name: str, key: str, epoch: int) -> Said:
        """Extend the lease."""
        return self._held(name, key, epoch) or self._renewed(name, epoch=epoch)

    def park(self, name: str, key: str, epoch: int) -> Said:
        """Pause."""
        return self._held(name, key, epoch) or self._left(name, "parked")

    def end(self, name: str, key: str, epoch: int, how: str) -> Said:
        """Complete, fail or cancel. What may have happened has to be settled before a run can be complete."""
        fenced = self._held(name, key, epoch)
        if fenced:
            return fenced
        doubt = self.runs[name].has_doubt()
        return refused("step_in_doubt") if doubt and how == "completed" else self._left(name, how)

    def quarantine(self, name: str) -> Said:
        """The kill switch; an ended run stays ended."""
        if not self.runs[name].ended:
            self._left(name, "quarantined")
        return answered()

    def lift(self, name: str) -> Said:
        """Release a run from the kill switch: nobody holds it until it is resumed."""
        if self.runs[name].state != "quarantined":
            return refused()
        self.runs[name].state = "parked"
        return answered()

    def sweep(self) -> None:
        """Lapsed runs are parked."""
        for name, run in self.runs.items():
            if run.state == "open" and self.now >= run.lease_until:
                self._left(name, "parked")

    def _left(self, name: str, state: str) -> Said:
        run = self.runs[name]
        run.release()
        run.state, run.lease_until = state, self.now
        return answered(state=state)

    def _held(self, name: str, key: str, epoch: int) -> Refused | None:
        wrong = self.runs[name].fence(key, epoch, self.now)
        return refused(*wrong) if wrong else None

    def _renewed(self, name: str, **members: object) -> Said:
        self.runs[name].lease_until = self.now + LEASE
        return answered(**members)

    # --- steps ---------------------------------------------------------------------------------------------------

    def step(self, name: str, key: str, epoch: int, call: Call, decision: Decision, *, act: bool) -> Said:
        """Begin (`act`), or prepare."""
        run, fenced = self.runs[name], self._held(name, key, epoch)
        if fenced:
            return fenced
        step = run.steps.get(call.step)
        if step is not None and step.drifts(call):
            return refused("step_drift")
        told = self._table(step, act=act) if step is not None else None
        if told is not None:
            return self._renewed(name, **told)
        live = [g for g in run.grants if g.effect != "read" and g.epoch < run.epoch and self.now < g.dead_from]
        if act and call.effect != "read" and live:
            return refused("prior_credential_live")
        if step is not None and step.call.args != call.args:
            run.void(call.step)
        outcome, met = self._decide(run, call, decision)
        if step is not None and step.under_way and not act:
            return self._renewed(name, outcome=outcome)
        step = self._enter(run, call)
        if outcome != "run":
            return self._renewed(name, outcome=outcome)
        if act:
            self._grant(run, step, decision, met)
        return self._renewed(name, outcome=outcome, attempt=step.attempt)

    @staticmethod
    def _enter(run: Run, call: Call) -> Step:
        """The attempt that is decided: a new step, the same attempt again, or the next one."""
        step = run.steps.setdefault(call.step, Step(call))
        if step.used or step.row in {"not_executed", "failed", "unknown"}:
            step.attempt += 1
        if step.grant is not None:
            step.grant.revoked = True
        step.call, step.row, step.grant = call, "undecided", None
        return step

    @staticmethod
    def _table(step: Step, *, act: bool) -> dict[str, object] | None:
        """The lines of §4 that do not decide again. Advice (not `act`) changes nothing."""
        if step.used and step.call.effect == "once":
            if act and step.grant is not None:
                step.row, step.grant.revoked = "in_doubt", True
            return {"outcome": "in_doubt", "attempt": step.attempt}
        if step.row == "completed" or (step.row == "failed" and not (step.call.retry and step.call.effect != "once")):
            return {"outcome": "replay", "state": step.row}
        return {"outcome": "in_doubt", "attempt": step.attempt} if step.row == "in_doubt" else None

    def _decide(self, run: Run, call: Call, decision: Decision) -> tuple[str, Approval | None]:
        of = (call.step, call.args, call.effect)
        said_no = any(one.of == of and one.status == "denied" for one in run.approvals)
        if decision.verdict == "deny" or call.effect not in {"once", decision.effect} or said_no:
            return "denied", None
        if decision.verdict == "allow":  # what people said of exactly this is spent all the same
            return "run", next((a for a in run.approvals if a.of == of and a.good(self.now, 1)), None)
        return self._ask(run, of, decision.quorum)

    def _ask(self, run: Run, of: tuple[str, int, str], quorum: int) -> tuple[str, Approval | None]:
        """What people said of exactly this, or a question to them."""
        known = [approval for approval in run.approvals if approval.of == of]
        if any(approval.status == "denied" for approval in known):
            return "denied", None
        good = [approval for approval in known if approval.good(self.now, quorum)]
        if good:
            return "run", good[-1]
        if not any(a.status == "pending" and self.now < a.answer_by and quorum == a.quorum for a in known):
            run.void(of[0])
            run.approvals.append(question(of, quorum, self.now))
        return "approval_required", None

    def _grant(self, run: Run, step: Step, decision: Decision, met: Approval | None) -> None:
        call = step.call
        required = (decision.redeem or ("optional" if call.effect == "read" else "required")) == "required"
        exp = self.now + 1000 * decision.ttl_s
        if met is not None:
            exp = min(exp, met.counts_from + VALID_S * 1000)
        step.grant = Grant(
            call.step, step.attempt, run.epoch, call.effect, call.args, required, self.now, exp, approval=met
        )
        step.row, step.started = "granted", True
        run.grants.append(step.grant)
        if met is not None:
            met.spent_on = step.grant

    def complete(self, name: str, key: str, epoch: int, step: str, attempt: int) -> Said:
        """The step is done, for ever."""
        return self._outcome(name, key, epoch, step, attempt, "completed")

    def fail(self, name: str, key: str, epoch: int, step: str, attempt: int, how: str) -> Said:
        """`not_executed`, `failed` or `unknown`; the last is what losing the outcome is."""
        return self._outcome(name, key, epoch, step, attempt, how)

    def suspend(self, name: str, key: str, epoch: int, step: str, attempt: int) -> Said:
        """Control flow left the tool."""
        return self._outcome(name, key, epoch, step, attempt, "suspended")

    def _outcome(self, name: str, key: str, epoch: int, step: str, attempt: int, row: str) -> Said:
        fenced = self._held(name, key, epoch)
        if fenced:
            return fenced
        run = self.runs[name]
        known = run.steps.get(step)
        if known is None:
            return refused("unknown_step")
        if known.row == row or (known.row == "completed" and row == "completed"):
            return self._renewed(name, attempt=attempt) if attempt == known.attempt else refused()
        # The holder's report is knowledge also about a doubt, but only about an attempt of its own epoch.
        if known.row not in {"granted", "suspended", "in_doubt"} or known.grant is None:
            return refused()
        if attempt != known.attempt or known.grant.epoch != run.epoch or (known.row, row) == ("in_doubt", "suspended"):
            return refused()
        unused, once = known.grant.unused, known.call.effect == "once"
        if row == "unknown":
            row = "not_executed" if unused else "in_doubt" if once else "unknown"
        known.grant.revoked = True
        known.row = "undecided" if row == "suspended" and unused else row
        return self._renewed(name, attempt=attempt)

    def reconcile(
        self, name: str, key: str, epoch: int, step: str, verdict: str, *, look_at: int, settle: int = 0
    ) -> Said:
        """The hook's word, by a look that began at `look_at`."""
        fenced = self._held(name, key, epoch)
        if fenced:
            return fenced
        known = self.runs[name].steps[step]
        old = known.grant
        if known.row == "in_doubt" and verdict == "not_done" and old is not None and look_at < old.dead_from + settle:
            return refused("prior_credential_live")
        said = self._settle(known, verdict)
        return said if isinstance(said, Refused) else self._renewed(name)

    def reconcile_by_person(self, name: str, step: str, verdict: str) -> Said:
        """A person's word."""
        run = self.runs[name]
        return refused("run_ended") if run.ended else self._settle(run.steps[step], verdict)

    @staticmethod
    def _settle(step: Step, verdict: str) -> Said:
        if step.row != "in_doubt":
            return refused()
        step.row = {"done": "completed", "not_done": "not_executed", "unknown": "in_doubt"}[verdict]
        return answered(attempt=step.attempt)

    # --- people and resource servers -----------------------------------------------------------------------------

    def decide(self, name: str, number: int, person: str, verdict: str, *, shown: bool = True) -> Said:
        """A person answers the run's approval `number`; `shown`: with the digest that was shown."""
        run, approval = self.runs[name], self.runs[name].approvals[number]
        wrong = {"approval_expired"} if self.now >= approval.answer_by else set()
        wrong |= set() if shown else {"digest_mismatch"}
        wrong |= {"run_ended", "unknown_approval"} if run.ended else set()
        if wrong:
            return refused(*wrong)
        if approval.status != "pending":
            return refused()
        approval.yes |= {person}
        if verdict == "deny":
            approval.status = "denied"
        elif len(approval.yes) >= approval.quorum:
            approval.status, approval.counts_from = "approved", self.now
        return answered(status=approval.status)

    def redeem(self, name: str, grant: Grant, rid: str, *, args: int) -> Said:
        """A resource server spends the grant's one use. `rid` names redemption and proof."""
        run = self.runs[name]
        if args != grant.args:
            return refused("digest_mismatch")
        if grant.redeemed_at is not None and (grant.rid != rid or self.now >= grant.act_before):
            return refused("already_redeemed")
        wrong = {"grant_revoked"} if grant.revoked or run.fence(run.key, grant.epoch, self.now) else set()
        wrong |= {"grant_expired"} if self.now >= grant.exp else set()
        if wrong:
            return refused(*wrong, "quarantined")
        if grant.redeemed_at is None:
            grant.redeemed_at, grant.rid, grant.act_before = self.now, rid, min(self.now + WINDOW, grant.exp)
        return answered(act_before=grant.act_before)

    def revoke(self, name: str, number: int) -> Said:
        """An operator takes a grant back. If it is unused, its attempt never happened, and has no outcome."""
        run = self.runs[name]
        grant = run.grants[number]
        grant.revoked = True
        step = run.steps[grant.step]
        if step.grant is grant and grant.unused and step.under_way:
            step.row = "undecided"
        return answered()
