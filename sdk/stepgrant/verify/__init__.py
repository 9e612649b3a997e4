"""For resource servers: is this request allowed to do exactly this, now, by this sender?

    verifier = GrantVerifier(
        issuer="https://broker.example", audience="https://tool.example", tenant="default",
        keys=JwksSource("https://broker.example/.well-known/jwks.json"),
        redeemer=BrokerRedeemer("https://broker.example", WorkloadKey.load("tool.key")),
    )
    grant = verifier.verify_sync(Presented.of(method, url, headers), Action("refund.create", "order/991", args))

`verify_sync` (and `verify`, its async twin) returns a `VerifiedGrant`, or raises `stepgrant.errors.VerificationError`:
then nothing may be done. `StepgrantMiddleware` does the same in front of an ASGI application; `refusal` makes the HTTP
answer for servers of other kinds. The base install is enough.
"""

from __future__ import annotations

from stepgrant._exchange import WorkloadKey
from stepgrant._identity import TokenFile
from stepgrant.verify._asgi import HttpRequest, Refusal, StepgrantMiddleware, refusal
from stepgrant.verify._jwks import JwksSource, KeySource, StaticKeys
from stepgrant.verify._memory import Memory, ProcessMemory
from stepgrant.verify._redeem import BrokerRedeemer
from stepgrant.verify._types import Action, Presented, VerifiedGrant
from stepgrant.verify._verifier import GrantVerifier, Redeemed, Redeemer, Redemption

__all__ = [
    "Action",
    "BrokerRedeemer",
    "GrantVerifier",
    "HttpRequest",
    "JwksSource",
    "KeySource",
    "Memory",
    "Presented",
    "ProcessMemory",
    "Redeemed",
    "Redeemer",
    "Redemption",
    "Refusal",
    "StaticKeys",
    "StepgrantMiddleware",
    "TokenFile",
    "VerifiedGrant",
    "WorkloadKey",
    "refusal",
]
