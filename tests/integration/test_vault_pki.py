"""Certificates of a real CA over the agent's own key: exactly what was ordered, or nothing; and a real handshake."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from changing import replace
from conformance.issuer.adapters import ORDER
from mtls import Authority, mutual_tls
from papers import PKI_ROLE, URI, PkiLab, pki_lab
from stepgrant._own_key import OwnKey
from stepgrant_broker.domain.errors import IssuerRefused, IssuerUnavailable
from stepgrant_broker.domain.ports import Minted, Revocation
from stepgrant_broker.issuers.file import Section, SectionInvalid
from stepgrant_broker.issuers.grant_tokens import policy_name
from stepgrant_broker.issuers.vault_pki import PkiConfig

if TYPE_CHECKING:
    from stepgrant_services import VaultServer


@pytest.fixture
async def lab(vault_server: VaultServer, tmp_path: Path) -> AsyncIterator[PkiLab]:
    async with pki_lab(vault_server, tmp_path) as made:
        yield made


def read(minted: Minted) -> x509.Certificate:
    return x509.load_pem_x509_certificate(minted.fields["certificate"].encode())


async def test_the_certificate_is_over_the_agents_key_with_the_ordered_name(lab: PkiLab) -> None:
    order = lab.order(ORDER)
    minted = await lab.mint(order)
    lab.issuer.check(order, minted)
    certificate = read(minted)
    assert certificate.public_key() == lab.own.private.public_key()
    assert certificate.subject == x509.Name([])
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == [URI]
    assert order.issued_at < minted.expires_at <= order.expires_at
    assert minted.lease == minted.fields["serial_number"]
    assert lab.issuer.revocation is Revocation.EXPIRY


async def test_it_opens_a_real_connection(lab: PkiLab, tmp_path: Path) -> None:
    minted = await lab.mint(lab.order(ORDER))
    with mutual_tls(tmp_path, lab.ca_pem) as target:
        context = lab.own.client_context(minted.fields["certificate"], target.ca_file)
        port = int(target.url.rpartition(":")[2])
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        ):
            secure.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: secure.recv(4096), b""))
    assert URI.encode() in answer


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({"uri_sans": ["spiffe://acme/b", "spiffe://acme/a"]}, ["spiffe://acme/a", "spiffe://acme/b"]),
        ({"dns_sans": ["one.agents.example"]}, ["one.agents.example"]),
        ({"uri_sans": [URI], "common_name": "one.agents.example"}, [URI]),
    ],
)
async def test_names_are_policys(lab: PkiLab, params: dict[str, Any], names: list[str]) -> None:
    order = lab.order(ORDER, params={"role": PKI_ROLE, **params})
    minted = await lab.mint(order)
    lab.issuer.check(order, minted)
    found = read(minted).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert sorted(name.value for name in found) == names


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({}, "policy must name a role"),
        ({"role": "admins", "uri_sans": [URI]}, "policy must name a role"),
        ({"role": PKI_ROLE}, "policy must name whom the certificate is for"),
        ({"role": PKI_ROLE, "uri_sans": URI}, "is a list of at most"),
        ({"role": PKI_ROLE, "uri_sans": [URI, URI]}, "or one twice"),
        ({"role": PKI_ROLE, "uri_sans": [f"{URI},spiffe://acme/root"]}, "no such name"),
        ({"role": PKI_ROLE, "uri_sans": ["nonsense"]}, "no such name"),
        ({"role": PKI_ROLE, "dns_sans": ["*.agents.example"]}, "no such name"),
        ({"role": PKI_ROLE, "uri_sans": [URI], "common_name": "a\nb"}, "common_name is 1 to 64"),
        ({"role": PKI_ROLE, "uri_sans": [URI], "not_after": "2099-01-01T00:00:00Z"}, "no other parameters"),
    ],
)
async def test_what_policy_may_not_order_is_refused_before_anything_is_made(
    lab: PkiLab, params: dict[str, Any], why: str
) -> None:
    with pytest.raises(IssuerRefused, match=why):
        await lab.issuer.intend(lab.order(ORDER, params=params))
    assert lab.tokens() == []


async def test_without_a_request_it_says_what_to_declare(lab: PkiLab) -> None:
    with pytest.raises(IssuerRefused, match="declare the tool with certificate=True"):
        await lab.issuer.intend(lab.order(ORDER, csr=None))
    assert lab.tokens() == []


async def test_a_name_that_the_role_does_not_allow_is_refused_by_vault(lab: PkiLab) -> None:
    with pytest.raises(IssuerRefused, match="Vault refused POST"):
        await lab.mint(lab.order(ORDER, params={"role": PKI_ROLE, "uri_sans": ["spiffe://evil/agent"]}))


def selfish(own: ec.EllipticCurvePrivateKey) -> str:
    """A request in which an agent asks for names of its own."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root.agents.example")])
    )
    wanted = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://acme/root")])
    made = builder.add_extension(wanted, critical=False).sign(own, hashes.SHA256())
    return made.public_bytes(Encoding.PEM).decode()


