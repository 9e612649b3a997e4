"""DPoP (RFC 9449): the holder's key and its proofs, and their verification.

Rules:

* `DpopKey` never leaves the process that made it: no pickle, no copy, no export, and a fork's child drops it.
* `verify_proof` makes every check of RFC 9449 §4.3 that can be made from the proof and its request. Left to the caller:
  that there is exactly one `DPoP` header, that `jkt` is the one of the token, and that `jti` was not seen before (kept
  at least as long as the proof could be accepted).
* The expected URL is configuration plus path; a forwarded or `Host` header must never make it.
* The broker verifies a proof in every call, so the key of a header, which is the same text in all proofs of one holder,
  is read once and remembered by that exact text (bounded).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import time
import weakref
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NoReturn
from urllib.parse import urlsplit

import msgspec

from stepgrant import _jose
from stepgrant._errors import ConfigurationError, KeyLost
from stepgrant._keys import JoseError, SecretKey, VerifyingKey, verifying_key
from stepgrant._verification_errors import InvalidProof
from stepgrant.canonical import JsonValue, b64u

TYPE: Final = "dpop+jwt"
MAX_PROOF_CHARS: Final = 4096
MAX_URL_CHARS: Final = 2048
_JTI: Final = re.compile(r"[\x21-\x7e]{16,128}")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


# ------------------------------------------------------------------------------------------------------ the holder's


_live_keys: weakref.WeakSet[DpopKey] = weakref.WeakSet()


def _drop_after_fork() -> None:
    for key in tuple(_live_keys):
        key._secret = None  # noqa: SLF001  # same module
    _live_keys.clear()


os.register_at_fork(after_in_child=_drop_after_fork)


class DpopKey:
    """A fresh ES256 key of one holder: made for one open or resume of a run, gone with its process."""

    def __init__(self) -> None:
        secret = SecretKey.generate("ES256")
        self._secret: SecretKey | None = secret
        self._public: Final = secret.public
        self._header: Final = _jose.encode_segment({"alg": "ES256", "jwk": secret.public.jwk, "typ": TYPE})
        _live_keys.add(self)

    @property
    def jkt(self) -> str:
        """The thumbprint (RFC 7638) that tokens are bound to."""
        return self._public.jkt

    @property
    def public_jwk(self) -> dict[str, str]:
        """The public key."""
        return self._public.jwk

    def proof(
        self,
        method: str,
        url: str,
        *,
        token: str | None = None,
        nonce: str | None = None,
        now: float | None = None,
        jti: str | None = None,
    ) -> str:
        """A proof for one request.

        Args:
            method: the HTTP method, as sent.
            url: the URL; query and fragment are left out of the proof.
            token: the access token that goes with the request, bound in as `ath`.
            nonce: the server's last `DPoP-Nonce`.
            now: seconds since the epoch; the system's clock by default.
            jti: for tests; 128 random bits by default.

        Raises:
            KeyLost: in a process forked from the one that made the key.
            ConfigurationError: `url` is not an absolute http(s) URL.
        """
        if self._secret is None:
            raise KeyLost("this holder's key was made in another process; open or resume the run in this one")
        try:
            htu = normal_url(url)
        except ValueError as error:
            raise ConfigurationError(f"no proof can be made for this URL: {error}") from None
        claims: dict[str, JsonValue] = {
            "htm": method,
            "htu": htu,
            "iat": int(time.time() if now is None else now),
            "jti": jti or b64u(secrets.token_bytes(16)),
        }
        if token is not None:
            claims["ath"] = token_hash(token)
        if nonce is not None:
            claims["nonce"] = nonce
        return _jose.sign_compact(self._header, claims, self._secret.sign)

    def __repr__(self) -> str:
        return f"DpopKey(jkt={self.jkt}, <masked>)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a holder's key can be neither pickled nor copied")


# ------------------------------------------------------------------------------------------------------ verification


class Proof(msgspec.Struct, frozen=True):
    """A verified proof: the key's thumbprint, the proof's own id, and when it says it was made (seconds)."""

    jkt: str
    jti: str
    iat: int


def verify_proof(
    proof: str,
    *,
    method: str,
    url: str,
    token: str | None,
    ath: str | None = None,
    now_s: float,
    max_age_s: float = 60,
    future_s: float = 5,
    check_nonce: Callable[[str | None], None] | None = None,
) -> Proof:
    """Every check of RFC 9449 §4.3 that the proof and its request allow.

    Args:
        proof: the value of the one `DPoP` header.
        method: the method of the request.
        url: the configured URL of the request; query and fragment do not count.
        token: the access token that came with it; None where there is none (at the token endpoint).
        ath: the token's `token_hash`, from whoever has made it already.
        now_s: seconds since the epoch.
        max_age_s: how old `iat` may be. With a nonce of limited life it may be as wide as that life.
        future_s: how far `iat` may be ahead.
        check_nonce: gets the proof's nonce or None and raises if it is not current; it is called last, so whoever gets
            its error holds the key. Without it a nonce is ignored.

    Raises:
        InvalidProof: `reason` says which check.
    """
    if len(proof) > MAX_PROOF_CHARS:
        raise InvalidProof(f"the proof is longer than {MAX_PROOF_CHARS} characters", reason="too_large")
    try:
        key, claims = _read(proof)
    except JoseError as error:
        raise InvalidProof(error.detail, reason=error.reason) from None
    jti = claims.get("jti")
    if not isinstance(jti, str) or _JTI.fullmatch(jti) is None:
        raise InvalidProof("jti is not a string of 16 to 128 visible characters", reason="bad_jti")
    if claims.get("htm") != method:
        raise InvalidProof("htm is not the method of this request", reason="wrong_method")
    if not _same_url(claims.get("htu"), url):
        raise InvalidProof("htu is not the URL of this request", reason="wrong_url")
    made_at = _check_time(claims.get("iat"), now_s - max_age_s, now_s + future_s)
    _check_token_hash(claims.get("ath"), None if token is None else ath or token_hash(token))
    if check_nonce is not None:
        nonce = claims.get("nonce")
        check_nonce(nonce if isinstance(nonce, str) else None)
    return Proof(key.jkt, jti, made_at)


def _read(proof: str) -> tuple[VerifyingKey, dict[str, JsonValue]]:
    jws = _jose.parse(proof)
    key = _header_key(jws.header_segment)
    return key, jws.verified_claims(key)


@lru_cache(maxsize=2048)
def _header_key(segment: str) -> VerifyingKey:
    header = _jose.parse_header(segment)
    _jose.check_type(header, TYPE)
    jwk = header.get("jwk")
    if not isinstance(jwk, dict):
        raise JoseError("bad_key", "the header has no jwk")
    return verifying_key(jwk)


def _check_time(iat: JsonValue, earliest: float, latest: float) -> int:
    if not isinstance(iat, int) or isinstance(iat, bool):
        raise InvalidProof("iat is not a time in whole seconds", reason="bad_iat")
    if iat < earliest:
        raise InvalidProof("iat is too long ago", reason="too_old")
    if iat > latest:
        raise InvalidProof("iat is in the future; check the clock", reason="from_the_future")
    return iat


def _check_token_hash(ath: JsonValue, expected: str | None) -> None:
    if expected is None:
        if ath is not None:
            raise InvalidProof("ath without an access token", reason="wrong_token_hash")
    elif not isinstance(ath, str) or not hmac.compare_digest(ath.encode(), expected.encode()):
        raise InvalidProof("ath is not the hash of the access token", reason="wrong_token_hash")


def token_hash(token: str) -> str:
    """`ath` (RFC 9449 §4.2): base64url of the SHA-256 of the token's ASCII text."""
    return b64u(hashlib.sha256(token.encode("ascii", "replace")).digest())


