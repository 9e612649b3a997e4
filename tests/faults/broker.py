"""Brokers as processes of their own, one after the other, to be killed: this process imports the broker once and forks.

A broker takes seconds to import and a moment to build, so a nursery is what lets a test kill dozens of them. For each
line `{"settings", "policy", "failpoints", "log", "obey_modes"}` that it reads it forks a child that is a broker, says
`{"up": pid}` once that answers, and `{"ended": code}` when it has ended; then it reads the next line. Failpoints go
through the environment, as for `stepgrant serve`.

`obey_modes`: give up the power of root to write what its mode forbids (Linux; elsewhere nobody runs tests as root).

A child that outlives its parent's parent has no use: the end of standard input ends it.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import sys
import threading
import traceback
from collections.abc import Mapping
from typing import Any, Final

from faults.forker import BROKER, LIBRARIES, load
from stepgrant_broker.config import PREFIX, SettingsError, load_settings
from stepgrant_broker.domain.errors import StepgrantFault
from stepgrant_broker.policy.findings import PolicyInvalid
from stepgrant_broker.wiring import build, configure_logs, listen, serve, starter_with
from stepgrant_broker.wiring.server import new_event_loop

REFUSED: Final = 3
CAPABILITY_VERSION_3: Final = 0x20080522
DAC_OVERRIDE: Final = 1 << 1


def say(**line: Any) -> None:  # noqa: ANN401 - JSON
    """One line, out of this process when it returns."""
    os.write(1, json.dumps(line).encode() + b"\n")


def obey_modes() -> None:
    """Drop CAP_DAC_OVERRIDE (capabilities(7)), which only root has."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    sets[0] &= ~DAC_OVERRIDE
    sets[1] &= ~DAC_OVERRIDE
    if libc.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")


async def be_a_broker(order: Mapping[str, Any]) -> None:
    """Serve until a signal, or a failpoint, ends it."""
    settings = load_settings(**order["settings"])
    listening = listen(settings)
    async with build(settings, policy=starter_with(order["policy"])) as broker:
        await serve(broker, listening, ready=lambda _: say(up=os.getpid()))


def child(order: Mapping[str, Any]) -> int:
    """The life of one broker; its exit code."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 2)
    os.environ[PREFIX + "TEST_MODE"] = "1"
    os.environ[PREFIX + "FAILPOINTS"] = order["failpoints"]
    configure_logs("json", "debug", os.fdopen(log, "w"))
    if order["obey_modes"]:
        obey_modes()
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(be_a_broker(order))
    except (StepgrantFault, SettingsError, PolicyInvalid) as refused:
        sys.stderr.write(f"{type(refused).__name__}: {refused}\n")
        return REFUSED
    return 0


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(0)


def main() -> None:
    """Fork a broker for each line."""
    load(*LIBRARIES, *BROKER)
    gc.freeze()
    with open(0, "rb", buffering=0, closefd=False) as lines:
        say(ready=True)
        for line in iter(lines.readline, b""):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    code = child(json.loads(line))
                except BaseException:  # noqa: BLE001 - it must end here, whatever it was, and not read the next line
                    traceback.print_exc()
                finally:
                    os._exit(code)
            _, status = os.waitpid(pid, 0)
            say(ended=os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
