"""What `stepgrant.testing` asks of a broker that it starts: the entry-point group `stepgrant.testing` gives one.

The entry point's object is a `Start`. The SDK never imports the broker; it loads the first entry point of the group.

Rules for whoever implements it:
* One background thread owns event loop, store and engine; every method here may be called from any other thread and
  returns when its effect is durable. SDK and tests reach the broker over loopback HTTP only.
* Everything lies under `folder`; two brokers in one process share nothing.
* The clock starts at the system's time and runs; `advance` moves it forward for the broker alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from stepgrant.receipt import Event

GROUP = "stepgrant.testing"


class Host(Protocol):
    """A running broker with the embedded defaults."""

    @property
    def url(self) -> str:
        """Where it listens: `http://127.0.0.1:<port>`."""
        ...

    @property
    def issuer_url(self) -> str:
        """The `iss` of its tokens, and the audience of workloads' assertions."""
        ...

    @property
    def tenant(self) -> str:
        """The tenant of all that is made here: what a resource server gives to its `GrantVerifier`."""
        ...

    def enroll(self, name: str, *, agents: Sequence[str] = (), audiences: Sequence[str] = ()) -> Path:
        """Enrol a new workload key: agents it may claim, or audiences it serves. The key file (0600), new each time."""
        ...

    def operator(
        self, name: str, *, roles: Sequence[str] = ("operator", "approver"), groups: Sequence[str] = ()
    ) -> str:
        """Create a person and return the bearer token (`sgo_…`)."""
        ...

    def approve(self, approval_id: str, *, token: str | None = None, note: str = "") -> None:
        """Say yes to what the approval shows, as the person of `token` (by default one who may approve anything)."""
        ...

    def deny(self, approval_id: str, *, token: str | None = None, note: str = "") -> None:
        """Say no."""
        ...

    def set_policy(self, files: Mapping[str, str]) -> str:
        """Activate a policy: path below the policy root -> text (`.rego`, `data.json`). Returns the revision."""
        ...

    def set_settings(self, settings: Mapping[str, object]) -> str:
        """Activate the starter policy with these settings (`stepgrant_config/data.json`). Returns the revision."""
        ...

    def set_secret(self, name: str, value: str, *, hosts: Sequence[str], header: str = "Authorization") -> None:
        """Store a secret that the issuer `static` gives out under a grant."""
        ...

    def advance(self, seconds: float) -> None:
        """Move the broker's clock forward. Assertions that keep to the system's time still count."""
        ...

    def entries(self, run: str) -> Sequence[Event]:
        """The run's entries in the ledger."""
        ...

    def receipt(self, run: str) -> dict[str, Any]:
        """A receipt of the run."""
        ...

    def close(self) -> None:
        """Stop and join the thread. Calling it again does nothing."""
        ...


class Start(Protocol):
    """The object behind the entry point."""

    def __call__(
        self, folder: Path, *, settings: Mapping[str, object] | None = None, lease_s: float = 30, **options: object
    ) -> Host:
        """Start a broker below `folder`, with the starter policy and these settings; it answers when this returns.

        `options` are the broker's own: any of its settings by their names.
        """
        ...
