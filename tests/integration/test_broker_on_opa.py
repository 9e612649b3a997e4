"""A whole broker whose decisions an OPA makes: who waits for whom, what is said meanwhile, and what is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, MutableMapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import structlog

from fakes.wired import says, until
from heard import capture_logs
from opas import Serve, put, serving
from stepgrant import canonical
from stepgrant_broker.api.health import Health
from stepgrant_broker.config import SettingsError, explicit_settings, spelled
from stepgrant_broker.domain.errors import PolicyUnavailable
from stepgrant_broker.domain.writes import Query
from stepgrant_broker.policy.findings import PolicyInvalid
from stepgrant_broker.wiring import Broker, build, bundle_of
from stepgrant_broker.wiring.policy_engines import Wanted

QUESTION = canonical.dumps({"action": {"tool": "x"}})
FIRST, SECOND = bundle_of(says("first")), bundle_of(says("second"))
Said = list[MutableMapping[str, Any]]


@pytest.fixture
def events() -> Iterator[Said]:
    before = structlog.get_config() if structlog.is_configured() else None
    structlog.reset_defaults()
    with capture_logs() as found:
        yield found
    if before is not None:
        structlog.configure(**before)


def save(folder: Path, word: str) -> Path:
    """A policy in the broker's folder."""
    for path, text in says(word).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def broker_on(url: str, folder: Path, **more: Any) -> AbstractAsyncContextManager[Broker]:  # noqa: ANN401 - settings
    settings = explicit_settings(
        data_dir=folder / "broker", policy_engine="opa", opa_url=url, opa_timeout_ms=20_000, sweep_ms=600_000,
        policy_dir=folder / "policy", **more,
    )  # fmt: skip
    return build(settings, create=True)


async def refusal(broker: Broker) -> str:
    with pytest.raises(PolicyUnavailable) as caught:
        await broker.policy.evaluate(QUESTION)
    assert caught.value.retry_after_ms
    return caught.value.detail


async def activations(broker: Broker) -> list[str]:
    entries = await broker.ports.reads.entries("default", None)
    found = [canonical.loads(entry.data) for entry in entries]
    return [one["body"]["revision"] for one in found if one["type"] == "policy_activated"]  # type: ignore[index, call-overload, misc]


async def ready(broker: Broker) -> str:
    return (await Health(broker.ports).checks())["policy"]


async def test_opa_has_the_policy_so_it_is_activated_and_decides(opa_server: Serve, tmp_path: Path) -> None:
    save(tmp_path / "policy", "first")
    with serving(opa_server, FIRST, tmp_path, "--set=decision_logs.console=true") as opa:
        async with broker_on(opa.url, tmp_path) as broker:
            answer = await broker.policy.evaluate(QUESTION)
            assert answer.raw == b'{"effect":"deny","reasons":["first"]}'
            assert answer.revision == broker.policy.revision == f"1:{FIRST.digest}"
            assert answer.engine.startswith("opa/1.")
            assert len(answer.decision_id) == 36, "OPA's own, as its decision log has it"
            assert await activations(broker) == [answer.revision]
            assert await ready(broker) == "ok"
        log = opa.log.read_text(encoding="utf-8")
    assert answer.decision_id in log


async def test_without_a_decision_log_the_id_is_ours(opa_server: Serve, tmp_path: Path) -> None:
    save(tmp_path / "policy", "first")
    with serving(opa_server, FIRST, tmp_path) as opa:
        async with broker_on(opa.url, tmp_path) as broker:
            assert (await broker.policy.evaluate(QUESTION)).decision_id.startswith("dec_")


async def test_the_broker_starts_before_opa_has_the_policy_and_says_what_it_waits_for(
    opa_server: Serve, tmp_path: Path, events: Said
) -> None:
    save(tmp_path / "policy", "first")
    with serving(opa_server, SECOND, tmp_path) as opa:
        async with broker_on(opa.url, tmp_path) as broker:
            wanted = (
                f"OPA has another policy loaded: {SECOND.digest}, but {FIRST.digest} is wanted; give OPA the bundle"
            )
            assert (await refusal(broker)).startswith(wanted)
            assert await activations(broker) == []
            assert await ready(broker) == "failed"
            told = [event for event in events if event["event"] in {"policy_waits", "not_ready"}]
            assert [event["why"].startswith(wanted) for event in told] == [True, True]
            put(FIRST, tmp_path)
            await asyncio.to_thread(opa.restart)
            await until(lambda: broker.policy.revision is not None)
            assert (await broker.policy.evaluate(QUESTION)).revision == f"1:{FIRST.digest}"
            assert await activations(broker) == [f"1:{FIRST.digest}"]
            assert await ready(broker) == "ok"


async def test_the_broker_starts_before_opa(opa_server: Serve, tmp_path: Path) -> None:
    save(tmp_path / "policy", "first")
    with serving(opa_server, FIRST, tmp_path) as opa:
        await asyncio.to_thread(opa.stop)
        async with broker_on(opa.url, tmp_path) as broker:
            assert (await refusal(broker)).startswith(f"OPA cannot be reached at {opa.url} (")
            await asyncio.to_thread(opa.start)
            await until(lambda: broker.policy.revision is not None)


async def test_a_policy_that_could_never_be_activated_is_refused_at_the_start(
    opa_server: Serve, tmp_path: Path
) -> None:
    save(tmp_path / "policy", "first")
    (tmp_path / "policy/stepgrant/main.rego").write_text("package stepgrant\n\ndecision := {")
    with serving(opa_server, FIRST, tmp_path) as opa, pytest.raises(PolicyInvalid, match="does_not_compile"):
        async with broker_on(opa.url, tmp_path):
            pytest.fail("it opened")


