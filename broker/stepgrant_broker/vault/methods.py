"""How the broker proves itself to Vault: AppRole, JWT, Kubernetes, or a token that somebody else keeps fresh in a file.

Rules:
* Every secret comes from a file that is read again at each login, so that rotating it needs no restart. A secret id and
  a token must not be readable by everybody.
* A secret id may come wrapped (the form that Vault's documentation advises): it is unwrapped once, after its creation
  path was compared. One that was unwrapped before is a break-in until somebody knows better, and is said so.
* What was read is in no message.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import structlog

from stepgrant_broker.vault.faults import VaultBad, VaultDenied, VaultRefused
from stepgrant_broker.vault.wire import VaultToken, Wire

FILE_MAX: Final = 16_384
OTHERS: Final = stat.S_IROTH | stat.S_IWOTH
WRAPPING: Final = re.compile(r"(hvs|s|b)\.[A-Za-z0-9_-]{20,}")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Session:
    """A login: the token, its life in seconds from now (`None`: it does not end), and if it may be renewed.

    `ours`: made by a login of this process, which gives it back when it ends.
    """

    token: VaultToken
    life_s: float | None
    renewable: bool
    ours: bool


class Method(Protocol):
    """One way to log in."""

    async def login(self, wire: Wire) -> Session:
        """Log in. Raises `VaultFault`."""

    def changed(self) -> bool:
        """True when what the login rests on has changed since, so that it must be done again now."""


class AppRole:
    """`role_id`, and a secret id from a file: plain, or wrapped."""

    def __init__(self, mount: str, role_id: str, secret_id_file: Path) -> None:
        self._mount = mount
        self._role_id = role_id
        self._file = secret_id_file
        self._unwrapped: tuple[str, str] | None = None

    async def login(self, wire: Wire) -> Session:
        """Log in with the secret id of now."""
        found = read_private(self._file)
        secret_id = await self._unwrap(wire, found) if WRAPPING.fullmatch(found) else found
        body = {"role_id": self._role_id, "secret_id": secret_id}
        try:
            return session_of(await wire.send("POST", f"auth/{self._mount}/login", body, token=None))
        except VaultRefused as refused:
            raise type(refused)(
                f"Vault refused the AppRole login at auth/{self._mount}: role id or secret id is wrong, used up or "
                f"expired; put a new one into {self._file}",
                said=refused.said,
            ) from None

    async def _unwrap(self, wire: Wire, wrapping: str) -> str:
        if self._unwrapped is not None and self._unwrapped[0] == wrapping:
            return self._unwrapped[1]
        expected = re.compile(rf"auth/{re.escape(self._mount)}/role/[^/]+/secret-id")
        try:
            looked = await wire.send("POST", "sys/wrapping/lookup", {"token": wrapping}, token=None)
            if not expected.fullmatch(str(_object(looked, "data").get("creation_path"))):
                raise VaultBad(f"the wrapped secret id in {self._file} was not made at auth/{self._mount}/role/…")
            opened = await wire.send("POST", "sys/wrapping/unwrap", {}, token=VaultToken(wrapping))
        except VaultRefused as refused:
            _log.error("wrapped_secret_id_refused", said=refused.said)
            raise VaultDenied(
                f"the wrapped secret id in {self._file} does not open: it is too old, or somebody opened it before. "
                "Unless you know who, treat it as stolen: destroy it and deliver a new one",
                said=refused.said,
            ) from None
        secret_id = _object(opened, "data").get("secret_id")
        if not isinstance(secret_id, str) or not secret_id:
            raise VaultBad(f"what is wrapped in {self._file} is no secret id")
        self._unwrapped = (wrapping, secret_id)
        return secret_id

    def changed(self) -> bool:
        """False: a session outlives the secret id that began it."""
        return False


class Jwt:
    """A role, and a JWT from a file that its issuer keeps fresh; Vault's `kubernetes` method takes the same call."""

    def __init__(self, mount: str, role: str, jwt_file: Path) -> None:
        self._mount = mount
        self._role = role
        self._file = jwt_file

    async def login(self, wire: Wire) -> Session:
        """Log in with the token of now."""
        body = {"role": self._role, "jwt": read_file(self._file)}
        try:
            return session_of(await wire.send("POST", f"auth/{self._mount}/login", body, token=None))
        except VaultRefused as refused:
            raise type(refused)(
                f"Vault refused the login at auth/{self._mount} with role {self._role}: see its bound audience, "
                f"subject and claims, and the token in {self._file}",
                said=refused.said,
            ) from None

    def changed(self) -> bool:
        """False: a session outlives the token that began it."""
        return False


class TokenFile:
    """A token that an agent (Vault Agent's sink) or an operator keeps in a file; a new one is taken when it appears."""

    def __init__(self, token_file: Path) -> None:
        self._file = token_file
        self._seen: tuple[int, int, int] | None = None

    async def login(self, wire: Wire) -> Session:
        """Look the token up."""
        self._seen = self._stamp()
        token = VaultToken(read_private(self._file))
        try:
            data = _object(await wire.send("GET", "auth/token/lookup-self", token=token), "data")
        except VaultRefused as refused:
            raise type(refused)(
                f"Vault does not accept the token in {self._file} (or it may not look itself up)", said=refused.said
            ) from None
        life = data.get("ttl")
        if not isinstance(life, int) or life < 0:
            raise VaultBad("Vault's answer to auth/token/lookup-self has no ttl")
        return Session(token, float(life) if life else None, data.get("renewable") is True, ours=False)

    def changed(self) -> bool:
        """True when the file is another one than at the last login."""
        return self._stamp() != self._seen

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size


def session_of(answer: dict[str, Any]) -> Session:
    """The session that a login's or renewal's answer gives. Raises `VaultBad`."""
    auth = _object(answer, "auth")
    token, life = auth.get("client_token"), auth.get("lease_duration")
    if not isinstance(token, str) or not token or not isinstance(life, int) or life < 0:
        raise VaultBad("Vault's answer to the login has no token")
    return Session(VaultToken(token), float(life) if life else None, auth.get("renewable") is True, ours=True)


def read_file(path: Path) -> str:
    """The file's text without white space around it. Raises `VaultBad` naming the file."""
    try:
        with path.open("rb") as opened:
            text = opened.read(FILE_MAX + 1).decode("ascii").strip()
    except OSError as error:
        raise VaultBad(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        text = ""
    if not text or len(text) > FILE_MAX or not text.isprintable():
        raise VaultBad(f"{path} must hold one line of text")
    return text


def read_private(path: Path) -> str:
    """As `read_file`, for what nobody else may read."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise VaultBad(f"{path} cannot be read: {error.strerror}") from None
    if mode & OTHERS:
        raise VaultBad(f"{path} can be read or written by everybody; say: chmod o-rwx {path}")
    return read_file(path)


def _object(answer: dict[str, Any], name: str) -> dict[str, Any]:
    value = answer.get(name)
    if not isinstance(value, dict):
        raise VaultBad(f"Vault's answer has no {name!r}")
    return value
