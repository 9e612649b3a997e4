"""Test helpers for the people who use Stepgrant: a real broker inside the test process.

`stepgrant.testing.plugin` is a pytest plugin that gives fixtures; pytest finds it once the package is installed.
`TestBroker` is for everybody else. Both need the extras `broker` and `embedded`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepgrant.testing._broker import TestBroker

__all__ = ["TestBroker"]


def __getattr__(name: str) -> Any:  # noqa: ANN401  # whatever the name is
    if name != "TestBroker":
        raise AttributeError(f"module 'stepgrant.testing' has no attribute {name!r}")
    from stepgrant.testing._broker import TestBroker  # noqa: PLC0415  # the plugin's package must stay empty at load

    return TestBroker
