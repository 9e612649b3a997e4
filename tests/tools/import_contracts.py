"""An import-linter contract that names what a room may import; everything else is refused.

import-linter's own `forbidden` contract names what is not allowed, so the library that nobody thought of passes. Here a
new dependency of the domain has to be written down first. Only direct imports are looked at: what an allowed module
imports in turn is for the contract of that module's own room.

Words in `allowed` besides module names (a name also allows what is below it):
    stdlib        any module of the standard library
    pure-stdlib   the standard library without clocks, randomness, files, processes, threads and sockets
    third-party   any installed package that is not ours
A room may always import itself. A room that does not exist yet is skipped; the exhaustive `layers` contract in
pyproject.toml sees to it that no room appears, or is renamed, unnoticed.
"""

import sys
from typing import Any, Final, cast

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output

IMPURE: Final = frozenset(
    {
        "asyncio",
        "concurrent",
        "ctypes",
        "fcntl",
        "ftplib",
        "glob",
        "http",
        "importlib",
        "io",
        "logging",
        "mmap",
        "multiprocessing",
        "os",
        "pathlib",
        "pickle",
        "pty",
        "queue",
        "random",
        "resource",
        "sched",
        "secrets",
        "select",
        "selectors",
        "shelve",
        "shutil",
        "signal",
        "smtplib",
        "socket",
        "socketserver",
        "sqlite3",
        "ssl",
        "subprocess",
        "tempfile",
        "threading",
        "time",
        "urllib",
        "uuid",
    }
)
WORDS: Final = frozenset({"stdlib", "pure-stdlib", "third-party"})


class AllowedImports(Contract):
    """Keeps each of `rooms` to itself and to `allowed`. Both are lists of strings."""

    type_name = "allowed_imports"

    rooms = fields.SetField(subfield=fields.StringField())
    allowed = fields.SetField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: FBT001  (import-linter's signature)
        """Keep the contract if no module in a room imports anything that the room may not know."""
        allowed = cast("set[str]", self.allowed)
        found = [
            (importer, imported, lines)
            for room in sorted(cast("set[str]", self.rooms))
            for importer, imported, lines in _imports_leaving(graph, room)
            if not _is_allowed(imported, allowed, graph)
        ]
        output.verbose_print(verbose, f"{len(found)} imports that are not allowed.")
        return ContractCheck(kept=not found, metadata={"found": found})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print one line for each import that is not allowed."""
        for importer, imported, lines in check.metadata["found"]:
            output.print_error(f"{importer} may not import {imported} (line {lines})")


def _imports_leaving(graph: ImportGraph, room: str) -> list[tuple[str, str, str]]:
    """The direct imports out of `room`: (importing module, imported module, line numbers)."""
    if room not in graph.modules:
        return []
    leaving = []
    for importer in sorted({room} | graph.find_descendants(room)):
        for imported in sorted(graph.find_modules_directly_imported_by(importer)):
            if not _is_within(imported, room):
                details: list[Any] = list(graph.get_import_details(importer=importer, imported=imported))
                leaving.append((importer, imported, ", ".join(str(one["line_number"]) for one in details)))
    return leaving


def _is_allowed(imported: str, allowed: set[str], graph: ImportGraph) -> bool:
    if any(_is_within(imported, name) for name in allowed - WORDS):
        return True
    top = imported.partition(".")[0]
    if top in sys.stdlib_module_names:
        return "stdlib" in allowed or ("pure-stdlib" in allowed and top not in IMPURE)
    return "third-party" in allowed and graph.is_module_squashed(imported)


def _is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")
