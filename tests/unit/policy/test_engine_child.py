"""The child's end of the socket: frames come whole, in pieces, or several at once."""

import socket
import threading
from collections.abc import Iterator

import pytest

from stepgrant_broker.policy.engine_child import CHUNK, ParentGone, Pipe
from stepgrant_broker.policy.engine_process import frame, unframed

BODIES = [b"one", b"", b"x" * (3 * CHUNK), b"last"]


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Pipe]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, Pipe(theirs.fileno())


@pytest.mark.parametrize("piece", [1, 3, 5, CHUNK, 10 * CHUNK])
def test_frames_are_read_however_they_are_cut(ends: tuple[socket.socket, Pipe], piece: int) -> None:
    ours, pipe = ends
    bodies = BODIES if piece > 5 else [body[:40] for body in BODIES]
    data = b"".join(frame(body) for body in bodies)

    def send() -> None:
        for start in range(0, len(data), piece):
            ours.sendall(data[start : start + piece])

    sender = threading.Thread(target=send)
    sender.start()
    assert [pipe.read() for _ in bodies] == bodies
    sender.join()


@pytest.mark.parametrize("sent", [b"", b"\x00\x00", b"\x00\x00\x00\x05half"])
def test_an_end_within_a_frame_is_the_parents_end(ends: tuple[socket.socket, Pipe], sent: bytes) -> None:
    ours, pipe = ends
    ours.sendall(frame(b"whole") + sent)
    ours.shutdown(socket.SHUT_WR)

    assert pipe.read() == b"whole"
    with pytest.raises(ParentGone):
        pipe.read()


def test_an_answer_is_one_frame(ends: tuple[socket.socket, Pipe]) -> None:
    ours, pipe = ends
    pipe.write(b"V", b"{}")

    assert list(unframed(bytearray(ours.recv(100)))) == [b"V{}"]
