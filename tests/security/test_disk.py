"""What lies on the disk is for its owner only, however careless the umask is; what others can reach is refused."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

import stepgrant
from faults.processes import SETTINGS
from stepgrant.errors import ConfigurationError
from stepgrant_broker.domain.errors import SignerUnavailable
from stepgrant_broker.testing import start


@pytest.fixture
def careless() -> Iterator[None]:
    """A umask that takes nothing away, as under some service managers."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in sorted(folder.rglob("*"))}


def pay(number: int) -> int:
    return number


@pytest.mark.usefixtures("careless")
def test_files_and_folders_of_a_whole_run(tmp_path: Path) -> None:
    """Also the folders above them that were missing: who can write there can put another folder in place."""
    home = tmp_path / "srv"
    policy = {**SETTINGS, "agents": {"agent": {"tools": {"pay": {"effect": "once"}}}}}
    with start(home / "stepgrant" / "data", settings=policy) as host:
        key = host.enroll("agent", agents=["agent"])
        with stepgrant.run("job", agent="agent", url=host.url, workload_key=key):
            stepgrant.tool(effect="once")(pay)(1)
            found = modes(tmp_path)
    assert set(found) >= {"srv/stepgrant/data/stepgrant.db-wal", "srv/stepgrant/data/keys/wrap-1.key"}
    assert {name: mode for name, mode in found.items() if mode & 0o077} == {}


def test_a_broker_does_not_use_keys_that_others_can_reach(tmp_path: Path) -> None:
    with start(tmp_path / "data"):
        pass
    keys = tmp_path / "data" / "keys"
    for path, mode in ((keys / "wrap-1.key", 0o640), (keys / "grants-1.jwk", 0o604), (keys, 0o750)):
        before = path.stat().st_mode
        path.chmod(mode)
        with pytest.raises(SignerUnavailable, match=r"can be read by others|is open to others"):
            start(tmp_path / "data")
        assert stat.S_IMODE(path.stat().st_mode) == mode, "refused, not repaired: the key may be known already"
        path.chmod(before)


def test_an_agent_does_not_use_a_key_that_others_can_read(tmp_path: Path) -> None:
    with start(tmp_path / "data") as host:
        key = host.enroll("agent", agents=["agent"])
        key.chmod(0o644)
        with pytest.raises(ConfigurationError, match="can be read by others; run: chmod 600"):
            stepgrant.run("job", agent="agent", url=host.url, workload_key=key).__enter__()
        assert host.runs() == ()


def test_keys_that_are_gone_are_not_replaced(tmp_path: Path) -> None:
    """With new ones, nothing that was signed or wrapped before would be the broker's own."""
    with start(tmp_path / "data"):
        pass
    wrap = tmp_path / "data" / "keys" / "wrap-1.key"
    wrap.unlink()
    with pytest.raises(SignerUnavailable, match="there is no wrap key"):
        start(tmp_path / "data")
    assert not wrap.exists()
