"""Checks of members: every reference below `input`, and below data that has a schema, must be able to exist.

Rules:
* A misspelt member is undefined, and a deny rule that needs it never fires; so it is a finding.
* Shapes follow assignments, `some`, `every`, rules that are one value, and the arguments of the policy's own functions.
  Where a shape is not known nothing is said: what is reported is certain.
* A constant that the schema does not admit (`input.time.weekday == "Monday"`) never matches; that is a finding too.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

from stepgrant_broker.policy import schema
from stepgrant_broker.policy.findings import Finding
from stepgrant_broker.policy.names import Index
from stepgrant_broker.policy.schema import NoMember, Schema
from stepgrant_broker.policy.syntax import (
    Call,
    Compare,
    Comprehension,
    Const,
    Expr,
    Group,
    Module,
    Path,
    Query,
    Ref,
    Rule,
    declared,
    statements,
    subexpressions,
)

Shape: TypeAlias = "Schema | None"
"""A schema, or `None` where nothing is known."""
Scope: TypeAlias = dict[str, Shape]

_ORDERED: Final = frozenset({"Eq", "Ne", "Lt", "Le", "Gt", "Ge", "=", ":="})
_ROUNDS: Final = 4
"""How often a body is read to follow variables that are set after they are used."""
_SAME_SHAPE: Final = frozenset({"object.filter", "object.remove"})


def shape_findings(index: Index, data_schemas: Mapping[str, Schema]) -> list[Finding]:
    """All findings of this module, each once. `data_schemas` by the path of their `data.json`."""
    return sorted(_Shapes(index, data_schemas).run())


class _Shapes:
    def __init__(self, index: Index, data_schemas: Mapping[str, Schema]) -> None:
        self._index = index
        self._input = schema.input_schema()
        self._data = schema.data_root(data_schemas)
        self._findings: set[Finding] = set()
        self._seen: set[tuple[Path, tuple[int | None, ...]]] = set()
        self._values: dict[Path, Shape] = {}

    def run(self) -> set[Finding]:
        for rule in self._index.rules():
            if rule.kind != "function":
                self._rule(rule, {})
        called = {path for path, _ in self._seen}
        for rule in self._index.rules():
            if rule.kind == "function" and rule.path not in called:
                self._rule(rule, {})
        return self._findings

    def _rule(self, rule: Rule, arguments: Scope) -> None:
        module = self._index.module_of[rule.file]
        reader = _Reader(self, module, rule)
        scopes = [(body, reader.scope(body.query, arguments)) for body in rule.bodies]
        for body, scope in scopes:
            reader.query(body.query, scope)
            if body.value is not None:
                reader.visit(body.value, scope)
        for expr in (*rule.rest, *((rule.value,) if rule.value is not None else ())):
            # A head's variables come from its bodies; with several, only what all agree on is known.
            reader.visit(expr, _common([scope for _, scope in scopes]) if scopes else dict(arguments))

    def function(self, path: Path, shapes: tuple[Shape, ...]) -> None:
        """Read a function of the policy with the shapes of one call."""
        key = (path, tuple(None if one is None else id(one) for one in shapes))
        if key in self._seen:
            return
        self._seen.add(key)
        for rule in self._index.by_path[path]:
            names = [arg.root if isinstance(arg, Ref) and not arg.path else "" for arg in rule.args]
            self._rule(rule, dict(zip(names, shapes, strict=False)))

    def value_of(self, path: Path) -> Shape:
        """The shape of a rule that is one value, or of which every definition has the same shape."""
        if path not in self._values:
            self._values[path] = None
            found = [self._defined(rule) for rule in self._index.by_path[path]]
            known = [one for shapes in found for one in shapes]
            if known and all(one is known[0] for one in known):
                self._values[path] = known[0]
        return self._values[path]

    def _defined(self, rule: Rule) -> list[Shape]:
        if rule.kind != "value" or rule.rest:
            return [None]
        reader = _Reader(self, self._index.module_of[rule.file], rule)
        if not rule.bodies:
            return [reader.shape(rule.value, {}) if rule.value is not None else None]
        values = [(body.value if body.value is not None else rule.value, body.query) for body in rule.bodies]
        return [reader.shape(value, reader.scope(query, {})) if value is not None else None for value, query in values]

    def walk(self, ref: Ref, start: Schema, keys: tuple[object, ...], *, file: str = "") -> Shape:
        """Where the keys lead; with `file` set, a key that leads nowhere is a finding."""
        at: Schema = start
        for done, key in enumerate(keys):
            try:
                at = schema.step(at, key)
            except NoMember as unknown:
                if file:
                    self._missing(file, ref, keys[: done + 1], unknown.known)
                return None
        return at or None

    def _missing(self, file: str, ref: Ref, keys: tuple[object, ...], known: tuple[str, ...]) -> None:
        name = ".".join((ref.root, *("_" if key is None else str(key) for key in keys)))
        close = difflib.get_close_matches(str(keys[-1]), known, n=1)
        hint = f"write {close[0]}" if close else f"known here: {', '.join(known) or 'nothing'}"
        code = "unknown_input" if ref.root == "input" else "unknown_member"
        self._findings.add(Finding(file, ref.line, code, f"{name} never exists, so this is always undefined", hint))

    def never_equal(self, file: str, line: int, value: object, wanted: Schema) -> None:
        """A constant is compared with something that never has this value."""
        options = wanted.get("enum") or sorted(schema.types_of(wanted))
        message = f"{value!r} is never equal to what it is compared with"
        self._findings.add(Finding(file, line, "never_equal", message, f"it is one of: {', '.join(map(str, options))}"))

    @property
    def input(self) -> Schema:
        """The schema of the input."""
        return self._input

    @property
    def data(self) -> Schema:
        """The schema of the data."""
        return self._data

    @property
    def index(self) -> Index:
        """The names of the policy."""
        return self._index


class _Reader:
    """Reads the bodies of one rule."""

    def __init__(self, shapes: _Shapes, module: Module, rule: Rule) -> None:
        self._shapes = shapes
        self._module = module
        self._file = rule.file
        self._local = declared(rule)

    def scope(self, query: Query, outer: Mapping[str, Shape]) -> Scope:
        """What the variables of a body are."""
        scope = dict(outer)
        for _ in range(_ROUNDS):
            before = dict(scope)
            for statement in statements(query):
                scope.update(self._bindings(statement.kind, statement.names, statement.exprs, scope))
            if scope == before:
                break
        return scope

    def _bindings(self, kind: str, names: Path, exprs: tuple[Expr, ...], scope: Scope) -> Iterator[tuple[str, Shape]]:
        walked = self._walked(kind, names, exprs)
        if walked is not None:
            collection = self.shape(exprs[-1], scope)
            yield walked, None if collection is None else schema.element(collection) or None
        for expr in exprs:
            if isinstance(expr, Compare) and expr.op == ":=" and isinstance(expr.left, Ref) and not expr.left.path:
                yield expr.left.root, self.shape(expr.right, scope)

    @staticmethod
    def _walked(kind: str, names: Path, exprs: tuple[Expr, ...]) -> str | None:
        """The variable that stands for each element."""
        if kind == "every":
            return names[-1]
        if kind == "some_in" and isinstance(exprs[-2], Ref) and not exprs[-2].path:
            return exprs[-2].root
        return None

    def query(self, query: Query, scope: Scope) -> None:
        """Report what is wrong in a body."""
        for statement in statements(query):
            for expr in statement.exprs:
                self.visit(expr, scope)

    def visit(self, expr: Expr, scope: Scope) -> None:
        """Report what is wrong in an expression and inside it."""
        match expr:
            case Ref():
                self._resolve(expr, scope, report=True)
            case Call():
                self._call(expr, scope)
            case Compare():
                self._compare(expr, scope)
            case Comprehension():
                inner = self.scope(expr.query, scope)
                self.query(expr.query, inner)
                for term in expr.terms:
                    self.visit(term, inner)
                return
            case Const() | Group():
                pass
        for part in subexpressions(expr):
            self.visit(part, scope)

    def shape(self, expr: Expr, scope: Mapping[str, Shape]) -> Shape:
        """The shape of an expression, without reporting."""
        match expr:
            case Ref():
                return self._resolve(expr, scope, report=False)
            case Call(name=name, args=args) if args and ".".join(name) in _SAME_SHAPE:
                return self.shape(args[0], scope)
            case Call(name=("object", "get"), args=(value, key, _)):
                start, keys = self.shape(value, scope), _constant_path(key)
                return None if start is None or keys is None else self._shapes.walk(_NOWHERE, start, keys)
            case Call(name=("object", "union"), args=(Group(kind="object"), value)):
                return self.shape(value, scope)
            case _:
                return None

    def _resolve(self, ref: Ref, scope: Mapping[str, Shape], *, report: bool) -> Shape:
        keys = tuple(part.value if isinstance(part, Const) else None for part in ref.path)
        file = self._file if report else ""
        if ref.base is not None:
            start = self.shape(ref.base, scope)
            return None if start is None else self._shapes.walk(ref, start, keys, file=file)
        if ref.root in self._local:
            start = scope.get(ref.root)
            return None if start is None else self._shapes.walk(ref, start, keys, file=file)
        if ref.root == "input":
            return self._shapes.walk(ref, self._shapes.input, keys, file=file)
        return self._in_data(ref, file)

    def _in_data(self, ref: Ref, file: str) -> Shape:
        pattern = self._shapes.index.below_data(ref, self._module, self._local)
        if pattern is None:
            return None
        rules = self._shapes.index.matching(pattern)
        if not rules:
            return self._shapes.walk(ref, self._shapes.data, pattern, file=file)
        if len(rules) > 1 or len(rules[0]) > len(pattern):
            return None
        value = self._shapes.value_of(rules[0])
        return None if value is None else self._shapes.walk(ref, value, pattern[len(rules[0]) :], file=file)

    def _call(self, call: Call, scope: Scope) -> None:
        own = self._shapes.index.function(call, self._module)
        if own is not None:
            self._shapes.function(own, tuple(self.shape(arg, scope) for arg in call.args))
        elif call.name == ("object", "get") and len(call.args) == 3:  # noqa: PLR2004  (its signature)
            start, keys = self.shape(call.args[0], scope), _constant_path(call.args[1])
            if start is not None and keys is not None:
                root = call.args[0].root if isinstance(call.args[0], Ref) else "object"
                self._shapes.walk(Ref(call.line, root), start, keys, file=self._file)

    def _compare(self, expr: Compare, scope: Scope) -> None:
        if expr.op == "in":
            self._compare_members(expr, scope)
        elif expr.op in _ORDERED:
            for one, other in ((expr.left, expr.right), (expr.right, expr.left)):
                self._constants((one,), self.shape(other, scope))

    def _compare_members(self, expr: Compare, scope: Scope) -> None:
        if isinstance(expr.right, Group) and expr.right.kind in {"set", "array"}:
            self._constants(expr.right.items, self.shape(expr.left, scope))
        collection = self.shape(expr.right, scope)
        if collection is not None:
            self._constants((expr.left,), schema.element(collection))

    def _constants(self, values: tuple[Expr, ...], wanted: Shape) -> None:
        for value in values:
            if wanted is not None and isinstance(value, Const) and not schema.admits(wanted, value.value):
                self._shapes.never_equal(self._file, value.line, value.value, wanted)


_NOWHERE: Final = Ref(0, "")


def _constant_path(key: Expr) -> tuple[object, ...] | None:
    if isinstance(key, Const):
        return (key.value,)
    if isinstance(key, Group) and key.kind == "array" and all(isinstance(item, Const) for item in key.items):
        return tuple(item.value for item in key.items if isinstance(item, Const))
    return None


def _common(scopes: list[Scope]) -> Scope:
    first, *others = scopes
    return {name: shape for name, shape in first.items() if all(other.get(name) is shape for other in others)}
