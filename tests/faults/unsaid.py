"""What no error may say."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer


def shows_no_secret(error: BaseException, server: PostgresServer) -> None:
    said = f"{error!r} {error} {error.__cause__!r}"
    assert server.password not in said
    assert "127.0.0.1" not in said
