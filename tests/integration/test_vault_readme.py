"""`deploy/vault/README.md`: its commands, in order, on a real Vault and PostgreSQL, up to a doctor who is content."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer, VaultServer

DEPLOY: Final = Path(__file__).parents[2] / "deploy" / "vault"
BLOCK: Final = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PATIENCE_S: Final = 150


@pytest.mark.timeout(200)  # a dozen starts of a large program
def test_every_command_works(
    new_vault: Callable[..., VaultServer], postgres_server: PostgresServer, vault_binary: Path, tmp_path: Path
) -> None:
    place = tmp_path / "here"
    shutil.copytree(DEPLOY, place)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "vault").symlink_to(vault_binary)
    database = postgres_server.create_database().rpartition("/")[2]
    script = "set -euo pipefail\n" + "\n".join(BLOCK.findall((DEPLOY / "README.md").read_text()))
    with new_vault() as vault:
        done = subprocess.run(
            ["bash", "-c", script],  # noqa: S607 - the README is for whatever bash there is
            cwd=place,
            env={
                "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
                "HOME": str(tmp_path),
                "VAULT_ADDR": vault.addr,
                "VAULT_TOKEN": vault.root_token,
                "ORDERS_DB": f"{postgres_server.host_port}/{database}",
                "ORDERS_DB_USER": postgres_server.user,
                "ORDERS_DB_PASSWORD": postgres_server.password,
                "CRM_API_KEY": "sk-made-up-key",
            },
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        assert "FAIL" not in said
        assert "orders-db" in said
        assert "sk-made-up-key" not in said
        assert postgres_server.password not in said
        secret_id = (place / "secret-id").read_text().strip()
        assert secret_id not in said


def test_it_names_the_files_that_are_there() -> None:
    text = (DEPLOY / "README.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    assert [link for link in links if not (DEPLOY / link).exists()] == []


@pytest.mark.parametrize("name", ["orders-create.sql", "orders-revoke.sql"])
def test_its_statements_are_what_the_broker_asks_for(name: str) -> None:
    text = (DEPLOY / name).read_text()
    assert ("VALID UNTIL '{{expiration}}'" in text) is (name == "orders-create.sql")
    assert text.startswith("SELECT pg_terminate_backend") is (name == "orders-revoke.sql")
