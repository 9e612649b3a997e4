"""`POST /oauth/token`: a workload's identity for an access token that is bound to its DPoP key (RFC 8693, RFC 9449).

Rules:
* The form is read strictly: its content type, each parameter once, nothing over a small size.
* The assertion must name the key of the proof that comes with it (`cnf.jkt`, RFC 7800). A copied assertion is then
  worth nothing with another key, on whatever replica; and each replica takes an assertion once in any case.
* Errors are OAuth's own JSON (RFC 6749 §5.2, RFC 9449 §5 and §8); what an identity lacks is `invalid_client`.
* Limits count per enrolled workload, after its signature was verified: nobody can use up another's.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias
from urllib.parse import parse_qsl

from stepgrant import _jose
from stepgrant._keys import JoseError
from stepgrant_broker.api import problems
from stepgrant_broker.api.access import AccessTokens, Attestation
from stepgrant_broker.api.auth import Proofs
from stepgrant_broker.api.limiting import Buckets
from stepgrant_broker.api.messages import FORM, Answer, ClientGoneError, Headers, Incoming, json_answer
from stepgrant_broker.domain.errors import (
    BudgetExhausted,
    InvalidProof,
    InvalidRequest,
    InvalidToken,
    StepgrantFault,
    Unauthenticated,
    Unavailable,
)
from stepgrant_broker.domain.writes import Workload
from stepgrant_broker.usecases.context import Ports

if TYPE_CHECKING:
    from stepgrant_broker.api.context import Api

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
TYPE_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
TYPE_ACCESS: Final = "urn:ietf:params:oauth:token-type:access_token"
FORM_MAX: Final = 32_768
FIELDS_MAX: Final = 32
FAR_FUTURE_MS: Final = 1 << 52


class Attested(Protocol):
    """What an identity adapter proved (`identity/`). Times in ms; no `not_after_ms`: the identity has no end."""

    @property
    def method(self) -> str:
        """How it was proven."""
        ...

    @property
    def trust_domain(self) -> str:
        """Who vouches for it."""
        ...

    @property
    def evidence_sha256(self) -> str:
        """The digest of the token that proved it."""
        ...

    @property
    def not_after_ms(self) -> int | None:
        """The identity's own end."""
        ...

    @property
    def jti(self) -> str:
        """The token's id, good for one exchange."""
        ...

    @property
    def assertion_dead_at_ms(self) -> int:
        """From when on the token is refused for its age alone."""
        ...


class Assertion(Protocol):
    """A parsed subject token that nothing is proven of."""

    @property
    def workload_id(self) -> str:
        """The enrolment that it names."""
        ...

    def attest(self, jwk: Mapping[str, str], *, issuer: str, now_ms: int) -> Attested:
        """Verify it with the enrolment's key. Raises `InvalidToken`."""
        ...


ReadAssertion: TypeAlias = Callable[[str], Assertion]


class OAuthFault(StepgrantFault):
    """A refusal with an error code of OAuth."""

    def __init__(self, error: str, detail: str) -> None:
        super().__init__(detail)
        self.error = error


class Exchange:
    """Exchanges subject tokens for access tokens."""

    def __init__(
        self, ports: Ports, tokens: AccessTokens, proofs: Proofs, read_assertion: ReadAssertion, buckets: Buckets
    ) -> None:
        self._ports = ports
        self._tokens = tokens
        self._proofs = proofs
        self._read = read_assertion
        self._buckets = buckets

    async def answer(self, incoming: Incoming) -> dict[str, object]:
        """The body of RFC 8693 §2.2.1. Raises `OAuthFault` and domain faults."""
        form = await read_form(incoming)
        subject_token = self._subject_token(form)
        proof = self._proofs.check(incoming, None)
        now = self._ports.clock.now()
        workload, attested = await self._attest(subject_token, now)
        _require_binding(subject_token, proof.jkt)
        wait_s = self._buckets.take(workload.id, now / 1000)
        if wait_s > 0:
            raise BudgetExhausted("too many exchanges by this workload", retry_after_ms=math.ceil(wait_s * 1000))
        use = self._proofs.use(proof)
        self._proofs.spend_here(use.id, use.expires_at, "DPoP proof")
        self._spend(workload, attested)
        seen = Attestation(
            tenant=workload.tenant,
            subject=f"workload:{workload.tenant}/{workload.name}",
            method=attested.method,
            trust_domain=attested.trust_domain,
            attributes={"name": workload.name, "workload": workload.id},
            evidence=attested.evidence_sha256,
            attested_at=now,
            not_after=attested.not_after_ms if attested.not_after_ms is not None else FAR_FUTURE_MS,
        )
        token, life_s = await self._tokens.make(seen, workload, proof.jkt)
        incoming.nonce = self._proofs.nonce()
        return {
            "access_token": token,
            "token_type": "DPoP",
            "issued_token_type": TYPE_ACCESS,
            "expires_in": life_s,
        }

    def _subject_token(self, form: Mapping[str, str]) -> str:
        if "grant_type" not in form:
            raise OAuthFault("invalid_request", "grant_type is missing")
        if form["grant_type"] != GRANT_TYPE:
            raise OAuthFault("unsupported_grant_type", f"grant_type is {GRANT_TYPE}")
        if form.get("requested_token_type", TYPE_ACCESS) != TYPE_ACCESS:
            raise OAuthFault("invalid_request", f"requested_token_type is {TYPE_ACCESS}")
        if form.get("subject_token_type") != TYPE_JWT:
            raise OAuthFault("invalid_request", f"subject_token_type is {TYPE_JWT}")
        if "actor_token" in form or "actor_token_type" in form:
            raise OAuthFault("invalid_request", "no actor token is taken: the workload acts for itself")
        for name in ("resource", "audience"):
            if form.get(name, self._ports.limits.issuer_url) != self._ports.limits.issuer_url:
                raise OAuthFault("invalid_target", f"{name}: access tokens are for this broker only")
        if "scope" in form:
            raise OAuthFault("invalid_scope", "there are no scopes: policy decides each action")
        if "subject_token" not in form:
            raise OAuthFault("invalid_request", "subject_token is missing")
        return form["subject_token"]

    async def _attest(self, token: str, now: int) -> tuple[Workload, Attested]:
        assertion = self._read(token)
        workload = await self._ports.reads.workload(assertion.workload_id)
        if workload is None or workload.removed_at is not None:
            raise InvalidToken("the workload is not enrolled; `stepgrant workload enroll` enrols it")
        attested = assertion.attest(workload.jwk, issuer=self._ports.limits.issuer_url, now_ms=now)
        return workload, attested

    def _spend(self, workload: Workload, attested: Attested) -> None:
        name = hashlib.sha256(f"assertion|{workload.id}|{attested.jti}".encode()).hexdigest()
        try:
            self._proofs.spend_here(name, attested.assertion_dead_at_ms, "assertion")
        except InvalidProof as fault:
            raise InvalidToken(fault.detail) from None


