"""Who calls: a workload by a token bound to its key with a fresh proof, or a person by an operator token.

Rules:
* `htu` is checked against the configured public URL and the path; no forwarded or `Host` header is ever read.
* Every proof carries a current nonce of this broker, so that none can be made beforehand. Its `jti` is refused for as
  long as such a nonce could live: by the store for what changes something, by this replica's memory for pure reads.
* What this replica remembers has a share for each workload, by its enrolment: keys are the workload's to make, as many
  as it likes. Who floods is told to slow down, others read on. Token exchanges have a memory of their own, so that no
  flood of reads shuts the door through which everybody comes.
* A token that is bound to a key is refused as a bearer token. An operator token is looked up each time, never kept.
* The scheme decides what is proven; then the endpoint decides who may go on. Neither can stand in for the other.
"""

from __future__ import annotations

import hashlib
from typing import Final, Protocol

from stepgrant._dpop import Proof, token_hash, verify_proof
from stepgrant._verification_errors import InvalidProof as ProofRefused
from stepgrant._verification_errors import VerificationUnavailable
from stepgrant.verify import ProcessMemory
from stepgrant_broker.api.access import AccessTokens, Held
from stepgrant_broker.api.messages import Incoming
from stepgrant_broker.api.routing import READING, Needs
from stepgrant_broker.domain.caller import AgentCaller, PersonCaller
from stepgrant_broker.domain.errors import BudgetExhausted, Forbidden, InvalidProof, InvalidToken
from stepgrant_broker.domain.writes import ProofUse
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.operators import TOKEN_PREFIX, authenticate_operator

READS_KEPT: Final = 400_000
"""About 100 MB when full. One workload alone gets a quarter: 111 reads a second, kept for `proof_kept_ms` (900 s)."""
EXCHANGES_KEPT: Final = 200_000
IAT_WINDOW_S: Final = 600
"""With a nonce, `iat` says nothing new; the window only keeps the sender's clock sane."""


class Nonces(Protocol):
    """The nonces that all replicas share (`identity/`). Times in seconds."""

    @property
    def lifetime_s(self) -> int:
        """The longest time for which one can be used."""
        ...

    def current(self, now_s: float) -> str:
        """The one to hand out now."""
        ...

    def check(self, nonce: str | None, now_s: float) -> None:
        """Raises `NonceRequired` unless it can still be used."""
        ...


