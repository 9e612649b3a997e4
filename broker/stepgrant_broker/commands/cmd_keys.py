"""`stepgrant keys`: the keys that this installation signs with, on the broker's own host."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperCommand

from stepgrant.cli import plain
from stepgrant.cli.command import Cli, command, group
from stepgrant_broker.commands.local import finished
from stepgrant_broker.commands.saying import said

if TYPE_CHECKING:
    from stepgrant_broker.domain.keys import SigningKey

PURPOSE = Annotated[
    str,
    typer.Argument(metavar="PURPOSE", help="grants, access or heads: what the key signs; or wrap.", show_default=False),
]
WRAPS: Final = "the wrap key {} wraps what is new from now on; `stepgrant keys rewrap` brings the rest under it"
KID = Annotated[str, typer.Argument(metavar="KID", help="The key's id, from `keys list`.")]
NOTE = Annotated[str | None, typer.Option("--note", help="Why; it stands in the ledger.")]
DASHED: Final = re.compile(r"-[A-Za-z0-9_-]{42}")
YES = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
OUT = Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write a new file instead of stdout.")]


class TakesKid(TyperCommand):
    """One key in 64 has an id (RFC 7638, in base64url) that begins with a dash: it is an id all the same."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer does not export the type
        """As click, with such ids behind `--`."""
        ids = [word for word in args if DASHED.fullmatch(word)] if "--" not in args else []
        if ids:
            args = [*(word for word in args if word not in ids), "--", *ids]
        return super().parse_args(ctx, args)


def register(root: typer.Typer) -> None:
    """Add the group."""
    keys = group(root, "keys", "The keys that sign grants, access tokens and heads, on the broker's own host.")
    _add_list(keys)
    _add_turns(keys)
    _add_revoke(keys)
    _add_export(keys)


def _add_list(keys: typer.Typer) -> None:
    @command(keys, "list", remote=False, example="stepgrant keys list")
    def listed(cli: Cli) -> None:
        """Show every key that signs, signed, or was revoked."""
        with said():
            found, _ = finished(_registered())
        cli.out.emit({"keys": [_plain(key) for key in found]}, lambda: _table(cli, found))


def _add_turns(keys: typer.Typer) -> None:
    @command(keys, "rotate", remote=False, example="stepgrant keys rotate grants")
    def rotate(cli: Cli, purpose: PURPOSE) -> None:
        """Make a newer key. Running brokers see it by themselves, publish it, and sign with it once it has settled.

        Nothing fails meanwhile: what the old key signed is verified until it is over. Tree heads are signed by both
        keys for a while (STEPGRANT_BROKER_HEAD_OVERLAP_H), in which auditors and witnesses have to learn the new one.
        """
        if purpose == "wrap":
            with said():
                key_id = finished(_rotate_wrap())
            cli.out.emit({"purpose": purpose, "key_id": key_id}, lambda: cli.out.line(WRAPS.format(key_id)))
            return
        with said():
            made, line = finished(_rotate(purpose))
        cli.out.emit({**_plain(made), "vkey": line}, lambda: _told(cli, made, line))

    @command(keys, "rewrap", remote=False, example="stepgrant keys rotate wrap && stepgrant keys rewrap")
    def rewrap(cli: Cli) -> None:
        """Wrap everything at rest with the newest wrap key, and seal what an older version left in clear.

        Beside running brokers, in batches; begun again, it goes on. Once nothing is left and every broker has seen the
        new key (a second or two), the older wrap key files can be deleted: backups from before can then not be read
        any more, and nothing of what was erased can be read out of them.
        """
        with said():
            done = finished(_rewrap())
        cli.out.emit(done, lambda: _rewrapped(cli, done))


def _add_revoke(keys: typer.Typer) -> None:
    example = "stepgrant keys revoke kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k --note 'laptop stolen' --yes"

    @command(keys, "revoke", remote=False, example=example, cls=TakesKid)
    def revoke(cli: Cli, kid: KID, note: NOTE = None, yes: YES = False) -> None:
        """Revoke a key that somebody else may have. It is final, and takes a second to reach every running broker.

        Tokens signed by it are refused, by resource servers once they fetch the keys again (300 s at most). Receipts
        signed by it count only where witnesses saw the log's head before; all others are made again with
        `stepgrant receipt get`. A newest key is replaced at once, without settling.
        """
        cli.out.confirm(f"revoke the key {plain.visible(kid)} for ever?", yes=yes)
        with said():
            gone = finished(_revoke(kid, note))
        text = f"revoked at {plain.utc(gone.revoked_at or 0)}; tree heads by it count up to {gone.revoked_size} entries"
        cli.out.emit(_plain(gone), lambda: cli.out.line(text))


