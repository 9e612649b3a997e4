"""Refuse a lock that is loose, tells where it was made, or no longer fits pyproject.toml.

- Every requirement is `name==version` with at least one sha256, so that an install takes known bytes or nothing.
- No address, no option (an index, a search folder), no direct reference, no path of a machine: the lock installs from
  whatever index the reader trusts, and shows nothing of the writer's.
- Every dependency that pyproject.toml names (base, extras, dev group) is pinned to a version that it accepts.

Usage: check_lock.py [ROOT]     (exit code 0 or 1; every finding is one line)
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

LOCK: Final = Path("requirements.lock")
HASH: Final = re.compile(r"--hash=sha256:[0-9a-f]{64}")
# An address, a home or drive path, or a word that starts at the root of a file system.
TRACE: Final = re.compile(r"://|\\|(^|[\s='\"(])(/|~/|file:|www\.)[^\s]")
PIN: Final = re.compile(r"==([^*,;\s]+)")


def entries(text: str) -> list[str]:
    """The lock's requirements, continuation lines joined, comments left out."""
    joined = text.replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def pins(text: str) -> tuple[dict[str, Version], list[str]]:
    """The pinned versions by canonical name, and what is wrong with single entries."""
    found: dict[str, Version] = {}
    wrong: list[str] = []
    for entry in entries(text):
        head, *hashes = entry.split(" --", 1)
        try:
            requirement = Requirement(head.strip())
            pin = PIN.fullmatch(str(requirement.specifier))
            version = Version(pin[1]) if pin else None
        except (InvalidRequirement, InvalidVersion):
            wrong.append(f"{LOCK}: not a pinned requirement: {head.strip()}")
            continue
        if version is None or requirement.url:
            wrong.append(f"{LOCK}: {requirement.name} is not pinned with ==")
            continue
        words = f"--{hashes[0]}".split() if hashes else []
        if not words or not all(HASH.fullmatch(word) for word in words):
            wrong.append(f"{LOCK}: {requirement.name} needs sha256 hashes and nothing else behind its version")
        found[canonicalize_name(requirement.name)] = version
    return found, wrong


def wanted(project: dict[str, Any]) -> Iterator[Requirement]:
    """Every requirement that pyproject.toml names, except the distribution's own extras."""
    groups = [project["project"].get("dependencies", [])]
    groups += project["project"].get("optional-dependencies", {}).values()
    groups += project.get("dependency-groups", {}).values()
    for requirement in (Requirement(text) for group in groups for text in group):
        if canonicalize_name(requirement.name) != canonicalize_name(project["project"]["name"]):
            yield requirement


def findings(root: Path) -> Iterator[str]:
    """Everything that is wrong with the lock of the repository at `root`, one line each."""
    text = (root / LOCK).read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), start=1):
        if TRACE.search(line.removesuffix("\\")):
            yield f"{LOCK}:{number}: an address or a path: {line.strip()}"
    pinned, wrong = pins(text)
    yield from wrong
    for requirement in wanted(tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))):
        version = pinned.get(canonicalize_name(requirement.name))
        if version is None or version not in requirement.specifier:
            yield f"{LOCK}: {requirement} is not met by {version or 'any entry'}; run `make lock`"


def main(arguments: list[str]) -> int:
    """Print the findings; 0 if there are none."""
    found = list(findings(Path(arguments[0] if arguments else ".").resolve()))
    for line in found:
        print(line)
    print(
        f"lock: {len(found)} findings"
        if found
        else "lock: pinned, hashed, without addresses, and in line with pyproject.toml"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
