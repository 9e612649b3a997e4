"""The operator's `opa` program for checking and testing a policy with the engine that will decide.

Rules:
* It sees a copy of exactly the files that the broker evaluates (and the tests), in a folder of its own, with no
  environment but PATH; so no stray file and no setting of the developer takes part.
* Our capabilities bound it: a function that the broker does not allow does not exist for it.
* What it says is turned into our findings and results; our own checks come first and are not replaced.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stepgrant import canonical
from stepgrant_broker.policy.builtins import ALLOWED
from stepgrant_broker.policy.bundle import Bundle
from stepgrant_broker.policy.findings import Finding, PolicyInvalid
from stepgrant_broker.policy.probes import sample_finding, samples

NAME: Final = "STEPGRANT_OPA"
LIMIT_S: Final = 120
FOLDER: Final = "policy"
OPERATORS: Final = frozenset(
    {
        "and", "assign", "div", "eq", "equal", "gt", "gte", "internal.member_2", "internal.member_3", "lt", "lte",
        "minus", "mul", "neq", "or", "plus", "rem",
    }
)  # fmt: skip
IN_TESTS: Final = frozenset({"print", "internal.print", "internal.test_case"})
FEATURES: Final = frozenset({"keywords_in_refs", "rego_v1", "rule_head_refs", "rule_head_ref_string_prefixes"})
UNDEFINED: Final = "opa_undefined_error"


class OpaToolFailed(Exception):
    """The program cannot be used: `str()` says why and what to do."""


@dataclass(frozen=True, slots=True)
class ToolTest:
    """One `test_…` rule as `opa test` saw it. `name` is like `hours_test.test_at_night`."""

    name: str
    file: str
    line: int
    passed: bool
    message: str
    prints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """What a policy said to one input: JSON bytes, `None` for undefined, or why it failed."""

    raw: bytes | None = None
    error: str | None = None


class OpaTool:
    """One `opa` program. Every method blocks; each raises `OpaToolFailed`."""

    def __init__(self, program: str) -> None:
        self._program = program
        self.version = self._version()
        self.engine = f"opa/{self.version}"

    @classmethod
    def found(cls, environment: Mapping[str, str]) -> OpaTool | None:
        """The program that STEPGRANT_OPA names, else the one on the PATH, or `None`."""
        named = environment.get(NAME)
        program = shutil.which(named or "opa", path=environment.get("PATH"))
        if named and program is None:
            raise OpaToolFailed(f"{NAME} names no program: {named}")
        return cls(program) if program is not None else None

    def check(self, bundle: Bundle) -> tuple[Finding, ...]:
        """What `opa check --strict` says, and what OPA answers to the samples."""
        with _files(bundle.files) as folder:
            self._capabilities(folder, tests=False)
            done = self._run(folder, "check", "--strict", "--bundle", "--format=json", "--capabilities=c.json", FOLDER)
            if done.returncode:
                return tuple(sorted(_findings(done)))
        answers = self.decide(bundle, [canonical.dumps(document) for document in samples().values()])
        found = (_of_sample(name, answer) for name, answer in zip(samples(), answers, strict=True))
        return tuple(finding for finding in found if finding is not None)

    def test(self, bundle: Bundle) -> list[ToolTest]:
        """Run the `test_…` rules. Raises `PolicyInvalid` when OPA cannot compile them."""
        shared = ("--bundle", "--format=json", "--capabilities=c.json", FOLDER)
        with _files({**bundle.files, **bundle.tests}) as folder:
            self._capabilities(folder, tests=True)
            done = self._run(folder, "check", *shared)
            if done.returncode:
                raise PolicyInvalid(sorted(_findings(done)))
            done = self._run(folder, "test", "--explain=notes", *shared)
        try:
            said = json.loads(done.stdout)
        except ValueError:
            raise OpaToolFailed(f"opa test: {_last(done.stderr)}") from None
        return [_test(one) for one in said or []]

    def decide(self, bundle: Bundle, inputs: Sequence[bytes]) -> list[ToolAnswer]:
        """`data.stepgrant.decision` for each input."""
        if not inputs:
            return []
        names = [f"input-{number}.json" for number in range(len(inputs))]
        with _files(bundle.files) as folder:
            for name, document in zip(names, inputs, strict=True):
                (folder / name).write_bytes(document)
            done = self._run(folder, "exec", f"--bundle={FOLDER}", "--decision=stepgrant/decision", *names)
        try:
            said = {one["path"]: one for one in json.loads(done.stdout)["result"]}
            return [_answer(said[name]) for name in names]
        except (ValueError, KeyError, TypeError):
            raise OpaToolFailed(f"opa exec: {_last(done.stderr)}") from None

    def _version(self) -> str:
        with _files({}) as folder:
            lines = self._run(folder, "version").stdout.splitlines()
        found = next((line.partition(":")[2].strip() for line in lines if line.startswith("Version:")), "")
        if not found:
            raise OpaToolFailed(f"{self._program} does not say its version; is it OPA? ({NAME} names another one)")
        return found

    def _capabilities(self, folder: Path, *, tests: bool) -> None:
        allowed = ALLOWED.keys() | OPERATORS | (IN_TESTS if tests else frozenset())
        known = json.loads(self._run(folder, "capabilities", "--current").stdout)
        builtins = [one for one in known["builtins"] if one["name"] in allowed]
        features = [one for one in known.get("features", ()) if one in FEATURES]
        (folder / "c.json").write_text(json.dumps({"builtins": builtins, "features": features}), encoding="utf-8")

    def _run(self, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(  # noqa: S603 - the operator's own program
                [self._program, *arguments],
                cwd=folder,
                env={"PATH": os.defpath, "HOME": str(folder)},
                capture_output=True,
                text=True,
                encoding="utf-8",
                timeout=LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise OpaToolFailed(f"opa {arguments[0]} did not end within {LIMIT_S} s") from None
        except OSError as error:
            raise OpaToolFailed(f"{self._program} cannot be started: {error.strerror}") from None


@contextmanager
def _files(files: Mapping[str, str]) -> Iterator[Path]:
    """A folder with these files below `FOLDER`."""
    with tempfile.TemporaryDirectory(prefix="stepgrant-policy-") as name:
        folder = Path(name)
        for path, text in files.items():
            file = folder / FOLDER / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8", newline="")
        yield folder


def _findings(done: subprocess.CompletedProcess[str]) -> Iterator[Finding]:
    try:
        errors: list[dict[str, Any]] = json.loads(done.stderr or done.stdout)["errors"]
    except (ValueError, KeyError, TypeError):
        raise OpaToolFailed(f"opa check: {_last(done.stderr)}") from None
    for error in errors:
        place = error.get("location") or {}
        file = str(place.get("file", "")).removeprefix(FOLDER + "/")
        yield Finding(
            file, int(place.get("row", 0)), "opa_check", f"OPA: {error.get('message', '')}", "correct the rule"
        )


def _of_sample(name: str, answer: ToolAnswer) -> Finding | None:
    place = f"probe {name!r} on OPA"
    if answer.error is not None:
        return Finding(place, 0, "probe_failed", answer.error, "guard the rule with is_number, is_object and the like")
    return sample_finding(name, answer.raw, place)


def _test(said: Mapping[str, Any]) -> ToolTest:
    name = f"{str(said['package']).removeprefix('data.')}.{said['name']}"
    error = (said.get("error") or {}).get("message") if said.get("error") else None
    skipped = "is skipped (todo_)" if said.get("skip") else ""
    message = error or skipped or ("is undefined or false" if said.get("fail") else "")
    prints = base64.b64decode(said.get("output") or "").decode("utf-8", "replace").splitlines()
    file = str(said["location"]["file"]).removeprefix(FOLDER + "/")
    return ToolTest(name, file, int(said["location"]["row"]), not message, message, tuple(prints))


def _answer(said: Mapping[str, Any]) -> ToolAnswer:
    if "result" in said:
        return ToolAnswer(canonical.dumps(canonical.loads(json.dumps(said["result"]).encode())))
    error = said["error"]
    if error.get("code") == UNDEFINED:
        return ToolAnswer()
    return ToolAnswer(error=str(error.get("message") or "OPA could not read the input"))


def _last(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")
