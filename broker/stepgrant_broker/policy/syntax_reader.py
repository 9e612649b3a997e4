"""From the engine's syntax tree to `syntax`.

Rules: as in `syntax`. Every shape of the tree is named; a new one of a later engine stops the check, not slips past it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from stepgrant_broker.policy.syntax import (
    KEYWORD_IMPORTS,
    Body,
    Call,
    Compare,
    Comprehension,
    Const,
    Expr,
    Group,
    Import,
    Module,
    Path,
    Query,
    Ref,
    Rule,
    Statement,
)

Node: TypeAlias = Mapping[str, Any]

_CONSTANTS: Final = frozenset({"String", "RawString", "Number", "Bool", "Null"})
_GROUPS: Final = {"Array": "array", "Set": "set"}
_OPERATORS: Final = frozenset({"BinExpr", "ArithExpr"})
_COMPREHENSIONS: Final = {"ArrayCompr": ("term",), "SetCompr": ("term",), "ObjectCompr": ("key", "value")}
_ASSIGNMENTS: Final = {"ColEq": ":=", "Eq": "="}


class UnknownSyntax(Exception):
    """The tree holds something that no check here understands."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(line, what)
        self.line = line
        self.what = what


def read_module(tree: Node) -> Module:
    """One module of the engine's answer. Raises `UnknownSyntax`."""
    return _Reader(tree["source"]["file"], tree["source"]["contents"].encode()).module(tree["ast"])


def _only(node: Node) -> tuple[str, Node]:
    ((kind, content),) = node.items()
    return kind, content


def _line(content: Node) -> int:
    return int(content["span"]["line"])


