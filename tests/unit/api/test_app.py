"""The straight way to the hot endpoints: it serves what the long way would serve, and nothing else."""

from typing import Any

import pytest
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from stepgrant_broker.api.app import HOT, App, _shape


class Recorder:
    """An endpoint that says which way its call came, and with which names."""

    def __init__(self) -> None:
        self.calls: list[tuple[bool, dict[str, str]]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls.append(("router" in scope, dict(scope["path_params"])))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def status_of(app: App, method: str, path: str, **more: Any) -> int:  # noqa: ANN401 - members of a scope
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [],
        "query_string": b"",
        "root_path": "",
        **more,
    }
    await app(scope, receive, send)
    return int(sent[0]["status"])


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def app(recorder: Recorder) -> App:
    app = App(openapi_url=None, redirect_slashes=False)
    paths = [*(endpoint.path for endpoint in HOT), "/v1/things/{thing}/begin"]
    app.serve([Route(path, recorder, methods=["POST"]) for path in paths])
    return app


def test_no_two_hot_paths_look_alike() -> None:
    assert len({_shape(endpoint.path) for endpoint in HOT}) == len({endpoint.path for endpoint in HOT})


async def test_every_hot_path_goes_straight_with_its_names(app: App, recorder: Recorder) -> None:
    for endpoint in HOT:
        path = endpoint.path.format(run="run_1", step="a:b~c", jti="grn_1")
        named = {
            name: value for name, value in (("run", "run_1"), ("step", "a:b~c"), ("jti", "grn_1")) if value in path
        }

        assert await status_of(app, "POST", path) == 200
        assert recorder.calls.pop() == (False, named)


async def test_the_rest_goes_the_long_way(app: App, recorder: Recorder) -> None:
    assert await status_of(app, "POST", "/v1/things/t/begin") == 200
    assert recorder.calls.pop() == (True, {"thing": "t"})
    assert await status_of(app, "POST", "/base/v1/runs/r/heartbeat", root_path="/base") == 200
    assert recorder.calls.pop() == (True, {"run": "r"})


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/runs/r/steps/s/begin", 405),
        ("POST", "/v1/other/r/steps/s/begin", 404),
        ("POST", "/v1/runs//steps/s/begin", 404),
        ("POST", "/v1/runs/r/steps/s/begin/", 404),
        ("POST", "/v1/runs/r/x/steps/s/begin", 404),
    ],
)
async def test_what_only_looks_like_a_hot_path_is_refused(
    app: App, recorder: Recorder, method: str, path: str, status: int
) -> None:
    assert await status_of(app, method, path) == status
    assert recorder.calls == []
