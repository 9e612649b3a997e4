"""The values of a trust file, each with what it must be. A `ValueError` completes the sentence "<key> …"."""

from __future__ import annotations

import re
from typing import Any, Final

from stepgrant._http import safe_url
from stepgrant.errors import ConfigurationError
from stepgrant_broker.domain.ids import NAME, TENANT
from stepgrant_broker.identity.kubernetes import LABEL
from stepgrant_broker.identity.spiffe_jwt import PATH, TRUST_DOMAIN
from stepgrant_broker.identity.trust import Scalar

RESERVED: Final = frozenset(
    {
        "issuer", "name", "namespace", "node", "pod", "pod_uid", "service_account", "service_account_uid", "spiffe_id",
        "workload",
    }
)  # fmt: skip
"""Attributes that the broker itself sets."""

MAX_TEXT_CHARS: Final = 500
MAX_ITEMS: Final = 100
MIN_LIFETIME_S: Final = 60
MAX_LIFETIME_S: Final = 86_400
_ISSUER_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_ATTRIBUTE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_CLAIM_CHARS: Final = 200


def text(value: Any) -> str:  # noqa: ANN401 - what TOML held
    """Printable text."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT_CHARS or not value.isprintable():
        raise ValueError(f"must be text of 1 to {MAX_TEXT_CHARS} printable characters")
    return value


def boolean(value: Any) -> bool:  # noqa: ANN401 - as above
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError("must be true or false, without quotes")  # noqa: TRY004 - the reader collects ValueErrors
    return value


def lifetime(value: Any) -> int:  # noqa: ANN401 - as above
    """Seconds that a token may live."""
    if not isinstance(value, int) or isinstance(value, bool) or not MIN_LIFETIME_S <= value <= MAX_LIFETIME_S:
        raise ValueError(f"must be {MIN_LIFETIME_S} to {MAX_LIFETIME_S} seconds")
    return value


def _list(value: Any) -> list[Any]:  # noqa: ANN401 - as above
    if not isinstance(value, list) or len(value) > MAX_ITEMS:
        raise ValueError(f"must be a list of at most {MAX_ITEMS}")
    return value


def texts(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - as above
    """A list of texts."""
    return tuple(text(item) for item in _list(value))


def tables(value: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - as above
    """An array of tables."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError("must be tables, written as [[…]]")
    return value


def issuer_name(value: Any) -> str:  # noqa: ANN401 - as above
    """A short name."""
    return _like(value, _ISSUER_NAME, "must be 1 to 63 of a-z 0-9 and -, and begin with a letter or digit")


def tenant(value: Any) -> str:  # noqa: ANN401 - as above
    """A tenant."""
    return _like(value, TENANT, "must be 1 to 63 of a-z 0-9 and -, and begin with a letter or digit")


def name(value: Any) -> str:  # noqa: ANN401 - as above
    """A workload or agent."""
    return _like(value, NAME, "must be letters, digits and . _ / : @ -")


def agents(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - as above
    """Agent names."""
    return tuple(name(item) for item in _list(value))


def label(value: Any) -> str:  # noqa: ANN401 - as above
    """A name of Kubernetes."""
    return _like(value, LABEL, "must be a name of Kubernetes")


def label_pattern(value: Any) -> str:  # noqa: ANN401 - as above
    """A name of Kubernetes, or `*` for any."""
    return "*" if value == "*" else _like(value, LABEL, 'must be a name of Kubernetes, or "*"')


def trust_domain(value: Any) -> str:  # noqa: ANN401 - as above
    """A SPIFFE trust domain, without the scheme."""
    return _like(value, TRUST_DOMAIN, "must be like prod.example: lower case, without spiffe:// and path")


def spiffe_path(value: Any) -> str:  # noqa: ANN401 - as above
    """The path of a SPIFFE ID, perhaps with a last segment `*`."""
    given = text(value)
    fixed = given.removesuffix("/*")
    if (fixed and not PATH.fullmatch(fixed)) or not given.startswith("/"):
        raise ValueError("must be like /agents/refunds or /agents/*: `*` alone, as the last segment")
    return given


def path_pattern(value: Any) -> str:  # noqa: ANN401 - as above
    """Exact text, or one that ends in `/*`."""
    given = text(value)
    if "*" in given.removesuffix("/*"):
        raise ValueError("has a `*` that is not its whole last segment; write /* at the end, or none")
    return given


def claims(value: Any) -> dict[str, Scalar]:  # noqa: ANN401 - as above
    """A table of claims with patterns or values."""
    if not isinstance(value, dict) or len(value) > MAX_ITEMS:
        raise ValueError('must be a table, like { repository_id = "42" }')
    found: dict[str, Scalar] = {}
    for claim, pattern in value.items():
        if not 0 < len(claim) <= _CLAIM_CHARS:
            raise ValueError(f"has a claim name of 0 or over {_CLAIM_CHARS} characters")
        if isinstance(pattern, str):
            found[claim] = path_pattern(pattern)
        elif isinstance(pattern, (bool, int)):
            found[claim] = pattern
        else:
            raise ValueError(  # noqa: TRY004 - as in `boolean`
                f"has {claim!r} that is neither text, nor a whole number, nor true or false"
            )
    return found


def attributes(value: Any) -> dict[str, str]:  # noqa: ANN401 - as above
    """Constants for policy."""
    if not isinstance(value, dict) or len(value) > MAX_ITEMS or not all(map(_ATTRIBUTE.fullmatch, value)):
        raise ValueError('must be a table of names and texts, like { team = "payments" }')
    return {attribute: text(item) for attribute, item in value.items()}


def passed_claims(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - as above
    """Names of claims for policy."""
    return tuple(_like(item, _ATTRIBUTE, "must be names of letters, digits and _") for item in _list(value))


def address(value: Any) -> str:  # noqa: ANN401 - as above
    """Where keys may come from."""
    try:
        return safe_url(text(value))
    except ConfigurationError:
        raise ValueError("must be an https URL without user, or http on loopback") from None


def _like(value: Any, pattern: re.Pattern[str], otherwise: str) -> str:  # noqa: ANN401 - as above
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(otherwise)
    return value