class Proofs:
    """Checks DPoP proofs of requests to this broker."""

    def __init__(self, ports: Ports, nonces: Nonces, public_url: str) -> None:
        if ports.limits.proof_kept_ms < nonces.lifetime_s * 1000:
            raise ValueError("proof_kept_ms is shorter than a nonce lives: a proof could be used again")
        self._ports = ports
        self._nonces = nonces
        self._url = public_url
        self._reads = ProcessMemory(max_uses=READS_KEPT)
        self._exchanges = ProcessMemory(max_uses=EXCHANGES_KEPT)

    def check(self, incoming: Incoming, token: str | None, ath: str | None = None) -> Proof:
        """The proof of this request; `ath` as in `verify_proof`. It hands out a new nonce in time.

        Raises `InvalidProof`, `NonceRequired`.
        """
        proofs = incoming.headers(b"dpop")
        if len(proofs) != 1:
            raise InvalidProof("send exactly one DPoP header", field="DPoP")
        now_s = self._ports.clock.now() / 1000
        current = self._nonces.current(now_s)

        def check_nonce(nonce: str | None) -> None:
            if nonce != current:
                incoming.nonce = current
                self._nonces.check(nonce, now_s)

        try:
            return verify_proof(
                proofs[0].decode("latin-1"),
                method=incoming.method,
                url=self._url + incoming.path,
                token=token,
                ath=ath,
                now_s=now_s,
                max_age_s=IAT_WINDOW_S,
                future_s=IAT_WINDOW_S,
                check_nonce=check_nonce,
            )
        except ProofRefused as error:
            raise InvalidProof(f"{error.message} ({error.reason})", field="DPoP") from None

    def nonce(self) -> str:
        """The nonce to use from now on."""
        return self._nonces.current(self._ports.clock.now() / 1000)

    def use(self, proof: Proof) -> ProofUse:
        """What the store writes, so that the proof is refused everywhere from then on."""
        name = hashlib.sha256(f"{proof.jkt}|{proof.jti}".encode()).hexdigest()
        return ProofUse(name, self._ports.clock.now() + self._ports.limits.proof_kept_ms)

    def spend_for_read(self, use: ProofUse, workload: str) -> None:
        """Refuse a read's proof that this replica has seen, or that is too much for the workload.

        Raises `InvalidProof`, `BudgetExhausted`.
        """
        self._spend(self._reads, use.id, use.expires_at, "DPoP proof", workload)

    def spend_for_exchange(self, name: str, until_ms: int, what: str, workload: str) -> None:
        """The same for what comes with a token exchange: its proof, or an identity token for one use."""
        self._spend(self._exchanges, name, until_ms, what, workload)

    def _spend(self, memory: ProcessMemory, name: str, until_ms: int, what: str, workload: str) -> None:
        now_s = self._ports.clock.now() / 1000
        try:
            fresh = memory.spend(name, by=workload, limit=1, forget_at_s=until_ms / 1000, now_s=now_s)
        except VerificationUnavailable as full:
            raise BudgetExhausted(f"{full.message} ({full.reason}); slow down", retry_after_ms=1000) from None
        if not fresh:
            raise InvalidProof(f"this {what} was used before")


class Callers:
    """Proves who calls."""

    def __init__(self, ports: Ports, tokens: AccessTokens, proofs: Proofs) -> None:
        self._ports = ports
        self._tokens = tokens
        self._proofs = proofs

    async def prove(self, incoming: Incoming, needs: Needs) -> AgentCaller | PersonCaller:
        """The caller, if the endpoint is for its kind. Raises `InvalidToken`, `InvalidProof`, `Forbidden`."""
        scheme, _, token = (incoming.header(b"authorization") or "").partition(" ")
        caller: AgentCaller | PersonCaller
        match scheme.lower():
            case "dpop":
                caller = await self._agent(incoming, token)
                if needs is Needs.PERSON:
                    raise Forbidden("this is for people; a workload cannot do it")
            case "bearer" if token.startswith(TOKEN_PREFIX):
                caller = await authenticate_operator(self._ports, token)
                if needs is Needs.AGENT:
                    raise Forbidden("this is for workloads; a person cannot do it")
            case "bearer":
                raise InvalidToken("a token that is bound to a key is sent as `Authorization: DPoP`, with a proof")
            case _:
                raise InvalidToken("send Authorization: DPoP (workloads) or Bearer (people)", field="Authorization")
        return caller

    async def _agent(self, incoming: Incoming, token: str) -> AgentCaller:
        # Hashed once: by it the token is remembered here, and the proof names it so.
        ath = token_hash(token)
        held = await self._tokens.read(token, ath)
        proof = self._proofs.check(incoming, token, ath)
        if proof.jkt != held.jkt:
            raise InvalidProof("the proof is by another key than the token's", field="DPoP")
        use = self._proofs.use(proof)
        if incoming.method in READING:
            self._proofs.spend_for_read(use, held.workload.id)
        return _caller(held, use, proof)


def _caller(held: Held, use: ProofUse, proof: Proof) -> AgentCaller:
    seen = held.attestation
    return AgentCaller(
        tenant=seen.tenant,
        subject=seen.subject,
        method=seen.method,
        trust_domain=seen.trust_domain,
        attributes=seen.attributes,
        workload=held.workload,
        jkt=held.jkt,
        attested_at=seen.attested_at,
        not_after=seen.not_after,
        evidence=seen.evidence,
        proof=use,
        proof_jti=proof.jti,
    )
