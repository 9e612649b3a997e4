"""From a workload's identity to a broker access token: RFC 8693 exchange, with DPoP.

Agents and resource servers prove who they are in the same way: the workload key (long-lived, a file of mode 0600) signs
an assertion of one minute (RFC 7523), or the platform's token is read from its file (`_identity`); the holder's DPoP
key (fresh, in memory) is what the access token gets bound to.

Rules: a fresh assertion for each try, since the broker takes each once; the server's nonce is followed once; an answer
that is not a DPoP-bound token is refused, for a bearer token would work for whoever finds it.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from stepgrant import _http, _jose
from stepgrant._dpop import DpopKey
from stepgrant._errors import AuthenticationFailed, BrokerError, BrokerUnavailable, ConfigurationError
from stepgrant._identity import TYPES, Evidence
from stepgrant._keys import JoseError, SecretKey
from stepgrant.canonical import CanonicalError, JsonValue, b64u, loads

if TYPE_CHECKING:
    import httpx

ASSERTION_TYPE: Final = "client-authentication+jwt"
ASSERTION_LIFETIME_S: Final = 60
GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
TYPE_JWT: Final = TYPES["jwt"]
TYPE_ACCESS: Final = "urn:ietf:params:oauth:token-type:access_token"
ENDPOINT: Final = "/oauth/token"
_MAX_KEY_FILE_BYTES: Final = 16_384
_MAX_TOKEN_LIFE_S: Final = 86_400
_MAX_WORKLOAD_ID_CHARS: Final = 512
_TRIES: Final = 2
_OK, _CLIENT_ERROR, _TOO_MANY, _SERVER_ERROR = 200, 400, 429, 500


class WorkloadKey:
    """An enrolled workload's id and private key. Masked, not picklable.

    The file is JSON of mode 0600: `{"workload_id": "...", "jwk": {<private JWK, P-256 or Ed25519>}}`.
    """

    __slots__ = ("_secret", "workload_id")

    token_type: Final = TYPE_JWT

    def __init__(self, workload_id: str, secret: SecretKey) -> None:
        if not 0 < len(workload_id) <= _MAX_WORKLOAD_ID_CHARS or not workload_id.isprintable():
            raise ConfigurationError("a workload id is 1 to 512 printable characters")
        self.workload_id = workload_id
        self._secret = secret

    @classmethod
    def generate(cls, workload_id: str, *, alg: str = "ES256") -> WorkloadKey:
        """A fresh key, to be enrolled with its `public_jwk`."""
        return cls(workload_id, SecretKey.generate(alg))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> WorkloadKey:
        """Read a key file. Raises `ConfigurationError`, also if others may read it or somebody else owns it."""
        data = _read_private_file(Path(path))
        try:
            document = loads(data)
        except CanonicalError as error:
            raise ConfigurationError(f"{path} is not strict JSON ({error.code})") from None
        if not isinstance(document, dict) or set(document) != {"workload_id", "jwk"}:
            raise ConfigurationError(f"{path} is not a workload key: it needs exactly workload_id and jwk")
        workload_id, jwk = document["workload_id"], document["jwk"]
        if not isinstance(workload_id, str) or not isinstance(jwk, dict):
            raise ConfigurationError(f"{path}: workload_id must be text and jwk an object")
        try:
            return cls(workload_id, SecretKey.from_jwk(jwk))
        except JoseError as error:
            raise ConfigurationError(f"{path} holds no usable key ({error.reason}: {error.detail})") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a new key file, mode 0600, durably. Raises `ConfigurationError` if the path exists."""
        text = json.dumps({"workload_id": self.workload_id, "jwk": self._secret.to_private_jwk()}, indent=2) + "\n"
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(f"cannot create {path}: {error.strerror}") from None
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    @property
    def public_jwk(self) -> dict[str, str]:
        """The public key, as it is enrolled."""
        return self._secret.public.jwk

    @property
    def jkt(self) -> str:
        """Its thumbprint (RFC 7638)."""
        return self._secret.public.jkt

    def assertion(self, audience: str, now: float | None = None, *, jkt: str | None = None) -> str:
        """A one-use assertion for the broker whose issuer is `audience` (RFC 7523 with the rules of 7523bis).

        `jkt` names the DPoP key that the token is to be bound to (`cnf`, RFC 7800): with another key the assertion is
        worthless, so a copy of it mints nothing.
        """
        issued = int(time.time() if now is None else now)
        header: dict[str, JsonValue] = {"alg": self._secret.public.alg, "kid": self.jkt, "typ": ASSERTION_TYPE}
        claims: dict[str, JsonValue] = {
            "aud": audience,
            "exp": issued + ASSERTION_LIFETIME_S,
            "iat": issued,
            "iss": self.workload_id,
            "jti": b64u(secrets.token_bytes(16)),
            "sub": self.workload_id,
        }
        if jkt is not None:
            claims["cnf"] = {"jkt": jkt}
        return _jose.sign_compact(_jose.encode_segment(header), claims, self._secret.sign)

    def subject_token(self, audience: str, now: float, jkt: str) -> str:
        """As `_identity.Evidence`: an assertion for this DPoP key."""
        return self.assertion(audience, now, jkt=jkt)

    def __repr__(self) -> str:
        return f"WorkloadKey({self.workload_id!r}, jkt={self.jkt}, <masked>)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a workload key can be neither pickled nor copied")


