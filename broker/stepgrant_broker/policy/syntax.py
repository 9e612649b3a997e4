"""Rego modules as small frozen values, read from the engine's own syntax tree.

Rules:
* What is not known here raises `UnknownSyntax`: a check that skipped a construct would let through what it hides.
* A chain `a.b["c"][x]` is one `Ref`. Lines count from 1.
* The tree is the engine's, so what is checked is what runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, TypeAlias, cast

Expr: TypeAlias = "Const | Ref | Call | Group | Compare | Comprehension"
Query: TypeAlias = "tuple[Statement, ...]"
Path: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Const:
    """A text, number, boolean or null."""

    line: int
    value: str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Ref:
    """A variable with what follows it. `base` is set instead of `root` when an expression stands there."""

    line: int
    root: str
    path: tuple[Expr, ...] = ()
    base: Expr | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A call by its dotted name, as written."""

    line: int
    name: Path
    args: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Expressions side by side: `array`, `set`, `object` (key, value, key, …) or `operator`."""

    line: int
    kind: str
    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Compare:
    """`left op right`; `op` is a name of the engine's (Eq, Lt, …), `in`, `:=` or `=`."""

    line: int
    op: str
    left: Expr
    right: Expr
    key: Expr | None = None


@dataclass(frozen=True, slots=True)
class Comprehension:
    """Terms made by a query."""

    line: int
    kind: str
    terms: tuple[Expr, ...]
    query: Query


@dataclass(frozen=True, slots=True)
class Statement:
    """One line of a body. `kind` is expr, not, some, some_in or every.

    `names` are declared here; `exprs` are the expression, or key and value patterns and then the collection.
    """

    line: int
    kind: str
    exprs: tuple[Expr, ...]
    names: Path = ()
    query: Query = ()
    replaced: tuple[Expr, ...] = ()
    """Targets and values of `with`."""


@dataclass(frozen=True, slots=True)
class Body:
    """One body of a rule with the value it gives (`None`: the head's)."""

    line: int
    query: Query
    value: Expr | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `path` is its place below `data` as far as it is constant; `rest` what follows that."""

    file: str
    line: int
    kind: str
    """value, set, function or default."""
    path: Path
    rest: tuple[Expr, ...] = ()
    args: tuple[Expr, ...] = ()
    value: Expr | None = None
    """The value, or the key of a set; `None` is `true`."""
    bodies: tuple[Body, ...] = ()
    found: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What `expressions` and `declared` found: each check asks again."""


@dataclass(frozen=True, slots=True)
class Import:
    """`import data.a.b as c`: `path` is ("data", "a", "b")."""

    line: int
    path: Path
    alias: str


@dataclass(frozen=True, slots=True)
class Module:
    """One file."""

    file: str
    line: int
    package: Path
    imports: tuple[Import, ...] = ()
    rules: tuple[Rule, ...] = ()
    aliases: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))
    """What imports name, below `data`."""


KEYWORD_IMPORTS: Final = frozenset({"rego", "future"})


def subexpressions(expr: Expr) -> tuple[Expr, ...]:
    """The expressions directly inside, without those in the query of a comprehension."""
    match expr:
        case Const():
            return ()
        case Ref(path=path, base=base):
            return path if base is None else (base, *path)
        case Call(args=args):
            return args
        case Group(items=items):
            return items
        case Compare(left=left, right=right, key=key):
            return (left, right) if key is None else (key, left, right)
        case Comprehension(terms=terms):
            return terms


def expressions(rule: Rule) -> tuple[Expr, ...]:
    """Every expression of a rule, with those inside it."""
    if "expressions" not in rule.found:
        rule.found["expressions"] = tuple(_expressions(rule))
    return cast("tuple[Expr, ...]", rule.found["expressions"])


def _expressions(rule: Rule) -> Iterator[Expr]:
    waiting: list[Expr] = [*rule.rest, *rule.args]
    if rule.value is not None:
        waiting.append(rule.value)
    for body in rule.bodies:
        if body.value is not None:
            waiting.append(body.value)
        waiting.extend(_in_query(body.query))
    while waiting:
        expr = waiting.pop()
        yield expr
        waiting.extend(subexpressions(expr))
        if isinstance(expr, Comprehension):
            waiting.extend(_in_query(expr.query))


def statements(query: Query) -> Iterator[Statement]:
    """Every statement of a query, with those inside `every`, not those of comprehensions."""
    for statement in query:
        yield statement
        yield from statements(statement.query)


def _in_query(query: Query) -> Iterator[Expr]:
    for statement in statements(query):
        yield from statement.exprs
        yield from statement.replaced


def declared(rule: Rule) -> frozenset[str]:
    """The names that are variables of this rule: arguments, `some`, `every` and `:=`."""
    if "declared" not in rule.found:
        rule.found["declared"] = frozenset(_declared(rule))
    return cast("frozenset[str]", rule.found["declared"])


def _declared(rule: Rule) -> set[str]:
    names: set[str] = set()
    for arg in rule.args:
        names.update(_variables(arg))
    queries = [body.query for body in rule.bodies]
    queries.extend(expr.query for expr in expressions(rule) if isinstance(expr, Comprehension))
    for query in queries:
        for statement in statements(query):
            names.update(statement.names)
    for expr in expressions(rule):
        if isinstance(expr, Compare) and expr.op == ":=":
            names.update(_variables(expr.left))
    return names


def _variables(pattern: Expr) -> Iterator[str]:
    if isinstance(pattern, Ref) and pattern.base is None and not pattern.path:
        yield pattern.root
    for part in subexpressions(pattern):
        yield from _variables(part)
