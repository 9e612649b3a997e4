"""The issuers file: what it says is exactly what is built, and what is not known is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepgrant_broker.issuers.file import FILE_MAX, IssuersFileInvalid, read_issuers
from stepgrant_broker.issuers.vault_database import DatabaseConfig

KINDS = {"vault-database": DatabaseConfig.read}
WHOLE = """
[issuer.orders-db]
kind = "vault-database"
mount = "team/database"
roles = ["orders-rw", "orders-ro"]
max_ttl_s = 90
token_role = "agents"
host = "orders-db.example"
port = 5433
database = "orders"
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "issuers.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refused(folder: Path, text: str | bytes) -> list[str]:
    with pytest.raises(IssuersFileInvalid) as caught:
        read_issuers(write(folder, text), KINDS)
    return caught.value.problems


def one(**changed: str) -> str:
    """A section with these settings (TOML values) changed; an empty one is left out."""
    given = {"kind": '"vault-database"', "roles": '["orders-rw"]', "host": '"db.example"', **changed}
    return "[issuer.orders-db]\n" + "\n".join(f"{key} = {value}" for key, value in given.items() if value)


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    assert read_issuers(write(tmp_path, WHOLE), KINDS) == {
        "orders-db": DatabaseConfig(
            name="orders-db",
            mount="team/database",
            roles=("orders-rw", "orders-ro"),
            max_ttl_s=90,
            token_role="agents",
            host="orders-db.example",
            port=5433,
            database="orders",
        )
    }


def test_what_is_not_said_is_narrow(tmp_path: Path) -> None:
    (config,) = read_issuers(write(tmp_path, one()), KINDS).values()
    assert isinstance(config, DatabaseConfig)
    assert (config.mount, config.max_ttl_s, config.token_role) == ("database", 60, "stepgrant")
    assert (config.origin, config.fixed_fields()) == ("db.example", {"host": "db.example"})


def test_what_it_needs_in_vault_is_its_roles_and_nothing_else(tmp_path: Path) -> None:
    (config,) = read_issuers(write(tmp_path, WHOLE), KINDS).values()
    assert config.vault_policies().keys() == {"stepgrant.orders-db.orders-rw", "stepgrant.orders-db.orders-ro"}
    for name, text in config.vault_policies().items():
        assert text.count("path ") == 1
        assert f'path "team/database/creds/{name.rpartition(".")[2]}"' in text
        assert 'capabilities = ["read"]' in text
    assert set(config.broker_rules()) == {
        "auth/token/create/agents",
        "auth/token/revoke-accessor",
        "sys/leases/revoke",
        "sys/leases/lookup",
        "team/database/roles/orders-rw",
        "team/database/roles/orders-ro",
    }


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"kind": '"vault-databse"'}, "kind must be one of vault-database"),
        ({"kind": "7"}, "kind is no text"),
        ({"kind": ""}, "kind is missing"),
        ({"roles": ""}, "roles is missing"),
        ({"roles": "[]"}, "roles must be a list of names"),
        ({"roles": '"orders-rw"'}, "roles must be a list of names"),
        ({"roles": '["a/b"]'}, "roles holds something that is no name"),
        ({"roles": '["../x"]'}, "roles holds something that is no name"),
        ({"roles": "[7]"}, "roles holds something that is no name"),
        ({"roles": '["a", "a"]'}, "names one twice"),
        ({"roles": '["a", "A"]'}, "differ only in upper and lower case"),
        ({"host": ""}, "host is missing"),
        ({"host": '"https://db.example"'}, "host is no text of the expected form"),
        ({"host": '"db.example/x"'}, "host is no text"),
        ({"port": "0"}, "port must be a whole number from 1 to 65535"),
        ({"port": "true"}, "port must be a whole number"),
        ({"max_ttl_s": "301"}, "max_ttl_s must be a whole number from 1 to 300"),
        ({"max_ttl_s": '"60"'}, "max_ttl_s must be a whole number"),
        ({"max_ttl_s": "0"}, "max_ttl_s must be a whole number"),
        ({"max_tl_s": "60"}, "max_tl_s is no setting of this kind; did you mean max_ttl_s?"),
        ({"password": '"hunter2"'}, "password is no setting of this kind"),
        ({"mount": '"../sys"'}, "mount is no text of the expected form"),
        ({"mount": '"/database"'}, "mount is no text"),
        ({"mount": '"database/"'}, "mount is no text"),
        ({"token_role": '""'}, "token_role is no text"),
        ({"token_role": '"../lookup"'}, "token_role is no text"),
        ({"database": '"a b"'}, "database is no text"),
    ],
)
def test_what_is_wrong_is_named_and_never_repeated(tmp_path: Path, changed: dict[str, str], said: str) -> None:
    (problem,) = refused(tmp_path, one(**changed))
    assert problem.startswith("[issuer.orders-db] ")
    assert said in problem
    assert "hunter2" not in problem


@pytest.mark.parametrize("name", ["jwt", "static"])
def test_the_names_of_the_brokers_own_issuers_are_taken(tmp_path: Path, name: str) -> None:
    assert refused(tmp_path, one().replace("orders-db", name)) == [
        f"[issuer.{name}] this name is the broker's own; take another"
    ]


@pytest.mark.parametrize("name", ['"Orders"', '"a.b"', '"-a"', '""', '"a_b"', f'"{"a" * 64}"'])
def test_a_name_of_another_form_is_refused(tmp_path: Path, name: str) -> None:
    """A point would let two issuers share a policy of Vault."""
    (problem,) = refused(tmp_path, one().replace("orders-db", name))
    assert "the name must be 1 to 63 of a-z, 0-9 and -" in problem


@pytest.mark.parametrize(
    "text",
    ["", "x = 1", "[issuer]", "[issuers.a]\nkind='x'", WHOLE + "\n[other]\nx=1", "issuer = 1", "[issuer]\na = 1"],
)
def test_a_file_of_another_shape_is_refused(tmp_path: Path, text: str) -> None:
    (problem,) = refused(tmp_path, text)
    assert "[issuer." in problem


@pytest.mark.parametrize("text", ["[issuer.a", WHOLE + WHOLE, b"\xff", "# " + "x" * FILE_MAX])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, text: str | bytes) -> None:
    (problem,) = refused(tmp_path, text)
    assert str(tmp_path / "issuers.toml") in problem
    with pytest.raises(IssuersFileInvalid, match="cannot be read: No such file"):
        read_issuers(tmp_path / "missing.toml", KINDS)


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    text = one(port="0") + "\n" + one(host="").replace("orders-db", "crm-db")
    assert [problem.partition("]")[0] for problem in refused(tmp_path, text)] == ["[issuer.orders-db", "[issuer.crm-db"]
