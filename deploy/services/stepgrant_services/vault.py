"""Vault or OpenBao: in memory (dev mode), or durable over raft, which starts sealed and survives a restart.

The root token and the unseal key are in files of mode 0600 and in the environment of the server, never in an argument
and never in an error.
"""

import json
import secrets
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, ClassVar, Final

from stepgrant_services.errors import ServiceError
from stepgrant_services.processes import free_port
from stepgrant_services.server import GLANCE_S, HEALTH_S, Server

ANSWER_S: Final = 30.0
OURS: Final = "stepgrant"
NOT_FOUND: Final = 404


class VaultServer(Server):
    """A Vault for tests. `durable`: raft storage, initialised and unsealed by `start`; else dev mode.

    After a `restart()` or `start()` a durable one is unsealed again, unless `unseal_at_start` was set to False.
    """

    name: ClassVar[str] = "vault"

    def __init__(self, *, durable: bool = False, binary: Path | None = None, folder: Path | None = None) -> None:
        super().__init__(binary, folder=folder)
        self.durable = durable
        self.unseal_at_start = True
        self.root_token_file = self.folder / "root-token"
        self.unseal_key_file = self.folder / "unseal-key"

    @property
    def addr(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://{self.host_port}"

    @property
    def root_token(self) -> str:
        """The root token."""
        return self.root_token_file.read_text(encoding="ascii")

    def request(self, method: str, path: str, body: object = None, *, token: str | None = None) -> dict[str, Any]:
        """What Vault answers to `method` on `/v1/PATH`: its JSON, or {}. Without `token`, with the root token.

        Raises:
            ServiceError: a status of 400 or more, with Vault's words.
            OSError: no connection.
        """
        status, answer = self._ask(method, path, body, self.root_token if token is None else token)
        if status >= 400:  # noqa: PLR2004
            raise ServiceError(f"vault answered {status} to {method} {path}: {answer.get('errors', answer)}")
        return answer

    def seal(self) -> None:
        """Seal it: it answers 503 until `unseal`."""
        self.request("PUT", "sys/seal")

    def unseal(self) -> None:
        """Unseal it and wait until it is active. Only a durable one can be."""
        end = time.monotonic() + HEALTH_S
        self._ask("PUT", "sys/unseal", {"key": self.unseal_key_file.read_text(encoding="ascii")})
        while not self._active():
            if time.monotonic() > end:
                raise ServiceError(f"vault was not active in time; the end of its log:\n{self.tail()}")
            time.sleep(GLANCE_S)

    def leftovers(self) -> list[str]:
        """The leases of secrets, and the tokens with a `stepgrant` in their meta, that live here. Sealed: an error."""
        leases = [f"lease {lease}" for lease in self._leases("") if not lease.startswith("auth/")]
        return leases + [f"token {accessor}" for accessor in self._tokens()]

    # --- inside ----------------------------------------------------------------------------------------------------

    def _leases(self, prefix: str) -> list[str]:
        found: list[str] = []
        for name in self._list(f"sys/leases/lookup/{prefix}"):
            found += self._leases(prefix + name) if name.endswith("/") else [prefix + name]
        return found

    def _tokens(self) -> list[str]:
        ours = []
        for accessor in self._list("auth/token/accessors/"):
            status, answer = self._ask("POST", "auth/token/lookup-accessor", {"accessor": accessor}, self.root_token)
            meta = (answer.get("data") or {}).get("meta") or {}
            if status < 400 and any(name.startswith(OURS) for name in meta):  # noqa: PLR2004
                ours.append(f"{accessor} {meta}")
        return ours

    def _list(self, path: str) -> list[str]:
        status, answer = self._ask("LIST", path, None, self.root_token)
        if status == NOT_FOUND:
            return []
        if status >= 400:  # noqa: PLR2004
            raise ServiceError(f"vault answered {status} to LIST {path}: {answer.get('errors', answer)}")
        keys: list[str] = answer["data"]["keys"]
        return keys

    def _ask(self, method: str, path: str, body: object = None, token: str = "") -> tuple[int, dict[str, Any]]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, f"/v1/{path}", body=content, headers={"X-Vault-Token": token} if token else {})
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else {}
        except HTTPException as error:
            raise ConnectionError(f"vault: {error!r}") from error
        finally:
            connection.close()

    def _prepare(self) -> None:
        if self.durable:
            (self.folder / "raft").mkdir()
            self._write_config()
        else:
            self._keep(self.root_token_file, secrets.token_urlsafe(24))

    def _keep(self, path: Path, secret: str) -> None:
        path.touch(mode=0o600)
        path.write_text(secret, encoding="ascii")
        self._secrets.append(secret)

    def _write_config(self) -> None:
        # The port is chosen after `_prepare`, so `_command` writes it; here only what never changes.
        cluster = f"127.0.0.1:{free_port()}"
        self._config = {
            "storage": {"raft": {"path": str(self.folder / "raft"), "node_id": "one", "performance_multiplier": "1"}},
            "cluster_addr": f"https://{cluster}",
            "disable_mlock": True,
            "ui": False,
        }
        self._cluster = cluster

    def _command(self) -> list[str]:
        common = [str(self.binary), "server", "-log-level=warn"]
        if not self.durable:
            return [*common, "-dev", f"-dev-listen-address={self.host_port}", "-dev-no-store-token"]
        listener = {"tcp": {"address": self.host_port, "cluster_address": self._cluster, "tls_disable": True}}
        config = self.folder / "config.json"
        config.write_text(json.dumps({**self._config, "listener": listener, "api_addr": self.addr}), encoding="utf-8")
        return [*common, f"-config={config}"]

    def _settings(self) -> dict[str, str]:
        return {} if self.durable else {"VAULT_DEV_ROOT_TOKEN_ID": self.root_token}

    def _answers(self) -> bool:
        if not self.durable:
            return self._active()
        status, state = self._ask("GET", "sys/seal-status")
        if status != 200:  # noqa: PLR2004
            return False
        if not state["initialized"]:
            self._initialise()
        if not self.unseal_at_start:
            return True
        if state["sealed"]:
            self._ask("PUT", "sys/unseal", {"key": self.unseal_key_file.read_text(encoding="ascii")})
        return self._active()

    def _initialise(self) -> None:
        status, made = self._ask("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        if status != 200:  # noqa: PLR2004
            raise ServiceError(f"vault answered {status} to its initialisation: {made.get('errors', made)}")
        self._keep(self.unseal_key_file, made["keys_base64"][0])
        self._keep(self.root_token_file, made["root_token"])

    def _active(self) -> bool:
        """Initialised, unsealed and the leader, and it knows our root token: it is the one that we started."""
        status, _ = self._ask("GET", "sys/health")
        return status == 200 and self._ask("GET", "auth/token/lookup-self", token=self.root_token)[0] == 200  # noqa: PLR2004
