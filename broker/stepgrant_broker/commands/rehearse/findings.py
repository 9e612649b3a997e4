"""What a rehearsal can find: each kind with its level, what it means, and how to mend it. Pure.

Rules:
* `error`: the agent does something wrong after a crash or a pause, or cannot go on; the command fails.
* `warning`: it does nothing wrong, but a person will be needed, or something could not be seen to be right.
* A finding names its subject (a tool, a file and line, a step), and mending names what to type. One mistake gives one
  finding, however many rehearsals show it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Level(StrEnum):
    """How bad it is."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of finding. `{subject}` in `title` and `mend` is filled in."""

    code: str
    level: Level
    title: str
    mend: str


KINDS: Final = {
    kind.code: kind
    for kind in (
        # -------------------------------------------------------------------------------- it never gets to its end
        Kind(
            "not_started", Level.ERROR, "The agent does not get to the end of its run, even if nothing happens to it",
            "Run it under `stepgrant dev -- ...` until it ends with exit code 0, then rehearse it.",
        ),
        Kind(
            "no_run", Level.ERROR, "The command opened no run",
            "Wrap the agent's work in `with stepgrant.run(key, agent=...)`, and let STEPGRANT_URL and "
            "STEPGRANT_WORKLOAD_KEY of the environment stand.",
        ),
        Kind(
            "denied_by_policy", Level.ERROR, "Policy denies {subject}",
            "If the agent needs it, list it under its agent's `tools` in policy/stepgrant_config/data.json.",
        ),
        Kind(
            "no_audience",
            Level.ERROR,
            "{subject} sends its credential where policy does not let it go",
            'Name the server\'s address under `"audience"` or `"resources"` of {subject} in '
            "policy/stepgrant_config/data.json, and rehearse with that policy.",
        ),
        Kind(
            "hangs", Level.ERROR, "The agent did not end in time",
            "Look at its last words above. A loop that asks for ever needs an end; a slow agent needs --timeout.",
        ),
        Kind(
            "not_resumed", Level.ERROR, "Killed and started again, the agent does not get to the end of its run",
            "Look at its last words above; the rehearsal's own command repeats it.",
        ),
        Kind(
            "run_left_open", Level.ERROR, "The agent ends well, with exit code 0, but its run is still open",
            "Leave the `with stepgrant.run(...)` block, or call `run.complete()`; its run waits for ever otherwise.",
        ),
        # ------------------------------------------------------------------------------------ it is not the same run
        Kind(
            "new_run_each_start", Level.ERROR, "Started again, the agent opens another run instead of its own",
            "Give `stepgrant.run` a key that is the same after a crash: an order's number, not a time or uuid4().",
        ),
        Kind(
            "input_changes", Level.ERROR, "Started again, the agent opens its run with another input",
            "Leave out what changes (times, random numbers), or give the input only at the first start and read "
            "`run.input`.",
        ),
        # -------------------------------------------------------------------------------------------- ids and order
        Kind(
            "ids_missing", Level.ERROR, "Calls of {subject} run side by side without ids",
            'Give each an id: `@stepgrant.tool(step_id="{subject}-{{argument}}")`, or `.with_id(...)` at the call.',
        ),
        Kind(
            "order_changes", Level.ERROR, "Calls of {subject} come in another order, or with other arguments, after a "
            "restart",
            'Record what decides it (`stepgrant.step("plan", make_plan)`), or give the tool a '
            '`step_id="{subject}-{{argument}}"`, so that a call is known by what it does and not by its place.',
        ),
        Kind(
            "id_reused", Level.ERROR, "{subject} comes with other arguments under the same id after a restart",
            "Make the arguments from recorded results only (`stepgrant.step(...)` around what changes), or let the id "
            "name what changes.",
        ),
        Kind(
            "ids_change", Level.ERROR, "Calls of {subject} have other ids after a restart: nobody knows them again",
            'Make the ids from what the call is about (`step_id="{subject}-{{argument}}"`), never from uuid4(), a time '
            "or a counter that starts anew.",
        ),
        Kind(
            "work_redone", Level.ERROR, "{subject}: completed work is done again after a restart",
            "Record what decides which calls are made (`stepgrant.step(...)`), and make ids from what a call is about.",
        ),
        # ------------------------------------------------------------------------------------------------- effects
        Kind(
            "effect_outside", Level.ERROR, "An effect outside of every tool: {subject}",
            "Move it into a @stepgrant.tool: out there nobody decides or records it, and it is done again after each "
            "crash. If it is a model's address or a saver of your framework: --outside-ok PATTERN.",
        ),
        Kind(
            "once_ran_twice", Level.ERROR, "{subject} is `once`, and ran twice",
            "Nobody redeemed its credential, so it counted as never used. Let the tool's server check it "
            '(stepgrant.verify), or set `"redeem": "optional"` for the tool in policy, and give it a reconcile hook.',
        ),
        Kind(
            "effect_undeclared", Level.WARNING, "{subject} does not say what it does, so it counts as `once`",
            'Declare it: effect="read", "idempotent", or "once" with reconcile=.',
        ),
        Kind(
            "no_reconcile_hook", Level.WARNING, "{subject} is in doubt after a crash, and only a person can settle it",
            "Give it `reconcile=`: a function that asks the target whether it happened; or declare it idempotent, if "
            "it is.",
        ),
        Kind(
            "hook_cannot_tell", Level.ERROR, "{subject} has a reconcile hook that does not settle the doubt",
            "The hook must answer done(...) or not_done() from the target's own books. What it said is above.",
        ),
        # ------------------------------------------------------------------------------------------ results, errors
        Kind(
            "secret_in_result", Level.ERROR, "{subject} returns its credential: the result is withheld, and a resumed "
            "agent does not get it",
            "Return only what the agent needs later, never the credential, a header, or a whole request.",
        ),
        Kind(
            "result_not_stored", Level.ERROR, "{subject} returns what cannot be stored: no resumed agent gets it",
            "Return plain JSON (texts, numbers, lists, objects), below the broker's size limit.",
        ),
        Kind(
            "swallowed", Level.ERROR, "The agent goes on after {subject} as if the tool had run, and completes its run",
            "Let errors of stepgrant leave the run: catch what you expect (`except Denied`), never `except Exception`. "
            "A pause is not an answer.",
        ),
        Kind(
            "approval_lost", Level.ERROR, "{subject} changes while a person is asked, so the answer is void",
            "Make the arguments from recorded results, so that what was approved is what is done.",
        ),
        # --------------------------------------------------------------------------------------------- credentials
        Kind(
            "credential_alive", Level.ERROR, "A credential of {subject} still works after the end of the run",
            "Look at its grant with the rehearsal's own command and --keep; this should not be possible.",
        ),
    )
}  # fmt: skip


@dataclass(slots=True)
class Finding:
    """One mistake: its kind, what it is about, the proof, and the rehearsals that show it."""

    code: str
    subject: str
    evidence: str
    seen_in: list[str] = field(default_factory=list)

    @property
    def kind(self) -> Kind:
        """Level and words."""
        return KINDS[self.code]

    @property
    def title(self) -> str:
        """What is wrong, in a sentence."""
        return self.kind.title.format(subject=self.subject)

    @property
    def mend(self) -> str:
        """How to mend it."""
        return self.kind.mend.format(subject=self.subject)


def merged(found: Iterable[Finding]) -> list[Finding]:
    """One finding for each mistake: errors first, in the order in which they were first seen."""
    known: dict[tuple[str, str], Finding] = {}
    for one in found:
        first = known.setdefault((one.code, one.subject), one)
        if first is not one:
            first.seen_in += [place for place in one.seen_in if place not in first.seen_in]
    return sorted(known.values(), key=lambda one: one.kind.level is not Level.ERROR)
