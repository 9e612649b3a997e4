"""After whole runs, with failures on the way, no secret is found in database, logs, ledger, receipts or answers.

The test holds every secret: operator token, assertions, proofs, access tokens, grants as tokens, a static secret. It
then searches all bytes of all files that the broker wrote (except its own key files and the agents'), everything that
was logged at the lowest level by anybody, and every page that the broker serves.
"""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from fakes.clock import ArmedFailpoints
from fakes.raw import RawAgent
from stepgrant import canonical
from stepgrant_broker.testing import TestHost, start
from stepgrant_broker.wiring.failpoints import FailpointHit
from stepgrant_broker.wiring.logs import configure_events

STATIC = "hunter2-of-the-crm-which-people-have-had-for-years"
SETTINGS: dict[str, Any] = {
    "agents": {
        "my-agent": {
            "tools": {
                "read": {"effect": "read"},
                "charge": {"effect": "once"},
                "crm": {"effect": "once", "issuer": "static", "params": {"secret": "crm"}},
                "gone": {"effect": "once", "issuer": "static", "params": {"secret": "gone"}},
                "publish": {"effect": "once", "ask": True},
            }
        }
    },
    "approval": {"groups": [], "quorum": 1, "answer_within": 600, "valid_for": 600},
    "flows": {},
    "resume": {"ask_after_parked_seconds": 86400},
    "ttl": {"read": 60, "idempotent": 60, "once": 60},
}


class Everything(logging.Handler):
    """What any library logs, with its traceback; but for the HTTP client, which is the test's own."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith(("httpx", "httpcore")):
            self.lines.append(self.format(record))


class Watched:
    """A host with everything that it says."""

    def __init__(self, host: TestHost, failpoints: ArmedFailpoints, events: io.StringIO, library: Everything) -> None:
        self.host = host
        self.failpoints = failpoints
        self._events = events
        self._library = library

    def logs(self) -> str:
        return self._events.getvalue() + "\n".join(self._library.lines)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    events, library, failpoints = io.StringIO(), Everything(), ArmedFailpoints()
    root = logging.getLogger()
    level = root.level
    root.addHandler(library)
    root.setLevel(logging.DEBUG)
    configure_events("json", "debug", events)
    try:
        with start(tmp_path, settings=SETTINGS, lease_s=5, failpoints=failpoints) as host:
            yield Watched(host, failpoints, events, library)
    finally:
        structlog.reset_defaults()
        root.removeHandler(library)
        root.setLevel(level)


def forms(secret: str) -> list[bytes]:
    """The ways in which a secret could lie around; of a token also its signature alone."""
    raw = secret.encode()
    found = [
        raw,
        base64.b64encode(raw)[:-3],
        base64.urlsafe_b64encode(raw)[:-3],
        raw.hex().encode(),
    ]
    if secret.count(".") == 2:
        found.append(secret.rpartition(".")[2].encode())
    if secret.startswith("sgo_"):
        found += [raw[4:], bytes.fromhex(secret[4:])]
    return found


def found_in(data: bytes, secrets: list[str]) -> list[str]:
    return [f"{secret[:12]}… as {form[:12]!r}" for secret in secrets for form in forms(secret) if form in data]


def files(folder: Path) -> list[Path]:
    """Everything that was written, without the key files, which are secrets by themselves."""
    keys = {folder / "keys", folder / "workloads"}
    return [path for path in folder.rglob("*") if path.is_file() and keys.isdisjoint(path.parents)]


def boom() -> None:
    raise FailpointHit("usecase.after_mint")


def whole_run(watched: Watched, client: httpx.Client) -> tuple[str, list[str]]:
    """Runs with everything in them; one run's id, and every secret."""
    host = watched.host
    operator = host.operator("Olga")
    person = {"authorization": f"Bearer {operator}"}
    for name in ("crm", "gone"):
        answer = client.put(
            f"{host.url}/v1/secrets/{name}", json={"value": STATIC, "hosts": ["crm.example"]},
            headers={**person, "idempotency-key": f"set-{name}"},
        )  # fmt: skip
        assert answer.status_code == 200, answer.text
    client.delete(f"{host.url}/v1/secrets/gone", headers={**person, "idempotency-key": "delete"})
    made = client.post(
        f"{host.url}/v1/operators", json={"name": "Bea", "roles": ["approver"]},
        headers={**person, "idempotency-key": "new"},
    ).json()  # fmt: skip
    agent = RawAgent(host, host.enroll("agent", agents=["my-agent"]), client).exchange()
    run = str(agent.open("first")["run"])
    assert agent.begin(run, "s1", "read", effect="read")["credential"]["kind"] == "jwt"
    assert agent.begin(run, "s2", "crm")["credential"]["fields"]["value"] == STATIC
    assert agent.begin(run, "s3", "gone")["code"] == "issuer_unavailable"
    asked = agent.begin(run, "s4", "publish")
    host.approve(asked["approval_id"])
    assert agent.begin(run, "s4", "publish")["outcome"] == "run"
    watched.failpoints.armed["usecase.after_mint"] = boom
    assert agent.begin(run, "s5", "charge")["code"] == "internal"
    assert agent.begin(run, "s6", "crm")["code"] == "internal"
    watched.failpoints.armed.clear()
    agent.call("POST", f"/v1/runs/{run}/steps/s2/complete", {"epoch": 1, "attempt": 1, "result": {"ok": True}})
    _mistakes(agent, client, operator)
    agent.call("POST", f"/v1/runs/{run}/cancel", {"epoch": 1})
    return run, [STATIC, operator, str(made["token"]), *agent.secrets]


