"""The border between two steps, where a run can be given back without doubt.

Rules:
* A process that has to stop lets the steps under way end; the next step of the run itself does not begin.
* A step inside another one belongs to it and still begins, or the outer one would be left in doubt.
* Whoever wants to begin a step waits there for its siblings: once one of them leaves, the run is given back, and what
  is still under way would be taken from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stepgrant._flows import Flow, Sleep

if TYPE_CHECKING:
    from stepgrant._frames import Frame

_LOOK_S: Final = 0.02


class GivenBack(BaseException):
    """Leaves the agent's function at a border. No `Exception`, so that code which handles failures lets it pass."""


def hold(frame: Frame) -> Flow[None]:
    """Raises `GivenBack` once no step of the run is under way; passes for a step inside another one."""
    if frame.parent is not None:
        return
    while frame.busy:
        yield Sleep(_LOOK_S)
    raise GivenBack("this process stops; the run was given back at the border of two steps")
