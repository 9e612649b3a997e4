"""The trust file: every fault has a line that names file, table and fix, and a file with a fault is no file."""

from __future__ import annotations

import contextlib
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgrant_broker.config import SettingsError, explicit_settings
from stepgrant_broker.identity.trust_file import TrustFileInvalid, read
from stepgrant_broker.wiring.identity import METHODS, trust_of
from trusted import BROKER, RULES, issuer_table, read_trust, rule_table

ME = "https://me.example"
OIDC = issuer_table("oidc")
RULE = rule_table("oidc")
FULL = RULES["oidc"] + '\nattributes = { team = "pay" }'


def faults(folder: Path, *tables: str) -> list[str]:
    """The lines, without the path that each begins with."""
    with pytest.raises(TrustFileInvalid) as caught:
        read_trust(folder, *tables)
    assert all(line.startswith(f"{folder / 'trust.toml'}: ") for line in caught.value.problems)
    return [line.removeprefix(f"{folder / 'trust.toml'}: ") for line in caught.value.problems]


def fault(folder: Path, *tables: str) -> str:
    told = faults(folder, *tables)
    assert len(told) == 1, told
    return told[0]


def test_a_right_file_of_all_methods(tmp_path: Path) -> None:
    trust = read_trust(
        tmp_path,
        issuer_table("oidc", audience=..., discovery=True, max_lifetime_s=600, single_use=True, algorithms=["PS256"]),
        issuer_table("spiffe-jwt", jwks_url="https://spire.example/bundle", ca_file="ca.pem"),
        issuer_table("kubernetes", require_pod=False),
        rule_table("oidc", FULL, audiences=["https://shop.example"], pass_claims=["ref"]),
        rule_table("spiffe-jwt", 'path = "/agents/*"'),
        rule_table("kubernetes"),
    )
    oidc, spiffe, kubernetes = trust.issuers

    assert (oidc.audience, oidc.max_lifetime_s, oidc.single_use) == (ME, 600, True)
    assert oidc.algorithms == {"PS256"}
    assert oidc.keys.discovery == oidc.issuer == "https://ci.example"
    assert (spiffe.trust_domain, spiffe.issuer, spiffe.audience) == ("prod.example", None, BROKER)
    assert (spiffe.keys.url, spiffe.ca_file) == ("https://spire.example/bundle", str(tmp_path / "ca.pem"))
    assert "EdDSA" not in spiffe.algorithms
    assert (kubernetes.keys.file, kubernetes.require_pod) == (str(tmp_path / "keys.json"), False)
    assert [rule.workload for rule in trust.rules_of("oidc")] == ["refunds"]
    assert trust.rules[0].when == {"subject": "repo/acme/refunds", "claims.repository_id": "42"}
    assert (trust.rules[0].attributes, trust.rules[0].pass_claims) == ({"team": "pay"}, ("ref",))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"audiance": "x"}, "[[issuer]] oidc: unknown key 'audiance'; did you mean audience?"),
        ({"zzz": 1}, "[[issuer]] oidc: unknown key 'zzz'; take it out"),
        ({"require_pod": True}, "[[issuer]] oidc: unknown key 'require_pod'; take it out"),
        ({"tenant": ...}, "[[issuer]] oidc: tenant is missing; add it"),
        ({"tenant": "Acme"}, "[[issuer]] oidc: tenant must be 1 to 63 of a-z"),
        ({"issuer": ...}, "[[issuer]] oidc: issuer is missing; add it"),
        ({"issuer": ME}, "[[issuer]] oidc: issuer is this broker itself"),
        ({"issuer": 5}, "[[issuer]] oidc: issuer must be text"),
        ({"method": "oauth"}, "[[issuer]] oidc: method is one of kubernetes, oidc, spiffe-jwt"),
        ({"algorithms": ["HS256"]}, "[[issuer]] oidc: algorithms: 'HS256' is not one of ES256,"),
        ({"algorithms": ["none"]}, "[[issuer]] oidc: algorithms: 'none' is not one of"),
        ({"algorithms": []}, "[[issuer]] oidc: algorithms is empty"),
        ({"algorithms": "RS256"}, "[[issuer]] oidc: algorithms must be a list"),
        ({"max_lifetime_s": 0}, "[[issuer]] oidc: max_lifetime_s must be 60 to 86400 seconds"),
        ({"max_lifetime_s": True}, "[[issuer]] oidc: max_lifetime_s must be 60 to 86400 seconds"),
        ({"single_use": "yes"}, "[[issuer]] oidc: single_use must be true or false"),
        ({"jwks_url": "http://keys.example/jwks"}, "[[issuer]] oidc: jwks_url must be an https URL"),
        ({"jwks_url": "https://u:p@keys.example"}, "[[issuer]] oidc: jwks_url must be an https URL"),
        ({"jwks_url": "file:///etc/passwd"}, "[[issuer]] oidc: jwks_url must be an https URL"),
        ({"jwks_url": "https://a.example", "jwks_file": "k"}, "[[issuer]] oidc: say where its keys are, once"),
        ({"jwks_file": ...}, "[[issuer]] oidc: say where its keys are, once"),
        ({"discovery": False}, "[[issuer]] oidc: say where its keys are, once"),
        ({"discovery": True, "issuer": "http://ci.example"}, "[[issuer]] oidc: issuer must be an https URL"),
        ({"ca_file": "ca.pem"}, "[[issuer]] oidc: ca_file is for fetching"),
        ({"name": "A b"}, "[[issuer]] A b: name must be 1 to 63 of a-z"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_wrong_with_an_issuer(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    # A rule of an issuer that is wrong has no issuer; that line is not what this test is about.
    lines = faults(tmp_path, issuer_table("oidc", **changed), RULE)
    assert lines[0].startswith(told), lines
    assert all("[[rule]] refunds: issuer is not the name" in line for line in lines[1:])


def test_spiffe_has_no_eddsa_no_discovery_and_a_trust_domain(tmp_path: Path) -> None:
    assert "'EdDSA' is not one of" in faults(tmp_path, issuer_table("spiffe-jwt", algorithms=["EdDSA"]), RULE)[0]
    assert "unknown key 'discovery'" in faults(tmp_path, issuer_table("spiffe-jwt", discovery=True), RULE)[0]
    for domain in ("Prod.example", "spiffe://prod.example", "prod.example/x", ""):
        assert "trust_domain must be like" in faults(tmp_path, issuer_table("spiffe-jwt", trust_domain=domain), RULE)[0]
    assert "trust_domain is missing" in faults(tmp_path, issuer_table("spiffe-jwt", trust_domain=...), RULE)[0]


@pytest.mark.parametrize(
    ("key", "second"),
    [
        ("issuer", issuer_table("kubernetes", issuer="https://ci.example")),
        ("name", issuer_table("oidc", issuer="https://other.example")),
    ],
)
def test_issuers_that_overlap(tmp_path: Path, key: str, second: str) -> None:
    assert f"{key} is also that of [[issuer]] oidc" in fault(tmp_path, OIDC, second, RULE)


def test_trust_domains_that_overlap(tmp_path: Path) -> None:
    tables = [issuer_table("spiffe-jwt"), issuer_table("spiffe-jwt", "second")]
    assert "[[issuer]] second: trust_domain is also that" in fault(tmp_path, *tables, rule_table("spiffe-jwt"))


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (rule_table("oidc", issuer="nobody"), "issuer is not the name of a (right) [[issuer]] of this file"),
        (rule_table("oidc", agents=[]), "admits nobody to anything; name agents"),
        (rule_table("oidc", agents="agent"), "agents must be a list"),
        (rule_table("oidc", agents=["a b"]), "agents must be letters, digits"),
        (rule_table("oidc", workload="a b"), "workload must be letters, digits"),
        (rule_table("oidc", tenant="other"), "unknown key 'tenant'; take it out"),
        (rule_table("oidc", path="/x"), "unknown key 'path'"),
        (rule_table("oidc", ""), "matches every token of the issuer; say which: subject, claims"),
        (rule_table("oidc", 'subject = "*"'), "subject has a `*` that is not its whole last segment"),
        (rule_table("oidc", 'subject = "repo/a*"'), "subject has a `*` that is not its whole last segment"),
        (rule_table("oidc", 'subject = "repo/*/x"'), "subject has a `*` that is not its whole last segment"),
        (rule_table("oidc", "claims = { a = [1] }"), "claims has 'a' that is neither text"),
        (rule_table("oidc", "claims = 5"), "claims must be a table"),
        (rule_table("oidc", attributes=["x"]), "attributes must be a table"),
        (rule_table("oidc", pass_claims=["workload"]), "the attribute workload is set already"),
        (rule_table("oidc", 'subject = "a"\nattributes = { issuer = "x" }'), "the attribute issuer is set already"),
        (
            rule_table("oidc", 'subject = "a"\nattributes = { ref = "x" }', pass_claims=["ref"]),
            "the attribute ref is set already",
        ),
    ],
    ids=count(),
)
def test_what_is_wrong_with_a_rule(tmp_path: Path, rule: str, told: str) -> None:
    line = fault(tmp_path, OIDC, rule)
    assert line.startswith("[[rule]] ")
    assert told in line


