"""The broker under test, as a process of its own: embedded defaults or given settings, all checks on.

It does around the broker what `stepgrant serve` does: garbage is looked for as there, and all is kept on one CPU.

It ends with its standard input.

Prints `{"url", "key", "token"}` (where it answers, an enrolled workload's key file, an operator's token), and then for
each line that it reads `{"commits"}`, its durable transactions so far.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from stepgrant.cli import garbage
from stepgrant_broker.config import explicit_settings
from stepgrant_broker.wiring import build, bundle_of, configure_logs, listen
from stepgrant_broker.wiring.bootstrap import enrol_workload, new_operator
from stepgrant_broker.wiring.one_cpu import home_of, together
from stepgrant_broker.wiring.server import new_event_loop, served

POLICY = {"stepgrant/main.rego": Path(__file__).with_name("policy.rego").read_text()}


async def main(folder: Path, more: dict[str, Any]) -> None:
    """Serve until the parent closes the pipe. `more`: further settings, and `policy`, a text instead of ours."""
    policy = {"stepgrant/main.rego": more.pop("policy")} if "policy" in more else POLICY
    # No run of an earlier round lapses: the sweeper's commits that park it would be counted as those of calls.
    lease = {"lease_ms": 3_600_000}
    given = {"data_dir": folder, "host": "127.0.0.1", "port": 0, "log_level": "error", **lease, **more}
    listening = listen(explicit_settings(**given))
    settings = explicit_settings(**{**given, "port": listening.port, "public_url": listening.url})
    configure_logs(level="error")
    home = home_of(settings)
    async with build(settings, create=True, policy=bundle_of(policy)) as broker, together(home):
        key = folder / "bench.key.json"
        await enrol_workload(broker, key, "bench", agents=["bench"])
        _, token = await new_operator(broker, "bench")
        async with served(broker, listening) as url:
            garbage.loaded()
            print(json.dumps({"url": url, "key": str(key), "token": token}), flush=True)
            while await asyncio.to_thread(sys.stdin.readline):
                print(json.dumps({"commits": str(broker.store.commits)}), flush=True)


if __name__ == "__main__":
    garbage.begin()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main(Path(sys.argv[1]), json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}))
