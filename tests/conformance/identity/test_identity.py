"""One suite for the port `Identity`, run over every adapter of `adapters.py`.

A token proves one workload, to this broker only, with names that it cannot choose, and is kept nowhere.
"""

from __future__ import annotations

import base64
import contextlib
import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.identity.adapters import ADAPTERS, JKT, NOW_S, Kind
from forging import b64, es256, part
from stepgrant.canonical import digest_bytes
from stepgrant_broker.domain.errors import InvalidToken
from stepgrant_broker.domain.ports import Attested
from trusted import BROKER


@pytest.fixture(params=sorted(ADAPTERS))
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    made: Kind = ADAPTERS[request.param](tmp_path)
    return made


async def attest(kind: Kind, token: str, *, now_s: float = NOW_S) -> Attested:
    return await kind.identity.attest(token, int(now_s * 1000))


async def refused(kind: Kind, token: str, *, now_s: float = NOW_S) -> str:
    with pytest.raises(InvalidToken) as caught:
        await attest(kind, token, now_s=now_s)
    assert caught.value.code == "invalid_token"
    assert [piece for piece in token.split(".") if len(piece) > 9 and piece in str(caught.value)] == []
    return caught.value.detail


async def test_a_right_token_attests_and_is_kept_as_a_digest_only(kind: Kind) -> None:
    token = kind.token()
    seen = await attest(kind, token)

    assert (seen.workload.tenant, seen.workload.name, seen.workload.agents) == ("acme", "refunds", ("agent",))
    assert (seen.method, seen.workload.kind) == (kind.method, kind.method)
    assert seen.subject
    assert seen.trust_domain
    assert seen.workload.id.startswith("wkl_")
    assert seen.evidence == digest_bytes(token.encode())
    assert token not in repr(seen)


async def test_it_is_dead_when_its_id_may_be_forgotten(kind: Kind) -> None:
    token = kind.token()
    seen = await attest(kind, token)

    assert seen.dead_at > NOW_S * 1000
    assert seen.not_after in {None, seen.dead_at}
    assert "expired" in await refused(kind, token, now_s=seen.dead_at / 1000)
    assert (await attest(kind, token, now_s=seen.dead_at / 1000 - 1)).evidence == seen.evidence


@pytest.mark.parametrize(
    "aud", ["https://other.example", BROKER + "/oauth/token", BROKER.upper(), BROKER + "/", "", [], [[]], 5, None, ...],
    ids=repr,
)  # fmt: skip
async def test_a_token_for_somebody_else_is_refused(kind: Kind, aud: object) -> None:
    assert "wrong_audience" in await refused(kind, kind.token(aud=aud))


async def test_a_token_that_others_take_too_is_refused_except_where_the_method_says_otherwise(kind: Kind) -> None:
    token = kind.token(aud=["https://other.example", BROKER])
    if kind.sole_audience:
        assert "wrong_audience" in await refused(kind, token)
    else:
        assert (await attest(kind, token)).workload.name == "refunds"


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": ...}, "malformed"),
        ({"exp": NOW_S - 60}, "expired"),
        ({"exp": "tomorrow"}, "malformed"),
        ({"exp": NOW_S + 60.5}, "malformed"),
        ({"exp": True}, "malformed"),
        ({"exp": -1}, "malformed"),
        ({"iat": NOW_S + 60, "exp": NOW_S + 120}, "not_yet_valid"),
        ({"iat": "now"}, "malformed"),
        ({"nbf": NOW_S + 3600}, "not_yet_valid"),
        ({"sub": ...}, ""),
        ({"sub": ""}, ""),
        ({"sub": 5}, ""),
        ({"sub": ["refunds"]}, ""),
    ],
    ids=count(),
)
async def test_a_wrong_claim_is_refused(kind: Kind, claims: dict[str, Any], reason: str) -> None:
    assert reason in await refused(kind, kind.token(**claims))


async def test_a_token_that_lives_too_long_is_refused(kind: Kind) -> None:
    assert (await attest(kind, kind.token(iat=NOW_S, exp=NOW_S + kind.lifetime_s))).workload.name == "refunds"
    assert "lifetime" in await refused(kind, kind.token(iat=NOW_S, exp=NOW_S + kind.lifetime_s + 1))
    assert "lifetime" in await refused(kind, kind.token(iat=NOW_S, exp=NOW_S - 1))


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"alg": "none"}, "bad_algorithm"),
        ({"alg": "HS256"}, "bad_algorithm"),
        ({"alg": "ES512"}, "bad_algorithm"),
        ({"alg": ...}, "malformed"),
        ({"alg": 5}, "malformed"),
        ({"typ": "at+jwt"}, "wrong_type"),
        ({"typ": "dpop+jwt"}, "wrong_type"),
        ({"typ": 5}, "wrong_type"),
        ({"crit": ["x"], "x": 1}, "unknown_critical"),
    ],
    ids=count(),
)
async def test_a_wrong_header_is_refused(kind: Kind, header: dict[str, Any], reason: str) -> None:
    # A key refuses an algorithm that is not its own, an issuer's list one that it does not hold: the same answer.
    told = await refused(kind, kind.token(header=header))
    assert reason in told or (header == {"alg": "ES512"} and "unknown_key" in told)


