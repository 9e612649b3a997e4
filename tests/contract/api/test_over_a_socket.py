"""The application behind a real server on loopback: what only bytes on a wire can show."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import httpx
import pytest_asyncio
import uvicorn

from fakes.served import Broker, fresh_key, step_body


@pytest_asyncio.fixture
async def port(broker: Broker) -> AsyncIterator[int]:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(broker.app, log_config=None, lifespan="on", server_header=False)
    server = uvicorn.Server(config)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(listening))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started:  # noqa: ASYNC110 - uvicorn tells it by this flag only
            await asyncio.sleep(0.01)
        yield int(listening.getsockname()[1])
        server.should_exit = True
        await serving


async def exchange(port: int, *lines: bytes, body: bytes = b"", wait: bool = True) -> bytes:
    """What a server answers to these very bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\r\n".join([*lines, b"", b""]) + body)
    if wait:
        await writer.drain()
    answer = await asyncio.wait_for(reader.read(65_536), 60)
    writer.close()
    return answer


def head(method: str, path: str, **headers: str) -> list[bytes]:
    named = {"host": "broker.test", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return [f"{method} {path} HTTP/1.1".encode(), *(f"{name}: {value}".encode() for name, value in named.items())]


async def test_a_run_over_a_socket(broker: Broker, port: int) -> None:
    agent = await broker.agent()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        broker.client, real = client, broker.client
        run = (await agent.open())["run"]
        assert (await agent.begin(run)).json()["outcome"] == "run"
        broker.client = real
    assert "grant_issued" in await broker.entries(run)


async def test_an_encoded_slash_is_another_path(broker: Broker, port: int) -> None:
    agent = await broker.agent()
    run = (await agent.open())["run"]
    path = f"/v1/runs/{run}/steps/a%2Fb/begin"
    async with httpx.AsyncClient() as client:
        headers = {**agent.headers("POST", path), "idempotency-key": fresh_key()}
        response = await client.post(f"http://127.0.0.1:{port}{path}", json=step_body(), headers=headers)

    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert await broker.entries(run) == ["run_opened"]


async def test_a_step_key_outside_the_alphabet_is_named(broker: Broker, port: int) -> None:
    agent = await broker.agent()
    run = (await agent.open())["run"]
    async with httpx.AsyncClient() as client:
        for key in ("a%20b", "%C3%A9", "x" * 201, "a%00b"):
            path = f"/v1/runs/{run}/steps/{key}/begin"
            headers = {**agent.headers("POST", path), "idempotency-key": fresh_key()}
            response = await client.post(f"http://127.0.0.1:{port}{path}", json=step_body(), headers=headers)
            assert (response.status_code, response.json()["field"]) == (400, "step")
    assert await broker.entries(run) == ["run_opened"]


async def test_an_announced_body_over_the_limit_is_refused_before_it_is_sent(broker: Broker, port: int) -> None:
    agent = await broker.agent()
    proven = {k.replace("-", "_"): v for k, v in agent.headers("POST", "/v1/runs").items()}
    lines = head(
        "POST", "/v1/runs", **proven, idempotency_key="k", content_type="application/json", content_length="2000000"
    )
    answer = await exchange(port, *lines)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"too_large"' in answer


async def test_a_chunked_body_is_cut_at_the_limit(broker: Broker, port: int) -> None:
    agent = await broker.agent()
    proven = {k.replace("-", "_"): v for k, v in agent.headers("POST", "/v1/runs").items()}
    lines = head(
        "POST", "/v1/runs", **proven, idempotency_key="k", content_type="application/json", transfer_encoding="chunked"
    )
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    answer = await exchange(port, *lines, body=chunk * 17, wait=False)

    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_a_client_that_goes_away_leaves_nothing(broker: Broker, port: int) -> None:
    agent = await broker.agent()
    proven = {k.replace("-", "_"): v for k, v in agent.headers("POST", "/v1/runs").items()}
    lines = head(
        "POST", "/v1/runs", **proven, idempotency_key="k", content_type="application/json", content_length="50"
    )
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\r\n".join([*lines, b"", b""]) + b'{"agent":')
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{port}/healthz")).json() == {"status": "ok"}

    assert (await broker.person("GET", "/v1/runs")).json()["runs"] == []


async def test_a_head_request_and_an_answer_say_no_more_than_they_should(port: int) -> None:
    answer = await exchange(port, *head("HEAD", "/healthz", connection="close"))
    lines = answer.lower().split(b"\r\n")

    assert lines[0].endswith(b" 200 ok")
    assert answer.endswith(b"\r\n\r\n")
    for expected in (
        b"cache-control: no-store", b"x-content-type-options: nosniff", b"referrer-policy: no-referrer",
        b"content-security-policy: default-src 'none'; frame-ancestors 'none'",
    ):  # fmt: skip
        assert expected in lines
    assert not [line for line in lines if line.startswith((b"server:", b"access-control", b"set-cookie"))]


async def test_no_page_is_served_and_nothing_redirects(port: int) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        for path in ("/docs", "/redoc", "/", "/v1/runs/", "/healthz/", "/openapi.json/", "//healthz"):
            response = await client.get(path)
            assert (response.status_code, response.json()["code"]) == (404, "not_found"), path
        preflight = await client.options("/v1/runs", headers={"origin": "https://evil.example"})
        assert preflight.status_code == 405
        assert not [name for name in preflight.headers if name.startswith("access-control")]
