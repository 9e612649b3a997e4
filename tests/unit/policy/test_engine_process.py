"""The engine's own process: what it answers, and that neither panic, hang, memory nor crash reaches the broker."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from policies import ALLOW, HEAD, SLOW, call, one, slow
from stepgrant_broker.policy import engine_child
from stepgrant_broker.policy.bundle import Bundle
from stepgrant_broker.policy.engine_process import EngineFailed, EngineProcess, frame, read_answer, unframed
from stepgrant_broker.policy.rego import Rego, RegoError

DECIDE = HEAD + 'decision := {"effect": "allow", "reasons": ["ok"]} if {\n\tinput.action.tool == "bad"\n\t'
PANICS = DECIDE + "count(numbers.range(1, 1000000000000000000)) > 0\n}\n"
"""A real panic of the library ("capacity overflow"). Checks refuse numbers.range; the process must bear it anyway."""
ENDLESS = DECIDE + "f(1)\n}\n\nf(x) := f(x)\n"
"""Exhausts the stack: SIGSEGV."""
HUGE = DECIDE + 'count(sprintf("%9999999999d", [1])) > 0\n}\n'
"""Asks for ten gigabytes: abort."""
BAD = call("bad")
SECONDS = 40.0


@contextmanager
def started(bundle: Bundle, **limits: float) -> Iterator[EngineProcess]:
    process = EngineProcess(bundle, "1:test", **limits)  # type: ignore[arg-type]
    try:
        yield process
    finally:
        process.end()


def alive(process: EngineProcess) -> bool:
    return process._process.poll() is None


def test_it_answers_with_the_revision_it_was_started_with() -> None:
    with started(one(ALLOW)) as process:
        answer = process.ask(call(), seconds=SECONDS)
        assert (answer.revision, answer.error) == ("1:test", None)
        assert answer.raw is not None
        assert b'"allow"' in answer.raw


def test_undefined_is_no_value_and_not_a_text() -> None:
    with started(one('package stepgrant\n\ndecision := {"a": 1} if input.here\n')) as process:
        assert process.ask(b"{}", seconds=SECONDS).raw is None
        assert process.ask(b'{"here": true}', seconds=SECONDS).raw is not None
    assert Rego(one("package stepgrant\n\ndecision := 1 if input.here\n").modules, {}).evaluate(b"{}") is None


def test_a_policy_that_does_not_compile_is_named_and_leaves_no_process() -> None:
    before = children()
    with pytest.raises(EngineFailed, match=r"stepgrant/main\.rego:6: expecting expression"):
        EngineProcess(one(HEAD + "decision := x if {\n"), "1:test")
    assert children() == before


def test_a_panic_is_an_error_and_the_engine_is_made_anew() -> None:
    with started(one(PANICS)) as process:
        for _ in range(3):
            answer = process.ask(BAD, seconds=SECONDS)
            assert answer.raw is None
            assert answer.error == "the policy engine panicked at an unnamed place"
            good = process.ask(call("good"), seconds=SECONDS)
            assert good.raw is not None
            assert b"no_rule_matched" in good.raw
        assert alive(process)


@pytest.mark.parametrize("text", [ENDLESS, HUGE])
def test_what_ends_the_engine_ends_its_process_only(text: str) -> None:
    with started(one(text)) as process:
        assert process.ask(call("good"), seconds=SECONDS).raw is not None
        assert process.ask(BAD, seconds=SECONDS).error == "the policy engine ended while deciding"
        assert process._process.wait(SECONDS) < 0


def test_a_query_that_nobody_watches_ends_by_itself() -> None:
    with started(one(SLOW), query_s=0.2) as process:
        process.socket.sendall(frame(slow(400)))
        assert process._process.wait(SECONDS) == -signal.SIGALRM


def test_a_query_that_takes_too_long_is_answered_for() -> None:
    with started(one(SLOW)) as process:
        answer = process.ask(slow(400), seconds=0.1)  # it would take 20 s
        assert answer.error == "no decision within 0.1 s"


def test_memory_has_a_limit() -> None:
    text = (
        DECIDE + "count([[a, b, c] | some a in xs; some b in xs; some c in xs]) > 0\n}\n\nxs := input.action.args.x\n"
    )
    policy_input = call("bad", args={"x": ["x" * 8] * 300})
    with started(one(text), memory=1 << 27, query_s=30.0) as process:
        assert process.ask(call("good"), seconds=SECONDS).raw is not None
        assert process.ask(policy_input, seconds=30).raw is None
        assert process._process.wait(SECONDS) < 0


def test_an_error_names_the_place_and_no_value() -> None:
    text = DECIDE + 'x := to_number(concat("", [input.action.args.card, "x"]))\n\tx > 1\n}\n'
    with started(one(text)) as process:
        answer = process.ask(call("bad", args={"card": "4111-1111"}), seconds=SECONDS)
        assert answer.error == "the policy engine failed at stepgrant/main.rego:7"
    text = DECIDE + "input.action.args.card + 1 > 0\n}\n"
    with started(one(text)) as process:
        answer = process.ask(call("bad", args={"card": "4111-1111"}), seconds=SECONDS)
        assert answer.error == "the policy engine failed at stepgrant/main.rego:7"
        with pytest.raises(RegoError, match="4111") as caught:  # what the library itself says
            Rego(one(text).modules, {}).evaluate(call("bad", args={"card": "4111-1111"}))
        assert "backtrace" not in caught.value.message.lower()
        assert "4111" not in caught.value.place
        del caught  # or its traceback would keep the engine until some other thread drops it


def test_too_long_an_answer_is_not_passed_on() -> None:
    text = (
        HEAD + 'decision := {"effect": "allow", "reasons": ["ok"], "labels": input.action.args.all} if input.tenant\n'
    )
    with started(one(text)) as process:
        assert process.ask(call(args={"all": ["x" * 70_000]}), seconds=SECONDS).error is not None
        assert process.ask(call(args={"all": []}), seconds=SECONDS).raw is not None


def test_a_large_input_arrives_whole() -> None:
    text = HEAD + 'decision := {"effect": "deny", "reasons": ["n"], "meters": count(input.action.args.all)}\n'
    with started(one(text)) as process:
        answer = process.ask(call(args={"all": "x" * 3_000_000}), seconds=SECONDS)
        assert answer.raw is not None
        assert b"3000000" in answer.raw


def test_it_gets_nothing_of_the_brokers() -> None:
    marker = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(marker, True)  # noqa: FBT003  (takes no keyword)
    try:
        with started(one(ALLOW)) as process:
            kernel = Path(f"/proc/{process._process.pid}")
            assert (kernel / "environ").read_bytes() == b""
            assert (kernel / "cwd").readlink() == Path("/")
            links = sorted(str(link.readlink()).partition(":")[0] for link in (kernel / "fd").iterdir())
            assert links == ["/dev/null", "/dev/null", "/dev/null", "socket"]
    finally:
        os.close(marker)


def test_it_ends_when_the_broker_is_gone() -> None:
    program = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from policies import ALLOW, one\n"
        "from stepgrant_broker.policy.engine_process import EngineProcess\n"
        "process = EngineProcess(one(ALLOW), '1:test')\n"
        "print(process._process.pid, flush=True)\n"
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *sys.path], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    pid = int(done.stdout)
    end = time.monotonic() + SECONDS
    while running(pid) and time.monotonic() < end:
        time.sleep(0.01)
    assert not running(pid)


def test_ctrl_c_is_for_the_broker() -> None:
    with started(one(ALLOW)) as process:
        process._process.send_signal(signal.SIGINT)
        time.sleep(0.05)
        assert process.ask(call(), seconds=SECONDS).raw is not None


def test_a_program_that_cannot_be_started_is_a_named_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(EngineFailed, match="cannot be started: No such file or directory"):
        EngineProcess(one(ALLOW), "1:test")


def test_frames_that_our_program_never_sends_are_refused() -> None:
    assert list(unframed(bytearray(frame(b"Va") + frame(b"U") + b"\x00"))) == [b"Va", b"U"]
    for size in (0, engine_child.MAX_VALUE + 2, 2**32 - 1):
        with pytest.raises(ValueError, match="that long"):
            list(unframed(bytearray(size.to_bytes(4, "big") + b"x")))
    assert read_answer(b"?", "1:test").error is not None
    assert read_answer(b"?", "1:test").raw is None


def children() -> set[str]:
    return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
