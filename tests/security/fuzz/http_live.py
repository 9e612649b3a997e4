"""What is alive in the broker, and how a drawn request is made to speak of it."""

from __future__ import annotations

import random
from typing import Any, Final

import schemathesis

from fakes.hand import allow, ask, deny
from stepgrant import canonical

MOSTLY: Final = 0.8
DRAWN: Final = 0.2
"""How often a request is sent as it was drawn."""
STEPS: Final = ("a", "b", "c~d")
ACTION: Final = {"tool": "refund.create", "resource": "order/1", "args": {"amount": 5}}
KEPT: Final = 40


class Live:
    """Names that earlier answers gave, by the path parameter that takes them."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.names: dict[str, list[str]] = {"step": list(STEPS), "name": ["crm"]}
        self.epochs: dict[str, int] = {}
        self.digests: dict[str, str] = {}
        self.opened = 0

    def enliven(self, case: schemathesis.Case[Any]) -> None:
        """Put live names into the case, three times in four."""
        if self.rng.random() < DRAWN:
            return
        for name in case.path_parameters or {}:
            if self.names.get(name):
                case.path_parameters[name] = self.rng.choice(self.names[name][-3:])
        if isinstance(case.body, dict):
            case.body.update(self._members(case, case.body))

    def rename(self, case: schemathesis.Case[Any]) -> None:
        """Put another live name, or none that is alive, in the place of one of the case's names."""
        name = self.rng.choice(sorted(case.path_parameters))
        case.path_parameters[name] = self.rng.choice(
            [*self.names.get(name, [])[-3:], "another", "a%20b", "~", "A" * 300]
        )

    def _members(self, case: schemathesis.Case[Any], body: dict[str, Any]) -> dict[str, Any]:
        where = dict(case.path_parameters or {})
        made: dict[str, Any] = {}
        if "epoch" in body:
            made["epoch"] = self.epochs.get(where.get("run", ""), 1)
        if "action" in body:
            effect = self.rng.choice(["read", "idempotent", "once"])
            decision = self.rng.choice([allow(effect=effect), allow(effect=effect), ask(), deny()])
            made |= {"action": ACTION, "effect": effect, "context": {"decide": decision}}
            for name in ("issuer", "csr", "idempotency_key", "params", "ttl_s"):
                body.pop(name, None)
        if "attempt" in body:
            made["attempt"] = 1
        if "args_digest" in body:
            made["args_digest"] = canonical.action_digest("refund.create", "order/1", {"amount": 5})
        if "digest" in body:
            made["digest"] = self.digests.get(where.get("approval", ""), "sha-256:x")
        if case.path == "/v1/runs":
            self.opened += self.rng.random() < MOSTLY
            made |= {"agent": "agent", "run_key": f"job-{self.opened}", "labels": {}, "principal": None, "version": "1"}
        return made

    def harvest(self, case: schemathesis.Case[Any], response: schemathesis.Response) -> None:
        """Remember what the answer names."""
        answer = response.json() if response.content[:1] == b"{" else None
        if not isinstance(answer, dict):
            return
        if case.path == "/v1/runs" and case.method == "POST":
            self._add("run", answer["run"])
            self.epochs[answer["run"]] = answer["epoch"]
        if isinstance(answer.get("grant"), dict):
            self._add("jti", answer["grant"]["jti"])
        for name in ("approval_id", "decision_id"):
            if isinstance(answer.get(name), str):
                self._add(name.removesuffix("_id"), answer[name])
        if case.path == "/v1/approvals/{approval}":
            self.digests[str(answer.get("id"))] = str(answer.get("digest"))
        if case.path in {"/v1/workloads", "/v1/operators"} and case.method == "POST":
            self._add(case.path.rpartition("/")[2].removesuffix("s"), answer["id"])
        for policy in answer.get("policies", ()):
            self._add("revision", policy["revision"])

    def _add(self, kind: str, name: str) -> None:
        self.names[kind] = [*self.names.get(kind, [])[-KEPT:], name]
