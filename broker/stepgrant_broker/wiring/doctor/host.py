"""This host: versions, the folders and keys, the room that is left, the name under which the broker is called."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from stepgrant_broker.config import LOOPBACK, PREFIX
from stepgrant_broker.domain.errors import StepgrantFault
from stepgrant_broker.signing.local import LocalSigner
from stepgrant_broker.signing.wrap import LocalWrap
from stepgrant_broker.wiring.doctor.findings import Area, Found

if TYPE_CHECKING:
    from stepgrant_broker.config import Settings

TIGHT_MIB: Final = 1024
FULL_MIB: Final = 100
PACKAGES: Final = ("stepgrant", "fastapi", "uvicorn", "sqlalchemy", "cryptography")
OTHERS_MAY: Final = stat.S_IRWXG | stat.S_IRWXO

KEYS, HOST, ADDRESS = Area("keys"), Area("host"), Area("address")


async def host(settings: Settings) -> AsyncIterator[Found]:
    """Versions, and room on the disk."""
    found = {name: _version(name) for name in PACKAGES}
    missing = [name for name, known in found.items() if known is None]
    said = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, " + ", ".join(
        f"{name} {known}" for name, known in found.items() if known is not None
    )
    if missing:
        yield HOST.fail("versions", f"not installed: {', '.join(missing)}", "pip install 'stepgrant[broker]'")
    else:
        yield HOST.ok("versions", said)
    folder = _existing(settings.data_dir)
    free = shutil.disk_usage(folder).free // 2**20
    if free < FULL_MIB:
        yield HOST.fail("disk", f"{free} MiB free at {folder}", "make room: a full disk stops every grant")
    elif free < TIGHT_MIB:
        yield HOST.warn("disk", f"{free} MiB free at {folder}", "make room before it is full: then grants stop")
    else:
        yield HOST.ok("disk", f"{free} MiB free at {folder}")


async def address(settings: Settings) -> AsyncIterator[Found]:
    """What agents call, and whether anybody on the way can listen."""
    url = urlsplit(settings.public_url)
    if url.scheme == "https" or url.hostname in LOOPBACK:
        yield ADDRESS.ok("public_url", settings.public_url)
    else:
        yield ADDRESS.fail(
            "public_url",
            f"{settings.public_url} is plain http to another machine: credentials would cross the network in clear",
            f"set {PREFIX}PUBLIC_URL to an https name (tls_cert and tls_key, or a proxy that ends TLS)",
        )
    if settings.test_mode:
        yield ADDRESS.fail(
            "test_mode", "the seams for tests are open", f"unset {PREFIX}TEST_MODE: it is not for production"
        )


async def keys(settings: Settings) -> AsyncIterator[Found]:
    """The folder of keys, who can reach it, and whether they sign and open."""
    folder = settings.keys_folder
    if not folder.is_dir():
        yield KEYS.fail("folder", f"{folder} is not there", "make them once with `stepgrant db migrate` (or `init`)")
        return
    loose = list(_loose(folder))
    if loose:
        names = ", ".join(str(path) for path in loose)
        yield KEYS.fail("permissions", f"others can reach {names}", f"chmod -R go= {folder}; then think of new keys")
    else:
        yield KEYS.ok("permissions", f"{folder} is this user's alone")
    checks: dict[str, Callable[[], object]] = {}
    if settings.key_wrap == "local":
        checks["wrapping"] = lambda: LocalWrap.open(folder)
    if settings.signer == "local":
        checks["signing"] = lambda: LocalSigner.open(folder)
    for name, check in checks.items():
        try:
            check()
        except StepgrantFault as fault:
            yield KEYS.fail(name, fault.detail, f"put the keys of this installation back into {folder}")
        else:
            yield KEYS.ok(name, f"the keys for {name} are there and whole")


def _loose(folder: Path) -> Iterator[Path]:
    me = os.getuid()
    for path in (folder, *sorted(folder.iterdir())):
        found = path.lstat()
        if found.st_mode & OTHERS_MAY or found.st_uid != me:
            yield path


def _existing(path: Path) -> Path:
    here = path.absolute()
    return next(one for one in (here, *here.parents) if one.exists())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
