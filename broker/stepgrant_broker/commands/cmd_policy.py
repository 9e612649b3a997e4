"""`stepgrant policy`: write policy with confidence: check it, test it, try it, and ask why it decided.

check, test and eval work on files here, without a broker; explain, list and show ask the broker.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepgrant.cli import plain
from stepgrant.cli.command import Cli, command, group
from stepgrant.cli.exits import CommandError
from stepgrant_broker.commands.saying import said

if TYPE_CHECKING:
    from stepgrant_broker.policy.bundle import Bundle
    from stepgrant_broker.policy.findings import Finding
    from stepgrant_broker.policy.testing import PolicyTestReport

FOLDER = Annotated[
    Path | None,
    typer.Argument(metavar="FOLDER", help="The policy's folder. Default: ./policy, else the starter policy."),
]
POLICY = Annotated[
    Path | None, typer.Option("--policy", metavar="FOLDER", help="The policy's folder. Default: as for `policy check`.")
]
COVERAGE = Annotated[bool, typer.Option("--coverage", help="Also list the lines that no test reached.")]
VERBOSE = Annotated[bool, typer.Option("--verbose", "-v", help="Also list the tests that passed.")]
REVISION = Annotated[str, typer.Argument(metavar="REVISION", help="A revision (1:sha-256:...), or its counter.")]
OUT = Annotated[Path | None, typer.Option("--out", metavar="FOLDER", help="Write its files into this new folder.")]
RUN = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, or its key.")]
STEP = Annotated[str | None, typer.Argument(metavar="STEP", help="The step's key. Default: the newest decision.")]
DECISION = Annotated[str | None, typer.Option("--decision", metavar="ID", help="This decision, by its id.")]
INPUT = Annotated[
    Path | None, typer.Option("--input", "-i", metavar="FILE", help="The input document (JSON); - reads stdin.")
]
OF_RUN = Annotated[str | None, typer.Option("--run", metavar="RUN", help="Take the recorded input of this run.")]
OF_STEP = Annotated[str | None, typer.Option("--step", metavar="STEP", help="With --run: of this step.")]


def register(root: typer.Typer) -> None:
    """Add the group."""
    app = group(root, "policy", "Check, test and try policy, and ask why it decided.")
    _on_files(app)
    _on_decisions(app)
    _on_revisions(app)


def _on_files(app: typer.Typer) -> None:
    @command(app, "check", remote=False, example="stepgrant policy check policy")
    def check(cli: Cli, folder: FOLDER = None) -> None:
        """Say everything that would keep this policy from being activated. Exit code 1 if there is anything."""
        with said():
            name, bundle, findings = _checked(folder)
        value = {"policy": name, "digest": bundle.digest if bundle else None, "findings": _plain(name, findings)}
        cli.out.emit(value, lambda: _print_check(cli, name, bundle, findings))
        if findings:
            raise typer.Exit(1)

    @command(app, "test", remote=False, example="stepgrant policy test policy --coverage")
    def test(cli: Cli, folder: FOLDER = None, coverage: COVERAGE = False, verbose: VERBOSE = False) -> None:
        """Run the policy's own tests: rules named test_... and whole decisions in cases/. Exit code 1 if one fails."""
        from stepgrant_broker.policy.testing import run_tests

        with said():
            name, bundle = _read(folder)
            report = run_tests(bundle)
        cli.out.emit(
            _report(name, report), lambda: _print_report(cli, name, report, coverage=coverage, verbose=verbose)
        )
        if not report.passed:
            raise typer.Exit(1)


def _on_decisions(app: typer.Typer) -> None:
    @command(
        app,
        "eval",
        example="stepgrant policy eval --input input.json --policy policy\n"
        "stepgrant policy eval --run order-1729 --step charge",
    )
    def evaluate(
        cli: Cli, policy: POLICY = None, input_file: INPUT = None, run: OF_RUN = None, step: OF_STEP = None
    ) -> None:
        """Decide on an input with the policy in a folder, as the broker would: one from a file, or a recorded one."""
        from stepgrant_broker.commands import deciding

        with said():
            _, bundle = _read(policy)
            asked = deciding.input_of(cli, input_file, run, step)
            answer = deciding.decide(bundle, asked)
        cli.out.document(answer)

    @command(app, "explain", example="stepgrant policy explain order-1729 charge")
    def explain(cli: Cli, run: RUN, step: STEP = None, decision: DECISION = None) -> None:
        """Say in words which rules made a recorded decision, and what they looked at."""
        from stepgrant_broker.commands import deciding

        with said():
            deciding.explain(cli, run, step, decision)


