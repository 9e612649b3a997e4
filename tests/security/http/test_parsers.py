"""Whatever bytes arrive, the answer is a named refusal: never a 5xx, never an exception, never a grant."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import given
from hypothesis import strategies as st

from fakes.served import Broker, Caller, fresh_key, served, step_body
from stepgrant_broker.api.app import ENDPOINTS
from stepgrant_broker.api.problems import STATUSES
from stepgrant_broker.api.routing import WITH_BODY, Needs
from stepgrant_broker.domain.reads import Page

T = TypeVar("T")
Header = tuple[bytes, bytes]
FIRST_SERVER_ERROR = 500


@dataclass
class Raw:
    """A broker, and ASGI messages to it that no client library would send."""

    broker: Broker
    agent: Caller
    run_in_loop: Callable[[Awaitable[Any]], Any]
    statuses: set[int] = field(default_factory=set)

    def proven(self, method: str, path: str, *, person: bool = False) -> list[Header]:
        """Headers that prove who calls, so that what comes after them is reached."""
        if person:
            return [(b"authorization", f"Bearer {self.broker.people['olga']}".encode())]
        return [(name.encode(), text.encode()) for name, text in self.agent.headers(method, path).items()]

    def send(
        self, method: str, path: str, headers: list[Header], body: bytes = b"", query: bytes = b"", pieces: int = 1
    ) -> dict[str, Any]:
        """One request; the problem document, if the answer is one. Raises if nothing, or a 5xx, was answered."""
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": path, "raw_path": path.encode("utf-8", "surrogatepass"), "query_string": query, "root_path": "",
            "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8423),
        }  # fmt: skip
        size = max(1, -(-len(body) // pieces))
        parts = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
        waiting = [{"type": "http.request", "body": part, "more_body": part is not parts[-1]} for part in parts]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return waiting.pop(0) if waiting else {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(dict(message))

        self.run_in_loop(self.broker.app(scope, receive, send))
        start, *rest = sent
        text = b"".join(message["body"] for message in rest)
        self.statuses.add(start["status"])
        assert start["status"] < FIRST_SERVER_ERROR, text
        document = dict(json.loads(text)) if text[:1] == b"{" else {}
        if start["status"] >= 400 and path != "/oauth/token":
            assert (b"content-type", b"application/problem+json") in start["headers"]
            assert document["code"] in STATUSES
        return document


@contextmanager
def raw(folder: Path) -> Iterator[Raw]:
    with asyncio.Runner() as runner:
        context = served(folder)
        broker = runner.run(context.__aenter__())

        def run_in_loop(wanted: Awaitable[T]) -> T:
            async def wait() -> T:
                return await wanted

            return runner.run(wait())

        try:
            yield Raw(broker, run_in_loop(broker.agent()), run_in_loop)
        finally:
            runner.run(context.__aexit__(None, None, None))


def granted(one: Raw) -> bool:
    return bool(one.run_in_loop(one.broker.ports.reads.grants("acme", Page(10))).rows)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
WRITING = [endpoint for endpoint in ENDPOINTS if endpoint.method in WITH_BODY and endpoint.needs is not Needs.NOBODY]
VALID: dict[str, Any] = {
    **step_body(), "agent": "agent", "run_key": "job", "attempt": 1, "outcome": "failed", "name": "plan", "result": 1,
    "redemption_id": "r", "args_digest": "sha-256:" + "A" * 43, "proof_jti": "p", "verdict": "done", "via": "a",
    "reason": "requested", "digest": "sha-256:" + "A" * 43, "jwk": {}, "roles": ["approver"], "hosts": ["h"],
    "value": "v", "run": "run_1", "takeover": False, "labels": {}, "withheld": False, "error": "e", "evidence": "e",
    "settle_s": 1, "ttl_s": 5, "params": {}, "not_received": False, "header": "H", "groups": [], "audiences": ["a"],
}  # fmt: skip


def members(endpoint: Any) -> list[str]:  # noqa: ANN401
    return list(endpoint.takes.__struct_fields__)


def path_of(endpoint: Any) -> str:  # noqa: ANN401
    return str(endpoint.path.replace("{", "").replace("}", ""))


def as_json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=True).encode()


def test_random_bytes_as_a_body(tmp_path: Path) -> None:
    with raw(tmp_path) as one:

        @given(st.sampled_from(WRITING), st.binary(max_size=200), st.integers(1, 4))
        def attack(endpoint: Any, body: bytes, pieces: int) -> None:  # noqa: ANN401
            path = path_of(endpoint)
            headers = one.proven(endpoint.method, path, person=endpoint.needs is Needs.PERSON)
            headers += [(b"content-type", b"application/json"), (b"idempotency-key", fresh_key().encode())]
            one.send(endpoint.method, path, headers, body, pieces=pieces)

        attack()
        assert one.statuses <= {400, 422}
        assert not granted(one)


def test_any_json_in_any_member(tmp_path: Path) -> None:
    with raw(tmp_path) as one:
        one.run_in_loop(one.agent.open())

        @given(st.sampled_from(WRITING), st.data(), JSON)
        def attack(endpoint: Any, data: st.DataObject, value: object) -> None:  # noqa: ANN401
            path = path_of(endpoint)
            body = {name: VALID[name] for name in members(endpoint) if name in VALID}
            if members(endpoint):
                body[data.draw(st.sampled_from(members(endpoint)))] = value
            headers = one.proven(endpoint.method, path, person=endpoint.needs is Needs.PERSON)
            headers += [(b"content-type", b"application/json"), (b"idempotency-key", fresh_key().encode())]
            one.send(endpoint.method, path, headers, as_json(body))

        attack()
        assert not granted(one)


def test_any_json_in_the_action_of_a_run_that_is_held(tmp_path: Path) -> None:
    with raw(tmp_path) as one:
        run = one.run_in_loop(one.agent.open())["run"]

        @given(st.sampled_from(["tool", "resource", "args", "args_digest"]), st.sampled_from(members(WRITING[0])), JSON)
        def attack(inner: str, outer: str, value: object) -> None:
            path = f"/v1/runs/{run}/steps/s1/prepare"
            for body in ({**step_body(), outer: value}, step_body()):
                if body == step_body():
                    body["action"][inner] = value
                headers = one.proven("POST", path)
                headers += [(b"content-type", b"application/json"), (b"idempotency-key", fresh_key().encode())]
                one.send("POST", path, headers, as_json(body))

        attack()
        assert not granted(one)


PATH_TEXT = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=30)


def test_any_path_and_query(tmp_path: Path) -> None:
    reading = [endpoint for endpoint in ENDPOINTS if endpoint.method == "GET" and endpoint.needs is not Needs.NOBODY]
    with raw(tmp_path) as one:

        @given(st.sampled_from(reading), PATH_TEXT, st.binary(max_size=60))
        def attack(endpoint: Any, text: str, query: bytes) -> None:  # noqa: ANN401
            parts = [text if part.startswith("{") else part for part in endpoint.path.split("/")]
            one.send("GET", "/".join(parts), one.proven("GET", "/", person=True), query=query)

        attack()
        assert one.statuses <= {200, 400, 404}


HEADER = st.binary(max_size=80)
OPTIONAL = {"requested_token_type", "audience", "scope", "x"}


def test_any_bytes_in_the_headers_that_count(tmp_path: Path) -> None:
    names = [b"authorization", b"dpop", b"idempotency-key", b"content-type", b"content-length"]
    with raw(tmp_path) as one:

        @given(st.lists(st.tuples(st.sampled_from(names), HEADER), max_size=6), st.sampled_from(names), HEADER)
        def attack(headers: list[Header], name: bytes, value: bytes) -> None:
            one.send("POST", "/v1/runs", headers, b"{}")
            good = [*one.proven("POST", "/v1/runs"), (b"content-type", b"application/json"), (b"idempotency-key", b"k")]
            one.send("POST", "/v1/runs", [(k, value if k == name else v) for k, v in good], b'{"agent": "other"}')

        attack()
        assert one.statuses <= {400, 401, 403, 413, 415, 422}
        assert not granted(one)


def test_any_form_at_the_token_endpoint(tmp_path: Path) -> None:
    names = ["grant_type", "subject_token", "subject_token_type", "requested_token_type", "audience", "scope", "x"]
    with raw(tmp_path) as one:
        fresh = Caller(one.broker, one.broker.agent_key, nonce=one.agent.nonce)

        @given(st.binary(max_size=200), st.sampled_from(names), HEADER, st.booleans())
        def attack(body: bytes, name: str, value: bytes, form: bool) -> None:  # noqa: FBT001
            if form:
                good = fresh.request().form(one.broker.now_s)
                body = (
                    b"&".join(f"{k}={v}".encode() for k, v in good.items() if k != name)
                    + b"&"
                    + name.encode()
                    + b"="
                    + value
                )
            headers = fresh.request().headers(fresh.nonce, one.broker.now_s)
            sent = [(k.encode(), v.encode()) for k, v in headers.items()]
            answer = one.send(
                "POST", "/oauth/token", [*sent, (b"content-type", b"application/x-www-form-urlencoded")], body
            )
            assert "access_token" not in answer or name in OPTIONAL
            assert answer.keys() in (
                {"error", "error_description"},
                {"access_token", "token_type", "issued_token_type", "expires_in"},
            )

        attack()
