"""Tokens and proofs that are wrong in at least one way, made from a seed: what an attacker may hold and send.

A mutant starts as a true token (`Draft`), goes through changes of what it says (before it is signed, so with a true
signature of the right key), then of its text. Every change by itself makes it wrong, so that a stack of them does too;
the last one at the same place wins. What is left out on purpose: the second of the two signatures that every ECDSA
signature has (r, n - s); it says the same and is refused as a replay, not as a forgery.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from forging import ForgersKey, b64, eddsa, es256, part

OTHER: Final = es256()
ED: Final = eddsa()
MACS: Final = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}
ODD: Final[tuple[object, ...]] = (
    None, True, False, 0, -1, 1.5, 2**53, 2**63, 10**400, "", " ", "x", "\x00", "é", [], {}, [None], {"a": 1}, "null",
)  # fmt: skip
"""Values that are right for no member that is bound."""

Sign = Callable[[bytes], bytes]


@dataclass
class Draft:
    """A token in the making. `raw`: its payload's exact bytes instead of `claims`; `raw_header` likewise."""

    header: dict[str, Any]
    claims: dict[str, Any]
    sign: Sign
    jwk: Mapping[str, str]
    raw: bytes | None = None
    raw_header: bytes | None = None
    done: list[str] = field(default_factory=list)

    def signing_input(self) -> str:
        """Header and payload as they are signed."""
        parts = (
            part(self.header) if self.raw_header is None else b64(self.raw_header),
            part(self.claims) if self.raw is None else b64(self.raw),
        )
        return ".".join(parts)

    def text(self) -> str:
        """Signed truly."""
        signing_input = self.signing_input()
        return f"{signing_input}.{b64(self.sign(signing_input.encode()))}"


Change = Callable[[random.Random, Draft], None]
Rewrite = Callable[[random.Random, Draft, str], str]


# --- what it says ----------------------------------------------------------------------------------------------------


def algorithm(rng: random.Random, draft: Draft) -> None:
    """An algorithm that is not the key's."""
    names = ["none", "None", "nOnE", "", "HS256", "HS512", "RS256", "PS256", "ES384", "ES512", "ES256K", "EdDSA"]
    draft.header["alg"] = rng.choice([*names, "es256", "ES256 ", None, 5, ["ES256"], {"alg": "ES256"}, ...])


def kind(rng: random.Random, draft: Draft) -> None:
    """A token of another kind."""
    right = str(draft.header["typ"])
    others = ["JWT", "dpop+jwt", "at+jwt", "application/JWT", "", " " + right, right + " ", None, 5, [right], ...]
    draft.header["typ"] = rng.choice([one for one in others if one != right])


def critical(rng: random.Random, draft: Draft) -> None:
    """An extension that has to be understood (RFC 7515 §4.1.11), among them unencoded payloads (RFC 7797)."""
    draft.header["crit"] = rng.choice([["b64"], ["exp"], [], "b64", None, ["alg"], [1], {}])
    if rng.random() < 0.5:
        draft.header["b64"] = False


