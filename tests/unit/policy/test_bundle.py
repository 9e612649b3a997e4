"""Bundles: what is evaluated, what names it, and what is refused before anything reads it."""

import json
import os
import random
from pathlib import Path

import pytest

from policies import ALLOW, HEAD
from stepgrant import canonical
from stepgrant_broker.policy import bundle
from stepgrant_broker.policy.bundle import (
    SETTINGS,
    demo_settings,
    from_files,
    read_demo,
    read_directory,
    read_starter,
    starter_files,
)
from stepgrant_broker.policy.findings import PolicyInvalid

FILES = {
    "stepgrant/main.rego": ALLOW,
    "stepgrant/main_test.rego": "package main_test\n",
    "settings/data.json": '{"max": 1}',
    "settings/schema.json": '{"type": "object"}',
    "cases/first.json": "[]",
    "README.md": "# mine",
    "notes/other.json": "{",
}


def write(root: Path, files: dict[str, str]) -> Path:
    names = list(files)
    random.Random(0).shuffle(names)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(files[name], encoding="utf-8")
    return root


def refused(files: dict[str, bytes | str]) -> list[tuple[str, str]]:
    with pytest.raises(PolicyInvalid) as caught:
        from_files(files)
    return [(finding.file, finding.code) for finding in caught.value.findings]


def test_a_folder_is_sorted_into_its_parts(tmp_path: Path) -> None:
    found = read_directory(write(tmp_path, FILES))
    assert dict(found.modules) == {"stepgrant/main.rego": ALLOW}
    assert dict(found.data) == {"settings": {"max": 1}}
    assert dict(found.files) == {"settings/data.json": '{"max": 1}', "stepgrant/main.rego": ALLOW}
    assert list(found.tests) == ["stepgrant/main_test.rego"]
    assert list(found.cases) == ["cases/first.json"]
    assert dict(found.schemas) == {"settings/data.json": {"type": "object"}}


