"""Run one command line: whatever goes wrong becomes one line on stderr and a code of `exits.py`.

With `--json` that line is a JSON object, `{"error": {"code", "exit", "message"}}`. No traceback and no content of an
unexpected exception is printed: it may hold a token.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import typer

from stepgrant.cli import app, plain
from stepgrant.cli.exits import CommandError, ExitCode, exit_for
from stepgrant.errors import StepgrantError


def run(words: Sequence[str]) -> int:
    """The exit code of one command line."""
    own = list(words[: words.index("--")]) if "--" in words else list(words)
    as_json = "--json" in own
    try:
        root = app.build(words)
        code = root(args=list(words), prog_name="stepgrant", standalone_mode=False)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # typer makes the one into the other
        # Whoever read our output has seen enough (`| head`); the interpreter must not try to flush into it again.
        sys.stdout = open("/dev/null", "w")  # noqa: PTH123, SIM115 - for the rest of this process
        return ExitCode.OK
    except typer.Abort:
        return _say("aborted", "nothing was changed", ExitCode.REFUSED, as_json=as_json)
    except StepgrantError as error:
        return _say(error.code, str(error), exit_for(error), as_json=as_json)
    except typer.TyperException as error:
        return _usage(error, as_json=as_json)
    except ModuleNotFoundError as missing:
        return _not_installed(missing, as_json=as_json)
    except FileNotFoundError as error:
        return _say("not_found", f"{error.filename or 'a file'}: {error.strerror}", ExitCode.NOT_FOUND, as_json=as_json)
    except OSError as error:
        named = f"{error.filename}: " if error.filename is not None else ""
        return _say("os_error", f"{named}{error.strerror or type(error).__name__}", ExitCode.USAGE, as_json=as_json)
    except Exception as error:  # noqa: BLE001 - the last line of defence: a traceback may print what must stay secret
        return _say("defect", _defect(error), ExitCode.DEFECT, as_json=as_json)
    return code if isinstance(code, int) else ExitCode.OK


def _say(code: str, message: str, exit_code: ExitCode, *, as_json: bool) -> int:
    line = plain.visible(" ".join(message.split()))
    if as_json:
        line = json.dumps({"error": {"code": code, "exit": int(exit_code), "message": line}})
    else:
        line = f"stepgrant: {line}"
    sys.stderr.write(line + "\n")
    return int(exit_code)


def _usage(error: typer.TyperException, *, as_json: bool) -> int:
    message = error.format_message()
    if message.lstrip().startswith("Usage:"):  # a group without a command: its help is the answer
        sys.stdout.write(message + "\n")
        return ExitCode.USAGE
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "stepgrant"
    return _say("usage", f"{message.rstrip('.')} (see {path} --help)", ExitCode.USAGE, as_json=as_json)


def _not_installed(missing: ModuleNotFoundError, *, as_json: bool) -> int:
    name = (missing.name or "").partition(".")[0]
    if name.startswith("stepgrant"):
        return _say("defect", _defect(missing), ExitCode.DEFECT, as_json=as_json)
    error = CommandError(
        f"this needs the broker on this machine: pip install 'stepgrant[broker,embedded]' (missing: {name})",
        code="not_installed",
    )
    return _say(error.code, error.message, ExitCode.USAGE, as_json=as_json)


def _defect(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = next((frame for frame in reversed(frames) if "stepgrant" in frame.filename), frames[-1] if frames else None)
    place = f" at {Path(ours.filename).name}:{ours.lineno}" if ours is not None else ""
    return f"a defect of stepgrant: {type(error).__name__}{place}; please report it with the command that you ran"