@pytest.mark.parametrize("iss", ["https://evil.example", BROKER, "", 5, None, ...], ids=repr)
async def test_another_issuer_is_refused_whoever_chose_the_adapter(kind: Kind, iss: object) -> None:
    if "iss" in kind.right:
        assert "wrong_issuer" in (told := await refused(kind, kind.token(iss=iss))) or "wrong_subject" in told


async def test_typ_may_be_absent(kind: Kind) -> None:
    assert (await attest(kind, kind.token(header={"typ": ...}))).workload.name == "refunds"


async def test_another_key_is_refused_whatever_the_header_brings(kind: Kind) -> None:
    other = es256()
    for more in ({}, {"jwk": other.jwk}, {"jku": "https://evil.example/jwks"}, {"x5u": "https://evil.example"}):
        await refused(kind, kind.token(by=other, header={"alg": kind.key.alg, **more}))


async def test_a_changed_token_is_refused(kind: Kind) -> None:
    header, claims, signature = kind.token().split(".")
    more = json.loads(base64.urlsafe_b64decode(claims + "==")) | {"admin": True}
    for changed in (
        f"{header}.{b64(json.dumps(more).encode())}.{signature}",
        f"{header}.{claims}.{signature[::-1]}",
        f"{header}.{claims}.",
        f"{header}.{claims}",
        f"{header}.{claims}.{signature}.",
        "",
    ):
        await refused(kind, changed)


async def test_a_claim_that_stands_twice_is_refused(kind: Kind) -> None:
    text = json.dumps({k: v for k, v in kind.right.items() if v is not ...})
    twice = text[:-1] + ', "sub": "somebody else"}'
    header = part({"alg": kind.key.alg, **kind.header})
    signing_input = f"{header}.{b64(twice.encode())}"
    token = f"{signing_input}.{b64(kind.key.sign(signing_input.encode()))}"

    assert "duplicate_key" in await refused(kind, token)


async def test_names_do_not_come_from_the_token(kind: Kind) -> None:
    claimed: dict[str, Any] = {
        "tenant": "other",
        "workload": "root",
        "agents": ["admin"],
        "agent": "admin",
        "name": "root",
    }
    seen = await attest(kind, kind.token(**claimed))

    assert (seen.workload.tenant, seen.workload.name, seen.workload.agents) == ("acme", "refunds", ("agent",))
    assert not set(seen.attributes.values()) & {"other", "root", "admin"}


async def test_the_same_identity_is_always_the_same_workload(kind: Kind) -> None:
    one, two = await attest(kind, kind.token()), await attest(kind, kind.token(jti="fedcba9876543210"))
    assert (one.workload, one.subject) == (two.workload, two.subject)
    assert one.evidence != two.evidence
    if kind.issued:
        other = await attest(kind, kind.token(**kind.other_subject))
        assert (other.workload.id != one.workload.id, other.workload.name) == (True, "refunds")
        assert other.subject != one.subject


async def test_a_token_that_names_a_dpop_key_says_so(kind: Kind) -> None:
    assert (await attest(kind, kind.token(cnf={"jkt": JKT}))).jkt == JKT
    for otherwise in ({"x5t#S256": JKT}, {"jwk": es256().jwk}, {"jkt": 5}, {}, "jkt", None):
        await refused(kind, kind.token(cnf=otherwise))


async def test_only_what_counts_once_has_an_id_to_be_refused(kind: Kind) -> None:
    """Files hold one issued token for many exchanges; an assertion is made for each."""
    seen = await attest(kind, kind.token())
    assert seen.replay == (None if kind.issued else "0123456789abcdef")


def rubbish(kind: Kind) -> list[str]:
    """Texts that are no tokens, and tokens by the right key with rubbish in them."""
    tokens: list[str] = []
    json_value = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    )

    @given(
        text=st.text(max_size=200) | st.binary(max_size=200).map(b64),
        claim=st.sampled_from(sorted({*kind.right, "nbf", "cnf", "kubernetes.io"})),
        member=st.sampled_from(["typ", "kid", "alg", "x"]),
        value=json_value,
    )
    def collect(text: str, claim: str, member: str, value: Any) -> None:  # noqa: ANN401 - any JSON
        header = {"alg": kind.key.alg, **kind.header}
        by_claims = kind.key.jws(header, json.dumps({**kind.right, claim: value}).encode())
        by_header = kind.key.jws({**header, member: value}, {**kind.right})
        tokens.extend([text, f"{text}.{text}.{text}", by_claims, by_header])

    collect()
    return tokens


async def test_rubbish_raises_nothing_foreign(kind: Kind) -> None:
    for token in rubbish(kind):
        with contextlib.suppress(InvalidToken):
            await attest(kind, token)
