"""Secrets in results and errors are found, whatever they look like."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stepgrant
from faces import Face, faces
from scripted import TOKEN, Reply, ScriptedBroker, granted, released_credential, scripted
from stepgrant import errors
from stepgrant._secrets import LIVE, LiveSecrets, not_secret

SECRET = 'p"ss\\wörd/+ &=%'


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ScriptedBroker]:
    with scripted(tmp_path) as made:
        yield made


def forms(secret: str) -> dict[str, bytes]:
    """The ways in which a secret may stand in a result."""
    raw = secret.encode()
    return {
        "itself": json.dumps({"a": secret}, ensure_ascii=False).encode(),
        "in a longer text": json.dumps(f"Bearer {secret}; expires soon", ensure_ascii=False).encode(),
        "as a key": json.dumps({secret: 1}, ensure_ascii=False).encode(),
        "JSON in JSON": json.dumps(json.dumps({"a": secret}, ensure_ascii=False), ensure_ascii=False).encode(),
        "escaped": json.dumps(secret).encode(),
        "percent": quote(secret, safe="").encode(),
        "form": quote_plus(secret, safe="").encode(),
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
        "base64": base64.b64encode(raw),
        "base64url": base64.urlsafe_b64encode(raw),
        "basic auth": base64.b64encode(b"user:" + raw),
        "base64, second place": base64.b64encode(b"ab:x" + raw + b"tail"),
        "base64, third place": base64.urlsafe_b64encode(b"ab:xy" + raw + b"tail"),
    }


@pytest.mark.parametrize("form", forms("x"))
@pytest.mark.parametrize("secret", [TOKEN, SECRET, "correct horse battery staple", "ключ-от-дома"])
def test_secret_is_found(form: str, secret: str) -> None:
    live = LiveSecrets()
    live.add([secret], until=math.inf)

    assert live.found_in(b'{"note":"' + forms(secret)[form] + b'"}')
    assert not live.found_in(b'{"note":"nothing of interest, and quite long: ' + b"x" * 3000 + b'"}')


@given(st.text(min_size=3, max_size=60), st.binary(max_size=7), st.binary(max_size=7))
def test_base64_of_anything_around_it_is_found(secret: str, before: bytes, after: bytes) -> None:
    raw = secret.encode("utf-8", "surrogatepass")
    live = LiveSecrets()
    live.add([secret], until=math.inf)

    assert live.found_in(base64.b64encode(before + raw + after))
    assert live.found_in(base64.urlsafe_b64encode(before + raw + after).rstrip(b"="))


@pytest.mark.parametrize(
    ("kind", "open_ones"),
    [
        ("jwt", {"header"}),
        ("static", {"header"}),
        ("login", {"username", "host", "port", "database"}),
        ("vault-kv", set()),
        ("vault-pki", {"certificate", "ca_chain", "serial_number"}),
    ],
)
def test_only_these_fields_of_a_credential_may_be_shown(kind: str, open_ones: set[str]) -> None:
    """A tool may well return the name of its database, or the number of its port."""
    fields = {"token", "value", "password", "private_key", "header", "username", "host", "port", "database",
              "certificate", "ca_chain", "serial_number", "anything"}  # fmt: skip

    assert fields & not_secret(kind) == open_ones | ({"username"} if kind in {"jwt", "static"} else set())


def test_secrets_are_forgotten_when_they_are_dead() -> None:
    live = LiveSecrets()
    live.add(["expires-late"], until=time.monotonic() + 3_600)
    live.add(["has-expired"], until=time.monotonic())
    live.add(["dead-by-redeem"], until=math.inf)
    live.add(["lives-on"], until=math.inf)
    assert live.found_in(b"expires-late")
    live.forget(["dead-by-redeem", "expires-late"])

    assert not live.found_in(b"has-expired, dead-by-redeem, expires-late")
    assert live.found_in(b"it lives-on")
    live.add(["", "another"], until=math.inf)
    assert not live.found_in(b"")
    assert repr(live) == "LiveSecrets(2 known)"


def test_redacted_text_has_none_left() -> None:
    live = LiveSecrets()
    live.add(["swordfish", "swordfish-2"], until=math.inf)

    assert live.redacted("nothing") == "nothing"
    assert live.redacted("tried swordfish-2, then swordfish") == "tried [secret], then [secret]"
    assert live.redacted(f"sent {base64.b64encode(b'swordfish').decode()}") == "[secret]"


@faces
@pytest.mark.parametrize("form", ["itself", "as a key", "basic auth", "percent", "hex"])
async def test_result_with_a_live_secret_is_withheld(face: Face, broker: ScriptedBroker, form: str) -> None:
    def leak() -> str:
        return forms(stepgrant.current_credential().field("token"))[form].decode()

    with pytest.raises(errors.SecretInResult) as caught:
        async with face.run(**broker.at()):
            await face.call(face.tool(leak))

    assert caught.value.step == "leak-1"
    assert [seen.body for seen in broker.calls("complete")] == [{"epoch": 1, "attempt": 1, "withheld": True}]
    assert TOKEN not in str([seen.body for seen in broker.seen])


@faces
async def test_error_text_with_a_live_secret_is_redacted(face: Face, broker: ScriptedBroker) -> None:
    def leak() -> None:
        raise ValueError(f"401 for token {stepgrant.current_credential().field('token')}")

    with pytest.raises(ValueError, match=TOKEN):
        async with face.run(**broker.at()):
            await face.call(face.tool(leak))

    assert broker.calls("fail")[0].body["error"] == "ValueError: 401 for token [secret]"


@faces
async def test_static_secret_of_an_earlier_step_is_still_a_secret(face: Face, broker: ScriptedBroker) -> None:
    static = released_credential(
        kind="static", fields={"value": "an-api-key-of-ours", "header": "X-Key"}, revocation="none"
    )
    broker.will("begin", Reply(granted("use-1", credential=static, issued_at=5_000, expires_at=5_001)))
    use = face.tool(lambda: None, name="use")
    tell = face.tool(lambda: {"key": "an-api-key-of-ours", "header": "X-Key"}, name="tell")
    async with face.run(**broker.at()):
        await face.call(use)
        await asyncio.sleep(0.002)  # its grant has expired; the key has not
        with pytest.raises(errors.SecretInResult):
            await face.call(tell)


@faces
async def test_token_that_died_with_its_step_is_no_secret_any_more(face: Face, broker: ScriptedBroker) -> None:
    kept: list[str] = []
    use = face.tool(lambda: kept.append(stepgrant.current_credential().field("token")), name="use")
    tell = face.tool(lambda: kept[0], name="tell")
    broker.will("begin", Reply(granted("use-1", credential=released_credential(fields={"token": "an.earlier.token"}))))
    async with face.run(**broker.at()):
        await face.call(use)
        assert await face.call(tell) == "an.earlier.token"

    offline = granted("use-1", credential=released_credential(fields={"token": "an.offline.token"}), redeem="optional")
    broker.will("begin", Reply(offline))
    kept.clear()
    async with face.run(**broker.at()):
        await face.call(use)
        with pytest.raises(errors.SecretInResult):
            await face.call(tell)
    LIVE.forget(["an.offline.token"])


@faces
async def test_recorded_step_and_run_result_are_searched_too(face: Face, broker: ScriptedBroker) -> None:
    kept = face.tool(lambda: None, name="kept")
    live = released_credential(fields={"token": "lives.till.expiry"})
    broker.will("begin", Reply(granted("kept-1", credential=live, redeem="optional")))
    async with face.run(**broker.at()) as held:
        await face.call(kept)
        with pytest.raises(errors.SecretInResult):
            await face.step("plan", lambda: {"use": "lives.till.expiry"})
        with pytest.raises(errors.SecretInResult):
            await face.call(held.complete, {"leak": "lives.till.expiry"})
    LIVE.forget(["lives.till.expiry"])

    assert broker.calls("record")[0].body == {
        "epoch": 1,
        "name": "plan",
        "args": {},
        "withheld": True,
        "id_source": "ordinal",
    }
    assert "lives.till.expiry" not in str([seen.body for seen in broker.seen])
