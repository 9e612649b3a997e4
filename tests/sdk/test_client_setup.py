"""What has to be right before a run can be opened, and what a fork takes away."""

# ruff: noqa: ANN401 - a test hands on whatever the code under test takes and gives

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import stepgrant
from faces import IMPATIENT, Face, call_impatiently, faces
from scripted import TOKEN, Lost, Reply, ScriptedBroker, scripted
from stepgrant import _calls, _outcomes, errors
from stepgrant._caller import Caller
from stepgrant._client import Address, BlockingClient
from stepgrant._dpop import DpopKey
from stepgrant._exchange import WorkloadKey
from stepgrant._flows import drive


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ScriptedBroker]:
    with scripted(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    "url",
    ["ftp://127.0.0.1", "127.0.0.1:8423", "http://", "http://a@127.0.0.1", "http://127.0.0.1/?a=1", "http://[::1"],
)
def test_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="STEPGRANT_URL"):
        Address.of(url)


def test_plain_http_to_another_machine_is_refused() -> None:
    with pytest.raises(errors.ConfigurationError, match="must be https, or http on loopback"):
        Address.of("http://broker.example")
    assert Address.of("https://broker.example/base/").base == "https://broker.example/base"
    assert Address.of("http://localhost:8423").port == 8423
    assert Address.of("http://[::1]:8423").host == "::1"


def test_without_a_workload_key_nothing_is_tried() -> None:
    with pytest.raises(errors.ConfigurationError, match="STEPGRANT_WORKLOAD_KEY"):
        stepgrant.run("job", agent="agent")


def test_environment_names_broker_and_key(broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPGRANT_URL", broker.url)
    monkeypatch.setenv("STEPGRANT_WORKLOAD_KEY", str(broker.workload_key))
    with stepgrant.run("job", agent="agent") as held:
        assert held.key == "job"

    assert broker.verbs == ["runs", "run.complete"]


def test_forked_child_can_do_nothing_with_the_run(broker: ScriptedBroker) -> None:
    tool = stepgrant.tool(name="charge")(lambda: 1)
    with stepgrant.run("job", agent="agent", **broker.at()):
        before = len(broker.seen)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                tool()
            except errors.KeyLost:
                code = 77
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 77
        assert len(broker.seen) == before
        assert tool() == 1


@pytest.mark.parametrize("field", ["call", "broker", "lease", "prior_credential", "reconcile"])
@pytest.mark.parametrize("value", [-1, float("inf"), float("nan"), "5", True])
def test_timeouts_are_seconds(field: str, value: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match=field):
        stepgrant.Timeouts(**{field: value})


def test_opening_needs_an_exchange_of_a_moment_ago(broker: ScriptedBroker) -> None:
    address = Address.of(broker.url)
    client = BlockingClient(address)
    caller = Caller(address, WorkloadKey.load(str(broker.workload_key)), DpopKey(), stepgrant.Timeouts())
    call = _calls.show_step("run_1", "plan")
    shown = Reply({"key": "plan", "state": "recorded"})
    broker.will("step", *[shown] * 4)
    for fresh, exchanges in [(True, 1), (True, 1), (False, 1)]:
        drive(caller.call(call, _outcomes.ShownStep, fresh=fresh), client)
        assert len(broker.calls("token")) == exchanges
    caller._exchanged_at -= 31
    drive(caller.call(call, _outcomes.ShownStep, fresh=True), client)
    client.close()

    assert len(broker.calls("token")) == 2


@faces
async def test_broker_that_is_not_there_is_told_after_the_deadline(face: Face, broker: ScriptedBroker) -> None:
    with pytest.raises(errors.BrokerUnavailable) as caught:
        async with face.run(**{**broker.at(), "url": "http://127.0.0.1:9"}, timeouts=IMPATIENT):
            pytest.fail("nobody opened this run")

    assert (caught.value.code, caught.value.status) == ("broker_unavailable", 0)
    assert str(caught.value) == (
        "broker_unavailable: the token exchange: no answer from http://127.0.0.1:9 (ConnectionRefusedError); "
        "does the broker run there (url= or STEPGRANT_URL)?"
    )


@faces
async def test_no_error_shows_a_token_or_arguments(face: Face, broker: ScriptedBroker) -> None:
    broker.will("begin", *[Lost()] * 30)
    tool = face.tool(lambda note: note, name="charge")
    with pytest.raises(errors.BrokerUnavailable) as caught:
        await call_impatiently(face, tool, broker.at(), "the patient's diagnosis")

    seen: BaseException | None = caught.value
    while seen is not None:
        assert "diagnosis" not in repr(seen)
        assert TOKEN not in repr(seen)
        assert "access.token" not in repr(seen)
        seen = seen.__cause__ or seen.__context__
