"""A client file that leads to a desk, in a fresh current folder, and a way to run command lines there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from commandline import Done, caller
from desk import Desk, open_desk

TOKEN = "sgo_" + "5e" * 32


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk, and a client file that leads to it in a fresh current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nowhere"))
    with open_desk() as listening:
        (tmp_path / ".stepgrant").mkdir()
        file = tmp_path / ".stepgrant" / "operator.json"
        file.write_text(json.dumps({"url": listening.url, "token": TOKEN}), encoding="utf-8")
        file.chmod(0o600)
        yield listening


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run a command line in this process; the token is in no output."""
    return caller(capsys, [TOKEN])
