"""Markup that cannot be broken out of: every text becomes text, and only what `tag` made is markup.

Rules:
* `Markup` is what `tag`, `void` and `joined` return; a plain `str` in their content is escaped, always.
* Control, format and bidirectional characters are shown as escapes (`plain.visible`), so that a page cannot show other
  words than the ones that were hashed.
* What is written is HTML5 and well-formed XML at once (all elements closed, all attributes quoted): a strict parser can
  check that nothing of others became an element.
* Attribute names and element names are ours; they never come from a receipt.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

from stepgrant.cli import plain


class Markup(str):
    """A piece of the page, ready."""

    __slots__ = ()


def text(value: object) -> Markup:
    """A text on one line."""
    return Markup(html.escape(plain.visible(value)))


def lines(value: str) -> Markup:
    """A text that keeps its lines and tabs, for `pre`."""
    shown = "\n".join("\t".join(map(plain.visible, line.split("\t"))) for line in value.split("\n"))
    return Markup(html.escape(shown))


def joined(parts: Iterable[str]) -> Markup:
    """Pieces one after the other; what is no markup is escaped."""
    return Markup("".join(part if isinstance(part, Markup) else text(part) for part in parts))


def tag(name: str, /, *content: str, **attributes: str | None) -> Markup:
    """An element. `class_="x"` and `aria_label="y"` become `class` and `aria-label`; `None` leaves one out."""
    return Markup(f"<{name}{_attributes(attributes)}>{joined(content)}</{name}>")


def void(name: str, /, **attributes: str | None) -> Markup:
    """An element that has no content (`meta`)."""
    return Markup(f"<{name}{_attributes(attributes)} />")


def _attributes(attributes: dict[str, str | None]) -> str:
    if not attributes:
        return ""
    return "".join(
        f' {name.rstrip("_").replace("_", "-")}="{text(value)}"'
        for name, value in attributes.items()
        if value is not None
    )


def table(caption: str, columns: Iterable[str], rows: Iterable[Iterable[str]], *, named: str) -> Markup:
    """A table whose first column names its rows, in a frame of its own that can be scrolled. `named`: its id."""
    head = tag("thead", tag("tr", *(tag("th", one, scope="col") for one in columns)))
    body = tag("tbody", *(_row(list(row)) for row in rows))
    whole = tag("table", tag("caption", caption, id=f"{named}-caption"), head, body)
    return tag("div", whole, class_="frame", role="region", aria_labelledby=f"{named}-caption", tabindex="0")


def _row(cells: list[str]) -> Markup:
    return tag("tr", tag("th", cells[0], scope="row"), *(tag("td", cell) for cell in cells[1:]))


def folded(summary: str, *content: str) -> Markup:
    """Content that opens on a click, without a script."""
    return tag("details", tag("summary", summary), *content)


def listed(items: Iterable[str]) -> Markup:
    """A list; nothing where there are no items."""
    made = [tag("li", one) for one in items]
    return tag("ul", *made) if made else Markup("")


def facts(pairs: Iterable[tuple[str, str]]) -> Markup:
    """Names and what they stand for."""
    return tag("dl", *(part for name, value in pairs for part in (tag("dt", name), tag("dd", value))))


def section(named: str, title: str, *content: str) -> Markup:
    """A part of the page that the navigation leads to."""
    return tag("section", tag("h2", title, id=named), *content, aria_labelledby=named)
