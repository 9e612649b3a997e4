"""`deploy/compose.yaml`, and "With containers" of `deploy/README.md` as it says, on programs in place of containers.

`pod.py` is `docker` here. OPA and PostgreSQL are real; a real Vault is in OpenBao's place.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

import everyday
import pod
from processes import ROOT, environment
from stepgrant_services.processes import free_port

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer

README: Final = (ROOT / "deploy" / "README.md").read_text(encoding="utf-8")
SECTION: Final = README.partition("## With containers\n")[2].partition("\n## ")[0]
BLOCKS: Final = re.findall(r"^```bash\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
PATIENCE_S: Final = 220
STRICT: Final = "openssl verify -x509_strict -partial_chain -purpose sslserver -CAfile config/tls.crt config/tls.crt\n"
"""As Python 3.13 does, which is in the image; where there is an openssl that can."""
AFTER: Final = """
until curl -fs --cacert config/tls.crt https://localhost:8423/readyz; do sleep 1; done
docker compose exec -T -e SSL_CERT_FILE=/etc/stepgrant/tls.crt broker \\
  stepgrant policy list --json --client olga.client.json > policies.json
docker compose exec -T -e SSL_CERT_FILE=/etc/stepgrant/tls.crt broker \\
  stepgrant workload list --client olga.client.json
"""
CHANGED: Final = 'sed -i \'s/"report.publish"/"report.print"/\' config/policy/stepgrant_config/data.json\n'
FORGOTTEN: Final = "docker compose restart vault\n"


def repository(folder: Path, ports: Mapping[str, str]) -> Path:
    """A copy of what the commands use of this repository, with other ports, and Vault's names for OpenBao's."""
    made = folder / "repository"
    shutil.copytree(ROOT / "deploy", made / "deploy", ignore=shutil.ignore_patterns("services", "demo_real", "vault"))
    for name in ("LICENSE", "README.md", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, made)
    for name in ("sdk", "broker", "policies"):
        (made / name).mkdir()
    compose = made / "deploy" / "compose.yaml"
    here = f'127.0.0.1\n    STEPGRANT_BROKER_PORT: "{ports["8423"]}"'
    said = moved(compose.read_text(encoding="utf-8"), ports).replace("BAO_DEV_", "VAULT_DEV_")
    compose.write_text(said.replace("_HOST: 0.0.0.0", f"_HOST: {here}"), encoding="utf-8")
    return made


def moved(text: str, ports: Mapping[str, str]) -> str:
    """With each port replaced: the page's own may be taken on a developer's machine."""
    return re.sub(r":(\d{4})\b", lambda found: f":{ports.get(found[1], found[1])}", text)


def run(script: str, env: Mapping[str, str], folder: Path) -> tuple[int, str]:
    """Run it as one shell; its exit code, and all that was said. What it started ends with it."""
    said = folder / "said.txt"
    with said.open("wb") as out:
        command = ["bash", "-c", script]
        shell = subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=out, start_new_session=True)
        try:
            code = shell.wait(PATIENCE_S)
        finally:
            # They are this shell's group, and nobody else is in it.
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGTERM)
    return code, said.read_text(encoding="utf-8")


@pytest.mark.timeout(300)  # a dozen starts of a large program, and three servers
def test_every_command_works(
    new_postgres: Callable[..., PostgresServer],
    vault_binary: Path,
    opa_binary: Path,
    postgres_binaries: Path,
    tmp_path: Path,
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, program in (("bao", vault_binary), ("opa", opa_binary), ("psql", postgres_binaries / "psql")):
        (programs / name).symlink_to(program)
    docker = f'#!/bin/sh\nPYTHONPATH={Path(pod.__file__).parent} exec {sys.executable} {pod.__file__} "$@"\n'
    (programs / "docker").write_text(docker)
    (programs / "docker").chmod(0o700)
    strict = STRICT if shutil.which("openssl") else ""
    everyday.put_missing(programs)
    home, state = tmp_path / "home", tmp_path / "state"
    home.mkdir()
    state.mkdir()
    with new_postgres() as database:
        ports = {"5432": database.host_port.rpartition(":")[2]}
        ports |= {port: str(free_port()) for port in ("8181", "8200", "8423")}
        there = repository(tmp_path, ports)
        script = moved("\n".join([*BLOCKS[:-2], CHANGED, BLOCKS[-2], FORGOTTEN, BLOCKS[-1], strict, AFTER]), ports)
        env = environment(
            PATH=os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
            HOME=str(home),
            PODS_STATE=str(state),
            PGHOST="127.0.0.1",
            PGPORT=ports["5432"],
            PGUSER=database.user,
            PGPASSWORD=database.password,
            PGSSLMODE="disable",
        )
        code, text = run(f"set -euo pipefail\ncd {there}\n{script}", env, tmp_path)
    folder = home / "stepgrant"
    assert code == 0, text
    policies = json.loads((folder / "policies.json").read_text())["policies"]
    assert [one["active"] for one in policies] == [True, False], "the changed policy is in force"
    assert "FAIL" not in text, text
    assert (folder / "broker.env").read_text().count("\nSTEPGRANT_BROKER_VAULT_ROLE_ID=") == 2
    logged_in = [line for line in (state / "broker.log").read_text().splitlines() if '"vault_logged_in"' in line]
    assert len(logged_in) == 3, "at the start, after the new policy, after the new login"
    for found in ("opa revision", "vault login", "issuers crm-key", "database clock"):
        assert re.search(rf"^ok +{found} ", text, re.MULTILINE), text
    assert "billing" in text
    secret = [path.read_text().strip() for path in (folder / "secrets").iterdir()]
    assert len(secret) == 4
    assert not [one for one in secret if one in text]
    assert [path.stat().st_mode & 0o077 for path in [*(folder / "secrets").iterdir(), folder / "broker.env"]] == [0] * 5
