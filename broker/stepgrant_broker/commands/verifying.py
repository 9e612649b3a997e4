"""`stepgrant ledger verify`: what it reads, how far it is, and how it tells what it found."""

from __future__ import annotations

import sys
import time
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

import typer

from stepgrant.cli import plain
from stepgrant.cli.exits import CommandError
from stepgrant_broker.commands.local import finished
from stepgrant_broker.commands.saying import said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from stepgrant.cli.command import Cli
    from stepgrant.tlog.policy import LogPolicy
    from stepgrant_broker.ledger.check_heads import KeptHead
    from stepgrant_broker.ledger.findings import Finding, Progress

UNSEEN: Final = (
    "No head that was kept elsewhere was compared. A database that was put back to an earlier, whole state of itself "
    "cannot be told from one that was not: keep heads elsewhere (--known-head), or let witnesses keep them."
)


def verify(cli: Cli, known: Sequence[Path], policy_file: Path | None, url: str | None, *, ask: bool) -> None:
    """Check, tell, and exit with 1 if anything is wrong."""
    started = time.perf_counter()
    policy = None if policy_file is None else _policy(policy_file)
    kept = [_kept(path) for path in known]
    with said(), _shown(cli) as watch:
        findings, progress, compared = finished(_check(watch, kept, policy, url, ask=ask))
    seconds = time.perf_counter() - started
    value = {
        "ok": not findings,
        "findings": [one.plain() for one in findings],
        **_counts(progress),
        "known_heads": compared,
        "rollback": "compared" if compared else UNSEEN,
        "seconds": round(seconds, 3),
    }
    cli.out.emit(value, lambda: _print(cli, findings, progress, compared=compared, seconds=seconds))
    if findings:
        raise typer.Exit(1)


async def _check(
    watch: Callable[[Progress], None],
    known: Sequence[KeptHead],
    policy: LogPolicy | None,
    url: str | None,
    *,
    ask: bool,
) -> tuple[list[Finding], Progress, int]:
    from stepgrant._errors import ConfigurationError
    from stepgrant_broker.config import load_settings
    from stepgrant_broker.wiring import opened
    from stepgrant_broker.wiring.checking import log_at, remembered

    async with AsyncExitStack() as stack:
        try:
            reader = None if url is None else log_at(stack, url)
        except ConfigurationError as error:
            raise CommandError(str(error), code="configuration_error") from None
        broker = await stack.enter_async_context(opened(load_settings(), looking=True))
        check = broker.ledger_check(watch, reader=reader, policy=policy, known=known)
        found = [finding async for finding in check.findings()]
        if ask:
            told = {(one.code, one.at) for one in found}
            found += [one for one in await remembered(broker) if (one.code, one.at) not in told]
        return found, check.progress, ask + len(check.log.known if check.log is not None else ())


def _kept(path: Path) -> KeptHead:
    from stepgrant_broker.ledger.check_heads import KeptHead

    try:
        return KeptHead(path.read_bytes(), str(path))
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}", code="not_found") from None


def _policy(path: Path) -> LogPolicy:
    from stepgrant import tlog

    try:
        return tlog.read_log_policy(path.read_text())
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}", code="not_found") from None
    except (tlog.LogPolicyInvalid, UnicodeDecodeError) as error:
        raise CommandError(f"{path}: {error}", code="configuration_error") from None


@contextmanager
def _shown(cli: Cli) -> Iterator[Callable[[Progress], None]]:
    """Progress for people, on stderr, where both ends are a terminal."""
    if cli.out.json_mode or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading")
        yield lambda progress: bar.update(task, description=_words(progress))


def _words(progress: Progress) -> str:
    return (
        f"{plain.count(progress.runs, 'run')}, {plain.count(progress.entries, 'entry', 'entries')}, "
        f"{plain.count(progress.leaves, 'leaf', 'leaves')}, {plain.count(progress.heads, 'signed head')}"
    )


def _counts(progress: Progress) -> dict[str, Any]:
    return {
        "tenants": progress.tenants,
        "runs": progress.runs,
        "entries": progress.entries,
        "values": progress.payloads,
        "leaves": progress.leaves,
        "waiting": progress.waiting,
        "tiles": progress.tiles,
        "heads": progress.heads,
        "cosignatures": progress.cosignatures,
        "unsigned": progress.unsigned,
        "counted": progress.counted,
    }


def _print(cli: Cli, findings: list[Finding], progress: Progress, *, compared: int, seconds: float) -> None:
    for finding in findings:
        cli.out.line(plain.visible(finding), style="red")
    entries = plain.count(progress.entries, "entry", "entries")
    read = f"{entries} of {plain.count(progress.runs, 'run')} read, {progress.payloads} stored values opened"
    tree = f"{plain.count(progress.leaves, 'leaf', 'leaves')} in the log under {plain.count(progress.heads, 'head')}"
    took = plain.span(round(seconds * plain.SECOND))
    if findings:
        cli.out.line(f"{plain.count(len(findings), 'finding')}; {read}, {tree}; {took}", style="bold red")
    else:
        cli.out.line(
            f"The ledger holds: {read}, {tree}; tables, tiles, heads and entries say the same; {took}.", style="green"
        )
    waiting, unsigned = progress.waiting, progress.unsigned
    if waiting or unsigned:
        behind = plain.count(waiting, "entry has", "entries have")
        cli.out.line(f"{behind} no leaf yet; {plain.count(unsigned, 'leaf', 'leaves')} no signed head yet.")
    cli.out.line(f"Compared with {plain.count(compared, 'head')} kept outside the database." if compared else UNSEEN)
