"""The wire to Vault: what an answer means, and bounds in time, size and number."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import (
    BasicConstraints,
    CertificateBuilder,
    IPAddress,
    Name,
    NameAttribute,
    SubjectAlternativeName,
    SubjectKeyIdentifier,
)
from cryptography.x509.oid import NameOID

from fakes.lying_vault import ROOT, Answer, Lie, LyingVault, error
from fakes.vault_sessions import count, until
from lateness import lateness
from logins import free_port
from mtls import for_a_ca
from stepgrant_broker.domain.errors import IssuerRefused, IssuerUnavailable, SignerUnavailable
from stepgrant_broker.vault.connections import ANSWER_MAX
from stepgrant_broker.vault.faults import (
    VaultBad,
    VaultDenied,
    VaultFault,
    VaultMissing,
    VaultSealed,
    VaultUnavailable,
    issuer_fault,
    signer_fault,
)
from stepgrant_broker.vault.wire import VaultToken, Where, Wire

SELF = "auth/token/lookup-self"
TOKEN = VaultToken(ROOT)


@pytest.fixture
def fake() -> Iterator[LyingVault]:
    with LyingVault() as made:
        yield made


@pytest.fixture
async def wire(fake: LyingVault) -> AsyncIterator[Wire]:
    made = Wire(Where(fake.addr), workers=2, queue=2)
    yield made
    await made.close()


async def ask(wire: Wire, deadline_s: float = 5.0) -> dict[str, object]:
    return await wire.send("GET", SELF, token=TOKEN, deadline_s=deadline_s)


# --- what an answer means ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind", "maybe", "said"),
    [
        (error(403, "permission denied"), VaultDenied, False, "the token is dead, or its policy lacks 'read' on"),
        (error(404), VaultMissing, False, "check mount and name"),
        (error(400, "unknown role: x"), VaultMissing, False, "check mount and name"),
        (error(400, "bad"), VaultBad, True, "Vault refused GET"),
        (error(405), VaultBad, True, "(405)"),
        (error(500, "bad"), VaultUnavailable, True, "Vault failed at GET"),
        (error(502), VaultUnavailable, True, "(502)"),
        (error(503, "Vault is sealed"), VaultSealed, False, "unseal it"),
        (error(501), VaultSealed, False, "not initialised"),
        (error(503), VaultUnavailable, True, "(503)"),
        (error(429), VaultUnavailable, False, "does not serve"),
        (error(473), VaultUnavailable, False, "does not serve"),
        (Answer(307, None), VaultUnavailable, False, "redirects"),
        (Answer(200, [1]), VaultBad, True, "is no JSON"),
        (Answer(403, ["no errors"]), VaultDenied, False, "the token is dead"),
    ],
)
async def test_a_status_has_one_meaning(
    fake: LyingVault,
    wire: Wire,
    answer: Answer,
    kind: type[VaultFault],
    maybe: bool,  # noqa: FBT001 - a column of the table
    said: str,
) -> None:
    fake.lies[SELF] = Lie(instead=answer)
    with pytest.raises(VaultFault) as caught:
        await ask(wire)
    assert (type(caught.value), caught.value.maybe) == (kind, maybe)
    assert said in caught.value.detail


@pytest.mark.parametrize(
    "raw", [b"{", b'{"a": 1, "a": 2}', b'{"data": {"b": 1, "b": 1}}', b'{"a": NaN}', b"[]", b"[" * 100_000, b"\xff"]
)
async def test_what_is_not_one_plain_json_object_is_no_answer(fake: LyingVault, wire: Wire, raw: bytes) -> None:
    fake.lies[SELF] = Lie(raw=raw)
    with pytest.raises(VaultBad, match="is no JSON"):
        await ask(wire)


async def test_an_empty_answer_is_an_empty_object(fake: LyingVault, wire: Wire) -> None:
    for answer in (Answer(204, None), Answer(200, None)):
        fake.lies[SELF] = Lie(instead=answer)
        assert await ask(wire) == {}


def test_the_ports_hear_refusals_and_failures_apart() -> None:
    assert type(issuer_fault(VaultDenied("no"))) is IssuerRefused
    assert type(issuer_fault(VaultBad("no", maybe=True))) is IssuerRefused
    assert type(issuer_fault(VaultSealed("no"))) is IssuerUnavailable
    assert issuer_fault(VaultUnavailable("no")).retry_after_ms == 1000
    assert type(signer_fault(VaultDenied("no"))) is SignerUnavailable


# --- bounds ----------------------------------------------------------------------------------------------------------


async def test_whoever_waits_is_answered_at_the_deadline(fake: LyingVault, wire: Wire) -> None:
    fake.lies[SELF] = Lie(keep=threading.Event())
    begun = time.monotonic()
    with pytest.raises(VaultUnavailable, match="did not answer GET auth/token/lookup-self") as caught:
        await ask(wire, 0.2)
    assert 0.15 < time.monotonic() - begun < 25  # Vault keeps its answer for 30 s
    assert caught.value.maybe


async def test_a_late_answer_reaches_who_asked_for_it(fake: LyingVault, wire: Wire) -> None:
    keep = threading.Event()
    fake.lies[SELF] = Lie(keep=keep)
    late: list[object] = []
    with pytest.raises(VaultUnavailable):
        await wire.send("GET", SELF, token=TOKEN, deadline_s=0.1, late=late.append)
    waiting = asyncio.create_task(wire.send("GET", SELF, token=TOKEN, deadline_s=20, late=late.append))
    await until(lambda: count(fake, SELF) == 2)
    waiting.cancel()
    await asyncio.sleep(0)
    keep.set()
    await until(lambda: len(late) == 2)
    assert [isinstance(one, dict) and one["data"]["ttl"] for one in late] == [3600, 3600]


async def test_a_hung_vault_fills_the_queue_and_no_more(fake: LyingVault, wire: Wire) -> None:
    keep = threading.Event()
    fake.lies[SELF] = Lie(keep=keep)
    asked = [asyncio.create_task(ask(wire, 3.0)) for _ in range(2)]
    await until(lambda: count(fake, SELF) == 2)
    asked += [asyncio.create_task(ask(wire, 0.5)) for _ in range(2)]
    while wire._open < 4:  # noqa: ASYNC110 - the wire gives no event
        await asyncio.sleep(0)
    with pytest.raises(VaultUnavailable, match="4 requests to Vault are under way") as caught:
        await ask(wire)
    assert not caught.value.maybe
    ended = await asyncio.gather(*asked, return_exceptions=True)
    # Two were sent; two waited for a thread the whole time, so nothing of them can have happened.
    assert sorted(fault.maybe for fault in ended if isinstance(fault, VaultUnavailable)) == [False, False, True, True]
    keep.set()
    await until(lambda: wire._open == 0)
    fake.lies.clear()
    assert (await ask(wire))["data"] is not None


async def test_an_answer_is_bounded(fake: LyingVault, wire: Wire) -> None:
    fake.lies[SELF] = Lie(raw=b'{"a": "' + b"x" * ANSWER_MAX + b'"}')
    with pytest.raises(VaultBad, match="is larger than 1048576 bytes"):
        await ask(wire)


async def test_an_answer_that_drips_ends_at_the_deadline(fake: LyingVault, wire: Wire) -> None:
    fake.lies[SELF] = Lie(drip_s=0.05)
    async with lateness() as late:
        begun = time.monotonic()
        with pytest.raises(VaultUnavailable, match="did not"):
            await ask(wire, 0.4)
        await until(lambda: wire._open == 0)  # the thread is free again
        took = time.monotonic() - begun
    assert took < 5 + late.seconds  # the whole answer takes longer


async def test_a_connection_is_used_again(fake: LyingVault, wire: Wire) -> None:
    for _ in range(20):
        await ask(wire)
    assert fake.connections <= 2


async def test_a_dead_connection_is_replaced(fake: LyingVault, wire: Wire) -> None:
    await ask(wire)
    fake.lies[SELF] = Lie(drop=True, times=1)
    with pytest.raises(VaultUnavailable, match="the connection broke during GET") as caught:
        await ask(wire)
    assert caught.value.maybe
    await ask(wire)


async def test_nobody_there_is_said_at_once_and_nothing_was_sent() -> None:
    wire = Wire(Where(f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(VaultUnavailable, match="cannot be reached") as caught:
        await ask(wire)
    assert not caught.value.maybe
    await wire.close()
    with pytest.raises(VaultUnavailable, match="is closed"):
        await ask(wire)


def certificate(folder: Path, address: str) -> tuple[Path, ssl.SSLContext]:
    """A server's certificate for this address, signed by itself: the CA file and the server's side."""
    key = generate_private_key(SECP256R1())
    name = Name([NameAttribute(NameOID.COMMON_NAME, "vault")])
    now = datetime.now(UTC)
    made = CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
    made = made.add_extension(SubjectAlternativeName([IPAddress(ip_address(address))]), critical=False)
    made = made.add_extension(BasicConstraints(ca=True, path_length=None), critical=True)
    made = made.add_extension(for_a_ca(), critical=True)
    made = made.add_extension(SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    cert, private = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(made.sign(key, SHA256()).public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, private)
    return cert, context


@pytest.mark.parametrize(("address", "vouched"), [("127.0.0.1", True), ("127.0.0.1", False), ("127.0.0.2", True)])
async def test_only_the_right_certificate_gets_a_request(
    tmp_path: Path, address: str, *, vouched: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    cert, context = certificate(tmp_path, address)
    with LyingVault(tls=context) as fake:
        wire = Wire(Where(fake.addr, ca_file=cert if vouched else None))
        if vouched and address == "127.0.0.1":
            assert (await ask(wire))["data"] is not None
        else:
            with pytest.raises(VaultUnavailable, match="certificate that is not Vault's; set vault_ca_file") as caught:
                await ask(wire)
            assert not caught.value.maybe
            assert fake.asked == []
        await wire.close()
    capfd.readouterr()  # the server's complaint about the client that went away


async def test_a_ca_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    wire = Wire(Where("https://127.0.0.1:1", ca_file=tmp_path / "missing.pem"))
    with pytest.raises(VaultUnavailable, match=r"vault_ca_file .*missing\.pem cannot be read: No such file"):
        await ask(wire)
    await wire.close()
