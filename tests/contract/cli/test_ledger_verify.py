"""`stepgrant ledger verify` as an operator runs it: beside a broker, over HTTP, and with heads that were kept."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from commandline import Done, caller
from processes import started
from stepgrant import tlog
from stepgrant.cli.exits import ExitCode

pytestmark = pytest.mark.timeout(240)  # a process of its own may have to wait for a busy machine


class Host:
    """A broker's host: its folder, and a command line on it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.run = caller(capsys, [])

    @contextmanager
    def serving(self, **more: str) -> Iterator[str]:
        """A broker that runs while the block does; its URL."""
        settings = {"STEPGRANT_BROKER_DATA_DIR": str(self.data), "STEPGRANT_BROKER_PORT": "0"}
        settings["STEPGRANT_BROKER_PUBLIC_URL"] = "http://127.0.0.1:8423"
        with started(self.folder, self.folder / "serve.log", "serve", "--json", **settings, **more) as broker:
            yield broker.wait_for(r'"url": "(http://127\.0\.0\.1:\d+)"')[1]
            broker.process.send_signal(signal.SIGTERM)
            assert broker.ended() == 0

    def verify(self, *words: str) -> Done:
        """Check, told as JSON."""
        return self.run("ledger", "verify", "--json", *words)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Host:
    monkeypatch.setenv("STEPGRANT_BROKER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("STEPGRANT_BROKER_PUBLIC_URL", "http://127.0.0.1:8423")
    monkeypatch.chdir(tmp_path)
    made = Host(tmp_path, capsys)
    assert made.run("db", "migrate").code == 0
    return made


def head_of(url: str, size: int) -> bytes:
    """The log's head, once it has so many leaves."""
    for _ in range(400):
        answer = httpx.get(f"{url}/v1/log/checkpoint", timeout=30)
        if answer.status_code == 200 and tlog.read_signed_head(answer.content)[0].size >= size:
            return answer.content
        time.sleep(0.1)
    raise AssertionError(f"no head of {size} leaves")


def test_a_running_brokers_log_is_checked_over_http(host: Host) -> None:
    with host.serving() as url:
        head = tlog.read_signed_head(head_of(url, 1))[0]
        done = host.verify("--url", url)
        told = done.json
        assert (done.code, told["ok"], told["findings"]) == (0, True, [])
        assert told["leaves"] >= head.size
        assert (told["tiles"], told["unsigned"]) == (1, 0)
        assert told["heads"] >= 1
        assert told["seconds"] >= 0
        assert (told["known_heads"], told["rollback"]) == (1, "compared")
        words = host.run("ledger", "verify", "--url", url).out
        assert "The ledger holds" in words
        assert "Compared with 1 head kept outside the database." in words
        wrong = host.run("ledger", "verify", "--url", "http://log.example")
        assert (wrong.code, "https" in wrong.err) == (ExitCode.USAGE, True)


def test_a_url_at_which_no_log_answers_is_one_finding_in_one_line(host: Host) -> None:
    done = host.verify("--url", "http://127.0.0.1:9")
    assert [(one["code"], one["at"]) for one in done.json["findings"]] == [("unreadable", {"table": "log", "id": 1})]
    assert (done.code, done.err) == (ExitCode.REFUSED, "")
    told = host.run("ledger", "verify", "--url", "http://127.0.0.1:9").out.splitlines()
    assert told[0].startswith("unreadable: log (id 1): the log does not answer keys: ")
    assert told[0].endswith("ConnectError")
    assert told[1].startswith("1 finding; ")


def test_a_backup_that_was_put_back_is_found_by_a_head_that_was_kept(host: Host) -> None:
    data = host.data / "stepgrant.db"
    with host.serving() as url:
        head_of(url, 1)
    shutil.copytree(host.data, host.folder / "backup")
    assert host.run("operator", "create", "root", "--role", "operator", "--local").code == 0
    with host.serving() as url:
        newer = head_of(url, host.verify().json["entries"])
    (host.folder / "newer.txt").write_bytes(newer)
    policy = host.folder / "log.policy"
    policy.write_text(f"log {keys_of(host)}\nquorum none\n")
    assert host.verify("--known-head", "newer.txt", "--log-policy", str(policy)).code == 0

    for name in ("stepgrant.db-wal", "stepgrant.db-shm"):
        (host.data / name).unlink(missing_ok=True)
    shutil.copy(host.folder / "backup" / "stepgrant.db", data)
    size = tlog.read_signed_head(newer)[0].size
    by_file = host.verify()
    assert (by_file.code, by_file.json["ok"]) == (ExitCode.REFUSED, False)
    assert [(one["code"], one["at"]) for one in by_file.json["findings"]] == [
        ("rolled_back", {"table": "log_heads", "size": size})
    ]

    (newest,) = host.data.rglob("newest-head")
    newest.unlink()
    blind = host.verify()
    assert (blind.code, blind.json["ok"], blind.json["known_heads"]) == (0, True, 0)
    assert "cannot be told" in blind.json["rollback"]
    assert "cannot be told" in host.run("ledger", "verify").out
    for option in ("--known-head", "--since-head"):
        found = host.verify(option, "newer.txt").json["findings"]
        assert [one["code"] for one in found] == ["rolled_back"]
        assert "newer.txt knows a tree of" in found[0]["what"]


def keys_of(host: Host) -> str:
    """The log's verifier key."""
    with host.serving() as url:
        return httpx.get(f"{url}/v1/log/keys", timeout=30).text.splitlines()[0]


def test_what_was_changed_is_named_by_its_row(host: Host) -> None:
    with host.serving() as url:
        head_of(url, 1)
    with closing(sqlite3.connect(host.data / "stepgrant.db")) as db:
        db.execute("UPDATE log SET root = x'" + "02" * 32 + "'")
        db.commit()
    done = host.verify()
    assert [(one["code"], one["at"], one["tenant"]) for one in done.json["findings"]] == [
        ("tree_differs", {"table": "log", "id": 1}, None)
    ]
    assert done.code == ExitCode.REFUSED
    assert "tree_differs: log (id 1): leaves " in host.run("ledger", "verify").out


@pytest.mark.parametrize(("option", "name"), [("--known-head", "none.txt"), ("--log-policy", "none.policy")])
def test_a_file_that_is_not_there_is_one_line(host: Host, option: str, name: str) -> None:
    done = host.run("ledger", "verify", option, name)
    assert (done.code, done.out, f"{name} cannot be read" in done.err) == (ExitCode.NOT_FOUND, "", True)


def test_a_witness_remembers_what_the_database_does_not(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    vkey, data = keys_of(host), host.data / "stepgrant.db"
    words = ("ledger", "witness", "--name", "witness.example", "--log", vkey, "--folder", str(host.folder / "witness"))
    with started(host.folder, host.folder / "witness.log", *words, "--port", "0") as witness:
        line = witness.wait_for(r"(\S+\+[0-9a-f]{8}\+\S+) (http://127\.0\.0\.1:\d+)\n")
        policy = host.folder / "log.policy"
        policy.write_text(f"log {vkey}\nwitness w {line[1]} {line[2]}\nquorum w\n")
        monkeypatch.setenv("STEPGRANT_BROKER_LOG_POLICY_FILE", str(policy))
        with host.serving(STEPGRANT_BROKER_LOG_POLICY_FILE=str(policy)) as url:
            head_of(url, 1)
        shutil.copytree(host.data, host.folder / "backup")
        assert host.run("operator", "create", "root", "--role", "operator", "--local").code == 0
        with host.serving(STEPGRANT_BROKER_LOG_POLICY_FILE=str(policy)) as url:
            size = tlog.read_signed_head(head_of(url, host.verify().json["entries"]))[0].size
        assert host.verify("--ask-witnesses").code == 0

        for name in ("stepgrant.db-wal", "stepgrant.db-shm"):
            (host.data / name).unlink(missing_ok=True)
        shutil.copy(host.folder / "backup" / "stepgrant.db", data)
        (newest,) = host.data.rglob("newest-head")
        newest.unlink()
        assert host.verify().code == 0
        asked = host.verify("--ask-witnesses")
        assert [(one["code"], one["at"]["size"]) for one in asked.json["findings"]] == [("rolled_back", size)]
        assert asked.code == ExitCode.REFUSED