def json_trick(rng: random.Random, draft: Draft) -> None:
    """Bytes that two readers of JSON read differently, or that are none."""
    name = "raw" if rng.random() < 0.7 else "raw_header"
    value = draft.claims if name == "raw" else {n: v for n, v in draft.header.items() if v is not ...}
    true = json.dumps({n: v for n, v in value.items() if v is not ...}).encode()
    member = rng.choice(sorted(value))
    twice = json.dumps({member: rng.choice(ODD)}, default=str)[1:-1].encode()
    tricks = [
        true[:-1] + b"," + twice + b"}",
        b"{" + twice + b"," + true[1:],
        true + rng.choice([b" x", b"{}", b"\x00", b"//", b",", b"]"]),
        b"\xef\xbb\xbf" + true,
        true.decode().encode("utf-16"),
        true[:-1] + b',"n":' + rng.choice([b"NaN", b"Infinity", b"-Infinity", b"1e999", b"01", b"9" * 5000]) + b"}",
        true[:-1] + b',"s":"' + rng.choice([b"\\ud800", b"\xff", b"\x01", b"\\x41", b"\xc0\xaf"]) + b'"}',
        true[:-1] + b',"d":' + b"[" * 5000 + b"]" * 5000 + b"}",
        true[:-1] + b"," + b'"x":1,' * 2 + b'"y":1}',
        true[:-1] + b',"' + member.encode() + b'\\u0000":1,"pad":"' + b"A" * 20_000 + b'"}',
        true[1:-1], b"[" + true + b"]", json.dumps(true.decode()).encode(), b"", b"null", b"true", b"1",
        true.replace(b'"', b"'"), true[:-1] + b",}", true[: rng.randrange(1, len(true))],
    ]  # fmt: skip
    setattr(draft, name, rng.choice(tricks))


def another_key(rng: random.Random, draft: Draft) -> None:
    """Signed by a key of the attacker, which it offers in every way that a header knows."""
    key: ForgersKey = rng.choice([OTHER, ED])
    draft.sign = key.sign
    draft.header["alg"] = key.alg
    if "jwk" in draft.header:  # a proof names its own key: then the token is for another one
        draft.header["jwk"] = key.jwk
        return
    offers: list[dict[str, Any]] = [
        {}, {"jwk": key.jwk}, {"jku": "http://127.0.0.1:9/jwks.json"}, {"x5u": "http://127.0.0.1:9/cert"},
        {"x5c": [b64(b"certificate")]}, {"jwk": key.private_jwk}, {"kid": None}, {"kid": "../../dev/null"},
        {"kid": ["k1"]}, {"kid": {"jwk": key.jwk}}, {"kid": ...}, {"kid": "k1' OR '1'='1"}, {"kid": "k" * 900},
    ]  # fmt: skip
    draft.header.update(rng.choice(offers))


SAYS: Final[dict[str, Change]] = {
    "algorithm": algorithm,
    "kind": kind,
    "critical": critical,
    "json trick": json_trick,
    "another key": another_key,
}


# --- its text --------------------------------------------------------------------------------------------------------


def unsigned(rng: random.Random, draft: Draft, text: str) -> str:
    """No algorithm (`none`), or a signature that is none."""
    head = part(
        {**{n: v for n, v in draft.header.items() if v is not ...}, "alg": rng.choice(["none", "NONE", "ES256"])}
    )
    payload = text.split(".")[1]
    size = rng.choice([0, 1, 32, 63, 64, 65, 128, 4096])
    value = bytes(size) if rng.random() < 0.5 else rng.randbytes(size)
    return f"{head}.{payload}." + (b64(value) if rng.random() < 0.8 else "")


def mac(rng: random.Random, draft: Draft, text: str) -> str:
    """A MAC keyed with the public key, in each form that a library might take for its bytes."""
    alg = rng.choice(sorted(MACS))
    head = part({**{n: v for n, v in draft.header.items() if v is not ...}, "alg": rng.choice([alg, "ES256", "EdDSA"])})
    jwk = dict(draft.jwk)
    pem = OTHER.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    secrets = [
        json.dumps(jwk).encode(),
        jwk["x"].encode(),
        pem,
        b"",
        base64.urlsafe_b64decode(jwk["x"] + "=="),
        b"secret",
    ]
    signing_input = f"{head}.{text.split('.')[1]}"
    return f"{signing_input}.{b64(hmac.digest(rng.choice(secrets), signing_input.encode(), MACS[alg]))}"


def garbled(rng: random.Random, _: Draft, text: str) -> str:
    """One character is another one, is gone, or is one too many. The last one of a part also holds unused bits."""
    at = rng.randrange(len(text))
    new = rng.choice([c for c in "ABab019-_=+/. \n\té%" if c != text[at]])
    changed = rng.choice([text[:at] + new + text[at + 1 :], text[:at] + text[at + 1 :], text[:at] + new + text[at:]])
    return changed if changed != text else text + "A"


