"""Where the broker's keys come from, how long they are believed, and what a flood of unknown key ids may cost."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Thread

import httpx
import pytest

from stepgrant import errors
from stepgrant._keys import SecretKey, VerifyingKey
from stepgrant.verify import JwksSource, StaticKeys

URL = "https://broker.example/.well-known/jwks.json"


def entry(kid: str, key: SecretKey) -> dict[str, str]:
    return {**key.public.jwk, "kid": kid, "use": "sig", "alg": key.public.alg}


@dataclass
class Publisher:
    """A JWKS endpoint and the clock that the source goes by."""

    keys: list[dict[str, str]] = field(default_factory=lambda: [entry("k1", SecretKey.generate())])
    headers: dict[str, str] = field(default_factory=dict)
    answer: httpx.Response | Exception | None = None
    fetches: int = 0
    takes_s: float = 0
    now: float = 1000.0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert str(request.url) == URL
        self.fetches += 1
        time.sleep(self.takes_s)
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is not None:
            return httpx.Response(self.answer.status_code, headers=self.answer.headers, content=self.answer.content)
        return httpx.Response(200, json={"keys": self.keys}, headers=self.headers)

    def source(self) -> JwksSource:
        transport = httpx.MockTransport(self)
        return JwksSource(
            URL,
            client=httpx.Client(transport=transport),
            async_client=httpx.AsyncClient(transport=transport),
            clock=lambda: self.now,
        )


def find_sync(source: JwksSource, kid: str) -> VerifyingKey:
    return source.find_sync(kid)


def find_async(source: JwksSource, kid: str) -> VerifyingKey:
    return asyncio.run(source.find(kid))


BOTH = pytest.mark.parametrize("find", [find_sync, find_async])
Find = Callable[[JwksSource, str], VerifyingKey]


@BOTH
def test_keys_are_fetched_once_and_renewed_when_their_time_is_over(find: Find) -> None:
    publisher = Publisher()
    source = publisher.source()
    first = find(source, "k1")
    publisher.now += 299
    find(source, "k1")
    assert publisher.fetches == 1
    publisher.now += 2
    publisher.keys = [entry("k1", SecretKey.generate())]

    assert find(source, "k1") != first
    assert publisher.fetches == 2


@BOTH
@pytest.mark.parametrize(
    ("max_age", "seconds"), [("max-age=600", 600), ("public, max-age=1", 300), ("max-age=9999999", 86_400)]
)
def test_the_time_is_the_publishers_within_our_bounds(find: Find, max_age: str, seconds: int) -> None:
    publisher = Publisher(headers={"cache-control": max_age})
    source = publisher.source()
    find(source, "k1")
    publisher.now += seconds - 1
    find(source, "k1")
    assert publisher.fetches == 1
    publisher.now += 1
    find(source, "k1")
    assert publisher.fetches == 2


@BOTH
def test_a_new_key_is_found_at_once_but_unknown_ones_cannot_make_a_flood(find: Find) -> None:
    publisher = Publisher()
    source = publisher.source()
    find(source, "k1")
    publisher.now += 31
    publisher.keys.append(entry("k2", SecretKey.generate("EdDSA")))
    assert find(source, "k2").alg == "EdDSA"
    for number in range(100):
        with pytest.raises(errors.InvalidToken) as caught:
            find(source, f"made-up-{number}")
        assert caught.value.reason == "unknown_key"
    assert publisher.fetches == 2
    publisher.now += 31
    with pytest.raises(errors.InvalidToken):
        find(source, "made-up")
    assert publisher.fetches == 3


FAILURES = [
    httpx.ConnectError("no"),
    httpx.Response(500, json={"keys": []}),
    httpx.Response(302, headers={"location": "https://evil.example"}),
    httpx.Response(200, text="<html>"),
    httpx.Response(200, json={"keys": {}}),
    httpx.Response(200, json={"keys": [{}] * 101}),
    httpx.Response(200, content=b'{"keys":[],"keys":[]}'),
    httpx.Response(200, content=b" " * 600_000 + b"{}"),
]


@BOTH
@pytest.mark.parametrize("failure", FAILURES)
def test_the_last_good_keys_serve_for_a_day_when_fetching_fails(
    find: Find, failure: httpx.Response | Exception
) -> None:
    publisher = Publisher()
    source = publisher.source()
    key = find(source, "k1")
    publisher.answer = failure
    publisher.now += 86_399
    assert find(source, "k1") == key
    publisher.now += 2
    with pytest.raises(errors.VerificationUnavailable) as caught:
        find(source, "k1")

    assert (caught.value.reason, caught.value.retry_after) == ("keys_unavailable", 5)


@BOTH
@pytest.mark.parametrize("failure", FAILURES)
def test_without_keys_nothing_verifies_and_the_publisher_is_not_hammered(
    find: Find, failure: httpx.Response | Exception
) -> None:
    publisher = Publisher(answer=failure)
    source = publisher.source()
    for _ in range(20):
        with pytest.raises(errors.VerificationUnavailable):
            find(source, "k1")
    assert publisher.fetches == 1
    publisher.answer = None
    publisher.now += 5

    assert find(source, "k1").alg == "ES256"


def test_threads_share_one_fetch() -> None:
    publisher = Publisher(takes_s=0.05)
    source = publisher.source()
    found: list[str] = []
    threads = [Thread(target=lambda: found.append(source.find_sync("k1").jkt)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(found)) == 1
    assert (len(found), publisher.fetches) == (8, 1)


async def test_tasks_share_one_fetch() -> None:
    publisher = Publisher()

    async def slowly(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.02)
        return publisher(request)

    source = JwksSource(URL, async_client=httpx.AsyncClient(transport=httpx.MockTransport(slowly)))
    found = await asyncio.gather(*(source.find("k1") for _ in range(8)))

    assert (len(found), publisher.fetches) == (8, 1)


def test_the_default_client_reaches_loopback_and_nothing_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:8080")
    source = JwksSource("http://127.0.0.1:1/jwks.json", timeout_s=1)
    with pytest.raises(errors.VerificationUnavailable):
        source.find_sync("k1")
    with pytest.raises(errors.VerificationUnavailable):
        asyncio.run(JwksSource("http://127.0.0.1:1/jwks.json", timeout_s=1).find("k1"))


@pytest.mark.parametrize(
    "url",
    [
        "http://broker.example/jwks.json",
        "ftp://broker.example/jwks.json",
        "https:///jwks.json",
        "/jwks.json",
        "https://user:pass@broker.example/jwks.json",
        "http://127.0.0.1.evil.example/jwks.json",
        "https://[::1/",
    ],
)
def test_keys_come_over_https_or_from_this_machine(url: str) -> None:
    with pytest.raises(errors.ConfigurationError):
        JwksSource(url)


def test_a_jwks_gives_its_usable_keys_only() -> None:
    good = entry("k1", SecretKey.generate())
    others: list[dict[str, object]] = [
        {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "rsa"},
        {**good, "kid": "enc", "use": "enc"},
        {**good, "kid": 5},
        {**good, "kid": "private", "d": "AA"},
    ]
    source = StaticKeys({"keys": [*others, good, "text"]})

    assert source.find_sync("k1").alg == "ES256"
    for kid in ("rsa", "enc", "private", "k2"):
        with pytest.raises(errors.InvalidToken) as caught:
            source.find_sync(kid)
        assert caught.value.reason == "unknown_key"


def test_a_kid_that_names_two_keys_is_no_jwks() -> None:
    with pytest.raises(errors.ConfigurationError, match="two keys with one kid"):
        StaticKeys({"keys": [entry("k1", SecretKey.generate()), entry("k1", SecretKey.generate())]})
