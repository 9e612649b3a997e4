"""Which rules made a decision, in words: codes, the metadata of their rules, and the values they looked at.

Rules:
* The decision is made again on the recorded input with the recorded modules, so it is the same decision.
* A rule is found by the code that it adds; its facts are the members of the input it reads and the values of the rules
  it names, its helpers' included.
* For a default, `unmet` says for each allowing rule which line was the last that was tried.
* Only values; the reader of an explanation may see the arguments of the action, because the input holds them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from stepgrant import canonical
from stepgrant_broker.domain.decisions import Decision, Deny
from stepgrant_broker.policy.bundle import Bundle
from stepgrant_broker.policy.check import compiled
from stepgrant_broker.policy.contract import parse
from stepgrant_broker.policy.findings import Finding, PolicyInvalid
from stepgrant_broker.policy.metadata import Metadata, read_annotations
from stepgrant_broker.policy.names import Index
from stepgrant_broker.policy.rego import Rego, RegoError
from stepgrant_broker.policy.syntax import Call, Const, Path, Ref, Rule, declared, expressions
from stepgrant_broker.policy.testing import spans

MAX_FACTS: Final = 24
HELPER_DEPTH: Final = 3
_MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class Fact:
    """What a rule looked at: its name as a policy writes it, and its value (`defined` False: there was none)."""

    name: str
    value: Any
    defined: bool = True


@dataclass(frozen=True, slots=True)
class ReasonRule:
    """A rule that adds a code: its place, what its metadata says, its facts."""

    file: str
    line: int
    rule: str
    title: str
    description: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Reason:
    """One code of the decision. No rules: the policy computed the code, or it is the default."""

    code: str
    rules: tuple[ReasonRule, ...]


@dataclass(frozen=True, slots=True)
class Unmet:
    """An allowing rule that did not allow, with the last line that was tried (0: none was)."""

    code: str
    file: str
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision and who made it."""

    decision: Decision
    reasons: tuple[Reason, ...]
    unmet: tuple[Unmet, ...] = ()


def explain(bundle: Bundle, policy_input: bytes) -> Explanation:
    """Decide again and say why.

    Raises `PolicyInvalid` when the policy does not run here, `PolicyUnavailable` when it answers outside the contract.
    """
    index = Index(compiled(bundle.modules, bundle.data))
    try:
        return _Explainer(bundle, index, policy_input).explanation()
    except RegoError as error:
        finding = Finding(error.file or "", error.line, "does_not_evaluate", error.message, "see the recorded input")
        raise PolicyInvalid([finding]) from None


class _Explainer:
    def __init__(self, bundle: Bundle, index: Index, policy_input: bytes) -> None:
        self._bundle = bundle
        self._index = index
        self._input = policy_input
        self._document = canonical.loads(policy_input)
        self._rego = Rego(bundle.modules, bundle.data, observe=True)
        self._raw = self._rego.evaluate(policy_input)
        self._reached = {file: hit for file, (hit, _) in self._rego.take_coverage().items()}
        self._metadata = {file: read_annotations(text) for file, text in bundle.modules.items()}
        self._spans = list(spans(list(index.rules()), bundle.modules))

    def explanation(self) -> Explanation:
        decision = parse(self._raw)
        reasons = tuple(Reason(code, tuple(self._rules(code))) for code in decision.reasons)
        fell_through = isinstance(decision, Deny) and not any(
            rule.kind == "set" for reason in decision.reasons for rule, _ in self._adding(reason)
        )
        return Explanation(decision, reasons, tuple(self._unmet()) if fell_through else ())

    def _adding(self, code: str) -> Iterator[tuple[Rule, int]]:
        for rule, last in self._spans:
            if code in {_constant(rule), self._about(rule).code}:
                yield rule, last

    def _rules(self, code: str) -> Iterator[ReasonRule]:
        for rule, last in self._adding(code):
            if rule.kind == "default" or self._tried(rule, last):
                about = self._about(rule)
                facts = tuple(self._facts(rule))[:MAX_FACTS]
                yield ReasonRule(rule.file, rule.line, ".".join(rule.path), about.title, about.description, facts)

    def _tried(self, rule: Rule, last: int) -> list[int]:
        return sorted(line for line in self._reached.get(rule.file, ()) if rule.line <= line <= last)

    def _unmet(self) -> Iterator[Unmet]:
        for rule, last in self._spans:
            code = _constant(rule)
            if rule.path[-1] == "allow" and code:
                tried = self._tried(rule, last)
                line = tried[-1] if tried else 0
                text = self._bundle.modules[rule.file].splitlines()[line - 1].strip() if line else ""
                yield Unmet(code, rule.file, line, text)

    def _about(self, rule: Rule) -> Metadata:
        return self._metadata[rule.file].get(rule.line, Metadata())

    def _facts(self, rule: Rule) -> Iterator[Fact]:
        seen: set[str] = set()
        for fact in self._facts_below(rule, HELPER_DEPTH, set()):
            if fact.name not in seen:
                seen.add(fact.name)
                yield fact

    def _facts_below(self, rule: Rule, depth: int, visited: set[Path]) -> Iterator[Fact]:
        module, local = self._index.module_of[rule.file], declared(rule)
        helpers: list[Path] = []
        for expr in sorted(expressions(rule), key=lambda one: one.line):
            if isinstance(expr, Ref) and expr.root == "input" and expr.base is None:
                yield self._input_fact(expr)
            elif isinstance(expr, Ref):
                pattern = self._index.below_data(expr, module, local)
                helpers.extend(self._index.matching(pattern) if pattern is not None and None not in pattern else ())
            elif isinstance(expr, Call):
                own = self._index.function(expr, module)
                helpers.extend([own] if own is not None else [])
        for path in dict.fromkeys(helpers):
            if path not in visited:
                visited.add(path)
                yield from self._helper_facts(path, depth, visited)

    def _helper_facts(self, path: Path, depth: int, visited: set[Path]) -> Iterator[Fact]:
        rules = self._index.by_path[path]
        if rules[0].kind != "function":
            raw = self._rego.evaluate(self._input, f"data.{'.'.join(path)}")
            yield Fact(f"data.{'.'.join(path)}", None if raw is None else canonical.loads(raw), raw is not None)
        if depth > 1:
            for rule in rules:
                yield from self._facts_below(rule, depth - 1, visited)

    def _input_fact(self, ref: Ref) -> Fact:
        at: Any = self._document
        names = ["input"]
        for part in ref.path:
            if not isinstance(part, Const):
                break
            names.append(str(part.value))
            at = at.get(part.value, _MISSING) if isinstance(at, Mapping) else _MISSING
        return Fact(".".join(names), None if at is _MISSING else at, at is not _MISSING)


def _constant(rule: Rule) -> str:
    value = rule.value
    return value.value if rule.kind == "set" and isinstance(value, Const) and isinstance(value.value, str) else ""
