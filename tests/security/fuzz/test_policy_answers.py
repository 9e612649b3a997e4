"""20,000 policy answers that are almost right: none is an allow, or a question to people, outside the closed schema."""

from __future__ import annotations

from security.fuzz import policy_answers

SIZE = 20_000


def test_nothing_outside_the_closed_schema_is_allowed_or_asked() -> None:
    result = policy_answers.slice(0, SIZE)

    assert not result.violations
    assert result.counts["answers"] == SIZE
    for decision in ("Allow", "RequireApproval", "Deny", "refused"):  # the right ones get through, the others do not
        assert result.counts[decision] > SIZE // 50


def test_the_judge_takes_what_is_right_and_nothing_else() -> None:
    right = b'{"effect":"allow","reasons":["ok"]}'

    assert policy_answers.in_schema(right)
    for wrong in (right[:-1] + b',"x":1}', right[:-1] + b',"effect":"deny"}', b"{", b"null", b"\xff"):
        assert not policy_answers.in_schema(wrong)
