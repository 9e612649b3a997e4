"""The credential of one step, as the tool sees it: usable only in its step, for its origins, while it lives.

Rules:
* It is given to the tool and to nobody else: masked, not comparable, neither picklable nor copyable, wiped at the end.
* A token of ours goes out with a proof for exactly one method and URL, so a plain header dictionary cannot exist before
  the request is known.
* Origins: those of the grant (`hosts`, else its audience, if that is a URL). A host without a scheme means https; plain
  http only on loopback. No origin in the grant means no origin at all.
* How long it lives is counted from before it was asked for, by this machine's monotonic clock: clocks that differ or
  jump cannot lengthen it.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import urlsplit

from stepgrant import _clock
from stepgrant._dpop import DpopKey, normal_url
from stepgrant._errors import CredentialMisuse
from stepgrant._secrets import LIVE, not_secret

if TYPE_CHECKING:
    import os
    from ssl import SSLContext

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from stepgrant._outcomes import Run
    from stepgrant._own_key import OwnKey

__all__ = ["Credential", "Inject"]

_PORTS: Final = {"http": 80, "https": 443}


class Inject:
    """Marks the parameter that gets the credential: `cred: Annotated[Credential, Inject]`. Callers never see it."""


class Credential:
    """The secret issued for one attempt of one step."""

    __slots__ = (
        "_alive",
        "_ended",
        "_fields",
        "_key",
        "_origins",
        "_own",
        "_until",
        "idempotency_key",
        "kind",
        "where",
    )

    def __init__(
        self,
        kind: str,
        fields: Mapping[str, str],
        *,
        where: Sequence[str],
        idempotency_key: str,
        until: float,
        key: DpopKey,
        alive: Callable[[], None],
        own: OwnKey | None = None,
    ) -> None:
        self.kind: Final = kind
        self.where: Final = tuple(where)
        self.idempotency_key: Final = idempotency_key
        self._fields = dict(fields)
        self._origins = tuple(_origin_of(one) for one in where)
        self._until = until
        self._key = key
        self._alive = alive
        self._own = own
        self._ended = False

    def headers(self, method: str, url: str, *, nonce: str | None = None) -> dict[str, str]:
        """The headers that authorize this one request.

        Args:
            method: as it will be sent.
            url: the absolute URL; its origin must be one of the grant's.
            nonce: the server's `DPoP-Nonce`, where it asked for one.

        Raises:
            CredentialMisuse: another origin, expired, outside its step, or a kind that is no header (see `field`).
            StaleEpoch: this process no longer holds the run.
        """
        self.check_origin(url)
        self._require_live()
        common = {"Idempotency-Key": self.idempotency_key}
        if self.kind == "static":
            return {self.field("header"): self.field("value"), **common}
        if self.kind != "jwt":
            raise CredentialMisuse(f"a credential of kind {self.kind} is no header; use its fields")
        token = self.field("token")
        proof = self._key.proof(method, url, token=token, nonce=nonce, now=_clock.now())
        return {"Authorization": f"DPoP {token}", "DPoP": proof, **common}

    def field(self, name: str) -> str:
        """One field: `token`; `value` and `header`; `username`, `password`, ... Raises as `headers`."""
        self._require_live()
        if name not in self._fields:
            raise CredentialMisuse(f"this credential has no field {name!r}; it has {', '.join(sorted(self._fields))}")
        return self._fields[name]

    @property
    def private_key(self) -> EllipticCurvePrivateKey:
        """The key that `field("certificate")` is for, made in this process for this attempt. Raises as `headers`."""
        return self._require_own().private

    def ssl_context(self, url: str, *, cafile: str | os.PathLike[str] | None = None) -> SSLContext:
        """A TLS client context that shows this certificate and checks the server's.

        Args:
            url: where it will be used; its origin must be one of the grant's.
            cafile: the CAs that may have signed the server's certificate; by default the system's.

        Raises as `headers`.
        """
        self.check_origin(url)
        certificates = f"{self.field('certificate')}\n{self.field('ca_chain')}\n"
        return self._require_own().client_context(certificates, cafile)

    def check_origin(self, url: str) -> None:
        """Raises `CredentialMisuse` unless the URL's origin is one of the grant's."""
        try:
            parts = urlsplit(normal_url(url))
        except ValueError as error:
            raise CredentialMisuse(f"not a URL that a credential may go to: {error}") from None
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        if not any(_matches(one, parts.scheme, host, port) for one in self._origins):
            allowed = ", ".join(self.where) or "no origin: let policy name an audience for this tool"
            raise CredentialMisuse(f"{parts.scheme}://{parts.netloc} is outside this grant, which is for {allowed}")

    def _require_own(self) -> OwnKey:
        self._require_live()
        if self._own is None:
            raise CredentialMisuse("no key was made for this step; declare its tool with certificate=True")
        return self._own

    def _require_live(self) -> None:
        if self._ended:
            raise CredentialMisuse("this credential's step is over; it is good for nothing else")
        if time.monotonic() >= self._until:
            raise CredentialMisuse("this credential has expired; call the tool again for a fresh one")
        self._alive()

    def __repr__(self) -> str:
        return f"Credential({self.kind}, {', '.join(self.where) or 'no origin'}, <masked>)"

    def __getstate__(self) -> NoReturn:
        # What pickle, copy and deepcopy ask for.
        raise TypeError("a credential can be neither pickled nor copied")


def receive(
    run: Run, *, asked_at: float, key: DpopKey, alive: Callable[[], None], own: OwnKey | None = None
) -> Credential:
    """Take the credential out of the broker's answer; from here on its secrets are known as live."""
    grant, issued = run.grant, run.credential
    until = asked_at + (grant.expires_at - grant.issued_at) / 1000
    # What nobody can revoke stays a secret after its grant.
    LIVE.add(_secret_values(issued.kind, issued.fields), until=math.inf if issued.revocation == "none" else until)
    if own is not None:
        LIVE.add(own.texts(), until=until)
    return Credential(
        issued.kind,
        issued.fields,
        where=issued.hosts or [grant.audience],
        idempotency_key=grant.idempotency_key,
        until=until,
        key=key,
        alive=alive,
        own=own,
    )


def end(credential: Credential) -> list[str]:
    """Its step is over: wipe it. The secrets that it held stay live until whoever calls this forgets them."""
    fields, credential._fields, credential._ended = credential._fields, {}, True  # noqa: SLF001  # same module
    credential._own = None  # noqa: SLF001  # as above
    return _secret_values(credential.kind, fields)


def _secret_values(kind: str, fields: Mapping[str, str]) -> list[str]:
    return [value for name, value in fields.items() if name not in not_secret(kind)]


_Origin = tuple[str | None, str, int | None]


def _origin_of(text: str) -> _Origin | None:
    """Scheme, host, port of a location or host; None for what names no origin (`urn:…`)."""
    if "://" in text:
        try:
            parts = urlsplit(normal_url(text))
        except ValueError:
            return None
        return parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme]
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host or parts.path or parts.query or parts.fragment or "@" in text or text.startswith("urn:"):
        return None
    return None, host, port


def _matches(origin: _Origin | None, scheme: str, host: str, port: int) -> bool:
    if origin is None or origin[1] != host:
        return False
    if origin[0] is not None:
        return origin[0] == scheme and origin[2] == port
    if scheme != "https" and not _is_loopback(host):
        return False
    return port == (origin[2] or _PORTS[scheme])


def _is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
