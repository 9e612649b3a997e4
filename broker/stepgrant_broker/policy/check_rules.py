"""Checks of rules as a whole: conflicts, recursion, rules that nobody uses, and the decision itself.

Why each is refused:
* A `data.json` at the place of a rule replaces the rule without a word.
* Rules of one name but of different kinds mean different things in different engines.
* A function that reaches itself exhausts the stack, which ends the broker; OPA refuses recursion too.
* A rule that the decision does not reach says nothing, however strict it reads.
* Without a default that denies, a decision could be undefined, or allowed by being forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from stepgrant_broker.policy.findings import Finding
from stepgrant_broker.policy.names import Index
from stepgrant_broker.policy.syntax import Call, Const, Group, Path, Ref, Rule, declared, expressions

Edges: TypeAlias = Mapping[Path, set[Path]]
DECISION: Final[Path] = ("stepgrant", "decision")


def rule_findings(index: Index, data: Mapping[str, Any]) -> Iterator[Finding]:
    """All findings of this module."""
    yield from _data_over_rules(index, data)
    for path, rules in index.by_path.items():
        yield from _conflicts(index, path, rules)
    edges = _edges(index)
    yield from _recursions(index, edges)
    yield from _unused(index, edges)
    yield from _decision(index)


def _conflicts(index: Index, path: Path, rules: list[Rule]) -> Iterator[Finding]:
    others = [rule for rule in rules if rule.kind != "default"]
    defaults = [rule for rule in rules if rule.kind == "default"]
    last = rules[-1]
    if len({(rule.kind, len(rule.args)) for rule in others}) > 1:
        message = f"{'.'.join(path)} is defined in different ways"
        yield Finding(last.file, last.line, "conflicting_rules", message, "give one of them another name")
    if len(defaults) > 1:
        message = f"{'.'.join(path)} has two defaults"
        yield Finding(defaults[-1].file, defaults[-1].line, "conflicting_rules", message, "keep one")
    if any(package[: len(path)] == path for package in index.packages):
        message = f"{'.'.join(path)} is a rule and a package"
        yield Finding(last.file, last.line, "conflicting_rules", message, "give one of them another name")


def _data_over_rules(index: Index, data: Mapping[str, Any]) -> Iterator[Finding]:
    for path, rules in index.by_path.items():
        at: Any = data
        for part in path:
            at = at.get(part) if isinstance(at, Mapping) else None
            if at is None:
                break
        else:
            message = f"a data.json sets data.{'.'.join(path)} too and would replace this rule"
            yield Finding(rules[0].file, rules[0].line, "data_over_rule", message, "rename one of them")


def recursions(index: Index) -> Iterator[Finding]:
    """Rules and functions that reach themselves."""
    yield from _recursions(index, _edges(index))


def _edges(index: Index) -> Edges:
    """What each rule reaches directly."""
    return {path: _reached(index, path) for path in index.by_path}


def _recursions(index: Index, edges: Edges) -> Iterator[Finding]:
    for path in sorted(edges):
        if path in _closure(edges, edges[path]):
            rule = index.by_path[path][0]
            message = f"{'.'.join(path)} reaches itself"
            yield Finding(rule.file, rule.line, "recursion", message, "name what it needs without going through itself")


def _unused(index: Index, edges: Edges) -> Iterator[Finding]:
    for path in sorted(edges.keys() - _closure(edges, {DECISION}) - {DECISION}):
        rule = index.by_path[path][0]
        message = f"data.{'.'.join(DECISION)} never reaches {'.'.join(path)}; perhaps its name is misspelt"
        yield Finding(rule.file, rule.line, "unused_rule", message, "correct the name, use it, or remove it")


def _reached(index: Index, path: Path) -> set[Path]:
    found: set[Path] = set()
    for rule in index.by_path[path]:
        module, local = index.module_of[rule.file], declared(rule)
        for expr in expressions(rule):
            if isinstance(expr, Call):
                own = index.function(expr, module)
                found.update({own} if own else ())
            elif isinstance(expr, Ref):
                pattern = index.below_data(expr, module, local)
                found.update(index.matching(pattern) if pattern is not None else ())
    return found


def _closure(edges: Edges, start: set[Path]) -> set[Path]:
    seen: set[Path] = set()
    waiting = list(start)
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting.extend(edges.get(path, ()))
    return seen


def _decision(index: Index) -> Iterator[Finding]:
    rules = index.by_path.get(DECISION, [])
    default = next((rule for rule in rules if rule.kind == "default"), None)
    if default is None:
        place = (rules[0].file, rules[0].line) if rules else (index.modules[0].file, index.modules[0].line)
        message = "data.stepgrant.decision has no default, so it can be undefined"
        fix = 'add: default decision := {"effect": "deny", "reasons": ["no_rule_matched"]}'
        yield Finding(*place, "no_default_decision", message, fix)
    elif not _denies(default):
        message = "the default decision does not deny"
        yield Finding(default.file, default.line, "default_not_deny", message, 'give it "effect": "deny"')


def _denies(rule: Rule) -> bool:
    if not isinstance(rule.value, Group) or rule.value.kind != "object":
        return False
    pairs = zip(rule.value.items[::2], rule.value.items[1::2], strict=True)
    members = {key.value: value for key, value in pairs if isinstance(key, Const)}
    effect = members.get("effect")
    return isinstance(effect, Const) and effect.value == "deny"
