"""Equal answers of an engine are closed once; what is refused is refused each time."""

import json

import pytest

from stepgrant_broker.domain.errors import PolicyUnavailable
from stepgrant_broker.policy.contract import parse


def test_equal_answers_are_closed_once() -> None:
    answer = json.dumps({"effect": "allow", "reasons": ["asked_again"]}).encode()
    assert parse(answer) is parse(bytes(bytearray(answer)))


@pytest.mark.parametrize("answer", [b'{"effect":"allow","reasons":[]}', b'{"effect":"allow","reasons":', b"true"])
def test_a_refused_answer_is_refused_each_time(answer: bytes) -> None:
    for _ in range(2):
        with pytest.raises(PolicyUnavailable):
            parse(answer)
