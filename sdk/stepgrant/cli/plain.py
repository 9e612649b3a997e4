"""Text for people: what others wrote made harmless, times and spans in words. Pure.

Agents choose tool names, resources, arguments and notes, and an approver decides by what the screen shows. So every
character that a terminal acts on, or that reorders or hides text (control, format and bidirectional ones), is shown as
its escape: what is on the screen is what is in the action.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Final

from stepgrant.canonical import JsonValue

SECOND: Final = 1000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
LAST_YEAR: Final = 253_402_300_799_999
_TENTHS_FROM: Final = 10 * SECOND


def visible(text: object) -> str:
    """The text on one line; whatever is not a plain printable character is shown as its Python escape."""
    shown = str(text)
    return shown if shown.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in shown)


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def json_lines(value: JsonValue) -> list[str]:
    """The value as indented JSON, each line made visible; what only looks like a line's end (U+2028) stays in it."""
    return [visible(line) for line in json.dumps(value, indent=2, ensure_ascii=False).split("\n")]


def json_line(value: JsonValue, limit: int = 0) -> str:
    """The value as JSON on one line; more than `limit` characters (0: no limit) are cut with an ellipsis."""
    text = visible(value) if isinstance(value, str) else visible(json.dumps(value, ensure_ascii=False))
    return text if not limit or len(text) <= limit else text[: limit - 1] + "…"


def span(ms: int) -> str:
    """A length of time: `12 ms`, `1.25 s`, `41.2 s`, `3 min 05 s`, `2 h 07 min`, `3 d 04 h`, `15 min`."""
    ms = abs(ms)
    if ms < SECOND:
        return f"{ms} ms"
    if ms < MINUTE:
        step = 10 if ms < _TENTHS_FROM else 100
        return f"{ms // step * step / SECOND:g} s"  # cut, not rounded: 59.97 s are no minute
    if ms < HOUR:
        return _two(ms // MINUTE, "min", ms % MINUTE // SECOND, "s")
    if ms < DAY:
        return _two(ms // HOUR, "h", ms % HOUR // MINUTE, "min")
    return _two(ms // DAY, "d", ms % DAY // HOUR, "h")


def _two(large: int, of: str, small: int, part: str) -> str:
    return f"{large} {of} {small:02d} {part}" if small else f"{large} {of}"


def clock(ms: int) -> str:
    """A place on a timeline: `0:00.130`, `1:10.040`, `2:03:10.500`, `3 d 02:03:10`."""
    minutes, rest = divmod(ms, MINUTE)
    hours, minutes = divmod(minutes, 60)
    if hours >= DAY // HOUR:
        return f"{hours // 24} d {hours % 24:02d}:{minutes:02d}:{rest // SECOND:02d}"
    second = f"{rest // SECOND:02d}.{rest % SECOND:03d}"
    return f"{hours}:{minutes:02d}:{second}" if hours else f"{minutes}:{second}"


def utc(ms: int) -> str:
    """`2026-01-31T12:00:05Z`, for machines and for copying; a time that no calendar has is given as its number."""
    if not 0 <= ms <= LAST_YEAR:
        return f"{ms} ms"
    return datetime.fromtimestamp(ms / SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ago(ms: int, now: int) -> str:
    """`12.0 s ago` or `in 3 min 05 s`, both in milliseconds since the epoch."""
    return f"in {span(ms - now)}" if ms > now else f"{span(now - ms)} ago"


def count(number: int, one: str, many: str | None = None) -> str:
    """`1 step`, `3 steps`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def joined(items: list[str] | tuple[str, ...], none: str = "none") -> str:
    """A list in words, each item made visible."""
    return ", ".join(visible(item) for item in items) if items else none
