"""Remove one guard at a time and see that its named test notices.

A mutant is a file `tests/mutants/<name>.patch`: the header lines `# guard: <what is removed>` and
`# test: <pytest node id>`, then a diff that `git apply` takes. For each one:

1. The named test passes on the unchanged code (one pytest call for all of them; if it fails, nothing else runs).
2. The working tree's files (committed, and new ones that git does not ignore) are copied to a temporary folder and the
   patch is applied there. A patch that no longer applies is a failure: its guard has moved and nobody knows if it is
   still tested.
3. The copy is what Python imports, or the run says nothing; it is asked for the files of our packages.
4. The test runs on the copy and must fail **by its assertion**: an `assert`, or `pytest.raises` that saw nothing. One
   that breaks for another reason (import, set-up, time-out, another exception) has not shown that it watches the guard.

Usage: run.py [NAME ...]     (names without .patch; exit code 0 if every mutant was caught)
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = Path("tests/mutants")
PARALLEL: Final = 2
LIMIT_S: Final = 180
PATHS: Final = ("sdk", "broker", "policies")
HEADER: Final = re.compile(r"^# (guard|test): (.+)$", re.MULTILINE)
# How pytest words a failed `assert` and a `pytest.raises` that saw nothing, in the first line of a failure.
BY_ASSERTION: Final = re.compile(r"AssertionError\b|assert\b|Failed: DID NOT RAISE\b")
WHERE: Final = """
import importlib.util, sys
for name in ("stepgrant", "stepgrant_broker", "stepgrant_policies"):
    spec = importlib.util.find_spec(name)
    print(spec.origin if spec else name)
"""


class BadMutantError(Exception):
    """A mutant that cannot be run, or was not caught; the message is its row in the table."""


@dataclass(frozen=True)
class Mutant:
    """One patch: its name, the guard it removes, and the test that must notice."""

    name: str
    patch: Path
    guard: str
    test: str


@dataclass(frozen=True)
class Result:
    """What became of a mutant. `seconds` is wall time."""

    mutant: Mutant
    caught: bool
    note: str
    seconds: float


def read(patch: Path) -> Mutant:
    """The mutant in `patch`. Raises BadMutantError unless it has exactly one guard line and one test line."""
    header = patch.read_text(encoding="utf-8").partition("\ndiff ")[0]
    found = HEADER.findall(header)
    if sorted(key for key, _ in found) != ["guard", "test"]:
        raise BadMutantError(f"{patch.name}: needs one `# guard:` line and one `# test:` line above the diff")
    values = {key: value.strip() for key, value in found}
    return Mutant(patch.stem, patch, values["guard"], values["test"])


def select(root: Path, names: list[str]) -> list[Mutant]:
    """The mutants called `names`, or all. Raises BadMutantError for an unknown name and if there are none."""
    patches = {patch.stem: patch for patch in sorted((root / FOLDER).glob("*.patch"))}
    unknown = [name for name in names if name not in patches]
    if unknown or not patches:
        raise BadMutantError(
            f"no such mutant: {', '.join(unknown) or 'there are no patches'} (have: {', '.join(patches)})"
        )
    return [read(patches[name]) for name in names or patches]


def copy_tree(root: Path, target: Path) -> None:
    """Copy what git knows or would add at `root` to `target`, as it is in the working tree now."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"]
    listing = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listing.split("\0")):
        if (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, target / name)


def environment(copy: Path) -> dict[str, str]:
    """The environment in which Python imports the copy: PYTHONPATH comes before the editable install's paths."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COVERAGE_"))}
    return inherited | {
        "PYTHONPATH": os.pathsep.join(str(copy / path) for path in PATHS),
        # Bytecode is matched by second and size: a patch that keeps both would run the code from before it.
        "PYTHONDONTWRITEBYTECODE": "1",
        # Inside a repository, `git apply` silently skips files that are not in it.
        "GIT_CEILING_DIRECTORIES": str(copy.parent),
    }


def require_copy(copy: Path) -> None:
    """Raise BadMutantError unless Python would import our packages from `copy`."""
    done = subprocess.run(
        [sys.executable, "-c", WHERE], cwd=copy, env=environment(copy), check=True, capture_output=True, text=True
    )
    strays = [line for line in done.stdout.splitlines() if not Path(line).resolve().is_relative_to(copy.resolve())]
    if strays:
        raise BadMutantError(f"Python imports {', '.join(strays)} instead of the patched copy")


def run_tests(copy: Path, tests: list[str]) -> tuple[int, ET.Element | None, str]:
    """Run `tests` in `copy`: pytest's exit code, its report (None if it wrote none) and the end of its output."""
    report = copy / ".cache" / "mutant.xml"
    command = [sys.executable, "-m", "pytest", "--quiet", "--tb=short", f"--junitxml={report}", *tests]
    try:
        done = subprocess.run(
            command,
            cwd=copy,
            env=environment(copy),
            check=False,
            capture_output=True,
            text=True,
            timeout=LIMIT_S * len(tests),
        )
    except subprocess.TimeoutExpired:
        return -1, None, f"did not end within {LIMIT_S} s"
    # The report was written by the pytest that we just ran.
    parsed = ET.parse(report).getroot() if report.exists() else None  # noqa: S314
    return done.returncode, parsed, "\n".join((done.stdout + done.stderr).splitlines()[-25:])


