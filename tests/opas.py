"""A real OPA that serves the bundle which the broker would build of a policy.

`OpaServer` (deploy/services) is the process: `.url`, `.stop()`, `.kill()`, `.pause()`, `.resume()`, `.start()`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from stepgrant_broker.policy.bundle import Bundle
from stepgrant_broker.policy.opa_bundle import opa_bundle

if TYPE_CHECKING:
    from stepgrant_services import OpaServer

Serve: TypeAlias = "Callable[..., OpaServer]"
"""The fixture `opa_server`."""
NAME = "bundle.tar.gz"


def put(bundle: Bundle | bytes, folder: Path) -> Path:
    """The bundle as a file in `folder`, in place of the one that is there."""
    file = folder / NAME
    file.write_bytes(opa_bundle(bundle) if isinstance(bundle, Bundle) else bundle)
    return file


def serving(serve: Serve, bundle: Bundle | bytes, folder: Path, *options: str) -> OpaServer:
    """An OPA with this bundle. `put` and `.restart()` give it another one."""
    return serve(put(bundle, folder), bundle=True, options=options)
