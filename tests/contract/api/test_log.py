"""The log over HTTP: any C2SP reader verifies it with nothing but the log's key and these paths."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from fakes.served import Broker
from stepgrant import merkle, receipt, tlog

ORIGIN = "127.0.0.1:8423/log"


async def fetch(broker: Broker, path: str) -> bytes:
    response = broker.checked(await broker.client.get(f"/v1/log/{path}"))
    assert response.status_code == 200, response.text
    return response.content


async def test_the_tree_is_read_and_verified_with_public_paths_alone(broker: Broker) -> None:
    agent = await broker.agent()
    run = (await agent.open())["run"]
    for _ in range(4):
        await agent.begin(run)
    await broker.sequencer.round()
    keys = [tlog.read_vkey(line) for line in (await fetch(broker, "keys")).decode().splitlines()]
    head, note = tlog.read_signed_head(await fetch(broker, "checkpoint"), ORIGIN)
    assert set(note.verified(keys)) == set(keys)
    tiles = {tile: await fetch(broker, tile.path) for tile in tlog.tiles_of(head.size)}

    def read(node: merkle.Node) -> bytes:
        tile = tlog.tile_with(node, head.size)
        return tlog.node_in(node, tile, tiles[tile])

    assert merkle.tree_root(head.size, read) == head.root
    bundle = await fetch(broker, tlog.Tile(None, 0, head.size).path)
    leaves = tlog.tiles.read_bundle(bundle, head.size)
    assert [merkle.leaf_hash(leaf) for leaf in leaves] == [read(merkle.Node(0, at)) for at in range(head.size)]
    assert {len(leaf) for leaf in leaves} == {32}


async def test_receipts_of_a_run_and_of_its_parts_verify(broker: Broker) -> None:
    agent = await broker.agent()
    run = (await agent.open())["run"]
    begun = (await agent.begin(run)).json()
    keys = (await broker.client.get("/v1/ledger/keys")).json()
    for query, scope in (
        ({}, ("run", run)),
        ({"step": begun["step"]}, ("step", begun["step"])),
        ({"grant": begun["grant"]["jti"]}, ("grant", begun["grant"]["jti"])),
    ):
        response = await broker.person("GET", f"/v1/runs/{run}/receipt?{urlencode(query)}".rstrip("?"))
        assert response.status_code == 200, response.text
        told = receipt.verify(response.content, keys, need_log=True)
        assert told.scope == scope
        assert list(told.policies) == list(told.facts.revisions) != []
    both = await broker.person("GET", f"/v1/runs/{run}/receipt?step=a&grant=b")
    assert (both.status_code, both.json()["field"]) == (400, "grant")
    nothing = await broker.person("GET", f"/v1/runs/{run}/receipt?step=nothing")
    assert (nothing.status_code, nothing.json()["code"]) == (404, "not_found")


async def test_before_the_first_head_there_is_none(broker: Broker) -> None:
    response = broker.checked(await broker.client.get("/v1/log/checkpoint"))
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["tile/0/0", "tile/0/000.p/256", "tile/x/000", "tile/0/..%2f..%2fkeys", "tile/0/000/"])
async def test_what_is_no_path_of_a_tile_is_refused(broker: Broker, path: str) -> None:
    response = broker.checked(await broker.client.get(f"/v1/log/{path}"))
    assert (response.status_code, response.json()["code"], response.json()["field"]) == (400, "invalid_request", "tile")


async def test_a_tile_that_is_not_there_yet_is_not_found_and_not_cached(broker: Broker) -> None:
    await broker.sequencer.round()
    response = broker.checked(await broker.client.get("/v1/log/tile/0/000"))
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert response.headers["cache-control"] == "no-store"
    there = broker.checked(await broker.client.get("/v1/log/tile/0/000.p/1"))
    assert there.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert (await broker.client.get("/v1/log/checkpoint")).headers["cache-control"] == "no-store"
