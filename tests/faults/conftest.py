"""Every failure here says how to run that one case again. Processes are forked by one that has imported what they need.

Nobody tests how long a Python process takes to start, and these tests start hundreds.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from faults.forks import forking


@pytest.fixture(scope="session", autouse=True)
def _forking() -> Iterator[None]:
    with forking():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections.append(("this case again", f".venv/bin/pytest '{item.nodeid}'"))
    return report
