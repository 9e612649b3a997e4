"""Programs of frameworks that take seconds to import, as new processes: this one imports the framework once and forks.

For each line `{"environment", "program", "words", "out", "err"}` it forks a child that runs `program.main(*words)`, and
says `{"code"}` when that ended. A child takes from its environment what the SDK takes from it at its start
(failpoints); random numbers are seeded anew, and a key of the SDK would not survive the fork. The end of its standard
input ends it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from stepgrant import _failpoints


def child(order: Mapping[str, Any]) -> int:
    """One life; its exit code."""
    os.environ.clear()
    os.environ.update(order["environment"])
    for number, path in ((1, order["out"]), (2, order["err"])):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, number)
    _failpoints.on = _failpoints._from_environment()
    try:
        return int(importlib.import_module(order["program"]).main(*order["words"]))
    except BaseException:  # noqa: BLE001 - it ends here, whatever it was
        traceback.print_exc()
        return 1


def main() -> None:
    """Fork a child for each line."""
    for name in sys.argv[1:]:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # or each child's collector goes through, and so copies, all that was imported
    with open(0, "rb", buffering=0, closefd=False) as lines:
        for line in iter(lines.readline, b""):
            pid = os.fork()
            if pid == 0:
                os.close(0)
                code = child(json.loads(line))
                sys.stderr.flush()
                os._exit(code)
            _, status = os.waitpid(pid, 0)
            os.write(1, json.dumps({"code": os.waitstatus_to_exitcode(status)}).encode() + b"\n")


if __name__ == "__main__":
    main()
