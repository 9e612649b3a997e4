"""Settings of the keys that sign the broker's tokens and run heads: in files, or in Vault (Transit)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

NAME: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9_])?")
MOUNT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")


class SignerSettings(BaseModel):
    """What an operator can set about signing."""

    signer: Literal["local", "transit"] = Field(
        "local",
        description="Where the signing keys are: in keys_dir, or in the Vault at vault_addr. Trusted: who can use them "
        "can make any grant.",
    )
    key_wrap: Literal["local", "transit"] = Field(
        "local",
        description="What wraps the keys of payloads and the static secrets at rest: a key file in keys_dir, or one "
        "that only the Vault at vault_addr can open; the broker then needs Vault to start. Trusted: who can use it "
        "and reads the database reads all payloads.",
    )
    key_settle_s: int = Field(
        60,
        ge=1,
        le=3600,
        description="How long a new signing key is only published. Resource servers that meet an unknown key ask again "
        "after 30 s at most: what signs earlier may be refused once.",
    )
    head_overlap_h: int = Field(
        168,
        ge=0,
        le=8760,
        description="How long tree heads are signed by the old key beside the new one. Auditors and witnesses have to "
        "learn the new key meanwhile.",
    )
    transit_mount: str = Field("transit", description="Where Vault's Transit engine is. Trusted as Vault is.")
    transit_key_grants: str = Field("stepgrant-grants", description="ecdsa-p256; signs grants. Made by `vault setup`.")
    transit_key_access: str = Field(
        "stepgrant-access", description="ecdsa-p256; signs the broker's access tokens. Made by `vault setup`."
    )
    transit_key_heads: str = Field("stepgrant-heads", description="ed25519; signs run heads. Made by `vault setup`.")

    transit_key_wrap: str = Field(
        "stepgrant-wrap", description="aes256-gcm96; opens the wrap keys in keys_dir. Made by `vault setup`."
    )

    @field_validator("transit_mount")
    @classmethod
    def _transit_is_a_path(cls, value: str) -> str:
        if not MOUNT.fullmatch(value):
            raise ValueError("must be the mount's path, like transit or team/transit")
        return value

    @field_validator("transit_key_grants", "transit_key_access", "transit_key_heads", "transit_key_wrap")
    @classmethod
    def _key_is_a_name(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise ValueError("must be 1 to 64 letters, digits and . _ -")
        return value

    @model_validator(mode="after")
    def _signer_is_whole(self) -> SignerSettings:
        if len(set(self.transit_keys.values())) != len(self.transit_keys):
            # Or a signed head could be passed off as a grant.
            raise ValueError("transit_key_grants, transit_key_access and transit_key_heads must be three keys")
        if self.signer == "transit" and getattr(self, "vault_addr", None) is None:
            raise ValueError("signer=transit needs vault_addr")
        if self.transit_key_wrap in self.transit_keys.values():
            raise ValueError("transit_key_wrap must be another key than those that sign")
        if self.key_wrap == "transit" and getattr(self, "vault_addr", None) is None:
            raise ValueError("key_wrap=transit needs vault_addr")
        return self

    @property
    def transit_keys(self) -> Mapping[str, str]:
        """Purpose to key name."""
        return {
            "grants": self.transit_key_grants,
            "access": self.transit_key_access,
            "heads": self.transit_key_heads,
        }
