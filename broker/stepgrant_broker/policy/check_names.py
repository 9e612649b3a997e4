"""Checks of names: functions that may not be called, variables nobody set, data that is not there, `with`.

Why each is refused:
* An unknown function loads, and fails only when its line is reached.
* A variable that is never set, and a misspelt reference, are undefined: a deny rule that needs one never fires.
* `with` replaces input or data; in a rule it would decide on something that was never recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from stepgrant_broker.policy import builtins
from stepgrant_broker.policy.findings import Finding
from stepgrant_broker.policy.names import Index, Pattern
from stepgrant_broker.policy.syntax import (
    Call,
    Comprehension,
    Module,
    Ref,
    Rule,
    declared,
    expressions,
    statements,
)

KNOWN = frozenset({"input", "_"})


def name_findings(index: Index, data: Mapping[str, Any], described: Callable[[Pattern], bool]) -> Iterator[Finding]:
    """All findings of this module. `described` says whether a schema of the data knows a path."""
    for module in index.modules:
        yield from _imports(index, module, data, described)
        for rule in module.rules:
            yield from _calls(index, module, rule)
            yield from _references(index, module, rule, data, described)
            yield from _replacements(rule)


def _calls(index: Index, module: Module, rule: Rule) -> Iterator[Finding]:
    for expr in expressions(rule):
        if not isinstance(expr, Call):
            continue
        name = ".".join(expr.name)
        own = index.function(expr, module)
        wanted = len(index.by_path[own][0].args) if own else builtins.ALLOWED.get(name)
        if wanted is None:
            why, fix = builtins.REFUSED.get(name, builtins.OTHERWISE)
            yield Finding(rule.file, expr.line, "builtin_refused", f"{name} {why}", fix)
        elif len(expr.args) != wanted:
            message = f"{name} takes {wanted} arguments, not {len(expr.args)}"
            yield Finding(rule.file, expr.line, "wrong_arguments", message, "correct the call")


def _imports(
    index: Index, module: Module, data: Mapping[str, Any], described: Callable[[Pattern], bool]
) -> Iterator[Finding]:
    for one in module.imports:
        if one.path[0] == "input":
            fix = "write input." + ".".join(one.path[1:])
            yield Finding(module.file, one.line, "input_imported", "hides where a value comes from", fix)
        elif one.path[0] == "data" and not _exists(index, one.path[1:], data, described):
            name = ".".join(one.path)
            yield Finding(module.file, one.line, "unknown_data", f"{name} does not exist", "correct the import")


def _references(
    index: Index, module: Module, rule: Rule, data: Mapping[str, Any], described: Callable[[Pattern], bool]
) -> Iterator[Finding]:
    local = declared(rule)
    for expr in expressions(rule):
        if not isinstance(expr, Ref):
            continue
        pattern = index.below_data(expr, module, local)
        if pattern is None and expr.base is None and expr.root not in local | KNOWN:
            message = f"{expr.root} is never set, so this is always undefined"
            fix = "correct the name, or set it with := or some"
            yield Finding(rule.file, expr.line, "unknown_name", message, fix)
        elif pattern is not None and not _exists(index, pattern, data, described):
            name = ".".join(("data", *(part if part is not None else "_" for part in pattern)))
            message = f"{name} is neither a rule nor in data.json, so this is always undefined"
            yield Finding(rule.file, expr.line, "unknown_data", message, "correct the name, or add it to data.json")


def _exists(index: Index, pattern: Pattern, data: Mapping[str, Any], described: Callable[[Pattern], bool]) -> bool:
    if index.matching(pattern) or pattern in index.packages or described(pattern):
        return True
    at: Any = data
    for part in pattern:
        if part is None or not isinstance(at, Mapping | list):
            return True
        if not isinstance(at, Mapping) or part not in at:
            return False
        at = at[part]
    return True


def _replacements(rule: Rule) -> Iterator[Finding]:
    queries = [body.query for body in rule.bodies]
    queries += [expr.query for expr in expressions(rule) if isinstance(expr, Comprehension)]
    for query in queries:
        for statement in statements(query):
            if statement.replaced:
                message = "`with` outside a test decides on something else than the recorded input"
                yield Finding(rule.file, statement.line, "with_refused", message, "pass the value to a function")
