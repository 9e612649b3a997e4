"""The issuers file: which issuers there are beside `jwt` and `static`, in TOML, read strictly.

    [issuer.orders-db]
    kind = "vault-database"
    roles = ["orders-rw", "orders-ro"]
    host = "orders-db.example"
    max_ttl_s = 60

Rules:
* The name after `issuer.` is what policy writes in `grant.issuer`. Policy chooses an issuer and, from what the file
  allows, its parameters; it can never widen what is here.
* What is not known is refused, with the name that was probably meant: a misspelt limit would otherwise be no limit.
* A kind is a function from a section to a configured issuer; which there are is said in `wiring/vault.py`.
* Problems are one line each and name the issuer and the setting. Nothing in this file is secret.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, TypeAlias

from stepgrant_broker.domain.ports import Issuer
from stepgrant_broker.vault.client import Vault

NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
MOUNT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
VAULT_NAME: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.@-]{0,126}[A-Za-z0-9_])?")
HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]")
TEXT: Final = re.compile(r"[!-~]{1,255}")
RESERVED: Final = frozenset({"jwt", "static"})
FILE_MAX: Final = 262_144


class IssuersFileInvalid(Exception):
    """The file cannot be used; `problems` has one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class IssuerConfig(Protocol):
    """One issuer as configured."""

    kind: ClassVar[str]

    @property
    def name(self) -> str:
        """What policy calls it."""

    @property
    def max_ttl_s(self) -> int:
        """The longest life of a grant, in seconds."""

    @property
    def token_role(self) -> str:
        """The role of Vault under which its per-grant tokens are made."""

    def build(self, vault: Vault) -> Issuer:
        """The issuer itself."""

    def vault_policies(self) -> Mapping[str, str]:
        """What it needs in Vault for its per-grant tokens: policy name to HCL. `stepgrant vault setup` writes them."""

    def broker_rules(self) -> Mapping[str, tuple[str, ...]]:
        """What the broker's own session must be allowed: path to capabilities."""

    def leases(self) -> tuple[str, ...]:
        """Which leases of Vault the broker takes back for it, as patterns (`database/creds/orders-rw/*`)."""

    async def probe(self, vault: Vault) -> tuple[str, ...]:
        """What is wrong with it in Vault, each with its mending. Raises `VaultFault` when Vault cannot be asked."""


class SectionInvalid(Exception):
    """One setting of one issuer is wrong."""


class Section:
    """The settings of one issuer; each is taken once, and `end` refuses what nobody took."""

    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        self.name = name
        self._settings = dict(settings)
        self._taken: set[str] = set()

    def text(self, key: str, form: re.Pattern[str] = TEXT, default: str | None = None) -> str:
        """A text of this form. Raises `SectionInvalid`."""
        value = self._take(key, default)
        if not isinstance(value, str) or not form.fullmatch(value):
            raise self.wrong(key, "is no text of the expected form")
        return value

    def maybe_text(self, key: str, form: re.Pattern[str] = TEXT) -> str | None:
        """A text, or `None` when it is not set. Raises `SectionInvalid`."""
        self._taken.add(key)
        return self.text(key, form) if key in self._settings else None

    def names(self, key: str, form: re.Pattern[str] = VAULT_NAME) -> tuple[str, ...]:
        """A list of at least one name, none twice (whatever the case). Raises `SectionInvalid`."""
        value = self._take(key, None)
        if not isinstance(value, list) or not value:
            raise self.wrong(key, "must be a list of names with at least one")
        for one in value:
            if not isinstance(one, str) or not form.fullmatch(one):
                raise self.wrong(key, "holds something that is no name")
        # Vault writes the names of policies in lower case: two that differ in case only would share one policy.
        if len({one.lower() for one in value}) != len(value):
            raise self.wrong(key, "names one twice, or two that differ only in upper and lower case")
        return tuple(value)

    def number(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number within these bounds. Raises `SectionInvalid`."""
        value = self._take(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.wrong(key, f"must be a whole number from {low} to {high}")
        return value

    def maybe_number(self, key: str, low: int, high: int) -> int | None:
        """A number, or `None` when it is not set. Raises `SectionInvalid`."""
        self._taken.add(key)
        return self.number(key, low, high) if key in self._settings else None

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false. Raises `SectionInvalid`."""
        value = self._take(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "must be true or false")
        return value

    def end(self) -> None:
        """Raises `SectionInvalid` for a setting that this kind does not have."""
        for key in self._settings:
            if key not in self._taken:
                near = difflib.get_close_matches(key, self._taken, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(self._taken))}"
                raise self.wrong(key, f"is no setting of this kind; {hint}")

    def wrong(self, key: str, why: str) -> SectionInvalid:
        """The error for a setting."""
        return SectionInvalid(f"[issuer.{self.name}] {key} {why}")

    def _take(self, key: str, default: object) -> object:
        self._taken.add(key)
        if key not in self._settings and default is None:
            raise self.wrong(key, "is missing")
        return self._settings.get(key, default)


Kind: TypeAlias = Callable[[Section], IssuerConfig]
"""Takes what belongs to its kind out of the section. Raises `SectionInvalid`."""


def read_issuers(path: Path, kinds: Mapping[str, Kind]) -> dict[str, IssuerConfig]:
    """The issuers of the file by name. Raises `IssuersFileInvalid` with every problem at once."""
    found: dict[str, IssuerConfig] = {}
    problems: list[str] = []
    for name, settings in _sections(path).items():
        try:
            found[name] = _issuer(name, settings, kinds)
        except SectionInvalid as wrong:
            problems.append(str(wrong))
    if problems:
        raise IssuersFileInvalid(problems)
    return found


def _sections(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as opened:
            text = opened.read(FILE_MAX + 1)
    except OSError as error:
        raise IssuersFileInvalid([f"{path} cannot be read: {error.strerror}"]) from None
    if len(text) > FILE_MAX:
        raise IssuersFileInvalid([f"{path} is larger than {FILE_MAX} bytes"])
    try:
        document = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise IssuersFileInvalid([f"{path} is no TOML: {error}"]) from None
    sections = document.get("issuer")
    if document.keys() != {"issuer"} or not isinstance(sections, dict) or not sections:
        raise IssuersFileInvalid([f"{path} must hold tables [issuer.<name>] and nothing else"])
    return sections


def _issuer(name: str, settings: object, kinds: Mapping[str, Kind]) -> IssuerConfig:
    if not NAME.fullmatch(name):
        raise SectionInvalid(f"[issuer.{name[:80]}] the name must be 1 to 63 of a-z, 0-9 and -")
    if name in RESERVED:
        raise SectionInvalid(f"[issuer.{name}] this name is the broker's own; take another")
    if not isinstance(settings, dict):
        raise SectionInvalid(f"[issuer.{name}] must be a table")
    section = Section(name, settings)
    kind = section.text("kind")
    if kind not in kinds:
        raise section.wrong("kind", f"must be one of {', '.join(sorted(kinds))}")
    made = kinds[kind](section)
    section.end()
    return made
