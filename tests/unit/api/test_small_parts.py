"""Limits, metrics, readiness, where to listen, and one request read straight from ASGI."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fakes.hand import Hand, hand
from stepgrant_broker.api.context import ApiSettings
from stepgrant_broker.api.health import Health
from stepgrant_broker.api.limiting import NAMES_KEPT, Buckets
from stepgrant_broker.api.messages import FORM, JSON, ClientGoneError, Incoming
from stepgrant_broker.api.metrics import MeteredStore, Metrics
from stepgrant_broker.api.serve import UnsafeBind, refuse_unsafe_bind
from stepgrant_broker.domain.errors import (
    FateUnknown,
    InvalidRequest,
    SignerUnavailable,
    StoreUnavailable,
    TooLarge,
    UnsupportedMediaType,
)
from stepgrant_broker.domain.ports import PublicKey, Signature
from stepgrant_broker.domain.refusals import VersionMoved
from stepgrant_broker.domain.writes import Loaded, Query, Tenant, WriteSet

OPERATORS = Path(__file__).parents[3] / "deploy" / "README.md"

# -------------------------------------------------------------------------------------------------------------- limits


def test_a_burst_and_then_a_steady_rate() -> None:
    buckets = Buckets(2, 0.5)

    assert [buckets.take("a", 100.0) for _ in range(3)] == [0, 0, 2.0]
    assert buckets.take("b", 100.0) == 0
    assert buckets.take("a", 101.0) == 1.0
    assert buckets.take("a", 102.0) == 0
    assert buckets.take("a", 102.0) == 2.0


def test_a_clock_that_jumps_back_gives_nothing() -> None:
    buckets = Buckets(1, 1)
    assert buckets.take("a", 100.0) == 0

    assert buckets.take("a", 1.0) == 1.0
    assert buckets.take("a", 2.0) == 0


def test_the_names_that_are_kept_are_bounded() -> None:
    buckets = Buckets(1, 1)
    for number in range(NAMES_KEPT + 10):
        buckets.take(str(number), 1.0)

    assert len(buckets._buckets) == NAMES_KEPT


@pytest.mark.parametrize(("burst", "rate"), [(0, 1.0), (1, 0.0), (1, -1.0)])
def test_a_limit_that_lets_nothing_through_is_refused(burst: int, rate: float) -> None:
    with pytest.raises(ValueError, match="a limit lets at least one through"):
        Buckets(burst, rate)


# ------------------------------------------------------------------------------------------------------------- metrics


def test_the_text_is_what_prometheus_reads() -> None:
    metrics = Metrics()
    metrics.request("/v1/runs", "POST", 200, 0.002)
    metrics.request("/v1/runs", "POST", 200, 0.2)
    metrics.outcome("begin", "run")
    metrics.swept(3)
    lines = metrics.text().splitlines()

    assert 'stepgrant_requests_total{route="/v1/runs",method="POST",status="200"} 2' in lines
    assert 'stepgrant_request_seconds_bucket{route="/v1/runs",method="POST",le="0.001"} 0' in lines
    assert 'stepgrant_request_seconds_bucket{route="/v1/runs",method="POST",le="0.0025"} 1' in lines
    assert 'stepgrant_request_seconds_bucket{route="/v1/runs",method="POST",le="+Inf"} 2' in lines
    assert 'stepgrant_request_seconds_sum{route="/v1/runs",method="POST"} 0.202' in lines
    assert 'stepgrant_outcomes_total{call="begin",outcome="run"} 1' in lines
    assert "stepgrant_swept_runs_total 3" in lines
    assert "# TYPE stepgrant_commit_seconds histogram" in lines


def test_the_writers_queue_is_read_at_each_scrape() -> None:
    metrics, lengths = Metrics(), iter([3, 0])
    metrics.watch_queue(lambda: next(lengths))
    for length in (3, 0):
        assert f"stepgrant_store_queue_length {length}" in metrics.text().splitlines()


def test_what_operators_are_told_to_alarm_on_is_there() -> None:
    named = set(re.findall(r"`(stepgrant_[a-z_]+)", OPERATORS.read_text(encoding="utf-8")))
    metrics = Metrics()
    metrics.watch_vault(lambda: True)
    given = {line.split()[2] for line in metrics.text().splitlines() if line.startswith("# TYPE")}
    assert len(named) > 10
    assert named <= given


@dataclass
class StubbornStore:
    """A store that answers each commit with the next of these."""

    results: list[Exception | None]

    def recall(self, _query: Query) -> Loaded | None:
        return None

    async def load(self, query: Query) -> Loaded:
        raise StoreUnavailable("locked")

    async def commit(self, writes: WriteSet) -> None:
        result = self.results.pop(0)
        if result is not None:
            raise result

    async def close(self) -> None:
        self.results.clear()


async def test_commits_and_failures_of_the_store_are_counted_and_passed_on() -> None:
    metrics = Metrics()
    inner = StubbornStore([None, VersionMoved("moved"), FateUnknown("lost")])
    store = MeteredStore(inner, metrics)
    writes = WriteSet("acme", None, 0)

    await store.commit(writes)
    with pytest.raises(VersionMoved):
        await store.commit(writes)
    with pytest.raises(FateUnknown):
        await store.commit(writes)
    with pytest.raises(StoreUnavailable):
        await store.load(Query("acme"))
    lines = metrics.text().splitlines()
    for result in ("done", "refused", "failed"):
        assert f'stepgrant_commits_total{{result="{result}"}} 1' in lines
    assert 'stepgrant_store_errors_total{kind="FateUnknown"} 1' in lines
    assert 'stepgrant_store_errors_total{kind="StoreUnavailable"} 1' in lines
    assert "stepgrant_commit_seconds_count 3" in lines
    await store.close()
    assert inner.results == []


# -------------------------------------------------------------------------------------------------------------- health


@dataclass
class NoSigner:
    """A signer without keys."""

    asked: int = 0

    async def public_keys(self, purpose: str) -> tuple[PublicKey, ...]:
        return ()

    async def sign(self, purpose: str, data: bytes) -> Signature:
        self.asked += 1
        raise SignerUnavailable("no key")


async def test_readiness_really_asks_all_three_and_remembers_it_for_a_moment(tmp_path: Path) -> None:
    async with hand(tmp_path) as held:
        assert await Health(held.ports).checks() == {"store": "ok", "policy": "ok", "signer": "ok"}
        signer = NoSigner()
        health = Health(replace(held.ports, signer=signer))
        for _ in range(5):
            assert (await health.checks())["signer"] == "failed"
        assert signer.asked == 1
        held.clock.tick(1_000)
        await health.checks()
        assert signer.asked == 2
        await _breaks_one_by_one(held)


async def _breaks_one_by_one(held: Hand) -> None:
    await held.engine.close()
    assert await Health(held.ports).checks() == {"store": "ok", "policy": "failed", "signer": "ok"}
    await held.store.close()
    assert (await Health(held.ports).checks())["store"] == "failed"


# ----------------------------------------------------------------------------------------------------- where to listen


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "::ffff:127.0.0.1"])
def test_loopback_needs_no_tls(host: str) -> None:
    refuse_unsafe_bind(host, tls=False, proxy_terminates_tls=False)


ELSEWHERE = ["0.0.0.0", "::", "", "10.0.0.1", "broker.example", "localhost.example", "::ffff:10.0.0.1", "127.1"]  # noqa: S104


@pytest.mark.parametrize("host", ELSEWHERE)
def test_anything_else_needs_tls_or_the_operators_word(host: str) -> None:
    with pytest.raises(UnsafeBind) as refused:
        refuse_unsafe_bind(host, tls=False, proxy_terminates_tls=False)
    assert refused.value.code == "unsafe_bind"
    assert "proxy_terminates_tls" in str(refused.value)

    refuse_unsafe_bind(host, tls=True, proxy_terminates_tls=False)
    refuse_unsafe_bind(host, tls=False, proxy_terminates_tls=True)


@pytest.mark.parametrize(
    "url", ["broker.example", "ftp://b", "http://b/", "http://user@b", "http://b?x=1", "http://b#f"]
)
def test_a_public_url_that_no_proof_could_match_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|public_url"):
        ApiSettings(url)


# ------------------------------------------------------------------------------------------------------------ requests

Message = dict[str, Any]


def incoming(*messages: Message, headers: tuple[tuple[bytes, bytes], ...] = (), path: bytes = b"/v1/runs") -> Incoming:
    waiting = list(messages)

    async def receive() -> Message:
        return waiting.pop(0)

    return Incoming({"method": "POST", "path": path.decode(), "raw_path": path, "headers": list(headers)}, receive)


def part(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_body_is_read_to_its_end_and_not_beyond_its_limit() -> None:
    assert await incoming(part(b"ab", more=True), part(b"", more=True), part(b"c")).body(3) == b"abc"
    with pytest.raises(TooLarge):
        await incoming(part(b"ab", more=True), part(b"cd", more=True)).body(3)


async def test_an_announced_length_is_believed_only_to_refuse() -> None:
    unread = incoming(headers=((b"content-length", b"4"),))
    with pytest.raises(TooLarge):
        await unread.body(3)
    with pytest.raises(TooLarge):
        await incoming(part(b"abcd"), headers=((b"content-length", b"1"),)).body(3)


@pytest.mark.parametrize("length", [b"-1", b"x", b"", b"1e3", b"9" * 30, "٣".encode(), b"+1"])
async def test_a_length_that_is_none_is_refused(length: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await incoming(part(b""), headers=((b"content-length", length),)).body(3)
    assert refused.value.field == "Content-Length"


async def test_a_client_that_left_is_told_nothing() -> None:
    with pytest.raises(ClientGoneError):
        await incoming(part(b"a", more=True), {"type": "http.disconnect"}).body(3)


@pytest.mark.parametrize(
    "kind", [b"application/json", b"Application/JSON; charset=utf-8", b'application/json;charset="UTF-8"']
)
def test_the_content_type_of_a_call(kind: bytes) -> None:
    incoming(headers=((b"content-type", kind),)).require_type(JSON)


@pytest.mark.parametrize("kind", [b"", b"text/json", b"application/json; charset=latin-1", b"application/jsonx", FORM])
def test_another_content_type_is_refused(kind: bytes) -> None:
    refuse: Callable[..., None] = incoming(headers=((b"content-type", kind),)).require_type
    with pytest.raises(UnsupportedMediaType):
        refuse(JSON)
    with pytest.raises(UnsupportedMediaType):
        incoming(headers=((b"content-type", JSON), (b"content-type", JSON))).require_type(JSON)


def test_the_path_is_the_one_that_was_sent() -> None:
    assert incoming(path=b"/v1/runs/a%3Ab").path == "/v1/runs/a%3Ab"
    without = Incoming({"method": "GET", "path": "/v1/é", "headers": []}, incoming().receive)
    assert without.path == "/v1/%C3%A9"


def test_a_tenant_is_not_needed_to_count() -> None:
    assert Tenant("acme", 0, "", 0).id not in Metrics().text()
