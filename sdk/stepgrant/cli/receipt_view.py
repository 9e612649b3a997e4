"""A verified receipt on the screen, and as JSON: its verdict, what is missing, its steps, what it does not prove."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from stepgrant import _receipt_words as words
from stepgrant import receipt
from stepgrant.cli import plain, story_of, timeline, timeline_view

if TYPE_CHECKING:
    from stepgrant.cli.output import Output
    from stepgrant.receipt import Step, Verified


def print_verdict(out: Output, verified: Verified, *, compared: tuple[int, int] | None = None) -> None:
    """What `receipt verify` says to people. `compared`: with how many of how many entries of an earlier receipt."""
    out.line(f"The receipt holds: {words.verdict(verified)}", style="green")
    for line in words.proven(verified):
        out.line(f"  {line}")
    if verified.logged is not None and not verified.logged.cosigned:
        out.line(f"  {words.NO_WITNESS}", style="dim")
    if compared is not None:
        out.line(f"  {words.continues(*compared)}")
    for gap in verified.missing:
        out.line(f"  Missing: {plain.visible(gap.text)}.", style="yellow")
    if verified.erased is not None:
        out.line(f"  {words.erased(verified.erased)}", style="yellow")
    out.facts((("last entry", verified.head_hash), ("receipt", verified.digest)))
    out.line("  It does not prove:", style="dim")
    for line in receipt.DOES_NOT_PROVE:
        out.line(f"    {line}", style="dim")


def print_story(out: Output, verified: Verified) -> None:
    """What happened, in order."""
    timeline_view.show(timeline.tell(verified.events), out, part=verified.scope[0] != "run")


def print_whole(out: Output, verified: Verified, *, texts: bool) -> None:
    """What `receipt show` says: the story, each step with its evidence, the verdict. `texts`: the policies in full."""
    print_story(out, verified)
    for step in verified.steps:
        out.line()
        _step(out, step)
    out.line()
    for revision in verified.facts.revisions:
        files = verified.policies.get(revision)
        told = "its text is not in this receipt" if files is None else plain.joined(sorted(files))
        out.line(f"policy {plain.visible(revision)}: {told}")
        for path in sorted(files or {}) if texts and files is not None else ():
            out.line(f"  --- {plain.visible(path)}", style="dim")
            for line in files[path].split("\n") if files is not None else ():
                out.line("  " + "    ".join(map(plain.visible, line.split("\t"))))
    out.line()
    print_verdict(out, verified)


def _step(out: Output, step: Step) -> None:
    number = f"{step.position}. " if step.position is not None else ""
    out.line(f"step {number}{plain.visible(step.key)}: {words.outcome(step)}", style="bold")
    pairs = [("who", words.who(actor)) for actor in step.who]
    pairs += [("policy", f"{words.decided(one)} ({one.revision})") for one in step.decisions]
    for approval in step.approvals:
        pairs += [("approval", words.asked(approval)), *(("", line) for line in words.answered(approval))]
    pairs += [("credential", f"{grant.jti}, {grant.issuer}: {words.end_of(grant)}") for grant in step.grants]
    out.facts(pairs)


def as_json(verified: Verified, *, story: bool = False, steps: bool = False) -> dict[str, Any]:
    """The same for machines."""
    value = story_of.facts(verified)
    if story:
        value["story"] = timeline.as_json(timeline.tell(verified.events))
    if steps:
        value["steps"] = [_without_texts(asdict(step)) for step in verified.steps]
    return value


def _without_texts(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """A policy's text stands in the receipt once, and not beside each decision."""
    if isinstance(value, Mapping):
        return {name: _without_texts(member) for name, member in value.items() if name != "policy"}
    return [_without_texts(one) for one in value] if isinstance(value, (list, tuple)) else value
