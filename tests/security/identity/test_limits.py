"""What limits an identity that was let in: its keys' reach, its rule, its use, and what it tells policy."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest

import stepgrant
from door import Door, trusting
from fakes.served import URL, served
from issuer_process import JWKS, Issuer
from stepgrant.errors import AuthenticationFailed
from stepgrant.testing import TestBroker
from stepgrant_broker.domain.ports import Attested, Identity
from stepgrant_broker.identity.choosing import Identities
from stepgrant_broker.identity.enrolled import EnrolledIdentity
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.wiring.identity import issued_identity
from trusted import claims_of, issuer_table, read_trust, rule_table, trust_text


def claims(answer: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(base64.urlsafe_b64decode(answer["access_token"].split(".")[1] + "==")))


async def test_an_issuer_that_is_out_of_reach_attests_nobody_and_says_when_to_come_back(
    tmp_path: Path, process: Issuer
) -> None:
    process.serve(JWKS, status=500)
    async with served(tmp_path, identities=lambda ports: trusting(ports, process, tmp_path)) as broker:
        door = Door(broker, process)
        door.before = await door.state()
        response = await door.knock(door.token())

        assert (response.status_code, response.json()["error"]) == (503, "temporarily_unavailable")
        assert "HTTP 500" in response.json()["error_description"]
        assert response.headers["retry-after"] == "10"
        assert await door.state() == door.before
        # Who is enrolled needs no issuer.
        assert (await broker.agent()).token


def own(ports: Ports, process: Issuer, folder: Path, *rules: str, **table: Any) -> Identities:  # noqa: ANN401
    """Identities of a broker with this one OIDC issuer."""
    trust = read_trust(folder, issuer_table("oidc", jwks_url=process.url + JWKS, **table), *rules)
    return Identities(EnrolledIdentity(ports.reads, URL), [issued_identity(trust, trust.issuers[0])[0]])


async def test_a_token_for_single_use_counts_once(tmp_path: Path, process: Issuer) -> None:
    process.heal()
    rule = rule_table("oidc")
    async with served(
        tmp_path, identities=lambda ports: own(ports, process, tmp_path, rule, single_use=True)
    ) as broker:
        door = Door(broker, process)
        token = door.token()
        await door.admits(token)
        door.before = await door.state()
        await door.refuses(token, "used before")
        await door.admits(door.token(jti="another"))


async def test_policy_sees_what_the_rule_passes_on_and_nothing_else_of_the_token(
    tmp_path: Path, process: Issuer
) -> None:
    process.heal()
    when = 'subject = "repo/acme/*"\nattributes = { team = "payments" }'
    rule = rule_table("oidc", when, pass_claims=["ref"], audiences=["https://shop.example"])
    async with served(tmp_path, identities=lambda ports: own(ports, process, tmp_path, rule)) as broker:
        door = Door(broker, process)
        seen = claims(await door.admits(door.token(ref="refs/heads/main", secret="x", team="evil")))
        own_claims = seen["stepgrant"]
        assert own_claims["attributes"] == {
            "issuer": "oidc", "name": "refunds", "ref": "refs/heads/main", "team": "payments",
            "workload": seen["client_id"],
        }  # fmt: skip
        assert (own_claims["trust_domain"], seen["sub"]) == ("https://ci.example", "oidc:oidc/repo/acme/refunds")
        door.before = await door.state()
        await door.refuses(door.token(), "passes the claim ref on")
        await door.refuses(door.token(ref=5), "passes the claim ref on")


async def test_other_names_for_an_identity_are_recorded_before_they_count(tmp_path: Path, process: Issuer) -> None:
    process.heal()
    one, two = rule_table("oidc", agents=["agent"]), rule_table("oidc", agents=["agent", "other"])
    async with served(tmp_path, identities=lambda ports: own(ports, process, tmp_path, one)) as broker:
        door = Door(broker, process)
        first = claims(await door.admits(door.token()))
        second = own(broker.ports, process, tmp_path, two)
        attested: Attested = await _attest(second.adapter_of(door.token()), door)
        assert attested.workload.id == first["client_id"]
        assert attested.workload.agents == ("agent", "other")
        before = await broker.entries(None)
        async with broker.replica(identities=second) as again:
            await Door(again, process).admits(door.token())
        assert (await broker.entries(None))[len(before) :] == ["workload_enrolled"]
        rows = (await broker.person("GET", "/v1/workloads")).json()["workloads"]
        assert [row["agents"] for row in rows if row["id"] == first["client_id"]] == [["agent", "other"]]


async def _attest(identity: Identity, door: Door) -> Attested:
    return await identity.attest(door.token(), door.now_s * 1000)


def test_a_rule_that_is_taken_out_admits_nobody_after_the_restart(tmp_path: Path, process: Issuer) -> None:
    process.heal()
    file, identity = tmp_path / "trust.toml", tmp_path / "identity"
    issuer = issuer_table("oidc", jwks_url=process.url + JWKS, tenant="default")
    kid = next(key["kid"] for key in process.published() if (key["use"], key["alg"]) == ("sig", "RS256"))
    identity.write_text(process.sign(claims_of("oidc", int(time.time())), kid=kid), encoding="ascii")
    for rule, admitted in ((rule_table("oidc"), True), (rule_table("oidc", 'subject = "other"'), False)):
        file.write_text(trust_text(issuer, rule), encoding="utf-8")
        broker = TestBroker(tmp_path / "broker", trust_file=file)
        try:
            broker.allow_everything()
            run = stepgrant.run(str(admitted), agent="agent", url=broker.url, identity_file=identity)
            if admitted:
                with run as opened:
                    assert opened.id
            else:
                with pytest.raises(AuthenticationFailed, match="no rule of the trust file"), run:
                    raise AssertionError("it was opened")
        finally:
            broker.close()
