"""An auditor's process: it has a receipt, keys and a log policy as files, and nothing else. Base install only.

What is timed begins before the SDK is imported, and ends when each question is answered.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from yardstick import reference_seconds

ANSWERED_S: Final = 1.0
"""What an auditor waits at most, in reference seconds."""
PROGRAM: Final = """
import sys
from pathlib import Path
import yardstick

def answer():
    from stepgrant import receipt
    file, keys, policy = (Path(name).read_bytes() for name in sys.argv[1:4])
    told = receipt.verify(file, keys, log_policy=policy.decode())  # does it hold, and who stands behind it
    step = told.step(int(sys.argv[4]))
    assert told.logged.cosigned
    assert step.who
    assert all(decision.policy for decision in step.decisions)
    assert [approval.approved_by for approval in step.approvals] is not None
    assert all(grant.revoked_at and grant.end for grant in step.grants)
    assert told.missing is not None

yardstick.report(answer)
"""


def answered_in(folder: Path, file: bytes, keys: bytes, policy: str, position: int) -> float:
    """Who did the step at `position`, under which policy, and the rest: reference seconds from start to answer."""
    names = [str(folder / name) for name in ("receipt", "keys", "log-policy")]
    for name, data in zip(names, (file, keys, policy.encode()), strict=True):
        Path(name).write_bytes(data)
    return reference_seconds(PROGRAM, *names, str(position), below=ANSWERED_S)
