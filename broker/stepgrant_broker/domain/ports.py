"""The ports: what the use cases need from the world, as Protocols (`architecture.md` §4).

Rules:
* Every port has one conformance suite, run over all its adapters (`tests/conformance`).
* A port answers with domain values or raises a domain error; no adapter's exception passes through.
* Time and randomness are ports too, so that the domain stays pure and tests can bend the clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from stepgrant_broker.domain.decisions import Json
    from stepgrant_broker.domain.keys import KeyEpoch
    from stepgrant_broker.domain.writes import (
        Loaded,
        Query,
        Workload,
        WriteSet,
    )


class Evaluation(Struct, frozen=True):
    """A policy engine's raw answer: `raw` is JSON bytes, or `None` when the query was undefined."""

    raw: bytes | None
    revision: str
    decision_id: str
    engine: str


class PolicyEngine(Protocol):
    """Evaluates `data.stepgrant.decision`. `policy/contract.py` parses and closes, for all engines alike."""

    async def evaluate(self, policy_input: bytes) -> Evaluation:
        """Evaluate for this input (JSON bytes). Raises `PolicyUnavailable` on error, time-out or overload."""

    async def close(self) -> None:
        """Release threads and connections."""


class Revocation(StrEnum):
    """What an issuer can promise about the death of its credentials (`protocol.md` §4)."""

    CONFIRMED = "confirmed"
    EXPIRY = "expiry"
    NONE = "none"


REVOCATIONS: Final[Mapping[str, Revocation]] = {one.value: one for one in Revocation}


class GrantOrder(Struct, frozen=True):
    """All that an issuer is told about the grant it mints for. Times in milliseconds since the epoch."""

    tenant: str
    run: str
    step: str
    attempt: int
    epoch: int
    jti: str
    subject: str
    client_id: str
    instance: str
    jkt: str
    audience: str
    tool: str
    resource: str | None
    args_digest: str
    effect: str
    idempotency_key: str
    redeem: str
    issued_at: int
    expires_at: int
    policy_revision: str
    decision_id: str
    approval_id: str | None
    principal: str | None
    params: Mapping[str, Json]
    csr: str | None = None
    """A certificate request in PEM over a key that the agent made, signed by that key; for issuers of certificates."""


@dataclass(frozen=True, slots=True, repr=False)
class Minted:
    """A credential on its way to the holder. `fields` are secret; `lease` names it at its issuer."""

    kind: str
    fields: Mapping[str, str]
    expires_at: int
    hosts: tuple[str, ...] = ()
    lease: str | None = None

    def __repr__(self) -> str:
        """Masked: the fields are the secret."""
        return f"Minted(kind={self.kind!r}, fields=<{len(self.fields)} masked>, expires_at={self.expires_at})"

    def __reduce__(self) -> tuple[object, ...]:
        """Refuse pickling: a credential never rests."""
        msg = "a minted credential cannot be pickled"
        raise TypeError(msg)


class Issuer(Protocol):
    """Makes and revokes credentials. An `outside` issuer has side effects at mint, so its intent is committed first."""

    name: str
    revocation: Revocation
    outside: bool
    max_ttl_s: int
    tokens_of_ours: bool
    """True when the credential is a token of the broker, which a resource server can redeem."""

    async def intend(self, order: GrantOrder) -> str | None:
        """Prepare a mint and return its handle, or `None` for an issuer without outside effects."""

    async def mint(self, order: GrantOrder, handle: str | None) -> Minted:
        """Mint under the handle. Raises `IssuerUnavailable` or `IssuerRefused`."""

    def check(self, order: GrantOrder, minted: Minted) -> None:
        """Refuse what is wider or longer than ordered. Raises `IssuerRefused`."""

    async def revoke(self, *, tenant: str, jti: str, handle: str | None, lease: str | None, now: int) -> bool:
        """Revoke; True only when death is confirmed. `now`: the store's clock (ms), as all times of grants."""


