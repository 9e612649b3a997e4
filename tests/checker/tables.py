"""Judging the tables beside the ledger.

What the broker acts upon must be what the entries say (I4), and no grant may stand there that no entry issued (I3).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from checker.chain import Chain
from checker.evidence import Broken, Invariant, Row, Tables
from checker.story import Story

FINISHED: Final = frozenset({"completed", "recorded"})


def by_run(tables: Tables) -> dict[str, Tables]:
    """The tables of each run."""
    found: dict[str, dict[str, list[Row]]] = {}
    for name in ("runs", "steps", "grants", "approvals"):
        for row in getattr(tables, name):
            found.setdefault(str(row["id" if name == "runs" else "run"]), {}).setdefault(name, []).append(row)
    return {run: Tables(**rows) for run, rows in found.items()}


def judge(chain: Chain, story: Story, tables: Tables) -> Iterator[Broken]:
    """What the rows of one run say that its entries do not, and the other way round."""
    for row in tables.runs or [{}]:
        yield from _run(chain, story, row)
    yield from _steps(chain, story, tables)
    yield from _grants(chain, story, tables)
    for row in tables.approvals:
        approval = story.approvals.get(str(row["id"]))
        if approval is None or (row["consumed_by"] is None and approval.spent_by is not None):
            yield Broken("I4", chain.run, f"approvals {row['id']}", "not asked for, or spent without being marked so")


def _run(chain: Chain, story: Story, row: Row) -> Iterator[Broken]:
    last = chain.events[-1]
    says = {
        "seq": len(chain.events), "head": last.hash, "last_ts": last.ts, "epoch": story.epoch, "state": story.status,
        "jkt": story.holder, "ended_at": story.ended.ts if story.ended else None,
    }  # fmt: skip
    for name, value in says.items():
        if row.get(name) != value:
            yield Broken("I4", chain.run, "runs", f"{name} is {row.get(name)!r}, but the entries say {value!r}")


def _steps(chain: Chain, story: Story, tables: Tables) -> Iterator[Broken]:
    rows = {str(row["key"]): row for row in tables.steps}
    for key in sorted(story.steps.keys() - rows.keys()):
        yield Broken("I4", chain.run, f"steps {key}", "the entries know it, the table does not")
    for key, row in rows.items():
        step = story.steps.get(key)
        if step is None:
            if key not in story.aliases:
                yield Broken("I4", chain.run, f"steps {key}", "no entry prepared it")
            continue
        says = step.prepared.part("body").get("idempotency_key"), step.effect, step.digest_c
        if says != (row["idempotency_key"], row["effect"], row["digest_c"]):
            yield Broken("I4", chain.run, f"steps {key}", "another action, effect or idempotency key than prepared")
        if (step.finished is not None) != (row["state"] in FINISHED):
            yield Broken("I4", chain.run, f"steps {key}", f"it is {row['state']}, but the entries say otherwise")
        if (step.doubt is not None) != (row["state"] == "in_doubt"):
            yield Broken("I4", chain.run, f"steps {key}", f"it is {row['state']}, but its doubt says otherwise")


def _grants(chain: Chain, story: Story, tables: Tables) -> Iterator[Broken]:
    rows = {str(row["jti"]): row for row in tables.grants}
    for jti in sorted(story.grants.keys() - rows.keys()):
        yield Broken("I4", chain.run, f"grants {jti}", "the entries know it, the table does not")
    for jti, row in rows.items():
        grant = story.grants.get(jti)
        if grant is None:
            yield Broken("I3", chain.run, f"grants {jti}", "no entry issued it")
            continue
        says: dict[str, object] = {
            "step": grant.step, "attempt": grant.attempt, "epoch": grant.epoch, "redeemed_at": grant.redeemed,
            "exp": grant.exp, "revoked_at": grant.revoked, "redeem": grant.redeem, "jkt": grant.jkt,
        }  # fmt: skip
        for name, value in says.items():
            if row[name] != value:
                which: Invariant = "I3" if name in {"exp", "jkt", "redeem"} else "I4"
                text = f"{name} is {row[name]!r}, but the entries say {value!r}"
                yield Broken(which, chain.run, f"grants {jti}", text)
