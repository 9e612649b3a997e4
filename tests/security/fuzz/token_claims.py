"""What can be wrong with the claims of a grant, an access token and a proof: each change is wrong by itself."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping
from typing import Final

from fakes.served import URL
from forged_grants import BROKER, CLAIMS, HOLDER, NOW
from forged_grants import URL as TOOL_URL
from forging import es256
from security.fuzz.jose_mutants import ODD, OTHER, Change, Draft
from stepgrant._dpop import DpopKey, token_hash

AGENT: Final = es256()
"""The holder's key of the proofs that are forged here."""
DETAIL_ODD: Final[Mapping[str, tuple[object, ...]]] = {
    "type": ("payment_initiation", "stepgrant_action ", None, ["stepgrant_action"]),
    "locations": ([], ["https://evil.example"], "https://tool.example", ["https://tool.example", "https://e.example"]),
    "actions": ([], ["refund.delete"], ["refund.create", "refund.delete"], "refund.create", ["*"], ["refund.create "]),
    "identifier": (None, "order/992", "*", "", 991, ["order/991"]),
    "attempt": (0, -1, "2", 2.5, True, None, 10**30),
    "epoch": (0, -1, "9", None, True, [9]),
    "args_digest": ("", "sha-256:", "sha-256:AAAA", "sha-512:AAAA", None, [], "*"),
    "effect": ("any", "ONCE", None, ["once"], ""),
    "redeem": ("never", "REQUIRED", None, True, ""),
    "max_uses": (0, -1, "1", None, 1.5, True),
    "policy": (None, {}, {"revision": "3:abc"}, {"revision": "3:abc", "decision_id": "d", "x": 1}, "3:abc"),
    "new": (1, None, {"effect": "read"}),
}


def one_of(name: str, *values: object, odd: bool = True) -> Change:
    """The claim is one of these, or of the odd ones, or is not there."""

    def change(rng: random.Random, draft: Draft) -> None:
        draft.claims[name] = rng.choice([*values, *(ODD if odd else ()), ...])

    return change


def times(rng: random.Random, draft: Draft) -> None:
    """A time that is past, ahead, too long, or no time."""
    now, name = draft.claims["iat"], rng.choice(["exp", "iat"])
    past = [now - 61, now - 3600, 0, -1, 10**30, float(now), str(now), True, None, [now], ..., "never"]
    ahead = [now + 100, now + 10**9]
    draft.claims[name] = rng.choice([*past, now + 3600] if name == "exp" else [*past[4:], *ahead])


def confirmation(rng: random.Random, draft: Draft) -> None:
    """Bound to another key, in another way, or to none."""
    other = OTHER.jwk
    draft.claims["cnf"] = rng.choice(
        [{}, None, ..., {"jkt": None}, {"jkt": ""}, {"jkt": DpopKey().jkt}, {"jkt": [HOLDER.jkt]}, {"jwk": other},
         {"x5t#S256": "AAAA"}, HOLDER.jkt, [{"jkt": HOLDER.jkt}], {"kid": "k1"}, {"jkt": HOLDER.jkt.lower()}]
    )  # fmt: skip


def detail(rng: random.Random, draft: Draft) -> None:
    """For another action, or not for exactly one."""
    true = copy.deepcopy(CLAIMS["authorization_details"])
    assert isinstance(true, list)
    name = rng.choice(sorted(DETAIL_ODD))
    wrong = {**true[0], name: rng.choice(DETAIL_ODD[name])}
    without = {key: value for key, value in true[0].items() if key not in {name, "idempotency_key", "identifier"}}
    one = true[0]
    lists = [[], [one, one], [one, wrong], [wrong, one], one, None, [None], [[one]], ..., "all"]
    few = rng.choice([*lists, [without]])
    draft.claims["authorization_details"] = few if rng.random() < 0.3 else [wrong]


GRANT: Final[dict[str, Change]] = {
    "iss": one_of("iss", "https://evil.example", BROKER + "/", BROKER.upper(), [BROKER]),
    "aud": one_of("aud", "https://evil.example", ["https://tool.example"], "https://tool.example/", BROKER),
    "tenant": one_of("tenant", "globex", "", "DEFAULT", ["default"], {"id": "default"}),
    "sub": one_of("sub", None, 5, [], {}, "", "x" * 2000, odd=False),
    "times": times,
    "confirmation": confirmation,
    "detail": detail,
}
ACCESS: Final[dict[str, Change]] = {
    "iss": one_of("iss", "https://evil.example", URL + "/"),
    "aud": one_of("aud", "https://tool.example", [URL], URL + "/"),
    "client_id": one_of("client_id", "wkl_unknown", "tool", "agent", "", odd=False),
    "stepgrant": one_of("stepgrant", {"tenant": "acme"}, {"tenant": "globex"}),
    "times": times,
    "cnf": one_of("cnf", {}, None, [], "x", odd=False),
    "grant": lambda _, draft: draft.claims.update(authorization_details=CLAIMS["authorization_details"]),
}
PROOF: Final[dict[str, Change]] = {
    "htm": one_of("htm", "GET", "post", "PATCH", "POST "),
    "htu": one_of(
        "htu", "https://evil.example/refunds", TOOL_URL + "/", TOOL_URL + "/x", "http://tool.example/refunds", URL
    ),
    "ath": one_of("ath", token_hash("another"), "AAAA"),
    "iat": one_of("iat", NOW - 10_000, NOW + 10_000, str(NOW), float(NOW), -NOW),
    "jti": one_of("jti", "x" * 5000, "a b" * 8),
}
NONCE: Final[dict[str, Change]] = {"nonce": one_of("nonce", "another")}


def jwk(rng: random.Random, draft: Draft) -> None:
    """A key in the header that is not the holder's public key, said plainly."""
    own = dict(draft.jwk)
    draft.header["jwk"] = rng.choice(
        [..., None, {}, "jwk", [own], OTHER.jwk, AGENT.private_jwk, {**own, "d": "AAAA"}, {**own, "crv": "P-384"},
         {**own, "y": own["x"]}, {**own, "kty": "OKP"}, {**own, "x": own["x"] + "="}, {**own, "x": "AA" + own["x"]},
         {"kty": "oct", "k": "c2VjcmV0"}, {**own, "x": None}, {**own, "y": "A" * 43},
         {**own, "kty": "RSA", "n": "AQ", "e": "AQAB"}]
    )  # fmt: skip


PROOF["jwk"] = jwk
