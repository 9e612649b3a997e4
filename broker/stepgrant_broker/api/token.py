"""`POST /oauth/token`: a workload's identity for an access token that is bound to its DPoP key (RFC 8693, RFC 9449).

Rules:
* The form is read strictly: its content type, each parameter once, nothing over a small size.
* An assertion by an enrolled key names the key of the proof that comes with it (`cnf.jkt`, RFC 7800), and so may any
  identity token: a copy is then worth nothing with another key, on whatever replica. Each replica takes an assertion
  once; tokens that issuers write into files for many uses work until they expire, unless the trust file says
  `single_use`. What a stolen one of those is worth stands in `broker/README.md`.
* Errors are OAuth's own JSON (RFC 6749 §5.2, RFC 9449 §5 and §8); what an identity lacks is `invalid_client`.
* Limits and memory count per workload, after its signature was verified: nobody can use up another's.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import parse_qsl

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
from stepgrant_broker.domain.ports import Attested
from stepgrant_broker.usecases.attest import record_attested
from stepgrant_broker.usecases.context import Ports

if TYPE_CHECKING:
    from stepgrant_broker.api.context import Api

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
TYPE_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
TYPE_ID: Final = "urn:ietf:params:oauth:token-type:id_token"
SUBJECT_TYPES: Final = (TYPE_JWT, TYPE_ID)
TYPE_ACCESS: Final = "urn:ietf:params:oauth:token-type:access_token"
FORM_MAX: Final = 32_768
FIELDS_MAX: Final = 32
FAR_FUTURE_MS: Final = 1 << 52


class Identities(Protocol):
    """Whom this broker knows (`identity/`)."""

    async def attest(self, token: str, token_type: str, now: int) -> Attested:
        """Verify a subject token of this type (RFC 8693 §3). Raises `InvalidToken`, `Unavailable`."""
        ...


class OAuthFault(StepgrantFault):
    """A refusal with an error code of OAuth."""

    def __init__(self, error: str, detail: str) -> None:
        super().__init__(detail)
        self.error = error


class Exchange:
    """Exchanges subject tokens for access tokens."""

    def __init__(
        self, ports: Ports, tokens: AccessTokens, proofs: Proofs, identities: Identities, buckets: Buckets
    ) -> None:
        self._ports = ports
        self._tokens = tokens
        self._proofs = proofs
        self._identities = identities
        self._buckets = buckets

    async def answer(self, incoming: Incoming) -> dict[str, object]:
        """The body of RFC 8693 §2.2.1. Raises `OAuthFault` and domain faults."""
        form = await read_form(incoming)
        subject_token, token_type = self._subject_token(form)
        proof = self._proofs.check(incoming, None)
        now = self._ports.clock.now()
        attested = await self._identities.attest(subject_token, token_type, now)
        _require_binding(attested, proof.jkt)
        wait_s = self._buckets.take(attested.workload.id, now / 1000)
        if wait_s > 0:
            raise BudgetExhausted("too many exchanges by this workload", retry_after_ms=math.ceil(wait_s * 1000))
        use = self._proofs.use(proof)
        self._proofs.spend_for_exchange(use.id, use.expires_at, "DPoP proof", attested.workload.id)
        self._spend(attested)
        workload = await record_attested(self._ports, attested)
        seen = Attestation(
            tenant=workload.tenant,
            subject=attested.subject,
            method=attested.method,
            trust_domain=attested.trust_domain,
            attributes={**attested.attributes, "name": workload.name, "workload": workload.id},
            evidence=attested.evidence,
            attested_at=now,
            not_after=attested.not_after if attested.not_after is not None else FAR_FUTURE_MS,
        )
        token, life_s = await self._tokens.make(seen, workload, proof.jkt)
        incoming.nonce = self._proofs.nonce()
        return {
            "access_token": token,
            "token_type": "DPoP",
            "issued_token_type": TYPE_ACCESS,
            "expires_in": life_s,
        }

    def _subject_token(self, form: Mapping[str, str]) -> tuple[str, str]:
        if "grant_type" not in form:
            raise OAuthFault("invalid_request", "grant_type is missing")
        if form["grant_type"] != GRANT_TYPE:
            raise OAuthFault("unsupported_grant_type", f"grant_type is {GRANT_TYPE}")
        if form.get("requested_token_type", TYPE_ACCESS) != TYPE_ACCESS:
            raise OAuthFault("invalid_request", f"requested_token_type is {TYPE_ACCESS}")
        token_type = form.get("subject_token_type")
        if token_type not in SUBJECT_TYPES:
            raise OAuthFault("invalid_request", f"subject_token_type is {' or '.join(SUBJECT_TYPES)}")
        if "actor_token" in form or "actor_token_type" in form:
            raise OAuthFault("invalid_request", "no actor token is taken: the workload acts for itself")
        for name in ("resource", "audience"):
            if form.get(name, self._ports.limits.issuer_url) != self._ports.limits.issuer_url:
                raise OAuthFault("invalid_target", f"{name}: access tokens are for this broker only")
        if "scope" in form:
            raise OAuthFault("invalid_scope", "there are no scopes: policy decides each action")
        if "subject_token" not in form:
            raise OAuthFault("invalid_request", "subject_token is missing")
        return form["subject_token"], token_type

    def _spend(self, attested: Attested) -> None:
        if attested.replay is None:
            return
        name = hashlib.sha256(f"assertion|{attested.workload.id}|{attested.replay}".encode()).hexdigest()
        try:
            self._proofs.spend_for_exchange(name, attested.dead_at, "identity token", attested.workload.id)
        except InvalidProof as fault:
            raise InvalidToken(fault.detail) from None


def _require_binding(attested: Attested, jkt: str) -> None:
    """A token that names a key is exchanged for this key alone. Raises `InvalidToken`."""
    if attested.jkt is not None and not hmac.compare_digest(attested.jkt.encode(), jkt.encode()):
        raise InvalidToken("the identity token is not made for this DPoP key (cnf.jkt)")


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
