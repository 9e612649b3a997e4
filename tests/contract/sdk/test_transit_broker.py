"""A whole broker whose keys are in a real Vault: tokens that others verify, a rotation, and Vault going away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import stepgrant
from agents import tool_of
from faces import Blocking
from logins import broker_token
from shop import Shop, shop_for
from stepgrant import errors
from stepgrant._jose import parse
from stepgrant.testing import TestBroker
from stepgrant_broker.signing.transit import transit_rules
from vaulted import mounted, transit_keys

if TYPE_CHECKING:
    from stepgrant_services import VaultServer


@contextmanager
def signing_in(server: VaultServer, folder: Path) -> Iterator[tuple[TestBroker, Shop, str]]:
    """A broker with `signer=transit`, a shop that trusts its published keys, and the Transit mount."""
    mount = mounted(server, "transit")
    names = transit_keys(server, mount)
    broker = TestBroker(
        folder / "broker",
        signer="transit",
        transit_mount=mount,
        transit_key_grants=names["grants"],
        transit_key_access=names["access"],
        transit_key_heads=names["heads"],
        vault_addr=server.addr,
        vault_auth="token",
        vault_token_file=broker_token(server, transit_rules(mount, names.values()), folder),
    )
    try:
        with shop_for(broker) as shop:
            yield broker, shop, mount
    finally:
        broker.close()


def at(broker: TestBroker) -> dict[str, Any]:
    return {"agent": "agent", "url": broker.url, "workload_key": broker.key_of("agent")}


def test_grants_that_vault_signed_are_redeemed_also_across_a_rotation(
    vault_server: VaultServer, tmp_path: Path
) -> None:
    with signing_in(vault_server, tmp_path) as (broker, shop, mount):
        broker.allow("agent", shop.tools(charge="once"))
        tool = tool_of(Blocking(), shop, "charge")
        with stepgrant.run(**at(broker)) as run:
            tool("991")
            for name in ("sg-grants", "sg-access", "sg-heads"):
                vault_server.request("POST", f"{mount}/keys/{name}/rotate")
            tool("992")
        assert shop.done("charge") == 2
        assert not list((tmp_path / "broker").rglob("*.jwk"))
        receipt = broker.receipt(run.id)
        assert receipt


def test_what_vault_cannot_sign_is_a_failed_grant_and_the_step_goes_on_later(
    new_vault: Callable[..., VaultServer], tmp_path: Path
) -> None:
    with new_vault(durable=True) as server, signing_in(server, tmp_path) as (broker, shop, _):
        broker.allow("agent", shop.tools(charge="once"))
        tool = tool_of(Blocking(), shop, "charge")
        with stepgrant.run(**at(broker)) as run:
            tool("991")
            run._session._caller.timeouts = stepgrant.Timeouts(broker=2)
            server.seal()
            with pytest.raises(errors.BrokerUnavailable, match="sealed"):
                tool("992")
            assert shop.done("charge") == 1
            assert [entry.type for entry in broker.entries(run.id)][-1] == "grant_failed"
            server.unseal()
            for _ in range(50):
                try:
                    tool("992")
                    break
                except errors.BrokerUnavailable:
                    continue
        assert shop.done("charge") == 2


def test_the_header_names_the_key_that_the_broker_publishes(vault_server: VaultServer, tmp_path: Path) -> None:
    with signing_in(vault_server, tmp_path) as (broker, shop, _):
        broker.allow("agent", {"look": {"effect": "read", "audience": shop.url}})
        seen: list[str] = []

        @stepgrant.tool(effect="read", name="look")
        def look() -> None:
            seen.append(stepgrant.current_credential().field("token"))

        with stepgrant.run(**at(broker)):
            look()

        published = {key["kid"] for key in httpx.get(f"{broker.url}/.well-known/jwks.json").json()["keys"]}
        assert parse(seen[0]).header["kid"] in published
