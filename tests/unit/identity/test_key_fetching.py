"""Fetching key sets from a real HTTP server in another process, which does everything that an issuer should not."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from issuer_process import DISCOVERY, JWKS, Issuer, issuer
from stepgrant.errors import ConfigurationError
from stepgrant_broker.config import SettingsError, explicit_settings
from stepgrant_broker.identity.key_fetching import from_discovery, from_file, from_url, trusted_authorities
from stepgrant_broker.identity.key_source import Fetch, FetchFailed, KeySource
from stepgrant_broker.wiring.identity import issued_identity, trust_of
from trusted import issuer_table, read_trust, rule_table


@pytest.fixture(scope="module")
def process() -> Iterator[Issuer]:
    with issuer() as running:
        yield running


@pytest.fixture
def healed(process: Issuer) -> Issuer:
    process.heal()
    return process


@pytest.fixture(scope="module")
def tls() -> ssl.SSLContext:
    return trusted_authorities(None)


async def fails(fetch: Fetch, why: str) -> None:
    with pytest.raises(FetchFailed, match=why):
        await fetch()


async def test_keys_come_from_the_url_and_from_discovery(healed: Issuer, tls: ssl.SSLContext) -> None:
    healed.serve(JWKS, headers={"cache-control": "public, max-age=120, must-revalidate"})
    for fetch in (from_url(healed.url + JWKS, tls), from_discovery(healed.url, tls)):
        fetched = await fetch()
        assert fetched.document == {"keys": healed.published()}
        assert fetched.max_age_s == 120


async def test_a_rotated_key_is_found_by_its_kid(healed: Issuer, tls: ssl.SSLContext) -> None:
    now = [0.0]
    keys = KeySource("ci", from_url(healed.url + JWKS, tls), frozenset({"sig"}), clock=lambda: now[0])
    old = healed.published()[0]["kid"]
    assert (await keys.find(old, "RS256")).kid == old
    new, now[0] = healed.rotate("ES256"), 10
    assert (await keys.find(new, "ES256")).kid == new


async def test_what_an_issuer_should_not_serve(healed: Issuer, tls: ssl.SSLContext) -> None:
    fetch = from_url(healed.url + JWKS, tls)
    healed.serve(JWKS, status=302, headers={"location": healed.url + "/evil"})
    await fails(fetch, "HTTP 302 .* redirects are not followed")
    assert healed.fetches("/evil") == 0
    healed.serve(JWKS, status=500)
    await fails(fetch, "HTTP 500")
    healed.serve(JWKS, "<html>hello</html>", headers={"content-type": "text/html"})
    await fails(fetch, "not strict JSON")
    healed.serve(JWKS, "[]")
    await fails(fetch, "not a JSON object")
    healed.serve(JWKS, '{"keys": [], "keys": []}')
    await fails(fetch, "duplicate_key")
    healed.serve(JWKS, "x" * 1024, repeat=513)
    await fails(fetch, "answer_too_large|more than 524288 bytes")
    healed.serve(JWKS, headers={"content-encoding": "gzip"})
    await fails(fetch, "compressed")


async def test_an_issuer_that_hangs_is_given_up(healed: Issuer, tls: ssl.SSLContext) -> None:
    healed.serve(JWKS, hang_s=6)  # then comes a good answer, for whoever still waits
    await fails(from_url(healed.url + JWKS, tls, timeout_s=0.3), "no whole answer in time|Timeout")


async def test_nobody_there(tls: ssl.SSLContext) -> None:
    await fails(from_url("http://127.0.0.1:9/jwks", tls), "ConnectError")


@pytest.mark.parametrize("url", ["http://keys.example", "ftp://keys.example", "https://u@keys.example", "x", ""])
def test_addresses_that_keys_may_not_come_from(tls: ssl.SSLContext, url: str) -> None:
    for place in (from_url, from_discovery):
        with pytest.raises(ConfigurationError):
            place(url, tls)


async def test_discovery_that_names_another_issuer(healed: Issuer, tls: ssl.SSLContext) -> None:
    fetch = from_discovery(healed.url, tls)
    before = healed.fetches(JWKS)
    for named in ("https://evil.example", healed.url + "/", None, 5):
        healed.serve(DISCOVERY, json.dumps({"issuer": named, "jwks_uri": healed.url + JWKS}))
        await fails(fetch, "names another issuer")
    assert healed.fetches(JWKS) == before


async def test_discovery_that_leads_elsewhere(healed: Issuer, tls: ssl.SSLContext) -> None:
    fetch = from_discovery(healed.url, tls)
    for uri in ("http://169.254.169.254/latest", "file:///etc/passwd", "http://keys.example", 5, None):
        healed.serve(DISCOVERY, json.dumps({"issuer": healed.url, "jwks_uri": uri}))
        await fails(fetch, "jwks_uri")


async def test_keys_from_a_file_are_read_again(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    fetch = from_file(file)
    await fails(fetch, "cannot be read: No such file")
    file.write_text('{"keys": []}', encoding="utf-8")
    assert (await fetch()).document == {"keys": []}
    file.write_bytes(b"x" * 524_289)
    await fails(fetch, "more than 524288 bytes")


def test_a_ca_file_that_holds_no_certificates_is_a_settings_error(tmp_path: Path) -> None:
    table = issuer_table("oidc", jwks_url="https://ci.example/jwks", ca_file="ca.pem")
    read_trust(tmp_path, table, rule_table("oidc"))
    trust = trust_of(explicit_settings(trust_file=tmp_path / "trust.toml"))
    for content, why in ((None, "No such file"), ("hello", "no certificates")):
        if content is not None:
            (tmp_path / "ca.pem").write_text(content, encoding="utf-8")
        with pytest.raises(SettingsError, match=f"ca_file .*ca.pem cannot be used: .*{why}"):
            issued_identity(trust, trust.issuers[0])
