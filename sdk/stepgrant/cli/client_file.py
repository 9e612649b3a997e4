"""Which broker a person talks to, and with what token: `--client`, the environment, or a client file.

Rules:
* A client file is JSON `{"url": "...", "token": "sgo_..."}` of mode 0600; one that others may read is refused.
* Looked for in this order: `--client FILE`; `STEPGRANT_TOKEN`; `./.stepgrant/operator.json` (written by
  `stepgrant dev`); `~/.config/stepgrant/client.json`.
* A token out of a file goes to that file's URL and to no other: an address from elsewhere would get the token.
* A token never travels in clear: `http://` is for this machine's own addresses.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from stepgrant.canonical import CanonicalError, loads
from stepgrant.cli.exits import CommandError

DEFAULT_URL: Final = "http://127.0.0.1:8423"
DEV_FILE: Final = Path(".stepgrant") / "operator.json"
TOKEN_PREFIX: Final = "sgo_"  # noqa: S105 - the public beginning of every operator token
_MEMBERS: Final = frozenset({"url", "token"})


@dataclass(frozen=True, slots=True)
class Client:
    """Whom to call and how to say who calls. `source` says where the token came from."""

    url: str
    token: str = field(repr=False)
    source: str

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client with its token can be neither pickled nor copied")


def user_file(environment: Mapping[str, str]) -> Path:
    """`~/.config/stepgrant/client.json`, or where `XDG_CONFIG_HOME` puts it."""
    base = environment.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "stepgrant" / "client.json"


def find(*, url: str | None, file: Path | None, environment: Mapping[str, str] | None = None) -> Client:
    """The client to use. Raises `CommandError` (no_token, configuration_error), `ConfigurationError`."""
    known = os.environ if environment is None else environment
    wanted = url or known.get("STEPGRANT_URL")
    if file is not None:
        return _from_file(file, wanted)
    token = known.get("STEPGRANT_TOKEN")
    if token:
        return Client(_checked_url(wanted or DEFAULT_URL), _checked_token(token, "STEPGRANT_TOKEN"), "STEPGRANT_TOKEN")
    for candidate in (DEV_FILE, user_file(known)):
        if candidate.exists():
            return _from_file(candidate, wanted)
    raise CommandError(
        "no operator token: run this where `stepgrant dev` runs, set STEPGRANT_TOKEN, or name a client file with "
        "--client (an operator makes one with `stepgrant operator create`)",
        code="no_token",
    )


def load(path: Path) -> Client:
    """Read a client file. Raises `CommandError` (not_found; configuration_error if it is none, or not private)."""
    from stepgrant._exchange import _read_private_file
    from stepgrant.errors import ConfigurationError

    if not path.exists():
        raise CommandError(f"there is no client file {path}", code="not_found")
    try:
        document = loads(_read_private_file(path))
    except ConfigurationError as error:
        raise CommandError(str(error).replace("the key file ", ""), code="configuration_error") from None
    except CanonicalError as error:
        raise CommandError(f"{path} is not a client file ({error.code})", code="configuration_error") from None
    if not isinstance(document, dict) or set(document) != _MEMBERS:
        raise CommandError(f"{path} is not a client file: it needs exactly url and token", code="configuration_error")
    url, token = document["url"], document["token"]
    if not isinstance(url, str) or not isinstance(token, str):
        raise CommandError(f"{path}: url and token must be text", code="configuration_error")
    return Client(_checked_url(url), _checked_token(token, str(path)), str(path))


def save(path: Path, client: Client) -> None:
    """Write a new client file, mode 0600, durably. Raises `CommandError` if the path exists."""
    text = json.dumps({"url": client.url, "token": client.token}, indent=2) + "\n"
    write_private(path, text.encode())


def write_private(path: Path, data: bytes) -> None:
    """Write a new file that only its owner can read, durably. Raises `CommandError` if the path exists."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CommandError(f"cannot create {path}: {error.strerror}", code="configuration_error") from None
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def refuse_existing(path: Path) -> None:
    """Raises `CommandError` before anything is made whose only copy could then not be saved."""
    if path.exists() or path.is_symlink():
        raise CommandError(f"{path} exists; name another file with --out", code="configuration_error")
    if not os.access(path.parent, os.W_OK):
        raise CommandError(f"cannot write to {path.parent}", code="configuration_error")


def _from_file(path: Path, wanted: str | None) -> Client:
    client = load(path)
    if wanted is not None and wanted.rstrip("/") != client.url:
        raise CommandError(
            f"{path} holds a token for {client.url}, and it is sent to no other address; leave out --url and "
            "STEPGRANT_URL, or name another client file",
            code="configuration_error",
        )
    return client


def _checked_token(token: str, source: str) -> str:
    token = token.strip()
    if not token.startswith(TOKEN_PREFIX) or not token.isascii() or not token.isprintable() or " " in token:
        # The value stays out: what was pasted by mistake may be another secret.
        raise CommandError(f"{source} holds no operator token (it begins with {TOKEN_PREFIX})", code="no_token")
    return token


def _checked_url(url: str) -> str:
    from stepgrant._client import Address

    return Address.of(url).base
