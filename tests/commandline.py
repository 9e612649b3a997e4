"""Running `stepgrant` in a test's own process, with what always holds checked each time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from stepgrant.cli.main import main


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - any JSON value
        assert self.out, f"nothing was printed (exit {self.code}): {self.err}"
        return json.loads(self.out)


def caller(capsys: pytest.CaptureFixture[str], secrets: Sequence[str]) -> Callable[..., Done]:
    """Runs a command line. Whatever happens: none of `secrets` is printed, no traceback, and an error is one line."""

    def call(*words: str) -> Done:
        capsys.readouterr()
        code = main(words)
        printed = capsys.readouterr()
        both = printed.out + printed.err
        assert not [secret for secret in secrets if secret in both]
        assert "Traceback" not in both
        if code not in {0, 130} and not printed.out:
            assert printed.err.count("\n") == 1, both
        return Done(code, printed.out, printed.err)

    return call
