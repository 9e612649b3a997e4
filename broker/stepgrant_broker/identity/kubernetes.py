"""Identity by a projected service account token of Kubernetes.

Rules:
* Our audience and no other: a projected volume asks for one. Tokens for the API server's own audience may live a year,
  and every pod has one.
* The token is bound to a pod (`require_pod`; a token that somebody requested by hand is not). Checked offline, against
  the cluster's keys: that the pod was deleted since is not seen before the token expires, ten minutes to an hour.
* Rules match namespace and service account; give `service_account_uid` too where somebody else could make an account of
  the same name again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from stepgrant.canonical import JsonValue
from stepgrant_broker.domain.errors import InvalidToken
from stepgrant_broker.identity.attesting import Method, text_claim
from stepgrant_broker.identity.jwt_verifier import Profile
from stepgrant_broker.identity.public_keys import ALGORITHMS
from stepgrant_broker.identity.trust import Seen, TrustedIssuer

CLAIM: Final = "kubernetes.io"
SUBJECT: Final = "system:serviceaccount:"
LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_UID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_MAX_SUBJECT_CHARS: Final = 600


def facts_of(issuer: TrustedIssuer, claims: Mapping[str, JsonValue]) -> Seen:
    """Namespace and service account. Raises `InvalidToken` for claims that are not a projected token's."""
    subject = text_claim(claims, "sub", max_chars=_MAX_SUBJECT_CHARS)
    bound = claims.get(CLAIM)
    if not isinstance(bound, dict):
        raise _refused(f"it has no {CLAIM} claim; use a projected token, not a legacy secret", "not_projected")
    namespace, (account, account_uid) = bound.get("namespace"), _named(bound, "serviceaccount")
    if not isinstance(namespace, str) or not LABEL.fullmatch(namespace) or account is None or account_uid is None:
        raise _refused(f"{CLAIM} names no namespace and service account", "bad_service_account")
    if subject != f"{SUBJECT}{namespace}:{account}":
        raise _refused(f"sub and {CLAIM} name two service accounts", "bad_service_account")
    pod, pod_uid = _named(bound, "pod")
    if issuer.require_pod and (pod is None or pod_uid is None):
        raise _refused("it is bound to no pod; use a projected volume (require_pod)", "no_pod")
    node, _ = _named(bound, "node")
    facts = {"namespace": namespace, "service_account": account, "service_account_uid": account_uid}
    found = {**facts, "pod": pod, "pod_uid": pod_uid, "node": node}
    return Seen(
        subject=f"{namespace}/{account}",
        name=f"kubernetes:{issuer.name}/{namespace}/{account}",
        trust_domain=str(issuer.issuer),
        facts=dict(facts),
        shown=("namespace", "service_account"),
        attributes={"issuer": issuer.name, **{name: value for name, value in found.items() if value is not None}},
    )


def _named(bound: Mapping[str, JsonValue], kind: str) -> tuple[str | None, str | None]:
    """Name and uid of a member `{name, uid}`; None for what is missing. Raises `InvalidToken` for what is no name."""
    member = bound.get(kind)
    if member is None:
        return None, None
    name = member.get("name") if isinstance(member, dict) else None
    uid = member.get("uid") if isinstance(member, dict) else None
    if not isinstance(name, str) or not LABEL.fullmatch(name) or (uid is not None and not _is_uid(uid)):
        raise _refused(f"{kind} of {CLAIM} has no name and uid of Kubernetes", "bad_service_account")
    return name, uid if isinstance(uid, str) else None


def _is_uid(value: JsonValue) -> bool:
    return isinstance(value, str) and _UID.fullmatch(value) is not None


def _refused(what: str, reason: str) -> InvalidToken:
    return InvalidToken(f"the identity token is not valid: {what} ({reason})")


METHOD: Final = Method(
    Profile(
        method="kubernetes",
        algorithms=ALGORITHMS,
        usual=frozenset({"RS256", "ES256"}),
        types=frozenset({"jwt"}),
        uses=frozenset({"sig", None}),
    ),
    facts_of,
)
