"""Open runs and sign begins beforehand, as the SDK would, for a client that only sends bytes."""

from __future__ import annotations

import json
import time
import uuid

import httpx

from bench.load import post
from stepgrant._dpop import DpopKey
from stepgrant._exchange import TokenRequest, WorkloadKey, exchange_sync


class Agent:
    """One open run with its key, token and nonce."""

    def __init__(self, url: str, key: WorkloadKey, run_key: str) -> None:
        self.url = url
        self.dpop = DpopKey()
        with httpx.Client() as client:
            got = exchange_sync(client, TokenRequest(url, key, self.dpop))
            self.token, self.nonce = got.token.value, got.nonce
            answer = client.post(
                f"{url}/v1/runs",
                content=json.dumps({"agent": "bench", "run_key": run_key}).encode(),
                headers={"Content-Type": "application/json", **self.headers("/v1/runs")},
            )
            answer.raise_for_status()
        self.run = str(answer.json()["run"])

    def headers(self, path: str) -> dict[str, str]:
        """Token, a fresh proof, a fresh Idempotency-Key."""
        proof = self.dpop.proof("POST", self.url + path, token=self.token, nonce=self.nonce, now=time.time())
        return {"Authorization": f"DPoP {self.token}", "DPoP": proof, "Idempotency-Key": str(uuid.uuid4())}

    def begin(self, step: str, tool: str = "bench.pay") -> bytes:
        """A signed begin of a `once` step."""
        path = f"/v1/runs/{self.run}/steps/{step}/begin"
        action = {
            "tool": tool,
            "resource": "order/991",
            "args": {"amount": 10, "to": "acct-42", "memo": f"{step:x<40}"},
        }
        body = json.dumps({"epoch": 1, "action": action, "effect": "once"}).encode()
        return post(self.url, path, body, self.headers(path))
