"""From a receipt, live or out of a file, to the story on the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepgrant import receipt
from stepgrant.cli import plain, timeline, timeline_view
from stepgrant.cli.output import now_ms
from stepgrant.cli.people import segment

if TYPE_CHECKING:
    from stepgrant.cli.command import Cli
    from stepgrant.cli.people import People


def show_live(cli: Cli, broker: People, run_id: str) -> None:
    """Ask the broker for the run's receipt, check it with the broker's ledger keys, and tell it."""
    data = broker.get(f"/v1/runs/{segment(run_id)}/receipt")
    verified = receipt.verify(data, broker.get("/v1/ledger/keys"))
    story = timeline.tell(verified.events, now=None if verified.complete else now_ms())
    value = {**timeline.as_json(story), "head": verified.head_hash, "verified": True}
    cli.out.emit(value, lambda: _show(cli, story, verified))


def _show(cli: Cli, story: timeline.Story, verified: receipt.Verified) -> None:
    timeline_view.show(story, cli.out)
    cli.out.line(
        f"  verified: {plain.count(len(verified.events), 'entry', 'entries')} chained, head signed by "
        f"{plain.visible(verified.kid)}",
        style="dim",
    )


def facts(verified: receipt.Verified) -> dict[str, Any]:
    """What a verified receipt says of itself, for machines."""
    return {
        "valid": True,
        "tenant": verified.tenant,
        "run": verified.run,
        "complete": verified.complete,
        "entries": len(verified.events),
        "head": verified.head_hash,
        "head_signed_at": verified.head_ts,
        "kid": verified.kid,
        "disclosed": verified.disclosed,
        "hidden": verified.hidden,
        "unknown_types": list(verified.unknown_types),
        "scope": {"kind": verified.scope[0], "id": verified.scope[1]},
        "log": None
        if verified.logged is None
        else {
            "origin": verified.logged.origin,
            "size": verified.logged.size,
            "cosigned": dict(verified.logged.cosigned),
        },
        "policies": sorted(verified.policies),
        "digest": verified.digest,
        "missing": [{"code": gap.code, "text": gap.text} for gap in verified.missing],
        "erased_at": None if verified.erased is None else verified.erased.at,
        "does_not_prove": list(receipt.DOES_NOT_PROVE),
    }