def test_the_digest_is_of_what_is_evaluated_and_nothing_else(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    first = read_directory(write(one, FILES)).digest
    assert first == read_directory(write(other, FILES)).digest
    write(other, {"stepgrant/main_test.rego": "package changed_test\n", "cases/second.json": "[]", "LICENSE": "x"})
    assert first == read_directory(other).digest
    for path, text in {"settings/data.json": '{"max":1}', "stepgrant/main.rego": ALLOW + "\n"}.items():
        assert first != from_files({**FILES, path: text}).digest
    assert first != from_files({**FILES, "stepgrant/more.rego": HEAD}).digest
    moved = {("stepgrant/renamed.rego" if path == "stepgrant/main.rego" else path): FILES[path] for path in FILES}
    assert first != from_files(moved).digest


def test_the_digest_is_written_down_so_that_every_machine_has_it() -> None:
    listing = [
        {"digest": canonical.digest_bytes(text.encode()), "path": path}
        for path, text in sorted({"settings/data.json": '{"max": 1}', "stepgrant/main.rego": ALLOW}.items())
    ]
    assert from_files(FILES).digest == canonical.digest(listing)
    assert from_files({"a.rego": "package a\n"}).digest == "sha-256:gHDiKCDwwDrEFon_oGE-0nQDmm0zjeHMzQuC2zH6TAI"


def test_recorded_files_give_the_same_bundle_back() -> None:
    found = from_files(FILES)
    again = from_files(found.files)
    assert (again.digest, again.modules, again.data) == (found.digest, found.modules, found.data)


def test_the_starter_is_one_policy_however_it_is_read() -> None:
    packaged = read_starter()
    folder = Path(__file__).parents[3] / "policies" / "stepgrant_policies"
    assert packaged.digest == read_directory(folder).digest == from_files(starter_files()).digest
    assert packaged.tests.keys() == read_directory(folder).tests.keys() == from_files(starter_files()).tests.keys()
    assert "stepgrant/decision.rego" in packaged.modules


def test_the_starter_takes_other_settings() -> None:
    settings = json.dumps({"agents": {}}).encode()
    assert read_starter(settings).data == {"stepgrant_config": {"agents": {}}}
    assert read_demo().data == {"stepgrant_config": json.loads(demo_settings())}
    assert read_demo(settings).digest == read_starter(settings).digest != read_starter().digest
    assert read_demo().modules == read_starter().modules


def test_a_project_gets_rules_tests_and_settings_but_not_our_cases() -> None:
    names = set(starter_files())
    assert SETTINGS in names
    assert "stepgrant_config/schema.json" in names
    assert "stepgrant/decision_test.rego" in names
    assert not [name for name in names if name.startswith(("cases/", "demo/", "schemas/", "__"))]


@pytest.mark.parametrize(
    ("more", "finding"),
    [
        ({"stepgrant/more.rego": b"\xff"}, ("stepgrant/more.rego", "not_utf8")),
        ({"settings/data.json": "{"}, ("settings/data.json", "bad_json")),
        ({"settings/data.json": '{"a": 1, "a": 2}'}, ("settings/data.json", "bad_json")),
        ({"settings/data.json": '{"a": NaN}'}, ("settings/data.json", "bad_json")),
        ({"settings/schema.json": "{"}, ("settings/schema.json", "bad_json")),
        ({"settings/data.json": "[]"}, ("settings/data.json", "bad_data")),
        ({"data.json": "{}"}, ("data.json", "bad_data")),
        ({"settings/inner/data.json": "{}"}, ("settings/inner/data.json", "bad_data")),
        ({"zeta/data.json": "{}", "zeta/alpha/data.json": "{}"}, ("zeta/data.json", "bad_data")),
    ],
)
def test_files_that_cannot_be_read_are_findings(more: dict[str, bytes | str], finding: tuple[str, str]) -> None:
    assert refused({**FILES, **more}) == [finding]


def test_no_rules_is_a_finding(tmp_path: Path) -> None:
    assert refused({}) == [(".", "no_rules")]
    with pytest.raises(PolicyInvalid, match="no_folder"):
        read_directory(tmp_path / "nowhere")


def test_a_link_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "policy", FILES)
    outside = write(tmp_path / "outside", {"extra.rego": "package extra\n"})
    (root / "linked").symlink_to(outside, target_is_directory=True)
    with pytest.raises(PolicyInvalid, match=r"linked:0: link"):
        read_directory(root)
    (root / "linked").unlink()
    (root / "linked.rego").symlink_to(outside / "extra.rego")
    with pytest.raises(PolicyInvalid, match=r"linked\.rego:0: link"):
        read_directory(root)


def test_hidden_folders_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, {**FILES, ".git/x.rego": "no", "__pycache__/x.rego": "no"})
    assert read_directory(tmp_path).digest == from_files(FILES).digest


def test_limits_of_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, FILES)
    monkeypatch.setattr(bundle, "MAX_FILE_BYTES", 10)
    with pytest.raises(PolicyInvalid, match="too_large"):
        read_directory(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(bundle, "MAX_FILES", 2)
    with pytest.raises(PolicyInvalid, match="too_many_files"):
        read_directory(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(bundle, "MAX_DEPTH", 0)
    with pytest.raises(PolicyInvalid, match="too_deep"):
        read_directory(tmp_path)


def test_what_is_no_plain_file_is_not_opened(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    (tmp_path / "folder.rego").mkdir()
    assert read_directory(tmp_path).digest == from_files(FILES).digest
    os.mkfifo(tmp_path / "other.rego")
    with pytest.raises(PolicyInvalid, match=r"other\.rego:0: no_file"):
        read_directory(tmp_path)


def test_a_file_that_cannot_be_read_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, FILES)

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    # Tests may run as root, who may read everything.
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(PolicyInvalid, match="unreadable: Permission denied"):
        read_directory(tmp_path)