def _read_private_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            info = os.fstat(file.fileno())  # of what was opened, so that nothing can be exchanged in between
            if not stat.S_ISREG(info.st_mode):
                raise ConfigurationError(f"{path} is not a regular file")
            if info.st_mode & 0o077:
                raise ConfigurationError(f"{path} can be read by others; run: chmod 600 {path}")
            if info.st_uid not in (os.geteuid(), 0):
                raise ConfigurationError(f"{path} belongs to another user")
            return file.read(_MAX_KEY_FILE_BYTES)
    except OSError as error:
        raise ConfigurationError(f"cannot read the key file {path}: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A broker access token bound to `jkt`. `expires_at` is in seconds of this machine's clock."""

    value: str = field(repr=False)
    expires_at: float
    jkt: str

    def usable(self, now: float, margin_s: float = 15) -> bool:
        """Whether a call that starts now will still find it valid."""
        return now < self.expires_at - margin_s

    def __reduce__(self) -> NoReturn:
        raise TypeError("an access token can be neither pickled nor copied")


@dataclass(frozen=True, slots=True)
class Exchanged:
    """What an exchange gave: the token, and the server's newest nonce for the next proof."""

    token: AccessToken
    nonce: str | None


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """All that an exchange needs, without a socket: builds the form, reads the answer.

    Args:
        base_url: the broker's public address, without a path of ours.
        workload: who asks.
        dpop: the key that the token will be bound to.
        issuer: the broker's issuer, an assertion's only audience; by default `base_url`.
    """

    base_url: str
    workload: Evidence
    dpop: DpopKey
    issuer: str | None = None

    @property
    def url(self) -> str:
        """The token endpoint."""
        return self.base_url.rstrip("/") + ENDPOINT

    def form(self, now: float) -> dict[str, str]:
        """The body of one try."""
        return {
            "grant_type": GRANT_TYPE,
            "requested_token_type": TYPE_ACCESS,
            "subject_token": self.workload.subject_token(self.issuer or self.base_url.rstrip("/"), now, self.dpop.jkt),
            "subject_token_type": self.workload.token_type,
        }

    def headers(self, nonce: str | None, now: float) -> dict[str, str]:
        """The headers of one try."""
        return {"accept": "application/json", "dpop": self.dpop.proof("POST", self.url, nonce=nonce, now=now)}

    def read(self, answer: _http.Answer, now: float, *, last: bool) -> Exchanged | None:
        """The token; None if the server asks for its nonce and there is another try. Raises otherwise."""
        members = answer.members()
        if answer.status != _OK:
            if members.get("error") == "use_dpop_nonce" and answer.nonce is not None and not last:
                return None
            raise _refusal(answer)
        value, life = members.get("access_token"), members.get("expires_in")
        if not isinstance(value, str) or not 0 < len(value) <= _jose.MAX_TOKEN_BYTES or not value.isascii():
            raise _nonsense(answer, "no access_token")
        if not isinstance(life, int) or isinstance(life, bool) or not 0 < life <= _MAX_TOKEN_LIFE_S:
            raise _nonsense(answer, "no usable expires_in")
        if str(members.get("token_type")).lower() != "dpop":
            raise _nonsense(answer, "the token is not bound to the key (token_type is not DPoP)")
        return Exchanged(AccessToken(value, now + life, self.dpop.jkt), answer.nonce)


def exchange_sync(client: httpx.Client, request: TokenRequest, *, nonce: str | None = None) -> Exchanged:
    """Get an access token.

    Raises:
        AuthenticationFailed: the broker does not accept the workload; `code` is OAuth's.
        BrokerUnavailable: no answer, or one that says "not now".
        BrokerError: an answer that is none.
    """
    for attempt in range(_TRIES):
        now = time.time()
        built = client.build_request("POST", request.url, data=request.form(now), headers=request.headers(nonce, now))
        answer = _http.send(client, built)
        done = request.read(answer, now, last=attempt == _TRIES - 1)
        if done is not None:
            return done
        nonce = answer.nonce
    raise AssertionError("unreachable: the last try answers or raises")


async def exchange(client: httpx.AsyncClient, request: TokenRequest, *, nonce: str | None = None) -> Exchanged:
    """The async twin of `exchange_sync`."""
    for attempt in range(_TRIES):
        now = time.time()
        built = client.build_request("POST", request.url, data=request.form(now), headers=request.headers(nonce, now))
        answer = await _http.asend(client, built)
        done = request.read(answer, now, last=attempt == _TRIES - 1)
        if done is not None:
            return done
        nonce = answer.nonce
    raise AssertionError("unreachable: the last try answers or raises")


def _refusal(answer: _http.Answer) -> BrokerError:
    members = answer.members()
    said = {name: members.get(name) for name in ("error", "error_description")}
    code = said["error"] if isinstance(said["error"], str) else None
    detail = said["error_description"] if isinstance(said["error_description"], str) else ""
    if answer.status >= _SERVER_ERROR or answer.status == _TOO_MANY:
        return BrokerUnavailable(
            code=code or "broker_unavailable", status=answer.status, detail=detail[:500], retry_after=answer.retry_after
        )
    if answer.status >= _CLIENT_ERROR and code is not None:
        return AuthenticationFailed(code=code[:100], status=answer.status, detail=detail[:500])
    return _nonsense(answer, "neither a token nor an OAuth error")


def _nonsense(answer: _http.Answer, what: str) -> BrokerError:
    return BrokerError(code="unexpected_answer", status=answer.status, detail=f"the token endpoint sent {what}")
