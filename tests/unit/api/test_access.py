"""Access tokens and what is remembered of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import pytest_asyncio

from fakes.hand import Hand, hand
from stepgrant_broker.api import access
from stepgrant_broker.api.access import AccessTokens, Attestation
from stepgrant_broker.api.auth import Proofs
from stepgrant_broker.domain.errors import InvalidToken
from stepgrant_broker.domain.reads import Reads
from stepgrant_broker.domain.settings import Limits
from stepgrant_broker.domain.writes import Workload
from stepgrant_broker.identity.nonces import Nonces


@dataclass
class CountedReads:
    """The real reads; counts how often an enrolment was read."""

    real: Reads
    asked: list[str] = field(default_factory=list)

    async def workload(self, workload: str) -> Workload | None:
        self.asked.append(workload)
        return await self.real.workload(workload)


@pytest_asyncio.fixture
async def held(tmp_path: Path) -> AsyncIterator[Hand]:
    async with hand(tmp_path) as held:
        yield held


def attestation(held: Hand, **more: object) -> Attestation:
    now = held.clock.now()
    values = {
        "tenant": "acme", "subject": "workload:acme/agent", "method": "enrolled_key", "trust_domain": "acme",
        "attributes": {"name": "agent"}, "evidence": "sha-256:e", "attested_at": now, "not_after": now + 3_600_000,
    }  # fmt: skip
    return Attestation(**{**values, **more})  # type: ignore[arg-type]


def counted(held: Hand) -> tuple[AccessTokens, CountedReads]:
    reads = CountedReads(held.ports.reads)
    return AccessTokens(replace(held.ports, reads=reads)), reads  # type: ignore[arg-type]


async def test_what_was_attested_comes_back(held: Hand) -> None:
    tokens = AccessTokens(held.ports)
    seen = attestation(held)
    token, life = await tokens.make(seen, held.workload, "jkt-1")
    read = await tokens.read(token)

    assert life == access.LIFE_S
    assert read.attestation == replace(seen, not_after=held.clock.now() + 300_000)
    assert (read.workload.id, read.jkt) == (held.workload.id, "jkt-1")


async def test_a_token_ends_with_the_identity(held: Hand) -> None:
    tokens = AccessTokens(held.ports)
    token, life = await tokens.make(attestation(held, not_after=held.clock.now() + 42_000), held.workload, "jkt-1")

    assert life == 42
    assert (await tokens.read(token)).attestation.not_after == held.clock.now() + 42_000


async def test_an_enrolment_is_read_again_once_it_is_a_second_old(held: Hand) -> None:
    tokens, reads = counted(held)
    token, _ = await tokens.make(attestation(held), held.workload, "jkt-1")
    for _ in range(3):
        await tokens.read(token)
    assert len(reads.asked) == 1
    held.clock.tick(access.FRESH_MS + 1)
    await tokens.read(token)
    await tokens.read(token)
    assert len(reads.asked) == 2
    # A clock that was set back makes nothing fresh for ever.
    held.clock.tick(-60_000)
    await tokens.read(token)
    assert len(reads.asked) == 3


async def test_a_removed_enrolment_ends_its_tokens(held: Hand) -> None:
    tokens = AccessTokens(held.ports)
    token, _ = await tokens.make(attestation(held), replace(held.workload, id="wkl_gone"), "jkt-1")

    with pytest.raises(InvalidToken, match="not enrolled any more"):
        await tokens.read(token)


async def test_forgetting_a_workload_forgets_its_tokens_and_no_others(held: Hand) -> None:
    tokens, reads = counted(held)
    first, _ = await tokens.make(attestation(held), held.workload, "jkt-1")
    second, _ = await tokens.make(attestation(held), held.server, "jkt-2")
    await tokens.read(first)
    await tokens.read(second)
    tokens.forget(held.workload.id)
    await tokens.read(first)
    await tokens.read(second)

    assert reads.asked == [held.workload.id, held.server.id, held.workload.id]


async def test_the_memory_is_bounded_and_holds_no_token(held: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "KEPT", 2)
    tokens, reads = counted(held)
    made = [(await tokens.make(attestation(held), held.workload, f"jkt-{number}"))[0] for number in range(3)]
    for token in made:
        await tokens.read(token)

    assert len(tokens._held) == 2
    assert all(token not in repr(tokens._held) for token in made)
    await tokens.read(made[0])
    assert len(reads.asked) == 4


def test_a_proof_must_be_remembered_longer_than_a_nonce_lives(held: Hand) -> None:
    nonces = Nonces(bytes(32), epoch_s=300)
    Proofs(replace(held.ports, limits=Limits(proof_kept_ms=600_000)), nonces, "http://b")

    with pytest.raises(ValueError, match="a proof could be used again"):
        Proofs(replace(held.ports, limits=Limits(proof_kept_ms=599_999)), nonces, "http://b")
