"""A parked run in a pure world, and a reader of its chain who is asked what it would do next."""

from __future__ import annotations

from dataclasses import dataclass, field

from fakes.world import World, agent
from stepgrant import canonical
from stepgrant_broker.domain import approvals, policy_input
from stepgrant_broker.domain.calls import Ask, Settled, StepCall
from stepgrant_broker.domain.decisions import Decision, RequireApproval
from stepgrant_broker.domain.entries import EntryType
from stepgrant_broker.domain.ids import RESUME_STEP
from stepgrant_broker.domain.next_actions import Newest, NextAction, Unasked, next_actions
from stepgrant_broker.domain.replaying import Shown
from stepgrant_broker.domain.runs import RESUME_TOOL
from stepgrant_broker.domain.state import Run


@dataclass
class Desk:
    """A world, and a reader of its chain who was shown what each decision of a step was made on."""

    world: World = field(default_factory=World)
    newest: Newest = field(default_factory=Newest)

    @property
    def run(self) -> Run:
        assert self.world.view.run is not None
        return self.world.view.run

    def begin(self, what: StepCall, decision: Decision | None = None, *, act: bool = True) -> Settled:
        world, ask = self.world, Ask(1, 1, new=True, previous_outcome=None)
        who = agent(self.run.jkt, now=world.now)
        document = canonical.loads(policy_input.for_step(world.journal(), who, what, ask, None, None))
        count = len(world.entries)
        settled = world.begin(what, decision, act=act)
        (entry,) = [entry for entry in world.entries[count:] if entry.type is EntryType.DECISION]
        self.newest.read(Shown(entry, document))  # type: ignore[arg-type] # an object
        return settled

    def ask_for_the_resume(self, decision: RequireApproval) -> str:
        """Put a question about the resume, as a resume does; the digest that people are shown."""
        journal = self.world.journal()
        binding = approvals.binding_of_resume(self.run, agent().subject, decision)
        action = {"tool": RESUME_TOOL, "resource_c": None, "digest_c": "c", "effect": "once"}
        member = {"effect": "require_approval", "reasons": ["long"], "policy_revision": "1:x", "input_c": "c"}
        approvals.request(
            journal, approval_id=self.world.fresh("apr"), step=RESUME_STEP, attempt=1, binding=binding,
            decision=decision, action=action, decision_member={**member, "decision_id": "dec_r"}, why_again=None,
            limits=self.world.limits,
        )  # fmt: skip
        self.world.keep(journal)
        return binding.text()

    def next(self, *bound: str) -> list[NextAction | Unasked]:
        """What is asked next. `bound`: what the newest question is bound to, if it is not a step's ordinary call."""
        world = self.world
        known = {world.shown(one): one.binding_c for one in world.view.approvals.values()}
        known |= {text: world.approval().binding_c for text in bound}
        return list(next_actions(world.view, self.newest, known, world.now))

    def action(self, key: str = "s1", *bound: str) -> NextAction:
        (found,) = [one for one in self.next(*bound) if one.step == key]
        assert isinstance(found, NextAction)
        return found
