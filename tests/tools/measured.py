"""A pytest plugin: what the tests of a process reach is measured, for `make check` (`-p tools.measured`).

- With xdist each worker measures the tests that it runs and writes a part; `coverage combine` puts the parts together.
- Measuring starts before pytest loads a conftest.py or a test module. What was imported before it would count as not
  reached, so a measured module that is already there ends the run.
- What a test starts is not measured: the figures are those of tests that call the code.
"""

import sys

import pytest
from coverage import Coverage

MEASURED = ("stepgrant_broker.domain", "stepgrant_broker.usecases")

if early := sorted(name for name in sys.modules if name.startswith(MEASURED)):
    raise RuntimeError(f"imported before it could be measured: {', '.join(early)}")
COVERAGE = Coverage(data_suffix=True)
COVERAGE.start()


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Write what was measured, also when tests failed; xdist's first process ran none."""
    COVERAGE.stop()
    if hasattr(config, "workerinput") or config.getoption("dist", "no") == "no":
        COVERAGE.save()
