"""`stepgrant db restored`: what is asked before, and what people have to do after."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from stepgrant.cli import plain
from stepgrant.cli.exits import CommandError
from stepgrant_broker.commands.local import finished
from stepgrant_broker.commands.saying import said

if TYPE_CHECKING:
    from stepgrant.cli.command import Cli
    from stepgrant_broker.usecases.restored import Restored
    from stepgrant_broker.wiring.restoring import Behind

NOTE_MAX: Final = 500
STEP: Final = 100
"""Runs between two lines of progress on a terminal."""
AFTER: Final = """\
1. Look at the targets for what each run did after the restored state, settle its doubts, then release it:
   stepgrant quarantine run RUN --release
2. Credentials of the lost part: tokens are dead when their time is over (5 minutes at most); what other issuers gave
   dies with its lease there, or is taken back by hand.
3. Undone with the lost part: workloads and operators that were added or removed, kill switches, secrets, policies.
4. Witnesses and auditors trust the log under its new name from now on; older heads and receipts stay what they were.\
"""


def restore(cli: Cli, note: str, *, yes: bool) -> None:
    """Ask, restore, tell. Raises `CommandError`."""
    if not 1 <= len(note) <= NOTE_MAX:
        raise CommandError(f"a note has 1 to {NOTE_MAX} characters")
    with said():
        behind, done, vkey = finished(_restore(cli, note, yes=yes))
    value = {
        "size": behind.size,
        "known_size": behind.known_size,
        "previous_origin": behind.previous,
        "origin": behind.origin,
        "vkey": vkey,
        "tenants": done.tenants,
        "runs": done.runs,
        "steps_in_doubt": done.doubts,
        "approvals_void": done.void,
    }
    cli.out.emit(value, lambda: _print(cli, value))


async def _restore(cli: Cli, note: str, *, yes: bool) -> tuple[Behind, Restored, str]:
    from stepgrant_broker.config import load_settings
    from stepgrant_broker.wiring.broker import opened
    from stepgrant_broker.wiring.restoring import look_behind, restore_store

    show = cli.out.terminal and sys.stderr.isatty()

    def watch(done: Restored) -> None:
        if show and done.runs % STEP == 0:
            sys.stderr.write(f"\r{plain.count(done.runs, 'run')} ")
            sys.stderr.flush()

    async with opened(load_settings(), looking=True) as broker:
        behind = await look_behind(broker)
        cli.out.confirm(
            f"This database was rolled back: {plain.visible('; '.join(behind.why))}.\n"
            "Take it as it is? What came after it is lost, and every run that is not ended is quarantined.",
            yes=yes,
        )
        done, vkey = await restore_store(broker, behind, note, watch)
    if show:
        sys.stderr.write("\r\x1b[K")
    return behind, done, vkey


def _print(cli: Cli, value: dict[str, Any]) -> None:
    cli.out.facts(
        [
            ("log", f"{value['origin']}, with {value['size']} entries of {value['known_size']} that were known"),
            ("its key", value["vkey"]),
            ("runs quarantined", value["runs"]),
            ("steps in doubt", value["steps_in_doubt"]),
            ("approvals void", value["approvals_void"]),
        ]
    )
    cli.out.line(AFTER)
