"""Keys in a folder: who may read it, what is made and when, and what the keys are for."""

import asyncio
import copy
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import TypeVar

import pytest

from stepgrant._keys import SecretKey, verifying_key
from stepgrant_broker.domain.errors import SignerUnavailable, StoreUnavailable
from stepgrant_broker.domain.ports import PublicKey, Signature, Wrapped
from stepgrant_broker.signing.local import LocalSigner
from stepgrant_broker.signing.wrap import LocalWrap, WrapError

T = TypeVar("T", LocalSigner, LocalWrap)
BOTH = pytest.mark.parametrize("kind", [LocalSigner, LocalWrap])


def sign(signer: LocalSigner, purpose: str, data: bytes = b"data") -> Signature:
    return asyncio.run(signer.sign(purpose, data))


def public(signer: LocalSigner, purpose: str) -> tuple[PublicKey, ...]:
    return asyncio.run(signer.public_keys(purpose))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    LocalSigner.open(path, create=True)
    LocalWrap.open(path, create=True)
    return path


def test_the_folder_and_its_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        LocalSigner.open(tmp_path / "keys", create=True)
        LocalWrap.open(tmp_path / "keys", create=True)
    finally:
        os.umask(old)

    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    files = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()}
    assert files == {
        "access-1.jwk": 0o600,
        "grants-1.jwk": 0o600,
        "heads-1.jwk": 0o600,
        "root-1.key": 0o600,
        "wrap-1.key": 0o600,
    }


@BOTH
def test_nothing_is_made_unless_asked(tmp_path: Path, kind: type[T]) -> None:
    with pytest.raises(SignerUnavailable, match=r"no key folder.*`stepgrant db migrate` makes those"):
        kind.open(tmp_path / "keys")
    assert not (tmp_path / "keys").exists()
    (tmp_path / "keys").mkdir(mode=0o700)
    with pytest.raises(SignerUnavailable, match="there is no"):
        kind.open(tmp_path / "keys")
    assert list((tmp_path / "keys").iterdir()) == []


def test_existing_keys_are_kept_when_asked_to_create(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    LocalSigner.open(folder, create=True)
    LocalWrap.open(folder, create=True)

    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@BOTH
@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777, 0o711])
def test_a_folder_that_others_can_enter_is_refused(folder: Path, kind: type[T], mode: int) -> None:
    folder.chmod(mode)
    for create in (False, True):
        with pytest.raises(SignerUnavailable, match="chmod 700"):
            kind.open(folder, create=create)
    folder.chmod(0o700)


@BOTH
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_can_read_is_refused(folder: Path, kind: type[T], mode: int) -> None:
    for path in folder.iterdir():
        path.chmod(mode)
    with pytest.raises(SignerUnavailable, match="can be read by others"):
        kind.open(folder, create=True)


@BOTH
def test_a_link_in_place_of_folder_or_key_is_refused(folder: Path, kind: type[T], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(SignerUnavailable, match="is not a folder"):
        kind.open(tmp_path / "link")
    for path in list(folder.iterdir()):
        moved = tmp_path / path.name
        path.rename(moved)
        path.symlink_to(moved)
    with pytest.raises(SignerUnavailable, match="cannot read"):
        kind.open(folder)


@BOTH
def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path, kind: type[T]) -> None:
    (tmp_path / "keys").write_text("")
    with pytest.raises(SignerUnavailable, match=r"is not a folder|no key folder"):
        kind.open(tmp_path / "keys", create=True)
    with pytest.raises(SignerUnavailable, match="is not a folder"):
        kind.open(tmp_path / "keys")


@BOTH
@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"kty":"EC"}', b"A" * 43 + b"=", b"A" * 42])
def test_a_damaged_key_is_named_and_never_replaced(folder: Path, kind: type[T], content: bytes) -> None:
    for path in folder.iterdir():
        path.write_bytes(content)
    with pytest.raises(SignerUnavailable, match="is damaged"):
        kind.open(folder, create=True)

    assert {path.read_bytes() for path in folder.iterdir()} == {content}


def test_a_key_for_another_algorithm_is_refused(folder: Path) -> None:
    (folder / "heads-1.jwk").write_text(json.dumps(SecretKey.generate("ES256").to_private_jwk()))
    with pytest.raises(SignerUnavailable, match="not for EdDSA"):
        LocalSigner.open(folder)


