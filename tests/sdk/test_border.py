"""Where a run is given back: between two steps of the run itself, and only once its siblings have ended."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from stepgrant._border import GivenBack, hold
from stepgrant._flows import Sleep
from stepgrant._frames import Frame
from stepgrant._run_flows import park_reason


def frame(parent: str | None = None) -> Frame:
    return Frame(cast("Any", SimpleNamespace()), parent)


def test_nothing_is_under_way() -> None:
    with pytest.raises(GivenBack):
        next(hold(frame()))


def test_siblings_end_first() -> None:
    top = frame()
    with top.call("charge", "a"):
        waiting = hold(top)
        assert isinstance(next(waiting), Sleep)
        with top.call("charge", "b"):
            assert isinstance(next(waiting), Sleep)
        assert isinstance(next(waiting), Sleep)
    with pytest.raises(GivenBack):
        next(waiting)


def test_a_step_inside_another_one_still_begins() -> None:
    """Else the outer one, whose credential may be in use, would be left in doubt."""
    assert list(hold(frame("charge"))) == []


def test_it_is_no_failure_and_no_exception_that_an_agent_handles() -> None:
    given_back = GivenBack("stop")
    assert not isinstance(given_back, Exception)
    assert park_reason(given_back, ()) == "requested"
    assert park_reason(BaseExceptionGroup("several", [given_back]), ()) == "requested"
