"""Two thousand begins through a whole broker while its OPA is killed, frozen, stopped and comes back."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from faults.loading import Load
from opas import Serve, serving
from stepgrant_broker.policy.bundle import read_starter
from stepgrant_broker.testing import start

BEGINS: Final = 2_048
BACK_S: Final = 2.0


@pytest.mark.timeout(900)
def test_opa_goes_and_comes_back_during_two_thousand_begins(opa_server: Serve, tmp_path: Path) -> None:
    backs = []
    with ExitStack() as stack:
        opa = stack.enter_context(serving(opa_server, read_starter(), tmp_path))
        folder = tmp_path / "broker"
        host = stack.enter_context(start(folder, lease_s=300, policy_engine="opa", opa_url=opa.url, opa_timeout_ms=500))
        load = Load(host, BEGINS, effect="read")
        load.start(stack)
        for at, harm, mend in ((0.25, opa.kill, opa.start), (0.5, opa.pause, opa.resume), (0.75, opa.stop, opa.start)):
            load.until(int(BEGINS * at))
            harm()
            time.sleep(1.0)
            mend()
            backs.append(load.back_after(time.monotonic()))
        load.finish()
        load.check()
    assert set(load.story.refused) == {"policy_unavailable"}
    assert max(backs) < BACK_S
