"""What goes wrong between SDK and broker, on a real socket: repetition, proofs, and when the tool may run."""

# ruff: noqa: ANN401 - a test hands on whatever the code under test takes and gives

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import stepgrant
from faces import Face, call_impatiently, faces
from scripted import Lost, Raw, Reply, ScriptedBroker, Slow, granted, problem, scripted
from stepgrant import errors


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ScriptedBroker]:
    with scripted(tmp_path) as made:
        yield made


class Ledger:
    """A tool that says how often it ran."""

    def __init__(self) -> None:
        self.ran = 0

    def charge(self, amount: int) -> dict[str, int]:
        self.ran += 1
        return {"charged": amount}


async def charged(face: Face, broker: ScriptedBroker, **options: Any) -> Ledger:
    """One run with one call of the tool."""
    ledger = Ledger()

    def charge(amount: int) -> dict[str, int]:
        return ledger.charge(amount)

    tool = face.tool(charge, step_id="charge")
    async with face.run(**broker.at(), **options):
        assert await face.call(tool, 5) == {"charged": 5}
    return ledger


@faces
async def test_one_connection_and_a_fresh_proof_for_each_call(face: Face, broker: ScriptedBroker) -> None:
    await charged(face, broker)

    assert broker.verbs == ["runs", "begin", "complete", "run.complete"]
    assert broker.connections == 1
    assert len({seen.proof.jti for seen in broker.seen}) == len(broker.seen)
    assert len({seen.proof.jkt for seen in broker.seen}) == 1
    keys = [seen.headers["idempotency-key"] for seen in broker.seen if seen.verb != "token"]
    assert len(set(keys)) == len(keys)


@faces
async def test_each_open_has_a_key_of_its_own(face: Face, broker: ScriptedBroker) -> None:
    await charged(face, broker)
    await charged(face, broker)

    assert len({seen.proof.jkt for seen in broker.seen}) == 2


@faces
@pytest.mark.parametrize("verb", ["runs", "begin", "complete", "run.complete"])
async def test_lost_reply_is_repeated_with_the_same_key_and_a_fresh_proof(
    face: Face, broker: ScriptedBroker, verb: str
) -> None:
    broker.will(verb, Lost())
    ledger = await charged(face, broker)

    first, second = broker.calls(verb)
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert first.proof.jti != second.proof.jti
    assert ledger.ran == 1


@faces
async def test_only_the_repeated_begin_states_that_no_tool_saw_the_credential(
    face: Face, broker: ScriptedBroker
) -> None:
    broker.will("begin", Lost(), Lost())
    await charged(face, broker)

    assert [seen.body.get("not_received", False) for seen in broker.calls("begin")] == [False, True, True]
    first, *others = ({k: v for k, v in seen.body.items() if k != "not_received"} for seen in broker.calls("begin"))
    assert all(other == first for other in others)


@faces
async def test_storm_of_503_ends_in_an_error_and_the_tool_does_not_run(face: Face, broker: ScriptedBroker) -> None:
    broker.will("begin", *[problem("ledger_unavailable", 503)] * 50)
    ledger = Ledger()
    tool = face.tool(lambda: ledger.charge(1), name="charge")
    begun = time.monotonic()
    with pytest.raises(errors.BrokerUnavailable) as caught:
        await call_impatiently(face, tool, broker.at())

    # The last try may find no time for an answer.
    assert caught.value.code in {"ledger_unavailable", "broker_unavailable"}
    # How often it is tried in so long: test_patience.py, by a clock that a busy machine does not hold up.
    assert time.monotonic() - begun > 0.07  # two pauses
    assert 1 <= len(broker.calls("begin")) <= 6
    assert ledger.ran == 0
    assert broker.verbs[-1] == "run.park"


@faces
async def test_retry_after_is_honoured(face: Face, broker: ScriptedBroker) -> None:
    broker.will("begin", problem("policy_unavailable", 503, retry_after=1))
    await charged(face, broker)

    first, second = broker.calls("begin")
    assert second.at - first.at >= 1


@faces
async def test_milliseconds_of_the_body_are_finer_than_the_header(face: Face, broker: ScriptedBroker) -> None:
    broker.will("begin", problem("issuer_unavailable", 503, retry_after=3600, retry_after_ms=50))
    await charged(face, broker)  # nobody would wait for an hour

    first, second = broker.calls("begin")
    assert second.at - first.at >= 0.05


