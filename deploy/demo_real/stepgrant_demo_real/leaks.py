"""Looking for secrets where none may rest: both databases, every log, Vault's audit log, what the agents said.

The passwords of Vault's logins live in memories that nobody can ask, so the demo gave Vault a rule for passwords that
makes each one recognisable. That the look finds one is tried on a real one first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from stepgrant_broker.demo import leaks
from stepgrant_broker.demo.checks import Finding
from stepgrant_demo_real import vaulting
from stepgrant_demo_real.stage import STORE, RealStage
from stepgrant_demo_real.witness import rows_of_database

TOKEN: Final = re.compile(rb"\bhv[sb]\.[A-Za-z0-9_-]{20,}")
PASSWORD: Final = re.compile(rb"[a-z2-9~]{%d,}" % vaulting.PASSWORD_LENGTH)


def shapes_in(data: bytes) -> list[str]:
    """What looks like a password of the demo's logins, or like a token of Vault."""
    passwords = [one for one in PASSWORD.findall(data) if one.count(b"~") >= vaulting.PASSWORD_MARKS]
    return ["a password of a login"] * len(passwords) + ["a token of Vault"] * len(TOKEN.findall(data))


def nothing_leaked(stage: RealStage) -> Finding:
    """No key, token or password rests anywhere but in the key files, which only their owner can read."""
    lease, _, password = vaulting.a_login(stage.vault)
    vaulting.drop(stage.vault, lease)
    if not shapes_in(password.encode()):
        return Finding(holds=False, evidence="the look does not recognise a password of Vault's")
    files = stage.secret_files()
    known = {secret for path in files for secret in leaks.secrets_in(path)}
    known |= {one.encode() for one in stage.known_secrets()}
    bad, looked, size = [], 0, 0
    for name, data in _everything(stage, {path.resolve() for path in files}):
        looked, size = looked + 1, size + len(data)
        bad += [f"{what} in {name}" for what in leaks.leaks_in(data, known) + shapes_in(data)]
    own = leaks.nothing_leaked(stage.folder, files)
    told = f"{looked} files and rows, {size // 1024} KiB; {len(known)} known secrets and three kinds of shape"
    return Finding(
        not bad and own.holds, "; ".join([*sorted(set(bad)), *([] if own.holds else [own.evidence])]) or told
    )


def _everything(stage: RealStage, secret: set[object]) -> Iterator[tuple[str, bytes]]:
    for path in sorted(path for path in stage.folder.rglob("*") if path.is_file() and path.resolve() not in secret):
        yield path.name, path.read_bytes()
    for server in (stage.opa, stage.vault, stage.postgres):
        yield f"the log of {server.name}", server.log.read_bytes()
    for url in (stage.postgres.url(STORE), stage.postgres.url("app")):
        yield from rows_of_database(url)
