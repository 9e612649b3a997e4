"""A policy as files: what is evaluated, what only checks and tests it, and the digest that names it.

Rules:
* Evaluated are `*.rego` (without `*_test.rego`) and `data.json`, whose folder is its place below `data`, as in OPA.
  Only these are in the digest, so that a new test does not make a new revision.
* The digest is over path and bytes of each file, so it is the same on every machine; nothing is read twice.
* Beside them: `*_test.rego`, `cases/*.json` (whole decisions), and `schema.json` in the folder of a `data.json`.
* Nothing is guessed: a file that cannot be read, is no UTF-8 or no strict JSON, or is a link is a finding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files as package_files
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from stepgrant import canonical
from stepgrant_broker.policy.findings import Finding, PolicyInvalid

MAX_FILES: Final = 500
MAX_FILE_BYTES: Final = 1_048_576
MAX_TOTAL_BYTES: Final = 8_388_608
MAX_DEPTH: Final = 12

DOCUMENTS: Final = frozenset({"data.json", "schema.json"})
STARTER: Final = "stepgrant_policies"
STARTER_PARTS: Final = ("stepgrant/", "stepgrant_config/")
SETTINGS: Final = "stepgrant_config/data.json"
DEMO_SETTINGS: Final = "demo/stepgrant_config.json"


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Bundle:
    """One policy. `files` are the evaluated texts by path, `modules` and `data` what they say."""

    files: Mapping[str, str]
    modules: Mapping[str, str]
    data: Mapping[str, Any]
    digest: str
    tests: Mapping[str, str] = field(default_factory=_nothing)
    cases: Mapping[str, str] = field(default_factory=_nothing)
    schemas: Mapping[str, Any] = field(default_factory=_nothing)
    """What each `schema.json` says, by the path of the `data.json` it describes; `check` sees if it is a schema."""
    in_force: bool = field(default=False, compare=False)
    """Whether it decides already, by this digest; then what the checks only advise does not stop it."""


def read_directory(root: Path) -> Bundle:
    """The policy below `root`. Raises `PolicyInvalid`."""
    if not root.is_dir():
        raise PolicyInvalid([_finding(root.name, "no_folder", "there is no such folder", "name the policy's folder")])
    return from_files(_read(root))


def read_starter(settings: bytes | None = None) -> Bundle:
    """The starter policy of the package, with `settings` instead of its own `stepgrant_config/data.json`."""
    files = dict(_read(package_files(STARTER)))
    return from_files(files if settings is None else files | {SETTINGS: settings})


def read_demo(settings: bytes | None = None) -> Bundle:
    """The starter policy with the settings of the demo."""
    return read_starter(settings if settings is not None else demo_settings())


def demo_settings() -> bytes:
    """The demo's `stepgrant_config/data.json`."""
    return (package_files(STARTER) / DEMO_SETTINGS).read_bytes()


def starter_files() -> Mapping[str, bytes]:
    """What a new project copies into its policy folder, by path: rules, their tests, settings (not our own cases)."""
    return {path: raw for path, raw in _read(package_files(STARTER)).items() if path.startswith(STARTER_PARTS)}


def from_files(files: Mapping[str, bytes | str]) -> Bundle:
    """A bundle of these files (others than those named above are left out). Raises `PolicyInvalid`."""
    texts, findings = _texts(files)
    modules = {path: text for path, text in texts.items() if path.endswith(".rego") and not _is_test(path)}
    documents = dict(_documents(texts, findings))
    data: dict[str, Any] = {}
    for path, value in documents.items():
        if _name(path) == "data.json":
            _place(data, path, value, findings)
    if not modules:
        findings.append(_finding(".", "no_rules", "there is no .rego file", "name the folder that holds stepgrant/"))
    if findings:
        raise PolicyInvalid(findings)
    evaluated = modules | {path: texts[path] for path in documents if _name(path) == "data.json"}
    return Bundle(
        files=MappingProxyType(dict(sorted(evaluated.items()))),
        modules=MappingProxyType(modules),
        data=MappingProxyType(data),
        digest=digest_of(evaluated),
        tests=MappingProxyType({path: text for path, text in texts.items() if _is_test(path)}),
        cases=MappingProxyType({path: text for path, text in texts.items() if _is_case(path)}),
        schemas=MappingProxyType(
            {path.removesuffix("schema.json") + "data.json": value for path, value in documents.items()
             if _name(path) == "schema.json"}
        ),
    )  # fmt: skip


