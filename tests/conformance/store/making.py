"""Write sets and values for the suite: sealed entries on chains that know where they stand, and a clock to set."""

# ruff: noqa: ANN401 - a field may have any type

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

from changing import replace
from stepgrant import canonical
from stepgrant_broker.domain.commitments import Payload
from stepgrant_broker.domain.decisions import Effect, RedeemMode
from stepgrant_broker.domain.entries import GENESIS, Entry, EntryType, Head, seal
from stepgrant_broker.domain.ports import Failpoints, Revocation
from stepgrant_broker.domain.state import (
    Approval,
    ApprovalStatus,
    Epoch,
    Grant,
    GrantStatus,
    IdSource,
    Run,
    RunState,
    Step,
    StepState,
)
from stepgrant_broker.domain.writes import ProofUse, StoredAnswer, Tenant, WriteSet

NOW: Final = 1_800_000_000_000
_numbers = count(1)


def unique(prefix: str) -> str:
    """A name that no other call gives, in this process or another."""
    return f"{prefix}_{os.getpid()}_{next(_numbers):08d}"


def timed(prefix: str, time: int) -> str:
    """An identifier as the broker makes them: it begins with its time, so that their order is that of their times."""
    return unique(f"{prefix}_{time:016d}")


class SetClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, now: int = NOW) -> None:
        self.time = now

    def now(self) -> int:
        return self.time


class Gate:
    """Failpoints that hold the store at one point until they are opened, so that what waits there becomes one batch."""

    def __init__(self, point: str = "store.before_apply") -> None:
        self._point = point
        self._open = threading.Event()
        self.reached = threading.Event()

    def hit(self, point: str) -> None:
        if point == self._point:
            self.reached.set()
            assert self._open.wait(60)

    def open(self) -> None:
        self._open.set()


class Raising:
    """Failpoints that raise at one point, once: the first time, or after it was passed so often."""

    def __init__(self, point: str, error: Exception, *, after: int = 0) -> None:
        self._point = point
        self._error = error
        self._passing = after

    def hit(self, point: str) -> None:
        if point == self._point:
            self._passing -= 1
            if self._passing == -1:
                raise self._error


class Several:
    """Failpoints one after the other."""

    def __init__(self, *failpoints: Failpoints) -> None:
        self._failpoints = failpoints

    def hit(self, point: str) -> None:
        for failpoint in self._failpoints:
            failpoint.hit(point)


def a_run(tenant: str = "acme", **values: Any) -> Run:
    """An open run under epoch 1 that has no entries yet."""
    run = Run(
        id=timed("run", values.get("opened_at", NOW)),
        tenant=tenant, key=unique("key"), agent="agent", agent_version="1", state=RunState.OPEN,
        epoch=1, jkt="jkt-1", workload="wkl_1", subject_c="s_c", opened_at=NOW, labels={"a": "b"}, input_c=None,
        principal_c=None, principal_method=None, seq=0, head=GENESIS, last_ts=0,
    )  # fmt: skip
    return replace(run, **values)


def an_epoch(run: Run, epoch: int) -> Epoch:
    return Epoch(run.id, run.tenant, epoch, f"jkt-{epoch}", run.workload, run.subject_c, NOW + epoch)


def a_step(run: Run, **values: Any) -> Step:
    step = Step(
        run=run.id, tenant=run.tenant, key=unique("step"), recorded=False, tool="pay", effect=Effect.ONCE,
        idempotency_key="ik", digest_c="d_c", resource_c=None, id_source=IdSource.EXPLICIT, parent=None, settle_ms=0,
        retry_failed=False, digest_only=False, state=StepState.PREPARED, attempt=1, epoch=1, position=next(_numbers),
    )  # fmt: skip
    return replace(step, **values)


def a_grant(run: Run, step: str, **values: Any) -> Grant:
    grant = Grant(
        jti=timed("jti", values.get("issued_at", NOW)),
        run=run.id, tenant=run.tenant, step=step, attempt=1, epoch=1, issuer="jwt",
        revocation=Revocation.EXPIRY, tool="pay", effect=Effect.ONCE, redeem=RedeemMode.REQUIRED, jkt="jkt-1",
        audience="https://tool.example", digest_c="d_c", status=GrantStatus.ISSUED, issued_at=NOW, exp=NOW + 60_000,
    )  # fmt: skip
    return replace(grant, **values)


