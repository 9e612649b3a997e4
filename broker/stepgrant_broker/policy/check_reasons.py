"""Checks of the answer: its effect, and the codes that it gives as reasons, followed to where they are written.

Why each is refused:
* A code that is no snake_case is outside the contract: the broker refuses the whole decision, at the worst moment.
* `deny := "x"` compiles, and the rules that walk over `deny` find nothing in a text: the denial is never heard.
* `deny["x"]` without `contains` gives `true` under the name x, and `true` is no code.

Rules:
* Codes are followed through rules, `some code in …`, `:=`, sets, lists and comprehensions. Where it is not certain what
  comes out (a call, a name that is set twice) nothing is said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

from stepgrant_broker.policy.contract import REASON, SHORT
from stepgrant_broker.policy.findings import Finding
from stepgrant_broker.policy.names import Index
from stepgrant_broker.policy.syntax import (
    Compare,
    Comprehension,
    Const,
    Expr,
    Group,
    Query,
    Ref,
    Rule,
    declared,
    expressions,
    statements,
)

EFFECTS: Final = ("allow", "deny", "require_approval")
DECISION: Final = ("stepgrant", "decision")


def reason_findings(index: Index) -> Iterator[Finding]:
    """All findings of this module."""
    codes = _Codes(index)
    for rule in _answering(index):
        for expr in expressions(rule):
            members = _members(expr)
            if {"effect", "reasons"} <= members.keys():
                yield from _effect(rule, members["effect"])
                codes.among(members["reasons"], rule)
    yield from codes.findings


def _answering(index: Index) -> list[Rule]:
    """The rules of the decision, and those that they name: elsewhere such an object is the author's own affair."""
    found: dict[int, Rule] = {}
    waiting = list(index.by_path.get(DECISION, ()))
    while waiting:
        rule = waiting.pop()
        if id(rule) in found:
            continue
        found[id(rule)] = rule
        local, module = declared(rule), index.module_of[rule.file]
        for expr in expressions(rule):
            if isinstance(expr, Ref) and expr.base is None and expr.root not in local:
                pattern = index.below_data(expr, module, local)
                waiting += [one for path in index.matching(pattern or ()) for one in index.by_path[path] if pattern]
    return list(found.values())


def _members(expr: Expr) -> dict[object, Expr]:
    if not isinstance(expr, Group) or expr.kind != "object":
        return {}
    pairs = zip(expr.items[::2], expr.items[1::2], strict=True)
    return {key.value: value for key, value in pairs if isinstance(key, Const)}


def _effect(rule: Rule, effect: Expr) -> Iterator[Finding]:
    if isinstance(effect, Const) and effect.value not in EFFECTS:
        message = f"{effect.value!r} is no effect, so every such decision is refused"
        yield Finding(rule.file, effect.line, "bad_effect", message, f"write one of: {', '.join(EFFECTS)}")


class _Codes:
    def __init__(self, index: Index) -> None:
        self._index = index
        self._seen: set[tuple[int, bool]] = set()
        self.findings: set[Finding] = set()

    def among(self, expr: Expr, rule: Rule) -> None:
        """`expr` of this rule is what the codes are in."""
        if isinstance(expr, Const):
            self._no_list(rule, expr.line, expr.value)
        elif isinstance(expr, Group) and expr.kind in {"array", "set"}:
            for item in expr.items:
                self.code(item, rule)
        elif isinstance(expr, Comprehension) and len(expr.terms) == 1:
            self.code(expr.terms[0], rule)
        elif isinstance(expr, Ref) and expr.base is None:
            self._named(expr, rule, whole=True)

    def code(self, expr: Expr, rule: Rule) -> None:
        """`expr` of this rule is a code."""
        if isinstance(expr, Const):
            self._code(rule, expr.line, expr.value)
        elif isinstance(expr, Ref) and expr.base is None:
            self._named(expr, rule, whole=False)

    def _named(self, ref: Ref, rule: Rule, *, whole: bool) -> None:
        local = declared(rule)
        if ref.root in local:
            if not ref.path:
                self._variable(ref.root, rule, whole=whole)
            return
        pattern = self._index.below_data(ref, self._index.module_of[rule.file], local)
        for path in self._index.matching(pattern) if pattern is not None else ():
            below = len(path) - len(pattern or ())
            for one in self._index.by_path[path]:
                if below == 0 or (below == 1 and whole):
                    self._rule(one, whole=whole and below == 0)

    def _variable(self, name: str, rule: Rule, *, whole: bool) -> None:
        bindings = [*_set_to(name, rule), *_walked(name, rule)]
        if len(bindings) == 1:
            value, inside = bindings[0]
            if inside and not whole:
                self.among(value, rule)
            elif not inside:
                (self.among if whole else self.code)(value, rule)

    def _rule(self, rule: Rule, *, whole: bool) -> None:
        """The rule's value is (`whole`) what the codes are in, or a code."""
        if (id(rule), whole) in self._seen or rule.kind == "function" or rule.rest:
            return
        self._seen.add((id(rule), whole))
        if rule.kind == "set":
            if whole and rule.value is not None:
                self.code(rule.value, rule)
            return
        values = [body.value if body.value is not None else rule.value for body in rule.bodies] or [rule.value]
        for value in values:
            if value is not None:
                (self.among if whole else self.code)(value, rule)
            elif whole:
                self._no_list(rule, rule.line, value=True)
            else:
                fix = f'write {rule.path[-2]} contains "{_snake(rule.path[-1])}"'
                self._no_code(rule, rule.line, value=True, fix=fix)

    def _no_list(self, rule: Rule, line: int, value: object) -> None:
        name = rule.path[-1]
        message = f"{'.'.join(rule.path)} is {_shown(value)} and no set of codes, so nobody hears it"
        code = _snake(value) if isinstance(value, str) else "why_not"
        self.findings.add(Finding(rule.file, line, "no_codes", message, f'write {name} contains "{code}"'))

    def _code(self, rule: Rule, line: int, value: object) -> None:
        wanted = f"snake_case text of at most {SHORT} characters"
        if not isinstance(value, str):
            self._no_code(rule, line, value, f"write {wanted}")
        elif len(value) > SHORT or REASON.fullmatch(value) is None:
            self._no_code(rule, line, value, f'write "{_snake(value)}": {wanted}')

    def _no_code(self, rule: Rule, line: int, value: object, fix: str) -> None:
        message = f"{_shown(value)} is no code for a reason, so every decision with it is refused"
        self.findings.add(Finding(rule.file, line, "bad_reason", message, fix))


def _set_to(name: str, rule: Rule) -> Iterator[tuple[Expr, bool]]:
    for expr in expressions(rule):
        if isinstance(expr, Compare) and expr.op in {":=", "="} and expr.left == Ref(expr.left.line, name):
            yield expr.right, False


def _walked(name: str, rule: Rule) -> Iterator[tuple[Expr, bool]]:
    for query in _queries(rule):
        for statement in statements(query):
            value = statement.exprs[-2] if statement.kind == "some_in" else None
            if isinstance(value, Ref) and value.root == name and not value.path:
                yield statement.exprs[-1], True


def _queries(rule: Rule) -> Iterator[Query]:
    yield from (body.query for body in rule.bodies)
    yield from (expr.query for expr in expressions(rule) if isinstance(expr, Comprehension))


def _snake(text: str) -> str:
    """The text as a code."""
    parted = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", text).lower()
    return re.sub(r"[^a-z0-9]+", "_", parted).lstrip("_0123456789")[:SHORT].rstrip("_") or "why_not"


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str) else json.dumps(value)
