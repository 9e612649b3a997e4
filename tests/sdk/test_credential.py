"""The credential: where it may go, how long, and that it gets nowhere else."""

# ruff: noqa: ANN401 - a test hands on whatever the code under test takes and gives

from __future__ import annotations

import copy
import json
import math
import pickle
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import stepgrant
from faces import Face, faces
from scripted import TOKEN, Reply, ScriptedBroker, granted, scripted
from stepgrant import Credential, errors
from stepgrant._dpop import DpopKey, verify_proof
from stepgrant.credential import end

KEY = DpopKey()
SECRET = 'p"ss\\wörd/+ &=%'


def made(kind: str = "jwt", where: tuple[str, ...] = ("https://tool.example",), **more: Any) -> Credential:
    fields = {"jwt": {"token": TOKEN}, "static": {"value": SECRET, "header": "X-Api-Key"}}.get(
        kind, {"username": "v-agent", "password": SECRET}
    )
    options: dict[str, Any] = {
        "where": where, "idempotency_key": "sg-1", "until": math.inf, "key": KEY, "alive": lambda: None, **more
    }  # fmt: skip
    return Credential(kind, fields, **options)


# --------------------------------------------------------------------------------------------------------- its headers


def test_token_goes_with_a_proof_for_this_request() -> None:
    headers = made().headers("POST", "https://tool.example/refunds?dry=1")

    assert headers["Authorization"] == f"DPoP {TOKEN}"
    assert headers["Idempotency-Key"] == "sg-1"
    proof = verify_proof(
        headers["DPoP"], method="POST", url="https://tool.example/refunds", token=TOKEN, now_s=time.time()
    )
    assert proof.jkt == KEY.jkt
    assert made().headers("POST", "https://tool.example/refunds")["DPoP"] != headers["DPoP"]


def test_static_secret_goes_in_its_own_header() -> None:
    headers = made("static", ("tool.example",)).headers("GET", "https://tool.example/refunds")

    assert headers == {"X-Api-Key": SECRET, "Idempotency-Key": "sg-1"}


def test_login_is_no_header() -> None:
    login = made("postgres", ("db.example",))

    assert (login.field("username"), login.field("password")) == ("v-agent", SECRET)
    with pytest.raises(errors.CredentialMisuse, match="kind postgres is no header; use its fields"):
        login.headers("GET", "https://db.example")
    with pytest.raises(errors.CredentialMisuse, match="no field 'token'; it has password, username"):
        login.field("token")


# --------------------------------------------------------------------------------------------------------- its origins


