"""A tool with a certificate: a key for each attempt, a request in the call, a real handshake, and no key anywhere."""

# ruff: noqa: ANN401 - a test hands on whatever the code under test takes and gives

from __future__ import annotations

import copy
import math
import os
import pickle
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import stepgrant
from faces import Face, faces
from mtls import Authority, MutualTls, mutual_tls
from scripted import Reply, ScriptedBroker, Seen, granted, problem, released_credential, scripted
from stepgrant import Credential, Inject, _own_key, errors
from stepgrant._csr import read_request
from stepgrant._dpop import DpopKey
from stepgrant._own_key import OwnKey
from stepgrant._secrets import LIVE, LiveSecrets
from stepgrant.credential import end

URI = "spiffe://acme/agent"
CA = Authority()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ScriptedBroker]:
    with scripted(tmp_path) as made:
        yield made


@pytest.fixture
def target(tmp_path: Path) -> Iterator[MutualTls]:
    with mutual_tls(tmp_path, CA.pem) as made:
        yield made


def signing(*hosts: str) -> Callable[[Seen], Reply]:
    """A broker that has the request of a begin signed."""

    def answer(seen: Seen) -> Reply:
        fields = {"certificate": CA.signed(seen.body["csr"], URI), "ca_chain": CA.pem, "serial_number": "01:02"}
        released = released_credential(kind="vault-pki", fields=fields, hosts=list(hosts))
        return Reply(granted(seen.path.split("/")[5], credential=released, redeem="optional"))

    return answer


@faces
async def test_the_certificate_opens_a_connection(face: Face, broker: ScriptedBroker, target: MutualTls) -> None:
    broker.will("begin", signing(target.url))

    def look(cred: Annotated[Credential, Inject]) -> list[Any]:
        own = x509.load_pem_x509_certificate(cred.field("certificate").encode())
        assert own.public_key() == cred.private_key.public_key()
        context = cred.ssl_context(target.url, cafile=target.ca_file)
        with httpx.Client(verify=context, trust_env=False) as client:
            return [list(pair) for pair in client.get(target.url).json()["subjectAltName"]]

    async with face.run(**broker.at()):
        assert await face.call(face.tool(look, effect="read", certificate=True)) == [["URI", URI]]


def test_without_it_nothing_opens(target: MutualTls) -> None:
    context = ssl.create_default_context(cafile=target.ca_file)
    with httpx.Client(verify=context, trust_env=False) as client, pytest.raises(httpx.TransportError):
        client.get(target.url)


@faces
async def test_each_attempt_has_a_key_of_its_own_and_others_send_none(face: Face, broker: ScriptedBroker) -> None:
    broker.will("begin", signing("https://tool.example"), signing("https://tool.example"))
    keys = []

    def look(number: int, cred: Annotated[Credential, Inject]) -> int:
        keys.append(cred.private_key)
        return number

    tool = face.tool(look, effect="read", certificate=True, step_id="look-{number}")
    async with face.run(**broker.at()):
        await face.call(tool, 1)
        await face.call(tool, 2)
        await face.call(face.tool(lambda: 3, name="plain", effect="read"))
    one, two, plain = broker.calls("begin")
    assert read_request(one.body["csr"]).key != read_request(two.body["csr"]).key
    assert [x509.load_pem_x509_csr(seen.body["csr"].encode()).public_key() for seen in (one, two)] == [
        key.public_key() for key in keys
    ]
    assert "csr" not in plain.body


@faces
async def test_a_repeated_call_keeps_its_key(face: Face, broker: ScriptedBroker) -> None:
    """The certificate is over the key that was sent first; another one would not fit it."""
    broker.will("begin", problem("issuer_unavailable", 503, retry_after=0), signing("https://tool.example"))

    def look(cred: Annotated[Credential, Inject]) -> bool:
        made = x509.load_pem_x509_certificate(cred.field("certificate").encode())
        return made.public_key() == cred.private_key.public_key()

    async with face.run(**broker.at()):
        assert await face.call(face.tool(look, effect="read", certificate=True))
    assert len({seen.body["csr"] for seen in broker.calls("begin")}) == 1


def key_as_pem(cred: Credential) -> str:
    return cred.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def key_as_number(cred: Credential) -> str:
    return str(cred.private_key.private_numbers().private_value)


def key_as_hex(cred: Credential) -> str:
    return f"{cred.private_key.private_numbers().private_value:064x}"


@faces
@pytest.mark.parametrize("shown", [key_as_pem, key_as_number, key_as_hex])
async def test_a_result_with_the_key_in_it_is_withheld(
    face: Face, broker: ScriptedBroker, shown: Callable[[Credential], str]
) -> None:
    broker.will("begin", signing("https://tool.example"))

    def leak(cred: Annotated[Credential, Inject]) -> dict[str, str]:
        return {"note": f"here: {shown(cred)}"}

    async with face.run(**broker.at()):
        with pytest.raises(errors.SecretInResult):
            await face.call(face.tool(leak, certificate=True))
    (told,) = broker.calls("complete")
    assert told.body["withheld"] is True
    assert "result" not in told.body


