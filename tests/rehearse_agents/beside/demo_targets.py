"""The five services of `stepgrant demo`, beside its agent while that is rehearsed. Usage: demo_targets.py ADDRESSES."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from stepgrant.cli.cmd_workloads import enroll_with_new_key
from stepgrant.cli.command import Cli


def answers(url: str) -> bool:
    """Whether it is up."""
    try:
        return httpx.get(f"{url}/healthz", trust_env=False, timeout=1).is_success
    except httpx.TransportError:
        return False


def main() -> None:
    """Enrol and start them; whoever started this ends them."""
    cli, addresses = Cli(), json.loads(sys.argv[1])
    url = cli.client().url
    folder = Path(tempfile.mkdtemp(dir=Path.cwd()))
    for name, address in addresses.items():
        key = folder / f"{name}.json"
        enroll_with_new_key(cli, name, agents=[], audiences=[address], path=key)
        subprocess.Popen(
            [sys.executable, "-m", "stepgrant_broker.demo.target", "--name", name, "--port", address.rpartition(":")[2],
             "--broker", url, "--key", str(key), "--book", f"{name}.book"]
        )  # fmt: skip
    while not all(answers(address) for address in addresses.values()):
        time.sleep(0.05)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    time.sleep(3600)


if __name__ == "__main__":
    main()
