"""The Open Policy Agent as a server over folders, files or bundles."""

from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import ClassVar

from stepgrant_services.server import Server

ANSWER_S = 2.0


class OpaServer(Server):
    """`opa run --server` over `paths`: Rego and data, or, with `bundle`, bundles (folders or `.tar.gz`).

    `options` are further arguments, such as `("--set=decision_logs.console=true",)`.
    """

    name: ClassVar[str] = "opa"

    def __init__(
        self,
        *paths: Path,
        bundle: bool = False,
        options: Sequence[str] = (),
        binary: Path | None = None,
        folder: Path | None = None,
    ) -> None:
        super().__init__(binary, folder=folder)
        self.paths = [path.resolve() for path in paths]
        self.bundle = bundle
        self.options = list(options)

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://{self.host_port}"

    def _command(self) -> list[str]:
        # At the log level "info" every request is logged, with its input.
        fixed = ["run", "--server", f"--addr={self.host_port}", "--skip-version-check", "--log-level=error"]
        bundle = ["--bundle"] if self.bundle else []
        return [str(self.binary), *fixed, *bundle, *self.options, *map(str, self.paths)]

    def _answers(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)
        try:
            connection.request("GET", "/health?bundles=true" if self.bundle else "/health")
            return connection.getresponse().status == 200  # noqa: PLR2004
        except HTTPException:
            return False
        finally:
            connection.close()
