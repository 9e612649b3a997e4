"""What every identity adapter keeps: it proves one workload, to this broker only, and says when to forget it."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from stepgrant import canonical
from stepgrant._exchange import WorkloadKey
from stepgrant_broker.domain.errors import InvalidToken
from stepgrant_broker.identity.enrolled import Attested, read_assertion

BROKER = "https://broker.example"
NOW_S = 1_790_000_000


@dataclass(frozen=True)
class Case:
    """One adapter: `present(audience)` makes evidence of `subject`, `attest` proves it at a time in ms."""

    method: str
    subject: str
    present: Callable[[str], str]
    attest: Callable[[str, int], Attested]
    attest_other: Callable[[str, int], Attested]


def enrolled_key(alg: str) -> Case:
    key, other = WorkloadKey.generate("wkl_1", alg=alg), WorkloadKey.generate("wkl_1", alg=alg)

    def attest_with(jwk: dict[str, str]) -> Callable[[str, int], Attested]:
        return lambda token, now_ms: read_assertion(token).attest(jwk, issuer=BROKER, now_ms=now_ms)

    return Case(
        "enrolled_key",
        "wkl_1",
        lambda audience: key.assertion(audience, NOW_S),
        attest_with(key.public_jwk),
        attest_with(other.public_jwk),
    )


CASES = {"enrolled ES256": lambda: enrolled_key("ES256"), "enrolled EdDSA": lambda: enrolled_key("EdDSA")}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


def test_evidence_proves_its_workload_and_is_kept_as_a_digest_only(case: Case) -> None:
    token = case.present(BROKER)
    seen = case.attest(token, NOW_S * 1000)

    assert (seen.method, seen.workload_id) == (case.method, case.subject)
    assert seen.evidence_sha256 == canonical.digest_bytes(token.encode())
    assert token not in repr(seen)
    assert seen.jti
    assert seen.trust_domain


def test_evidence_for_another_server_proves_nothing(case: Case) -> None:
    with pytest.raises(InvalidToken):
        case.attest(case.present("https://other.example"), NOW_S * 1000)


def test_evidence_by_another_key_proves_nothing(case: Case) -> None:
    with pytest.raises(InvalidToken):
        case.attest_other(case.present(BROKER), NOW_S * 1000)


def test_changed_evidence_proves_nothing(case: Case) -> None:
    token = case.present(BROKER)
    head, body, signature = token.split(".")
    for changed in (f"{head}.{body}.{signature[::-1]}", f"{head}.{body}.", f"{head}.{body[:-2]}.{signature}", ""):
        with pytest.raises(InvalidToken):
            case.attest(changed, NOW_S * 1000)


def test_each_evidence_has_its_own_id_to_be_refused_the_second_time(case: Case) -> None:
    jtis = {case.attest(case.present(BROKER), NOW_S * 1000).jti for _ in range(10)}

    assert len(jtis) == 10


def test_evidence_is_dead_when_its_id_may_be_forgotten(case: Case) -> None:
    token = case.present(BROKER)
    dead_at_ms = case.attest(token, NOW_S * 1000).assertion_dead_at_ms

    assert NOW_S * 1000 < dead_at_ms <= (NOW_S + 600) * 1000
    with pytest.raises(InvalidToken):
        case.attest(token, dead_at_ms)
