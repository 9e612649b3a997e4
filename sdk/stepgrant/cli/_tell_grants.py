"""A credential's life in words: issued, redeemed, revoked, with the time since it was issued."""

from __future__ import annotations

from typing import Final

from stepgrant.cli import plain
from stepgrant.cli._telling import At, Life, Mark, Teller

MICRO: Final = 1_000_000
CAUSES: Final = {
    "completed": "the work is done",
    "failed": "the step failed",
    "suspended": "the step was suspended",
    "superseded": "the step starts again",
    "outcome_unknown": "its outcome is not known",
    "fenced": "its holder is fenced",
    "lease_lapsed": "its holder went silent",
    "parked": "the run is parked",
    "quarantined": "the kill switch",
    "run_ended": "the run ends",
    "operator": "by hand",
    "restored": "the store was restored",
}


def issued(teller: Teller, at: At) -> None:
    """`grant_issued`."""
    grant, body = at.part("grant"), at.body
    teller.lives[grant["jti"]] = Life(at.ts, str(grant["issuer"]))
    teller.tally.issued += 1
    parts = [
        f"credential issued: {plain.visible(grant['issuer'])} for {plain.visible(body['audience'])}",
        f"at most {plain.span(grant['exp'] - body['issued_at'])}",
    ]
    if body["redeem"] == "required" and body["audience"].startswith("urn:stepgrant:tool:"):
        parts.append("no server checks it")
    elif body["redeem"] == "required":
        parts.append("to be redeemed before use")
    if body["revocation"] == "none":
        parts.append("a static secret, which nobody can revoke")
    if body["labels"]:
        parts.append(f"carries {plain.joined(body['labels'])}")
    if "csr_key" in body:
        parts.append("over a key that the agent made")
    parts += [f"counts {_amount(micro)} {plain.visible(name)}" for name, micro in body["meters"].items()]
    if body["intent"]:
        parts.append("recorded before the issuer is asked")
    teller.say(at, Mark.CREDENTIAL, ", ".join(parts))


def _amount(micro: int) -> str:
    return f"{micro / MICRO:g}"


def lease_recorded(teller: Teller, at: At) -> None:
    """`lease_recorded`."""
    teller.say(at, Mark.CREDENTIAL, f"the issuer's lease is recorded {_since(teller, at)}")


def failed(teller: Teller, at: At) -> None:
    """`grant_failed`."""
    teller.lives.pop(at.part("grant").get("jti", ""), None)
    teller.say(at, Mark.BAD, f"no credential: {plain.visible(at.body['detail'])}; nothing was released")


def redeemed(teller: Teller, at: At) -> None:
    """`grant_redeemed`."""
    life = teller.lives.get(at.part("grant")["jti"])
    if life is not None:
        life.redeemed_at = at.ts
    teller.tally.used += 1
    window = plain.span(at.body["act_before"] - at.ts)
    server = plain.visible(at.body["server"])
    teller.say(at, Mark.CREDENTIAL, f"{server} redeemed it {_since(teller, at)}, and may act for {window}")


def revoked(teller: Teller, at: At) -> None:
    """`grant_revoked`; a second one of the same grant is the issuer's confirmation, or an operator's word."""
    life = teller.lives.get(at.part("grant")["jti"])
    if life is not None and life.over:
        who = (
            "an operator declares it dead" if at.cause == "declared_dead" else "the issuer confirms that it is revoked"
        )
        teller.say(at, Mark.CREDENTIAL, f"{who}, {_since(teller, at)}")
        return
    if life is not None:
        life.over = True
    use = ""
    if at.body["unused"]:
        teller.tally.unused += 1
        use = ", provably never used"
    elif life is not None and life.redeemed_at is None and at.cause != "completed":
        use = ", perhaps used"
    cause = CAUSES.get(str(at.cause), plain.visible(at.cause or "revoked"))
    asked = "" if at.body["confirmed"] else " (the issuer still has to confirm)"
    teller.say(at, Mark.CREDENTIAL, f"credential over {_since(teller, at)}{use}: {cause}{asked}")


def _since(teller: Teller, at: At) -> str:
    life = teller.lives.get(at.part("grant")["jti"])
    return "after an unknown time" if life is None else f"after {plain.span(at.ts - life.issued_at)}"
