"""Which broker, with what token: where it is found, and everything that is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from stepgrant.cli import client_file
from stepgrant.cli.client_file import Client, find, load, save
from stepgrant.cli.exits import CommandError
from stepgrant.errors import ConfigurationError

TOKEN = "sgo_" + "ab" * 32
URL = "http://127.0.0.1:8423"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(path: Path, text: str = f'{{"url": "{URL}", "token": "{TOKEN}"}}', mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def nobody(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path / "config"), **more}


def test_saved_file_is_private_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "ada.json"
    save(path, Client(URL, TOKEN, "x"))
    assert path.stat().st_mode & 0o777 == 0o600
    assert load(path) == Client(URL, TOKEN, str(path))


def test_saving_never_replaces(tmp_path: Path) -> None:
    path = written(tmp_path / "ada.json")
    with pytest.raises(CommandError, match="File exists"):
        save(path, Client(URL, "sgo_other", "x"))
    assert load(path).token == TOKEN


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o602])
def test_file_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(CommandError, match="chmod 600") as caught:
        load(written(tmp_path / "ada.json", mode=mode))
    assert caught.value.code == "configuration_error"
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"url": "http://127.0.0.1"}', f'{{"url": 1, "token": "{TOKEN}"}}', '{"token": 1, "url": "x"}',
     f'{{"url": "{URL}", "token": "{TOKEN}", "more": 1}}', f'{{"url": "{URL}", "url": "{URL}", "token": "{TOKEN}"}}',
     "\ufeff{}"],
)  # fmt: skip
def test_file_of_another_shape_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(CommandError, match=r"client file|must be text") as caught:
        load(written(tmp_path / "ada.json", text))
    assert TOKEN not in str(caught.value)


def test_missing_file_and_folder_are_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(CommandError) as caught:
            load(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("token", ["ghp_secret", "sgo_ä", "sgo_a b", "Bearer sgo_x", "sgo_a\x1b"])
def test_what_is_no_operator_token_is_refused_without_showing_it(tmp_path: Path, token: str) -> None:
    with pytest.raises(CommandError, match="no operator token") as caught:
        find(url=URL, file=None, environment=nobody(tmp_path, STEPGRANT_TOKEN=token))
    assert token not in str(caught.value)
    assert caught.value.code == "no_token"


@pytest.mark.parametrize(
    "url",
    ["broker", "ftp://broker", "http://", "http://user:pw@127.0.0.1", "http://127.0.0.1?x=1", "http://127.0.0.1#x",
     "http://[::1", "http://127.0.0.1:99999"],
)  # fmt: skip
def test_address_that_is_none_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigurationError):
        find(url=url, file=None, environment=nobody(tmp_path, STEPGRANT_TOKEN=TOKEN))


def test_token_never_travels_in_clear(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="https"):
        find(url="http://broker.example", file=None, environment=nobody(tmp_path, STEPGRANT_TOKEN=TOKEN))
    found = find(url="https://broker.example/", file=None, environment=nobody(tmp_path, STEPGRANT_TOKEN=TOKEN))
    assert found.url == "https://broker.example"


def test_token_of_a_file_goes_to_its_own_address_only(tmp_path: Path) -> None:
    path = written(tmp_path / "ada.json")
    for url, environment in (("https://evil.example", {}), (None, {"STEPGRANT_URL": "https://evil.example"})):
        with pytest.raises(CommandError, match="sent to no other address"):
            find(url=url, file=path, environment=nobody(tmp_path, **environment))
    assert find(url=URL + "/", file=path, environment=nobody(tmp_path)).token == TOKEN


def test_order_of_places(tmp_path: Path) -> None:
    environment = nobody(tmp_path)
    with pytest.raises(CommandError) as caught:
        find(url=None, file=None, environment=environment)
    assert caught.value.code == "no_token"
    user = written(tmp_path / "config" / "stepgrant" / "client.json")
    assert find(url=None, file=None, environment=environment).source == str(user)
    dev = written(tmp_path / ".stepgrant" / "operator.json")
    assert find(url=None, file=None, environment=environment).source == str(dev.relative_to(tmp_path))
    named = find(url=None, file=None, environment={**environment, "STEPGRANT_TOKEN": TOKEN})
    assert (named.source, named.url) == ("STEPGRANT_TOKEN", client_file.DEFAULT_URL)
    given = written(tmp_path / "given.json")
    assert find(url=None, file=given, environment={**environment, "STEPGRANT_TOKEN": TOKEN}).source == str(given)


def test_unsafe_file_is_refused_not_passed_over(tmp_path: Path) -> None:
    written(tmp_path / ".stepgrant" / "operator.json", mode=0o644)
    written(tmp_path / "config" / "stepgrant" / "client.json")
    with pytest.raises(CommandError, match="chmod 600"):
        find(url=None, file=None, environment=nobody(tmp_path))


def test_home_folder_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert client_file.user_file({}) == tmp_path / ".config" / "stepgrant" / "client.json"


def test_token_is_in_no_repr_and_no_pickle() -> None:
    client = Client(URL, TOKEN, "x")
    assert TOKEN not in repr(client)
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(client)


def test_path_that_cannot_be_written_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="exists"):
        client_file.refuse_existing(written(tmp_path / "there.json"))
    dangling = tmp_path / "link.json"
    dangling.symlink_to(tmp_path / "nowhere")
    with pytest.raises(CommandError, match="exists"):
        client_file.refuse_existing(dangling)
    with pytest.raises(CommandError, match="cannot write"):
        client_file.refuse_existing(tmp_path / "no" / "such" / "folder.json")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["link.json", "there.json"]