@pytest.mark.parametrize(
    ("method", "when", "told"),
    [
        ("spiffe-jwt", 'path = "agents/refunds"', "path must be like"),
        ("spiffe-jwt", 'path = "/agents/../x"', "path must be like"),
        ("spiffe-jwt", 'path = "/agents/"', "path must be like"),
        ("spiffe-jwt", 'path = "/*/x"', "path must be like"),
        ("spiffe-jwt", 'path = "*"', "path must be like"),
        ("kubernetes", 'service_account = "refunds"', "name both namespace and service_account"),
        ("kubernetes", 'namespace = "payments"', "name both namespace and service_account"),
        ("kubernetes", 'namespace = "*"\nservice_account = "x"', "namespace must be a name of Kubernetes"),
        ("kubernetes", 'namespace = "x"\nservice_account = "x*"', "service_account must be a name of Kubernetes"),
    ],
)
def test_what_is_wrong_with_a_pattern(tmp_path: Path, method: str, when: str, told: str) -> None:
    assert told in faults(tmp_path, issuer_table(method), rule_table(method, when))[0]


@pytest.mark.parametrize(
    ("method", "first", "second", "shadowed"),
    [
        ("oidc", 'subject = "repo/acme/*"', 'subject = "repo/acme/refunds"', True),
        ("oidc", 'subject = "repo/acme/*"', 'subject = "repo/acme/*"\nclaims = { a = 1 }', True),
        ("oidc", 'subject = "repo/acme/refunds"', 'subject = "repo/acme/*"', False),
        ("oidc", 'subject = "repo/acme/*"', 'subject = "repo/acme/x/y"', False),
        ("oidc", 'subject = "repo/acme/*"\nclaims = { a = true }', 'subject = "repo/acme/refunds"', False),
        ("oidc", "claims = { a = 1 }", "claims = { a = true }", False),
        ("spiffe-jwt", 'path = "/agents/*"', 'path = "/agents/refunds"', True),
        ("spiffe-jwt", 'path = "/agents/*"', 'path = "/agents/a/*"', False),
        ("kubernetes", 'namespace = "a"\nservice_account = "*"', 'namespace = "a"\nservice_account = "x"', True),
        ("kubernetes", 'namespace = "a"\nservice_account = "*"', 'namespace = "b"\nservice_account = "x"', False),
    ],
)
def test_rule_shadowing(tmp_path: Path, method: str, first: str, second: str, *, shadowed: bool) -> None:
    """A rule that never matches is somebody's mistake about who gets which names."""
    tables = [issuer_table(method), rule_table(method, first), rule_table(method, second, workload="second")]
    if shadowed:
        assert "[[rule]] second: never matches: [[rule]] refunds before it takes all" in fault(tmp_path, *tables)
    else:
        assert len(read_trust(tmp_path, *tables).rules) == 2


