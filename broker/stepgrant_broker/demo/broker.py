"""The demo's broker, a process of its own: `db migrate`, `operator create --local` and `serve` in one.

Three commands would load the same libraries three times while people watch. Settings come from the environment as for
`stepgrant serve`; the people that the story needs get their client files (0600) below the folder that is named.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Final

from stepgrant.cli.client_file import Client, save
from stepgrant_broker.config import load_settings
from stepgrant_broker.demo.stage import APPROVERS
from stepgrant_broker.usecases.operators import create_operator
from stepgrant_broker.wiring import Broker, build, configure_logs, listen, serve
from stepgrant_broker.wiring.server import new_event_loop

PEOPLE: Final = {
    "ops": (("operator", "approver"), ()),
    "dana": (("approver",), (APPROVERS,)),
}
"""Roles and groups by name."""


async def make_people(broker: Broker, folder: Path) -> None:
    """Create them; each token is in its client file and nowhere else."""
    for name, (roles, groups) in PEOPLE.items():
        made = await create_operator(broker.ports, broker.settings.tenant, None, name=name, roles=roles, groups=groups)
        path = folder / f"{name}.json"
        save(path, Client(broker.settings.public_url, str(made["token"]), str(path)))


async def work(folder: Path) -> None:
    """Serve until a signal ends it."""
    settings = load_settings()
    configure_logs(settings.log_format, settings.log_level)
    listening = listen(settings)
    async with build(settings, create=True) as broker:
        await make_people(broker, folder)
        await serve(broker, listening)


def main() -> None:
    """`python -m stepgrant_broker.demo.broker FOLDER`."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(work(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
