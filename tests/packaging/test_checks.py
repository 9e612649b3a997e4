"""The checks of `make check` that are ours: each finds what it is there to find, and only that."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import check_coverage, check_lock, check_sizes

ROOT = Path(__file__).parents[2]
HASH = f"--hash=sha256:{'0' * 64}"
PROJECT = """
[project]
name = "example"
dependencies = ["one>=1.0"]
[project.optional-dependencies]
extra = ["example[other]", "two>=2; sys_platform != 'win32'"]
[dependency-groups]
dev = ["three[fast]"]
"""
LOCK = f"""one==1.5 \\
    {HASH}
two==2.0 ; sys_platform != 'win32' \\
    {HASH} \\
    {HASH}
three==3 \\
    {HASH}
"""


def repository(root: Path, files: dict[str, str]) -> Path:
    """A git repository at `root` with `files`, none of them committed."""
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)  # noqa: S607
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def function(lines: int) -> str:
    """The source of a function of so many lines."""
    return "def long():\n" + "    x = 1\n" * (lines - 1)


def test_sizes_within_their_limits_are_fine(tmp_path: Path) -> None:
    files = {
        "a.py": "x = 1\n" * 300,
        "b.py": function(50),
        "tests/vectors/big.py": "x = 1\n" * 900,
        "c.md": "x\n" * 900,
    }
    assert list(check_sizes.findings(repository(tmp_path, files))) == []


def test_long_file_needs_a_reason(tmp_path: Path) -> None:
    root = repository(tmp_path, {"a.py": "x = 1\n" * 301})
    assert [line.partition(";")[0] for line in check_sizes.findings(root)] == ["a.py: 301 lines"]

    (root / check_sizes.EXCUSES).parent.mkdir(parents=True)
    (root / check_sizes.EXCUSES).write_text("# reviewed\na.py: one table\n", encoding="utf-8")
    assert list(check_sizes.findings(root)) == []

    (root / check_sizes.EXCUSES).write_text("a.py:\n", encoding="utf-8")
    assert [line.partition(";")[0] for line in check_sizes.findings(root)] == ["a.py: 301 lines"]


def test_nothing_excuses_the_hard_limit(tmp_path: Path) -> None:
    root = repository(tmp_path, {"a.rego": "x := 1\n" * 501, str(check_sizes.EXCUSES): "a.rego: a reason\n"})
    assert "a.rego: 501 lines, and nothing excuses more than 500" in list(check_sizes.findings(root))


def test_stale_reason_is_refused(tmp_path: Path) -> None:
    root = repository(tmp_path, {"a.py": "x = 1\n", str(check_sizes.EXCUSES): "a.py: was long\ngone.py: was there\n"})
    assert [line.split()[1] for line in check_sizes.findings(root)] == ["a.py", "gone.py"]


def test_long_function_is_refused(tmp_path: Path) -> None:
    files = {"a.py": f"class Some:\n    async {function(51).replace(chr(10), chr(10) + '    ').rstrip()}\n"}
    assert list(check_sizes.findings(repository(tmp_path, files))) == [
        "a.py:2: function long has 51 lines, the limit is 50"
    ]


def lock_findings(root: Path, lock: str, project: str = PROJECT) -> list[str]:
    (root / "requirements.lock").write_text(lock, encoding="utf-8")
    (root / "pyproject.toml").write_text(project, encoding="utf-8")
    return list(check_lock.findings(root))


def test_lock_in_order_is_fine(tmp_path: Path) -> None:
    assert lock_findings(tmp_path, LOCK) == []


@pytest.mark.parametrize(
    ("line", "finding"),
    [
        ("--index-url https://index.example/simple\n", "an address or a path"),
        ("--extra-index-url=//index.example\n", "an address or a path"),
        ("--find-links /srv/wheels\n", "an address or a path"),
        ("--pre\n", "not a pinned requirement"),
        ("# made by uv pip compile -o /home/someone/requirements.lock\n", "an address or a path"),
        ("# made in C:\\Users\\someone\n", "an address or a path"),
        (f"four @ file:///srv/four.whl {HASH}\n", "an address or a path"),
        (f"four @ four.whl {HASH}\n", "is not pinned with =="),
        (f"four>=4 {HASH}\n", "is not pinned with =="),
        (f"four==4.* {HASH}\n", "is not pinned with =="),
        ("four==4\n", "needs sha256 hashes"),
        ("four==4 --hash=md5:00\n", "needs sha256 hashes"),
        (f"four==4 {HASH} --global-option=x\n", "needs sha256 hashes"),
    ],
)
def test_loose_or_telling_line_is_refused(tmp_path: Path, line: str, finding: str) -> None:
    assert any(finding in found for found in lock_findings(tmp_path, LOCK + line))


@pytest.mark.parametrize(("old", "new"), [("one>=1.0", "one>=1.6"), ("two>=2", "four>=2"), ("three[fast]", "five")])
def test_lock_that_no_longer_fits_is_refused(tmp_path: Path, old: str, new: str) -> None:
    found = lock_findings(tmp_path, LOCK, PROJECT.replace(old, new))
    assert len(found) == 1
    assert "run `make lock`" in found[0]


def coverage_code(tmp_path: Path, *figures: tuple[int, int]) -> int:
    """The exit code for (lines, branches) covered of 1000 each, in the domain's and the use cases' one file."""
    files = {
        f"{folder}/one.py": {
            "summary": {
                "covered_lines": lines,
                "num_statements": 1000,
                "covered_branches": branches,
                "num_branches": 1000,
            }
        }
        for folder, (lines, branches) in zip(check_coverage.FOLDERS, figures, strict=False)
    }
    (tmp_path / "coverage.json").write_text(json.dumps({"files": files}), encoding="utf-8")
    return check_coverage.main([str(tmp_path / "coverage.json")])


def test_coverage_at_the_limit_is_enough(tmp_path: Path) -> None:
    assert coverage_code(tmp_path, (950, 950), (950, 950)) == 0


@pytest.mark.parametrize(
    "figures",
    [
        ((949, 1000), (1000, 1000)),
        ((1000, 949), (1000, 1000)),
        ((1000, 1000), (949, 1000)),
        ((1000, 1000), (1000, 949)),
        ((1000, 1000),),  # the use cases were not measured at all
    ],
)
def test_coverage_below_the_limit_is_refused(tmp_path: Path, figures: tuple[tuple[int, int], ...]) -> None:
    assert coverage_code(tmp_path, *figures) == 1


@pytest.mark.parametrize(
    ("file", "line", "finding"),
    [
        ("sdk/stepgrant/extra.py", "import stepgrant_broker", "stepgrant.extra -> stepgrant_broker"),
        ("broker/stepgrant_broker/domain/extra.py", "import httpx", "domain.extra may not import httpx"),
        ("broker/stepgrant_broker/domain/extra.py", "import time", "domain.extra may not import time"),
        ("broker/stepgrant_broker/domain/extra.py", "import stepgrant.extra", "may not import stepgrant.extra"),
        ("broker/stepgrant_broker/usecases/extra.py", "import structlog", "usecases.extra may not import structlog"),
        ("broker/stepgrant_broker/usecases/extra.py", "import stepgrant_broker.store", "may not import"),
        ("broker/stepgrant_broker/issuers/extra.py", "import stepgrant_broker.store", "may not import"),
        ("broker/stepgrant_broker/issuers/extra.py", "import stepgrant_broker.usecases", "may not import"),
        ("broker/stepgrant_broker/api/extra.py", "import stepgrant_broker.store", "may not import"),
        ("broker/stepgrant_broker/attic/__init__.py", "x = 1", "attic"),
    ],
)
def test_border_that_is_crossed_is_reported(tmp_path: Path, file: str, line: str, finding: str) -> None:
    """The real contracts of pyproject.toml, over a small tree with one planted import."""
    rooms = ["domain", "usecases", "store", "issuers", "api"]
    packages = ["sdk/stepgrant", "broker/stepgrant_broker", "policies/stepgrant_policies"]
    files = {f"{package}/__init__.py": "" for package in packages}
    files |= {f"broker/stepgrant_broker/{room}/__init__.py": "" for room in rooms}
    files["sdk/stepgrant/extra.py"] = ""
    repository(tmp_path, files | {file: f"{line}\n"})
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "tests" / "tools", tmp_path / "tests" / "tools")
    program = Path(sys.executable).parent / "lint-imports"
    environment = {"PYTHONPATH": ":".join(str(tmp_path / part) for part in ("sdk", "broker", "policies"))}
    done = subprocess.run(
        [program, "--no-cache"], cwd=tmp_path, env=environment, check=False, capture_output=True, text=True
    )

    assert done.returncode == 1
    assert finding in done.stdout.partition("Broken contracts")[2]
