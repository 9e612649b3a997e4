"""What no real OPA answers, and the reason for which each is refused. For `LyingOpa`."""

import asyncio
import json

from fakes.lying_opa import Lie, Teller
from policies import ALLOW, call, one

POLICY = one(ALLOW)
DEADLINE_S = 0.4
SECRET = "4929-this-stands-in-the-arguments"
QUESTION = call(args={"card": SECRET})
REVISION = POLICY.digest.encode()


def says(body: bytes) -> Lie:
    return lambda teller: teller.answer(body)


def instead(old: bytes, new: bytes) -> Lie:
    return lambda teller: teller.replaced(old, new)


def status(line: str, body: bytes = b"{}") -> Lie:
    return lambda teller: teller.answer(body, status=line)


def provenance(bundles: object) -> Lie:
    said = {"provenance": {"version": "1.0.0", "bundles": bundles}, "result": {"effect": "allow", "reasons": ["x"]}}
    return says(json.dumps(said).encode())


async def half_then_reset(teller: Teller) -> None:
    await teller.send(teller.honest[: len(teller.honest) - 20])
    await asyncio.sleep(0.02)
    teller.reset()


async def reset(teller: Teller) -> None:
    teller.reset()


async def end(teller: Teller) -> None:
    teller.end()


async def hang(_: Teller) -> None:
    await asyncio.sleep(60)


async def drip(teller: Teller) -> None:
    for at in range(len(teller.honest)):
        await teller.send(teller.honest[at : at + 1])
        await asyncio.sleep(0.01)


async def too_long(teller: Teller) -> None:
    await teller.answer(teller.body, length=len(teller.body) + 5)


async def too_short(teller: Teller) -> None:
    await teller.answer(teller.body, length=len(teller.body) - 5)


async def huge(teller: Teller) -> None:
    await teller.answer(b"x" * 1000, length=10**9)


async def endless(teller: Teller) -> None:
    await teller.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        await teller.send(b"400\r\n" + b" " * 1024 + b"\r\n")


async def endless_head(teller: Teller) -> None:
    await teller.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n")
    while True:
        await teller.send(b"X-More: " + b"x" * 1000 + b"\r\n")


async def until_the_end(teller: Teller) -> None:
    await teller.send(b"HTTP/1.1 200 OK\r\n\r\n" + teller.body)
    teller.end()


async def two_lengths(teller: Teller) -> None:
    await teller.answer(teller.body, head="Content-Length: 5\r\n")


async def two_answers(teller: Teller) -> None:
    await teller.send(teller.honest + teller.honest)


async def compressed(teller: Teller) -> None:
    await teller.answer(teller.body, head="Content-Encoding: gzip\r\n")


async def other_protocol(teller: Teller) -> None:
    await teller.send(b"SSH-2.0-OpenSSH_9.9\r\n")


