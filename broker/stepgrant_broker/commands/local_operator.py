"""`stepgrant operator create --local`: the first person of a broker, made on its own host without a token."""

from __future__ import annotations

from typing import Any

from stepgrant_broker.commands.local import finished
from stepgrant_broker.commands.saying import said


def create_operator(*, name: str, roles: list[str], groups: list[str], another_token: bool = False) -> dict[str, Any]:
    """As `stepgrant.cli.extensions.CreateOperator` says. Raises `CommandError`."""
    from stepgrant_broker.config import load_settings
    from stepgrant_broker.usecases.operators import create_operator as create
    from stepgrant_broker.wiring import opened

    async def work() -> dict[str, Any]:
        settings = load_settings()
        async with opened(settings) as broker:
            answer = await create(
                broker.ports, settings.tenant, None, name=name, roles=roles, groups=groups, another_token=another_token
            )
        return {**answer, "url": settings.public_url}

    with said():
        return finished(work())