def test_two_rules_of_one_issuer_have_two_names(tmp_path: Path) -> None:
    assert "workload is also that of an earlier rule" in fault(
        tmp_path, OIDC, RULE, rule_table("oidc", 'subject = "a"')
    )


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    bad = issuer_table("oidc", tenant="X", zzz=1)
    assert len(faults(tmp_path, bad, issuer_table("kubernetes"), rule_table("kubernetes", "zzz = 1"))) == 3


def test_files_that_are_none(tmp_path: Path) -> None:
    file = tmp_path / "trust.toml"
    cases = [
        (b"\xff", "not UTF-8 at byte 0"),
        (b"[[issuer]\n", "not TOML"),
        (b"[[issuer]]\nname = 1\nname = 2\n", "not TOML"),
        (b"", "top level: issuer is missing"),
        (b"issuer = 5\nrule = []\n", "issuer must be tables"),
        (b"rules = []\nissuer = []\nrule = []\n", "unknown key 'rules'; did you mean rule?"),
        (b"#" * 1_048_577, "more than 1048576 bytes"),
    ]
    for content, told in cases:
        file.write_bytes(content)
        with pytest.raises(TrustFileInvalid) as caught:
            read(file, METHODS, own_url=ME)
        assert any(told in line for line in caught.value.problems), caught.value.problems
    file.unlink()
    with pytest.raises(TrustFileInvalid, match="cannot be read: No such file"):
        read(file, METHODS, own_url=ME)


