"""`deploy/README.md`, first part: from nothing to two replicas on one's own OPA, Vault and PostgreSQL, as it says."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

import everyday

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer, VaultServer

README: Final = (Path(__file__).parents[2] / "deploy" / "README.md").read_text(encoding="utf-8")
SECTION: Final = README.partition("## From nothing to a broker on your own three\n")[2].partition("\n## ")[0]
BLOCKS: Final = re.findall(r"^```sh\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
PORTS: Final = ("8181", "8423", "8424")
PATIENCE_S: Final = 170


def free_ports(count: int) -> list[str]:
    """Ports that nobody listens on right now; the page's own may be taken on a developer's machine."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [str(one.getsockname()[1]) for one in held]
    finally:
        for one in held:
            one.close()


def run(script: str, env: Mapping[str, str], folder: Path) -> tuple[int, str, Path]:
    """Run it as one shell; its exit code, all that was said, and where. OPA and the replicas end with it."""
    here, said = folder / "here", folder / "said.txt"
    here.mkdir()
    with said.open("wb") as out:
        command = ["bash", "-c", script]
        shell = subprocess.Popen(command, cwd=here, env=env, stdout=out, stderr=out, start_new_session=True)
        try:
            code = shell.wait(PATIENCE_S)
        finally:
            # They are this shell's group, and nobody else is in it.
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGTERM)
    return code, said.read_text(), here


@pytest.mark.timeout(240)  # a dozen starts of a large program, and two replicas
def test_every_command_works(
    new_vault: Callable[..., VaultServer],
    new_postgres: Callable[..., PostgresServer],
    vault_binary: Path,
    opa_binary: Path,
    postgres_binaries: Path,
    tmp_path: Path,
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, program in (("vault", vault_binary), ("opa", opa_binary), ("psql", postgres_binaries / "psql")):
        (programs / name).symlink_to(program)
    everyday.put_missing(programs)
    # What is installed already is what the page installs; its broker listens where the page says, moved to free ports.
    (programs / "pip").symlink_to("/bin/true")
    script = "set -euo pipefail\n" + "\n".join(BLOCKS)
    moved = free_ports(len(PORTS))
    for port, other in zip(PORTS, moved, strict=True):
        script = script.replace(port, other)
    script = script.replace("\nstepgrant serve &", f"\nSTEPGRANT_BROKER_PORT={moved[1]} stepgrant serve &")
    with new_vault() as vault, new_postgres() as database:
        env = {
            "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "HOME": str(tmp_path),
            "VAULT_ADDR": vault.addr,
            "VAULT_TOKEN": vault.root_token,
            "PGHOST": "127.0.0.1",
            "PGPORT": database.host_port.rpartition(":")[2],
            "PGUSER": database.user,
            "PGPASSWORD": database.password,
            "PGSSLMODE": "disable",
        }
        code, text, here = run(script, env, tmp_path)
        assert code == 0, text
        assert "FAIL" not in text, text
        for found in ("opa revision", "vault login", "issuers crm-key", "service ready", "database clock"):
            assert re.search(rf"^ok +{found} ", text, re.MULTILINE), text
        assert "billing" in text
        for secret in (vault.root_token, database.password, (here / "secret-id").read_text().strip()):
            assert secret not in text
