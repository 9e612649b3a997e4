# ruff: noqa: ARG001, INP001, T201 - a program, run as a file; its tools send the arguments that they are called with
"""A refund: what must not happen twice, and what a person has to allow above 100 EUR.

The agent reads the order, has a model decide (here a few lines do), gives the money back, notes it at the order and
writes to the customer. Kill it anywhere and start it again: one refund, one mail, the same decision.

    stepgrant dev -- python _target.py python refund.py
    stepgrant dev -- python _target.py python refund.py 7002 60        less than what a person is asked about
"""

from __future__ import annotations

import os
import sys
from typing import Any

import httpx

import stepgrant

ASKED_A_PERSON = 75  # EX_TEMPFAIL: come again

SERVICES = httpx.Client(
    base_url=os.environ.get("EXAMPLES_TARGET", "http://127.0.0.1:8431"), auth=stepgrant.http.Auth(), trust_env=False
)


def ask_service() -> Any:  # noqa: ANN401 - JSON
    """Have the service do what this step is: its address takes the tool, the resource and the arguments as they are."""
    step = stepgrant.current_step()
    where = {"resource": step.resource} if step.resource else {}
    return SERVICES.post(f"/{step.tool}", params=where, json=dict(step.args)).raise_for_status().json()


def look(step: stepgrant.CurrentStep) -> stepgrant.Verdict:
    """After a crash, the service says whether it happened: nobody guesses."""
    where = {"resource": step.resource} if step.resource else {}
    asked = {**where, "key": step.idempotency_key}
    found = SERVICES.post(f"/{step.tool}.reconcile", params=asked, json=dict(step.args)).raise_for_status().json()
    return stepgrant.done(found[0]) if found else stepgrant.not_done()


@stepgrant.tool(name="order.read", effect="read", resource="order/{order}")
def read_order(order: str) -> Any:  # noqa: ANN401 - JSON
    """Reading again does no harm, so after a crash it is simply read again."""
    return ask_service()


@stepgrant.tool(name="refund.create", effect="once", resource="order/{order}", step_id="refund", reconcile=look)
def refund(order: str, amount: int) -> Any:  # noqa: ANN401 - JSON
    """Money leaves. `amount` is what policy limits, counts, and asks a person about."""
    return ask_service()


@stepgrant.tool(name="order.note", effect="idempotent", resource="order/{order}", step_id="note")
def note(order: str, text: str) -> Any:  # noqa: ANN401 - JSON
    """The service knows the idempotency key, so a second attempt writes no second note."""
    return ask_service()


@stepgrant.tool(name="mail.send", effect="once", step_id="mail", reconcile=look)
def mail(to: str, text: str) -> Any:  # noqa: ANN401 - JSON
    """A mail cannot be taken back, either."""
    return ask_service()


def decide(order: dict[str, Any], wish: int) -> dict[str, Any]:
    """Stands for a model: asked twice it might answer twice, so its answer is a recorded step."""
    amount = min(wish, order["total"])
    return {"amount": amount, "text": f"We are sorry. You get {amount} {order['currency']} back."}


def main(order: str = "7001", wish: str = "150") -> int:
    """The same code whether it starts or comes back."""
    try:
        with stepgrant.run(f"refund-{order}", agent="support", input={"order": order, "wish": int(wish)}) as run:
            if run.resumed:
                print(f"I am back, as holder {run.epoch} of this run")
            found = read_order(run.input["order"])
            plan = stepgrant.step("decide", lambda: decide(found, run.input["wish"]))
            paid = refund(run.input["order"], plan["amount"])
            note(run.input["order"], f"refunded: {paid['id']}")
            mail(found["customer"], plan["text"])
            run.result = paid
            print(f"refunded {paid['amount']} as {paid['id']}")
    except stepgrant.ApprovalRequired as asked:
        print(f"a person has to allow this refund: stepgrant approval approve {asked.approval_id}; then start me again")
        return ASKED_A_PERSON
    except stepgrant.Denied as denied:
        print(f"order {order} gets no refund: {', '.join(denied.reasons)}")
        return 1
    except stepgrant.errors.RunEnded as over:
        if over.state != "completed" or over.other_input:
            print(over)
            return 1
        print(f"the refund of order {order} is done; name another order")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
