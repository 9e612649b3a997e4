"""What a JWT-SVID's claims say, after its signature: each trust domain speaks for itself alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.identity.adapters import NOW_S, issued
from forging import es256
from stepgrant_broker.domain.errors import InvalidToken
from stepgrant_broker.identity.spiffe_jwt import facts_of, split_id
from trusted import claims_of, issuer_table, read_trust, rule_table


def test_another_domain_is_refused_whoever_signed(tmp_path: Path) -> None:
    """A federated domain's bundle must not vouch for ours; also where the token's `iss` chose this issuer."""
    issuer = read_trust(tmp_path, issuer_table("spiffe-jwt"), rule_table("spiffe-jwt")).issuers[0]
    assert facts_of(issuer, claims_of("spiffe-jwt", 0)).facts == {"path": "/agents/refunds"}
    with pytest.raises(InvalidToken, match="wrong_trust_domain"):
        facts_of(issuer, claims_of("spiffe-jwt", 0, sub="spiffe://evil.example/agents/refunds"))


@given(st.text(alphabet="spifeSPIFE:/.-_%@?#aA*\x00\n", max_size=40).map(lambda text: "spiffe://" + text))
def test_an_id_is_exactly_domain_and_path(text: str) -> None:
    parts = split_id(text)
    if parts is not None:
        domain, path = parts
        assert text == f"spiffe://{domain}{path}"
        assert domain == domain.lower()
        assert not {"", ".", ".."} & set(path.split("/")[1:])
        assert not set(text[9:]) & set(":%@?#*\x00\n")


def test_lengths_have_ends() -> None:
    assert split_id("spiffe://" + "a" * 255 + "/x") is not None
    assert split_id("spiffe://" + "a" * 256 + "/x") is None
    assert split_id("spiffe://a/" + "x" * 2037) is not None
    assert split_id("spiffe://a/" + "x" * 2038) is None


async def test_an_issuer_that_the_file_names_must_be_the_tokens(tmp_path: Path) -> None:
    key, named = es256(), "https://spire.example"
    identity = issued("spiffe-jwt", key, tmp_path, issuer=named)
    for iss, admitted in ((named, True), ("https://evil.example", False), (named + "/", False), (..., False)):
        token = key.jws({"alg": "ES256", "kid": "k1"}, claims_of("spiffe-jwt", NOW_S, iss=iss))
        if admitted:
            assert (await identity.attest(token, NOW_S * 1000)).workload.name == "refunds"
        else:
            with pytest.raises(InvalidToken, match="wrong_issuer"):
                await identity.attest(token, NOW_S * 1000)
