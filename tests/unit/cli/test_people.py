"""The connection of one command: kept from call to call, and a broker that closed it meanwhile is asked again."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading

from stepgrant.cli.client_file import Client
from stepgrant.cli.people import People

ANSWER = b'HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n{"n": 1}'


def test_call_over_a_connection_that_was_closed_meanwhile_is_made_again_with_its_key() -> None:
    heard: list[bytes] = []
    closed = threading.Event()

    def answer_once_and_hang_up(listening: socket.socket) -> None:
        for _ in range(2):
            connection, _ = listening.accept()
            with connection:
                heard.append(connection.recv(65_536))
                connection.sendall(ANSWER)
            closed.set()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = threading.Thread(target=answer_once_and_hang_up, args=(listening,), daemon=True)
        serving.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with People(Client(url, "sgo_" + "5e" * 32, "a test")) as people:
            assert people.get("/v1/whoami") == {"n": 1}
            assert closed.wait(60)
            assert people.post("/v1/approvals/apr_1/decide") == {"n": 1}
        serving.join(60)
    assert [line.split(b" ")[0] for line in heard] == [b"GET", b"POST"]
    assert len(re.findall(rb"idempotency-key: \S+", heard[1])) == 1


def test_a_command_loads_neither_another_http_client_nor_screens_to_call_the_broker() -> None:
    code = (
        "import sys; from stepgrant.cli.main import main; code = main(['run', 'list']);"
        "print(code, sorted({'httpx', 'click', 'rich.console'} & set(sys.modules)))"
    )
    names = {"STEPGRANT_TOKEN": "sgo_" + "5e" * 32, "STEPGRANT_URL": "http://127.0.0.1:9"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=os.environ | names, capture_output=True, text=True, check=True)
    assert done.stdout == "5 []\n"
