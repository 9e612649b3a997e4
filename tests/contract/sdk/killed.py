"""The agent of `test_kills.py`, which starts it again after each of its deaths. Usage: killed.py SHOP FACE."""

from __future__ import annotations

import asyncio
import sys

from agents import asking, calling
from faces import Asynchronous, Blocking, Face
from shop import Shop

shop = Shop(sys.argv[1])
face: Face = Asynchronous() if sys.argv[2] == "Asynchronous" else Blocking()
charge = face.tool(calling(shop, "charge"), step_id="charge-{order}", reconcile=asking(shop, "charge"))


async def main() -> None:
    """Plan two orders, and charge for each."""
    async with face.run("orders", agent="agent") as run:
        orders = await face.step("plan", lambda: ["1", "2"])
        done = [await face.call(charge, order) for order in orders]
        run.result = [one["order"] for one in done]
        sys.stdout.write(" ".join([str(run.epoch), *run.result]))


asyncio.run(main())
