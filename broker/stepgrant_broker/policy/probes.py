"""Sample inputs that a policy must answer within the contract before it is activated.

Rules:
* An answer that fails, takes too long or breaks the contract is a finding; what the answer decides is the policy's own
  business, with one exception: an input that says nothing must not be allowed.
* The samples are of every kind that the broker asks about (`domain/policy_input.py`), with whatever may be null null.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stepgrant import canonical
from stepgrant_broker.domain.decisions import Allow
from stepgrant_broker.domain.errors import PolicyUnavailable
from stepgrant_broker.policy.bundle import Bundle
from stepgrant_broker.policy.check import check
from stepgrant_broker.policy.contract import parse
from stepgrant_broker.policy.engine_process import EngineFailed, EngineProcess
from stepgrant_broker.policy.findings import Finding, PolicyInvalid, grave

_DIGEST: Final = canonical.action_digest("probe.read", None, {})

SAMPLE: Final[Mapping[str, Any]] = {
    "tenant": "default",
    "identity": {
        "method": "enrolled_key", "trust_domain": "default", "subject": "wl_probe", "attributes": {},
        "attested_at": 1_700_000_000,
    },
    "agent": {"name": "probe", "version": None},
    "claimed": {"labels": {}, "context": {}, "principal": None},
    "principal": None,
    "run": {
        "id": "run_probe", "key": None, "epoch": 1, "resumed": False, "opened_at": 1_700_000_000, "parked_seconds": 0,
        "step_count": 0,
    },
    "step": {"key": "1", "attempt": 1, "previous_outcome": None},
    "action": {
        "tool": "probe.read", "resource": None, "args": {}, "digest": _DIGEST, "effect": "read",
        "idempotency_key": None,
    },
    "history": {
        "counts": {"tool": {}, "effect": {}, "outcome": {}}, "labels": [], "meters": {}, "tools": [], "denials": 0,
        "in_flight": 0,
    },
    "approval": None,
    "requested": {"issuer": None, "ttl": None, "params": {}},
    "time": {"unix": 1_700_000_000, "rfc3339": "2023-11-14T22:13:20Z", "weekday": "tuesday", "hour": 22},
}  # fmt: skip
"""A complete input, as the schema wants it."""


def sample(**changed: Mapping[str, Any] | None) -> dict[str, Any]:
    """`SAMPLE` with members of its members changed; `None` replaces a whole member."""
    document = dict(SAMPLE)
    for name, members in changed.items():
        document[name] = None if members is None else {**(document[name] or {}), **members}
    return document


def samples() -> dict[str, dict[str, Any]]:
    """All samples by name."""
    acted = {"resumed": True, "epoch": 3, "parked_seconds": 1_000_000, "step_count": 7, "key": "probe"}
    past = {
        "counts": {"tool": {"probe.once": 2}, "effect": {"once": 2}, "outcome": {"completed": 1, "failed": 1}},
        "labels": ["probe:label"], "meters": {"probe": 1.5}, "tools": ["probe.once"], "denials": 1, "in_flight": 1,
    }  # fmt: skip
    answer = {"id": "apr_probe", "approvers": ["op_probe"], "approved_at": 1, "expires_at": 2, "revision": "1:probe"}
    run_args = {"takeover": False, "same_subject": True, "lease_lapsed": True, "parked_seconds": 0, "agent": "probe"}
    found: dict[str, dict[str, Any]] = {
        "empty": {},
        "read": sample(),
        "digest_only": sample(action={"args": None, "effect": "once"}),
        "repeated": sample(action={"effect": "once"}, step={"key": "probe_2", "equal_to": "probe_1"}),
        "resumed": sample(
            run=acted, history=past, approval=answer,
            action={"tool": "probe.once", "resource": "probe/1", "args": {"amount": -1.5}, "effect": "once"},
            step={"key": "a~b", "attempt": 3, "previous_outcome": "unknown"},
            requested={"issuer": "static", "ttl": 1, "params": {"name": "probe"}},
        ),
    }  # fmt: skip
    for verb in ("open", "resume", "takeover"):
        action = {
            "tool": f"stepgrant.run.{verb}",
            "effect": "once",
            "args": {**run_args, "takeover": verb == "takeover"},
        }
        run = {"id": None, "epoch": 0, "opened_at": None} if verb == "open" else acted
        found[verb] = sample(action=action, run=run, step={"key": "~open" if verb == "open" else "~resume"})
    return found


def proven(bundle: Bundle, revision: str, *, deadline_s: float) -> EngineProcess:
    """Check the policy, start it in a process of its own, and let it answer the samples.

    Blocks. Raises `PolicyInvalid`; then nothing of the policy is left.
    """
    findings = grave(check(bundle), in_force=bundle.in_force)
    if findings:
        raise PolicyInvalid(findings)
    try:
        process = EngineProcess(bundle, revision)
    except EngineFailed as error:
        place = next(iter(bundle.modules))
        raise PolicyInvalid([Finding(place, 0, "does_not_start", str(error), "correct the rule")]) from None
    finding = _first_finding(process, deadline_s)
    if finding is not None:
        process.end()
        raise PolicyInvalid([finding])
    return process


def _first_finding(process: EngineProcess, deadline_s: float) -> Finding | None:
    for name, document in samples().items():
        finding = _probe(process, name, document, deadline_s)
        if finding is not None:
            return finding
    return None


def _probe(process: EngineProcess, name: str, document: Mapping[str, Any], deadline_s: float) -> Finding | None:
    place = f"probe {name!r}"
    answer = process.ask(canonical.dumps(document), seconds=deadline_s)
    if answer.error is not None:
        fix = "guard the rule with is_number, is_object and the like, and nest fewer loops"
        return Finding(place, 0, "probe_failed", answer.error, fix)
    return sample_finding(name, answer.raw, place)


def sample_finding(name: str, raw: bytes | None, place: str) -> Finding | None:
    """What is wrong with an engine's answer to the sample of this name."""
    try:
        decision = parse(raw)
    except PolicyUnavailable as error:
        return Finding(place, 0, "outside_contract", error.detail, "see schemas/decision.json")
    if name == "empty" and isinstance(decision, Allow):
        return Finding(place, 0, "allows_nothing", "an empty input is allowed", "allow by what the input says")
    return None
