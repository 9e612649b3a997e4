"""Reading the trust file: TOML with `[[issuer]]` and `[[rule]]` tables, strictly. `broker/README.md` shows one.

Rules:
* Everything that is wrong is told at once, each in one line with file, table and fix. A file with any fault is no file:
  half of the rules would be another meaning than the one that was written down.
* Unknown keys, doubled names, two issuers for one `iss` or trust domain, and a rule that an earlier one shadows are
  faults. So is an algorithm that is not asymmetric, and an address that keys may not come from.
* The file is read when the broker starts. A rule that is taken out admits nobody after the restart; access tokens made
  before end within 5 minutes, and a kill switch on the workload's name ends them at once.
"""

from __future__ import annotations

import difflib
import os
import stat
import tomllib
from collections.abc import Callable, Iterable, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, Final, TypeAlias

from stepgrant_broker.identity import trust_fields as fields
from stepgrant_broker.identity.attesting import Method
from stepgrant_broker.identity.trust import KeyPlace, Rule, Trust, TrustedIssuer

MAX_BYTES: Final = 1_048_576
DEFAULT_LIFETIME_S: Final = 3600

Table: TypeAlias = Mapping[str, Any]
Field: TypeAlias = Callable[[Any], Any]

_SHARED: Final[Mapping[str, Field]] = {
    "name": fields.issuer_name,
    "method": fields.text,
    "tenant": fields.tenant,
    "audience": fields.text,
    "algorithms": fields.texts,
    "max_lifetime_s": fields.lifetime,
    "single_use": fields.boolean,
    "jwks_url": fields.address,
    "jwks_file": fields.text,
    "ca_file": fields.text,
}
_ISSUER: Final[Mapping[str, Mapping[str, Field]]] = {
    "oidc": {**_SHARED, "issuer": fields.text, "discovery": fields.boolean},
    "kubernetes": {
        **_SHARED, "issuer": fields.text, "discovery": fields.boolean, "require_pod": fields.boolean,
    },
    "spiffe-jwt": {**_SHARED, "issuer": fields.text, "trust_domain": fields.trust_domain},
}  # fmt: skip
_NAMES: Final[Mapping[str, Field]] = {
    "issuer": fields.text,
    "workload": fields.name,
    "agents": fields.agents,
    "audiences": fields.texts,
    "attributes": fields.attributes,
    "pass_claims": fields.passed_claims,
}
_RULE: Final[Mapping[str, Mapping[str, Field]]] = {
    "oidc": {**_NAMES, "subject": fields.path_pattern, "claims": fields.claims},
    "kubernetes": {
        **_NAMES, "namespace": fields.label, "service_account": fields.label_pattern,
        "service_account_uid": fields.text,
    },
    "spiffe-jwt": {**_NAMES, "path": fields.spiffe_path},
}  # fmt: skip
_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "oidc": ("issuer",),
    "kubernetes": ("issuer",),
    "spiffe-jwt": ("trust_domain",),
}
_MATCHED: Final[Mapping[str, tuple[str, ...]]] = {
    "oidc": ("subject",),
    "kubernetes": ("namespace", "service_account", "service_account_uid"),
    "spiffe-jwt": ("path",),
}