async def test_a_newer_bundle_stops_decisions_until_the_broker_activates_it(
    opa_server: Serve, tmp_path: Path, events: Said
) -> None:
    folder = save(tmp_path / "policy", "first")
    with serving(opa_server, FIRST, tmp_path) as opa:
        async with broker_on(opa.url, tmp_path, watch_policy=True) as broker:
            put(SECOND, tmp_path)
            await asyncio.to_thread(opa.restart)
            assert (await refusal(broker)).startswith(f"OPA has another policy loaded: {SECOND.digest}")
            assert broker.policy.revision == f"1:{FIRST.digest}"
            save(folder, "second")
            await until(lambda: broker.policy.revision == f"2:{SECOND.digest}")
            answer = await broker.policy.evaluate(QUESTION)
            assert answer.raw == b'{"effect":"deny","reasons":["second"]}'
            assert answer.revision == f"2:{SECOND.digest}"
            assert await activations(broker) == [f"1:{FIRST.digest}", f"2:{SECOND.digest}"]
    assert "policy_reloaded" in {event["event"] for event in events}


async def test_the_present_policy_decides_while_the_broker_waits_for_the_next_one(
    opa_server: Serve, tmp_path: Path, events: Said
) -> None:
    folder = save(tmp_path / "policy", "first")
    with serving(opa_server, FIRST, tmp_path) as opa:
        async with broker_on(opa.url, tmp_path, watch_policy=True) as broker:
            save(folder, "second")
            await until(lambda: any(event["event"] == "policy_waits" for event in events))
            assert (await broker.policy.evaluate(QUESTION)).revision == f"1:{FIRST.digest}"
            put(SECOND, tmp_path)
            await asyncio.to_thread(opa.restart)
            await until(lambda: broker.policy.revision == f"2:{SECOND.digest}")
            tenant = (await broker.ports.store.load(Query("default"))).tenant
            assert tenant.policy_revision == f"2:{SECOND.digest}"


async def test_what_is_wanted_last_counts(opa_server: Serve, tmp_path: Path, events: Said) -> None:
    folder = save(tmp_path / "policy", "first")
    with serving(opa_server, FIRST, tmp_path) as opa:
        async with broker_on(opa.url, tmp_path, watch_policy=True) as broker:
            for word in ("second", "third"):
                save(folder, word)
                digest = bundle_of(says(word)).digest
                await until(lambda: any(digest in event.get("why", "") for event in events))  # noqa: B023 - awaited here
            put(SECOND, tmp_path)
            await asyncio.to_thread(opa.restart)
            await asyncio.sleep(0.8)
            assert broker.policy.revision == f"1:{FIRST.digest}"
            assert await activations(broker) == [f"1:{FIRST.digest}"]
            put(bundle_of(says("third")), tmp_path)
            await asyncio.to_thread(opa.restart)
            await until(lambda: broker.policy.revision == f"2:{bundle_of(says('third')).digest}")


async def test_an_activation_under_way_is_finished(opa_server: Serve, tmp_path: Path, events: Said) -> None:
    """Recorded but not serving, it would answer nobody: an entry names a revision that no engine decides by."""
    save(tmp_path / "policy", "first")
    with serving(opa_server, FIRST, tmp_path) as opa:
        async with broker_on(opa.url, tmp_path) as broker:
            wanted = Wanted(broker, patient=True)
            assert await wanted.want(SECOND) is None
            async with broker.policy._turn:
                put(SECOND, tmp_path)
                await asyncio.to_thread(opa.restart)
                await until(wanted._acting.locked)
                stopping = asyncio.create_task(wanted.stop())
                await asyncio.sleep(0.1)
            await stopping
            assert broker.policy.revision == f"2:{SECOND.digest}"
            assert await activations(broker) == [f"1:{FIRST.digest}", f"2:{SECOND.digest}"]
    assert [event["event"] for event in events].count("policy_reloaded") == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"policy_engine": "opa"}, "policy_engine opa needs opa_url"),
        ({"opa_url": "http://127.0.0.1:8181"}, "opa_url only count with policy_engine opa"),
        ({"opa_url": "http://opa.example:8181"}, "OPA_URL: must be like"),
        ({"opa_url": "https://me:word@opa.example"}, "OPA_URL: must be like"),
        ({"opa_url": "https://opa.example/v1"}, "OPA_URL: must be like"),
        ({"opa_url": "https://opa.example:99999"}, "OPA_URL: must be like"),
        ({"opa_url": "unix://opa.sock"}, "OPA_URL: must be like"),
        ({"opa_url": "ftp://127.0.0.1"}, "OPA_URL: must be like"),
        ({"opa_timeout_ms": 1}, "OPA_TIMEOUT_MS: "),
    ],
)
def test_settings_that_do_not_fit(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        explicit_settings(**given)
    assert spelled(said) in str(caught.value)
    assert "word" not in str(caught.value)


async def test_files_that_are_not_what_they_should_be_are_named_at_the_start(tmp_path: Path) -> None:
    save(tmp_path / "policy", "first")
    empty = tmp_path / "empty"
    empty.write_text("")
    for name in ("opa_token_file", "opa_ca_file"):
        for path in (tmp_path / "missing", empty):
            with pytest.raises(SettingsError, match=rf"{name.upper()}: .*{path.name}"):
                async with broker_on("https://127.0.0.1:1", tmp_path, **{name: path}):
                    pytest.fail("it opened")
