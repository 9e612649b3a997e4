"""`stepgrant doctor`: looks at an installation as it is and says what is wrong with it, and how to mend that.

Rules:
* It changes nothing: it activates no policy, sweeps nothing, and asks every service only what a broker would ask.
* One broken part does not hide the others; what cannot be looked at because of it is said to be so.
* A finding names the thing, what is wrong, and the command or setting that mends it; never a secret.
"""

from __future__ import annotations

from stepgrant_broker.wiring.doctor.examining import examine
from stepgrant_broker.wiring.doctor.findings import Found, State

__all__ = ["Found", "State", "examine"]
