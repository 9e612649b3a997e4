"""One version of one secret of a real Vault: exactly what was ordered, read once, and said to be beyond recall."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from changing import replace
from conformance.issuer.adapters import ORDER
from papers import API_KEY, KvLab, kv_lab
from stepgrant_broker.domain.errors import IssuerRefused, IssuerUnavailable
from stepgrant_broker.domain.ports import GrantOrder, Revocation
from stepgrant_broker.issuers.file import Section, SectionInvalid
from stepgrant_broker.issuers.grant_tokens import policy_name
from stepgrant_broker.issuers.vault_kv import KvConfig

if TYPE_CHECKING:
    from stepgrant_services import VaultServer


@pytest.fixture
async def lab(vault_server: VaultServer, tmp_path: Path) -> AsyncIterator[KvLab]:
    async with kv_lab(vault_server, tmp_path) as made:
        yield made


def ordered(version: float = 1, **params: Any) -> GrantOrder:  # noqa: ANN401 - JSON
    return replace(ORDER, params={"version": version, **params}, redeem="optional")


async def test_the_named_members_of_the_ordered_version_and_nothing_else(lab: KvLab) -> None:
    minted = await lab.mint(ordered())
    lab.issuer.check(ordered(), minted)
    assert (minted.kind, minted.hosts, minted.lease) == ("vault-kv", ("crm.example",), None)
    assert minted.fields == {"username": "agent", "api_key": API_KEY}
    assert lab.issuer.revocation is Revocation.NONE
    assert not await lab.issuer.revoke(tenant="acme", jti=ORDER.jti, handle=None, lease=None, now=ORDER.issued_at)


async def test_a_newer_version_is_given_out_only_when_policy_says_so(lab: KvLab) -> None:
    assert lab.write(username="agent", api_key="sk-made-up-newer") == 2
    assert (await lab.mint(ordered(1))).fields["api_key"] == API_KEY
    assert (await lab.mint(ordered(2))).fields["api_key"] == "sk-made-up-newer"


async def test_another_version_than_ordered_is_caught(lab: KvLab) -> None:
    with pytest.raises(IssuerRefused, match="another version than 2"):
        lab.issuer.check(ordered(2), await lab.mint(ordered(1)))


async def test_a_header_makes_it_a_static_credential(vault_server: VaultServer, tmp_path: Path) -> None:
    async with kv_lab(vault_server, tmp_path, members=("api_key",), header="X-Api-Key") as lab:
        minted = await lab.mint(ordered())
        lab.issuer.check(ordered(), minted)
        assert (minted.kind, minted.fields) == ("static", {"value": API_KEY, "header": "X-Api-Key"})
        with pytest.raises(IssuerRefused, match="goes in the header"):
            lab.issuer.check(ordered(), replace(minted, fields={**minted.fields, "header": "X-Other"}))


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({}, "policy must name the version"),
        ({"version": 0}, "policy must name the version"),
        ({"version": "1"}, "policy must name the version"),
        ({"version": True}, "policy must name the version"),
        ({"version": 1.5}, "policy must name the version"),
        ({"version": 1, "path": "agents/other"}, "no other parameters"),
    ],
)
async def test_what_policy_does_not_name_is_not_read(lab: KvLab, params: dict[str, Any], why: str) -> None:
    lab.server.request("PUT", f"sys/policies/acl/{policy_name(lab.config.name, 'kv')}", {"policy": "# nothing"})
    with pytest.raises(IssuerRefused, match=why):
        await lab.mint(replace(ORDER, params=params))
    assert lab.tokens() == []


async def test_whole_numbers_of_every_engine_are_versions(lab: KvLab) -> None:
    lab.issuer.check(ordered(1.0), await lab.mint(ordered(1.0)))


async def test_versions_that_are_gone_are_named(lab: KvLab) -> None:
    lab.write(username="agent", api_key="second")
    lab.change("delete", 1)
    with pytest.raises(IssuerRefused, match="version 1 of agents/crm was deleted; undelete it"):
        await lab.mint(ordered(1))
    lab.change("undelete", 1)
    assert (await lab.mint(ordered(1))).fields["api_key"] == API_KEY
    lab.change("destroy", 1)
    with pytest.raises(IssuerRefused, match="version 1 of agents/crm was destroyed"):
        await lab.mint(ordered(1))
    with pytest.raises(IssuerRefused, match="there is no version 9 of agents/crm"):
        await lab.mint(ordered(9))
    assert lab.tokens() == []


async def test_a_store_of_version_1_is_named(vault_server: VaultServer, tmp_path: Path) -> None:
    async with kv_lab(vault_server, tmp_path) as lab:
        vault_server.request("DELETE", f"sys/mounts/{lab.config.mount}")
        vault_server.request("POST", f"sys/mounts/{lab.config.mount}", {"type": "kv", "options": {"version": "1"}})
        with pytest.raises(IssuerRefused, match="is no key-value store of version 2"):
            await lab.mint(ordered())
        vault_server.request("POST", lab.config.data_path, {"api_key": "x", "username": "y"})
        with pytest.raises(IssuerRefused, match="did not answer as a key-value store of version 2"):
            await lab.mint(ordered())


@pytest.mark.parametrize("member", [{}, {"api_key": 7}, {"api_key": ""}, {"api_key": {"nested": "x"}}])
async def test_a_member_that_is_no_text_is_named(lab: KvLab, member: dict[str, object]) -> None:
    lab.write(username="agent", **member)
    with pytest.raises(IssuerRefused, match="has no member api_key that is a text"):
        await lab.mint(ordered(2))


async def test_the_grants_own_token_can_do_this_once_and_nothing_else(lab: KvLab) -> None:
    """What the policy that `stepgrant vault setup` writes allows, seen by a token that has it."""
    name = policy_name(lab.config.name, "kv")
    lab.server.request("POST", f"{lab.config.mount}/data/agents/other", {"data": {"x": "y"}})
    body = {"policies": [name], "no_default_policy": True, "num_uses": 1, "ttl": "10s"}

    def token() -> str:
        made: str = lab.server.request("POST", "auth/token/create/stepgrant", body)["auth"]["client_token"]
        return made

    for method, path in [
        ("GET", f"{lab.config.mount}/data/agents/other"),
        ("LIST", f"{lab.config.mount}/metadata/agents"),
        ("POST", lab.config.data_path),
        ("DELETE", lab.config.data_path),
        ("GET", "auth/token/lookup-self"),
        ("POST", "auth/token/create"),
    ]:
        with pytest.raises(Exception, match="403"):
            lab.server.request(method, path, {"data": {}} if method == "POST" else None, token=token())
    once = token()
    assert lab.server.request("GET", lab.config.data_path, token=once)["data"]["data"]["api_key"] == API_KEY
    with pytest.raises(Exception, match="403"):
        lab.server.request("GET", lab.config.data_path, token=once)


async def test_no_token_is_left_whatever_happens(lab: KvLab) -> None:
    await lab.mint(ordered())
    assert lab.tokens() == []
    lab.server.request("PUT", f"sys/policies/acl/{policy_name(lab.config.name, 'kv')}", {"policy": "# nothing"})
    with pytest.raises(IssuerUnavailable) as caught:
        await lab.mint(ordered())
    assert "lacks 'read'" in str(caught.value)
    assert API_KEY not in str(caught.value)
    assert lab.tokens() == []


async def test_vaults_audit_log_says_for_which_step(lab: KvLab, vault_server: VaultServer, tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    vault_server.request("PUT", "sys/audit/for-a-test", {"type": "file", "options": {"file_path": str(log)}})
    try:
        await lab.mint(ordered())
    finally:
        vault_server.request("DELETE", "sys/audit/for-a-test")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    (read,) = [
        event for event in events if event["type"] == "response" and event["request"]["path"] == lab.config.data_path
    ]
    assert read["auth"]["metadata"] == {
        "stepgrant": ORDER.tenant, "run": ORDER.run, "step": ORDER.step, "jti": ORDER.jti,
    }  # fmt: skip
    assert API_KEY not in log.read_text()


def section(**settings: object) -> Section:
    good = {"path": "agents/crm", "hosts": ["crm.example:8443"], "members": ["api_key"]}
    return Section("crm", {**good, **settings})


def test_a_section_of_the_issuers_file() -> None:
    read = KvConfig.read(section(mount="team/kv", max_ttl_s=30))
    assert (read.data_path, read.members, read.header, read.max_ttl_s) == (
        "team/kv/data/agents/crm", ("api_key",), None, 30,
    )  # fmt: skip
    headed = Section("crm", {"path": "a", "hosts": ["h"], "header": "X-Api-Key", "member": "api_key"})
    assert (KvConfig.read(headed).header, KvConfig.read(headed).members) == ("X-Api-Key", ("api_key",))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"path": "../other"}, "path"), ({"path": "/agents/crm"}, "path"), ({"path": "a?version=1"}, "path"),
        ({"hosts": []}, "hosts"), ({"hosts": ["https://crm.example"]}, "hosts"), ({"members": []}, "members"),
        ({"header": "X Api"}, "header"), ({"header": "X-Api-Key"}, "member"), ({"max_ttl_s": 301}, "max_ttl_s"),
    ],
)  # fmt: skip
def test_a_section_that_is_wrong_is_refused_by_name(settings: dict[str, object], named: str) -> None:
    with pytest.raises(SectionInvalid, match=rf"\[issuer.crm\] {named} "):
        KvConfig.read(section(**settings))