@faces
@pytest.mark.parametrize(
    "garbage",
    [
        Reply(b"<html>Bad Gateway</html>", content_type="text/html"),
        Reply([1, 2, 3]),
        Reply({"outcome": "surprise"}),
        Reply({"outcome": "run", "step": "charge", "attempt": 1}),
        Reply(b'{"outcome": "run", "step": "char'),
        Raw(b"SSH-2.0-OpenSSH_9.9\r\n"),
        Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{"),
        Raw(b""),
    ],
    ids=["html", "list", "unknown outcome", "no credential", "cut json", "not http", "cut answer", "nothing"],
)
async def test_garbage_is_repeated_and_then_told(face: Face, broker: ScriptedBroker, garbage: Any) -> None:
    broker.will("begin", garbage)
    ledger = await charged(face, broker)
    assert ledger.ran == 1
    assert broker.calls("begin")[-1].body["not_received"] is True

    broker.will("begin", *[garbage] * 30)
    tool = face.tool(lambda: ledger.charge(1), name="charge")
    with pytest.raises(errors.BrokerUnavailable) as caught:
        await call_impatiently(face, tool, broker.at())

    assert caught.value.code in {"unexpected_answer", "broker_unavailable"}
    assert ledger.ran == 1


@faces
async def test_answer_without_end_is_no_answer(face: Face, broker: ScriptedBroker) -> None:
    huge = b'{"outcome":"denied","reasons":["' + b"a" * 5_000_000 + b'"]}'
    broker.will("begin", *[Reply(huge)] * 30)
    tool = face.tool(lambda: 1, name="charge")
    # The last try may find no time to come to where the answer is too long.
    with pytest.raises(errors.BrokerUnavailable, match=r"no answer from .* \((the answer has no end|\w*Timeout)"):
        await call_impatiently(face, tool, broker.at())


@faces
async def test_slow_answer_is_given_up_and_asked_for_again(
    face: Face, broker: ScriptedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """After a pause: a broker that is slow has not closed the kept connection."""
    broker.will("begin", slow := Slow())
    ledger = Ledger()
    tool = face.tool(lambda: ledger.charge(5), name="charge", step_id="charge")
    async with face.run(**broker.at()) as held:
        held._session._caller.timeouts = stepgrant.Timeouts(call=0.5)
        assert await face.call(tool) == {"charged": 5}
        held._session._caller.timeouts = stepgrant.Timeouts()
    slow.now.set()

    assert ledger.ran == 1
    tries = len(broker.calls("begin"))
    assert tries >= 2
    assert caplog.text.count("begin step charge: broker_unavailable; trying again") == tries - 1


@faces
async def test_new_nonce_is_followed(face: Face, broker: ScriptedBroker) -> None:
    broker.will("begin", Reply({"code": "use_dpop_nonce"}, 401))
    await charged(face, broker)

    assert len(broker.calls("begin")) == 2
    assert len(broker.calls("token")) == 1


@faces
async def test_refused_token_is_exchanged_anew_once(face: Face, broker: ScriptedBroker) -> None:
    broker.will("begin", problem("invalid_token", 401))
    await charged(face, broker)
    assert len(broker.calls("token")) == 2

    broker.will("begin", *[problem("invalid_token", 401)] * 10)
    tool = face.tool(lambda: 1, name="charge")
    with pytest.raises(errors.InvalidToken):
        async with face.run(**broker.at()):
            await face.call(tool)


@faces
async def test_token_about_to_expire_is_exchanged_before_it_does(face: Face, broker: ScriptedBroker) -> None:
    broker.will("token", Reply({"access_token": "short.lived.token", "token_type": "DPoP", "expires_in": 10}))
    await charged(face, broker)

    assert len(broker.calls("token")) == 2
    assert broker.calls("begin")[0].headers["authorization"] == "DPoP access.token.1"


@faces
async def test_workload_that_is_not_enrolled_is_refused_at_once(face: Face, broker: ScriptedBroker) -> None:
    broker.will("token", Reply({"error": "invalid_client", "error_description": "no such workload"}, 401))
    with pytest.raises(errors.AuthenticationFailed) as caught:
        async with face.run(**broker.at()):
            pytest.fail("nobody opened this run")

    assert caught.value.code == "invalid_client"
    assert broker.verbs == []


@faces
async def test_bearer_token_is_refused(face: Face, broker: ScriptedBroker) -> None:
    broker.will("token", Reply({"access_token": "a.b.c", "token_type": "Bearer", "expires_in": 300}))
    with pytest.raises(errors.BrokerError) as caught:
        async with face.run(**broker.at()):
            pytest.fail("nobody opened this run")

    assert caught.value.code == "unexpected_answer"
    assert broker.verbs == []


@faces
async def test_redirect_is_not_followed(face: Face, broker: ScriptedBroker) -> None:
    broker.will("begin", Reply({}, 307, headers=(("location", "http://127.0.0.1:9/"),)))
    tool = face.tool(lambda: 1, name="charge")
    with pytest.raises(errors.BrokerError) as caught:
        async with face.run(**broker.at()):
            await face.call(tool)

    assert caught.value.status == 307
    assert len(broker.calls("begin")) == 1


@faces
async def test_kept_connection_that_was_closed_costs_no_pause(
    face: Face, broker: ScriptedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for each call: the first failure may only mean that the peer had closed it while it waited."""
    broker.will("begin", Lost())
    await charged(face, broker)
    assert caplog.text == ""

    broker.will("begin", Lost(), Lost())
    await charged(face, broker)
    assert caplog.text.count("begin step charge: broker_unavailable; trying again") == 1


@faces
async def test_connection_that_the_peer_ends_is_not_used_again(
    face: Face, broker: ScriptedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    broker.will("begin", Reply(granted("charge"), headers=(("connection", "close"),)))
    await charged(face, broker)

    assert broker.connections == 2
    assert caplog.text == ""


@faces
async def test_refusals_are_not_repeated(face: Face, broker: ScriptedBroker) -> None:
    broker.will("begin", problem("step_drift", 409, detail="other arguments"))
    tool = face.tool(lambda: 1, name="charge")
    with pytest.raises(errors.StepDrift, match="other arguments"):
        async with face.run(**broker.at()):
            await face.call(tool)

    assert len(broker.calls("begin")) == 1
