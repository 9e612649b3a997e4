"""OPA pulls the bundle itself (its bundle plugin), and the new one takes the place of the old under load."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from engines import PATIENCE_S
from fakes.wired import says, until
from opas import Serve, put
from policies import call
from stepgrant_broker.domain.errors import PolicyUnavailable
from stepgrant_broker.policy.contract import parse
from stepgrant_broker.policy.opa import OpaEngine, OpaOptions
from stepgrant_broker.policy.opa_place import Place
from stepgrant_broker.wiring import Bundle, bundle_of

FIRST, SECOND = bundle_of(says("first")), bundle_of(says("second"))


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        return


@contextmanager
def files(folder: Path) -> Iterator[str]:
    """A web server over a folder; its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_no_answer_of_the_new_policy_is_taken_for_one_of_the_old(opa_server: Serve, tmp_path: Path) -> None:
    put(FIRST, tmp_path)
    with files(tmp_path) as url:
        options = [
            f"--set=services.files.url={url}", "--set=bundles.stepgrant.service=files",
            "--set=bundles.stepgrant.resource=bundle.tar.gz", "--set=bundles.stepgrant.polling.min_delay_seconds=1",
            "--set=bundles.stepgrant.polling.max_delay_seconds=1",
        ]  # fmt: skip
        with opa_server(options=options) as opa:
            await _swapped(Place(opa.url), tmp_path)


async def _swapped(place: Place, folder: Path) -> None:
    made = [
        OpaEngine(OpaOptions(place, bundle="stepgrant", deadline_s=PATIENCE_S), decision_ids=lambda: "dec_1")
        for _ in range(2)
    ]
    old, new = made
    seen: dict[str, set[str]] = {"old": set(), "new": set()}

    async def ask(name: str, engine: OpaEngine) -> None:
        while True:
            try:
                decision = parse((await engine.evaluate(call())).raw)
                seen[name].update(decision.reasons)
            except PolicyUnavailable as fault:
                seen[name].add(fault.detail.partition(",")[0])
            await asyncio.sleep(0.005)

    await _until_loaded(old, "1:" + FIRST.digest, FIRST)
    new._revision, new._digest = "2:" + SECOND.digest, SECOND.digest
    asking = [asyncio.create_task(ask(name, one)) for name, one in zip(seen, made, strict=True) for _ in range(4)]
    await until(lambda: "first" in seen["old"])
    put(SECOND, folder)
    await until(lambda: "second" in seen["new"])
    await until(lambda: len(seen["old"]) > 1)
    await asyncio.sleep(0.2)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    assert seen["old"] == {"first", f"OPA has another policy loaded: {SECOND.digest}"}
    assert seen["new"] == {"second", f"OPA has another policy loaded: {FIRST.digest}"}
    for engine in made:
        await engine.close()


async def _until_loaded(engine: OpaEngine, revision: str, bundle: Bundle) -> None:
    for _ in range(400):
        try:
            await engine.load(revision, bundle)
        except PolicyUnavailable:
            await asyncio.sleep(0.1)
        else:
            return
    pytest.fail("OPA did not pull the bundle")
