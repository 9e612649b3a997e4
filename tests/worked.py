"""Agents for `stepgrant work`, as a user would write them. WORKED_SHOP is the shop's address.

The input: `order`, of the form `slow-<seconds>-<name>` if the charge takes so long after the shop has done it. `first`
and `then`: what happens before the charge, and before the mail: `raise`, `die` or
`die once`.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import stepgrant
from agents import asking, calling
from faces import coroutine_function
from shop import Shop

shop = Shop(os.environ.get("WORKED_SHOP", ""))
Order = dict[str, Any]
FIRST = 2
"""The epoch of the first worker: whoever queued the run had the one before."""


def slowly(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, and then a pause that the order asks for."""

    @functools.wraps(function)
    def tool(order: str, amount: int = 5) -> Any:  # noqa: ANN401 - JSON
        done = function(order, amount)
        if order.startswith("slow-"):
            time.sleep(float(order.split("-")[1]))
        return done

    return tool


def off_the_loop(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as `async def`, which leaves the loop to others."""

    @functools.wraps(function)
    async def tool(order: str, amount: int = 5) -> Any:  # noqa: ANN401 - JSON
        return await asyncio.to_thread(function, order, amount)

    return tool


charging = stepgrant.tool(effect="once", step_id="charge-{order}", reconcile=asking(shop, "charge"))
charge = charging(slowly(calling(shop, "charge")))
acharge = charging(off_the_loop(slowly(calling(shop, "charge"))))
mail = stepgrant.tool(effect="once", step_id="mail-{order}", reconcile=asking(shop, "mail"))(calling(shop, "mail"))
amail = stepgrant.tool(effect="once", step_id="mail-{order}", reconcile=asking(shop, "mail"))(
    coroutine_function(calling(shop, "mail"))
)


def do(what: str | None, epoch: int) -> None:
    """What goes wrong; `die once` only in the first worker's hands."""
    if what == "raise":
        raise ValueError("this order cannot be billed")
    if what == "die" or (what == "die once" and epoch == FIRST):
        os.kill(os.getpid(), signal.SIGKILL)


@stepgrant.agent("agent")
def bill(order: Order, run: stepgrant.Run) -> Any:  # noqa: ANN401 - JSON
    """Charge, then send a mail."""
    do(order.get("first"), run.epoch)
    charged = charge(order["order"])
    do(order.get("then"), run.epoch)
    mail(order["order"])
    return charged


@stepgrant.agent("agent")
async def abill(order: Order) -> Any:  # noqa: ANN401 - JSON
    """The same for several orders side by side."""

    async def one(name: str) -> None:
        await acharge(name)
        await amail(name)

    await asyncio.gather(*map(one, order["orders"]))
    return len(order["orders"])


@stepgrant.agent("agent")
def gives_up(order: Order, run: stepgrant.Run) -> None:
    """A run that is over for good."""
    run.fail({"order": order["order"]})


def no_agent() -> None:
    """Undecorated."""