async def test_an_agent_cannot_name_itself(lab: PkiLab) -> None:
    order = lab.order(ORDER, csr=selfish(lab.own.private))
    minted = await lab.mint(order)
    lab.issuer.check(order, minted)
    assert read(minted).subject == x509.Name([])


@pytest.mark.parametrize("setting", ["use_csr_sans", "use_csr_common_name"])
async def test_a_role_that_lets_an_agent_name_itself_is_caught(lab: PkiLab, setting: str) -> None:
    lab.role(**{setting: True})
    order = lab.order(ORDER, csr=selfish(lab.own.private), params={"role": PKI_ROLE, "dns_sans": ["a.agents.example"]})
    minted = await lab.mint(order)
    with pytest.raises(IssuerRefused, match="other names than ordered; see the role's use_csr_sans"):
        lab.issuer.check(order, minted)


async def test_a_certificate_that_could_sign_others_is_caught(lab: PkiLab) -> None:
    lab.role(key_usage=["DigitalSignature", "CertSign"])
    order = lab.order(ORDER)
    minted = await lab.mint(order)
    with pytest.raises(IssuerRefused, match="could sign others"):
        lab.issuer.check(order, minted)


async def test_a_certificate_over_another_key_is_caught(lab: PkiLab) -> None:
    order = lab.order(ORDER)
    minted = await lab.mint(order)
    with pytest.raises(IssuerRefused, match="over another key than the agent's"):
        lab.issuer.check(replace(order, csr=OwnKey().request.pem), minted)


async def test_a_certificate_of_another_ca_than_the_one_beside_it_is_caught(lab: PkiLab) -> None:
    order = lab.order(ORDER)
    minted = await lab.mint(order)
    other = replace(minted, fields={**minted.fields, "ca_chain": Authority().pem})
    with pytest.raises(IssuerRefused, match="no certificate that its own CA signed"):
        lab.issuer.check(order, other)


async def test_a_longer_life_is_caught(lab: PkiLab) -> None:
    order = lab.order(ORDER, 60)
    minted = await lab.mint(order)
    shorter = replace(order, expires_at=order.expires_at - 40_000)
    for claimed in (minted.expires_at, shorter.expires_at):
        with pytest.raises(IssuerRefused, match="ends at another time"):
            lab.issuer.check(shorter, replace(minted, expires_at=claimed))


async def test_another_serial_number_is_caught(lab: PkiLab) -> None:
    order = lab.order(ORDER)
    minted = await lab.mint(order)
    other = replace(minted, fields={**minted.fields, "serial_number": "01:02"}, lease="01:02")
    with pytest.raises(IssuerRefused, match="another serial number"):
        lab.issuer.check(order, other)
    with pytest.raises(IssuerRefused, match="its serial number is its lease"):
        lab.issuer.check(order, replace(minted, lease=None))


