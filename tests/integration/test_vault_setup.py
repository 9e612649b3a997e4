"""`stepgrant vault setup` on a real Vault: what it makes is enough, and the least; twice is as good as once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from commandline import Done, caller
from vaulted import unique

if TYPE_CHECKING:
    from stepgrant_services import VaultServer

DEPLOY: Final = Path(__file__).parents[2] / "deploy" / "vault"
ISSUERS: Final = DEPLOY / "issuers.toml"
Setup = Callable[..., Done]


@pytest.fixture(scope="module")
def server(new_vault: Callable[..., VaultServer]) -> Iterator[VaultServer]:
    """A Vault of this module's own: roles and policies have fixed names."""
    with new_vault() as made:
        made.request("POST", "sys/mounts/pki", {"type": "pki"})
        made.request("POST", "pki/root/generate/internal", {"common_name": "CA", "key_type": "ec", "ttl": "24h"})
        made.request("POST", "pki/roles/agents", {
            "allowed_uri_sans": ["spiffe://acme.example/*"], "require_cn": False, "key_type": "any",
        })  # fmt: skip
        made.request("POST", "secret/data/agents/crm", {"data": {"api_key": "sk-made-up"}})
        yield made


@pytest.fixture
def setup(server: VaultServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Setup:
    """Run the command as an administrator, whose token is never printed."""
    run = caller(capsys, [server.root_token])
    monkeypatch.setenv("VAULT_TOKEN", server.root_token)

    def call(*words: str) -> Done:
        return run("vault", "setup", "--addr", server.addr, "--issuers", str(ISSUERS), "--transit", *words)

    return call


@pytest.fixture
def broker(server: VaultServer, setup: Setup, tmp_path: Path) -> str:
    """The token of a broker that logged in as it was set up to."""
    secret_id = tmp_path / "secret-id"
    done = setup("--secret-id-file", str(secret_id), "--json")
    assert done.code == 0, done.err
    body = {"role_id": done.json["role_id"], "secret_id": secret_id.read_text().strip()}
    token: str = server.request("POST", "auth/approle/login", body, token="")["auth"]["client_token"]
    return token


def paths(done: Done) -> list[str]:
    assert done.code == 0, done.err
    return [one["path"] for one in done.json["calls"]]


def test_first_it_says_then_it_does_then_it_has_nothing_to_do(
    new_vault: Callable[..., VaultServer], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    with new_vault() as fresh:
        monkeypatch.setenv("VAULT_TOKEN", fresh.root_token)
        run = caller(capsys, [fresh.root_token])
        secret_id = tmp_path / "secret-id"
        words = [
            "vault", "setup", "--addr", fresh.addr, "--issuers", str(ISSUERS), "--transit",
            "--secret-id-file", str(secret_id), "--json",
        ]  # fmt: skip
        said = paths(run(*words, "--dry-run"))
        assert said == [
            "sys/mounts/transit",
            "transit/keys/stepgrant-grants", "transit/keys/stepgrant-access", "transit/keys/stepgrant-heads",
            "transit/keys/stepgrant-wrap",
            "sys/policies/acl/stepgrant.orders-db.orders-rw", "sys/policies/acl/stepgrant.crm-key.kv",
            "sys/policies/acl/stepgrant.mesh.agents", "sys/policies/acl/stepgrant-broker",
            "auth/token/roles/stepgrant", "sys/auth/approle", "auth/approle/role/stepgrant-broker",
            "auth/approle/role/stepgrant-broker/secret-id",
        ]  # fmt: skip
        assert "transit/" not in fresh.request("GET", "sys/mounts")["data"]
        assert not secret_id.exists()
        done = run(*words)
        assert paths(done) == said
        assert secret_id.stat().st_mode & 0o777 == 0o600
        assert secret_id.read_text().strip() not in done.out
        assert paths(run(*words)) == []
        assert "nothing to change" in run(*words[:-1]).out


def test_what_somebody_changed_is_put_right_and_nothing_else(server: VaultServer, setup: Setup) -> None:
    setup()
    server.request("POST", "auth/token/roles/stepgrant", {"token_period": 3600, "allowed_policies_glob": ["*"]})
    server.request("PUT", "sys/policies/acl/stepgrant.crm-key.kv", {"policy": 'path "*" { capabilities = ["read"] }'})
    assert paths(setup("--json")) == ["sys/policies/acl/stepgrant.crm-key.kv", "auth/token/roles/stepgrant"]
    assert paths(setup("--json")) == []


ALLOWED: Final = [
    ("GET", "auth/token/lookup-self", None),
    ("POST", "auth/token/renew-self", {}),
    ("POST", "sys/capabilities-self", {"paths": ["pki/revoke"]}),
    ("POST", "auth/token/create/stepgrant", {"policies": ["stepgrant.crm-key.kv"], "num_uses": 1, "ttl": "1s"}),
    ("POST", "auth/token/create/stepgrant", {"policies": ["stepgrant.mesh.agents"], "num_uses": 1, "ttl": "1s"}),
    ("PUT", "sys/leases/revoke", {"lease_id": "database/creds/orders-rw/x", "sync": True}),
    ("GET", "pki/roles/agents", None),
    ("GET", "transit/keys/stepgrant-grants", None),
    ("POST", "transit/sign/stepgrant-heads", {"input": "eA=="}),
    ("POST", "transit/datakey/wrapped/stepgrant-wrap", {"bits": 256}),
]
DENIED: Final = [
    # What only a grant's own token may do.
    ("GET", "secret/data/agents/crm", None),
    ("GET", "database/creds/orders-rw", None),
    ("POST", "pki/sign/agents", {"csr": "x"}),
    ("POST", "pki/issue/agents", {}),
    ("POST", "pki/sign-verbatim", {"csr": "x"}),
    # Keys: not out, not changed, and no others.
    ("GET", "transit/export/signing-key/stepgrant-grants", None),
    ("GET", "transit/backup/stepgrant-grants", None),
    ("POST", "transit/datakey/plaintext/stepgrant-wrap", {"bits": 256}),
    ("POST", "transit/keys/stepgrant-grants/rotate", {}),
    ("POST", "transit/keys/stepgrant-grants/config", {"deletion_allowed": True}),
    ("DELETE", "transit/keys/stepgrant-grants", None),
    ("POST", "transit/sign/another", {"input": "eA=="}),
    # Tokens with anything else than a grant's policy.
    ("POST", "auth/token/create", {}),
    ("POST", "auth/token/create-orphan", {}),
    ("POST", "auth/token/create/another", {}),
    ("POST", "auth/token/roles/stepgrant", {"allowed_policies": ["root"]}),
    ("POST", "auth/token/lookup-accessor", {"accessor": "x"}),
    ("LIST", "auth/token/accessors", None),
    ("POST", "auth/token/revoke", {"token": "x"}),
    # Leases of others, or not for sure.
    ("PUT", "sys/leases/revoke", {"lease_id": "database/creds/admin/x", "sync": True}),
    ("PUT", "sys/leases/revoke", {"lease_id": "auth/token/create/x", "sync": True}),
    ("PUT", "sys/leases/revoke", {"lease_id": "database/creds/orders-rw/x"}),
    ("PUT", "sys/leases/revoke/database/creds/orders-rw/x", {"sync": True}),
    ("PUT", "sys/leases/revoke-prefix/database/creds/orders-rw", {"sync": True}),
    ("POST", "sys/leases/lookup", {"lease_id": "database/creds/admin/x"}),
    # Its own rights, and the rest of Vault.
    ("PUT", "sys/policies/acl/stepgrant-broker", {"policy": ""}),
    ("GET", "sys/policies/acl/stepgrant-broker", None),
    ("POST", "auth/approle/role/stepgrant-broker", {"token_policies": ["root"]}),
    ("POST", "auth/approle/role/stepgrant-broker/secret-id", {}),
    ("POST", "pki/roles/agents", {"allow_any_name": True}),
    ("POST", "sys/mounts/mine", {"type": "kv"}),
    ("GET", "sys/mounts", None),
    ("PUT", "sys/seal", {}),
]


def status(server: VaultServer, method: str, path: str, body: Any, token: str) -> str:  # noqa: ANN401 - JSON
    """`ok`, or Vault's number."""
    try:
        server.request(method, path, body, token=token)
    except Exception as error:  # noqa: BLE001 - the services' own, with Vault's number in it
        return str(error).removeprefix("vault answered ")[:3]
    return "ok"


def test_the_broker_can_do_what_it_needs(server: VaultServer, broker: str) -> None:
    assert {(method, path): status(server, method, path, body, broker) for method, path, body in ALLOWED} == {
        (method, path): "ok" for method, path, _ in ALLOWED
    }


@pytest.mark.parametrize(
    ("method", "path", "body"), DENIED, ids=[f"{one[0]} {one[1]} {one[2] or {}}" for one in DENIED]
)
def test_the_broker_can_do_nothing_else(
    server: VaultServer, broker: str, method: str, path: str, body: dict[str, Any] | None
) -> None:
    assert status(server, method, path, body, broker) == "403"


@pytest.mark.parametrize(
    "body",
    [
        {"policies": ["root"]}, {"policies": ["stepgrant-broker"]}, {"policies": ["stepgrant.another.role"]},
        {"policies": ["stepgrant.crm-key.kv", "default"]}, {"policies": ["stepgrant.crm-key.kv"], "period": "1h"},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_per_grant_tokens_have_the_issuers_policies_only(
    server: VaultServer, broker: str, body: dict[str, Any]
) -> None:
    assert status(server, "POST", "auth/token/create/stepgrant", body, broker) in {"400", "403"}


def test_per_grant_tokens_cannot_outlive_the_longest_grant(server: VaultServer, broker: str) -> None:
    body = {"policies": ["stepgrant.mesh.agents"], "ttl": "10h", "explicit_max_ttl": "10h"}
    made = server.request("POST", "auth/token/create/stepgrant", body, token=broker)["auth"]
    server.request("POST", "auth/token/revoke-accessor", {"accessor": made["accessor"]}, token=broker)
    assert (made["lease_duration"], made["orphan"], made["renewable"]) == (310, True, False)


def test_the_policies_beside_the_readme_are_what_it_writes(server: VaultServer, setup: Setup) -> None:
    setup()
    written = {path.stem: path.read_text() for path in (DEPLOY / "policies").glob("*.hcl")}
    known = {name: server.request("GET", f"sys/policies/acl/{name}")["data"]["policy"] for name in written}
    assert written == known
    assert set(written) == {
        "stepgrant-broker", "stepgrant.orders-db.orders-rw", "stepgrant.crm-key.kv", "stepgrant.mesh.agents",
    }  # fmt: skip


def test_every_line_of_the_brokers_policy_has_a_reason() -> None:
    text = (DEPLOY / "policies" / "stepgrant-broker.hcl").read_text()
    blocks = text.split("\npath ")[1:]
    assert len(blocks) > 10
    for block in blocks:
        assert block.splitlines()[1].startswith("  # ")
        assert "An issuer of the issuers file" not in block


def test_what_is_there_and_does_not_fit_is_named_and_left(server: VaultServer, setup: Setup) -> None:
    mount = unique("kv")
    server.request("POST", f"sys/mounts/{mount}", {"type": "kv"})
    done = setup("--transit-mount", mount)
    assert done.code == 5
    assert f"{mount} is a mount of another kind than transit" in done.err
    loose = unique("transit")
    server.request("POST", f"sys/mounts/{loose}", {"type": "transit"})
    server.request("POST", f"{loose}/keys/stepgrant-grants", {"type": "ecdsa-p256", "exportable": True})
    done = setup("--transit-mount", loose)
    assert "is no ecdsa-p256 key that cannot leave Vault" in done.err
    assert (
        setup("--login", "jwt", "--jwt-subject", "a", "--jwt-audience", "b").err.count("enable and configure it") == 1
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--login", "jwt"], "needs --jwt-subject and --jwt-audience"),
        (["--role", "stepgrant.mine"], "not beginning stepgrant."),
        (["--role", "a/b"], "take letters, digits"),
        (["--login", "magic"], "approle, jwt or none"),
        (["--addr", "http://vault.example:8200"], "http only on loopback"),
        (["--issuers", "nowhere.toml"], "cannot be read"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_sent(setup: Setup, words: list[str], said: str) -> None:
    done = setup(*words)
    assert done.code == 2
    assert said in " ".join(done.err.split())


def test_without_an_admin_token_it_says_how_to_give_one(
    server: VaultServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("VAULT_TOKEN", raising=False)
    run = caller(capsys, [server.root_token])
    done = run("vault", "setup", "--addr", server.addr)
    assert (done.code, "--token-file, or VAULT_TOKEN" in done.err) == (2, True)
    token = tmp_path / "admin"
    token.touch(mode=0o600)
    token.write_text("hvs.nobody")
    assert "does not accept the token" in run("vault", "setup", "--addr", server.addr, "--token-file", str(token)).err
    token.chmod(0o644)
    assert "chmod o-rwx" in run("vault", "setup", "--addr", server.addr, "--token-file", str(token)).err
