"""Settings: from the environment (`STEPGRANT_BROKER_…`) or from code, with safe defaults.

Rules:
* Every field says whom it trusts, or what somebody gains who can change it.
* A name with our prefix that is no setting is an error: a misspelt setting would otherwise silently be the default.
* What is wrong is said in one line for each setting, naming it and how to mend it, and never its value: a database URL
  may hold a password.
* `test_mode` opens the seams for tests (a clock and failpoints). Production refuses a clock or failpoints without it,
  and `test_mode` refuses to listen anywhere but on loopback.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from stepgrant_broker.config_identity import IdentitySettings
from stepgrant_broker.config_log import LogSettings, RetentionSettings
from stepgrant_broker.config_opa import PolicyEngineSettings
from stepgrant_broker.config_signer import SignerSettings
from stepgrant_broker.config_vault import VaultSettings
from stepgrant_broker.domain.ids import TENANT
from stepgrant_broker.domain.settings import Limits

PREFIX: Final = "STEPGRANT_BROKER_"
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
KEYS_FOLDER: Final = "keys"
DATABASE_FILE: Final = "stepgrant.db"


class SettingsError(Exception):
    """The set-up is wrong; `problems` has one line for each setting, each with its name."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Settings(
    SignerSettings, IdentitySettings, PolicyEngineSettings, VaultSettings, LogSettings, RetentionSettings, BaseSettings
):
    """What an operator can set. Times in milliseconds unless a name ends in `_s` (seconds)."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, validate_default=True, hide_input_in_errors=True
    )

    data_dir: Path = Field(
        Path(".stepgrant"),
        description="Holds database and keys. Trusted: who can write here is the broker; who can read here reads all "
        "payloads.",
    )
    database_url: SecretStr | None = Field(
        None,
        description="Default: sqlite file in data_dir; else sqlite:///path or postgresql://user:password@host/name. "
        "Trusted for what it stores: who changes it is found by `stepgrant ledger verify`, not stopped.",
    )
    keys_dir: Path | None = Field(
        None,
        description="Default: data_dir/keys, mode 0700. Trusted with everything: who reads it can sign grants.",
    )
    policy_dir: Path | None = Field(
        None,
        description="Default: the starter policy. Trusted: who can write here decides what agents may do; each "
        "activation is an entry.",
    )
    watch_policy: bool = Field(
        default=False, description="Activate changes in policy_dir as they are saved. Meant for development."
    )
    policy_instead_of: int | None = Field(
        None,
        description="Counter of the revision (`stepgrant policy list`) that the policy in policy_dir may take the "
        "place of although it was active before. Without it no start goes back to an older policy: one replica with "
        "old files would roll back all others.",
    )
    tenant: str = Field(
        "default",
        description="The tenant that local commands administer. Resource servers name theirs in "
        "`GrantVerifier(tenant=...)`, where this is the default too.",
    )

    public_url: str = Field(
        "http://127.0.0.1:8423",
        description="What clients call, the issuer of tokens, and what proofs are checked against; forwarded headers "
        "never are. Who controls this name receives agents' calls.",
    )
    host: str = Field(
        "127.0.0.1", description="Where to listen. Anything but loopback needs TLS, or the next settings."
    )
    port: int = Field(8423, ge=0, le=65535, description="0 takes a free port.")
    tls_cert: Path | None = Field(None, description="PEM certificate chain; goes with tls_key.")
    tls_key: Path | None = Field(None, description="PEM private key. Trusted: who reads it can pose as the broker.")
    proxy_terminates_tls: bool = Field(
        default=False,
        description="True says: a proxy that I trust ends TLS and is the only one that can reach this port. The proxy "
        "then sees every credential.",
    )

    lease_ms: int = Field(30_000, ge=500, le=3_600_000, description="How long a silent holder keeps its run.")
    grant_ttl_s: int = Field(60, ge=1, le=300, description="A grant's life where policy says nothing.")
    grant_ttl_max_s: int = Field(300, ge=1, le=300, description="What no policy can exceed.")
    redeem_window_ms: int = Field(
        10_000, ge=100, le=10_000, description="How long after redeeming an effect may still begin."
    )
    leeway_ms: int = Field(
        5_000, ge=0, le=60_000, description="Trust in the clocks of resource servers: how far they may be off."
    )
    sweep_ms: int = Field(
        1_000, ge=50, le=600_000, description="How often lapsed leases and expired rows are looked for."
    )

    max_body_bytes: int = Field(1_048_576, ge=4_096, le=67_108_864, description="The largest request body.")
    max_result_bytes: int = Field(262_144, ge=1_024, le=16_777_216, description="The largest recorded result.")
    max_args_bytes: int = Field(262_144, ge=1_024, le=16_777_216, description="The largest arguments of one action.")
    max_input_bytes: int = Field(262_144, ge=1_024, le=16_777_216, description="The largest input of a run.")
    max_steps: int = Field(100_000, ge=1, le=1_000_000, description="The most steps of one run.")

    one_cpu: bool = Field(
        default=True,
        description="`serve` keeps its threads and its policy engine together on one CPU: the least busy one that it "
        "may use, or one about as idle that hears the disk of a SQLite database. They move when others crowd it "
        "(Linux). They take turns anyway. Nobody is trusted by it.",
    )
    log_format: Literal["text", "json"] = Field("text", description="One line of text, or of JSON, for each event.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Logs hold no secret, argument or result at any level."
    )
    test_mode: bool = Field(
        default=False, description="Lets tests bend the clock and crash the broker at named points. Only on loopback."
    )
    failpoints: str = Field(
        "",
        description="Only with test_mode: where to fail, as point=kill, point@3=raise, point=lost, point=sleep:<ms>, "
        "with commas.",
    )

    @field_validator("tenant")
    @classmethod
    def _tenant_name(cls, value: str) -> str:
        if not TENANT.fullmatch(value):
            raise ValueError("must be 1 to 63 of a-z 0-9 and -, and begin with a letter or digit")
        return value

    @field_validator("public_url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        parts = urlsplit(value)
        plain = parts.scheme in {"http", "https"} and parts.hostname and not (parts.query or parts.fragment)
        if not plain or "@" in parts.netloc or value != value.strip() or value.endswith("/"):
            raise ValueError("must be like https://broker.example, without user, query, or slash at its end")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together; set both or none")
        if self.grant_ttl_s > self.grant_ttl_max_s:
            raise ValueError("grant_ttl_s is over grant_ttl_max_s")
        if self.watch_policy and self.policy_dir is None:
            raise ValueError("watch_policy needs policy_dir: there is no folder to watch")
        if self.failpoints and not self.test_mode:
            raise ValueError("failpoints break the broker on purpose; production refuses them (test_mode)")
        if self.test_mode and self.host not in LOOPBACK:
            raise ValueError("test_mode listens on loopback only")
        return self

    @property
    def keys_folder(self) -> Path:
        """Where the keys are."""
        return self.keys_dir if self.keys_dir is not None else self.data_dir / KEYS_FOLDER

    @property
    def newest_folder(self) -> Path:
        """Where the newest head is kept outside the database."""
        return self.log_newest_dir if self.log_newest_dir is not None else self.keys_folder

    @property
    def database_file(self) -> Path:
        """The database's file. Raises `SettingsError` for a database that is none."""
        if self.database_url is None:
            return self.data_dir / DATABASE_FILE
        scheme, _, path = self.database_url.get_secret_value().partition(":///")
        if scheme != "sqlite" or not path:
            raise SettingsError(
                [f"{PREFIX}DATABASE_URL: say sqlite:///path/to/file or postgresql://user:password@host/database"]
            )
        return Path(path)

    @property
    def postgres_url(self) -> SecretStr | None:
        """The database's URL when it is a PostgreSQL."""
        url = self.database_url
        return url if url is not None and url.get_secret_value().startswith("postgresql://") else None

    @property
    def database_shown(self) -> str:
        """The database as people may see it: without user and password. Raises `SettingsError` as `database_file`."""
        if self.postgres_url is None:
            return str(self.database_file)
        parts = urlsplit(self.postgres_url.get_secret_value())
        return f"postgresql://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def limits(self) -> Limits:
        """The numbers that the domain's rules depend on."""
        return Limits(
            issuer_url=self.public_url,
            lease_ms=self.lease_ms,
            grant_ttl_s=self.grant_ttl_s,
            grant_ttl_max_s=self.grant_ttl_max_s,
            redeem_window_ms=self.redeem_window_ms,
            leeway_ms=self.leeway_ms,
            max_steps=self.max_steps,
            max_result_bytes=self.max_result_bytes,
            max_args_bytes=self.max_args_bytes,
            max_input_bytes=self.max_input_bytes,
            kept_ms=self.kept_ms,
        )


