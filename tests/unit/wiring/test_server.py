"""Serving: where it may listen, what it says, and how it ends."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from fakes.wired import Made
from stepgrant_broker.api.serve import UnsafeBind
from stepgrant_broker.config import SettingsError, explicit_settings
from stepgrant_broker.wiring import listen
from stepgrant_broker.wiring.server import served

SERVED = """
import asyncio, pathlib, sys
from stepgrant_broker.config import explicit_settings
from stepgrant_broker.wiring import build, configure_logs, listen, serve
from stepgrant_broker.wiring.server import new_event_loop

async def main():
    settings = explicit_settings(data_dir=pathlib.Path(sys.argv[1]), port=0)
    configure_logs()
    listening = listen(settings)
    settings = explicit_settings(data_dir=settings.data_dir, public_url=listening.url)
    async with build(settings, create=True) as broker:
        await serve(broker, listening, ready=lambda url: print(url, flush=True))
    print("closed", flush=True)

with asyncio.Runner(loop_factory=new_event_loop) as runner:
    runner.run(main())
"""


async def test_it_answers_on_a_free_port_and_stops(made: Made) -> None:
    listening = listen(explicit_settings(port=0))
    async with made() as broker:
        async with served(broker, listening) as url, httpx.AsyncClient() as client:
            assert url == f"http://127.0.0.1:{listening.port}"
            answer = await client.get(f"{url}/healthz")
            assert answer.status_code == 200
            assert "server" not in answer.headers
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(f"{url}/healthz")


async def test_a_kept_connection_does_not_hold_up_the_end(made: Made) -> None:
    listening = listen(explicit_settings(port=0))
    async with made() as broker, httpx.AsyncClient() as client:
        started = asyncio.get_running_loop().time()
        async with served(broker, listening) as url:
            await client.get(f"{url}/healthz")
        assert asyncio.get_running_loop().time() - started < 5


def test_it_refuses_to_be_reached_in_clear() -> None:
    with pytest.raises(UnsafeBind):
        listen(explicit_settings(host="192.0.2.1", port=0))


def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"STEPGRANT_BROKER_PORT: cannot listen on 127.0.0.1:{port}"):
            listen(explicit_settings(port=port))


def test_an_ipv6_address_makes_a_url_with_brackets() -> None:
    try:
        listening = listen(explicit_settings(host="::1", port=0))
    except SettingsError as error:
        assert "cannot listen on ::1" in str(error)  # noqa: PT017 - a machine without IPv6 says so
        return
    assert listening.url == f"http://[::1]:{listening.port}"
    listening.socket.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_gracefully_with_everything_closed(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", SERVED, str(tmp_path / "b")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert httpx.get(f"{url}/healthz").status_code == 200
        process.send_signal(number)
        rest = process.stdout.read()
    assert (process.returncode, rest) == (0, "closed\n")
