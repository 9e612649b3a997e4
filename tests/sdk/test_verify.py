"""The verifier on true grants: what it accepts, what it returns, and what it remembers."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from stepgrant import canonical, errors
from stepgrant._dpop import DpopKey
from stepgrant.verify import (
    Action,
    GrantVerifier,
    Presented,
    ProcessMemory,
    Redeemed,
    Redemption,
    StaticKeys,
    VerifiedGrant,
)

BROKER = "https://broker.example"
TOOL = "https://tool.example"
URL = f"{TOOL}/refunds"
ACTION = Action("refund.create", "order/991", {"amount": 100, "to": "acct-42"})

issuer_key = ec.generate_private_key(ec.SECP256R1())
ENTRY = {**ECAlgorithm.to_jwk(issuer_key.public_key(), as_dict=True), "kid": "k1", "use": "sig", "alg": "ES256"}
JWKS: dict[str, canonical.JsonValue] = {"keys": [ENTRY]}
holder = DpopKey()


def detail(action: Action = ACTION, **changes: object) -> dict[str, object]:
    return {
        "type": "stepgrant_action",
        "locations": [TOOL],
        "actions": [action.tool],
        "identifier": action.resource,
        "run_id": "run_1",
        "step": "charge",
        "attempt": 2,
        "epoch": 9,
        "args_digest": canonical.action_digest(action.tool, action.resource, action.args),
        "effect": "once",
        "idempotency_key": "sg-1",
        "redeem": "required",
        "max_uses": 1,
        "policy": {"revision": "3:abc", "decision_id": "dec_1"},
        **changes,
    }


def grant(details: dict[str, object] | None = None, /, **changes: object) -> str:
    now = int(time.time())
    claims = {
        "iss": BROKER,
        "aud": TOOL,
        "tenant": "default",
        "sub": "wkl_1",
        "client_id": "wkl_1",
        "act": {"sub": "wkl_1"},
        "iat": now,
        "nbf": now,
        "exp": now + 60,
        "jti": "grn_1",
        "txn": "run_1.charge.2",
        "cnf": {"jkt": holder.jkt},
        "authorization_details": [details or detail()],
        **changes,
    }
    return jwt.encode(claims, issuer_key, algorithm="ES256", headers={"typ": "at+jwt", "kid": "k1"})


def present(token: str, method: str = "POST", url: str = URL) -> Presented:
    proof = holder.proof(method, url, token=token)
    return Presented.of(method, url, [("Authorization", f"DPoP {token}"), ("DPoP", proof)])


class CountingRedeemer:
    """Consents, and counts: what a broker would do for a first use."""

    def __init__(self) -> None:
        self.asked: list[Redemption] = []
        self.act_before = int(time.time() * 1000) + 10_000

    def redeem_sync(self, redemption: Redemption) -> Redeemed:
        self.asked.append(redemption)
        return Redeemed(self.act_before)

    async def redeem(self, redemption: Redemption) -> Redeemed:
        return self.redeem_sync(redemption)


def verifier(redeemer: CountingRedeemer | None = None, **changes: Any) -> GrantVerifier:  # noqa: ANN401
    return GrantVerifier(issuer=BROKER, audience=TOOL, keys=JWKS, redeemer=redeemer, **changes)


def run_sync(made: GrantVerifier, presented: Presented, action: Action = ACTION) -> VerifiedGrant:
    return made.verify_sync(presented, action)


def run_async(made: GrantVerifier, presented: Presented, action: Action = ACTION) -> VerifiedGrant:
    return asyncio.run(made.verify(presented, action))


BOTH = pytest.mark.parametrize("run", [run_sync, run_async])
Run = Callable[..., VerifiedGrant]


@BOTH
def test_a_true_grant_is_redeemed_and_returned(run: Run) -> None:
    redeemer = CountingRedeemer()
    token = grant()
    verified = run(verifier(redeemer), present(token))

    assert verified == VerifiedGrant(
        run_id="run_1",
        step="charge",
        attempt=2,
        epoch=9,
        jti="grn_1",
        tool="refund.create",
        resource="order/991",
        effect="once",
        idempotency_key="sg-1",
        act_before=redeemer.act_before,
        subject="wkl_1",
        redeemed=True,
        claims=jwt.decode(token, options={"verify_signature": False}),
    )
    (asked,) = redeemer.asked
    assert asked.jti == "grn_1"
    assert asked.args_digest == canonical.action_digest("refund.create", "order/991", {"to": "acct-42", "amount": 100})
    assert asked.redemption_id.startswith("rdm_")


@BOTH
def test_each_verification_is_a_redemption_of_its_own(run: Run) -> None:
    redeemer = CountingRedeemer()
    made = verifier(redeemer)
    token = grant()
    run(made, present(token))
    run(made, present(token))

    first, second = redeemer.asked
    assert first.redemption_id != second.redemption_id
    assert first.proof_jti != second.proof_jti


@BOTH
def test_an_optional_grant_is_spent_here_up_to_its_uses(run: Run) -> None:
    redeemer = CountingRedeemer()
    made = verifier(redeemer)
    now = int(time.time())
    token = grant(detail(redeem="optional", max_uses=2, effect="read"), exp=now + 60)
    first = run(made, present(token))
    run(made, present(token))
    with pytest.raises(errors.AlreadyRedeemed) as caught:
        run(made, present(token))

    assert (first.redeemed, first.act_before) == (False, (now + 60) * 1000)
    assert caught.value.reason == "spent_here"
    assert redeemer.asked == []


@BOTH
def test_a_grant_to_redeem_without_a_redeemer_is_refused(run: Run) -> None:
    with pytest.raises(errors.VerificationUnavailable) as caught:
        run(verifier(None), present(grant()))

    assert caught.value.reason == "no_redeemer"


@BOTH
def test_a_consent_that_came_too_late_is_no_consent(run: Run) -> None:
    redeemer = CountingRedeemer()
    redeemer.act_before = int(time.time() * 1000) - 1
    with pytest.raises(errors.GrantExpired) as caught:
        run(verifier(redeemer), present(grant()))

    assert caught.value.reason == "too_late"


def test_leeway_reaches_the_signature_but_not_the_time_to_act_unredeemed() -> None:
    now = int(time.time())
    over = {"iat": now - 62, "nbf": now - 62, "exp": now - 2}
    redeemed = verifier(CountingRedeemer()).verify_sync(present(grant(**over)), ACTION)
    with pytest.raises(errors.GrantExpired) as caught:
        verifier().verify_sync(present(grant(detail(redeem="optional"), **over)), ACTION)

    assert redeemed.redeemed
    assert caught.value.reason == "too_late"


def test_an_action_on_no_resource() -> None:
    action = Action("report.list", None, {})
    for details in (detail(action), {k: v for k, v in detail(action).items() if k != "identifier"}):
        assert verifier(CountingRedeemer()).verify_sync(present(grant(details)), action).resource is None


def test_members_that_may_be_missing_or_null() -> None:
    details = detail(approval=None, idempotency_key=None)

    assert verifier(CountingRedeemer()).verify_sync(present(grant(details)), ACTION).idempotency_key is None
    assert verifier(CountingRedeemer()).verify_sync(present(grant(detail(approval={"id": "apr_1"}))), ACTION).redeemed


def test_further_names_of_this_server_are_locations_too() -> None:
    made = verifier(CountingRedeemer(), locations=[TOOL, "https://tool.internal"])

    assert made.verify_sync(present(grant(detail(locations=["https://tool.internal"]))), ACTION).redeemed


def test_a_newer_epoch_passes_and_fences_the_older_one() -> None:
    made = verifier(CountingRedeemer())
    made.verify_sync(present(grant(detail(epoch=9))), ACTION)
    made.verify_sync(present(grant(detail(epoch=9))), ACTION)
    made.verify_sync(present(grant(detail(epoch=10))), ACTION)
    made.verify_sync(present(grant(detail(epoch=1, run_id="run_2"))), ACTION)
    with pytest.raises(errors.GrantSuperseded) as caught:
        made.verify_sync(present(grant(detail(epoch=9))), ACTION)

    assert (caught.value.code, caught.value.reason) == ("stale_epoch", "older_epoch")


def test_a_refused_request_leaves_no_trace_in_the_memory() -> None:
    class Watched(ProcessMemory):
        touched = False

        def observe_epoch(self, run_id: str, epoch: int, *, now_s: float) -> bool:
            self.touched = True
            return super().observe_epoch(run_id, epoch, now_s=now_s)

    memory = Watched()
    redeemer = CountingRedeemer()
    made = verifier(redeemer, memory=memory)
    stolen = Presented("POST", URL, grant(), DpopKey().proof("POST", URL, token=grant()))
    for presented, action in [
        (stolen, ACTION),
        (present(grant(detail(epoch=99))), Action("refund.create", "order/992", ACTION.args)),
        (present(grant(detail(epoch=99), aud="https://other.example")), ACTION),
        (present(grant(detail(epoch=99), tenant="globex")), ACTION),
    ]:
        with pytest.raises(errors.VerificationError):
            made.verify_sync(presented, action)

    assert not memory.touched
    assert redeemer.asked == []


def test_a_server_of_two_tenants_has_a_verifier_for_each() -> None:
    keys, token = StaticKeys(JWKS), grant(detail(redeem="optional"), tenant="globex")
    home, away = (GrantVerifier(issuer=BROKER, audience=TOOL, tenant=name, keys=keys) for name in ("acme", "globex"))
    with pytest.raises(errors.InvalidToken) as caught:
        home.verify_sync(present(token), ACTION)

    assert caught.value.reason == "wrong_tenant"
    assert away.verify_sync(present(token), ACTION).claims["tenant"] == away.tenant == "globex"


def test_one_workload_has_one_share_however_many_keys_it_makes() -> None:
    memory = ProcessMemory()
    verifier(memory=memory).verify_sync(present(grant(detail(redeem="optional"))), ACTION)
    assert set(memory._held) == {"wkl_1"}


def test_a_shared_memory_serves_two_verifiers() -> None:
    memory = ProcessMemory()
    token = grant(detail(redeem="optional"))
    verifier(memory=memory).verify_sync(present(token), ACTION)
    with pytest.raises(errors.AlreadyRedeemed):
        verifier(memory=memory).verify_sync(present(token), ACTION)


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": ""},
        {"audience": ""},
        {"tenant": ""},
        {"leeway_s": -1},
        {"leeway_s": 61},
        {"keys": {}},
        {"keys": {"keys": []}},
    ],
)
def test_a_verifier_that_is_set_up_wrongly_is_not_made(changes: dict[str, Any]) -> None:
    with pytest.raises(errors.ConfigurationError):
        GrantVerifier(**{"issuer": BROKER, "audience": TOOL, "keys": JWKS, **changes})
