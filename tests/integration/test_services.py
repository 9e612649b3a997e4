"""The fixtures of tests/services.py give real servers that can be stopped, crashed and started again."""

from collections.abc import Callable
from pathlib import Path

import pytest

from stepgrant_services import OpaServer, PostgresServer, ServiceError, VaultServer

POLICY = "package demo\n\nallow := true\n"


def test_opa_serves_a_folder_and_comes_back_on_its_port(opa_server: Callable[..., OpaServer], tmp_path: Path) -> None:
    (tmp_path / "demo.rego").write_text(POLICY, encoding="utf-8")
    with opa_server(tmp_path) as opa:
        first = (opa.url, opa.pid)
        opa.kill()
        assert not opa.alive
        opa.start()

        assert opa.url == first[0]
        assert opa.pid != first[1]
        assert opa._answers()
    assert not opa.alive
    assert not opa.folder.exists()


def test_postgres_keeps_what_it_acknowledged_through_a_crash(new_postgres: Callable[..., PostgresServer]) -> None:
    with new_postgres() as postgres:
        postgres.sql("create table kept (value text)")
        postgres.sql("insert into kept values ('ä')")
        postgres.kill()
        postgres.start()

        assert postgres.sql("select value, current_setting('server_encoding') from kept") == ["ä|UTF8"]
        with pytest.raises(ServiceError, match="syntax error"):
            postgres.sql("select from where")


def test_a_copy_of_a_model_is_a_server_of_its_own(new_postgres: Callable[..., PostgresServer]) -> None:
    model = PostgresServer.model
    assert model is not None
    assert not (model / "data" / "postmaster.pid").exists()
    with new_postgres() as one, new_postgres() as other:
        one.sql("create table mine ()")
        assert one.sql("select count(*) from pg_class where relname = 'mine'") == ["1"]
        assert other.sql("select count(*) from pg_class where relname = 'mine'") == ["0"]
        assert one.data.stat().st_mode & 0o777 == 0o700
        assert one.password_file.stat().st_mode & 0o777 == 0o600
    assert (model / "data").is_dir()


def test_postgres_wants_its_password(postgres_server: PostgresServer) -> None:
    assert postgres_server.sql(
        "select rolpassword like 'SCRAM-SHA-256%' from pg_authid where rolname = 'postgres'"
    ) == ["t"]
    made = postgres_server.create_database()
    assert made.startswith(f"postgresql://postgres:{postgres_server.password}@127.0.0.1:{postgres_server.port}/test_")


def test_vault_dev(vault_server: VaultServer) -> None:
    vault_server.request("POST", "secret/data/demo", {"data": {"a": "b"}})
    assert vault_server.request("GET", "secret/data/demo")["data"]["data"] == {"a": "b"}
    assert vault_server.root_token_file.stat().st_mode & 0o777 == 0o600
    assert vault_server.root_token not in vault_server.tail()


def test_durable_vault_seals_restarts_and_keeps(new_vault: Callable[..., VaultServer]) -> None:
    with new_vault(durable=True) as vault:
        vault.request("POST", "sys/mounts/kv", {"type": "kv"})
        vault.request("POST", "kv/demo", {"a": "b"})
        vault.seal()
        with pytest.raises(ServiceError, match="503"):
            vault.request("GET", "kv/demo")
        vault.unseal()
        vault.kill()
        vault.start()

        assert vault.request("GET", "kv/demo")["data"] == {"a": "b"}
