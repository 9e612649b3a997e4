"""Settings of Vault (or OpenBao) and of the issuers that need it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, field_validator, model_validator

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
KUBERNETES_TOKEN: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
MOUNT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
NEEDED: Final = {
    "approle": ("vault_role_id", "vault_secret_id_file"),
    "jwt": ("vault_role", "vault_jwt_file"),
    "kubernetes": ("vault_role",),
    "token": ("vault_token_file",),
}
BELONG_TO_VAULT: Final = (
    "vault_namespace",
    "vault_ca_file",
    "vault_auth_mount",
    "vault_role_id",
    "vault_secret_id_file",
    "vault_role",
    "vault_jwt_file",
    "vault_token_file",
    "issuers_file",
)


class VaultSettings(BaseModel):
    """What an operator can set about Vault."""

    vault_addr: str | None = Field(
        None,
        description="https://host:port, or http://127.0.0.1:port. Trusted: who answers there gets the broker's Vault "
        "credentials and makes what agents are given.",
    )
    vault_namespace: str | None = Field(None, description="The namespace (Vault Enterprise, OpenBao) of every request.")
    vault_ca_file: Path | None = Field(
        None,
        description="PEM certificates that vouch for Vault's. Default: the system's. Trusted: who writes here can "
        "pose as Vault.",
    )
    vault_auth: Literal["approle", "jwt", "kubernetes", "token"] = Field(
        "approle", description="How the broker logs in; each method names the settings that it needs."
    )
    vault_auth_mount: str | None = Field(None, description="Where the auth method is mounted. Default: its name.")
    vault_role_id: str | None = Field(None, description="AppRole: the role id. Not secret by itself.")
    vault_secret_id_file: Path | None = Field(
        None,
        description="AppRole: holds the secret id, or a wrapping token for it; read at each login. Who reads it can "
        "log in as the broker.",
    )
    vault_role: str | None = Field(None, description="JWT and Kubernetes: the role to log in with.")
    vault_jwt_file: Path | None = Field(
        None,
        description="JWT and Kubernetes: holds the token; read at each login. Default for Kubernetes: the service "
        "account's. Who reads it can log in as the broker while it lasts.",
    )
    vault_token_file: Path | None = Field(
        None,
        description="Token: the file that Vault Agent (its sink) or you keep a token in; a new one is taken when it "
        "appears. Who reads it is the broker to Vault.",
    )
    issuers_file: Path | None = Field(
        None,
        description="TOML: the issuers that need Vault, each with what policy may choose from. Trusted: who writes "
        "here decides what credentials agents can get; nothing secret is in it.",
    )

    @field_validator("vault_addr")
    @classmethod
    def _vault_is_reachable(cls, value: str | None) -> str | None:
        if value is None:
            return value
        parts = urlsplit(value)
        try:
            plain = not (parts.query or parts.fragment) and "@" not in value and (parts.port or 1) > 0
        except ValueError:
            plain = False
        # Over http to another machine anybody between could read the broker's token and every credential.
        safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
        if not plain or not safe or not parts.hostname or parts.path not in {"", "/"}:
            raise ValueError(
                "must be like https://vault.example:8200 (http only on loopback), without user, path and query"
            )
        return value.rstrip("/")

    @field_validator("vault_auth_mount")
    @classmethod
    def _mount_is_a_path(cls, value: str | None) -> str | None:
        if value is not None and not MOUNT.fullmatch(value):
            raise ValueError("must be the mount's path without auth/ in front, like approle or team/approle")
        return value

    @model_validator(mode="after")
    def _vault_is_whole(self) -> VaultSettings:
        if self.vault_addr is None:
            lost = [name for name in BELONG_TO_VAULT if getattr(self, name) is not None]
            if lost:
                raise ValueError(f"{' and '.join(lost)} only count with vault_addr; set it, or remove them")
            return self
        missing = [name for name in NEEDED[self.vault_auth] if getattr(self, name) is None]
        if missing:
            raise ValueError(f"vault_auth {self.vault_auth} needs {' and '.join(missing)}")
        return self
