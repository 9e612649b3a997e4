"""A broker's login by JWT, as `stepgrant vault setup` makes it, ends when the token does; by default it would not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from commandline import Done, caller
from vaulted import unique

if TYPE_CHECKING:
    from stepgrant_services import VaultServer

KEY = ec.generate_private_key(ec.SECP256R1())
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.fixture(scope="module")
def server(new_vault: Callable[..., VaultServer]) -> Iterator[VaultServer]:
    """A Vault of this module's own: the role has a fixed name."""
    with new_vault() as made:
        yield made


@pytest.fixture
def mount(server: VaultServer) -> str:
    """A JWT method that trusts our key."""
    path = unique("jwt")
    server.request("POST", f"sys/auth/{path}", {"type": "jwt"})
    server.request("POST", f"auth/{path}/config", {"jwt_validation_pubkeys": [PEM], "bound_issuer": "https://idp"})
    return path


def login(server: VaultServer, mount: str, role: str, **claims: Any) -> str:  # noqa: ANN401 - JSON
    """`ok`, or Vault's number."""
    now = int(time.time())
    good = {"iss": "https://idp", "sub": "broker", "aud": "vault", "iat": now - 120, "nbf": now - 120, "exp": now + 60}
    token = jwt.encode({**good, **claims}, KEY, algorithm="ES256")
    try:
        server.request("POST", f"auth/{mount}/login", {"role": role, "jwt": token}, token="")
    except Exception as error:  # noqa: BLE001 - the services' own, with Vault's number in it
        return str(error).removeprefix("vault answered ")[:3]
    return "ok"


def test_a_login_ends_when_the_token_does(
    server: VaultServer, mount: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", server.root_token)
    run = caller(capsys, [server.root_token])

    def setup() -> Done:
        words = ("--login", "jwt", "--login-mount", mount, "--jwt-subject", "broker", "--jwt-audience", "vault")
        return run("vault", "setup", "--addr", server.addr, *words, "--json")

    assert [call["path"] for call in setup().json["calls"]][-1] == f"auth/{mount}/role/stepgrant-broker"
    assert setup().json["calls"] == []

    now, role = int(time.time()), "stepgrant-broker"
    assert login(server, mount, role) == "ok"
    assert login(server, mount, role, exp=now - 2) == "ok"
    for wrong in ({"exp": now - 10}, {"exp": now - 100}, {"nbf": now + 30}, {"sub": "another"}, {"aud": "another"}):
        assert login(server, mount, role, **wrong) == "400"


def test_vaults_own_defaults_are_the_trap(server: VaultServer, mount: str) -> None:
    """If this fails, a newer Vault has mended it, and our settings can go."""
    role = {"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"]}
    server.request("POST", f"auth/{mount}/role/loose", role)
    assert login(server, mount, "loose", exp=int(time.time()) - 50) == "ok"
