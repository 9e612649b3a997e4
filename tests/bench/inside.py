"""The step without HTTP, as a process of its own: use cases begin and complete on the embedded defaults.

Prints `{"p50_ms": …}`.
"""

import asyncio
import json
import statistics
import sys
import time
import uuid
from pathlib import Path

from changing import replace
from stepgrant import canonical
from stepgrant_broker.config import explicit_settings
from stepgrant_broker.domain.caller import AgentCaller, Request
from stepgrant_broker.domain.calls import StepCall
from stepgrant_broker.domain.decisions import Effect, Json
from stepgrant_broker.domain.outcomes import Result
from stepgrant_broker.domain.state import IdSource
from stepgrant_broker.domain.writes import ProofUse
from stepgrant_broker.usecases.begin import begin
from stepgrant_broker.usecases.complete import complete
from stepgrant_broker.usecases.open import OpenCall, open_run
from stepgrant_broker.wiring import build, bundle_of, configure_logs
from stepgrant_broker.wiring.bootstrap import enrol_workload
from stepgrant_broker.wiring.server import new_event_loop

POLICY = {"stepgrant/main.rego": Path(__file__).with_name("policy.rego").read_text()}


def request() -> Request:
    """A request of its own."""
    return Request(str(uuid.uuid4()), b"{}")


async def main(folder: Path, count: int) -> None:
    """Take `count` steps, after some to warm up."""
    settings = explicit_settings(data_dir=folder, host="127.0.0.1", log_level="error")
    configure_logs(level="error")
    async with build(settings, create=True, policy=bundle_of(POLICY)) as broker:
        key = await enrol_workload(broker, folder / "k.json", "bench", agents=["bench"])
        workload = await broker.ports.reads.workload(key.workload_id)
        if workload is None:
            raise RuntimeError("not enrolled")
        now = broker.ports.clock.now()
        still = AgentCaller(
            workload.tenant, "workload:bench", "enrolled_key", workload.tenant, {}, workload, "jkt", now,
            now + 3_600_000, "sha-256:e", ProofUse("p", now), "p",
        )  # fmt: skip

        def me() -> AgentCaller:
            proof = str(uuid.uuid4())
            return replace(still, proof=ProofUse(proof, now + 900_000), proof_jti=proof)

        opened = await open_run(
            broker.ports, me(), OpenCall("in", "bench", None, None, {}, None, takeover=False), request()
        )
        times = []
        for number in range(count + 100):
            step = f"s{number}"
            args: dict[str, Json] = {"n": number}
            preimage = canonical.action_bytes("bench.read", None, args)
            call = StepCall(
                step, 1, "bench.read", None, args, canonical.digest_bytes(preimage), preimage, Effect.READ,
                IdSource.EXPLICIT,
            )  # fmt: skip
            started = time.perf_counter()
            await begin(broker.ports, me(), opened["run"], call, request())
            await complete(broker.ports, me(), opened["run"], step, 1, 1, Result(b"1"), request())
            times.append((time.perf_counter() - started) * 1000)
    print(json.dumps({"p50_ms": str(statistics.median(times[100:]))}), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main(Path(sys.argv[1]), int(sys.argv[2])))
