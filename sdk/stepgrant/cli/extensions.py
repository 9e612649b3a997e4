"""What the broker's commands lend to ours, where the broker is installed.

The SDK never imports the broker; the broker's `stepgrant.commands` entry point sets these when it joins.
"""

from __future__ import annotations

from typing import Any, Protocol


class CreateOperator(Protocol):
    """Creates a person in the database of this host's broker."""

    def __call__(
        self, *, name: str, roles: list[str], groups: list[str], another_token: bool = False
    ) -> dict[str, Any]:
        """The broker's answer with `token`, and `url`, the broker's public address."""
        ...


create_operator: CreateOperator | None = None
