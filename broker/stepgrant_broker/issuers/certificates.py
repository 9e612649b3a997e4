"""Reading a certificate that somebody else signed, and comparing it with what was ordered.

A list of its own, that shares nothing with the ordering: a fault there, or a CA that does as it likes, cannot widen
what an agent gets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from stepgrant._csr import key_name
from stepgrant_broker.domain.errors import IssuerRefused

if TYPE_CHECKING:
    from stepgrant_broker.domain.decisions import Json

MAX_NAMES: Final = 16
URI: Final = re.compile(r"[a-z][a-z0-9+.-]*:[!#-+\--~]{1,500}")
DNS: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,62}\.)*[a-z0-9-]{0,62}[a-z0-9]|[a-z0-9]")
COMMON: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9 ._@:/-]{0,62}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a certificate: alternative names, and a common name if one was ordered."""

    uris: tuple[str, ...]
    dns: tuple[str, ...]
    common: str | None

    @classmethod
    def ordered(cls, params: Mapping[str, Json]) -> Names:
        """As policy wrote them. Raises `IssuerRefused`: none at all, or one that is no such name.

        No name has a comma: Vault takes lists as texts with commas, and one name could become two.
        """
        common = params.get("common_name")
        if common is not None and (not isinstance(common, str) or not COMMON.fullmatch(common)):
            raise IssuerRefused("grant.params.common_name is 1 to 64 letters, digits and . _ @ : / -")
        made = cls(_listed(params, "uri_sans", URI), _listed(params, "dns_sans", DNS), common)
        if not (made.uris or made.dns or made.common):
            raise IssuerRefused("policy must name whom the certificate is for: grant.params.uri_sans")
        return made

    def as_parameters(self) -> dict[str, str]:
        """As Vault's `sign` takes them."""
        given = {"uri_sans": ",".join(self.uris), "alt_names": ",".join(self.dns), "common_name": self.common or ""}
        return {name: value for name, value in given.items() if value}


def refuse_another(fields: Mapping[str, str], expires_at: int, csr: str, names: Names) -> None:
    """Raises `IssuerRefused` unless the certificate is what was ordered: this key, these names, this end, no CA."""
    try:
        found = x509.load_pem_x509_certificates(fields["certificate"].encode("ascii"))
        chain = x509.load_pem_x509_certificates(fields["ca_chain"].encode("ascii"))
        wanted = x509.load_pem_x509_csr(csr.encode("ascii")).public_key()
        (certificate,) = found
        certificate.verify_directly_issued_by(chain[0])
        key, said = certificate.public_key(), _Said.of(certificate)
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature, x509.DuplicateExtension):
        # The parser's own text may show parts of what it read.
        raise IssuerRefused("what Vault gave is no certificate that its own CA signed") from None
    if key_name(key) != key_name(wanted):
        raise IssuerRefused("Vault's certificate is over another key than the agent's")
    if said.authority:
        raise IssuerRefused("Vault's certificate could sign others; see the role's key usage")
    if said.names != names or said.others:
        raise IssuerRefused("Vault's certificate has other names than ordered; see the role's use_csr_sans")
    if int(certificate.not_valid_after_utc.timestamp() * 1000) != expires_at:
        raise IssuerRefused("Vault's certificate ends at another time than its answer says")
    if int(fields["serial_number"].replace(":", ""), 16) != certificate.serial_number:
        raise IssuerRefused("Vault's certificate has another serial number than its answer says")


@dataclass(frozen=True, slots=True)
class _Said:
    """What a certificate says of itself. `others`: it has names of other kinds."""

    names: Names
    others: bool
    authority: bool

    @classmethod
    def of(cls, certificate: x509.Certificate) -> _Said:
        commons = [str(one.value) for one in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        general: list[Any] = list(_extension(certificate, x509.SubjectAlternativeName) or ())
        uris = tuple(one.value for one in general if isinstance(one, x509.UniformResourceIdentifier))
        dns = tuple(one.value for one in general if isinstance(one, x509.DNSName))
        names = Names(tuple(sorted(uris)), tuple(sorted(dns)), commons[0] if commons else None)
        others = len(uris) + len(dns) != len(general) or len(commons) > 1
        return cls(names, others, _is_authority(certificate))


def _is_authority(certificate: x509.Certificate) -> bool:
    constraints = _extension(certificate, x509.BasicConstraints)
    usage = _extension(certificate, x509.KeyUsage)
    extended = _extension(certificate, x509.ExtendedKeyUsage) or ()
    signs = usage is not None and (usage.key_cert_sign or usage.crl_sign)
    return (constraints is not None and constraints.ca) or signs or ExtendedKeyUsageOID.OCSP_SIGNING in extended


def _extension(certificate: x509.Certificate, kind: type[Any]) -> Any:  # noqa: ANN401 - the value of that kind
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _listed(params: Mapping[str, Json], name: str, form: re.Pattern[str]) -> tuple[str, ...]:
    value = params.get(name, [])
    if not isinstance(value, list) or len(value) > MAX_NAMES:
        raise IssuerRefused(f"grant.params.{name} is a list of at most {MAX_NAMES} names")
    texts = [one for one in value if isinstance(one, str) and form.fullmatch(one) and "," not in one]
    if len(texts) != len(value) or len(set(texts)) != len(texts):
        raise IssuerRefused(f"grant.params.{name} holds something that is no such name, or one twice")
    return tuple(sorted(texts))