def _add_export(keys: typer.Typer) -> None:
    @command(keys, "export", remote=False, example="stepgrant keys export --out keys.json")
    def export(cli: Cli, out: OUT = None) -> None:
        """Write all public keys, past ones and revoked ones too: with it, old receipts verify for ever.

        Give it to auditors, apart from the receipts; `receipt verify --key` takes it.
        """
        from stepgrant.canonical import dumps
        from stepgrant_broker.ledger.key_export import export as document

        with said():
            found, origin = finished(_attested())
        data = dumps(document(found, origin))
        if out is None:
            sys.stdout.write(data.decode() + "\n")
            return
        from stepgrant.cli.client_file import refuse_existing, write_private

        refuse_existing(out)
        write_private(out, data)
        value = {"keys": len(found), "file": str(out)}
        cli.out.emit(value, lambda: cli.out.line(f"written to {plain.visible(out)}"))


async def _registered() -> tuple[tuple[SigningKey, ...], str]:
    from stepgrant_broker.config import load_settings
    from stepgrant_broker.wiring import opened

    async with opened(load_settings()) as broker:
        await broker.keys.round()
        return await broker.store.signing_keys(), broker.log.origin


async def _attested() -> tuple[tuple[SigningKey, ...], str]:
    from stepgrant_broker.config import load_settings
    from stepgrant_broker.wiring import opened

    async with opened(load_settings()) as broker:
        return await broker.keys.attested(), broker.log.origin


async def _rotate(purpose: str) -> tuple[SigningKey, str | None]:
    from stepgrant_broker.config import load_settings
    from stepgrant_broker.ledger.key_export import vkey_of
    from stepgrant_broker.wiring import opened

    async with opened(load_settings()) as broker:
        made = await broker.keys.rotate(purpose)
        return made, vkey_of(made, broker.log.origin) if purpose == "heads" else None


async def _rotate_wrap() -> str:
    from stepgrant_broker.config import load_settings
    from stepgrant_broker.wiring import opened
    from stepgrant_broker.wiring.wrapping import rotate_wrap

    async with opened(load_settings()) as broker:
        return await rotate_wrap(broker.ports, broker.settings.tenant)


async def _rewrap() -> dict[str, Any]:
    from stepgrant_broker.config import load_settings
    from stepgrant_broker.wiring import opened
    from stepgrant_broker.wiring.wrapping import rewrap_all

    async with opened(load_settings()) as broker:
        return await rewrap_all(broker.ports, broker.store, broker.settings.tenant)


def _rewrapped(cli: Cli, done: dict[str, Any]) -> None:
    counts = f"{done['chain_keys']} chain keys, {done['secrets']} static secrets, {done['payloads']} payloads"
    cli.out.line(f"under {done['key_id']} now: {counts}")
    if done["left"]:
        cli.out.line(f"{done['left']} changed meanwhile and are left: run it again")
    else:
        cli.out.line(
            "nothing is left under older keys; their wrap-*.* files in STEPGRANT_BROKER_KEYS_DIR can be deleted"
        )


async def _revoke(kid: str, note: str | None) -> SigningKey:
    from stepgrant_broker.config import load_settings
    from stepgrant_broker.wiring import opened

    async with opened(load_settings()) as broker:
        return await broker.keys.revoke(kid, note)


def _plain(key: SigningKey) -> dict[str, Any]:
    return {
        "purpose": key.purpose,
        "kid": key.kid,
        "number": key.number,
        "since": key.since,
        "signs_from": key.signs_from,
        "until": key.until,
        "revoked_at": key.revoked_at,
        "revoked_size": key.revoked_size,
    }


def _table(cli: Cli, keys: tuple[SigningKey, ...]) -> None:
    rows = [
        (key.purpose, key.number, key.kid, plain.utc(key.signs_from or key.since), _ended(key), _state(key))
        for key in keys
    ]
    cli.out.table(("purpose", "number", "kid", "signs from", "until", "state"), rows, empty="no keys yet")


def _ended(key: SigningKey) -> str:
    return "" if key.until is None else plain.utc(key.until)


def _state(key: SigningKey) -> str:
    if key.revoked_at is not None:
        return f"revoked at {plain.utc(key.revoked_at)}"
    return "newest" if key.until is None else "followed by a newer one"


def _told(cli: Cli, made: SigningKey, line: str | None) -> None:
    cli.out.line(f"{made.purpose} key {made.kid} is published and signs from {plain.utc(made.signs_from)} on.")
    if line is not None:
        cli.out.line("Add it to log policies and witnesses while both keys sign (STEPGRANT_BROKER_HEAD_OVERLAP_H):")
        cli.out.line(f"log {line}")
