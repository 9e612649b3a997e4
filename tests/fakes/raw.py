"""An agent without the SDK, over real HTTP, so that a test holds every secret in its hand."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from stepgrant._dpop import DpopKey
from stepgrant._exchange import TokenRequest, WorkloadKey
from stepgrant_broker.testing import TestHost

_numbers = itertools.count()


@dataclass
class RawAgent:
    """One process of a workload. `secrets` are all that it ever sent or got that nobody may keep."""

    host: TestHost
    key_file: Path
    client: httpx.Client
    dpop: DpopKey = field(default_factory=DpopKey)
    token: str = ""
    nonce: str | None = None
    secrets: list[str] = field(default_factory=list)

    def exchange(self) -> RawAgent:
        """Get an access token."""
        request = TokenRequest(self.host.url, WorkloadKey.load(self.key_file), self.dpop, self.host.issuer_url)
        said = ""
        for _ in range(2):
            now = self.host.clock.now() / 1000
            form, headers = request.form(now), request.headers(self.nonce, now)
            self.secrets += [form["subject_token"], headers["dpop"]]
            answer = self.client.post(request.url, data=form, headers=headers)
            self.nonce = answer.headers.get("dpop-nonce", self.nonce)
            if answer.status_code == 200:
                self.token = answer.json()["access_token"]
                self.secrets.append(self.token)
                return self
            said = answer.text
        raise AssertionError(said)

    def call(self, method: str, path: str, body: object = None, **headers: str) -> httpx.Response:
        """One call with a fresh proof."""
        url = self.host.url + path
        now = self.host.clock.now() / 1000
        proof = self.dpop.proof(method, url, token=self.token, nonce=self.nonce, now=now)
        self.secrets.append(proof)
        sent = {
            "authorization": f"DPoP {self.token}",
            "dpop": proof,
            "idempotency-key": f"raw-{next(_numbers)}",
            **headers,
        }
        answer = self.client.request(method, url, json=body, headers=sent)
        self.nonce = answer.headers.get("dpop-nonce", self.nonce)
        return answer

    def open(self, run_key: str, agent: str = "my-agent") -> dict[str, Any]:
        """Open or resume a run."""
        answer = self.call("POST", "/v1/runs", {"agent": agent, "run_key": run_key})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def begin(self, run: str, step: str, tool: str, **body: Any) -> dict[str, Any]:  # noqa: ANN401 - members
        """Begin a step; what it gives out is remembered as secret."""
        action = {"tool": tool, "args": body.pop("args", {}), "resource": body.pop("resource", None)}
        answer = self.call("POST", f"/v1/runs/{run}/steps/{step}/begin", {"epoch": 1, "action": action, **body})
        given = dict(answer.json())
        fields = given.get("credential", {}).get("fields", {})
        self.secrets += [value for name, value in fields.items() if name != "header"]
        return given
