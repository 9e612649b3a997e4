"""An agent that rotates the API keys of services, as a user of Stepgrant would write it.

It is started with the name of its run and, the first time, with the services and their addresses. Nothing in it knows
that it may be killed: each start does the same, and what was done before comes back as it was recorded.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from typing import Any

import httpx

import stepgrant
from stepgrant.errors import ApprovalRequired

COME_BACK_LATER = 75  # EX_TEMPFAIL
services: dict[str, str] = {}
http = httpx.Client(auth=stepgrant.http.Auth(), timeout=30, trust_env=False)
quiet_until = 0.0


def say(line: str) -> None:
    """One line, at once and in one piece: a warning of another thread must not get into it."""
    print(f"{line}\n", end="", flush=True)


@stepgrant.step("plan", step_id="plan")
def make_plan() -> dict[str, Any]:
    """Which services in which order, and a label for the new keys: like a model's, another answer each time."""
    say("planning")
    return {"order": sorted(services), "label": f"rotation-{uuid.uuid4().hex[:8]}"}


def was_rotated(step: stepgrant.CurrentStep) -> stepgrant.Verdict:
    """Was it done, although nobody heard of it? Only the service knows."""
    wanted = {**step.args, "idempotency_key": step.idempotency_key}
    found = http.get(f"{services[str(step.resource)]}/keys/rotations", params=wanted).raise_for_status().json()
    return stepgrant.done(found[0]) if found else stepgrant.not_done()


@stepgrant.tool(
    name="keys.rotate", effect="once", step_id="rotate:{service}", resource="{service}", reconcile=was_rotated
)
def rotate(service: str, label: str) -> dict[str, str]:
    """A new key for one service; the old one works on."""
    global quiet_until  # noqa: PLW0603 - one loop in one thread paces itself by it
    answer = http.post(f"{services[service]}/keys/rotate", json={"service": service, "label": label})
    quiet_until = time.monotonic() + 1  # one service at a time, gently
    done: dict[str, str] = answer.raise_for_status().json()
    return done


@stepgrant.tool(name="keys.revoke_old", effect="once", step_id="revoke-old", resource="identity")
def revoke_old(keys: list[str]) -> dict[str, Any]:
    """The old keys stop working, for good."""
    answer = http.post(f"{services['identity']}/keys/revoke-old", json={"keys": keys})
    done: dict[str, Any] = answer.raise_for_status().json()
    return done


def main() -> int:
    """Rotate all keys, then revoke the old ones."""
    run_key, *given = sys.argv[1:]
    known = {"input": json.loads(given[0])} if given else {}
    try:
        with stepgrant.run(run_key, agent="rotator", **known) as run:
            say(f"epoch {run.epoch}")
            services.update(run.input)
            say(f"services {json.dumps(services)}")
            plan, old = make_plan(), []
            for service in plan["order"]:
                time.sleep(max(0.0, quiet_until - time.monotonic()))
                done = rotate(service, plan["label"])
                old.append(done["replaces"])
                say(f"rotated {service}: {done['key_id']}")
            say(f"revoked {', '.join(revoke_old(old)['revoked'])}")
    except ApprovalRequired as waiting:
        say(f"a person must answer {waiting.approval_id}")
        return COME_BACK_LATER
    return 0


if __name__ == "__main__":
    sys.exit(main())