class Signature(Struct, frozen=True):
    """A raw signature (ES256: 64 bytes r||s, EdDSA: 64 bytes) with the key that made it."""

    kid: str
    alg: str
    value: bytes


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key as it is published: `jwk` carries kty, use, alg and kid."""

    kid: str
    alg: str
    jwk: Mapping[str, str]


class Signer(Protocol):
    """Signs for a purpose: `grants` and `access` (ES256), `heads` (Ed25519)."""

    async def sign(self, purpose: str, data: bytes) -> Signature:
        """Sign the bytes. Raises `SignerUnavailable`."""

    async def public_keys(self, purpose: str) -> tuple[PublicKey, ...]:
        """The keys that verify this purpose; the first is the one that signs, the others stand newest first."""


class SigningKeys(Signer, Protocol):
    """A signer whose keys change while it runs."""

    async def sign_all(self, purpose: str, data: bytes) -> tuple[Signature, ...]:
        """Sign with the key of now, and with older ones in their overlap, so that who knows only those can follow.

        Raises `SignerUnavailable`.
        """

    async def epochs(self, purpose: str) -> tuple[KeyEpoch, ...]:
        """The keys where they rest, newest first, looked at again when it is time. Raises `SignerUnavailable`."""

    def withdraw(self, kids: Collection[str]) -> None:
        """From now on these keys, and of withdrawn ones only these, neither sign nor are they published."""


class Wrapped(Struct, frozen=True):
    """A small secret, encrypted at rest (AES-256-GCM)."""

    key_id: str
    nonce: bytes
    ciphertext: bytes


class KeyWrap(Protocol):
    """Wraps run keys and static secrets for rest."""

    @property
    def key_id(self) -> str:
        """The key that wraps now; older ones only unwrap."""

    def wrap(self, plain: bytes, aad: bytes) -> Wrapped:
        """Encrypt, bound to `aad`."""

    def unwrap(self, wrapped: Wrapped, aad: bytes) -> bytes:
        """Decrypt. Raises `WrapError` when key, nonce, bytes or `aad` are not those of `wrap`."""

    async def refresh(self) -> None:
        """Take up keys that were made since. Raises `SignerUnavailable`; what was known goes on being used."""


class Clock(Protocol):
    """The time of this process."""

    def now(self) -> int:
        """Milliseconds since the epoch."""


class Ids(Protocol):
    """Randomness and identifiers."""

    def ulid(self, now: int) -> str:
        """A fresh ULID for this time, in lower-case Crockford base 32."""

    def random(self, size: int) -> bytes:
        """`size` bytes from the system's CSPRNG."""


class Failpoints(Protocol):
    """The seam where tests crash, delay or break. Without one (`None`) it costs an attribute test at each place."""

    def hit(self, point: str) -> None:
        """Called at a named place."""


class Store(Protocol):
    """Rows and entries. Reads are `load`; every change is one `WriteSet`, applied whole or not at all."""

    async def load(self, query: Query) -> Loaded:
        """Read what the query names, in one consistent view, with the store's own clock."""

    def recall(self, query: Query) -> Loaded | None:
        """What `load` would give as far as this process knows, at once; `None` where it does not know.

        Others may have written meanwhile. A commit on it that compares the chain and the guard is safe; nobody may be
        refused by it.
        """

    async def commit(self, writes: WriteSet) -> None:
        """Apply durably, or raise and leave nothing behind.

        Raises `VersionMoved`, `GuardMoved`, `ProofReplayed`, `AnswerTaken`, `StoreUnavailable`, `FateUnknown`.
        """

    async def close(self) -> None:
        """Flush and stop."""


@dataclass(frozen=True, slots=True)
class SecretRecord:
    """A static secret at rest: wrapped, with the hosts it may be sent to."""

    tenant: str
    name: str
    hosts: tuple[str, ...]
    header: str
    wrapped: Wrapped = field(repr=False)
    set_at: int = 0
    removed_at: int | None = None


class SecretSource(Protocol):
    """Where the `static` issuer finds secrets that people already have."""

    async def secret(self, tenant: str, name: str) -> SecretRecord | None:
        """The named secret of the tenant, or `None`."""


@dataclass(frozen=True, slots=True)
class Attested:
    """What an identity token proved. Times in milliseconds since the epoch; nothing in it comes from the request.

    `workload` has tenant, id and name, and the agents and audiences it may claim. `subject` is unique in the tenant.
    `evidence` is the digest of the token, which itself is kept nowhere. `not_after` ends what is based on it (`None`:
    the identity lasts until it is taken away). `replay` is an id to be refused from now until `dead_at`; `None` where
    the method uses one token many times. `jkt` is the only key that it may be exchanged for, where the token names one.
    """

    workload: Workload
    subject: str
    method: str
    trust_domain: str
    attributes: Mapping[str, str]
    evidence: str
    not_after: int | None
    dead_at: int
    replay: str | None = None
    jkt: str | None = None


class Identity(Protocol):
    """Proves by a token which workload calls; one adapter for each method and issuer."""

    async def attest(self, token: str, now: int) -> Attested:
        """Verify the token at this time. Raises `InvalidToken`, or `Unavailable` when its keys are out of reach."""
