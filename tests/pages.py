"""Reading an HTML page as a browser's tokenizer does, and what may stand inside of what. Base install only."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Final

VOID: Final = {"meta"}
TEXT: Final = {"a", "span", "strong", "code", "time", "#text"}
"""What stands in a line."""
FLOW: Final = TEXT | {"p", "div", "ul", "dl", "pre", "details", "h2", "h3", "table", "section"}
INSIDE: Final = {
    "html": {"head", "body"}, "head": {"meta", "title", "style"}, "title": {"#text"}, "style": {"#text"},
    "body": {"header", "main", "footer"}, "header": {"h1", "nav"}, "nav": {"ul"}, "main": {"section"},
    "footer": {"p"}, "section": FLOW, "div": FLOW, "h1": TEXT, "h2": TEXT, "h3": TEXT, "p": TEXT, "a": {"#text"},
    "span": TEXT, "strong": {"#text"}, "code": {"#text"}, "time": {"#text"}, "pre": {"#text"}, "summary": {"#text"},
    "ul": {"li"}, "li": TEXT | {"details"}, "dl": {"dt", "dd"}, "dt": {"#text"}, "dd": FLOW,
    "details": FLOW | {"summary"}, "table": {"caption", "thead", "tbody"}, "caption": {"#text"}, "thead": {"tr"},
    "tbody": {"tr"}, "tr": {"th", "td"}, "th": TEXT, "td": FLOW,
}  # fmt: skip
"""The content model of the elements that the page is made of (HTML, the part that we need)."""
ATTRIBUTES: Final = {
    "lang", "charset", "name", "content", "http-equiv", "id", "class", "href", "role", "tabindex", "scope", "datetime",
    "aria-label", "aria-labelledby", "aria-hidden",
}  # fmt: skip


class Reader(HTMLParser):
    """Reads a page as a browser's tokenizer does, and notes each element with its parent."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.seen: list[tuple[str, str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((self.open[-1] if self.open else "", tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.text.append(data)
            self.seen.append((self.open[-1], "#text", {}))

    @property
    def tags(self) -> list[str]:
        return [tag for _, tag, _ in self.seen]

    def values(self, name: str) -> list[str]:
        return [str(attrs[name]) for _, _, attrs in self.seen if name in attrs]
