"""An identity that the platform writes into a file: read at each exchange, kept nowhere, shown nowhere."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

import stepgrant
from forging import es256
from stepgrant._dpop import DpopKey
from stepgrant._exchange import TokenRequest
from stepgrant._identity import TokenFile, find_identity
from stepgrant._verification_errors import VerificationUnavailable
from stepgrant.errors import ConfigurationError
from stepgrant.verify import BrokerRedeemer, Redemption

URN = "urn:ietf:params:oauth:token-type:"
KEY, FILE, TYPE = "STEPGRANT_WORKLOAD_KEY", "STEPGRANT_IDENTITY_FILE", "STEPGRANT_IDENTITY_TYPE"


def token(subject: str = "one") -> str:
    return es256().jws({"alg": "ES256"}, {"sub": subject})


def written(folder: Path, text: str) -> Path:
    path = folder / "token"
    path.write_text(text, encoding="utf-8")
    return path


def form(file: TokenFile) -> dict[str, str]:
    return TokenRequest("http://127.0.0.1:1", file, DpopKey()).form(0.0)


@pytest.mark.parametrize("kind", ["jwt", "id_token"])
def test_the_form_carries_what_the_file_holds_now(tmp_path: Path, kind: Any) -> None:  # noqa: ANN401
    one, two = token(), token("two")
    file = TokenFile(written(tmp_path, one + "\n"), kind)
    assert (form(file)["subject_token"], form(file)["subject_token_type"]) == (one, URN + kind)
    written(tmp_path, two)
    assert form(file)["subject_token"] == two


def test_a_link_is_followed_for_so_kubernetes_exchanges_it(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        written(tmp_path / name, token(name))
    (tmp_path / "..data").symlink_to("old")
    (tmp_path / "token").symlink_to("..data/token")
    file = TokenFile(tmp_path / "token")
    before = form(file)["subject_token"]
    (tmp_path / "..tmp").symlink_to("new")
    (tmp_path / "..tmp").replace(tmp_path / "..data")
    assert form(file)["subject_token"] != before


def test_it_can_be_shown_copied_and_pickled_for_it_holds_nothing(tmp_path: Path) -> None:
    secret = token()
    file = TokenFile(str(written(tmp_path, secret)))
    form(file)
    for made in (copy.deepcopy(file), pickle.loads(pickle.dumps(file))):  # noqa: S301 - our own bytes
        assert made == file
    assert secret not in repr(file)
    assert secret.encode() not in pickle.dumps(file)


@pytest.mark.parametrize("text", ["", "hello", "a.b", "a.b.c.d", "a.b.c a.b.c", "a.b.ü", "a.b." + "c" * 16_384])
def test_what_is_no_token_is_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match="holds no signed token") as caught:
        form(TokenFile(written(tmp_path, text)))
    assert not text or text not in str(caught.value).replace(str(tmp_path), "")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        form(TokenFile(tmp_path / "missing"))
    with pytest.raises(ConfigurationError, match="Is a directory"):
        form(TokenFile(tmp_path))
    with pytest.raises(ConfigurationError, match="not a regular file"):
        form(TokenFile(os.devnull))
    with pytest.raises(ConfigurationError, match="jwt or id_token"):
        TokenFile(tmp_path, "saml")  # type: ignore[arg-type]


def test_arguments_come_before_the_environment(tmp_path: Path) -> None:
    assert find_identity("key", None, {FILE: "f"}) == "key"
    assert find_identity(None, "f", {KEY: "key"}) == TokenFile("f")
    assert find_identity(None, tmp_path, {TYPE: "id_token"}) == TokenFile(str(tmp_path), "id_token")
    assert find_identity(None, TokenFile("f", "id_token"), {TYPE: "jwt"}) == TokenFile("f", "id_token")
    assert find_identity(None, None, {KEY: "key"}) == "key"
    assert find_identity(None, None, {FILE: "f", KEY: "", TYPE: ""}) == TokenFile("f")


def test_two_identities_are_one_too_many() -> None:
    with pytest.raises(ConfigurationError, match=f"set {KEY} or {FILE}"):
        find_identity("key", "f", {})
    with pytest.raises(ConfigurationError, match=f"set {KEY} or {FILE}"):
        find_identity(None, None, {KEY: "key", FILE: "f"})
    with pytest.raises(ConfigurationError, match=f"set {KEY} to the key file, or {FILE}"):
        find_identity(None, None, {})
    with pytest.raises(ConfigurationError, match=TYPE):
        find_identity(None, "f", {TYPE: "x"})


def test_a_run_names_the_file_that_it_cannot_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FILE, str(tmp_path / "missing"))
    run = stepgrant.run("job", agent="agent", url="http://127.0.0.1:9")
    with pytest.raises(ConfigurationError, match="missing: No such file"), run:
        raise AssertionError("it was opened")


def test_a_server_whose_identity_cannot_be_read_refuses(tmp_path: Path) -> None:
    redeemer = BrokerRedeemer("http://127.0.0.1:9", TokenFile(tmp_path / "missing"))
    with pytest.raises(VerificationUnavailable, match="No such file"):
        redeemer.redeem_sync(Redemption("grn_1", "red_1", "sha-256:x", "jti"))
