"""The error tree: drawn as it is, every class survives pickle and copy, every code of the protocol has a class."""

import copy
import inspect
import pickle
import re

import pytest

from stepgrant import errors

EXAMPLES: list[errors.StepgrantError] = [
    errors.StepgrantError("said"),
    errors.ConfigurationError("STEPGRANT_URL is not set"),
    errors.NotJson(what="argument", path="/amount", why="a Decimal is not JSON"),
    errors.OrdinalUnderConcurrency("give each call a step_id"),
    errors.CredentialMisuse("https://other.example is outside the grant"),
    errors.KeyLost("made in another process"),
    errors.NotExecuted("the target was never called"),
    errors.ResultWithheld(step="charge"),
    errors.SecretInResult(step="charge"),
    errors.StepNotRun("no"),
    errors.Denied(reasons=["no_rule_matched", "amount_over_limit"], decision_id="dec_1"),
    errors.ApprovalRequired(approval_id="apr_1", answer_by=1_790_000_000_000),
    errors.InDoubt(step="charge", why="no outcome", options=["reconcile", "person"], attempt=2),
    errors.SuspectedDuplicate(of="charge", options=["replay", "run"]),
    errors.StepFailed(step="charge", status="failed", error="ValueError: no such order"),
    errors.StepDrift("other arguments under this step id"),
    errors.PriorCredentialLive(retry_after=2.5),
    errors.RunNotHeld("no"),
    errors.StaleEpoch("fenced"),
    errors.LeaseHeld(retry_after=3),
    errors.RunEnded("over", run_key="order-1", run="run_01", state="completed", result={"charged": 5}, recorded=True),
    errors.Quarantined("held"),
    errors.SetAside("set aside"),
    errors.BrokerError(code="unknown_run", status=404, title="Unknown run", detail="no such run", retry_after=1),
    errors.AuthenticationFailed(code="invalid_client", status=401, detail="not enrolled"),
    errors.BrokerUnavailable(detail="connection refused", retry_after=2),
    errors.VerificationError("no", reason="some"),
    errors.InvalidToken("no", reason="expired"),
    errors.InvalidProof("no", reason="wrong_method"),
    errors.NonceRequired("no", reason="nonce"),
    errors.DigestMismatch("no", reason="wrong_digest"),
    errors.GrantSuperseded("no", reason="older_epoch"),
    errors.GrantRevoked("no", reason="revoked"),
    errors.GrantExpired("no", reason="expired"),
    errors.AlreadyRedeemed("no", reason="spent"),
    errors.InvalidRequest("no", reason="no_action"),
    errors.VerificationUnavailable("no", reason="keys", retry_after=1.5),
    errors.ReceiptError("no", reason="wrong_hash", position=4),
]

# protocol.md §7, and whom the SDK's caller gets to see for it.
PROBLEMS: dict[str, tuple[int, type[errors.StepgrantError]]] = {
    "invalid_request": (400, errors.BrokerError),
    "digest_mismatch": (400, errors.DigestMismatch),
    "invalid_token": (401, errors.InvalidToken),
    "invalid_dpop_proof": (401, errors.InvalidProof),
    "use_dpop_nonce": (401, errors.NonceRequired),
    "policy_denied": (403, errors.Denied),
    "approval_required": (403, errors.ApprovalRequired),
    "quarantined": (403, errors.Quarantined),
    "set_aside": (409, errors.SetAside),
    "forbidden": (403, errors.BrokerError),
    "unknown_run": (404, errors.BrokerError),
    "unknown_step": (404, errors.BrokerError),
    "unknown_grant": (404, errors.BrokerError),
    "unknown_approval": (404, errors.BrokerError),
    "stale_epoch": (409, errors.StaleEpoch),
    "lease_held": (409, errors.LeaseHeld),
    "wrong_holder": (409, errors.BrokerError),
    "already_redeemed": (409, errors.AlreadyRedeemed),
    "duplicate_request": (409, errors.BrokerError),
    "step_drift": (409, errors.StepDrift),
    "step_in_doubt": (409, errors.InDoubt),
    "suspected_duplicate": (409, errors.SuspectedDuplicate),
    "run_ended": (409, errors.RunEnded),
    "prior_credential_live": (409, errors.PriorCredentialLive),
    "grant_expired": (410, errors.GrantExpired),
    "grant_revoked": (410, errors.GrantRevoked),
    "approval_expired": (410, errors.BrokerError),
    "too_large": (413, errors.BrokerError),
    "unsupported_media_type": (415, errors.BrokerError),
    "schema_violation": (422, errors.BrokerError),
    "budget_exhausted": (429, errors.BrokerError),
    "ledger_unavailable": (503, errors.BrokerUnavailable),
    "policy_unavailable": (503, errors.BrokerUnavailable),
    "issuer_unavailable": (503, errors.BrokerUnavailable),
    "conflict": (503, errors.BrokerUnavailable),
}


def all_classes() -> set[type[errors.StepgrantError]]:
    public = (getattr(errors, name) for name in errors.__all__)
    return {item for item in public if inspect.isclass(item) and issubclass(item, errors.StepgrantError)}


def test_every_public_class_has_an_example() -> None:
    assert {type(error) for error in EXAMPLES} == all_classes()


@pytest.mark.parametrize("kind", sorted(all_classes(), key=str), ids=str)
def test_tracebacks_and_pickles_name_what_is_public(kind: type[errors.StepgrantError]) -> None:
    assert (kind.__module__, getattr(errors, kind.__qualname__)) == ("stepgrant.errors", kind)


