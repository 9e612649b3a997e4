"""An agent that looks at the account again and again, and says how long each grant took: from the call to the login."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import stepgrant
from stepgrant import Credential, Inject
from stepgrant_demo_real.agent import RESOURCE, say

began = 0.0


@stepgrant.tool(name="account.look", effect="read", step_id="look:{number}", resource=RESOURCE)
def look(number: int, login: Annotated[Credential, Inject]) -> int:
    """Nothing but the grant is measured, so the login is not used."""
    say(f"granted {number} {(time.monotonic() - began) * 1000:.3f} {login.kind}")
    return number


def main() -> int:
    """`meter RUN_KEY TIMES`."""
    global began  # noqa: PLW0603 - one loop in one thread
    run_key, times = sys.argv[1:]
    with stepgrant.run(run_key, agent="provisioner"):
        for number in range(int(times)):
            began = time.monotonic()
            look(number)
    return 0


if __name__ == "__main__":
    sys.exit(main())
