"""The live secrets of this process, and whether a text contains one (`architecture.md` §2, promise 9).

Rules:
* Every credential that is released here is known until it is dead. A token that must be redeemed dies with its step,
  another one when it expires; a static secret outlives its grant, so it stays known for the life of the process.
* Looked for as it is, as JSON escapes it, percent-encoded, in hex, and in base64 at each of the three places where it
  can begin in a longer text. What is split or encrypted is not found: this is a tripwire, not a proof.
* No minimum length: a short secret can only make too much be withheld.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn
from urllib.parse import quote, quote_plus

_NAMES: Final = frozenset({"header", "username"})
_NOT_SECRET: Final[Mapping[str, frozenset[str]]] = {
    "login": frozenset({"username", "host", "port", "database"}),
    # Somebody else's names: any of them may be the secret.
    "vault-kv": frozenset(),
    "vault-pki": frozenset({"certificate", "ca_chain", "serial_number"}),
}


def not_secret(kind: str) -> frozenset[str]:
    """The fields of a credential of this kind that its holder may show."""
    return _NOT_SECRET.get(kind, _NAMES)


_MASK: Final = "[secret]"


@dataclass(slots=True)
class _Known:
    value: str
    shortest: int
    until: float
    needles: tuple[bytes, ...] = ()

    def inside(self, data: bytes) -> bool:
        """No form is shorter than the secret itself, so most results are too short for most tokens."""
        if len(data) < self.shortest:
            return False
        self.needles = self.needles or _needles(self.value)
        return any(needle in data for needle in self.needles)

    def __repr__(self) -> str:
        return "_Known(<masked>)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret can be neither pickled nor copied")


class LiveSecrets:
    """A set of secrets with the time until which each counts. Thread-safe."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Known] = {}
        self._lock = threading.Lock()

    def add(self, values: Iterable[str], *, until: float) -> None:
        """Know these from now on, until `until` (`time.monotonic()`; `math.inf`: for ever)."""
        now = time.monotonic()
        with self._lock:
            for secret in [secret for secret, known in self._known.items() if known.until <= now]:
                del self._known[secret]
            for value in values:
                secret = value.encode("utf-8", "surrogatepass")
                if not secret:
                    continue
                known = self._known.setdefault(secret, _Known(value, len(secret), until))
                known.until = max(known.until, until)

    def forget(self, values: Iterable[str]) -> None:
        """These are dead."""
        with self._lock:
            for value in values:
                self._known.pop(value.encode("utf-8", "surrogatepass"), None)

    def found_in(self, data: bytes) -> bool:
        """Whether `data` contains a live secret in one of its forms."""
        now = time.monotonic()
        known = tuple(self._known.values())
        return any(one.inside(data) for one in known if one.until > now)

    def redacted(self, text: str) -> str:
        """`text` with every live secret masked; all of it if one is in there in some other form."""
        data = text.encode("utf-8", "surrogatepass")
        if not self.found_in(data):
            return text
        for secret in sorted(self._known, key=len, reverse=True):
            data = data.replace(secret, _MASK.encode())
        return _MASK if self.found_in(data) else data.decode("utf-8", "replace")

    def __repr__(self) -> str:
        return f"LiveSecrets({len(self._known)} known)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("secrets can be neither pickled nor copied")


LIVE: Final = LiveSecrets()
"""Those of this process."""


def _needles(value: str) -> tuple[bytes, ...]:
    raw = value.encode("utf-8", "surrogatepass")
    escaped = json.dumps(value, ensure_ascii=False)[1:-1]
    forms = {
        raw,
        escaped.encode("utf-8", "surrogatepass"),
        json.dumps(escaped, ensure_ascii=False)[1:-1].encode("utf-8", "surrogatepass"),
        json.dumps(value)[1:-1].encode("ascii"),
        quote(raw, safe="").encode("ascii"),
        quote_plus(raw, safe="").encode("ascii"),
        raw.hex().encode("ascii"),
        raw.hex().upper().encode("ascii"),
    }
    for skipped in range(3):
        text = _inside(raw, skipped)
        forms.update((text, text.replace(b"+", b"-").replace(b"/", b"_")))
    return tuple(sorted(form for form in forms if form))


def _inside(raw: bytes, skipped: int) -> bytes:
    """The base64 characters that depend on `raw` alone, when `skipped` bytes stand before it in the last group."""
    encoded = base64.b64encode(b"\0" * skipped + raw).rstrip(b"=")
    first = (0, 2, 3)[skipped]
    whole = (skipped + len(raw)) * 8 // 6
    return encoded[first:whole]
