"""Logs: one line for each event, and a second wall against secrets in them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from stepgrant_broker.wiring.logs import MASK, configure_logs

TOKEN = "sgo_" + "ab" * 32
JWS = "eyJhbGciOiJFUzI1NiJ9.eyJqdGkiOiJncm5fMSJ9.c2lnbmF0dXJl"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


def logged(style: str = "json", level: str = "info", **event: object) -> str:
    out = io.StringIO()
    configure_logs(style, level, out)
    structlog.get_logger("x").info("happened", **event)
    return out.getvalue()


def test_an_event_is_one_line() -> None:
    line = logged(run="run_1", code="stale_epoch")
    assert line.count("\n") == 1
    event = json.loads(line)
    assert (event["event"], event["run"], event["code"], event["level"]) == ("happened", "run_1", "stale_epoch", "info")
    assert event["timestamp"].endswith("Z")
    assert "happened" in logged("text", run="run_1")


def test_levels_are_kept() -> None:
    assert logged(level="warning") == ""


@pytest.mark.parametrize("name", ["token", "Authorization", "secret", "value", "password", "credential", "fields"])
def test_what_is_named_like_a_secret_is_masked(name: str) -> None:
    assert json.loads(logged(detail={name: "hunter2"}))["detail"][name] == MASK
    assert "hunter2" not in logged(detail={"more": {name: "hunter2"}})


def test_a_member_of_the_event_itself_is_masked_by_its_name() -> None:
    assert json.loads(logged(token="hunter2"))["token"] == MASK


@pytest.mark.parametrize("secret", [TOKEN, JWS, f"Bearer {TOKEN}", f"DPoP {JWS}", "bearer abcdefghijkl"])
@pytest.mark.parametrize("place", ["text", "list", "mapping"])
def test_what_looks_like_a_secret_is_masked_wherever_it_stands(secret: str, place: str) -> None:
    values: dict[str, object] = {
        "text": f"refused {secret} again", "list": ["x", (secret,)], "mapping": {"a": {"b": secret}},
    }  # fmt: skip
    line = logged(detail=values[place])
    assert secret not in line
    assert MASK in line


def test_what_libraries_say_is_a_line_of_json_too() -> None:
    out = io.StringIO()
    configure_logs("json", "info", out)
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received: %s\nand more", TOKEN)
    (line,) = out.getvalue().splitlines()
    event = json.loads(line)
    assert event.pop("timestamp").endswith("Z")
    said = f"Invalid HTTP request received: {MASK}\nand more"
    assert event == {"event": said, "level": "warning", "logger": "uvicorn.error"}
    configure_logs("text", "info", out)
    logging.getLogger("uvicorn.error").warning("plain")
    assert out.getvalue().endswith("[WARNING] uvicorn.error: plain\n")


def test_libraries_are_masked_too_and_show_no_traceback() -> None:
    out = io.StringIO()
    configure_logs("text", "info", out)
    try:
        int(f"bad {TOKEN}")
    except ValueError:
        logging.getLogger("some.library").exception("could not send %s", JWS)
    assert out.getvalue().count("\n") == 1
    assert TOKEN not in out.getvalue()
    assert JWS not in out.getvalue()
    logging.getLogger("some.library").info("chatter")
    assert "chatter" not in out.getvalue()
