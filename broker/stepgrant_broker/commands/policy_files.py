"""`stepgrant policy` on files here: check, test, and build the bundle for OPA.

The embedded engine always has its say; an `opa` program too, where one is at hand, and every answer names its engine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepgrant.cli import plain
from stepgrant.cli.command import Cli, command
from stepgrant.cli.exits import CommandError
from stepgrant_broker.commands.saying import said

if TYPE_CHECKING:
    from stepgrant_broker.policy.bundle import Bundle
    from stepgrant_broker.policy.opa_signing import SigningKey
    from stepgrant_broker.policy.opa_tool import OpaTool
    from stepgrant_broker.policy.testing import PolicyTestReport


class Engine(StrEnum):
    """Who answers."""

    AUTO = "auto"
    EMBEDDED = "embedded"
    OPA = "opa"


FOLDER = Annotated[
    Path | None,
    typer.Argument(metavar="FOLDER", help="The policy's folder. Default: ./policy, else the starter policy."),
]
COVERAGE = Annotated[bool, typer.Option("--coverage", help="Also list the lines that no test reached.")]
VERBOSE = Annotated[bool, typer.Option("--verbose", "-v", help="Also list the tests that passed.")]
ENGINE = Annotated[Engine, typer.Option("--engine", help="Who answers; auto takes opa where there is one.")]
ISSUERS_FILE = Annotated[
    Path | None,
    typer.Option(
        "--issuers",
        metavar="FILE",
        help="The broker's issuers file. Default: what STEPGRANT_BROKER_ISSUERS_FILE names.",
    ),
]
BUNDLE = Annotated[
    Path, typer.Option("--out", "-o", metavar="FILE", help="Where to write it, for example bundle.tar.gz.")
]
SIGNING_KEY = Annotated[
    Path | None,
    typer.Option(
        "--signing-key", metavar="FILE", help="Sign it with this PEM key: P-256, or RSA of 2048 bits and more."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the group."""
    _looking(app)
    _building(app)


def _looking(app: typer.Typer) -> None:

    @command(app, "check", remote=False, example="stepgrant policy check policy")
    def check(cli: Cli, folder: FOLDER = None, engine: ENGINE = Engine.AUTO, issuers: ISSUERS_FILE = None) -> None:
        """Say everything that would keep this policy from being activated. Exit code 1 if there is anything.

        The issuers that its settings name are looked up in the broker's issuers file, where one is named: an unknown
        one is a finding here, though a broker would start with it. With an `opa` program at hand (STEPGRANT_OPA, or on
        the PATH), `opa check --strict` has its say, too.
        """
        from stepgrant_broker.commands.policy_checked import checked_policy, known_issuers

        with said():
            checked = checked_policy(folder, tool_of(engine), known_issuers(issuers))
        cli.out.emit(checked.as_json(), lambda: checked.show(cli.out))
        if checked.findings:
            raise typer.Exit(1)

    @command(app, "test", remote=False, example="stepgrant policy test policy --coverage")
    def test(
        cli: Cli,
        folder: FOLDER = None,
        coverage: COVERAGE = False,
        verbose: VERBOSE = False,
        engine: ENGINE = Engine.AUTO,
    ) -> None:
        """Run the policy's own tests: rules named test_... and whole decisions in cases/. Exit code 1 if one fails.

        They run on an `opa` program if one is at hand (STEPGRANT_OPA, or on the PATH), else on the embedded engine.
        """
        from stepgrant_broker.policy.testing import run_tests

        with said():
            name, bundle = read(folder)
            with opa_said():
                report = run_tests(bundle, tool_of(engine))
        cli.out.emit(
            _report(name, report), lambda: _print_report(cli, name, report, coverage=coverage, verbose=verbose)
        )
        if not report.passed:
            raise typer.Exit(1)


def _building(app: typer.Typer) -> None:
    @command(app, "build", remote=False, example="stepgrant policy build policy -o bundle.tar.gz")
    def build(cli: Cli, out: BUNDLE, folder: FOLDER = None, signing_key: SIGNING_KEY = None) -> None:
        """Write the policy as an OPA bundle: the files that the broker activates, with their digest as its revision.

        The same policy gives the same bytes, but for a signature. A policy with findings is not built.
        policies/README.md says how OPA serves it.
        """
        from stepgrant_broker.commands.policy_checked import checked_policy
        from stepgrant_broker.policy.opa_bundle import opa_bundle

        key = _signing_key(signing_key) if signing_key is not None else None
        with said():
            checked = checked_policy(folder, None, None)
            bundle = checked.bundle
            if checked.findings or bundle is None:
                found = plain.count(len(checked.findings), "finding")
                raise CommandError(f"not built: {found}; `stepgrant policy check` lists them", code="check_failed")
            packed = opa_bundle(bundle, key)
        _write_file(out, packed)
        value = {"policy": checked.name, "file": str(out), "revision": bundle.digest, "bytes": len(packed)}
        cli.out.emit(value, lambda: cli.out.line(f"{out}: {bundle.digest}, {plain.count(len(bundle.files), 'file')}"))


