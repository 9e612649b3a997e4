"""Test helpers for the people who use Stepgrant: a real broker inside the test process.

`stepgrant.testing.plugin` is a pytest plugin that gives fixtures; pytest finds it once the package is installed.
`TestBroker` is for everybody else. `adapter_suite(make_harness)` gives the cases that an adapter for an agent framework
has to pass; `Play` is their other side, in the framework's own program. All need the extras `broker` and `embedded`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from stepgrant.testing._adapter_play import Asked, Play
    from stepgrant.testing._adapter_suite import Case, adapter_suite
    from stepgrant.testing._adapter_target import AdapterBroken
    from stepgrant.testing._adapter_world import Harness, Lived
    from stepgrant.testing._broker import TestBroker

__all__ = ["AdapterBroken", "Asked", "Case", "Harness", "Lived", "Play", "TestBroker", "adapter_suite"]

_HOMES: Final = {
    "AdapterBroken": "stepgrant.testing._adapter_target",
    "Asked": "stepgrant.testing._adapter_play",
    "Case": "stepgrant.testing._adapter_suite",
    "Harness": "stepgrant.testing._adapter_world",
    "Lived": "stepgrant.testing._adapter_world",
    "Play": "stepgrant.testing._adapter_play",
    "TestBroker": "stepgrant.testing._broker",
    "adapter_suite": "stepgrant.testing._adapter_suite",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  # whatever the name is
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'stepgrant.testing' has no attribute {name!r}")
    # The plugin's package must stay empty at load.
    return getattr(importlib.import_module(home), name)