class _Reader:
    def __init__(self, file: str, source: bytes) -> None:
        self._file = file
        self._source = source

    def module(self, ast: Node) -> Module:
        package = self._names(self._expr(ast["package"]["refr"]))
        imports = tuple(self._import(node) for node in ast["imports"])
        return Module(
            self._file,
            _line(ast["package"]),
            package,
            imports,
            tuple(self._rule(package, node) for node in ast["rules"]),
            MappingProxyType({one.alias: one.path[1:] for one in imports if one.path[0] == "data"}),
        )

    def _import(self, node: Node) -> Import:
        path = self._names(self._expr(node["refr"]))
        alias = self._text(node["as"]) if node.get("as") else path[-1]
        return Import(_line(node), path, "" if path[0] in KEYWORD_IMPORTS else alias)

    def _rule(self, package: Path, node: Node) -> Rule:
        kind, content = _only(node)
        if kind == "Default":
            path, rest = self._head(package, content["refr"])
            args = self._all(content["args"])
            return Rule(self._file, _line(content), "default", path, rest, args, self._expr(content["value"]))
        if kind != "Spec":
            raise UnknownSyntax(0, kind)
        shape, head = _only(content["head"])
        path, rest = self._head(package, head["refr"])
        bodies = tuple(self._body(body) for body in content["bodies"])
        where = (self._file, _line(head))
        match shape:
            case "Set":
                key = self._expr(head["key"]) if head["key"] is not None else None
                return Rule(*where, "set", path, rest, value=key, bodies=bodies)
            case "Func":
                args = self._all(head["args"])
                return Rule(*where, "function", path, rest, args, self._assigned(head["assign"]), bodies)
            case "Compr":
                return Rule(*where, "value", path, rest, value=self._assigned(head["assign"]), bodies=bodies)
            case _:
                raise UnknownSyntax(_line(content), shape)

    def _head(self, package: Path, refr: Node) -> tuple[Path, tuple[Expr, ...]]:
        ref = self._expr(refr)
        if not isinstance(ref, Ref) or ref.base is not None:
            raise UnknownSyntax(ref.line, "head")
        names: list[str] = [ref.root]
        for part in ref.path:
            if not isinstance(part, Const) or not isinstance(part.value, str):
                break
            names.append(part.value)
        return (*package, *names), ref.path[len(names) - 1 :]

    def _body(self, node: Node) -> Body:
        return Body(_line(node), self._query(node["query"]), self._assigned(node["assign"]))

    def _assigned(self, node: Node | None) -> Expr | None:
        return None if node is None else self._expr(node["value"])

    def _query(self, node: Node) -> Query:
        return tuple(self._statement(statement) for statement in node["stmts"])

    def _statement(self, node: Node) -> Statement:
        kind, content = _only(node["literal"])
        line = _line(node)
        replaced = tuple(self._expr(one[part]) for one in node.get("with_mods", ()) for part in ("refr", "as"))
        match kind:
            case "Expr":
                return Statement(line, "expr", (self._expr(content["expr"]),), replaced=replaced)
            case "NotExpr":
                return Statement(line, "not", (self._expr(content["expr"]),), replaced=replaced)
            case "SomeVars":
                return Statement(line, "some", (), tuple(self._text(span) for span in content["vars"]))
            case "SomeIn":
                patterns = self._all([one for one in (content["key"], content["value"]) if one is not None])
                names = tuple(one.root for one in patterns if isinstance(one, Ref) and not one.path)
                exprs = (*patterns, self._expr(content["collection"]))
                return Statement(line, "some_in", exprs, names, replaced=replaced)
            case "Every":
                names = tuple(self._text(span) for span in (content["key"], content["value"]) if span is not None)
                domain = self._expr(content["domain"])
                return Statement(line, "every", (domain,), names, self._query(content["query"]), replaced)
            case _:
                raise UnknownSyntax(line, kind)

    def _all(self, nodes: list[Node]) -> tuple[Expr, ...]:
        return tuple(self._expr(node) for node in nodes)

    def _expr(self, node: Node) -> Expr:
        kind, content = _only(node)
        line = _line(content)
        if kind in _CONSTANTS:
            return Const(line, content["value"])
        if kind in _GROUPS:
            return Group(line, _GROUPS[kind], self._all(content["items"]))
        if kind in _OPERATORS:
            return Group(line, "operator", self._all([content["lhs"], content["rhs"]]))
        if kind in _COMPREHENSIONS:
            terms = self._all([content[name] for name in _COMPREHENSIONS[kind]])
            return Comprehension(line, kind, terms, self._query(content["query"]))
        return self._composed(kind, content, line)

    def _composed(self, kind: str, content: Node, line: int) -> Expr:
        match kind:
            case "Var":
                return Ref(line, content["value"])
            case "RefDot":
                return self._longer(content["refr"], Const(line, content["field"][1]), line)
            case "RefBrack":
                return self._longer(content["refr"], self._expr(content["index"]), line)
            case "Call":
                return Call(line, self._names(self._expr(content["fcn"])), self._all(content["params"]))
            case "Object":
                parts = [part for field in content["fields"] for part in field[1:]]
                return Group(line, "object", self._all(parts))
            case "UnaryExpr":
                return Group(line, "operator", (self._expr(content["expr"]),))
            case "BoolExpr":
                return Compare(line, content["op"], self._expr(content["lhs"]), self._expr(content["rhs"]))
            case "AssignExpr":
                op = _ASSIGNMENTS[content["op"]]
                return Compare(line, op, self._expr(content["lhs"]), self._expr(content["rhs"]))
            case "Membership":
                key = None if content["key"] is None else self._expr(content["key"])
                return Compare(line, "in", self._expr(content["value"]), self._expr(content["collection"]), key)
            case _:
                raise UnknownSyntax(line, kind)

    def _longer(self, refr: Node, part: Expr, line: int) -> Ref:
        inner = self._expr(refr)
        if isinstance(inner, Ref):
            return Ref(inner.line, inner.root, (*inner.path, part), inner.base)
        return Ref(line, "", (part,), inner)

    def _names(self, expr: Expr) -> Path:
        if not isinstance(expr, Ref) or expr.base is not None:
            raise UnknownSyntax(expr.line, "name")
        names: list[str] = [expr.root]
        for part in expr.path:
            if not isinstance(part, Const) or not isinstance(part.value, str):
                raise UnknownSyntax(expr.line, "computed name")
            names.append(part.value)
        return tuple(names)

    def _text(self, span: Node) -> str:
        return self._source[span["start"] : span["end"]].decode()
