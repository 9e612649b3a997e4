"""A verified receipt as one HTML page: for an auditor who reads, prints and files it.

Rules:
* Only a `Verified` is rendered; there is no page of a receipt that does not hold.
* One file that asks for nothing: no script, no font, no image, no address. The page's own policy (CSP) forbids them,
  so that even markup that somebody smuggled in could load and send nothing.
* Everything that others wrote is text (`_receipt_html_tags`).
* First the verdict, what is missing, and the steps; then the story, decisions, approvals, credentials, policy texts;
  then the evidence entry by entry; and always what it does not prove.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from stepgrant import _receipt_html_proofs as proofs
from stepgrant import _receipt_html_tables as tables
from stepgrant import _receipt_words as words
from stepgrant._receipt_html_style import STYLE
from stepgrant._receipt_html_tags import Markup, facts, joined, listed, section, tag, text, void
from stepgrant._receipt_verified import Verified
from stepgrant.cli import plain, timeline
from stepgrant.cli._telling import Block, Mark, Story
from stepgrant.receipt import DOES_NOT_PROVE

CSP: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
PARTS: Final = (
    ("verdict", "Verdict"),
    ("steps", "Steps"),
    ("story", "Timeline"),
    ("decisions", "Decisions"),
    ("approvals", "Approvals"),
    ("credentials", "Credentials"),
    ("policies", "Policy texts"),
    ("entries", "Entries and proofs"),
    ("limits", "What it does not prove"),
)
SIGNS: Final = {
    Mark.RUN: ("▶", "run"),
    Mark.GOOD: ("✓", "good"),
    Mark.BAD: ("✗", "bad"),
    Mark.DOUBT: ("?", "doubt"),
    Mark.PERSON: ("●", "person"),
    Mark.CREDENTIAL: ("·", "credential"),
    Mark.PLAIN: ("", None),
}


def page(verified: Verified, *, keys_from: str | None = None) -> str:
    """The page. `keys_from`: a warning about where the public keys came from, if they were not yours."""
    story = timeline.tell(verified.events)
    main = tag(
        "main",
        _verdict(verified, story, keys_from),
        tables.steps(verified),
        _story(story, whole=verified.scope[0] == "run"),
        tables.decisions(verified),
        tables.approvals(verified),
        tables.grants(verified),
        tables.policies(verified),
        proofs.entries(verified),
        _limits(),
    )
    title = proofs.title(verified)
    links = [tag("li", tag("a", name, href=f"#{named}")) for named, name in PARTS]
    nav = tag("nav", tag("ul", *links), aria_label="Parts of this receipt")
    body = tag("body", tag("header", tag("h1", title), nav), main, _footer(verified))
    return f"<!DOCTYPE html>\n{tag('html', _head(title), body, lang='en')}\n"


def _head(title: str) -> Markup:
    return tag(
        "head",
        void("meta", charset="utf-8"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{CSP}" />'),
        void("meta", name="viewport", content="width=device-width, initial-scale=1"),
        void("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        Markup(f"<style>{STYLE}</style>"),
    )


def _verdict(verified: Verified, story: Story, keys_from: str | None) -> Markup:
    holds = [tag("p", tag("strong", "The receipt holds: "), words.verdict(verified))]
    holds += [tag("p", line) for line in words.proven(verified)]
    parts: list[str] = [tag("div", *holds, class_="verdict")]
    if keys_from is not None:
        parts.append(tag("p", keys_from, class_="warning"))
    if verified.erased is not None:
        parts.append(tag("p", words.erased(verified.erased), class_="warning"))
    parts += [tag("h3", "Is anything missing?"), listed(text(line) for line in words.missing(verified))]
    parts.append(facts([*_about(verified, story), *proofs.signed(verified)]))
    return section("verdict", "Verdict", *parts)


def _about(verified: Verified, story: Story) -> Iterator[tuple[str, str]]:
    yield "Tenant", text(verified.tenant)
    yield "Run", text(f"{verified.run} ({story.key})" if story.key else verified.run)
    if story.agent:
        yield "Agent", text(story.agent)
    if verified.scope[0] == "run":
        yield "State", text(story.state)
    yield "From", tables.time(verified.events[0].ts)
    yield "To", tables.time(verified.events[-1].ts)
    yield "Values", text(f"{verified.disclosed} disclosed, {verified.hidden} {tables.hidden_word(verified)}")


def _story(story: Story, *, whole: bool) -> Markup:
    parts: list[str] = [tag("p", "Times count from the first entry that is here.", class_="quiet")]
    for number, block in enumerate(story.blocks):
        parts += _block(block, number)
    if whole:  # a part knows neither how long the run took nor what is open in it
        parts.append(facts((name, text(value)) for name, value in story.totals))
        parts.append(listed(text(one) for one in story.open))
    return section("story", "Timeline", *parts)


def _block(block: Block, number: int) -> Iterator[Markup]:
    named = f"block-{number}"
    what = " · ".join([block.title, *block.facts]) if block.step is not None else "The run"
    rows = []
    for line in block.lines:
        sign, kind = SIGNS[line.mark]
        told = joined((tag("span", f"{sign} ", aria_hidden="true") if sign else "", line.text))
        rows.append(tag("tr", tag("th", plain.clock(line.at), scope="row"), tag("td", told, class_=kind)))
    yield tag("h3", what, id=named)
    yield tag("table", tag("tbody", *rows), class_="story", aria_labelledby=named)


def _limits() -> Markup:
    known = "Who verified it knows all that is above. No receipt proves:"
    return section("limits", "What this receipt does not prove", tag("p", known), listed(map(text, DOES_NOT_PROVE)))


def _footer(verified: Verified) -> Markup:
    told = (
        "This page was made from a receipt that was verified offline. The page itself is not signed: to be sure, "
        "verify the receipt file, whose digest is "
    )
    return tag("footer", tag("p", told, tag("code", verified.digest), "."))
