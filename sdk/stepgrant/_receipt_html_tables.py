"""The tables of the page: steps, decisions, approvals, credentials, and the policy texts that decided."""

from __future__ import annotations

import json
from collections.abc import Iterator

from stepgrant import _receipt_words as words
from stepgrant._receipt_facts import Approval, Decision, Grant, Step
from stepgrant._receipt_html_tags import Markup, folded, joined, lines, listed, section, table, tag, text
from stepgrant._receipt_verified import Verified
from stepgrant.canonical import JsonValue
from stepgrant.cli import plain


def time(ms: int | None) -> Markup:
    """A time as people and programs read it."""
    shown = words.when(ms)
    return tag("time", shown, datetime=shown) if shown.endswith("Z") else text(shown)


def json_text(value: JsonValue) -> Markup:
    """A value in full, indented."""
    return tag("pre", lines(json.dumps(value, indent=2, ensure_ascii=False)))


def steps(verified: Verified) -> Markup:
    """Each step in one row: who did what, under which decision, with whose approval and which credential."""
    columns = ("Step", "Action", "Who", "Decisions", "Approval", "Credential", "Outcome")
    rows = [_step(verified, step) for step in verified.steps]
    if not rows:
        return section("steps", "Steps", tag("p", "There are no entries of steps."))
    return section("steps", "Steps", table("Each step, from its entries alone.", columns, rows, named="steps-table"))


def _step(verified: Verified, step: Step) -> Iterator[Markup]:
    number = f"{step.position}. " if step.position is not None else ""
    yield text(f"{number}{step.key}")
    yield _action(verified, step)
    yield listed(text(words.who(actor)) for actor in step.who)
    yield listed(joined((f"{words.decided(one)}, policy ", _policy_link(verified, one))) for one in step.decisions)
    yield listed(line for approval in step.approvals for line in _approval_lines(approval))
    yield listed(joined((f"{grant.issuer or 'an issuer'}: {words.end_of(grant)}",)) for grant in step.grants)
    yield text(words.outcome(step))


def _action(verified: Verified, step: Step) -> Markup:
    parts: list[str] = [text(step.tool or "unknown")]
    if step.resource is not None:
        parts.append(text(f" on {plain.json_line(step.resource)}"))
    if step.effect is not None:
        parts.append(text(f", {step.effect}"))
    if step.args is not None:
        parts.append(folded("arguments", json_text(step.args)))
    elif step.tool is not None:
        parts.append(tag("span", f" (arguments {hidden_word(verified)})", class_="quiet"))
    return joined(parts)


def hidden_word(verified: Verified) -> str:
    """Why a value is not there."""
    return "erased" if verified.erased is not None else "not disclosed"


def decisions(verified: Verified) -> Markup:
    """Every decision with its reasons."""
    columns = ("When", "Step", "Answer and reasons", "Policy", "Decision", "Asked with")
    rows = [_decision(verified, one) for one in verified.decisions]
    if not rows:
        return section("decisions", "Decisions", tag("p", "There are no decisions in it."))
    made = table("Each decision of policy, in order.", columns, rows, named="decisions-table")
    return section("decisions", "Decisions", made)


def _decision(verified: Verified, one: Decision) -> Iterator[Markup]:
    yield time(one.at)
    yield text(f"{one.step or 'the run'}: {one.phase or ''}")
    yield text(words.decided(one))
    yield _policy_link(verified, one)
    yield joined((tag("code", one.decision_id or "unknown"), f" by {one.engine}" if one.engine else ""))
    yield text(hidden_word(verified)) if one.input is None else folded("input", json_text(one.input))


def _policy_link(verified: Verified, one: Decision) -> Markup:
    if one.revision is None:
        return text("unknown")
    counter, _, digest = one.revision.partition(":")
    short = f"{counter}:{digest.removeprefix('sha-256:')[:12]}"
    return tag("a", short, href=f"#{_policy_id(verified, one.revision)}")


def _policy_id(verified: Verified, revision: str) -> str:
    return f"policy-{verified.facts.revisions.index(revision) + 1}"


def approvals(verified: Verified) -> Markup:
    """Every question to people, and who answered what."""
    columns = ("Approval", "Step", "Question", "Answers", "Came to", "Spent by")
    if not verified.approvals:
        return section("approvals", "Approvals", tag("p", "No person was asked."))
    rows = [
        (
            tag("code", one.id),
            text(one.step or ""),
            joined(list(_approval_lines(one))[:1]),
            listed(text(line) for line in words.answered(one)) or text("nobody answered"),
            text(one.settled or "no answer that counts"),
            tag("code", one.used_by) if one.used_by else text("no grant in this receipt"),
        )
        for one in verified.approvals
    ]
    made = table("Each question to people.", columns, rows, named="approvals-table")
    return section("approvals", "Approvals", made)


def _approval_lines(one: Approval) -> Iterator[Markup]:
    until = f", to be answered by {words.when(one.answer_by)}" if one.answer_by is not None else ""
    again = f" (asked again: {one.why_again})" if one.why_again else ""
    yield text(f"{words.asked(one)}{until}{again}")
    for line in words.answered(one):
        yield text(line)


def grants(verified: Verified) -> Markup:
    """The life of every credential. The secrets themselves are in no receipt."""
    columns = ("Grant", "Step", "Credential", "Issued", "Expires", "Redeemed", "End")
    if not verified.grants:
        return section("credentials", "Credentials", tag("p", "No credential was issued."))
    rows = [_grant(one) for one in verified.grants]
    made = table("The life of each credential.", columns, rows, named="credentials-table")
    return section("credentials", "Credentials", made)


def _grant(one: Grant) -> Iterator[Markup]:
    yield tag("code", one.jti)
    yield text(f"{one.step or ''}, attempt {one.attempt}, epoch {one.epoch}")
    yield text(f"{one.issuer or 'an issuer'} for {one.audience or 'an unknown audience'}")
    yield time(one.issued_at)
    yield time(one.expires_at)
    yield listed(
        text(f"by {use.server or 'a server'} at {words.when(use.at)}, to act before {words.when(use.act_before)}")
        for use in one.redemptions
    ) or text("not redeemed" if one.redeem == "required" else "needs no redeeming")
    kind = {"failed": "quiet", "cannot_be_revoked": "bad", "open": "person", "unconfirmed": "person"}
    yield tag("span", text(words.end_of(one)), class_=kind.get(one.end))


def policies(verified: Verified) -> Markup:
    """The text of each policy that decided; its digest stands in the decisions."""
    parts: list[str] = []
    for number, revision in enumerate(verified.facts.revisions, start=1):
        files = verified.policies.get(revision)
        parts.append(tag("h3", f"Revision {revision}", id=f"policy-{number}"))
        if files is None:
            parts.append(tag("p", "Its text is not in this receipt.", class_="warning"))
            continue
        parts.append(tag("p", "This text has the digest that the decisions name.", class_="quiet"))
        for path, content in files.items():
            size = plain.count(len(content.splitlines()), "line")
            parts.append(folded(f"{path}, {size}", tag("pre", lines(content))))
    return section("policies", "Policy texts", *(parts or [tag("p", "No policy was asked.")]))
