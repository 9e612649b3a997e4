"""deploy/README.md: the commands of its section about services run, in their order, and their words are the tool's."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepgrant_services.binaries import KINDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "deploy" / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("## Services for tests and for trying out\n")[2].partition("\n## ")[0]
SCRIPT = "\n".join(re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A temporary folder that PostgreSQL's other user can enter, so that the tool's default home is our own."""
    made = Path(tempfile.mkdtemp(prefix="stepgrant-test-tmp-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.mark.timeout(120)
def test_commands_run(folder: Path, opa_binary: Path, vault_binary: Path, postgres_binaries: Path) -> None:
    tools = folder / "tools"
    tools.mkdir()
    (tools / "python3").symlink_to(sys.executable)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    chosen = {
        "STEPGRANT_OPA": str(opa_binary),
        "STEPGRANT_VAULT": str(vault_binary),
        "STEPGRANT_POSTGRES_BIN": str(postgres_binaries),
    }
    env = kept | chosen | {"TMPDIR": str(folder), "PATH": f"{tools}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["/bin/sh", "-euxc", SCRIPT], cwd=ROOT, env=env, check=False, capture_output=True, text=True, timeout=110
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("service=") == 3
    assert re.findall(r"^(200|True)$", done.stdout, re.MULTILINE) == ["200", "200", "True"]
    assert done.stdout.count(" ended\n") == 3
    assert [path.name for path in folder.iterdir()] == ["tools"]


def test_names_and_versions_are_the_tools() -> None:
    for kind in KINDS.values():
        assert f"`{kind.variable}`" in SECTION
        if kind is not KINDS["logreader"]:  # its version is a digest of its sources
            assert f" {kind.pinned}, " in SECTION or f"| {kind.pinned}, " in SECTION
    for service in ("opa", "vault"):
        assert f"`services/go/{service}`" in SECTION
        assert (ROOT / "deploy" / "services" / "go" / service / "go.sum").is_file()