# --------------------------------------------------------------------------------------------------------------- URLs


def _same_url(htu: JsonValue, url: str) -> bool:
    if not isinstance(htu, str):
        return False
    if htu == url and "?" not in url and "#" not in url:
        return True
    try:
        return normal_url(htu) == normal_url(url)
    except ValueError:
        return False


@lru_cache(maxsize=1024)
def normal_url(url: str) -> str:
    """Scheme, host and path in one spelling (RFC 3986 §6.2.2, §6.2.3), without query and fragment.

    Case of scheme and host, default port, empty path, and percent-encoding are made equal; dot segments are left, so
    they match only themselves. Raises ValueError for what is not an absolute http(s) URL without user information.
    """
    if len(url) > MAX_URL_CHARS or not url.isascii() or not url.isprintable():
        raise ValueError("not a URL of a request: too long, or with characters that no URL has")
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if scheme not in _DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc or "\\" in url or " " in url:
        raise ValueError("not an absolute http or https URL")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = "" if parts.port in (None, _DEFAULT_PORTS[scheme]) else f":{parts.port}"
    return f"{scheme}://{host}{port}{_normal_path(parts.path)}"


def _normal_path(path: str) -> str:
    first, *rest = (path or "/").split("%")
    done = [first]
    for piece in rest:
        code, after = piece[:2], piece[2:]
        if re.fullmatch(r"[0-9A-Fa-f]{2}", code) is None:
            raise ValueError("a percent sign that encodes nothing")
        character = chr(int(code, 16))
        done.append((character if character in _UNRESERVED else f"%{code.upper()}") + after)
    return "".join(done)
