"""What the names in a policy stand for: variables, rules, functions, data, input.

Rules:
* A reference below `data` becomes a pattern: its constant parts, and `None` for what is only known at run time. A
  pattern reaches every rule it could reach.
* A variable of a rule hides rules and imports of the same name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from stepgrant_broker.policy.syntax import Call, Const, Expr, Module, Path, Ref, Rule

Pattern: TypeAlias = tuple["str | None", ...]


class Index:
    """All modules of one policy."""

    def __init__(self, modules: Iterable[Module]) -> None:
        self.modules = tuple(modules)
        self.by_path: dict[Path, list[Rule]] = {}
        self.module_of: dict[str, Module] = {module.file: module for module in self.modules}
        for rule in self.rules():
            self.by_path.setdefault(rule.path, []).append(rule)
        self.packages = frozenset(module.package for module in self.modules)
        self._heads = frozenset(path[:length] for path in self.by_path for length in range(1, len(path) + 1))
        """Where a rule is, and the beginnings of rules with a longer head, such as `name.other := …`."""
        self._matching: dict[Pattern, list[Path]] = {}

    def rules(self) -> Iterator[Rule]:
        """Every rule of every module."""
        for module in self.modules:
            yield from module.rules

    def below_data(self, ref: Ref, module: Module, local: frozenset[str]) -> Pattern | None:
        """Where below `data` the reference leads, or `None` when it is a variable, an expression or `input`."""
        if ref.base is not None or ref.root in local or ref.root == "input":
            return None
        rest = tuple(_key(part) for part in ref.path)
        if ref.root == "data":
            return rest
        if (*module.package, ref.root) in self._heads:
            return (*module.package, ref.root, *rest)
        if ref.root in module.aliases:
            return (*module.aliases[ref.root], *rest)
        return None

    def matching(self, pattern: Pattern) -> list[Path]:
        """The rules that a reference to the pattern could evaluate."""
        if pattern not in self._matching:
            self._matching[pattern] = [path for path in self.by_path if matches(pattern, path)]
        return self._matching[pattern]

    def function(self, call: Call, module: Module) -> Path | None:
        """The policy's own function that is called, or `None` when it is none of ours."""
        head, rest = call.name[0], call.name[1:]
        candidates: list[Path] = [(*module.package, *call.name)]
        if head == "data":
            candidates.append(rest)
        elif head in module.aliases:
            candidates.append((*module.aliases[head], *rest))
        return next((path for path in candidates if path in self.by_path), None)


def matches(pattern: Pattern, path: Path) -> bool:
    """Whether one leads to, into or over the other."""
    return all(one is None or one == other for one, other in zip(pattern, path, strict=False))


def _key(part: Expr) -> str | None:
    return part.value if isinstance(part, Const) and isinstance(part.value, str) else None
