"""Ledgers written by hand, to be judged: what a broker would write when it does right, and whatever else a test wants.

Each verb adds the entry that it is named after, and keeps the rows beside it. Nothing is checked here: a test that
wants a wrong ledger calls a verb where it must not come. Times start at `START` and move by `TICK_MS` per entry.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from checker.evidence import Evidence, Line, Record, Row, Tables
from checker.sealing import c, sealed
from stepgrant.canonical import b64u

START: Final = 1_800_000_000_000
TICK_MS: Final = 10
TTL_MS: Final = 60_000
WINDOW_MS: Final = 5_000
LOGIN: Final[dict[str, Any]] = {"issuer": "db", "redeem": "optional", "revocation": "confirmed", "intent": True}
"""Members of a grant whose credential is a database login."""
STATIC: Final[dict[str, Any]] = {"issuer": "static", "redeem": "optional", "revocation": "none"}


@dataclass
class Ledger:
    """One run and its tenant's chain, as lists of entries that have no place yet."""

    run: str = "run_1"
    key: str = "job"
    revision: str = "1:sha-256:x"
    now: int = START
    epoch: int = 0
    jkt: str = ""
    entries: list[dict[str, Any]] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    grants: dict[str, dict[str, Any]] = field(default_factory=dict)
    approvals: dict[str, dict[str, Any]] = field(default_factory=dict)
    books: list[Line] = field(default_factory=list)
    heard: list[Line] = field(default_factory=list)
    names: int = 0

    def add(self, kind: str, *, by: str = "workload", **members: Any) -> None:  # noqa: ANN401 - JSON
        """Any entry."""
        self.now += TICK_MS
        plain: dict[str, Any] = {"step": None, "attempt": None, "epoch": self.epoch, "action": None, "decision": None}
        plain["body"] = {}
        agent = {"name": "worker", "jkt": self.jkt, "version": None}
        by_ = {"kind": by, "subject_c": c(by)}
        self.entries.append(
            {**plain, "v": 1, "type": kind, "ts": self.now, "by": by_, "agent": agent, "mode": "enforce", **members}
        )

    def name(self, prefix: str) -> str:
        """A name that nobody has."""
        self.names += 1
        return f"{prefix}_{self.names}"

    def decision(self, effect: str = "allow", **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """The member `decision` of an entry."""
        names = {"decision_id": self.name("dec"), "input_c": c("input"), "policy_revision": self.revision}
        return {"effect": effect, "reasons": ["tool_listed"], **names, **more}

    # --- runs -------------------------------------------------------------------------------------------------------

    def open(self, jkt: str = "k1", **members: Any) -> None:  # noqa: ANN401 - JSON
        self.take("run_opened", 1, jkt, {"run_key": self.key, "workload": "wkl_1", "labels": {}}, members)

    def resume(self, jkt: str = "k2", epoch: int | None = None, **members: Any) -> None:  # noqa: ANN401 - JSON
        self.take("run_resumed", epoch or self.epoch + 1, jkt, {"workload": "wkl_1", "kind": "resume"}, members)

    def take(self, kind: str, epoch: int, jkt: str, body: dict[str, Any], members: dict[str, Any]) -> None:
        """A holder comes."""
        self.epoch, self.jkt = epoch, jkt
        self.add(kind, body=body, **{"decision": self.decision(), **members})
        self.state.update(epoch=epoch, jkt=jkt, state="open", ended_at=None)
        self.heard.append({"run": self.run, "epoch": epoch})

    def park(self, kind: str = "run_parked") -> None:
        self.add(kind, body={"reason": "requested"})
        self.state["state"] = "quarantined" if kind == "run_quarantined" else "parked"

    def end(self, status: str = "completed") -> None:
        self.add("run_ended", outcome={"status": status}, body={"status": status})
        self.state.update(state=status, ended_at=self.now)
        self.heard.append({"ended": True})

    # --- steps ------------------------------------------------------------------------------------------------------

    def action(self, step: str) -> dict[str, Any]:
        row = self.steps[step]
        return {
            "tool": row["tool"],
            "resource_c": row["resource_c"],
            "digest_c": row["digest_c"],
            "effect": row["effect"],
        }

    def prepare(
        self,
        step: str,
        tool: str = "card.charge",
        effect: str = "once",
        *,
        args: object = None,
        **body: Any,  # noqa: ANN401
    ) -> None:
        """A step is new, or enters the attempt that `attempt` says."""
        attempt = body.pop("attempt", 1)
        resource = body.pop("resource", None)
        given = {"idempotency_key": f"sg-{step}", "id_source": "explicit", "revision": 1, "settle_ms": 0, **body}
        self.steps[step] = {
            "run": self.run, "key": step, "tool": tool, "effect": effect, "digest_c": c([tool, resource, args or step]),
            "resource_c": resource and c(resource), "idempotency_key": given["idempotency_key"], "state": "prepared",
            "attempt": attempt,
        }  # fmt: skip
        self.of(step, "step_prepared", body=given)

    def of(self, step: str, kind: str, **members: Any) -> None:  # noqa: ANN401 - JSON
        """An entry about a step."""
        self.add(kind, step=step, **{"attempt": self.steps[step]["attempt"], "action": self.action(step), **members})

    def decide(self, step: str, effect: str = "allow", phase: str = "begin", duplicate: str = "", **more: Any) -> None:  # noqa: ANN401
        body = {"phase": phase, "engine": "regorus", **({"duplicate": duplicate} if duplicate else {})}
        self.of(step, "decision", decision=self.decision(effect, **more), body=body)

    def complete(self, step: str) -> None:
        self.of(step, "step_completed", outcome={"status": "completed"}, body={"withheld": False})
        self.steps[step]["state"] = "completed"
        self.heard.append({"told": step, "value": step})

    def fail(self, step: str, status: str) -> None:
        self.of(step, "step_failed", outcome={"status": status})
        self.steps[step]["state"] = "failed"

    def doubt(self, step: str) -> None:
        self.of(step, "step_in_doubt", body={"since": self.now}, cause="fenced")
        self.steps[step]["state"] = "in_doubt"

    def reconcile(self, step: str, verdict: str, **body: Any) -> None:  # noqa: ANN401 - JSON
        self.of(step, "step_reconciled", outcome={"status": verdict}, body={"verdict": verdict, **body})
        self.steps[step]["state"] = {"done": "completed", "not_done": "failed"}.get(verdict, "in_doubt")

    def record(self, step: str) -> None:
        self.steps[step] = {
            "run": self.run, "key": step, "tool": "plan", "effect": "read", "digest_c": c(step), "resource_c": None,
            "idempotency_key": f"sg-{step}", "state": "recorded", "attempt": 1,
        }  # fmt: skip
        body = {"idempotency_key": f"sg-{step}", "id_source": "explicit", "position": 1, "withheld": False}
        self.of(step, "step_recorded", outcome={"status": "recorded"}, body=body)
        self.heard.append({"told": step, "value": step})

    def replay(self, step: str) -> None:
        self.of(step, "step_replayed", body={"as": self.steps[step]["state"]})
        if self.steps[step]["state"] != "failed":
            self.heard.append({"told": step, "value": step})

    def adopt(self, step: str, source: str) -> None:
        self.add("step_adopted", step=step, attempt=1, action=self.action(source), body={"from": source})
        self.steps[step] = {**self.steps[source], "key": step, "state": "adopted"}

    def same(self, step: str, of: str, verdict: str) -> None:
        """A person says whether a call is a completed one again."""
        by = {"kind": "person", "subject_c": c("Ann")}
        self.of(step, "duplicate_decided", body={"verdict": verdict, "of": of, "operator": "Ann"})
        self.entries[-1]["by"] = by
        self.steps[step]["state"] = "adopted" if verdict == "replay" else "prepared"

    # --- grants -----------------------------------------------------------------------------------------------------

    def grant(self, step: str, **given: Any) -> str:  # noqa: ANN401 - JSON
        """A grant for the step's attempt; its name."""
        jti = given.pop("jti", None) or self.name("grn")
        approval, issuer = given.pop("approval", None), given.pop("issuer", "jwt")
        row = self.steps[step]
        body = {
            "redeem": "optional" if row["effect"] == "read" else "required", "revocation": "expiry", "intent": False,
            "jkt": self.jkt, "audience": "https://tool.example", "labels": [], "meters": {}, "params": {}, **given,
        }  # fmt: skip
        row["state"] = "started"
        named = {"jti": jti, "issuer": issuer, "exp": self.now + TICK_MS + TTL_MS}
        asked = {"approval": {"id": approval}} if approval else {}
        self.of(step, "grant_issued", grant=named, body=body, **asked)
        self.grants[jti] = {
            "run": self.run, "jti": jti, "step": step, "attempt": row["attempt"], "epoch": self.epoch,
            "redeemed_at": None, "exp": named["exp"], "revoked_at": None, "redeem": body["redeem"], "jkt": body["jkt"],
        }  # fmt: skip
        if approval in self.approvals:
            self.approvals[approval]["consumed_by"] = jti
        if not body["intent"]:
            self.acts(jti)
        return jti

    def begin(self, step: str, tool: str = "card.charge", effect: str = "once", **given: Any) -> str:  # noqa: ANN401
        """Prepare, decide, grant."""
        grant = {name: given.pop(name) for name in tuple(given) if name in GRANTED}
        self.prepare(step, tool, effect, **given)
        self.decide(step)
        return self.grant(step, **grant)

    def acts(self, jti: str) -> None:
        row = self.grants[jti]
        self.heard.append({"acts": row["step"], "attempt": row["attempt"], "epoch": row["epoch"]})

    def on(self, jti: str, kind: str, **members: Any) -> None:  # noqa: ANN401 - JSON
        """An entry about a grant, under its own epoch."""
        row = self.grants[jti]
        named = {"jti": jti, "issuer": "jwt", "exp": row["exp"]}
        place = {"attempt": row["attempt"], "epoch": row["epoch"]}
        self.of(row["step"], kind, **{**place, "grant": named, **members})

    def lease(self, jti: str) -> None:
        self.on(jti, "lease_recorded", body={"lease_c": c(jti)})
        self.acts(jti)

    def redeem(self, jti: str, act_before: int = 0) -> None:
        until = act_before or self.now + TICK_MS + WINDOW_MS
        body = {"server": "wkl_2", "redemption_id": "r", "proof_jti": "p", "act_before": until}
        self.on(jti, "grant_redeemed", by="resource_server", body=body)
        self.grants[jti]["redeemed_at"] = self.grants[jti]["redeemed_at"] or self.now

    def revoke(self, jti: str, *, unused: bool = False, confirmed: bool = True) -> None:
        self.on(jti, "grant_revoked", cause="fenced", body={"unused": unused, "confirmed": confirmed})
        self.grants[jti]["revoked_at"] = self.grants[jti]["revoked_at"] or self.now

    def issuer_failed(self, jti: str) -> None:
        self.on(jti, "grant_failed", body={"detail": "vault is sealed"})

    # --- people -----------------------------------------------------------------------------------------------------

    def ask(self, approval: str, step: str, **body: Any) -> None:  # noqa: ANN401 - JSON
        limits = {"quorum": 1, "answer_by": self.now + 86_400_000, "valid_for_ms": 900_000}
        given = {"binding_c": c(step), "issuer": "jwt", "groups": [], **limits, **body}
        self.of(
            step, "approval_requested", approval={"id": approval}, decision=self.entries[-1]["decision"], body=given
        )
        self.approvals[approval] = {"run": self.run, "id": approval, "step": step, "consumed_by": None}
        self.steps[step]["state"] = "awaiting_approval"

    def answer(self, approval: str, who: str = "Ann", settled: str = "approved", verdict: str = "approve") -> None:
        body = {"verdict": verdict, "settled": settled, "operator": who}
        step = str(self.approvals[approval]["step"])
        by = {"kind": "person", "subject_c": c(who)}
        self.add("approval_decided", step=step, approval={"id": approval}, body=body)
        self.entries[-1]["by"] = by

    # --- the witnesses ----------------------------------------------------------------------------------------------

    def did(self, jti: str, **more: Any) -> None:  # noqa: ANN401 - JSON
        """The target did it."""
        row = self.grants[jti]
        step = self.steps[row["step"]]
        place = {"run": self.run, "step": row["step"], "attempt": row["attempt"], "epoch": row["epoch"]}
        self.books.append(
            {"did": step["tool"], "key": step["idempotency_key"], "jti": jti, **place, "at": self.now + 1, **more}
        )

    def done(self, step: str, tool: str = "card.charge", effect: str = "once", **given: Any) -> str:  # noqa: ANN401
        """A step from its beginning to its end, as it should be; its grant."""
        jti = self.begin(step, tool, effect, **given)
        if effect != "read":
            self.redeem(jti)
        self.did(jti)
        self.complete(step)
        self.revoke(jti)
        return jti

    def records(self) -> list[Record]:
        """The entries in their places, and the tenant's chain."""
        body = {"revision": self.revision, "previous": None}
        active = {**self.entries[0], "type": "policy_activated", "ts": START, "body": body, "decision": None}
        return [*sealed("", [active]), *sealed(self.run, self.entries)]

    def row(self) -> dict[str, Any]:
        """The run's own row."""
        head = b64u(self.records()[-1].hash)
        return {"id": self.run, "seq": len(self.entries), "head": head, "last_ts": self.entries[-1]["ts"], **self.state}

    def evidence(self, **more: Any) -> Evidence:  # noqa: ANN401 - fields
        """All of it, ready to be judged."""
        rows: list[list[Row]] = [list(table.values()) for table in (self.steps, self.grants, self.approvals)]
        tables = Tables([self.row()], *rows)
        given = {"tables": tables, "books": self.books, "heard": [self.heard], "read_at": self.now, **more}
        return Evidence(self.records(), **given)


GRANTED: Final = frozenset(
    {"issuer", "redeem", "revocation", "intent", "approval", "jti", "jkt", "not_received", "inherits"}
)
