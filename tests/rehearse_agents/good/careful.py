"""Charges a card once, whatever happens to it: ids, a recorded plan, a hook that asks the card's own book."""

from __future__ import annotations

import uuid
from pathlib import Path

import stepgrant

BOOK = Path("charges")


def was_it_charged(step: stepgrant.CurrentStep) -> stepgrant.Verdict:
    lines = BOOK.read_text(encoding="utf-8").splitlines() if BOOK.exists() else []
    found = [line for line in lines if line.startswith(f"{step.idempotency_key} ")]
    return stepgrant.done(found[0].partition(" ")[2]) if found else stepgrant.not_done()


@stepgrant.tool(effect="read")
def balance(card: str) -> int:
    return 100 * len(card)


@stepgrant.tool(effect="once", step_id="charge-{card}", reconcile=was_it_charged)
def charge(card: str, reference: str) -> str:
    with BOOK.open("a", encoding="utf-8") as book:
        book.write(f"{stepgrant.current_step().idempotency_key} {reference}/{card}\n")
    return f"{reference}/{card}"


with stepgrant.run("order-991", agent="billing", input={"card": "4711"}) as run:
    plan = stepgrant.step("plan", lambda: {"reference": uuid.uuid4().hex})
    balance(run.input["card"])
    run.result = charge(run.input["card"], plan["reference"])
assert len(BOOK.read_text(encoding="utf-8").splitlines()) == 1
