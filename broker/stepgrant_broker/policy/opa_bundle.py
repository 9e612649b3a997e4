"""A policy as an OPA bundle: exactly the files that the broker activates, named by the digest that it activates.

Rules:
* The same policy gives the same bytes on every machine and day: entries in order, no times, owners or file name.
* The manifest's `revision` is the policy's digest; its `roots` are what the files define, so that OPA lets nothing else
  (another bundle, its own API) add to them.
* Tests, cases and schemas stay outside: the broker does not evaluate them either.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import PurePosixPath
from typing import Any, Final

from stepgrant import canonical
from stepgrant_broker.policy.bundle import Bundle
from stepgrant_broker.policy.check import compiled
from stepgrant_broker.policy.opa_signing import SIGNATURES, SigningKey

MANIFEST: Final = ".manifest"
REGO_VERSION: Final = 1
_MODE: Final = 0o644


def opa_bundle(bundle: Bundle, key: SigningKey | None = None) -> bytes:
    """The tar.gz, signed if there is a `key`. Raises `PolicyInvalid` for a policy that does not compile."""
    files = {MANIFEST: canonical.dumps(manifest(bundle))}
    files |= {path: text.encode() for path, text in sorted(bundle.files.items())}
    if key is not None:
        files[SIGNATURES] = key.signatures(files)
    packed = io.BytesIO()
    with (
        # A level of its own, and no name or time: gzip would write both into its header.
        gzip.GzipFile(filename="", mode="wb", fileobj=packed, compresslevel=9, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for path, raw in files.items():
            _add(archive, path, raw)
    return packed.getvalue()


def manifest(bundle: Bundle) -> dict[str, Any]:
    """What `.manifest` says."""
    return {"revision": bundle.digest, "roots": roots(bundle), "rego_version": REGO_VERSION}


def roots(bundle: Bundle) -> list[str]:
    """The shortest list of paths below `data` that covers every package and every data file."""
    found = {"/".join(module.package) for module in compiled(bundle.modules, bundle.data)}
    found |= {str(PurePosixPath(path).parent) for path in bundle.files if path.endswith("/data.json")}
    return sorted(one for one in found if not any(one.startswith(other + "/") for other in found))


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo("/" + name)
    entry.size, entry.mode = len(content), _MODE
    archive.addfile(entry, io.BytesIO(content))
