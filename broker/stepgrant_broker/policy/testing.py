"""Running a policy's own tests: rules named `test_…` in `*_test.rego`, and whole decisions in `cases/*.json`.

Rules:
* Tests run on the engine that decides. A test passes when its rule is `true`; undefined, false and errors are failures,
  and so is a name that is defined twice, because one of the two would be enough.
* A case is `{"name", "input", "decision"}`, a file holds a list of them. The input is complete (it fits the schema),
  the decision is compared as a whole; the order of reasons and labels means nothing.
* Coverage counts the rules of the policy, not those of its tests.
* Nothing is printed. A test that never ends must be interrupted from outside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from stepgrant import canonical
from stepgrant_broker.domain.errors import PolicyUnavailable
from stepgrant_broker.policy import schema
from stepgrant_broker.policy.bundle import Bundle
from stepgrant_broker.policy.check import check, check_tests, compiled
from stepgrant_broker.policy.contract import parse
from stepgrant_broker.policy.findings import PolicyInvalid
from stepgrant_broker.policy.opa_tool import OpaTool, ToolAnswer
from stepgrant_broker.policy.rego import ENGINE, Rego, RegoError
from stepgrant_broker.policy.syntax import Rule

TEST_PREFIX: Final = "test_"
TWICE: Final = "two tests have this name"
CASE_MEMBERS: Final = frozenset({"name", "input", "decision"})


@dataclass(frozen=True, slots=True)
class PolicyTest:
    """One test. `line` is 0 for a case; `message` says why it failed, `prints` what it printed."""

    name: str
    file: str
    line: int
    passed: bool
    message: str = ""
    prints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RuleCoverage:
    """One rule of the policy with its lines that no test reached."""

    file: str
    line: int
    rule: str
    missed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PolicyTestReport:
    """All results in order of file and line."""

    results: tuple[PolicyTest, ...]
    coverage: tuple[RuleCoverage, ...]
    engine: str = ENGINE
    """Whose results these are."""

    @property
    def passed(self) -> bool:
        """Whether there are tests and all passed."""
        return bool(self.results) and all(result.passed for result in self.results)

    @property
    def covered(self) -> float:
        """The share of rules (0 to 1) of which every line was reached."""
        whole = sum(not rule.missed for rule in self.coverage)
        return whole / len(self.coverage) if self.coverage else 1.0


def run_tests(bundle: Bundle, tool: OpaTool | None = None) -> PolicyTestReport:
    """Run everything, on OPA if there is a `tool`; which lines were reached, the embedded engine says.

    Raises `PolicyInvalid` when the policy or its tests cannot run at all, `OpaToolFailed`.
    """
    findings = check(bundle) or check_tests(bundle)
    if findings:
        raise PolicyInvalid(findings)
    modules = compiled({**bundle.modules, **bundle.tests}, bundle.data)
    rego = Rego({**bundle.modules, **bundle.tests}, bundle.data, observe=True)
    found = [rule for module in modules if module.file in bundle.tests for rule in module.rules if _is_test(rule)]
    twice = Counter(rule.path for rule in found)
    results = [_run(rego, rule, twice=twice[rule.path] > 1) for rule in found]
    # Cases go without the tests' modules, as the broker would evaluate them.
    plain = Rego(bundle.modules, bundle.data, observe=True)
    results.extend(_run_cases(bundle, partial(_decide, plain)))
    if tool is not None:
        results = [
            *_run_on(tool, bundle, frozenset(".".join(path) for path, count in twice.items() if count > 1)),
            *_run_cases(bundle, partial(tool.decide, bundle)),
        ]
    rules = [rule for module in modules if module.file in bundle.modules for rule in module.rules]
    return PolicyTestReport(
        tuple(results),
        tuple(_coverage(rules, bundle, [rego.take_coverage(), plain.take_coverage()])),
        ENGINE if tool is None else tool.engine,
    )


def _run_on(tool: OpaTool, bundle: Bundle, twice: frozenset[str]) -> Iterator[PolicyTest]:
    for one in sorted(tool.test(bundle), key=lambda told: (told.file, told.line)):
        message = TWICE if one.name in twice else one.message
        yield PolicyTest(one.name, one.file, one.line, passed=not message, message=message, prints=one.prints)


def _decide(rego: Rego, inputs: Sequence[bytes]) -> list[ToolAnswer]:
    def one(document: bytes) -> ToolAnswer:
        try:
            return ToolAnswer(rego.evaluate(document))
        except RegoError as error:
            return ToolAnswer(error=f"{error.place}: {error.message}")

    return [one(document) for document in inputs]


def _is_test(rule: Rule) -> bool:
    return rule.path[-1].startswith(TEST_PREFIX)


def _run(rego: Rego, rule: Rule, *, twice: bool) -> PolicyTest:
    name, where = ".".join(rule.path), (rule.file, rule.line)
    if twice:
        return PolicyTest(name, *where, passed=False, message=TWICE)
    try:
        value = rego.evaluate(b"{}", f"data.{name}")
        message = "" if value == b"true" else "is undefined" if value is None else f"is {_short(value)}"
    except RegoError as error:
        message = f"{error.place}: {error.message}"
    return PolicyTest(name, *where, passed=not message, message=message, prints=tuple(rego.take_prints()))


def _run_cases(bundle: Bundle, decide: Callable[[Sequence[bytes]], list[ToolAnswer]]) -> list[PolicyTest]:
    """The results of all cases, in order; what can be asked is asked together."""
    read = [one for path, text in sorted(bundle.cases.items()) for one in _read_cases(path, text)]
    asked = [(one, case) for one, case in read if case is not None]
    answers = decide([canonical.dumps(case["input"]) for _, case in asked])
    messages = {
        id(one): _case_failure(answer, case["decision"]) for (one, case), answer in zip(asked, answers, strict=True)
    }
    return [
        one if case is None else replace(one, passed=not messages[id(one)], message=messages[id(one)])
        for one, case in read
    ]


def _read_cases(path: str, text: str) -> Iterator[tuple[PolicyTest, dict[str, Any] | None]]:
    """Each case with what can be asked of it, or with the reason why nothing can."""
    try:
        cases = canonical.loads(text.encode())
    except canonical.CanonicalError as error:
        yield PolicyTest(path, path, 0, passed=False, message=str(error)), None
        return
    if not isinstance(cases, list):
        yield PolicyTest(path, path, 0, passed=False, message="must hold a list of cases"), None
        return
    for number, case in enumerate(cases, 1):
        if not isinstance(case, dict) or case.keys() != CASE_MEMBERS or not isinstance(case["name"], str):
            message = "a case has exactly name (text), input and decision"
            yield PolicyTest(f"{path}#{number}", path, 0, passed=False, message=message), None
            continue
        problem = next(schema.problems(schema.input_schema(), case["input"]), None)
        if problem is not None:
            message = f"the input does not fit the schema: /{'/'.join(problem[0])} {problem[1]}"
            yield PolicyTest(case["name"], path, 0, passed=False, message=message), None
        else:
            yield PolicyTest(case["name"], path, 0, passed=True), case


def _case_failure(answer: ToolAnswer, wanted: Any) -> str:  # noqa: ANN401  (JSON)
    if answer.error is not None:
        return answer.error
    try:
        parse(answer.raw)
    except PolicyUnavailable as error:
        return error.detail
    decided = None if answer.raw is None else canonical.loads(answer.raw)
    return "" if _settled(decided) == _settled(wanted) else f"decided {_short(answer.raw or b'undefined')}"


def _settled(decision: Any) -> Any:  # noqa: ANN401  (JSON)
    """The decision with its sets in one order."""
    if not isinstance(decision, dict):
        return decision
    return {
        name: sorted(value, key=str) if name in {"reasons", "labels"} and isinstance(value, list) else value
        for name, value in decision.items()
    }


def _short(raw: bytes) -> str:
    try:
        text = canonical.dumps(canonical.loads(raw)).decode()
    except canonical.CanonicalError:
        text = raw.decode("utf-8", "replace")
    return text if len(text) <= 500 else text[:500] + "…"  # noqa: PLR2004  (what a terminal still shows well)


def _coverage(
    rules: list[Rule], bundle: Bundle, reports: list[dict[str, tuple[frozenset[int], frozenset[int]]]]
) -> Iterator[RuleCoverage]:
    reached: dict[str, set[int]] = {}
    counted: dict[str, set[int]] = {}
    for report in reports:
        for file, (hit, missed) in report.items():
            reached.setdefault(file, set()).update(hit)
            counted.setdefault(file, set()).update(hit | missed)
    for rule, last in spans(rules, bundle.modules):
        lines = {line for line in counted.get(rule.file, set()) if rule.line <= line <= last}
        missed_lines = tuple(sorted(lines - reached.get(rule.file, set())))
        yield RuleCoverage(rule.file, rule.line, ".".join(rule.path), missed_lines)


def spans(rules: list[Rule], texts: Mapping[str, str]) -> Iterator[tuple[Rule, int]]:
    """Each rule with the last line that can be its own: the one before the next rule."""
    for file in {rule.file: None for rule in rules}:
        own = sorted((rule for rule in rules if rule.file == file), key=lambda rule: rule.line)
        ends = [rule.line - 1 for rule in own[1:]] + [texts[file].count("\n") + 1]
        yield from zip(own, ends, strict=True)
