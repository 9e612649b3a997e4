"""What an answer of Vault means: its JSON object, or a fault.

Rules:
* JSON without repeated names and without NaN: what one parser reads, every parser reads.
* Vault answers 403 for a dead token and for a missing capability alike, so the text names both.
* 5xx may have happened: Vault may have done its work and failed afterwards. So may 400, which revocation answers when
  the database refused.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, Final, NoReturn

from stepgrant_broker.vault.faults import (
    VaultBad,
    VaultDenied,
    VaultFault,
    VaultMissing,
    VaultSealed,
    VaultUnavailable,
    trimmed,
)

REDIRECTS: Final = 3
REFUSALS: Final = 4
BUSY: Final = frozenset({412, 429, 472, 473})
CAPABILITY: Final = {"GET": "read", "LIST": "list", "POST": "update", "PUT": "update", "DELETE": "delete"}


def answer_of(method: str, path: str, status: int, text: bytes) -> dict[str, Any] | VaultFault:
    """The JSON object of an answer (`{}` for an empty one), or the fault that it means."""
    named = f"{method} {path}"
    if status == HTTPStatus.NO_CONTENT or (status == HTTPStatus.OK and not text):
        return {}
    answer = _object(text)
    if status == HTTPStatus.OK:
        return answer if answer is not None else VaultBad(f"Vault's answer to {named} is no JSON", maybe=True)
    return _described(_fault(method, path, status, _errors(answer)), answer)


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text, object_pairs_hook=_unrepeated, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name is repeated")
    return made


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _described(fault: VaultFault, answer: dict[str, Any] | None) -> VaultFault:
    data = (answer or {}).get("data")
    metadata = data.get("metadata") if isinstance(data, dict) else None
    if isinstance(fault, VaultMissing) and isinstance(metadata, dict):
        fault.metadata = metadata
    return fault


def _errors(answer: dict[str, Any] | None) -> str:
    errors = (answer or {}).get("errors")
    return "; ".join(str(one) for one in errors) if isinstance(errors, list) else ""


def _fault(method: str, path: str, status: int, errors: str) -> VaultFault:
    said, named = trimmed(errors), f"{method} {path}"
    if status == HTTPStatus.FORBIDDEN:
        capability = CAPABILITY.get(method, "update")
        text = f"Vault denied {named}: the token is dead, or its policy lacks {capability!r} on {path}"
        return VaultDenied(text, said=said, status=status)
    if status == HTTPStatus.NOT_FOUND or (status == HTTPStatus.BAD_REQUEST and "unknown role" in errors.lower()):
        return VaultMissing(f"Vault has nothing at {path}: check mount and name", said=said, status=status)
    if status // 100 == REDIRECTS:
        return VaultUnavailable(
            f"Vault at the configured address redirects {named} (a standby?); vault_addr must name one that "
            "answers itself",
            status=status,
        )
    sealed = status == HTTPStatus.SERVICE_UNAVAILABLE and "sealed" in errors.lower()
    if sealed or status == HTTPStatus.NOT_IMPLEMENTED:
        return VaultSealed("Vault is sealed or not initialised; unseal it", said=said, status=status)
    if status in BUSY:
        return VaultUnavailable(f"Vault does not serve {named} now ({status})", said=said, status=status)
    if status // 100 == REFUSALS:
        return VaultBad(f"Vault refused {named} ({status})", maybe=True, said=said, status=status)
    return VaultUnavailable(f"Vault failed at {named} ({status})", maybe=True, said=said, status=status)
