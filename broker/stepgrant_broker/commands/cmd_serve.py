"""`stepgrant serve`: the broker as a service, with settings from the environment."""

from __future__ import annotations

import sys

import typer

from stepgrant.cli import garbage
from stepgrant.cli.command import Cli, command
from stepgrant.cli.exits import CommandError
from stepgrant_broker.commands.saying import said


def register(root: typer.Typer) -> None:
    """Add the commands."""

    @command(
        root,
        "serve",
        remote=False,
        example="STEPGRANT_BROKER_DATA_DIR=/var/lib/stepgrant STEPGRANT_BROKER_POLICY_DIR=/etc/stepgrant/policy "
        "stepgrant serve",
    )
    def serve(cli: Cli) -> None:
        """Serve the broker, with settings from the environment (STEPGRANT_BROKER_...), until a signal ends it.

        `stepgrant settings` lists them. Database and keys are made before by `stepgrant db migrate`. An address that
        others can reach is refused without TLS, or your word that a proxy ends it.
        """
        with said():
            _serve(cli)

    @command(root, "settings", remote=False, example="stepgrant settings")
    def settings(cli: Cli) -> None:
        """List the broker's settings: name, default, and what somebody gains who can change it."""
        from stepgrant_broker.config import PREFIX, Settings

        known = [
            {"name": PREFIX + name.upper(), "default": _default(field.default), "about": field.description or ""}
            for name, field in Settings.model_fields.items()
        ]
        cli.out.emit({"settings": known}, lambda: _print(cli, known))


def _default(value: object) -> str:
    return "" if value is None else str(value)


def _print(cli: Cli, known: list[dict[str, str]]) -> None:
    for one in known:
        default = f" = {one['default']}" if one["default"] else ""
        cli.out.line(f"{one['name']}{default}", style="bold")
        cli.out.line(f"    {one['about']}")


def _serve(cli: Cli) -> None:
    import asyncio

    from stepgrant_broker.config import load_settings, spelled
    from stepgrant_broker.wiring import build, configure_logs, listen, serve
    from stepgrant_broker.wiring.one_cpu import home_of, together
    from stepgrant_broker.wiring.server import new_event_loop

    settings = load_settings()
    configure_logs(settings.log_format, settings.log_level)
    try:
        listening = listen(settings)
    except Exception as refused:
        if getattr(refused, "code", None) != "unsafe_bind":
            raise
        raise CommandError(spelled(str(refused)), code="configuration_error") from None

    def ready(url: str) -> None:
        garbage.loaded()
        if cli.out.json_mode:
            cli.out.document({"url": url, "public_url": settings.public_url})
        else:
            cli.out.line(f"stepgrant serves at {url} (public: {settings.public_url})")
        sys.stdout.flush()

    async def work() -> None:
        home = home_of(settings)
        async with build(settings) as broker, together(home):
            await serve(broker, listening, ready=ready)

    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(work())
    finally:
        listening.socket.close()
