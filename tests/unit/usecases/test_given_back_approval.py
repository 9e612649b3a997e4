"""An approval comes back when its grant was never used, however the run was taken back; the ledger agrees."""

from pathlib import Path

from fakes.hand import Hand, ask, hand
from stepgrant import canonical
from stepgrant_broker.domain.reads import Page
from stepgrant_broker.domain.state import FailStatus
from stepgrant_broker.ledger.verify import LedgerCheck
from stepgrant_broker.policy.bundle import digest_of
from stepgrant_broker.usecases.decide_approval import decide_approval
from stepgrant_broker.usecases.fail import fail
from stepgrant_broker.usecases.park import park


async def approved(held: Hand, run: str) -> None:
    """Step `s1` was asked about, and people said yes."""
    asked = await held.begin(run, "s1", ask())
    (approval,) = (await held.ports.reads.approvals("acme", Page(), run=run)).rows
    payload = (await held.ports.reads.payloads("acme", run, [approval.binding_c]))[approval.binding_c]
    await decide_approval(
        held.ports,
        held.approver(),
        asked["approval_id"],
        verdict="approve",
        digest=str(canonical.loads(payload.value())),
        note=None,
        request=held.request(),
    )


async def test_an_unused_grant_gives_its_approval_back_when_the_run_parks(tmp_path: Path) -> None:
    async with hand(tmp_path) as held:
        run = (await held.open())["run"]
        await approved(held, run)
        assert (await held.begin(run, "s1", ask()))["outcome"] == "run"
        await park(held.ports, held.agent(), run, 1, "requested", held.request())
        (after,) = (await held.ports.reads.approvals("acme", Page(), run=run)).rows
        check = LedgerCheck(held.store, held.store, held.ports.wrap, digest_of)
        assert [str(finding) async for finding in check.findings()] == []
        assert (after.status, after.consumed_by) == ("approved", None)


async def test_a_redeemed_grant_keeps_its_approval_whatever_the_tool_says(tmp_path: Path) -> None:
    async with hand(tmp_path) as held:
        run = (await held.open())["run"]
        await approved(held, run)
        first = await held.begin(run, "s1", ask())
        await held.redeem(first["grant"]["jti"])
        args = (held.ports, held.agent(), run, "s1", 1, first["grant"]["attempt"])
        await fail(*args, status=FailStatus.NOT_EXECUTED, error=None, request=held.request())
        assert (await held.begin(run, "s1", ask()))["outcome"] == "approval_required"