class TrustFileInvalid(Exception):
    """The file cannot be used; `problems` has one line for each fault."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class _Faults:
    """Collects what is wrong with one table."""

    def __init__(self, file: Path, told: list[str], table: str) -> None:
        self._place = f"{file}: {table}"
        self._told = told

    def add(self, what: str) -> None:
        self._told.append(f"{self._place}: {what}")

    def read(self, table: Table, known: Mapping[str, Field], needed: Iterable[str]) -> dict[str, Any]:
        """The members that are right; each that is not is a fault."""
        good: dict[str, Any] = {}
        for key, value in table.items():
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                self.add(f"unknown key {key!r}; " + (f"did you mean {near[0]}?" if near else "take it out"))
                continue
            try:
                good[key] = known[key](value)
            except ValueError as error:
                self.add(f"{key} {error}")
        for key in needed:
            if key not in table:
                self.add(f"{key} is missing; add it")
        return good


def read(file: Path, methods: Mapping[str, Method], *, own_url: str) -> Trust:
    """Read a trust file.

    Args:
        file: its path; relative paths in it are relative to its folder.
        methods: the known methods by name.
        own_url: this broker's public URL, the audience where a table names none.

    Raises:
        TrustFileInvalid: with every fault.
    """
    document = _load(file)
    told: list[str] = []
    top = _Faults(file, told, "top level")
    top.read(document, {"issuer": fields.tables, "rule": fields.tables}, ("issuer", "rule"))
    if told:
        raise TrustFileInvalid(told)
    issuers = _issuers(file, told, document["issuer"], methods, own_url)
    rules = _rules(file, told, document["rule"], issuers)
    if told:
        raise TrustFileInvalid(told)
    return Trust(tuple(issuers.values()), tuple(rules))


def _load(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            status = os.fstat(opened.fileno())
            if status.st_mode & stat.S_IWOTH:
                raise TrustFileInvalid([f"{file}: anybody can write it, and so say who is who; run: chmod o-w {file}"])
            data = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise TrustFileInvalid([f"{file}: cannot be read: {error.strerror}"]) from None
    if len(data) > MAX_BYTES:
        raise TrustFileInvalid([f"{file}: more than {MAX_BYTES} bytes"])
    try:
        return tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise TrustFileInvalid([f"{file}: not UTF-8 at byte {error.start}"]) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise TrustFileInvalid([f"{file}: not TOML: {error}"]) from None


# ------------------------------------------------------------------------------------------------------------- issuers


def _issuers(
    file: Path, told: list[str], tables: list[Table], methods: Mapping[str, Method], own_url: str
) -> dict[str, TrustedIssuer]:
    found: dict[str, TrustedIssuer] = {}
    for number, table in enumerate(tables, 1):
        name = table.get("name")
        faults = _Faults(file, told, f"[[issuer]] {name if isinstance(name, str) else number}")
        before = len(told)
        method = table.get("method")
        if not isinstance(method, str) or method not in methods:
            faults.add(f"method is one of {', '.join(sorted(methods))}")
            continue
        good = faults.read(table, _ISSUER[method], ("name", "tenant", *_NEEDED[method]))
        place = _key_place(faults, table, good, file.absolute().parent)
        algorithms = _algorithms(faults, good, methods[method])
        if good.get("issuer") == own_url:
            faults.add("issuer is this broker itself, whose tokens are no identities; name another issuer")
        if len(told) > before or place is None:
            continue
        made = TrustedIssuer(
            name=good["name"],
            method=method,
            tenant=good["tenant"],
            keys=place,
            audience=good.get("audience", own_url),
            algorithms=algorithms,
            max_lifetime_s=good.get("max_lifetime_s", DEFAULT_LIFETIME_S),
            issuer=good.get("issuer"),
            trust_domain=good.get("trust_domain"),
            ca_file=_absolute(file.absolute().parent, good.get("ca_file")),
            single_use=good.get("single_use", False),
            require_pod=good.get("require_pod", True),
        )
        _refuse_overlap(faults, made, found.values())
        found[made.name] = made
    return found


def _key_place(faults: _Faults, table: Table, good: Table, folder: Path) -> KeyPlace | None:
    given = [key for key in ("jwks_url", "jwks_file") if key in table]
    if table.get("discovery") is True:
        given.append("discovery")
    if len(given) != 1:
        faults.add("say where its keys are, once: jwks_url, jwks_file, or (not for spiffe-jwt) discovery = true")
        return None
    if "discovery" in given:
        try:
            return KeyPlace(discovery=fields.address(good.get("issuer")))
        except ValueError as error:
            faults.add(f"issuer {error}, to discover its keys there; or give jwks_url")
            return None
    if "ca_file" in good and "jwks_file" in good:
        faults.add("ca_file is for fetching; take it out")
    return KeyPlace(url=good.get("jwks_url"), file=_absolute(folder, good.get("jwks_file")))


def _absolute(folder: Path, given: str | None) -> str | None:
    return None if given is None else str(folder / given)


def _algorithms(faults: _Faults, good: Table, method: Method) -> frozenset[str]:
    given = good.get("algorithms")
    if given is None:
        return method.profile.usual
    for name in given:
        if name not in method.profile.algorithms:
            possible = ", ".join(sorted(method.profile.algorithms))
            faults.add(f"algorithms: {name!r} is not one of {possible}")
    if not given:
        faults.add("algorithms is empty; take it out for the usual ones")
    return frozenset(given)


def _refuse_overlap(faults: _Faults, made: TrustedIssuer, others: Iterable[TrustedIssuer]) -> None:
    for other in others:
        for key in ("name", "issuer", "trust_domain"):
            value = getattr(made, key)
            if value is not None and value == getattr(other, key):
                faults.add(f"{key} is also that of [[issuer]] {other.name}; only one of them could count: remove one")


# --------------------------------------------------------------------------------------------------------------- rules


def _rules(file: Path, told: list[str], tables: list[Table], issuers: Mapping[str, TrustedIssuer]) -> list[Rule]:
    found: list[Rule] = []
    for number, table in enumerate(tables, 1):
        named = table.get("workload")
        faults = _Faults(file, told, f"[[rule]] {named if isinstance(named, str) else number}")
        before = len(told)
        issuer = issuers.get(table["issuer"]) if isinstance(table.get("issuer"), str) else None
        if issuer is None:
            faults.add("issuer is not the name of a (right) [[issuer]] of this file")
            continue
        good = faults.read(table, _RULE[issuer.method], ("workload",))
        if len(told) > before:
            continue
        made = _rule(faults, issuer, good)
        if len(told) == before:
            found.append(made)
    for earlier, later in combinations(found, 2):
        faults = _Faults(file, told, f"[[rule]] {later.workload}")
        if earlier.covers(later):
            faults.add(f"never matches: [[rule]] {earlier.workload} before it takes all that it would; move it up")
        elif (earlier.issuer, earlier.workload) == (later.issuer, later.workload):
            faults.add(f"workload is also that of an earlier rule of issuer {later.issuer}; give each its own")
    return found


def _rule(faults: _Faults, issuer: TrustedIssuer, good: Table) -> Rule:
    when = {name: good[name] for name in _MATCHED[issuer.method] if name in good}
    when.update({f"claims.{name}": value for name, value in good.get("claims", {}).items()})
    if issuer.method == "kubernetes" and not {"namespace", "service_account"} <= set(when):
        faults.add("name both namespace and service_account")
    elif not when:
        matched = ", ".join((*_MATCHED[issuer.method], *(["claims"] if issuer.method == "oidc" else [])))
        faults.add(f"matches every token of the issuer; say which: {matched}")
    if not good.get("agents") and not good.get("audiences"):
        faults.add("admits nobody to anything; name agents, or audiences of a resource server")
    attributes, passed = good.get("attributes", {}), good.get("pass_claims", ())
    for name in sorted({*attributes, *passed} & fields.RESERVED | set(attributes) & set(passed)):
        faults.add(f"the attribute {name} is set already; name another one")
    return Rule(
        issuer=issuer.name,
        workload=good["workload"],
        when=when,
        agents=tuple(sorted(set(good.get("agents", ())))),
        audiences=tuple(sorted(set(good.get("audiences", ())))),
        attributes=attributes,
        pass_claims=passed,
    )
