"""Refuse files and functions that have grown beyond what one reader holds in mind.

A source file of more than 300 lines needs a line in `long_files.txt` beside this script, with its reason; an entry that
is no longer needed is refused too. Nothing excuses more than 500 lines, or a function of more than 50 (docstring
included, decorators not). Golden vectors are data and are not looked at.

Usage: check_sizes.py [ROOT]     (exit code 0 or 1; every finding is one line)
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SOFT: Final = 300
HARD: Final = 500
FUNCTION: Final = 50
SOURCES: Final = ("*.py", "*.rego", "*.sh", "*.js", "*.css", "*.html")
EXCUSES: Final = Path("tests/tools/long_files.txt")


def sources(root: Path) -> list[Path]:
    """The source files at `root`, relative to it: committed ones, and new ones that git does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate", "--", *SOURCES]
    listing = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    paths = sorted(Path(name) for name in listing.split("\0") if name)
    return [path for path in paths if (root / path).is_file() and "vectors" not in path.parts]


def excuses(root: Path) -> dict[str, str]:
    """The reviewed exceptions as path -> reason. A line is `path: reason`; blank lines and # comments are skipped."""
    if not (root / EXCUSES).exists():
        return {}
    lines = (root / EXCUSES).read_text(encoding="utf-8").splitlines()
    pairs = (line.partition(":") for line in lines if line.strip() and not line.startswith("#"))
    return {path.strip(): reason.strip() for path, _, reason in pairs}


def long_functions(path: Path, text: str) -> Iterator[str]:
    """One finding for each function in `text` that is too long."""
    try:
        tree = ast.parse(text, filename=str(path))
    except SyntaxError as error:
        yield f"{path}:{error.lineno}: cannot be read ({error.msg})"
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION:
                yield f"{path}:{node.lineno}: function {node.name} has {lines} lines, the limit is {FUNCTION}"


def findings(root: Path) -> Iterator[str]:
    """Everything that is wrong in the repository at `root`, one line each."""
    excused = excuses(root)
    needed = set()
    for path in sources(root):
        text = (root / path).read_text(encoding="utf-8")
        lines = len(text.splitlines())
        if lines > HARD:
            yield f"{path}: {lines} lines, and nothing excuses more than {HARD}"
        elif lines > SOFT:
            needed.add(path.as_posix())
            if not excused.get(path.as_posix()):
                yield f"{path}: {lines} lines; split it, or give a reason in {EXCUSES} (soft limit {SOFT})"
        if path.suffix == ".py":
            yield from long_functions(path, text)
    for name in sorted(set(excused) - needed):
        yield f"{EXCUSES}: {name} needs no exception (it has at most {SOFT} lines, or is over {HARD}, or is gone)"


def main(arguments: list[str]) -> int:
    """Print the findings; 0 if there are none."""
    found = list(findings(Path(arguments[0] if arguments else ".").resolve()))
    for line in found:
        print(line)
    print(f"sizes: {len(found)} findings" if found else "sizes: all files and functions are within their limits")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
