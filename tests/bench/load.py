"""A raw keep-alive client: requests are bytes made beforehand, so that the client costs next to nothing."""

from __future__ import annotations

import selectors
import socket
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

READ = 65_536
OK = b"HTTP/1.1 200"


@dataclass(frozen=True)
class Measured:
    """One load: latencies in milliseconds, wall seconds, and the server's CPU seconds."""

    latencies: tuple[float, ...]
    wall: float
    cpu: float

    @property
    def p50(self) -> float:
        """Median latency, ms."""
        return statistics.median(self.latencies)

    @property
    def p99(self) -> float:
        """99th percentile, ms."""
        return sorted(self.latencies)[int(len(self.latencies) * 0.99)]

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.latencies) / self.wall

    @property
    def cpu_us(self) -> float:
        """The server's CPU per request, µs."""
        return self.cpu / len(self.latencies) * 1e6


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, its threads and its children (the policy engine is one).

    By the scheduler's nanoseconds: of the ticks in `stat`, a round of the yardstick has six.
    """
    seconds = 0.0
    for task in Path(f"/proc/{pid}/task").iterdir():
        seconds += int((task / "schedstat").read_text().split()[0]) / 1e9
        seconds += sum(cpu_seconds(int(child)) for child in (task / "children").read_text().split())
    return seconds


class Connection:
    """One keep-alive connection with its own requests, in order."""

    def __init__(self, url: str, requests: Sequence[bytes]) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname or "", parts.port or 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.requests = iter(requests)
        self.buffer = b""
        self.sent = 0.0

    def next(self) -> bool:
        """Send the next request; False when there is none."""
        request = next(self.requests, None)
        if request is None:
            return False
        self.buffer = b""
        self.sent = time.perf_counter()
        self.socket.sendall(request)
        return True

    def receive(self) -> bytes | None:
        """A whole answer, or `None` while it is not there yet."""
        self.buffer += self.socket.recv(READ)
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return None
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                return self.buffer if len(body) >= int(line.partition(b":")[2]) else None
        raise ValueError("an answer without a length")


def load(url: str, pid: int, per_connection: Sequence[Sequence[bytes]]) -> Measured:
    """Send all requests, each connection one after the other, all connections at once. Every answer must be a 200."""
    connections = [Connection(url, requests) for requests in per_connection]
    latencies: list[float] = []
    with selectors.DefaultSelector() as ready:
        for connection in connections:
            ready.register(connection.socket, selectors.EVENT_READ, connection)
        cpu, started, open_ = cpu_seconds(pid), time.perf_counter(), 0
        for connection in connections:
            open_ += connection.next()
        while open_:
            for key, _ in ready.select(30):
                answer = key.data.receive()
                if answer is None:
                    continue
                latencies.append((time.perf_counter() - key.data.sent) * 1000)
                if not answer.startswith(OK):
                    raise ValueError(answer[:600].decode("latin-1"))
                open_ -= not key.data.next()
        wall = time.perf_counter() - started
    for connection in connections:
        connection.socket.close()
    return Measured(tuple(latencies), wall, cpu_seconds(pid) - cpu)


def post(url: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """The bytes of a POST."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {urlsplit(url).netloc}", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body
