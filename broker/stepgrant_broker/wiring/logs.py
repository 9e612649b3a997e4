"""Logs: one line for each event on stderr, as text or JSON, with nothing secret in it at any level.

Nothing secret is ever handed to a logger; the masking here is a second wall for the day when somebody does. It masks
by name (members that hold secrets) and by look (operator tokens, compact JWS, `Authorization` values).

A log that cannot be written (its disk is full, its reader is gone) loses lines and changes no answer.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import structlog

MASK: Final = "<masked>"
SECRET_NAMES: Final = frozenset(
    {"authorization", "credential", "dpop", "fields", "jwk", "key", "password", "secret", "token", "value"}
)
SECRET_LOOKS: Final = re.compile(
    r"sgo_[0-9A-Za-z]{8,}"  # an operator token
    r"|eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){1,2}"  # a compact JWS: token, proof, assertion
    r"|(?i:(?:bearer|dpop)\s+[A-Za-z0-9._~+/=-]{8,})"
)


def mask_secrets(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: the event with everything masked that is named or looks like a secret."""
    for name, value in event.items():
        event[name] = MASK if name.lower() in SECRET_NAMES else _masked(value)
    return event


def _masked(value: object) -> object:
    if isinstance(value, str):
        return SECRET_LOOKS.sub(MASK, value)
    if isinstance(value, Mapping):
        return {name: MASK if str(name).lower() in SECRET_NAMES else _masked(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(item) for item in value]
    return value


def configure_logs(style: str = "text", level: str = "info", stream: TextIO | None = None) -> None:
    """Set up logging of a process that is a broker: our events, and what libraries say of themselves."""
    configure_events(style, level, stream)
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(_JsonLine() if style == "json" else logging.Formatter(_TEXT_LINE))
    handler.addFilter(_mask_record)
    # Of libraries only what went wrong is wanted.
    lowest = max(logging.getLevelNamesMapping()[level.upper()], logging.WARNING)
    logging.basicConfig(handlers=[handler], level=lowest, force=True)


def configure_events(style: str = "text", level: str = "info", stream: TextIO | None = None) -> None:
    """Set up our own events only, for a process that is not ours (somebody's tests). Default stream: stderr of then."""
    number = logging.getLevelNamesMapping()[level.upper()]
    colours = (stream if stream is not None else sys.stderr).isatty()
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(sort_keys=True)
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            mask_secrets,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: _Printer(stream if stream is not None else sys.stderr),
        cache_logger_on_first_use=False,
    )


_TEXT_LINE: Final = "%(asctime)s [%(levelname)s] %(name)s: %(message)s"


class _JsonLine(logging.Formatter):
    """What a library says, as a line of the same kind as ours: a log of JSON holds nothing else."""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object; its `event` is the text, `logger` who says it."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z")
        said = {"event": record.getMessage(), "level": record.levelname.lower(), "logger": record.name}
        return json.dumps({**said, "timestamp": when}, sort_keys=True)


class _Printer(structlog.PrintLogger):
    """structlog's raises what its file raises, in the middle of answering a request."""

    def msg(self, message: str) -> None:
        """Write one line, if it can be written."""
        with suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def _mask_record(record: logging.LogRecord) -> bool:
    record.msg, record.args = SECRET_LOOKS.sub(MASK, record.getMessage()), None
    # A traceback shows local text of whoever raised; the type is in the message.
    record.exc_info, record.exc_text = None, None
    return True