def encoded(rng: random.Random, _: Draft, text: str) -> str:
    """base64url in other than its one form."""
    parts = text.split(".")
    at = rng.randrange(3)
    one = parts[at]
    parts[at] = rng.choice(
        [one + "=", one + "==", one + "\n", " " + one, one + "A", one.replace("-", "+").replace("_", "/") + "=",
         one[:-1], one[: len(one) // 2] + "\n" + one[len(one) // 2 :], b64(one.encode()), one + "%3D", ""]
    )  # fmt: skip
    return ".".join(parts)


def shaped(rng: random.Random, draft: Draft, text: str) -> str:
    """Another number of parts, another serialization, a token in a token, one that is huge."""
    head, payload, signature = text.split(".")
    flat = {"protected": head, "payload": payload, "signature": signature}
    wrapped = part({**{n: v for n, v in draft.header.items() if v is not ...}, "cty": "JWT"}) + "." + b64(text.encode())
    return rng.choice(
        [f"{head}.{payload}", head, "", ".", "..", "...", text + ".", "." + text, f"{text}.{text}",
         text + "." + signature,
         json.dumps(flat), json.dumps({"payload": payload, "signatures": [flat]}), f"{head}.{payload}..{signature}",
         f"{wrapped}.{b64(draft.sign(wrapped.encode()))}", f"{head}..{signature}", f".{payload}.{signature}",
         text * 40, "A" * 20_000, text + " ", " " + text, f'"{text}"', f"{text},{text}", "DPoP " + text, text + "\x00",
         f"{payload}.{head}.{signature}", text.upper(), text[::-1], text + "~", text + "#"]
    )  # fmt: skip


def resigned(rng: random.Random, _: Draft, text: str) -> str:
    """The signature in another form, or moved about."""
    signing_input, signature = text.rsplit(".", 1)
    raw = base64.urlsafe_b64decode(signature + "==")
    half = len(raw) // 2
    r, s = raw[:half], raw[half:]
    der = b"\x30" + bytes([2 * half + 4]) + b"\x02" + bytes([half]) + r + b"\x02" + bytes([half]) + s
    flip = bytearray(raw)
    flip[rng.randrange(len(flip))] ^= 1 << rng.randrange(8)
    forms = [
        der,
        s + r,
        r,
        raw + b"\x00",
        b"\x00" + raw,
        bytes(flip),
        bytes(half) + s,
        r + bytes(half),
        raw + raw,
        b"\xff" * 64,
    ]
    if forms[1] == raw:
        forms[1] = r
    return f"{signing_input}.{b64(rng.choice(forms))}"


REWRITES: Final[dict[str, Rewrite]] = {
    "unsigned": unsigned,
    "mac": mac,
    "garbled": garbled,
    "encoded": encoded,
    "shaped": shaped,
    "resigned": resigned,
}


def mutant(rng: random.Random, draft: Draft, says: Mapping[str, Change]) -> str:
    """A wrong token from a true one; `draft.done` names what was done to it. `says`: changes of this kind of token."""
    known = {**SAYS, **says}
    names = sorted(says) * 3 + sorted(SAYS)
    for name in dict.fromkeys(rng.choices(names, k=rng.choice([0, 1, 1, 2]))):
        known[name](rng, draft)
        draft.done.append(name)
    draft.header = {name: value for name, value in draft.header.items() if value is not ...}
    draft.claims = {name: value for name, value in draft.claims.items() if value is not ...}
    text = draft.text()
    if not draft.done or rng.random() < 0.2:
        name = rng.choice(sorted(REWRITES))
        text = REWRITES[name](rng, draft, text)
        draft.done.append(name)
    return text