CUT = "closed the connection before its answer was whole"
LIES: dict[str, tuple[Lie, str]] = {
    "status 500 without words": (status("500 Oops", b"<html>"), "OPA failed with status 500"),
    "status 500 that quotes": (
        status("500 x", b'{"code":"internal_error","message":"%b","errors":[{"code":"eval_conflict_error",'
               b'"message":"%b","location":{"file":"stepgrant/main.rego","row":5}}]}' % ((SECRET.encode(),) * 2)),
        "OPA failed with status 500, eval_conflict_error at stepgrant/main.rego:5",
    ),
    "status 500 with a code that is none": (
        status("500 x", b'{"code":"%b"}' % SECRET.encode()), "OPA failed with status 500",
    ),
    "status 503": (status("503 Later"), "OPA failed with status 503"),
    "a redirect": (status("302 Found"), "OPA failed with status 302"),
    "no content": (lambda t: t.answer(b"", status="204 No Content"), "OPA failed with status 204"),
    "status 201 with an allow": (lambda t: t.answer(t.body, status="201 Created"), "OPA failed with status 201"),
    "unauthorized": (status("401 No"), "OPA refuses the broker (401): check the token in opa_token_file"),
    "forbidden": (status("403 No"), "OPA refuses the broker (403)"),
    "bad request": (status("400 No", b'{"code":"invalid_parameter"}'),
                    "OPA refused the input with status 400, invalid_parameter"),
    "nothing": (says(b""), "cannot be read (not_json)"),
    "an empty object": (says(b"{}"), "OPA does not say by which policy it decided"),
    "a list": (says(b"[]"), "OPA's answer is not an object"),
    "a bare true": (says(b"true"), "OPA's answer is not an object"),
    "half of JSON": (says(b'{"result": {"effect": "all'), "cannot be read (not_json)"),
    "no UTF-8": (says(b'{"result": "\xff"}'), "cannot be read (not_utf8)"),
    "a lone surrogate": (instead(b'"listed"', b'"\\ud800"'), "cannot be read (lone_surrogate)"),
    "NaN": (instead(b'"listed"', b"NaN"), "cannot be read (not_json)"),
    "an effect named twice": (
        instead(b'"effect":"allow"', b'"effect":"deny","effect":"allow"'), "cannot be read (duplicate_key)"
    ),
    "a result named twice": (
        instead(b'"result":', b'"result":{"effect":"deny","reasons":["x"]},"result":'), "cannot be read (duplicate_key)"
    ),
    "brackets without end": (says(b"[" * 50_000), "cannot be read (too_deep)"),
    "a number beyond 2^53": (instead(b'["listed"]', b"[9007199254740993]"), "cannot be read (number_out_of_range)"),
    "allow as text": (instead(b'"effect":"allow"', b'"allow":"true"'), "decision has a member beside"),
    "allow as true": (instead(b'"effect":"allow"', b'"allow":true'), "decision has a member beside"),
    "an effect that is true": (instead(b'"effect":"allow"', b'"effect":true'), "effect must be allow, deny or"),
    "a result that is true": (
        instead(b'{"effect":"allow","reasons":["listed"]}', b"true"), "decision must be an object"
    ),
    "an allow without a reason": (instead(b'"listed"', b""), "reasons must name at least one reason"),
    "a TTL of a day": (instead(b'["listed"]', b'["listed"],"grant":{"ttl":86400}'), "grant.ttl must be a whole number"),
    "the policy of yesterday": (
        instead(REVISION, b"sha-256:yesterday"), "OPA has another policy loaded: sha-256:yesterday, but"
    ),
    "our revision under another counter": (
        instead(REVISION, b"3:sha-256:other"), "OPA has another policy loaded: sha-256:other, but"
    ),
    "no revision": (instead(REVISION, b""), "OPA has another policy loaded: one without a revision, but"),
    "a revision that is a list": (provenance({"b": {"revision": [POLICY.digest]}}), "is not text"),
    "a revision over two lines": (provenance({"b": {"revision": POLICY.digest + "\n"}}), "is not text"),
    "no bundle": (provenance({}), "OPA has another policy loaded: none from a bundle"),
    "bundles that are text": (provenance(POLICY.digest), "OPA's provenance names no bundles"),
    "a bundle that is text": (provenance({"b": POLICY.digest}), "is not text"),
    "one of two bundles": (
        provenance({"b": {"revision": POLICY.digest}, "c": {"revision": "x"}}), "OPA has several bundles"
    ),
    "a decision_id over two lines": (
        instead(b'{"provenance"', b'{"decision_id":"a\\nb","provenance"'), "OPA's decision_id is not an identifier"
    ),
    "a decision_id that is a number": (
        instead(b'{"provenance"', b'{"decision_id":7,"provenance"'), "OPA's decision_id is not an identifier"
    ),
    "half an answer, then a reset": (half_then_reset, CUT),
    "a reset": (reset, CUT),
    "the end": (end, CUT),
    "an answer without length": (until_the_end, CUT),
    "no answer": (hang, f"no decision within {DEADLINE_S} s"),
    "byte by byte": (drip, f"no decision within {DEADLINE_S} s"),
    "a length that is too long": (too_long, f"no decision within {DEADLINE_S} s"),
    "a length that is too short": (too_short, "OPA answered more than was asked"),
    "two lengths": (two_lengths, "OPA's answer is not HTTP/1.1"),
    "a gigabyte": (huge, "OPA answered with more than 69632 bytes"),
    "chunks without end": (endless, "OPA answered with more than 69632 bytes"),
    "a head without end": (endless_head, "OPA answered with more than 69632 bytes"),
    "two answers at once": (two_answers, "OPA answered more than was asked"),
    "a compressed answer": (compressed, "is compressed, which was not asked for"),
    "another protocol": (other_protocol, "OPA's answer is not HTTP/1.1"),
}  # fmt: skip
