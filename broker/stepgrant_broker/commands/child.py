"""The command under `stepgrant dev -- command`: started with the agent's environment, and ended like a shell would.

Rules:
* Its exit code is ours; one that a signal ended gives 128 and the signal's number.
* SIGTERM and SIGHUP are passed on. SIGINT is passed on only where no terminal has given it to the whole group already.
* We never end before it does: it may still be reporting to the broker.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from stepgrant.cli.exits import CommandError

PASSED_ON: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_BY_SIGNAL: Final = 128


async def run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run it to its end; its exit code. Raises `CommandError` for a command that cannot be started."""
    try:
        child = await asyncio.create_subprocess_exec(*command, env={**os.environ, **environment})
    except OSError as error:
        raise CommandError(f"cannot start {command[0]}: {error.strerror}", code="not_found") from None
    with _signals(child):
        code = await child.wait()
    return _BY_SIGNAL - code if code < 0 else code


@contextmanager
def _signals(child: asyncio.subprocess.Process) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def pass_on(number: signal.Signals) -> None:
        if number is signal.SIGINT and _terminal_gave_it():
            return
        with suppress(ProcessLookupError):
            child.send_signal(number)

    for number in PASSED_ON:
        loop.add_signal_handler(number, pass_on, number)
    try:
        yield
    finally:
        for number in PASSED_ON:
            loop.remove_signal_handler(number)


def _terminal_gave_it() -> bool:
    """Whether Ctrl-C at our terminal goes to our process group, and so to the child as well."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False