def read(folder: Path | None) -> tuple[str, Bundle]:
    """The policy's name for people, and its bundle. Raises `PolicyInvalid`."""
    from stepgrant_broker.policy import bundle

    if folder is None and not Path("policy").is_dir():
        return "the starter policy", bundle.read_starter()
    path = folder or Path("policy")
    if not path.is_dir():
        raise CommandError(f"there is no folder {path}", code="not_found")
    return str(path), bundle.read_directory(path)


def tool_of(engine: Engine) -> OpaTool | None:
    """The `opa` program to use; `None` is the embedded engine. Raises `CommandError`."""
    from stepgrant_broker.policy.opa_tool import OpaTool, OpaToolFailed

    if engine is Engine.EMBEDDED:
        return None
    try:
        tool = OpaTool.found(os.environ)
    except OpaToolFailed as failed:
        raise CommandError(str(failed), code="configuration_error") from None
    if tool is None and engine is Engine.OPA:
        raise CommandError("there is no opa: put it on the PATH, or name it in STEPGRANT_OPA", code="not_found")
    return tool


@contextmanager
def opa_said() -> Iterator[None]:
    """A program that fails is an error of the set-up."""
    from stepgrant_broker.policy.opa_tool import OpaToolFailed

    try:
        yield
    except OpaToolFailed as failed:
        raise CommandError(str(failed), code="configuration_error") from None


def _report(name: str, report: PolicyTestReport) -> dict[str, Any]:
    return {
        "policy": name,
        "engine": report.engine,
        "passed": report.passed,
        "covered": round(report.covered, 4),
        "tests": [
            {"name": one.name, "file": one.file, "line": one.line, "passed": one.passed, "message": one.message,
             "prints": list(one.prints)}
            for one in report.results
        ],
        "missed": [
            {"file": rule.file, "line": rule.line, "rule": rule.rule, "lines": list(rule.missed)}
            for rule in report.coverage
            if rule.missed
        ],
    }  # fmt: skip


def _print_report(cli: Cli, name: str, report: PolicyTestReport, *, coverage: bool, verbose: bool) -> None:
    for one in report.results:
        if one.passed and not verbose:
            continue
        place = f"{Path(name, one.file)}:{one.line}" if one.line else str(Path(name, one.file))
        word = "passed" if one.passed else f"FAILED: {one.message}"
        cli.out.line(plain.visible(f"{place}: {one.name} {word}"), style=None if one.passed else "red")
        for line in one.prints:
            cli.out.line(f"    {plain.visible(line)}")
    if coverage:
        for rule in report.coverage:
            if rule.missed:
                lines = ", ".join(str(line) for line in rule.missed)
                cli.out.line(f"{Path(name, rule.file)}:{rule.line}: {rule.rule}: no test reaches line {lines}")
    failed = sum(not one.passed for one in report.results)
    total = plain.count(len(report.results), "test")
    share = f"{report.covered:.0%} of the rules are covered whole"
    if not report.results:
        cli.out.line("there are no tests: rules named test_... in *_test.rego, or cases/*.json", style="red")
    elif failed:
        cli.out.line(f"{failed} of {total} failed; {share}; answered by {report.engine}", style="bold red")
    else:
        cli.out.line(f"{total} passed; {share}; answered by {report.engine}", style="green")


def _signing_key(file: Path) -> SigningKey:
    """The key in the file. Raises `CommandError`."""
    from stepgrant_broker.policy.opa_signing import NoSigningKey, SigningKey

    try:
        return SigningKey(file.read_bytes())
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}", code="not_found") from None
    except NoSigningKey as refused:
        raise CommandError(f"{file} cannot sign: {refused}", code="configuration_error") from None


def _write_file(path: Path, data: bytes) -> None:
    """Write it whole or not at all: an OPA may be watching. Raises `CommandError`."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise CommandError(f"cannot write {path}: {error.strerror}", code="configuration_error") from None