def _require_binding(token: str, jkt: str) -> None:
    """The assertion, whose signature was verified just now, names the key of the proof. Raises `InvalidToken`."""
    try:
        bound = _jose.parse(token).unverified_claims().get("cnf")
    except JoseError as error:
        raise InvalidToken(f"the assertion cannot be read: {error.reason}") from None
    named = bound.get("jkt") if isinstance(bound, dict) else None
    if not isinstance(named, str) or not hmac.compare_digest(named.encode(), jkt.encode()):
        raise InvalidToken("the assertion is not made for this DPoP key (cnf.jkt)")


async def read_form(incoming: Incoming) -> dict[str, str]:
    """The form's parameters, each once; one without a value counts as left out (RFC 6749 §3.2).

    Raises `InvalidRequest`, `TooLarge`, `UnsupportedMediaType`.
    """
    if incoming.scope["query_string"]:
        raise InvalidRequest("parameters belong into the body, where no log keeps them")
    incoming.require_type(FORM)
    raw = await incoming.body(FORM_MAX)
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=FIELDS_MAX
        )
    except ValueError:
        raise InvalidRequest("the body is not a URL-encoded form in UTF-8") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise InvalidRequest("a parameter stands twice in the form")
    return {name: value for name, value in form.items() if value}


async def token(api: Api, incoming: Incoming) -> Answer:
    """Exchange a workload's identity for an access token that is bound to its DPoP key."""
    try:
        return json_answer(await api.exchange.answer(incoming))
    except StepgrantFault as fault:
        return oauth_error(fault)
    except ClientGoneError:
        raise
    except Exception as error:  # noqa: BLE001 - the outermost border of this endpoint, in OAuth's own form
        return oauth_error(problems.fault_of(error, route="/oauth/token"))


_ERRORS: Final[Mapping[str, tuple[int, str]]] = MappingProxyType(
    {
        "invalid_dpop_proof": (400, "invalid_dpop_proof"),
        "use_dpop_nonce": (400, "use_dpop_nonce"),
        "invalid_request": (400, "invalid_request"),
        "too_large": (413, "invalid_request"),
        "unsupported_media_type": (415, "invalid_request"),
        "budget_exhausted": (429, "budget_exhausted"),
    }
)


def oauth_error(fault: StepgrantFault) -> Answer:
    """The OAuth form of a fault."""
    headers: Headers = []
    if isinstance(fault, OAuthFault):
        status, error = 400, fault.error
    elif fault.code in _ERRORS:
        status, error = _ERRORS[fault.code]
    elif isinstance(fault, Unauthenticated):
        status, error = 401, "invalid_client"
        headers.append((b"www-authenticate", problems.challenge(error, "DPoP")))
    elif isinstance(fault, Unavailable):
        status, error = 503, "temporarily_unavailable"
    else:
        status, error = 500, "server_error"
    if status in {429, 503}:
        headers.append((b"retry-after", str(problems.whole_seconds(fault.retry_after_ms or 1000)).encode()))
    return json_answer({"error": error, "error_description": fault.detail}, status=status, headers=headers)
