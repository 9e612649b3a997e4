"""A key of the agent's own: what its request becomes in the record and in the issuer's order."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fakes.hand import Hand
from stepgrant import _wire
from stepgrant._csr import make_request
from stepgrant_broker.api import parsing
from stepgrant_broker.domain.calls import CertificateOrder
from stepgrant_broker.domain.errors import InvalidRequest
from stepgrant_broker.domain.ports import GrantOrder, Minted
from stepgrant_broker.domain.settings import Limits
from stepgrant_broker.issuers.jwt import JwtIssuer

REQUEST = make_request(ec.generate_private_key(ec.SECP256R1()))


class Watched(JwtIssuer):
    """Keeps what it was ordered to mint."""

    orders: list[GrantOrder]

    async def mint(self, order: GrantOrder, handle: str | None) -> Minted:
        self.orders.append(order)
        return await super().mint(order, handle)


@pytest.fixture
def orders(broker: Hand) -> list[GrantOrder]:
    watched = Watched(broker.ports.signer, "https://broker.example")
    watched.orders = []
    broker.ports.issuers["jwt"] = watched  # type: ignore[index]  # a dict in a test's hand
    return watched.orders


async def issued(broker: Hand, run: str) -> list[dict[str, Any]]:
    found = await broker.ports.reads.entries("acme", run, limit=500)
    entries = [json.loads(entry.data) for entry in found]
    return [entry for entry in entries if entry["type"] == "grant_issued"]


def test_a_request_is_read_before_anything_happens() -> None:
    body = {"epoch": 1, "action": {"tool": "pay", "args": {}}, "csr": REQUEST.pem}
    call = parsing.step_call("s1", parsing.convert(body, _wire.StepCall), Limits())
    assert call.csr == CertificateOrder(REQUEST.pem, REQUEST.key)
    with pytest.raises(InvalidRequest) as caught:
        parsing.step_call("s1", parsing.convert({**body, "csr": "nonsense"}, _wire.StepCall), Limits())
    assert caught.value.field == "csr"


async def test_the_keys_name_is_recorded_with_the_grant_and_the_issuer_gets_the_request(
    broker: Hand, orders: list[GrantOrder]
) -> None:
    run = (await broker.open())["run"]
    await broker.begin(run, "s1", csr=CertificateOrder(REQUEST.pem, REQUEST.key))
    await broker.begin(run, "s2")
    assert [entry["body"].get("csr_key") for entry in await issued(broker, run)] == [REQUEST.key, None]
    assert [order.csr for order in orders] == [REQUEST.pem, None]


async def test_another_key_is_not_another_action(broker: Hand) -> None:
    """A key is new at each attempt; the step stays the same step."""
    run = (await broker.open())["run"]
    other = make_request(ec.generate_private_key(ec.SECP256R1()))
    first = await broker.begin(run, "s1", csr=CertificateOrder(REQUEST.pem, REQUEST.key))
    again = await broker.begin(run, "s1", csr=CertificateOrder(other.pem, other.key))
    assert (first["outcome"], again["outcome"]) == ("run", "run")
    before, after = await issued(broker, run)
    assert before["action"] == after["action"]
