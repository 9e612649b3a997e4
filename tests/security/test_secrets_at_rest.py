"""After whole runs over real HTTP, with failures and a restart: no secret rests anywhere, in any form.

Looked for: tokens, proofs, the keys of holder, workloads and broker, chain keys, an operator's token, and the value of
a static secret. Looked through: every row and file of the broker, its log at level debug among them, what the SDK and
the HTTP libraries log, everything that the API tells, tracebacks, recorded texts, and the list of processes.
"""

from __future__ import annotations

import base64
import json
import stat
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from typing import Annotated, Any, Final

import httpx
import pytest

import stepgrant
from fakes.faults_secrets import Secrets, files, logged, processes, rows
from fakes.mail_server import answering_to
from faults import evidence
from faults.nursery import Nursery, Scene, scene
from faults.processes import Puppet
from stepgrant import Credential, Inject
from stepgrant.errors import BrokerUnavailable, CredentialMisuse, SecretInResult, StepFailed, StepgrantError
from stepgrant_broker.domain import aad
from stepgrant_broker.identity.nonces import LABEL
from stepgrant_broker.ledger.verify import LedgerCheck
from stepgrant_broker.signing.wrap import LocalWrap
from stepgrant_broker.store.sqlite import SqliteStore

VALUE: Final = f"sk_live_{uuid.uuid4().hex}/+= %x"
MARK: Final = f"order-{uuid.uuid4().hex}"
"""A value of a payload. Nobody's secret, but it rests only sealed: in the answers, and in the target's book."""
RUN: Final = f"told-{uuid.uuid4().hex}"
"""Not secret: where it is found, a secret would be, too."""
TOOLS: Final = {
    name: {"effect": effect, "issuer": "static", "params": {"secret": "mail"}, "ttl": 4}
    for name, effect in (("mail.send", "idempotent"), ("mail.read", "read"))
}
ANSWERS: Final = (
    "/v1/runs", "/v1/runs/{run}", "/v1/runs/{run}/entries?limit=500", "/v1/runs/{run}/steps", "/v1/runs/{run}/receipt",
    "/v1/runs/{run}/steps/charge", "/v1/grants", "/v1/approvals", "/v1/workloads", "/v1/operators", "/v1/secrets",
    "/v1/policies", "/v1/ledger/entries", "/v1/ledger/keys", "/.well-known/jwks.json", "/openapi.json", "/healthz",
    "/readyz", "/metrics",
)  # fmt: skip


@dataclass
class Rest:
    """What is secret, and what is left of it anywhere: texts and bytes by place."""

    secrets: Secrets = field(default_factory=Secrets)
    places: dict[str, list[tuple[str, bytes]]] = field(default_factory=dict)
    errors: list[StepgrantError] = field(default_factory=list)

    def keep(self, place: str, name: str, data: bytes | str) -> None:
        raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        self.places.setdefault(place, []).append((name, raw))

    @contextmanager
    def raising(self, kind: type[StepgrantError]) -> Iterator[None]:
        """Something goes wrong here, and its error is kept."""
        with pytest.raises(kind) as caught:
            yield
        self.errors.append(caught.value)


@pytest.fixture(scope="module")
def mail() -> Iterator[str]:
    with answering_to(VALUE) as address:
        yield address


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory, mail: str) -> Iterator[Rest]:
    """Two lives of an agent, a broker that fails, is killed and comes back, and everything that is left of it."""
    made, log, folder = Rest(), StringIO(), tmp_path_factory.mktemp("rest")
    with logged(log), Nursery() as nursery, scene(nursery, folder, tools=TOOLS, lease_ms=3000) as on:
        assert "up" in on.broker("usecase.after_mint@2=raise")
        set_secret(on, mail)
        run = first_life(made, on, mail)
        assert "up" in on.broker()
        second_life(made, on, mail)
        keep_answers(made, on, run)
        with Puppet(on.url, on.agent_key, on.target.url) as holder:
            holder.do("open another")
            holder.do("hold pay")
            for pid, command, environment in processes():
                made.keep("processes", f"{pid} cmdline", command)
                made.keep("processes", f"{pid} environ", environment)
        on.nursery.kill()
        keep_data(made, on, run)
        made.keep("log", "everything in this process", log.getvalue())
        yield made