@faces
async def test_the_certificate_itself_may_be_shown(face: Face, broker: ScriptedBroker) -> None:
    broker.will("begin", signing("https://tool.example"))

    def tell(cred: Annotated[Credential, Inject]) -> list[str]:
        return [cred.field("certificate"), cred.field("serial_number")]

    async with face.run(**broker.at()):
        assert (await face.call(face.tool(tell, certificate=True)))[1] == "01:02"


def made(own: OwnKey | None, **more: Any) -> Credential:
    fields = {"certificate": CA.signed((own or OwnKey()).request.pem, URI), "ca_chain": CA.pem}
    options: dict[str, Any] = {
        "where": ["https://tool.example"], "idempotency_key": "sg-1", "until": math.inf, "key": DpopKey(),
        "alive": lambda: None, "own": own, **more,
    }  # fmt: skip
    return Credential("vault-pki", fields, **options)


USES: list[Callable[[Credential], object]] = [
    lambda it: it.private_key,
    lambda it: it.ssl_context("https://tool.example/"),
]


@pytest.mark.parametrize("use", USES, ids=["private_key", "ssl_context"])
def test_it_ends_with_its_step(use: Callable[[Credential], object]) -> None:
    it = made(OwnKey())
    use(it)
    end(it)
    with pytest.raises(errors.CredentialMisuse, match="step is over"):
        use(it)
    assert it._own is None
    with pytest.raises(errors.CredentialMisuse, match="has expired"):
        use(made(OwnKey(), until=0.0))


@pytest.mark.parametrize("use", USES, ids=["private_key", "ssl_context"])
def test_a_tool_that_did_not_ask_has_no_key(use: Callable[[Credential], object]) -> None:
    with pytest.raises(errors.CredentialMisuse, match="declare its tool with certificate=True"):
        use(made(None))


def test_another_origin_is_refused() -> None:
    with pytest.raises(errors.CredentialMisuse, match="outside this grant"):
        made(OwnKey()).ssl_context("https://evil.example/")


def test_a_key_is_masked_and_cannot_be_pickled_or_copied() -> None:
    own = OwnKey()
    it = made(own)
    for text in (repr(own), str(own), repr(it), f"{it}"):
        assert not any(form in text for form in own.texts())
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        for thing in (own, it):
            with pytest.raises(TypeError):
                take(thing)


@pytest.mark.parametrize("memory", [True, False], ids=["memfd", "file"])
def test_no_file_with_the_key_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: bool) -> None:  # noqa: FBT001
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if not memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    before = threading.active_count()
    made(OwnKey()).ssl_context("https://tool.example/", cafile=None)
    assert list(tmp_path.iterdir()) == []
    assert threading.active_count() == before


def test_what_is_written_for_ssl_is_encrypted_and_ours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    own, seen = OwnKey(), []
    real = _own_key._as_file
    monkeypatch.delattr(os, "memfd_create", raising=False)

    @contextmanager
    def watched(data: bytes) -> Iterator[str]:
        with real(data) as path:
            seen.append((Path(path).stat().st_mode & 0o777, Path(path).read_bytes()))
            yield path

    monkeypatch.setattr(_own_key, "_as_file", watched)
    made(own).ssl_context("https://tool.example/")
    ((mode, data),) = seen
    assert mode == 0o600
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in data
    live = LiveSecrets()
    live.add(own.texts(), until=math.inf)
    assert not live.found_in(data)


@faces
async def test_what_nobody_can_revoke_stays_known(face: Face, broker: ScriptedBroker) -> None:
    """A secret of Vault's key-value store lives on after its grant, whatever its members are called."""
    fields = {"username": "kv-user-made-up", "api_key": "kv-key-made-up"}
    released = released_credential(kind="vault-kv", fields=fields, revocation="none")
    broker.will("begin", Reply(granted("look-1", credential=released, redeem="optional")))
    async with face.run(**broker.at()):
        await face.call(face.tool(lambda: 1, name="look", effect="read"))
    try:
        assert LIVE.found_in(b'"kv-user-made-up"')
        assert LIVE.found_in(b'"kv-key-made-up"')
    finally:
        LIVE.forget(fields.values())


@faces
async def test_a_hook_gets_a_certificate_too(face: Face, broker: ScriptedBroker) -> None:
    doubt = {"outcome": "in_doubt", "step": "pay-1", "attempt": 1, "options": ["reconcile"], "reconciles": 0}
    broker.will("begin", Reply(doubt), signing("https://tool.example"), signing("https://tool.example"))
    seen = []

    def look(step: stepgrant.CurrentStep, cred: Annotated[Credential, Inject]) -> stepgrant.Verdict:
        seen.append((step.key, cred.private_key))
        return stepgrant.not_done()

    def pay(cred: Annotated[Credential, Inject]) -> None:
        seen.append(("pay", cred.private_key))

    async with face.run(**broker.at()):
        await face.call(face.tool(pay, certificate=True, reconcile=look))
    assert [name for name, _ in seen] == ["pay-1", "pay"]
    assert seen[0][1] is not seen[1][1]