def digest_of(files: Mapping[str, str]) -> str:
    """`"sha-256:…"` of the canonical listing `[{"digest", "path"}, …]` in the order of paths."""
    listing = [{"digest": canonical.digest_bytes(files[path].encode()), "path": path} for path in sorted(files)]
    return canonical.digest(listing)


def _read(root: Path | Traversable) -> dict[str, bytes]:
    """Every file of a policy below `root`, by path with `/`. Raises `PolicyInvalid`."""
    found: dict[str, bytes] = {}
    total = 0
    for path, entry in _walk(root, "", 0):
        if len(found) >= MAX_FILES:
            raise PolicyInvalid([_finding(path, "too_many_files", f"more than {MAX_FILES} files", "remove some")])
        try:
            raw = entry.read_bytes()
        except OSError as error:
            reason = error.strerror or "unreadable"
            raise PolicyInvalid([_finding(path, "unreadable", reason, "make the file readable")]) from None
        total += len(raw)
        if len(raw) > MAX_FILE_BYTES or total > MAX_TOTAL_BYTES:
            raise PolicyInvalid([_finding(path, "too_large", "this is too much for one policy", "make it smaller")])
        found[path] = raw
    return found


def _walk(folder: Path | Traversable, prefix: str, depth: int) -> Iterator[tuple[str, Path | Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        if entry.name.startswith((".", "__")):
            continue
        path = prefix + entry.name
        if isinstance(entry, Path) and entry.is_symlink():
            # What is behind it could change without the digest, or lie outside the policy.
            if entry.is_dir() or _belongs(path):
                raise PolicyInvalid([_finding(path, "link", "is a link", "put the file itself here")])
        elif entry.is_dir():
            if depth >= MAX_DEPTH:
                raise PolicyInvalid([_finding(path, "too_deep", "too many folders in each other", "move it up")])
            yield from _walk(entry, path + "/", depth + 1)
        elif _belongs(path):
            if not entry.is_file():
                # Reading a pipe or a device might never end.
                raise PolicyInvalid([_finding(path, "no_file", "is not a plain file", "put a file here")])
            yield path, entry


def _texts(files: Mapping[str, bytes | str]) -> tuple[dict[str, str], list[Finding]]:
    texts: dict[str, str] = {}
    findings: list[Finding] = []
    for path in sorted(files):
        raw = files[path]
        if not _belongs(path):
            continue
        try:
            texts[path] = raw if isinstance(raw, str) else raw.decode("utf-8")
        except UnicodeDecodeError:
            findings.append(_finding(path, "not_utf8", "is not UTF-8", "save it as UTF-8"))
    return texts, findings


def _documents(texts: Mapping[str, str], findings: list[Finding]) -> Iterator[tuple[str, Any]]:
    for path, text in texts.items():
        if _name(path) in DOCUMENTS:
            try:
                yield path, canonical.loads(text.encode(), max_bytes=MAX_FILE_BYTES)
            except canonical.CanonicalError as error:
                findings.append(_finding(path, "bad_json", str(error), "correct the JSON"))


def _place(data: dict[str, Any], path: str, value: object, findings: list[Finding]) -> None:
    """Put the value of a `data.json` where its folder says."""
    at = data
    folders = path.split("/")[:-1]
    for folder in folders[:-1]:
        at = at.setdefault(folder, _Folder())
        if not isinstance(at, _Folder):
            break
    free = bool(folders) and (at is data or isinstance(at, _Folder)) and folders[-1] not in at
    if not free or not isinstance(value, dict):
        message = "must hold an object, lie in a folder, and have no other data.json above or below it"
        findings.append(_finding(path, "bad_data", message, "move it, or make its value an object"))
        return
    at[folders[-1]] = value


class _Folder(dict[str, Any]):
    """A place below `data` that is a folder, not a document."""


def _finding(path: str, code: str, message: str, fix: str) -> Finding:
    return Finding(path, 0, code, message, fix)


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _is_test(path: str) -> bool:
    return path.endswith("_test.rego")


def _is_case(path: str) -> bool:
    return path.startswith("cases/") and path.endswith(".json")


def _belongs(path: str) -> bool:
    return path.endswith(".rego") or _name(path) in DOCUMENTS or _is_case(path)
