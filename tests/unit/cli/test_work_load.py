"""`stepgrant work MODULE:AGENT`: what is said of a module that cannot be imported."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import stepgrant
from stepgrant.cli.cmd_work import load
from stepgrant.cli.exits import CommandError

SECRET = "sk-live-made-up"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to import from; nothing of it stays loaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def refused(target: str) -> str:
    with pytest.raises(CommandError) as caught:
        load(target)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value.message


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("\nfrom json import nowhere", "ImportError: cannot import name 'nowhere' from 'json' ({json}) (at {here}:2)"),
        ("x = 1\ndef y(:\n", "SyntaxError: invalid syntax at {here}:2"),
        ("x = 1\n  y = 2\n", "IndentationError: unexpected indent at {here}:2"),
        ("\n\nnot_defined", "NameError: name 'not_defined' is not defined (at {here}:3)"),
        (
            "import stepgrant\n@stepgrant.tool(settle=-1)\ndef charge() -> None: ...",
            "ConfigurationError: charge: settle= is a number of seconds, 0 or more, not -1 (at {here}:2)",
        ),
        ("import os\nos.environ['NOT_SET']", 'KeyError at {here}:2; `python -c "import billing"` shows what it says'),
        (f"raise ValueError({SECRET!r})", 'ValueError at {here}:1; `python -c "import billing"` shows what it says'),
        (
            f"import sys\nsys.exit({SECRET!r})",
            "it ends the program (at {here}:2): what it runs belongs under `if __name__ == '__main__':`",
        ),
    ],
    ids=["name", "syntax", "indent", "undefined", "declaration", "environment", "other", "exit"],
)
def test_why_a_module_cannot_be_imported_is_told(here: Path, source: str, said: str) -> None:
    (here / "billing.py").write_text(source)
    what = refused("billing:bill")
    assert what == "billing cannot be imported: " + said.format(here=here / "billing.py", json=json.__file__)
    assert SECRET not in what


def test_the_place_of_a_module_that_it_imports(here: Path) -> None:
    (here / "billing.py").write_text("import broken_deeper\n")
    (here / "broken_deeper.py").write_text("x = 1\ny = (\n")
    assert refused("billing:bill") == (
        f"billing cannot be imported: SyntaxError: '(' was never closed at {here / 'broken_deeper.py'}:2"
    )


def test_what_is_missing_is_named(here: Path) -> None:
    (here / "billing.py").write_text("import not_installed_anywhere\n")
    assert refused("billing:bill") == "billing needs not_installed_anywhere, which is not installed"
    assert refused("billings:bill") == "there is no module billings here or among what is installed"


def test_an_agent_is_found(here: Path) -> None:
    (here / "billing.py").write_text("import stepgrant\n@stepgrant.agent('billing')\ndef bill(order): ...\n")
    assert isinstance(load("billing:bill"), stepgrant.Agent)
    assert refused("billing:stepgrant").startswith("billing:stepgrant is no agent")