def test_a_file_that_anybody_can_write_is_refused(tmp_path: Path) -> None:
    read_trust(tmp_path, OIDC, RULE)
    file = tmp_path / "trust.toml"
    file.chmod(0o646)
    with pytest.raises(TrustFileInvalid, match="run: chmod o-w"):
        read(file, METHODS, own_url=ME)


def test_the_setting_names_the_file_and_a_fault_is_a_settings_error(tmp_path: Path) -> None:
    read_trust(tmp_path, issuer_table("oidc", audience=...), RULE)
    file = tmp_path / "trust.toml"
    trust = trust_of(explicit_settings(trust_file=file, public_url=BROKER))
    assert trust.issuers[0].audience == BROKER
    assert trust_of(explicit_settings()).issuers == ()
    file.write_text("x = 1", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"STEPGRANT_BROKER_TRUST_FILE: .*trust\.toml: top level: unknown key 'x'"):
        trust_of(explicit_settings(trust_file=file))


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "ignore")))
def test_any_bytes_raise_nothing_foreign(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(data)
    with contextlib.suppress(TrustFileInvalid):
        read(file, METHODS, own_url=ME)


@given(
    st.dictionaries(
        st.sampled_from(
            ["name", "method", "issuer", "jwks_file", "tenant", "algorithms", "workload", "subject", "claims"]
        ),
        st.text(max_size=5) | st.integers(-5, 5) | st.booleans() | st.just("oidc") | st.lists(st.text(max_size=3)),
        max_size=9,
    )
)
def test_any_values_raise_nothing_foreign(tmp_path_factory: pytest.TempPathFactory, changed: dict[str, Any]) -> None:
    folder = tmp_path_factory.getbasetemp()
    with contextlib.suppress(TrustFileInvalid):
        read_trust(folder, issuer_table("oidc", **{**changed, "jwks_file": "k"}), rule_table("oidc", **changed))
