"""Signed compact tokens (RFC 7515, RFC 7519), with the one strict reader that every token of ours goes through.

`_keys` does the signatures. PyJWT's `decode` is not used, because

* it reads JSON leniently (of two equal members the last one counts) and base64url with padding, so that two readers, or
  two texts of one token, can disagree on what was signed;
* it knows no key inside a header, which is what a DPoP proof is about;
* it prepares the key again for every token (hot path: 170 us against 90 us).

Rules: a header with `crit` is refused, for no extension is understood here; `jku`, `x5u`, `x5c` and `kid` never load
anything. Failures are `JoseError` with a stable `reason`; each face turns it into its own error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

import msgspec

from stepgrant._keys import JoseError, VerifyingKey
from stepgrant.canonical import CanonicalError, JsonValue, b64u, b64u_decode, dumps, loads

MAX_TOKEN_BYTES: Final = 16_384
MAX_HEADER_CHARS: Final = 1024
_PARTS: Final = 3


class Jws(msgspec.Struct, frozen=True):
    """A parsed, not yet verified, compact JWS. `header` is checked for form and `crit` only, and alone is shown."""

    header: Mapping[str, JsonValue]
    header_segment: str
    signing_input: bytes
    payload: bytes
    signature: bytes

    def __repr__(self) -> str:
        return f"Jws(header={self.header!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("header", self.header)]

    def verified_claims(self, key: VerifyingKey) -> dict[str, JsonValue]:
        """The claims, if the token is signed by `key` under the algorithm of `key`. Raises `JoseError`."""
        if self.header.get("alg") != key.alg:
            # The token never chooses: an `alg` other than the key's own is alg=none, or RS/HS confusion.
            raise JoseError("bad_algorithm", "the token's alg is not the one of the key")
        key.verify(self.signing_input, self.signature)
        return self.unverified_claims()

    def unverified_claims(self) -> dict[str, JsonValue]:
        """The claims before any check; good only to look up the key that they are then verified with."""
        return _read_object(self.payload, "claims")


def parse(token: str) -> Jws:
    """Take a compact JWS apart, strictly: three parts, canonical base64url, JSON without two readings, no `crit`."""
    if len(token) > MAX_TOKEN_BYTES:
        raise JoseError("too_large", f"a token of more than {MAX_TOKEN_BYTES} characters")
    parts = token.split(".")
    if len(parts) != _PARTS or not all(parts):
        raise JoseError("malformed", "not three base64url parts with dots between")
    header_segment, payload_segment, signature_segment = parts
    header = parse_header(header_segment)
    payload, signature = _decode(payload_segment), _decode(signature_segment)
    signing_input = token[: -len(signature_segment) - 1].encode("ascii")
    return Jws(header, header_segment, signing_input, payload, signature)


@lru_cache(maxsize=1024)
def parse_header(segment: str) -> Mapping[str, JsonValue]:
    """Read a JOSE header; refuse what no token of ours may have.

    Remembered by its exact text (bounded): all tokens by one key have the same header. The result is read-only.
    """
    if len(segment) > MAX_HEADER_CHARS:
        raise JoseError("too_large", f"a header of more than {MAX_HEADER_CHARS} characters")
    header = _read_object(_decode(segment), "header")
    if not isinstance(header.get("alg"), str):
        raise JoseError("malformed", "the header has no alg")
    if "crit" in header:
        raise JoseError("unknown_critical", "the header demands an extension; none is understood here")
    return MappingProxyType(header)


def check_type(header: Mapping[str, JsonValue], expected: str, *, required: bool = True) -> None:
    """Refuse a token of another kind (RFC 8725 §3.11): a proof is no grant, a grant no identity."""
    typ = header.get("typ")
    if typ is None and not required:
        return
    if not isinstance(typ, str) or typ.lower().removeprefix("application/") != expected:
        raise JoseError("wrong_type", f"typ is not {expected}")


def check_times(claims: Mapping[str, JsonValue], *, now_s: float, leeway_s: float, max_lifetime_s: float) -> int:
    """Check `exp` and `iat` (required) and `nbf` (if there) and the lifetime; returns `exp` in seconds."""
    exp, iat = _date(claims, "exp"), _date(claims, "iat")
    nbf = _date(claims, "nbf") if "nbf" in claims else iat
    if exp <= now_s - leeway_s:
        raise JoseError("expired", "exp is past")
    if max(nbf, iat) > now_s + leeway_s:
        raise JoseError("not_yet_valid", "nbf or iat is in the future")
    if exp - iat > max_lifetime_s or exp < iat:
        raise JoseError("lifetime", f"exp is not within {max_lifetime_s:g} s after iat")
    return exp


def encode_segment(value: Mapping[str, JsonValue]) -> str:
    """A header or claims as a base64url segment."""
    return b64u(dumps(value))


def sign_compact(header_segment: str, claims: Mapping[str, JsonValue], sign: Callable[[bytes], bytes]) -> str:
    """A compact JWS over the claims."""
    signing_input = f"{header_segment}.{encode_segment(claims)}"
    return f"{signing_input}.{b64u(sign(signing_input.encode('ascii')))}"


def _decode(segment: str) -> bytes:
    try:
        return b64u_decode(segment)
    except CanonicalError:
        raise JoseError("malformed", "not base64url in its one form") from None


def _read_object(data: bytes, name: str) -> dict[str, JsonValue]:
    try:
        value = loads(data, max_bytes=MAX_TOKEN_BYTES)
    except CanonicalError as error:
        raise JoseError("malformed", f"the {name} are not strict JSON ({error.code})") from None
    if not isinstance(value, dict):
        raise JoseError("malformed", f"the {name} are not a JSON object")
    return value


def _date(claims: Mapping[str, JsonValue], name: str) -> int:
    value = claims.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise JoseError("malformed", f"{name} is not a time in whole seconds")
    return value