class ExplicitSettings(Settings):
    """Settings that come from code alone: a developer's environment must not reach a test's broker."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature of pydantic-settings
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is given."""
        return (init_settings,)


def explicit_settings(**given: Any) -> Settings:  # noqa: ANN401 - the values of the fields
    """Settings as given, and the defaults; the environment is not read. Raises `SettingsError`."""
    return _made(ExplicitSettings, given)


def load_settings(**given: Any) -> Settings:  # noqa: ANN401 - the values of the fields
    """Settings from the environment, with `given` before it. Raises `SettingsError`."""
    refuse_unknown_names()
    return _made(Settings, given)


def _made(kind: type[Settings], given: dict[str, Any]) -> Settings:
    try:
        return kind(**given)
    except ValidationError as error:
        problems = [_line(item["loc"], item["msg"]) for item in error.errors(include_input=False, include_url=False)]
        raise SettingsError(problems) from None


def spelled(text: str) -> str:
    """The text with each setting as it is set: `public_url` becomes `STEPGRANT_BROKER_PUBLIC_URL`.

    Rooms within name settings as fields; whoever reads a message has to set them by this name.
    """
    # A field of one plain word (`port`) is meant only where a value follows: `signer=transit`.
    names = "|".join(name if "_" in name else f"{name}(?==)" for name in Settings.model_fields)
    return re.sub(rf"(?<![\w/.-])({names})(?![\w/.-]*\w)", lambda found: PREFIX + found[1].upper(), text)


def refuse_unknown_names() -> None:
    """Raises `SettingsError` for environment names with our prefix that are no setting."""
    known = {name.upper() for name in Settings.model_fields}
    problems = []
    for name in sorted(os.environ):
        prefix, field = name[: len(PREFIX)].upper(), name[len(PREFIX) :].upper()
        if prefix == PREFIX and field not in known:
            near = difflib.get_close_matches(field, known, n=1)
            hint = f"did you mean {PREFIX}{near[0]}?" if near else "`stepgrant serve --help` lists the settings"
            problems.append(f"{name}: there is no such setting; {hint}")
    if problems:
        raise SettingsError(problems)


def _line(place: tuple[int | str, ...], message: str) -> str:
    text = spelled(message.removeprefix("Value error, "))
    return f"{PREFIX}{str(place[0]).upper()}: {text}" if place else text
