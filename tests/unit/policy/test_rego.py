"""The library's engine lives and dies in one thread: nothing may keep it until another one looks for garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from stepgrant_broker.policy.bundle import from_files
from stepgrant_broker.policy.check import check
from stepgrant_broker.policy.rego import Rego, RegoError

GOOD = {"main.rego": "package stepgrant\n\ndecision := input.x + 1\n"}
BAD = {"main.rego": "package stepgrant\n\ndecision := {\n"}


@pytest.fixture(autouse=True)
def _nobody_looks_for_garbage() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def left() -> int:
    """Engines that are still there."""
    return sum(type(one) is Rego for one in gc.get_objects())


def said(modules: dict[str, str], policy_input: bytes) -> str:
    """The answer, or what was said instead of one."""
    try:
        return str(Rego(modules, {}).evaluate(policy_input))
    except RegoError as error:
        return error.message


@pytest.mark.parametrize(
    ("modules", "policy_input", "answer"),
    [
        (GOOD, b'{"x": 1}', "b'2'"),
        (BAD, b"{}", "expecting expression"),
        (GOOD, b"{", "EOF while parsing an object at line 1 column 1"),
        (GOOD, b"\xff", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
    ],
    ids=["answered", "not compiled", "not read", "not text"],
)
def test_what_is_over_is_gone_at_once(modules: dict[str, str], policy_input: bytes, answer: str) -> None:
    assert said(modules, policy_input) == answer
    assert left() == 0


def test_what_a_check_refuses_is_gone_with_its_findings() -> None:
    (finding,) = check(from_files({"stepgrant/main.rego": BAD["main.rego"]}))
    assert finding.code == "does_not_compile"
    assert left() == 0