def test_a_pickle_of_an_earlier_version_is_read() -> None:
    """It names the function where it was."""
    made = pickle.dumps(errors.ConfigurationError("no"), protocol=0).replace(
        b"cstepgrant._errors_base\n", b"cstepgrant._errors\n"
    )
    assert b"stepgrant._errors\n_revive" in made
    assert str(pickle.loads(made)) == "no"  # noqa: S301


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_pickle_and_copy_keep_every_field(error: errors.StepgrantError) -> None:
    error.add_note("from the second attempt")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)
        assert twin.code == error.code


class FrameworkError(Exception):
    """As frameworks have them: they let only their own exceptions through."""

    def __init__(self, hint: str) -> None:
        super().__init__(hint)
        self.hint = hint


class FrameworkDenied(errors.Denied, FrameworkError):
    def __init__(self, denied: errors.Denied) -> None:
        super().__init__(reasons=denied.reasons, decision_id=denied.decision_id)
        self.hint = "stop"


def test_a_framework_subclass_with_another_signature_pickles_too() -> None:
    error = FrameworkDenied(errors.Denied(reasons=["no"], decision_id="dec_1"))
    twin = pickle.loads(pickle.dumps(error))  # noqa: S301

    assert isinstance(twin, FrameworkDenied)
    assert vars(twin) == vars(error)
    assert twin.reasons == ("no",)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn: dict[str, tuple[str, str]] = {}
    stack = ["StepgrantError"]
    for line in (errors.__doc__ or "").splitlines():
        found = re.fullmatch(r"    ((?:│   |    )*)[├└]── (\w+)(?: +(\S.*))?", line)
        if found:
            depth = len(found[1]) // 4 + 1
            drawn[found[2]] = (stack[depth - 1], found[3] or "")
            stack[depth:] = [found[2]]

    true = {kind.__name__: kind.__bases__[0].__name__ for kind in all_classes() if kind is not errors.StepgrantError}
    assert {name: parent for name, (parent, _) in drawn.items()} == true
    for name, (_, note) in drawn.items():
        if note and not note.startswith("("):
            code = note.split()[0].rstrip(",")
            if re.fullmatch(r"[a-z]+_[a-z_]+", code):
                example = next(error for error in EXAMPLES if type(error).__name__ == name)
                assert code == example.code


def test_codes_name_one_class_each() -> None:
    codes = [error.code for error in EXAMPLES if not isinstance(error, errors.BrokerError)]
    twice = {code for code in codes if codes.count(code) > 1}

    assert twice == {"stale_epoch"}  # the agent's side and the resource server's side of one fact


@pytest.mark.parametrize("code", PROBLEMS)
def test_every_code_of_the_protocol_becomes_its_class(code: str) -> None:
    status, kind = PROBLEMS[code]
    error = errors.from_problem(status, {"code": code, "title": "T", "detail": "mend it so"})

    assert type(error) is kind
    assert error.code == code
    if not isinstance(error, errors.Denied | errors.ApprovalRequired):
        assert "mend it so" in str(error)


def test_members_of_problems_reach_the_error() -> None:
    denied = errors.from_problem(403, {"code": "policy_denied", "reasons": ["a", "b"], "decision_id": "dec_9"})
    held = errors.from_problem(409, {"code": "lease_held", "retry_after_ms": 2500})
    live = errors.from_problem(409, {"code": "prior_credential_live", "retry_after_ms": 1}, retry_after=4)
    asked = errors.from_problem(403, {"code": "approval_required", "approval_id": "apr_1", "answer_by": 5})
    down = errors.from_problem(503, {"code": "ledger_unavailable", "detail": "disk full"}, retry_after=7)

    assert isinstance(denied, errors.Denied)
    assert (denied.reasons, denied.decision_id) == (("a", "b"), "dec_9")
    assert isinstance(held, errors.LeaseHeld)
    assert held.retry_after == 2.5
    assert isinstance(live, errors.PriorCredentialLive)
    assert live.retry_after == 4
    assert isinstance(asked, errors.ApprovalRequired)
    assert (asked.approval_id, asked.answer_by) == ("apr_1", 5)
    assert isinstance(down, errors.BrokerUnavailable)
    assert (down.status, down.retry_after, down.detail) == (503, 7, "disk full")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"code": 5, "title": [], "detail": {"a": 1}, "retry_after_ms": True},
        {"code": "policy_denied", "reasons": "no", "decision_id": 4},
        {"code": "approval_required", "approval_id": [], "answer_by": "soon"},
        {"code": "step_in_doubt", "options": [1, None, "x" * 10_000], "attempt": "2"},
        {"code": "nobody_knows_this", "detail": "x" * 100_000},
    ],
)
def test_a_nonsense_problem_is_still_one_short_named_error(body: dict[str, object]) -> None:
    error = errors.from_problem(500, body)

    assert isinstance(error, errors.StepgrantError)
    assert len(str(error)) < 1200


def test_unknown_codes_keep_their_name_and_unreachable_brokers_are_told_apart() -> None:
    unknown = errors.from_problem(418, {"code": "teapot"})
    proxy = errors.from_problem(502, {})

    assert (type(unknown), unknown.code) == (errors.BrokerError, "teapot")
    assert (type(proxy), proxy.code) == (errors.BrokerUnavailable, "broker_unavailable")