def an_approval(run: Run, step: str, **values: Any) -> Approval:
    approval = Approval(
        id=timed("apr", values.get("requested_at", NOW)),
        run=run.id, tenant=run.tenant, step=step, binding_c=unique("b_c"), tool="pay",
        effect=Effect.ONCE, issuer="jwt", groups=("finance",), quorum=1, requested_at=NOW, answer_by=NOW + 86_400_000,
        valid_for_ms=900_000, revision="1:sha-256:x", reasons=("large",), status=ApprovalStatus.PENDING,
    )  # fmt: skip
    return replace(approval, **values)


def a_proof(expires_at: int = NOW + 900_000) -> ProofUse:
    return ProofUse(unique("proof"), expires_at)


def a_payload(body: bytes = b'"value"', **values: Any) -> Payload:
    return replace(Payload(unique("c"), "outcome.result", "value", body), **values)


def an_answer(chain: Chain, **values: Any) -> StoredAnswer:
    answer = StoredAnswer(unique("scope"), chain.tenant, chain.run or "", "body_c", 200, None, NOW + 86_400_000)
    return replace(answer, **values)


@dataclass
class Chain:
    """A run's chain (`run` set) or a tenant's own, and where it stands. `copy()` lets two writers start alike."""

    tenant: str
    row: Run | Tenant

    @classmethod
    def of_run(cls, tenant: str = "acme", **values: Any) -> Chain:
        return cls(tenant, a_run(tenant, **values))

    @classmethod
    def of_tenant(cls, tenant: str = "acme") -> Chain:
        return cls(tenant, Tenant(tenant, 0, GENESIS, 0))

    @property
    def run(self) -> str | None:
        return self.row.id if isinstance(self.row, Run) else None

    @property
    def the_run(self) -> Run:
        assert isinstance(self.row, Run)
        return self.row

    def copy(self) -> Chain:
        return Chain(self.tenant, self.row)

    def adds(self, entries: int = 1, *, change: Mapping[str, Any] | None = None, **more: Any) -> WriteSet:
        """A set of so many entries with the chain's row behind them; the chain moves on as if it were committed.

        `of`: their type and body. `opens`: the first entries of a run come with its epoch, as they do in use.
        """
        before = self.row
        head = Head(self.tenant, self.run, before.seq, before.head, before.last_ts)
        sealed = sealed_entries(head, entries, more.pop("of", None))
        if sealed:
            newest, last = canonical.b64u(sealed[-1].hash), sealed[-1].ts
            self.row = replace(before, seq=before.seq + entries, head=newest, last_ts=last, **(change or {}))
        elif change:
            self.row = replace(before, **change)
        rows = (self.row, *more.pop("rows", ()))
        if more.pop("opens", True) and isinstance(self.row, Run) and before.seq == 0:
            rows = (*rows, an_epoch(self.row, self.row.epoch))
        return WriteSet(self.tenant, self.run, before.seq, sealed, rows, **more)

    def bare(self, **more: Any) -> WriteSet:
        """A set that moves nothing but names where the chain stands."""
        return WriteSet(self.tenant, self.run, self.row.seq, **more)


def sealed_entries(head: Head, number: int, of: tuple[EntryType, Mapping[str, Any]] | None = None) -> tuple[Entry, ...]:
    kind, body = of or (
        (EntryType.RUN_PARKED, {"reason": "test"}) if head.run else (EntryType.OPERATOR_ACTION, {"action": "x"})
    )
    draft = {
        "type": kind.value, "step": None, "attempt": None, "epoch": None, "by": {"kind": "broker", "subject_c": None},
        "agent": None, "mode": "enforce", "action": None, "decision": None, "body": body,
    }  # fmt: skip
    return seal(head, [draft] * number, [next(_numbers).to_bytes(16, "big") for _ in range(number)], NOW)[0]