@pytest.mark.parametrize(
    ("where", "url"),
    [
        ("https://tool.example", "https://tool.example/a/b?c=d"),
        ("https://tool.example", "HTTPS://Tool.Example:443/"),
        ("https://tool.example/mcp", "https://tool.example/other"),
        ("http://127.0.0.1:9001", "http://127.0.0.1:9001/keys"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443/"),
        ("tool.example", "https://tool.example/"),
        ("tool.example:8443", "https://tool.example:8443/"),
        ("127.0.0.1:9001", "http://127.0.0.1:9001/"),
        ("localhost", "http://localhost/"),
        ("[::1]:9001", "http://[::1]:9001/"),
    ],
)
def test_origin_of_the_grant(where: str, url: str) -> None:
    assert made(where=(where,)).headers("GET", url)["Authorization"] == f"DPoP {TOKEN}"
    assert made(where=("https://other.example", where)).headers("GET", url)["Authorization"] == f"DPoP {TOKEN}"


@pytest.mark.parametrize(
    ("where", "url"),
    [
        ("https://tool.example", "https://evil.example/"),
        ("https://tool.example", "http://tool.example/"),
        ("https://tool.example", "https://tool.example:8443/"),
        ("https://tool.example", "https://tool.example.evil.example/"),
        ("https://tool.example", "https://sub.tool.example/"),
        ("https://tool.example", "https://tool.example@evil.example/"),
        ("https://tool.example", "https://evil.example\\@tool.example/"),
        ("https://tool.example", "//tool.example/"),
        ("https://tool.example", "/refunds"),
        ("https://tool.example", "https://tool.example\n/"),
        ("https://tool.example", "ftp://tool.example/"),
        ("https://tool.example", ""),
        ("http://127.0.0.1:9001", "http://127.0.0.1:9002/"),
        ("tool.example", "http://tool.example/"),
        ("tool.example", "https://tool.example:8443/"),
        ("tool.example:8443", "https://tool.example/"),
        ("tool.example:8443", "http://tool.example:8443/"),
        ("127.0.0.1:9001", "http://127.0.0.1:9002/"),
        ("urn:stepgrant:tool:charge", "https://tool.example/"),
        ("urn:stepgrant:tool:charge", "https://urn/"),
        ("tool.example/path", "https://tool.example/"),
        ("a@tool.example", "https://tool.example/"),
        ("https://", "https://tool.example/"),
        ("tool.example:port", "https://tool.example/"),
    ],
)
@pytest.mark.parametrize("kind", ["jwt", "static"])
def test_other_origin_is_refused(kind: str, where: str, url: str) -> None:
    with pytest.raises(errors.CredentialMisuse) as caught:
        made(kind, (where,)).headers("GET", url)

    assert TOKEN not in str(caught.value)
    assert SECRET not in str(caught.value)


def test_grant_without_an_origin_says_what_to_do() -> None:
    with pytest.raises(errors.CredentialMisuse, match="no origin: let policy name an audience for this tool"):
        made(where=()).headers("GET", "https://tool.example/")


# --------------------------------------------------------------------------------------------------------- its life


USES: list[Callable[[Credential], object]] = [
    lambda it: it.headers("GET", "https://tool.example/"),
    lambda it: it.field("token"),
]


@pytest.mark.parametrize("use", USES, ids=["headers", "field"])
def test_expired(use: Callable[[Credential], object]) -> None:
    with pytest.raises(errors.CredentialMisuse, match="this credential has expired"):
        use(made(until=time.monotonic() - 0.001))


@pytest.mark.parametrize("use", USES, ids=["headers", "field"])
def test_after_its_step(use: Callable[[Credential], object]) -> None:
    over = made()
    assert end(over) == [TOKEN]
    with pytest.raises(errors.CredentialMisuse, match="this credential's step is over"):
        use(over)
    assert end(over) == []


@pytest.mark.parametrize("use", USES, ids=["headers", "field"])
def test_of_a_holder_that_was_fenced(use: Callable[[Credential], object]) -> None:
    def fenced() -> None:
        raise errors.StaleEpoch("another process holds the run")

    with pytest.raises(errors.StaleEpoch):
        use(made(alive=fenced))


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ScriptedBroker]:
    with scripted(tmp_path) as made:
        yield made


@faces
async def test_life_is_counted_here_and_not_by_the_brokers_clock(face: Face, broker: ScriptedBroker) -> None:
    """The broker's times may be years away from ours; only their difference counts, from before it was asked for."""
    kept = []

    def lives() -> None:
        kept.append(stepgrant.current_credential())
        assert kept[0].field("token") == TOKEN

    def has_expired() -> None:
        time.sleep(0.002)
        with pytest.raises(errors.CredentialMisuse, match="expired"):
            stepgrant.current_credential().field("token")

    broker.will("begin", Reply(granted("lives-1", issued_at=5_000, expires_at=5_000 + 3_600_000)))
    broker.will("begin", Reply(granted("has_expired-1", issued_at=5_000, expires_at=5_001)))
    async with face.run(**broker.at()):
        await face.call(face.tool(lives))
        await face.call(face.tool(has_expired))
    with pytest.raises(errors.CredentialMisuse, match="step is over"):
        kept[0].field("token")


# ------------------------------------------------------------------------------------------------------ not elsewhere


@pytest.mark.parametrize(
    "copying",
    [pickle.dumps, copy.copy, copy.deepcopy, lambda it: it.__getstate__(), lambda it: it.__reduce__()],
    ids=["pickle", "copy", "deepcopy", "getstate", "reduce"],
)
@pytest.mark.parametrize("kind", ["jwt", "static"])
def test_neither_pickled_nor_copied(kind: str, copying: Callable[[Credential], object]) -> None:
    with pytest.raises(TypeError):
        copying(made(kind))


@pytest.mark.parametrize("kind", ["jwt", "static", "postgres"])
def test_no_text_of_it_shows_the_secret(kind: str) -> None:
    it = made(kind)
    with pytest.raises(errors.CredentialMisuse) as caught:
        it.headers("GET", "https://evil.example/")
    texts = [
        repr(it), str(it), f"{it}", f"{it!r:>5}", repr([it]), repr({"cred": it}), str(RuntimeError(it)),
        "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()),
    ]  # fmt: skip
    for text in texts:
        assert TOKEN not in text
        assert SECRET not in text
        assert repr(SECRET)[1:-1] not in text
    assert not hasattr(it, "__dict__")
    assert it != made(kind)
    with pytest.raises(TypeError):
        json.dumps(it)
