"""`stepgrant dev`: a broker for this folder, ready for an agent, with policy that is taken over as you save it."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from stepgrant.cli import garbage, plain
from stepgrant.cli.command import Cli, command
from stepgrant.cli.exits import CommandError
from stepgrant_broker.commands.saying import said

if TYPE_CHECKING:
    from stepgrant_broker.commands.dev_session import Session
    from stepgrant_broker.config import Settings
    from stepgrant_broker.wiring import Broker, Listening

PORT_DEFAULT: Final = 8423
LEASE_MS: Final = 5_000
"""Short, so that a restarted agent does not wait long for its dead predecessor."""

COMMAND = Annotated[
    list[str] | None, typer.Argument(metavar="[-- COMMAND...]", help="Run this with the agent's environment, then end.")
]
AGENT = Annotated[
    list[str] | None, typer.Option("--agent", metavar="NAME", help="Also enrol for this agent name; repeatable.")
]
POLICY = Annotated[
    Path | None, typer.Option("--policy", metavar="FOLDER", help="Default: ./policy, else the starter policy.")
]
PORT = Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")]
DATA = Annotated[Path, typer.Option("--data", metavar="FOLDER", help="Where keys, tokens and the ledger are kept.")]


def register(root: typer.Typer) -> None:
    """Add the command."""

    @command(root, "dev", remote=False, example="stepgrant dev -- python agent.py\nstepgrant dev --port 8500")
    def dev(
        cli: Cli,
        words: COMMAND = None,
        agent: AGENT = None,
        policy: POLICY = None,
        port: PORT = PORT_DEFAULT,
        data: DATA = Path(".stepgrant"),
    ) -> None:
        """Run a broker for development: keys, ledger and your token in ./.stepgrant, policy from ./policy.

        With a command: run it with STEPGRANT_URL and STEPGRANT_WORKLOAD_KEY set, and end with it and its exit code; the
        broker answers a second terminal meanwhile. Without one: print what an agent needs, and run until Ctrl-C.
        """
        with said():
            settings, listening = _prepared(policy, port, data)
            try:
                code = _run(cli, settings, listening, words or [], agent or [])
            finally:
                listening.socket.close()
        raise typer.Exit(code)


def _prepared(policy: Path | None, port: int, data: Path) -> tuple[Settings, Listening]:
    from stepgrant_broker.commands.dev_session import refuse_open_folder
    from stepgrant_broker.config import SettingsError, load_settings
    from stepgrant_broker.wiring import listen

    folder = policy or (Path("policy") if Path("policy").is_dir() else None)
    if folder is not None and not folder.is_dir():
        raise CommandError(f"there is no folder {folder}", code="not_found")
    refuse_open_folder(data)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (ignored := data / ".gitignore").exists():
        # Keys and tokens lie here, mostly in somebody's repository: `git add .` must not take them along.
        ignored.write_text("*\n", encoding="utf-8")
    given: dict[str, Any] = {
        "data_dir": data,
        "host": "127.0.0.1",
        "port": port,
        "policy_dir": folder,
        "watch_policy": folder is not None,
        "lease_ms": LEASE_MS,
    }
    settings = load_settings(**given)
    try:
        listening = listen(settings)
    except SettingsError:
        raise CommandError(
            f"port {port} is taken, perhaps by another `stepgrant dev`: end that one, or name another with --port",
            code="configuration_error",
        ) from None
    return load_settings(**{**given, "port": listening.port, "public_url": listening.url}), listening


def _run(cli: Cli, settings: Settings, listening: Listening, words: Sequence[str], agents: Sequence[str]) -> int:
    from stepgrant_broker.wiring import configure_logs
    from stepgrant_broker.wiring.server import new_event_loop

    configure_logs("text", "warning")
    speaker = _Speaker()
    speaker.listen()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_work(cli, settings, listening, words, agents, speaker))


async def _work(
    cli: Cli,
    settings: Settings,
    listening: Listening,
    words: Sequence[str],
    agents: Sequence[str],
    speaker: _Speaker,
) -> int:
    from stepgrant_broker.commands import child
    from stepgrant_broker.commands.dev_session import set_up
    from stepgrant_broker.wiring import build, serve
    from stepgrant_broker.wiring.server import served

    async with build(settings, create=True) as broker:
        session = await set_up(broker, listening.url, agents)
        speaker.broker, speaker.session = broker, session
        if not words:
            await serve(broker, listening, ready=lambda _: _tell(cli, broker, session, words))
            return 0
        async with served(broker, listening):
            _tell(cli, broker, session, words)
            return await child.run(words, session.environment)


def _tell(cli: Cli, broker: Broker, session: Session, words: Sequence[str]) -> None:
    """Say what is there: on stdout what a person or a script takes from it, on stderr if a command owns stdout."""
    garbage.loaded()
    settings = broker.settings
    policy = str(settings.policy_dir) if settings.policy_dir is not None else "the starter policy"
    if cli.out.json_mode:
        value = {"url": session.url, "agents": list(session.agents), "client_file": str(session.client_file),
                 "environment": session.environment, "policy": policy, "revision": broker.policy.revision}  # fmt: skip
        cli.out.document(value)
        sys.stdout.flush()
        return
    lines = [
        f"stepgrant dev: a broker at {session.url}; keys, tokens and ledger in {settings.data_dir}",
        f"  policy  {policy} ({_short(broker.policy.revision)})" + (", taken over as you save it"
                                                                    if settings.watch_policy else ""),
        f"  agents  {plain.joined(session.agents)}",
        "  in a second terminal, in this folder: stepgrant run list, stepgrant approval list",
    ]  # fmt: skip
    if session.key_changed:
        lines.append(
            "  the agents changed, so there is a new workload key; unfinished runs of the old one stay with it"
        )
    if words:
        lines.append(f"  now: {plain.visible(shlex.join(words))}")
        cli.out.note("\n".join(lines))
        return
    lines += ["  an agent that you start yourself needs:", *_exports(session), "  Ctrl-C ends it."]
    for line in lines:
        cli.out.line(line)
    sys.stdout.flush()


def _exports(session: Session) -> list[str]:
    return [f"export {name}={shlex.quote(value)}" for name, value in session.environment.items()]


def _short(revision: str | None) -> str:
    from stepgrant.cli._telling import revision as short

    return short(revision or "")


class _Speaker:
    """Says in words, and not as one line of a log among others, what became of a policy that was saved."""

    def __init__(self) -> None:
        self.broker: Broker | None = None
        self.session: Session | None = None

    def listen(self) -> None:
        """Hear what the broker logs, before it is written."""
        import structlog

        structlog.configure(processors=[self.hear, *structlog.get_config()["processors"]])

    def hear(self, _: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """A structlog processor. Raises `DropEvent` for what was said here."""
        import structlog

        match event.get("event"):
            case "policy_reloaded":
                self._say(f"taken over, {_short(event.get('revision'))} decides from now on{self._strangers()}")
            case "policy_broken":
                findings = "".join(f"\n    {plain.visible(one)}" for one in event.get("findings", []))
                stays = _short(event.get("stays_active"))
                self._say(f"BROKEN, NOT taken over; {stays} still decides{findings}", loud=True)
            case _:
                return event
        raise structlog.DropEvent

    def _strangers(self) -> str:
        from stepgrant_broker.commands.dev_session import configured

        if self.broker is None or self.session is None:
            return ""
        new = sorted(set(configured(self.broker)) - set(self.session.agents))
        return f"; start `stepgrant dev` again to enrol {plain.joined(new)}" if new else ""

    def _say(self, text: str, *, loud: bool = False) -> None:
        before, after = ("\x1b[1;31m", "\x1b[0m") if loud and sys.stderr.isatty() else ("", "")
        sys.stderr.write(f"{before}stepgrant dev: policy: {text}{after}\n")
        sys.stderr.flush()
