"""True grants used for another action, by another sender, or once more: refused, and nothing is redeemed."""

import pytest

from forged_grants import (
    ACTION,
    DETAIL,
    HOLDER,
    NOW,
    TOOL,
    URL,
    Redeems,
    attempt,
    detailed,
    present,
    refused,
    token,
    verifier,
)
from stepgrant import canonical, errors
from stepgrant._dpop import DpopKey
from stepgrant.verify import Action, Presented, ProcessMemory

# --------------------------------------------------------------------------------------------------------- the action


@pytest.mark.parametrize(
    "locations", [["https://other.example"], [TOOL, "https://other.example"], [TOOL + "/"]], ids=repr
)
def test_a_grant_for_another_location(locations: list[str]) -> None:
    assert refused(present(detailed(locations=locations))) == ("digest_mismatch", "wrong_location")


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (Action("refund.delete", "order/991", ACTION.args), "wrong_tool"),
        (Action("refund.create", "order/992", ACTION.args), "wrong_resource"),
        (Action("refund.create", None, ACTION.args), "wrong_resource"),
        (Action("refund.create", "order/991", {"amount": 101, "to": "acct-42"}), "wrong_arguments"),
        (Action("refund.create", "order/991", {"amount": 100}), "wrong_arguments"),
        (Action("refund.create", "order/991", {"amount": 100, "to": "acct-42", "cc": None}), "wrong_arguments"),
        (Action("refund.create", "order/991", {"amount": "100", "to": "acct-42"}), "wrong_arguments"),
    ],
    ids=repr,
)
def test_something_else_is_about_to_be_done(action: Action, reason: str) -> None:
    assert refused(present(token()), action) == ("digest_mismatch", reason)


def test_arguments_that_have_no_digest() -> None:
    action = Action("refund.create", "order/991", {"amount": float("nan")})

    assert refused(present(token()), action) == ("invalid_request", "number_out_of_range")


def test_a_digest_that_covers_tool_and_resource_too() -> None:
    other = canonical.action_digest("refund.create", "order/992", ACTION.args)

    assert refused(present(detailed(args_digest=other))) == ("digest_mismatch", "wrong_arguments")


# --------------------------------------------------------------------------------------------------------- the sender


def test_a_stolen_token_with_the_thiefs_own_proof() -> None:
    value = token()
    thief = DpopKey()

    assert refused(Presented("POST", URL, value, thief.proof("POST", URL, token=value, now=NOW))) == (
        "invalid_dpop_proof",
        "wrong_key",
    )


def test_a_proof_made_for_another_token() -> None:
    assert refused(present(token(), proof_for=token(jti="grn_2"))) == ("invalid_dpop_proof", "wrong_token_hash")


def test_a_proof_captured_on_the_way_to_another_url() -> None:
    value = token()
    proof = HOLDER.proof("POST", "https://other.example/refunds", token=value, now=NOW)

    assert refused(Presented("POST", URL, value, proof)) == ("invalid_dpop_proof", "wrong_url")


def test_a_replayed_request() -> None:
    redeemer = Redeems()
    made = verifier(redeemer)
    presented = present(token())
    made.verify_sync(presented, ACTION)
    with pytest.raises(errors.InvalidProof) as caught:
        made.verify_sync(presented, ACTION)

    assert caught.value.reason == "replayed"
    assert len(redeemer.asked) == 1


def test_one_grant_sent_without_end_fills_no_memory_for_others() -> None:
    redeemer = Redeems()
    made = verifier(redeemer, ProcessMemory(max_uses=40))
    for _ in range(10):
        made.verify_sync(present(token()), ACTION)
    with pytest.raises(errors.VerificationUnavailable) as caught:
        made.verify_sync(present(token()), ACTION)

    assert (caught.value.code, caught.value.reason) == ("verification_unavailable", "share_full")
    assert len(redeemer.asked) == 10
    other = DpopKey()
    same = token(jti="grn_2", cnf={"jkt": other.jkt})
    with pytest.raises(errors.VerificationUnavailable):  # another key of the same workload
        made.verify_sync(Presented("POST", URL, same, other.proof("POST", URL, token=same, now=NOW)), ACTION)
    theirs = token(jti="grn_2", cnf={"jkt": other.jkt}, client_id="wkl_2", sub="workload:other")
    proof = other.proof("POST", URL, token=theirs, now=NOW)
    assert made.verify_sync(Presented("POST", URL, theirs, proof), ACTION).jti == "grn_2"


def test_a_zombie_of_an_older_epoch() -> None:
    redeemer = Redeems()
    made = verifier(redeemer)
    made.verify_sync(present(detailed(epoch=10)), ACTION)
    with pytest.raises(errors.GrantSuperseded) as caught:
        made.verify_sync(present(detailed(epoch=9)), ACTION)

    assert caught.value.code == "stale_epoch"
    assert len(redeemer.asked) == 1


@pytest.mark.parametrize(
    ("headers", "code", "reason"),
    [
        ([], "invalid_token", "missing"),
        ([("dpop", "p")], "invalid_token", "missing"),
        ([("authorization", "DPoP t"), ("authorization", "DPoP t"), ("dpop", "p")], "invalid_token", "many_tokens"),
        ([("authorization", "Bearer t"), ("dpop", "p")], "invalid_token", "not_dpop"),
        ([("authorization", "Basic t"), ("dpop", "p")], "invalid_token", "not_dpop"),
        ([("authorization", "t"), ("dpop", "p")], "invalid_token", "not_dpop"),
        ([("authorization", "DPoP t")], "invalid_dpop_proof", "missing"),
        ([("authorization", "DPoP t"), ("dpop", "p"), ("DPoP", "p")], "invalid_dpop_proof", "many_proofs"),
    ],
    ids=repr,
)
def test_headers_that_are_not_one_token_and_one_proof(headers: list[tuple[str, str]], code: str, reason: str) -> None:
    with pytest.raises(errors.VerificationError) as caught:
        Presented.of("POST", URL, headers)

    assert (caught.value.code, caught.value.reason) == (code, reason)


def test_refusals_do_not_tell_what_was_expected() -> None:
    with pytest.raises(errors.VerificationError) as caught:
        attempt(present(token()), Action("refund.create", "order/991", {"secret": "hunter2"}))
    text = repr(caught.value) + str(caught.value)

    assert "hunter2" not in text
    assert str(DETAIL["args_digest"]) not in text