async def test_the_roles_maximum_holds(lab: PkiLab) -> None:
    """`not_after` would get past it; a grant's own token may not send that."""
    lab.role(max_ttl="20s")
    order = lab.order(ORDER, 300)
    minted = await lab.mint(order)
    lab.issuer.check(order, minted)
    assert minted.expires_at <= order.issued_at + 25_000
    body = {"policies": [policy_name(lab.config.name, PKI_ROLE)], "no_default_policy": True, "ttl": "30s"}
    made = lab.server.request("POST", "auth/token/create/stepgrant", body)["auth"]
    request = {"csr": lab.own.request.pem, "uri_sans": URI, "exclude_cn_from_sans": True, "format": "pem"}
    path = f"{lab.config.mount}/sign/{PKI_ROLE}"
    signed = lab.server.request("POST", path, {**request, "ttl": "10s"}, token=made["client_token"])
    assert signed["data"]["serial_number"]
    for more in (
        {"not_after": "2099-01-01T00:00:00Z"}, {"ip_sans": "10.0.0.1"}, {"other_sans": "1.2.3;UTF8:x"},
        {"exclude_cn_from_sans": False}, {"serial_number": "x"},
    ):  # fmt: skip
        with pytest.raises(Exception, match="403"):
            lab.server.request("POST", path, {**request, **more}, token=made["client_token"])
    for other in (f"{lab.config.mount}/issue/{PKI_ROLE}", f"{lab.config.mount}/sign-verbatim"):
        with pytest.raises(Exception, match="403"):
            lab.server.request("POST", other, request, token=made["client_token"])
    lab.server.request("POST", "auth/token/revoke-accessor", {"accessor": made["accessor"]})


async def test_revoking_puts_it_on_vaults_list_ends_the_token_and_confirms_nothing(lab: PkiLab) -> None:
    order = lab.order(ORDER)
    handle = await lab.issuer.intend(order)
    minted = await lab.issuer.mint(order, handle)
    assert lab.tokens() != []
    assert lab.revoked_at(minted.lease or "") == 0
    for _ in range(2):
        given = {
            "tenant": order.tenant,
            "jti": order.jti,
            "handle": handle,
            "lease": minted.lease,
            "now": order.issued_at,
        }
        assert not await lab.issuer.revoke(**given)  # type: ignore[arg-type]  # texts
        assert lab.revoked_at(minted.lease or "") > 0
        assert lab.tokens() == []


async def test_an_intent_that_is_taken_back_mints_nothing(lab: PkiLab) -> None:
    order = lab.order(ORDER)
    handle = await lab.issuer.intend(order)
    assert not await lab.issuer.revoke(
        tenant=order.tenant, jti=order.jti, handle=handle, lease=None, now=order.issued_at
    )
    assert lab.tokens() == []
    with pytest.raises(IssuerUnavailable):
        await lab.issuer.mint(order, handle)


async def test_a_role_with_leases_is_refused(lab: PkiLab) -> None:
    lab.role(generate_lease=True)
    with pytest.raises(IssuerRefused, match="set generate_lease to false"):
        await lab.mint(lab.order(ORDER))
    lab.clean()
    lab.server.request("PUT", f"sys/leases/revoke-prefix/{lab.config.mount}", {"sync": True})


async def test_the_probe_names_what_is_wrong(lab: PkiLab) -> None:
    assert await lab.config.probe(lab.vault) == ()
    lab.role(generate_lease=True, use_csr_sans=True, allow_any_name=True, server_flag=True)
    said = " ".join(await lab.config.probe(lab.vault))
    for part in ("generate_lease", "use_csr_sans", "allow_any_name", "server_flag"):
        assert part in said
    lab.server.request("DELETE", f"{lab.config.mount}/roles/{PKI_ROLE}")
    assert "make" in (await lab.config.probe(lab.vault))[0]


def test_a_section_of_the_issuers_file() -> None:
    read_one = PkiConfig.read(Section("mesh", {"roles": ["agents"], "hosts": ["a.example:8443"]}))
    assert (read_one.mount, read_one.roles, read_one.max_ttl_s) == ("pki", ("agents",), 300)
    with pytest.raises(SectionInvalid, match=r"\[issuer.mesh\] roles is missing"):
        PkiConfig.read(Section("mesh", {"hosts": ["a.example"]}))
