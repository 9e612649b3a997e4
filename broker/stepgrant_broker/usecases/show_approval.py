"""What a person is asked, as it is bound: everything is opened from the commitment that the answer must meet.

Rules:
* `bound` is what the digest of the question is of, so whoever reads it can compute that digest before he answers.
* `action` is the call whose digest stands in `bound`, never what its step has become by now; `resume` is the same for
  a question about a resume or takeover: the run, and who asks for it.
* What does not rest any more is `None`; nothing is put in its place. Of a question that an older broker put, only the
  digest was kept: then `bound` is `None`, and the action is what its step has, unless that has changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepgrant import canonical
from stepgrant_broker.domain.commitments import Payload
from stepgrant_broker.domain.errors import UnknownApproval
from stepgrant_broker.domain.state import Approval, ApprovalStatus
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases import answers
from stepgrant_broker.usecases.context import Ports


async def show_approval(ports: Ports, tenant: str, approval_id: str) -> dict[str, Any]:
    """The question with `digest`, `bound`, `action` and `resume`.

    Raises `UnknownApproval`, `StoreUnavailable`.
    """
    loaded = await ports.store.load(Query(tenant, approval=approval_id))
    run, approval = loaded.view.run, loaded.view.approvals.get(approval_id)
    if run is None or approval is None or approval.tenant != tenant:
        raise UnknownApproval("no such approval")
    bound = _preimage(loaded.payloads, approval.binding_c)
    asked = await _behind(ports, loaded, run.id, bound["digest"]) if bound is not None else _of_step(loaded, approval)
    named = asked.keys() == {"action", "args", "resource"}
    return {
        **answers.approval(approval),
        "digest": answers.committed(loaded.payloads, approval.binding_c),
        "bound": bound,
        "action": {
            "tool": asked["action"] if named else approval.tool,
            "resource": asked["resource"] if named else None,
            "args": asked["args"] if named else None,
        },
        "resume": asked if asked.keys() == {"run", "subject"} else None,
    }


def _preimage(payloads: Mapping[str, Payload], c: str) -> dict[str, Any] | None:
    """What the committed digest is of; `None` where only the digest was kept, or nothing is left."""
    payload = payloads.get(c)
    value = canonical.loads(payload.body) if payload is not None and payload.form == "preimage" else None
    return dict(value) if isinstance(value, dict) else None


async def _behind(ports: Ports, loaded: Loaded, run: str, digest: str) -> dict[str, Any]:
    """What this digest of an action is of, `{}` where that is not kept."""
    if loaded.key is None:
        return {}
    c = ports.committer(loaded.key).peek("action.digest", digest)
    found = loaded.payloads if c in loaded.payloads else await ports.reads.payloads(loaded.tenant.id, run, [c])
    return _preimage(found, c) or {}


def _of_step(loaded: Loaded, approval: Approval) -> dict[str, Any]:
    step = loaded.view.steps.get(approval.step)
    if step is None or approval.status is ApprovalStatus.VOID:
        return {}
    return _preimage(loaded.payloads, step.digest_c) or {}
