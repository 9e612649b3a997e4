"""Structured mutants of tokens and proofs, sent through every door that reads them: none gets in.

Doors: `stepgrant.verify` with a mutated grant, and with a mutated proof; the broker's reader of access tokens; the
broker's reader of proofs. A refusal is a named error of that door. Every so often the true one is sent, and has to get
in: a door that is shut to everybody would pass otherwise.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import random
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from fakes.served import URL, Broker, served
from forged_grants import ACTION, CLAIMS, HEADER, ISSUER, NOW, Redeems, changed, present, verifier
from forged_grants import URL as TOOL_URL
from security.fuzz.jose_mutants import Change, Draft, mutant
from security.fuzz.token_claims import ACCESS, AGENT, GRANT, NONCE, PROOF
from soak.result import Result
from stepgrant import _jose
from stepgrant._dpop import token_hash
from stepgrant._keys import verifying_key
from stepgrant.errors import VerificationError
from stepgrant.verify import Presented
from stepgrant_broker.api.access import AccessTokens
from stepgrant_broker.api.auth import Callers, Proofs
from stepgrant_broker.api.messages import Incoming
from stepgrant_broker.api.routing import Needs
from stepgrant_broker.domain.errors import InvalidProof, InvalidToken, NonceRequired
from stepgrant_broker.signing.local import LocalSigner

TRUE_EVERY: Final = 250


@dataclass
class Door:
    """Somewhere that reads tokens. `draft` makes a true one; `knock` raises one of `errors`, or lets in."""

    name: str
    draft: Callable[[], Draft]
    says: Mapping[str, Change]
    knock: Callable[[str], Awaitable[object]]
    errors: tuple[type[Exception], ...]
    tried: Counter[str] = field(default_factory=Counter)

    async def knocked(self, rng: random.Random, number: int) -> str | None:
        """Send one mutant (or, now and then, the true token); what went wrong, if anything did."""
        draft = self.draft()
        true = number % TRUE_EVERY == 0
        text = draft.text() if true else mutant(rng, draft, self.says)
        self.tried[f"{self.name}: {'true' if true else 'mutants'}"] += 1
        try:
            await self.knock(text)
        except self.errors as error:
            self.tried[f"{self.name} {getattr(error, 'reason', type(error).__name__)}"] += 1
            return f"{self.name} refused the true one: {error}" if true else None
        except Exception as error:  # noqa: BLE001 - a foreign error is what is looked for
            return f"{self.name}, {draft.done}: {type(error).__name__} ({error}) for {text[:2000]!r}"
        return None if true else f"{self.name} let in what had {draft.done}: {text[:4000]!r}"


def proof_drafts(claims: Mapping[str, object]) -> Callable[[], Draft]:
    """True proofs of the holder with these claims, each with an id of its own."""
    header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": AGENT.jwk}
    numbers = itertools.count()
    return lambda: Draft(dict(header), {**claims, "jti": f"proof-{next(numbers):016d}"}, AGENT.sign, AGENT.jwk)


def grant_doors() -> list[Door]:
    """A resource server: one meets mutated grants, one mutated proofs of a true grant."""
    jkt = verifying_key(dict(AGENT.jwk)).jkt
    claims = changed(CLAIMS, {"cnf": {"jkt": jkt}})
    true = Draft(dict(HEADER), claims, ISSUER.sign, ISSUER.jwk).text()
    proof = {"htm": "POST", "htu": TOOL_URL, "iat": NOW, "ath": token_hash(true)}

    async def grant(text: str) -> object:
        redeems = Redeems()
        try:
            return verifier(redeems).verify_sync(present(text), ACTION)
        except VerificationError:
            assert redeems.asked == [], "it was redeemed before it was refused"
            raise

    async def proven(text: str) -> object:
        return verifier(Redeems()).verify_sync(Presented("POST", TOOL_URL, true, text), ACTION)

    def drafted() -> Draft:
        return Draft(dict(HEADER), copy.deepcopy(CLAIMS), ISSUER.sign, ISSUER.jwk)

    return [
        Door("grant", drafted, GRANT, grant, (VerificationError,)),
        Door("proof at a server", proof_drafts(proof), PROOF, proven, (VerificationError,)),
    ]


async def broker_doors(broker: Broker) -> list[Door]:
    """The broker itself: one meets mutated access tokens, one mutated proofs of a true token."""
    agent, signer = await broker.agent(), broker.ports.signer
    assert isinstance(signer, LocalSigner)
    own = signer._of("access")[0].secret
    assert own is not None
    said = dict(_jose.parse(agent.token).unverified_claims())
    header = {"alg": own.public.alg, "kid": own.public.jkt, "typ": "at+jwt"}
    tokens = AccessTokens(broker.ports)
    callers = Callers(broker.ports, tokens, Proofs(broker.ports, broker.nonces, URL))
    true = Draft(header, {**said, "cnf": {"jkt": verifying_key(dict(AGENT.jwk)).jkt}}, own.sign, own.public.jwk).text()
    claims = {"htm": "POST", "htu": URL + "/v1/runs", "iat": int(broker.now_s), "ath": token_hash(true)}

    def drafted() -> Draft:
        return Draft(dict(header), copy.deepcopy(said), own.sign, own.public.jwk)

    async def proven(text: str) -> object:
        headers = [(b"authorization", f"DPoP {true}".encode()), (b"dpop", text.encode("latin-1", "replace"))]
        scope = {"type": "http", "method": "POST", "path": "/v1/runs", "raw_path": b"/v1/runs", "headers": headers}
        return await callers.prove(Incoming(scope, _no_body), Needs.AGENT)

    refusals = (InvalidProof, NonceRequired)
    return [
        Door("access token", drafted, ACCESS, tokens.read, (InvalidToken,)),
        Door(
            "proof at the broker", proof_drafts({**claims, "nonce": agent.nonce}), {**PROOF, **NONCE}, proven, refusals
        ),
    ]


async def _no_body() -> NoReturn:
    raise AssertionError("nobody may read the body before the caller is known")


async def _knock(rng: random.Random, size: int, folder: Path) -> Result:
    async with served(folder) as broker:
        doors = [*grant_doors(), *await broker_doors(broker)]
        found: list[str] = []
        for number in range(size):
            wrong = await doors[number % len(doors)].knocked(rng, number // len(doors))
            if wrong is not None:
                found.append(wrong)
        counts: Counter[str] = sum((door.tried for door in doors), Counter())
        return Result(dict(counts), found[:20])


def slice(seed: int, size: int) -> Result:  # noqa: A001 - the name that soak looks for
    """`size` tokens and proofs, a quarter for each door."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_knock(random.Random(seed), size, Path(folder)))
