"""A question to people, as a broker tells it."""

from __future__ import annotations

from typing import Any

from stepgrant import canonical


def asked(number: int, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - members of an answer
    """A question as `approval show` gets it."""
    args = {"text": f"number {number}"}
    bound: dict[str, Any] = {
        "tenant": "default", "run": "run_1", "step": f"s{number}", "effect": "once", "issuer": "jwt", "params": {},
        "digest": canonical.action_digest("report.publish", "web", args),
    }  # fmt: skip
    return {
        "id": f"apr_{number}", "run": "run_1", "step": f"s{number}", "tool": "report.publish", "effect": "once",
        "issuer": "jwt", "status": "pending", "groups": ["editors"], "quorum": 1, "requested_at": number,
        "answer_by": 2, "valid_for_ms": 900_000, "reasons": ["tool_needs_approval"], "why_again": None,
        "settled_at": None, "consumed_by": None, "answers": [], "digest": canonical.digest(bound), "bound": bound,
        "resume": None, "action": {"tool": "report.publish", "resource": "web", "args": args},
        "run_facts": {"agent": "billing", "key": "order-1729", "state": "parked"}, **changes,
    }  # fmt: skip


def page(*questions: dict[str, Any], status: int = 200) -> tuple[int, dict[str, Any], dict[str, str]]:
    """An answer to a list, the newest first, each without what a list has not."""
    left_out = {"action", "bound", "digest", "resume", "run_facts"}
    rows = [{name: value for name, value in one.items() if name not in left_out} for one in questions]
    return status, {"approvals": rows, "next": None}, {}
