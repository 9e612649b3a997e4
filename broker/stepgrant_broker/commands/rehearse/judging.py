"""From what was seen to findings. Pure: each function looks at one rehearsal for one kind of mistake.

Rules:
* Compared is with the plain run of the same agent: what it does when nothing happens is what it is meant to do.
* A cause is told instead of its consequences: an agent that cannot go on because of its step ids is told about the ids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

from stepgrant_broker.commands.rehearse.arriving import hangs, no_run, not_finished
from stepgrant_broker.commands.rehearse.findings import Finding, Level, merged
from stepgrant_broker.commands.rehearse.performing import IN_DOUBT, Rehearsal
from stepgrant_broker.commands.rehearse.trace import HOOK, Call

Found = Iterator[Finding]
Look = Callable[[Rehearsal, Rehearsal], Found]
PAUSES: Final = frozenset({
    "approval_required", IN_DOUBT, "suspected_duplicate", "prior_credential_live", "stale_epoch", "lease_held",
    "quarantined", "broker_unavailable", "key_lost",
})  # fmt: skip
"""Errors that are no answer: the step is not over (`stepgrant._guard` says so of the same)."""
CAUSES: Final[Mapping[str, tuple[str, ...]]] = {
    "effect_undeclared": ("no_reconcile_hook",),
    "id_reused": ("approval_lost",),
    "order_changes": ("approval_lost", "work_redone"),
    "ids_change": ("work_redone", "approval_lost"),
}
NOT_STORED: Final = frozenset({"not_json", "too_large"})


def judge(rehearsals: Iterable[Rehearsal], outside_ok: Iterable[str] = ()) -> list[Finding]:
    """All findings, each once. The first rehearsal is the plain one."""
    every = list(rehearsals)
    plain, known = every[0], tuple(outside_ok)
    found = [finding for one in every for finding in _of(one, plain, known)]
    return _without_consequences(merged(found))


def _of(one: Rehearsal, plain: Rehearsal, outside_ok: tuple[str, ...]) -> list[Finding]:
    found = [finding for look in LOOKS for finding in look(one, plain)]
    found += effects_outside(one, outside_ok)
    if not any(finding.kind.level is Level.ERROR for finding in found):
        # Only where nothing more exact was found: that it did not get on is a consequence then.
        found += [finding for look in LAST_LOOKS for finding in look(one, plain)]
    for finding in found:
        finding.seen_in.append(one.scenario.id)
    return found


def _without_consequences(found: list[Finding]) -> list[Finding]:
    """One cause, one finding: each kind of `CAUSES` hides what it leads to for the same tool."""
    hidden = {(result, one.subject) for one in found for result in CAUSES.get(one.code, ())}
    return [one for one in found if (one.code, one.subject) not in hidden]


def _calls(one: Rehearsal, *errors: str) -> Iterator[Call]:
    return (call for call in one.trace.calls if call.error in errors)


def _words(call: Call) -> str:
    return str((call.came or {}).get("why", ""))


# --------------------------------------------------------------------------------------------------- ids, order, runs


def concurrency(one: Rehearsal, _: Rehearsal) -> Found:
    """Calls side by side without ids."""
    for call in _calls(one, "ordinal_under_concurrency"):
        yield Finding("ids_missing", call.tool, _words(call))


def drift(one: Rehearsal, _: Rehearsal) -> Found:
    """The same key, another action."""
    for call in _calls(one, "step_drift"):
        yield Finding("id_reused" if call.has_id else "order_changes", call.tool, _words(call))


def ids_change(one: Rehearsal, plain: Rehearsal) -> Found:
    """The broker recognised completed work under another id, or a person was asked the same under several."""
    for call in _calls(one, "suspected_duplicate"):
        yield Finding("ids_change", call.tool, _words(call))
    usual = _asked(plain)
    for (tool, digest), steps in _asked(one).items():
        if len(steps) > 1 and len(usual.get((tool, digest), ())) < len(steps):
            yield Finding("ids_change", tool, f"a person was asked the same as {' and as '.join(sorted(steps)[:2])}")


def _asked(one: Rehearsal) -> Mapping[tuple[str, str], set[str]]:
    """The steps under which people were asked, by equal action."""
    asked: dict[tuple[str, str], set[str]] = {}
    for events in one.standing.events.values():
        for event in events:
            action = event.part("action")
            if event.type == "approval_requested" and event.step is not None:
                asked.setdefault((str(action.get("tool")), str(action.get("digest_c"))), set()).add(event.step)
    return asked


def redone(one: Rehearsal, plain: Rehearsal) -> Found:
    """More steps of a tool came to their end than in the plain run, or the same action did in two steps."""
    if one is plain or len(one.lives) == 1 or len(one.standing.runs) > len(plain.standing.runs):
        return  # work of another run is told as the other run
    usual, usual_same = _completed(plain)
    now, now_same = _completed(one)
    for tool, count in now.items():
        again = [steps for (name, _), steps in now_same.items() if name == tool and len(steps) > 1]
        if count > usual[tool] > 0:
            yield Finding("work_redone", tool, f"{count} steps of it completed, in the plain run {usual[tool]}")
        elif again and not any(len(steps) > 1 for (name, _), steps in usual_same.items() if name == tool):
            yield Finding("work_redone", tool, f"the same action completed as {' and as '.join(sorted(again[0]))}")


def _completed(one: Rehearsal) -> tuple[Counter[str], Mapping[tuple[str, str], set[str]]]:
    """Completed steps by tool, and by equal action. Reads that only look (hooks) are no work."""
    same: dict[tuple[str, str], set[str]] = {}
    for events in one.standing.events.values():
        for event in events:
            action = event.part("action")
            tool = str(action.get("tool", ""))
            if event.type == "step_completed" and event.step is not None and not tool.endswith(HOOK):
                same.setdefault((tool, str(action.get("digest_c"))), set()).add(event.step)
    counts: Counter[str] = Counter()
    for (tool, _), steps in same.items():
        counts[tool] += len(steps)
    return counts, same


def other_run(one: Rehearsal, plain: Rehearsal) -> Found:
    """A start that opened another run instead of the unfinished one."""
    if len(one.standing.runs) > len(plain.standing.runs):
        keys = sorted({str(opened.key) for opened in one.trace.opened})
        yield Finding("new_run_each_start", "", f"run keys: {', '.join(keys[:3])}")


def other_input(one: Rehearsal, _: Rehearsal) -> Found:
    """A resume that was refused for its input."""
    for opened in one.trace.opened:
        if opened.error == "duplicate_request":
            yield Finding("input_changes", "", str((opened.came or {}).get("why", "")))


# -------------------------------------------------------------------------------------------------------------- effects


def effects_outside(one: Rehearsal, known: tuple[str, ...]) -> Found:
    """What was done to the world in the run, and in no tool."""
    for seen in one.trace.outside:
        if not any(fnmatchcase(seen.target, pattern) for pattern in known):
            yield Finding("effect_outside", f"{EVENTS.get(seen.event, seen.event)} {seen.target}", f"at {seen.where}")


EVENTS: Final = {
    "open": "writes", "os.remove": "removes", "os.rename": "renames", "os.system": "runs", "socket.connect":
    "connects to", "subprocess.Popen": "runs",
}  # fmt: skip


def ran_twice(one: Rehearsal, _: Rehearsal) -> Found:
    """A `once` tool that came to its end in one step twice, without anybody saying that it had not happened."""
    settled = {
        event.step
        for events in one.standing.events.values()
        for event in events
        if event.type == "step_reconciled"
    }  # fmt: skip
    done = Counter((call.tool, str(call.step)) for call in one.trace.calls if call.did and call.effect == "once")
    for (tool, step), count in done.items():
        if count > 1 and step not in settled:
            yield Finding("once_ran_twice", tool, f"step {step} ran {count} times")


def undeclared(one: Rehearsal, _: Rehearsal) -> Found:
    """Tools of which nobody said what they do."""
    for call in one.trace.tools().values():
        if not call.declared:
            yield Finding("effect_undeclared", call.tool, "no effect=, no reconcile=, no step_id=")


def doubt(one: Rehearsal, _: Rehearsal) -> Found:
    """A doubt that stayed."""
    for call in _calls(one, IN_DOUBT):
        tool = call.tool.removesuffix(HOOK)
        yield Finding("hook_cannot_tell" if call.hook else "no_reconcile_hook", tool, _words(call))


# ------------------------------------------------------------------------------------------------------ results, errors


def withheld(one: Rehearsal, _: Rehearsal) -> Found:
    """Results that are not there for whoever resumes."""
    for call in one.trace.calls:
        if call.error == "secret_in_result":
            yield Finding("secret_in_result", call.tool, _words(call))
        elif call.error in NOT_STORED and call.did:
            yield Finding("result_not_stored", call.tool, _words(call))


def swallowed(one: Rehearsal, _: Rehearsal) -> Found:
    """A pause that the agent took for an answer: its run is completed, and the call was never made again."""
    if not one.finished:
        return
    last = len(one.lives)
    came = one.trace.calls_of(last)
    for place, call in enumerate(came):
        if (
            call.error in PAUSES
            and not call.is_hook
            and not any(later.same == call.same for later in came[place + 1 :])
        ):
            yield Finding("swallowed", str(call.error), f"{call.tool} ended with it, and the run was completed")


def approvals(one: Rehearsal, _: Rehearsal) -> Found:
    """A question that was asked again because the action was another one."""
    for events in one.standing.events.values():
        asked: dict[str, set[Any]] = {}
        for event in events:
            if event.type == "approval_requested" and event.step is not None:
                asked.setdefault(event.step, set()).add(event.part("action").get("digest_c"))
        for step, digests in asked.items():
            if len(digests) > 1:
                yield Finding("approval_lost", _tool_of(one, step), f"step {step} was asked about with other arguments")


def _tool_of(one: Rehearsal, step: str) -> str:
    for events in one.standing.events.values():
        for event in events:
            if event.step == step and event.part("action"):
                return str(event.part("action").get("tool"))
    return step


def denied(one: Rehearsal, plain: Rehearsal) -> Found:
    """What policy refused in the plain run, if the run did not get to its end."""
    if one is not plain or one.finished:
        return
    for call in _calls(one, "policy_denied"):
        reasons = ", ".join((call.came or {}).get("reasons", ()))
        yield Finding("denied_by_policy", call.tool, f"reasons: {reasons}")
    for call in _calls(one, "credential_misuse"):
        yield Finding("no_audience", call.tool, _words(call))
    for opened in one.trace.opened:
        if opened.error in {"policy_denied", "forbidden"}:
            why = str((opened.came or {}).get("why", ""))
            yield Finding("denied_by_policy", f"the run of agent {opened.agent}", why)


# ---------------------------------------------------------------------------------------------------------- credentials


def alive(one: Rehearsal, _: Rehearsal) -> Found:
    """What still works after the end."""
    ended = {run.id for run in one.standing.runs if run.state.ended}
    for grant in one.standing.live:
        if grant.run in ended:
            yield Finding("credential_alive", grant.tool, f"grant {grant.jti} of step {grant.step}")


LOOKS: Final[tuple[Look, ...]] = (
    denied, concurrency, drift, ids_change, redone, other_run, other_input, ran_twice, undeclared, doubt, withheld,
    swallowed, approvals, alive,
)  # fmt: skip
LAST_LOOKS: Final[tuple[Look, ...]] = (hangs, no_run, not_finished)
