"""The issuer `static`: only the secret that policy names, only as an operator set it."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest

from changing import replace
from conformance.issuer.adapters import ORDER, SECRET, Secrets
from stepgrant_broker.domain import aad
from stepgrant_broker.domain.errors import IssuerRefused, IssuerUnavailable
from stepgrant_broker.domain.ports import GrantOrder, Minted, Revocation, SecretRecord
from stepgrant_broker.issuers.static import StaticIssuer
from stepgrant_broker.signing.wrap import LocalWrap

NAMED = replace(ORDER, params={"secret": "crm"})


@pytest.fixture
def wrap(tmp_path: Path) -> LocalWrap:
    return LocalWrap.open(tmp_path / "keys", create=True)


def record(wrap: LocalWrap, *, tenant: str = "acme", name: str = "crm", plain: bytes = SECRET.encode()) -> SecretRecord:
    return SecretRecord(tenant, name, ("crm.example",), "X-Api-Key", wrap.wrap(plain, aad.static_secret(tenant, name)))


async def mint(wrap: LocalWrap, *records: SecretRecord, order: GrantOrder = NAMED) -> Minted:
    return await StaticIssuer(Secrets(*records), wrap).mint(order, None)


async def test_it_gives_the_secret_with_its_header_and_hosts(wrap: LocalWrap) -> None:
    minted = await mint(wrap, record(wrap))
    assert dict(minted.fields) == {"value": SECRET, "header": "X-Api-Key"}
    assert (minted.kind, minted.hosts, minted.expires_at) == ("static", ("crm.example",), NAMED.expires_at)


def test_it_promises_no_revocation(wrap: LocalWrap) -> None:
    issuer = StaticIssuer(Secrets(), wrap)
    assert (issuer.revocation, issuer.max_ttl_s, issuer.tokens_of_ours) == (Revocation.NONE, 300, False)


@pytest.mark.parametrize("params", [{}, {"secret": ""}, {"secret": 7}, {"secret": None}], ids=count())
async def test_only_policy_names_the_secret(wrap: LocalWrap, params: dict[str, Any]) -> None:
    with pytest.raises(IssuerRefused, match=r"grant\.params\.secret"):
        await mint(wrap, record(wrap), order=replace(ORDER, params=params))


async def test_other_parameters_are_refused(wrap: LocalWrap) -> None:
    with pytest.raises(IssuerRefused, match="no other parameters"):
        await mint(wrap, record(wrap), order=replace(ORDER, params={"secret": "crm", "hosts": ["evil.example"]}))


async def test_a_secret_that_is_not_there_is_refused(wrap: LocalWrap) -> None:
    with pytest.raises(IssuerRefused, match="there is no secret crm"):
        await mint(wrap)


async def test_a_removed_secret_is_refused(wrap: LocalWrap) -> None:
    with pytest.raises(IssuerRefused, match="there is no secret crm"):
        await mint(wrap, replace(record(wrap), removed_at=1))


async def test_another_tenants_secret_is_not_found(wrap: LocalWrap) -> None:
    with pytest.raises(IssuerRefused, match="there is no secret crm"):
        await mint(wrap, record(wrap, tenant="other"))


@pytest.mark.parametrize("changed", [{"tenant": "other"}, {"name": "else"}, {"hosts": ()}], ids=count())
async def test_a_row_that_is_another_one_is_refused(wrap: LocalWrap, changed: dict[str, Any]) -> None:
    secrets = Secrets(record(wrap))
    secrets.records["acme", "crm"] = replace(record(wrap), **changed)
    with pytest.raises(IssuerRefused, match="another one, or without hosts"):
        await StaticIssuer(secrets, wrap).mint(NAMED, None)


async def test_bytes_moved_from_another_secret_do_not_open(wrap: LocalWrap) -> None:
    """Somebody with the database puts the payroll's key into the row of the harmless one."""
    harmless, payroll = record(wrap), record(wrap, name="payroll", plain=b"payroll-key")
    with pytest.raises(IssuerUnavailable) as caught:
        await mint(wrap, replace(harmless, wrapped=payroll.wrapped))
    assert "payroll-key" not in str(caught.value)


async def test_bytes_that_are_no_text_are_never_shown(wrap: LocalWrap) -> None:
    with pytest.raises(IssuerUnavailable) as caught:
        await mint(wrap, record(wrap, plain=b"\xff\xfehunter2"))
    assert caught.value.__cause__ is None
    assert "hunter2" not in repr(caught.value)


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "jwt"},
        {"fields": {"value": SECRET}},
        {"fields": {"value": "", "header": "X"}},
        {"hosts": ()},
        {"lease": "lease-1"},
        {"expires_at": NAMED.expires_at + 1},
    ],
    ids=count(),
)
async def test_its_check_refuses_what_was_not_ordered(wrap: LocalWrap, changed: dict[str, Any]) -> None:
    issuer = StaticIssuer(Secrets(record(wrap)), wrap)
    minted = await issuer.mint(NAMED, None)
    issuer.check(NAMED, minted)
    with pytest.raises(IssuerRefused):
        issuer.check(NAMED, replace(minted, **changed))


async def test_its_check_refuses_an_order_without_a_name(wrap: LocalWrap) -> None:
    issuer = StaticIssuer(Secrets(record(wrap)), wrap)
    minted = await issuer.mint(NAMED, None)
    with pytest.raises(IssuerRefused, match=r"grant\.params\.secret"):
        issuer.check(ORDER, minted)