def _mistakes(agent: RawAgent, client: httpx.Client, operator: str) -> None:
    """What callers do wrong, with secrets in hand."""
    url = agent.host.url
    client.get(f"{url}/v1/runs", headers={"authorization": f"Bearer {operator}x"})
    client.get(f"{url}/v1/runs", headers={"authorization": f"Basic {operator}"})
    client.get(f"{url}/v1/runs?token={operator}", headers={"authorization": f"Bearer {operator}"})
    client.get(f"{url}/v1/runs/{operator}", headers={"authorization": f"Bearer {operator}"})
    client.get(f"{url}/{operator}")
    client.get(f"{url}/v1/runs", headers={"authorization": f"DPoP {agent.token}", "dpop": agent.secrets[-1]})
    client.post(f"{url}/oauth/token", data={"grant_type": "x", "subject_token": agent.secrets[0]})
    client.post(
        f"{url}/v1/operators", content=b'{"value": "' + STATIC.encode(), headers={"authorization": f"Bearer {operator}"}
    )
    agent.call("POST", "/v1/runs", {"agent": STATIC, "run_key": 7})
    agent.call("PUT", "/v1/secrets/crm", {"value": STATIC, "hosts": []})


@pytest.mark.timeout(120)
def test_no_secret_rests_anywhere(watched: Watched, tmp_path: Path) -> None:
    with httpx.Client() as client:
        run, secrets = whole_run(watched, client)
        pages = [client.get(f"{watched.host.url}{path}").content for path in ("/metrics", "/openapi.json", "/readyz")]
    assert len(secrets) > 15
    assert all(len(secret) >= 20 for secret in secrets)
    told = canonical.dumps(watched.host.receipt(run))
    entries = b"".join(canonical.dumps(dict(event.fields)) for event in watched.host.entries(run))
    tenant = b"".join(canonical.dumps(dict(event.fields)) for event in watched.host.entries())
    logs = watched.logs()
    assert "FailpointHit" in logs
    written = {path.name: path.read_bytes() for path in files(tmp_path)}
    assert "stepgrant.db" in written
    watched.host.close()
    written |= {f"{path.name} after the end": path.read_bytes() for path in files(tmp_path)}
    places = {
        "logs": logs.encode(),
        "receipt": told,
        "entries": entries,
        "tenant": tenant,
        "pages": b"".join(pages),
        **written,
    }
    assert {name: found for name, data in places.items() if (found := found_in(data, secrets))} == {}


def test_the_search_itself_finds_what_is_there(tmp_path: Path) -> None:
    """Or the test above would pass for ever."""
    token = "sgo_" + "ab" * 32
    jws = "eyJhbGciOiJFUzI1NiJ9.eyJqdGkiOiJncm5fMSJ9.c2lnbmF0dXJlLXRoYXQtaXMtbG9uZw"
    for hidden in (token.encode(), token[4:].encode(), bytes.fromhex(token[4:]), token.encode().hex().encode()):
        assert found_in(b"before" + hidden + b"after", [token])
    assert found_in(b"x" + jws.encode(), [jws])
    assert found_in(jws.rpartition(".")[2].encode(), [jws])
    assert found_in(base64.b64encode(b"".join([jws.encode()])), [jws])
    assert not found_in(b"nothing", [token, jws])
    (tmp_path / "keys").mkdir()
    for name in ("keys/grants-1.jwk", "stepgrant.db"):
        (tmp_path / name).write_text("x")
    assert files(tmp_path) == [tmp_path / "stepgrant.db"]
