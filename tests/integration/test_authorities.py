"""A broker with a certificate of a company's own CA: whoever talks to it believes the file in `SSL_CERT_FILE` alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from mtls import MutualTls, behind_tls
from notehands import ALICE, LOG
from stepgrant import ConfigurationError, errors
from stepgrant._client import Address
from stepgrant._http import authorities
from stepgrant._keys import SecretKey
from stepgrant.verify import JwksSource
from stepgrant_broker.config import Settings, SettingsError, explicit_settings
from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.wiring.checking import log_at
from stepgrant_broker.wiring.doctor.findings import Found
from stepgrant_broker.wiring.doctor.service import service
from stepgrant_broker.wiring.witnessing import witnesses_of

KEY = SecretKey.generate().public
JWKS = json.dumps({"keys": [{**KEY.jwk, "kid": "k1", "use": "sig", "alg": KEY.alg}]}).encode()
SAID = {"/healthz": b"{}", "/readyz": b"{}", "/.well-known/jwks.json": JWKS, "/v1/log/checkpoint": b"a head"}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[MutualTls]:
    """What of a broker is asked here, behind the certificate of a CA that nobody knows."""
    with behind_tls(tmp_path, SAID) as server:
        yield server


@pytest.fixture
def told(broker: MutualTls, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment names that CA; the broker's URL."""
    monkeypatch.setenv("SSL_CERT_FILE", str(broker.ca_file))
    return broker.url


@pytest.fixture
def untold(broker: MutualTls, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment names none; the broker's URL."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    return broker.url


def settings_for(folder: Path, url: str, **more: Any) -> Settings:  # noqa: ANN401 - as `explicit_settings`
    return explicit_settings(data_dir=folder, public_url=url, **more)


async def running(settings: Settings) -> Found:
    """What the doctor says of the broker that should run."""
    return await anext(service(settings, None))


async def head_at(url: str) -> bytes | None:
    async with AsyncExitStack() as stack:
        return await log_at(stack, url).head()


async def test_the_doctor_sees_the_broker(told: str, tmp_path: Path) -> None:
    found = await running(settings_for(tmp_path, told))
    assert (found.state, f"a broker answers at {told}" in found.what) == ("unseen", True)


async def test_the_doctor_does_not_see_whom_nobody_vouches_for(untold: str, tmp_path: Path) -> None:
    found = await running(settings_for(tmp_path, untold))
    assert (found.state, found.what) == ("warn", f"nobody answers at {untold} (ConnectError)")


def test_a_resource_server_fetches_the_keys(told: str) -> None:
    url = told + "/.well-known/jwks.json"
    assert JwksSource(url).find_sync("k1").jwk == KEY.jwk
    assert asyncio.run(JwksSource(url).find("k1")).jwk == KEY.jwk


def test_a_resource_server_has_no_keys_of_whom_nobody_vouches_for(untold: str) -> None:
    url = untold + "/.well-known/jwks.json"
    with pytest.raises(errors.VerificationUnavailable):
        JwksSource(url).find_sync("k1")
    with pytest.raises(errors.VerificationUnavailable):
        asyncio.run(JwksSource(url).find("k1"))


async def test_an_auditor_reads_the_log(told: str) -> None:
    assert await head_at(told) == b"a head"


async def test_an_auditor_reads_no_log_of_whom_nobody_vouches_for(untold: str) -> None:
    with pytest.raises(StoreUnavailable):
        await head_at(untold)


@pytest.mark.parametrize("text", [None, "no certificate"])
async def test_a_file_that_names_nobody_is_a_named_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None
) -> None:
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    for refuse in (
        authorities,
        lambda: Address.of("https://127.0.0.1:1"),
        lambda: JwksSource("https://127.0.0.1:1").find_sync("k"),
    ):
        with pytest.raises(ConfigurationError, match=r"^SSL_CERT_FILE: no certificates of authorities can be read"):
            refuse()
    found = await running(settings_for(tmp_path, "https://127.0.0.1:1"))
    assert (found.state, found.what.startswith("SSL_CERT_FILE: no certificates")) == ("fail", True)


async def test_a_broker_with_witnesses_says_so_at_its_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    policy = tmp_path / "log-policy"
    policy.write_text(f"log {LOG.key.vkey}\nwitness w {ALICE.key.vkey} http://127.0.0.1:1\nquorum w\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "gone.pem"))
    async with AsyncExitStack() as stack:
        with pytest.raises(SettingsError, match="SSL_CERT_FILE: no certificates of authorities can be read"):
            witnesses_of(stack, settings_for(tmp_path, "https://127.0.0.1:1", log_policy_file=policy), lambda *_: None)