def _on_revisions(app: typer.Typer) -> None:
    @command(app, "list", example="stepgrant policy list")
    def list_policies(cli: Cli) -> None:
        """List the policies that this broker activated, the newest first."""
        with cli.broker() as broker:
            answer = broker.get("/v1/policies")
        rows = [
            (p["revision"], "active" if p["active"] else "", cli.out.when(p["activated_at"]))
            for p in answer["policies"]
        ]
        cli.out.emit(
            answer, lambda: cli.out.table(("revision", "", "activated"), rows, empty="no policy was activated")
        )

    @command(app, "show", example="stepgrant policy show 3 --out policy-3")
    def show(cli: Cli, revision: REVISION, out: OUT = None) -> None:
        """Show the files of a policy as they were when it was activated."""
        from stepgrant_broker.commands import deciding

        with cli.broker() as broker:
            answer = deciding.policy_text(broker, revision)
        if out is not None:
            _write(out, answer["text"])
        cli.out.emit(answer, lambda: _print_policy(cli, answer, out))


def _read(folder: Path | None) -> tuple[str, Bundle]:
    """The policy's name for people, and its bundle. Raises `PolicyInvalid`."""
    from stepgrant_broker.policy import bundle

    if folder is None and not Path("policy").is_dir():
        return "the starter policy", bundle.read_starter()
    path = folder or Path("policy")
    if not path.is_dir():
        raise CommandError(f"there is no folder {path}", code="not_found")
    return str(path), bundle.read_directory(path)


def _checked(folder: Path | None) -> tuple[str, Bundle | None, tuple[Finding, ...]]:
    from stepgrant_broker.policy.check import check, check_tests
    from stepgrant_broker.policy.embedded import PROBE_DEADLINE_S
    from stepgrant_broker.policy.findings import PolicyInvalid
    from stepgrant_broker.policy.probes import proven

    try:
        name, bundle = _read(folder)
        findings = check(bundle) or check_tests(bundle)
        if not findings:
            proven(bundle, "check", deadline_s=PROBE_DEADLINE_S).end()
    except PolicyInvalid as invalid:
        return str(folder or "policy"), None, invalid.findings
    return name, bundle, findings


def _plain(name: str, findings: tuple[Finding, ...]) -> list[dict[str, Any]]:
    return [
        {"file": str(Path(name, f.file)), "line": f.line, "code": f.code, "message": f.message, "fix": f.fix}
        for f in findings
    ]


def _print_check(cli: Cli, name: str, bundle: Bundle | None, findings: tuple[Finding, ...]) -> None:
    for finding in findings:
        place = f"{Path(name, finding.file)}:{finding.line}" if finding.line else str(Path(name, finding.file))
        cli.out.line(plain.visible(f"{place}: {finding.code}: {finding.message}; {finding.fix}"), style="red")
    if findings:
        cli.out.line(f"{plain.count(len(findings), 'finding')}; this policy cannot be activated", style="bold red")
    elif bundle is not None:
        rules = plain.count(len(bundle.modules), "file")
        cli.out.line(f"{name} can be activated: {rules}, {bundle.digest}", style="green")


def _report(name: str, report: PolicyTestReport) -> dict[str, Any]:
    return {
        "policy": name,
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
        cli.out.line(f"{failed} of {total} failed; {share}", style="bold red")
    else:
        cli.out.line(f"{total} passed; {share}", style="green")


def _print_policy(cli: Cli, answer: dict[str, Any], out: Path | None) -> None:
    if out is not None:
        cli.out.line(f"{plain.visible(answer['revision'])} is written to {plain.visible(out)}")
        return
    cli.out.line(f"# {plain.visible(answer['revision'])}", style="bold")
    for path, text in sorted(answer["text"].items()):
        cli.out.line(f"\n# {plain.visible(path)}", style="bold")
        for line in str(text).splitlines():
            cli.out.line(plain.visible(line.replace("\t", "    ")))


def _write(folder: Path, files: dict[str, str]) -> None:
    """Write the files below a folder that must be new. Raises `CommandError` for paths that leave it."""
    if folder.exists():
        raise CommandError(f"{folder} exists; name a new folder", code="configuration_error")
    for name, text in files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise CommandError(f"the policy names a file outside its folder: {name}", code="configuration_error")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