def set_secret(on: Scene, mail: str) -> None:
    headers = {"Authorization": f"Bearer {on.operator}", "Idempotency-Key": uuid.uuid4().hex}
    body = {"value": VALUE, "hosts": [mail]}
    assert httpx.put(f"{on.url}/v1/secrets/mail", json=body, headers=headers, trust_env=False).status_code == 200


def opened(on: Scene) -> Any:  # noqa: ANN401 - what `run` gives
    return stepgrant.run(RUN, agent="worker", url=on.url, workload_key=on.agent_key)


def first_life(made: Rest, on: Scene, mail: str) -> str:
    """Everything that can go wrong with a secret in a tool, and at last the broker is gone."""
    with made.raising(BrokerUnavailable), opened(on) as run:
        know_holder(made, run)
        stepgrant.step("plan", lambda: {"mark": MARK}, step_id="plan")
        charge(made, on)
        send(mail)
        fail(made, mail)
        leak(made)
        on.nursery.kill()
        run._session._caller.timeouts = stepgrant.Timeouts(broker=1)
        charge_again(on)
    return str(run.id)


def second_life(made: Rest, on: Scene, mail: str) -> None:
    """Another key, the recorded outcomes, and an end."""
    with opened(on) as run:
        know_holder(made, run)
        charge(made, on)
        fail(made, mail)
        charge_again(on)
        run.result = {"mark": MARK, "value": VALUE}
        with made.raising(SecretInResult):
            run.complete(run.result)
        run.result = MARK


def know_holder(made: Rest, run: Any) -> None:  # noqa: ANN401 - a held run
    caller = run._session._caller
    made.secrets.add_token("access token", caller._token.value)
    made.secrets.add("holder's key", caller.key._secret.to_private_jwk()["d"])


def charge(made: Rest, on: Scene) -> None:
    """A token of ours, to a server that redeems it."""

    def card_charge(order: str, credential: Annotated[Credential, Inject]) -> Any:  # noqa: ANN401 - JSON
        url = f"{on.target.url}/card.charge"
        headers = credential.headers("POST", url)
        made.secrets.add_token("grant's token", credential.field("token"))
        made.secrets.add_token("proof", headers["DPoP"])
        with made.raising(CredentialMisuse):
            credential.headers("POST", "http://127.0.0.1:1/elsewhere")
        return httpx.post(url, json={"order": order}, headers=headers, trust_env=False).raise_for_status().json()

    stepgrant.tool(name="card.charge", effect="once", step_id="charge")(card_charge)(order=MARK)


def charge_again(on: Scene) -> None:
    """By the client that adds the credential itself."""

    def note_put(order: str) -> Any:  # noqa: ANN401 - JSON
        with httpx.Client(auth=stepgrant.http.Auth(), trust_env=False) as client:
            return client.post(f"{on.target.url}/note.put", json={"order": order}).raise_for_status().json()

    stepgrant.tool(name="note.put", effect="idempotent", step_id="note")(note_put)(order=MARK)


def send(mail: str) -> None:
    def mail_send(to: str) -> int:
        with httpx.Client(auth=stepgrant.http.Auth(), trust_env=False) as client:
            return client.post(f"http://{mail}/{to}").status_code

    assert stepgrant.tool(name="mail.send", effect="idempotent", step_id="send")(mail_send)(to=MARK) == 200


def fail(made: Rest, mail: str) -> None:
    """A tool raises with the secret in its text; later the recorded failure is raised again."""

    def mail_read(box: str, credential: Annotated[Credential, Inject]) -> None:
        value = credential.field("value")
        encoded = base64.b64encode(value.encode()).decode()
        raise RuntimeError(f"{mail}/{box} says no to {value!r} ({encoded}, {value.encode().hex()})")

    guarded = stepgrant.tool(name="mail.read", effect="read", step_id="read")(mail_read)
    with pytest.raises((RuntimeError, StepFailed)) as caught:
        guarded(box="in")
    if isinstance(caught.value, StepFailed):
        made.errors.append(caught.value)
    else:
        assert VALUE in str(caught.value), "the tool's own exception stays as it is"


WAYS: Final[dict[str, Callable[[str], Any]]] = {
    "plain": lambda value: {"deep": [{"in": value}]},
    "base64": lambda value: base64.b64encode(f"key={value}".encode()).decode(),
    "hex": lambda value: value.encode().hex(),
    "json": json.dumps,
    "key": lambda value: {value: 1},
}


