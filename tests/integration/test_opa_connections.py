"""How the broker reaches an OPA: TLS with its own CA, a token that rotates, a socket, and one of several bundles."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fakes.lying_opa import LyingOpa, lying_opa
from mtls import Authority
from opas import Serve, put, serving
from policies import ALLOW, call, one
from stepgrant_broker.domain.decisions import Allow
from stepgrant_broker.domain.errors import PolicyUnavailable
from stepgrant_broker.policy.contract import parse
from stepgrant_broker.policy.opa import OpaEngine, OpaOptions
from stepgrant_broker.policy.opa_place import Place

if TYPE_CHECKING:
    from stepgrant_services import OpaServer

POLICY = one(ALLOW)
AUTHZ = """package system.authz

default allow := false

allow if input.path == ["health"]

allow if {
	input.identity == "TOKEN"
	input.method == "POST"
	input.path == ["v1", "data", "stepgrant", "decision"]
}
"""


@asynccontextmanager
async def loaded(place: Place, **options: Any) -> AsyncIterator[OpaEngine]:  # noqa: ANN401 - options
    engine = OpaEngine(OpaOptions(place, **options), decision_ids=lambda: "dec_1")
    try:
        await engine.load("1:" + POLICY.digest, POLICY)
        yield engine
    finally:
        await engine.close()


async def allows(engine: OpaEngine) -> bool:
    return isinstance(parse((await engine.evaluate(call())).raw), Allow)


async def refusal(place: Place, **options: Any) -> str:  # noqa: ANN401 - options
    with pytest.raises(PolicyUnavailable) as caught:
        async with loaded(place, **options):
            pytest.fail("it was loaded")
    return caught.value.detail


@pytest.fixture
def opa(opa_server: Serve, tmp_path: Path) -> Iterator[OpaServer]:
    with serving(opa_server, POLICY, tmp_path) as server:
        yield server


@asynccontextmanager
async def behind_tls(opa: OpaServer, authority: Authority, folder: Path) -> AsyncIterator[LyingOpa]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.server(folder))
    async with lying_opa(opa.url, context) as front:
        yield front


def pem_of(authority: Authority, folder: Path) -> Path:
    file = folder / "ca.pem"
    file.write_text(authority.pem)
    return file


async def test_tls_with_a_ca_of_ones_own(opa: OpaServer, tmp_path: Path) -> None:
    authority = Authority()
    ca_file = pem_of(authority, tmp_path)
    async with behind_tls(opa, authority, tmp_path) as front, loaded(Place(front.url, ca_file=ca_file)) as engine:
        assert await allows(engine)


async def test_a_certificate_that_nobody_vouches_for(opa: OpaServer, tmp_path: Path) -> None:
    async with behind_tls(opa, Authority(), tmp_path) as front:
        other = Place(front.url, ca_file=pem_of(Authority("other"), tmp_path))
        for place in (Place(front.url), other):
            assert "its certificate is not trusted" in await refusal(place)
        assert front.asked == 0


async def test_a_certificate_of_another_host(opa: OpaServer, tmp_path: Path) -> None:
    authority = Authority()
    async with behind_tls(opa, authority, tmp_path) as front:
        place = Place(front.url.replace("127.0.0.1", "localhost"), ca_file=pem_of(authority, tmp_path))
        assert "its certificate is not trusted: Hostname mismatch" in await refusal(place)
        assert front.asked == 0


async def test_a_socket(opa_server: Serve, tmp_path: Path) -> None:
    socket = tmp_path / "s"
    with serving(opa_server, POLICY, tmp_path, f"--addr=unix://{socket}"):
        async with loaded(Place(f"unix://{socket}")) as engine:
            assert await allows(engine)
    assert "OPA cannot be reached at unix:" in await refusal(Place(f"unix://{socket}"))


@pytest.fixture
def guarded(opa_server: Serve, tmp_path: Path) -> Iterator[OpaServer]:
    """An OPA with authorization of its own, from a second bundle."""
    authz = tmp_path / "authz"
    (authz / "system").mkdir(parents=True)
    (authz / ".manifest").write_text('{"roots": ["system"], "revision": "7"}')
    (authz / "system/authz.rego").write_text(AUTHZ.replace("TOKEN", "first-token"))
    options = ("--authentication=token", "--authorization=basic")
    with opa_server(put(POLICY, tmp_path), authz, bundle=True, options=options) as server:
        yield server


async def test_a_token_that_rotates(guarded: OpaServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first-token\n")
    name = str(guarded.paths[0])
    async with lying_opa(guarded.url) as front:
        place = Place(front.url, token_file=token)
        async with loaded(place, bundle=name) as engine:
            assert await allows(engine)
            rules = tmp_path / "authz/system/authz.rego"
            rules.write_text(AUTHZ.replace("TOKEN", "second-token"))
            await asyncio.to_thread(guarded.restart)
            with pytest.raises(PolicyUnavailable, match=r"closed the connection|refuses the broker"):
                await engine.evaluate(call())
            with pytest.raises(PolicyUnavailable, match=r"OPA refuses the broker \(401\): check the token") as caught:
                await engine.evaluate(call())
            token.write_text("second-token")
            assert await allows(engine)
    assert "token" not in caught.value.detail.replace("the token in opa_token_file", "")
    assert b"Authorization: Bearer second-token" in front.heads[-1]
    assert "second-token" not in repr([engine, place, engine._client, vars(engine._client)])


async def test_a_token_that_opa_does_not_know(guarded: OpaServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-guess")
    assert (await refusal(Place(guarded.url, token_file=token))).startswith("OPA refuses the broker (401)")
    assert (await refusal(Place(guarded.url))).startswith("OPA refuses the broker (401)")


@pytest.mark.parametrize("text", ["", " \n", "two words", "a\r\nHost: evil", "\u00e4", "x" * 20_000])
async def test_what_is_no_token_goes_nowhere(opa: OpaServer, tmp_path: Path, text: str) -> None:
    token = tmp_path / "token"
    token.write_bytes(text.encode())
    async with lying_opa(opa.url) as front:
        assert "holds no bearer token" in await refusal(Place(front.url, token_file=token))
        assert front.connections == 0


async def test_several_bundles_need_a_name(guarded: OpaServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first-token")
    place = Place(guarded.url, token_file=token)
    assert await refusal(place) == "OPA has several bundles; name the one with this policy in opa_bundle"
    assert await refusal(place, bundle="missing") == "OPA has no bundle of the name in opa_bundle"
    assert (await refusal(place, bundle=str(guarded.paths[1]))).startswith("OPA has another policy loaded: 7, but")