def judge(code: int, report: ET.Element | None, tail: str) -> str:
    """How the test noticed, in one line. Raises BadMutantError if it did not, or not by its assertion."""
    if code == 0:
        raise BadMutantError("SURVIVED: the test passes without the guard")
    if code != 1 or report is None:
        raise BadMutantError(f"pytest ended with {code}, not by a failed test: {last_line(tail)}")
    errors = [one.get("message", "") for one in report.iter("error")]
    if errors:
        raise BadMutantError(f"an error around the test, not in it: {last_line(errors[0])}")
    failures = [one.get("message", "") for one in report.iter("failure")]
    caught = [message for message in failures if BY_ASSERTION.match(message)]
    if not caught:
        raise BadMutantError(f"failed, but not by an assertion: {(failures or ['?'])[0].splitlines()[0]}")
    return caught[0].splitlines()[0]


def last_line(text: str) -> str:
    """The last line of `text` that says something."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no output")


def apply_patch(copy: Path, patch: Path) -> None:
    """Apply `patch` to the copy. Raises BadMutantError if it does not fit."""
    command = ["git", "apply", "--whitespace=nowarn", str(patch)]
    done = subprocess.run(command, cwd=copy, env=environment(copy), check=False, capture_output=True, text=True)
    if done.returncode:
        raise BadMutantError(f"stale, the patch does not apply: {last_line(done.stderr)}")


def attempt(root: Path, mutant: Mutant) -> Result:
    """Copy, patch, run and judge one mutant."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder).resolve() / "copy"
        copy.mkdir()
        try:
            copy_tree(root, copy)
            apply_patch(copy, mutant.patch)
            require_copy(copy)
            note, caught = judge(*run_tests(copy, [mutant.test])), True
        except BadMutantError as reason:
            note, caught = str(reason), False
    return Result(mutant, caught, note, time.monotonic() - begun)


def baseline(root: Path, mutants: list[Mutant]) -> None:
    """Raise BadMutantError unless every named test exists and passes on the unchanged code."""
    tests = sorted({mutant.test for mutant in mutants})
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder).resolve() / "copy"
        copy.mkdir()
        copy_tree(root, copy)
        require_copy(copy)
        code, _, tail = run_tests(copy, tests)
    if code:
        raise BadMutantError(f"the named tests do not pass on the unchanged code (pytest ended with {code}):\n{tail}")


def table(results: list[Result]) -> str:
    """The closing table: one row for each mutant, by name."""
    width = max(len(result.mutant.name) for result in results)
    rows = sorted(results, key=lambda result: result.mutant.name)
    return "\n".join(f"{'caught' if r.caught else 'FAILED':6}  {r.mutant.name:{width}}  {r.mutant.guard}" for r in rows)


def main(names: list[str], root: Path = ROOT) -> int:
    """Run the mutants called `names` (all if none) of the repository at `root`."""
    try:
        mutants = select(root, names)
        print(f"{len(mutants)} mutants; first their tests on the unchanged code", flush=True)
        baseline(root, mutants)
    except BadMutantError as reason:
        print(reason)
        print("0 passed, 1 failed")
        return 1
    results = []
    with ThreadPoolExecutor(PARALLEL) as pool:
        for future in as_completed([pool.submit(attempt, root, mutant) for mutant in mutants]):
            result = future.result()
            results.append(result)
            word = "ok" if result.caught else "FAILED"
            print(f"{word:6}  {result.mutant.name} ({result.seconds:.1f} s): {result.note}", flush=True)
    failed = sum(not result.caught for result in results)
    print(f"\n{table(results)}\n\n{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