def leak(made: Rest) -> None:
    """Results that hold a secret, of a tool and of a recorded step."""
    for way, encode in WAYS.items():
        tool = stepgrant.tool(name="mail.send", effect="idempotent", step_id=f"leak-{way}")

        def leaking(credential: Annotated[Credential, Inject], how: str) -> Any:  # noqa: ANN401 - JSON
            return WAYS[how](credential.field("value"))

        with made.raising(SecretInResult):
            tool(leaking)(how=way)
        with made.raising(SecretInResult):
            stepgrant.step("note", partial(encode, VALUE), step_id=f"noted-{way}")


def keep_answers(made: Rest, on: Scene, run: str) -> None:
    headers = {"Authorization": f"Bearer {on.operator}"}
    for path in ANSWERS:
        answer = httpx.get(on.url + path.format(run=run), headers=headers, trust_env=False)
        assert answer.status_code == 200, (path, answer.text)
        made.keep("answers", path, answer.content)


def keep_data(made: Rest, on: Scene, run: str) -> None:
    """Files and rows as the killed broker left them, and the keys that they must not hold."""

    async def chain_keys(store: SqliteStore, _: LedgerCheck) -> list[bytes]:
        wrap = LocalWrap.open(on.data / "keys")
        names = [(evidence.TENANT, chain) for chain in ("", run)]
        kept = [(await store.chain_key(*name), aad.chain_key(*name)) for name in names]
        return [wrap.unwrap(key.wrapped, bound) for key, bound in kept if key is not None]

    # The head that is kept beside the keys (`newest-head`) is public.
    key_files = [path for name in ("keys", "workloads") for path in (on.data / name).iterdir() if path.suffix]
    everything = files(on.folder, key_files)
    for path, data in everything.items():
        made.keep("files", path.name, data)
    for place, value in rows(on.database):
        made.keep("rows", place, value)
    for path in key_files:
        made.secrets.add_file(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    made.secrets.add("chain key", *evidence.opened(on.data, chain_keys))
    made.secrets.add("nonce key", LocalWrap.open(on.data / "keys").derive(LABEL))
    made.secrets.add("static secret", VALUE)
    made.secrets.add("operator's token", on.operator)
    for error in made.errors:
        text = "".join(traceback.format_exception(error))
        made.keep("tracebacks", type(error).__name__, text + repr(error) + str(vars(error)))


@pytest.mark.parametrize("place", ["files", "rows", "log", "answers", "tracebacks", "processes"])
def test_no_secret_rests(rest: Rest, place: str) -> None:
    found = {name: secrets for name, data in rest.places[place] if (secrets := rest.secrets.found_in(data))}
    assert found == {}, "run again: .venv/bin/pytest tests/security/test_secrets_at_rest.py"


def test_no_payload_rests_in_clear(rest: Rest) -> None:
    """Arguments, inputs, results and stored answers: no row and no file of the broker shows one; the API does."""
    assert any(MARK.encode() in data for _, data in rest.places["answers"])
    assert [name for name, data in rest.places["rows"] if MARK.encode() in data] == []
    found = {name for name, data in rest.places["files"] if MARK.encode() in data}
    assert found == {"book"}, "only the target, which did it, wrote it down"


def test_the_search_would_find_them(rest: Rest) -> None:
    """What is no secret is found where it was put; everything that is secret is known; each form is recognized."""
    for place in ("files", "rows", "answers"):
        assert any(RUN.encode() in data for _, data in rest.places[place]), place
    assert {name for name, _ in rest.places["files"]} >= {"stepgrant.db", "stepgrant.db-wal", "log", "book"}
    assert {kind for kind, _ in rest.places["tracebacks"]} == {
        "BrokerUnavailable", "CredentialMisuse", "SecretInResult", "StepFailed",
    }  # fmt: skip
    assert b"unexpected_exception" in dict(rest.places["files"])["log"], "the failing mint was logged"
    assert rest.secrets.names >= {
        "access token", "grant's token", "proof", "holder's key", "chain key", "nonce key", "static secret",
        "operator's token", "wrap-1.key", "root-1.key",
    }  # fmt: skip
    for way, encode in WAYS.items():
        assert rest.secrets.found_in(json.dumps(encode(VALUE))) == ["static secret"], way


def test_a_failure_is_recorded_without_the_secret(rest: Rest) -> None:
    """Its text held the secret in three forms, so nothing is left of it; the tool's own exception keeps everything."""
    (failed,) = {str(error) for error in rest.errors if isinstance(error, StepFailed)}
    assert failed.startswith("mail.read (step read) failed before (failed): [secret]; that is recorded")
