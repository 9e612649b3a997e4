"""What a workload shows to get an access token: its enrolled key, or a token that the platform wrote into a file.

A platform gives processes tokens of their own: Kubernetes projects one for an audience into the pod, a SPIFFE helper
writes a JWT-SVID, a CI system or a cloud an OIDC token. They are short-lived and renewed in place, so the file is read
again for each exchange, and what was read is kept nowhere.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, Protocol, TypeAlias

from stepgrant import _jose
from stepgrant._errors import ConfigurationError

KEY_VARIABLE: Final = "STEPGRANT_WORKLOAD_KEY"
FILE_VARIABLE: Final = "STEPGRANT_IDENTITY_FILE"
TYPE_VARIABLE: Final = "STEPGRANT_IDENTITY_TYPE"
TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "jwt": "urn:ietf:params:oauth:token-type:jwt",
        "id_token": "urn:ietf:params:oauth:token-type:id_token",
    }
)
TokenType: TypeAlias = Literal["jwt", "id_token"]
_DOTS: Final = 2


class Evidence(Protocol):
    """Makes the subject token of an exchange (RFC 8693 §2.1)."""

    @property
    def token_type(self) -> str:
        """The `subject_token_type`, as an URN."""
        ...

    def subject_token(self, audience: str, now: float, jkt: str) -> str:
        """A token for one try. `audience`: the broker's issuer; `jkt`: the DPoP key. Raises `ConfigurationError`."""
        ...


@dataclass(frozen=True, slots=True)
class TokenFile:
    """An identity token in a file that somebody else writes and renews.

    Args:
        path: the file; a symbolic link is followed, for that is how Kubernetes exchanges it.
        kind: `jwt` for Kubernetes and SPIFFE, and for OIDC if in doubt; `id_token` for an OpenID Connect ID token.

    It holds no token, so it can be shown, copied and pickled. Who may read the file is the platform's business: a
    projected token is often readable for every process of the container, and then each of them is this workload.
    """

    path: str | os.PathLike[str]
    kind: TokenType = "jwt"

    def __post_init__(self) -> None:
        """Raises `ConfigurationError` for an unknown kind."""
        if self.kind not in TYPES:
            raise ConfigurationError(f"the kind of an identity token ({TYPE_VARIABLE}) is {' or '.join(TYPES)}")

    @property
    def token_type(self) -> str:
        """As `Evidence`."""
        return TYPES[self.kind]

    def subject_token(self, audience: str, now: float, jkt: str) -> str:
        """The token that the file holds now. Raises `ConfigurationError`, never with anything of what it holds."""
        try:
            with Path(self.path).open("rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise ConfigurationError(f"{self.path} is not a regular file")
                data = file.read(_jose.MAX_TOKEN_BYTES + 1)
        except OSError as error:
            raise ConfigurationError(f"cannot read the identity token {self.path}: {error.strerror}") from None
        text = data.strip()
        whole = len(data) <= _jose.MAX_TOKEN_BYTES and text.isascii() and len(text.split()) == 1
        if not whole or text.count(b".") != _DOTS:
            raise ConfigurationError(f"{self.path} holds no signed token: three base64url parts with dots between")
        return text.decode("ascii")


def find_identity(
    workload_key: str | os.PathLike[str] | None,
    identity_file: str | os.PathLike[str] | TokenFile | None,
    environment: Mapping[str, str],
) -> str | TokenFile:
    """What was given, else what the environment names: the path of a key file, or a token file.

    Raises `ConfigurationError` for both at once: which one counts would be a guess about who this process is.
    """
    kind = environment.get(TYPE_VARIABLE) or "jwt"
    if not workload_key and not identity_file:
        workload_key, identity_file = environment.get(KEY_VARIABLE), environment.get(FILE_VARIABLE)
    if workload_key and identity_file:
        raise ConfigurationError(f"a workload key and an identity file: set {KEY_VARIABLE} or {FILE_VARIABLE}, one")
    if isinstance(identity_file, TokenFile):
        return identity_file
    if identity_file:
        return TokenFile(os.fspath(identity_file), kind)  # type: ignore[arg-type]  # checked where it is made
    if workload_key:
        return os.fspath(workload_key)
    raise ConfigurationError(
        f"no workload key: set {KEY_VARIABLE} to the key file, or {FILE_VARIABLE} to a token that the platform writes"
    )
