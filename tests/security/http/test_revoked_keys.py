"""A stolen key of the broker's: once it is revoked, its tokens open nothing, also those that were seen before."""

from __future__ import annotations

from fakes.served import Broker
from stepgrant_broker.signing.local import LocalSigner


async def test_tokens_of_a_revoked_key_are_refused_at_once(broker: Broker) -> None:
    agent, signer = await broker.agent(), broker.ports.signer
    assert isinstance(signer, LocalSigner)
    await agent.open()  # From now on the token is remembered.
    (old,) = await signer.public_keys("access")
    signer.withdraw([old.kid])
    before = await broker.runs()
    for _ in range(2):
        response = await broker.open_with(agent.headers("POST", "/v1/runs"))
        assert (response.status_code, response.json()["code"]) == (401, "invalid_token")
    assert await broker.runs() == before
    signer.make("access", at_once=True)
    assert (await (await broker.agent()).open("another"))["run"]


async def test_what_verifies_grants_is_published_no_longer(broker: Broker) -> None:
    signer = broker.ports.signer
    assert isinstance(signer, LocalSigner)
    kids = {purpose: (await signer.public_keys(purpose))[0].kid for purpose in ("grants", "access", "heads")}
    signer.withdraw([kids["grants"], kids["heads"]])

    assert [key["kid"] for key in (await broker.client.get("/.well-known/jwks.json")).json()["keys"]] == [
        kids["access"]
    ]
    assert (await broker.client.get("/v1/ledger/keys")).json()["keys"] == []
    assert (await broker.client.get("/v1/log/keys")).text == ""