def test_two_processes_that_create_at_once_have_one_key(tmp_path: Path) -> None:
    made: list[str] = []
    threads = [
        Thread(target=lambda: made.append(repr(LocalSigner.open(tmp_path / "keys", create=True)))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(made) == 8
    assert len(set(made)) == 1
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == [
        "access-1.jwk",
        "grants-1.jwk",
        "heads-1.jwk",
    ]


@pytest.mark.parametrize(("purpose", "alg"), [("grants", "ES256"), ("access", "ES256"), ("heads", "EdDSA")])
def test_each_purpose_signs_with_a_key_of_its_own(folder: Path, purpose: str, alg: str) -> None:
    signer = LocalSigner.open(folder)
    made = sign(LocalSigner.open(folder), purpose)
    (key,) = public(signer, purpose)

    assert (made.kid, made.alg) == (key.kid, key.alg) == (key.jwk["kid"], alg)
    assert (key.jwk["use"], key.jwk["alg"]) == ("sig", alg)
    assert "d" not in key.jwk
    assert verifying_key(key.jwk).jkt == key.kid
    verifying_key(key.jwk).verify(b"data", made.value)
    others = {other.kid for name in ("grants", "access", "heads") if name != purpose for other in public(signer, name)}
    assert key.kid not in others


def test_the_newest_key_signs_and_all_are_published(folder: Path) -> None:
    old = public(LocalSigner.open(folder), "grants")[0].kid
    for number in (2, 10):
        path = folder / f"grants-{number}.jwk"
        path.write_text(json.dumps(SecretKey.generate().to_private_jwk()))
        path.chmod(0o600)
    newest = SecretKey.from_jwk(json.loads((folder / "grants-10.jwk").read_text())).public.jkt
    signer = LocalSigner.open(folder)

    assert sign(signer, "grants").kid == newest
    kids = [key.kid for key in public(signer, "grants")]
    assert (len(kids), kids[0], kids[-1]) == (3, newest, old)


def test_other_files_in_the_folder_are_left_alone(folder: Path) -> None:
    for name in ("grants-0.jwk", "grants-1.jwk.bak", ".grants-1.jwk.abc", "grants-x.jwk", "notes.txt"):
        (folder / name).write_text("not a key")

    assert len(public(LocalSigner.open(folder), "grants")) == 1


def test_an_unknown_purpose_signs_nothing(folder: Path) -> None:
    signer = LocalSigner.open(folder)
    with pytest.raises(SignerUnavailable, match="no key to sign"):
        sign(signer, "anything")
    with pytest.raises(SignerUnavailable, match="no key to sign"):
        public(signer, "anything")


def test_what_is_wrapped_unwraps_in_its_place_only(folder: Path) -> None:
    wrap = LocalWrap.open(folder)
    wrapped = wrap.wrap(b"k_run", b"tenant/run_1")
    again = LocalWrap.open(folder)

    assert again.unwrap(wrapped, b"tenant/run_1") == b"k_run"
    assert wrap.wrap(b"k_run", b"tenant/run_1") != wrapped
    assert b"k_run" not in wrapped.ciphertext


def flip(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda w: Wrapped(w.key_id, w.nonce, flip(w.ciphertext)), id="ciphertext"),
        pytest.param(lambda w: Wrapped(w.key_id, w.nonce, w.ciphertext[:-1]), id="shorter"),
        pytest.param(lambda w: Wrapped(w.key_id, w.nonce, b""), id="erased"),
        pytest.param(lambda w: Wrapped(w.key_id, flip(w.nonce), w.ciphertext), id="nonce"),
        pytest.param(lambda w: Wrapped(w.key_id, b"", w.ciphertext), id="no nonce"),
        pytest.param(lambda w: Wrapped("local-other", w.nonce, w.ciphertext), id="key"),
    ],
)
def test_what_was_changed_does_not_unwrap(folder: Path, change: Callable[[Wrapped], Wrapped]) -> None:
    wrap = LocalWrap.open(folder)
    with pytest.raises(WrapError):
        wrap.unwrap(change(wrap.wrap(b"k_run", b"here")), b"here")


def test_what_was_moved_does_not_unwrap(folder: Path, tmp_path: Path) -> None:
    wrap = LocalWrap.open(folder)
    wrapped = wrap.wrap(b"k_run", b"run_1")
    with pytest.raises(StoreUnavailable, match="moved from elsewhere"):
        wrap.unwrap(wrapped, b"run_2")
    with pytest.raises(WrapError, match="not in the key folder"):
        LocalWrap.open(tmp_path / "other", create=True).unwrap(wrapped, b"run_1")


def test_an_older_wrap_key_still_unwraps(folder: Path) -> None:
    wrapped = LocalWrap.open(folder).wrap(b"k_run", b"run_1")
    (folder / "wrap-2.key").write_text("B" * 42 + "A")
    (folder / "wrap-2.key").chmod(0o600)
    wrap = LocalWrap.open(folder)

    assert wrap.unwrap(wrapped, b"run_1") == b"k_run"
    assert wrap.wrap(b"k_run", b"run_1").key_id != wrapped.key_id


def test_derived_secrets_are_per_label_and_the_same_on_every_replica(folder: Path, tmp_path: Path) -> None:
    one, replica = LocalWrap.open(folder), LocalWrap.open(folder)
    other = LocalWrap.open(tmp_path / "other", create=True)

    assert one.derive(b"nonces") == replica.derive(b"nonces")
    assert len({one.derive(b"nonces"), one.derive(b"else"), other.derive(b"nonces")}) == 3
    assert len(one.derive(b"nonces")) == 32


@BOTH
def test_keys_are_shown_and_given_away_nowhere(folder: Path, kind: type[T]) -> None:
    adapter = kind.open(folder)
    secrets = [json.loads(path.read_text())["d"] for path in folder.glob("*.jwk")]
    secrets += [path.read_text().strip() for path in folder.glob("*.key")]

    assert len(secrets) == 5
    assert not any(secret in repr(adapter) for secret in secrets)
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="neither pickled nor copied"):
            take(adapter)
