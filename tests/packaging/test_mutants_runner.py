"""The mutant runner: it says `passed` only for a guard whose test fails by its assertion, on the patched copy."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULE = "sdk/stepgrant/__init__.py"
SOURCE = "def check(n: int) -> bool:\n    if n > 5:\n        raise ValueError(n)\n    return True\n"
TESTS = """
import time
import pytest
import stepgrant

def test_guard():
    with pytest.raises(ValueError, match="6"):
        stepgrant.check(6)

def test_guard_by_assert():
    try:
        stepgrant.check(6)
    except ValueError:
        return
    assert 1 == 2

def test_blind():
    assert stepgrant.check(1)

def test_other():
    try:
        stepgrant.check(6)
    except ValueError:
        return
    raise KeyError("not an assertion")

@pytest.fixture
def wall():
    try:
        stepgrant.check(6)
    except ValueError:
        return
    assert 1 == 2

def test_setup(wall):
    assert stepgrant.check(1)

def test_red():
    assert not stepgrant.check(1)
"""


# Those plugins of other packages that take long to load, each time that a pytest starts here.
PLUGINS_LEFT_OUT = ("schemathesis", "langsmith_plugin", "hypothesispytest", "anyio", "asyncio", "xdist")
ADDOPTS = ["--strict-markers", *(word for name in PLUGINS_LEFT_OUT for word in ("-p", f"no:{name}"))]


def patch(test: str, *, old: str = "n > 5", header: str = "") -> str:
    """A mutant that takes the guard out of `check`."""
    above = header or f"# guard: numbers over five\n# test: tests/test_it.py::{test}\n"
    return (
        f"{above}diff --git a/{MODULE} b/{MODULE}\n--- a/{MODULE}\n+++ b/{MODULE}\n@@ -1,4 +1,4 @@\n"
        f" def check(n: int) -> bool:\n-    if {old}:\n+    if n > 9:\n         raise ValueError(n)\n     return True\n"
    )


def run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], patches: dict[str, str], *names: str, policies: bool = True
) -> tuple[int, str]:
    """Run the runner over a small repository: its exit code and what it printed."""
    files = {
        MODULE: SOURCE,
        "tests/test_it.py": TESTS,
        "pyproject.toml": f"[tool.pytest]\naddopts = {ADDOPTS}\n",
    }
    files["broker/stepgrant_broker/__init__.py"] = ""
    if policies:
        files["policies/stepgrant_policies/__init__.py"] = ""
    # Where Stepgrant is installed, pytest loads the package's plugin, here from the small repository.
    files |= {"sdk/stepgrant/testing/__init__.py": "", "sdk/stepgrant/testing/plugin.py": ""}
    files |= {f"tests/mutants/{name}.patch": text for name, text in patches.items()}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)  # noqa: S607
    spec = importlib.util.spec_from_file_location("mutants_runner", ROOT / "tests" / "mutants" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    runner = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = runner  # dataclasses look their module up
    spec.loader.exec_module(runner)
    code: int = runner.main(list(names), tmp_path)
    return code, capsys.readouterr().out


def test_guard_that_is_watched_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patches = {"one": patch("test_guard"), "two": patch("test_guard_by_assert"), "not_named": patch("test_blind")}
    code, out = run(tmp_path, capsys, patches, "one", "two")

    assert out.splitlines()[-1] == "2 passed, 0 failed"
    assert "Failed: DID NOT RAISE" in out
    assert code == 0
    assert (tmp_path / MODULE).read_text(encoding="utf-8") == SOURCE


def test_guard_that_is_not_watched_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = {
        "blind": (patch("test_blind"), "SURVIVED"),
        "other": (patch("test_other"), "failed, but not by an assertion: KeyError"),
        "setup": (patch("test_setup"), "an error around the test, not in it"),
        "stale": (patch("test_guard", old="n > 6"), "stale, the patch does not apply"),
        "syntax": (
            patch("test_guard").replace("+    if n > 9:", "+    if n >"),
            "pytest ended with",
        ),
    }
    code, out = run(tmp_path, capsys, {"good": patch("test_guard")} | {name: text for name, (text, _) in bad.items()})

    for name, (_, why) in bad.items():
        assert re.search(rf"^FAILED  {name} \(.*\): {re.escape(why)}", out, re.MULTILINE), name
    assert re.search(r"^caught  good ", out, re.MULTILINE)
    assert out.splitlines()[-1] == "1 passed, 5 failed"
    assert code == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (patch("test_red"), "do not pass on the unchanged code"),
        (patch("test_gone"), "do not pass on the unchanged code"),
        (patch("", header="# guard: no test named\n"), "needs one `# guard:` line and one `# test:` line"),
        (patch("", header="# guard: two\n# test: a\n# test: b\n"), "needs one `# guard:` line and one `# test:` line"),
    ],
)
def test_nothing_runs_without_a_sound_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, why: str
) -> None:
    code, out = run(tmp_path, capsys, {"good": patch("test_guard"), "bad": text})

    assert why in out
    assert out.splitlines()[-1] == "0 passed, 1 failed"
    assert code == 1


def test_unknown_name_and_empty_folder_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(tmp_path, capsys, {"good": patch("test_guard")}, "godo")
    assert (code, out.splitlines()[-1]) == (1, "0 passed, 1 failed")

    (tmp_path / "tests" / "mutants" / "good.patch").unlink()
    code, out = run(tmp_path, capsys, {})
    assert (code, out.splitlines()[-1]) == (1, "0 passed, 1 failed")


def test_package_from_elsewhere_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where Python does not import the patched copy, every mutant would seem to survive, or to be caught by chance."""
    code, out = run(tmp_path, capsys, {"good": patch("test_guard")}, policies=False)

    assert "instead of the patched copy" in out
    assert (code, out.splitlines()[-1]) == (1, "0 passed, 1 failed")
