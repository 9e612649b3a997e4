"""Signed notes (C2SP signed-note): a text, and signatures under names. Made for heads, used by witnesses too.

    text, which ends with a newline
                                                  (an empty line)
    — <name> base64(key id, 4 bytes ‖ signature)

Rules:
* Signatures of unknown keys are passed over; a known key (name and id) whose signature fails spoils the whole note.
* A key's id binds its name, its kind and its bytes, so one name cannot speak with another's key by accident.
* Reading is strict: UTF-8, no control characters but newline, at most 64 signatures, one form of base64.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from stepgrant._keys import JoseError, verifying_key
from stepgrant.canonical import b64u
from stepgrant.tlog.errors import LogPolicyInvalid, NoteInvalid

ED25519: Final = 0x01
"""Kind of a log's own signature: Ed25519 over the text."""

COSIGNATURE: Final = 0x04
"""Kind of a witness's signature (C2SP tlog-cosignature): a time (u64, big endian, seconds), then Ed25519."""

MAX_NOTE_BYTES: Final = 1_000_000
MAX_SIGNATURES: Final = 64
_KEY_BYTES: Final = 32
_ID_BYTES: Final = 4
_TIME_BYTES: Final = 8
_SIGNATURE_BYTES: Final = 64
_NAME: Final = re.compile(r"[^\s+\x00-\x1f\x7f]{1,255}")
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
_LINE: Final = re.compile(r"— ([^ ]+) ([A-Za-z0-9+/]+={0,2})")
_VKEY: Final = re.compile(r"([^+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]+={0,2})")


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A verifier key: whose (`name`), of which `kind`, and its 32 public bytes."""

    name: str
    kind: int
    public: bytes

    @property
    def id(self) -> bytes:
        """SHA-256(name ‖ 0x0A ‖ kind ‖ key), its first 4 bytes."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes((self.kind,)) + self.public).digest()[:_ID_BYTES]

    @property
    def vkey(self) -> str:
        """The key as one line of text: `name+hex(id)+base64(kind ‖ key)`."""
        typed = base64.b64encode(bytes((self.kind,)) + self.public).decode("ascii")
        return f"{self.name}+{self.id.hex()}+{typed}"

    def verify(self, text: str, blob: bytes) -> int | None:
        """The time that a cosignature states (seconds); None for a log's own. Raises `NoteInvalid`."""
        signed, seconds = text.encode(), None
        if self.kind == COSIGNATURE:
            if len(blob) != _TIME_BYTES + _SIGNATURE_BYTES:
                raise NoteInvalid(f"the cosignature of {self.name} has another length", reason="bad_signature")
            seconds = int.from_bytes(blob[:_TIME_BYTES], "big")
            blob, signed = blob[_TIME_BYTES:], cosigned_bytes(text, seconds)
        try:
            verifying_key({"kty": "OKP", "crv": "Ed25519", "x": b64u(self.public)}).verify(signed, blob)
        except JoseError:
            raise NoteInvalid(f"the signature of {self.name} does not verify", reason="bad_signature") from None
        return seconds


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line. `blob` is what follows the key id."""

    name: str
    key_id: bytes
    blob: bytes

    @property
    def line(self) -> str:
        """The line, without a newline."""
        return f"— {self.name} {base64.b64encode(self.key_id + self.blob).decode('ascii')}"


@dataclass(frozen=True, slots=True)
class Note:
    """A text (it ends with a newline) and its signatures, none of them verified yet."""

    text: str
    signatures: tuple[NoteSignature, ...]

    def encoded(self) -> bytes:
        """The note as bytes."""
        return (self.text + "\n" + "".join(one.line + "\n" for one in self.signatures)).encode()

    def verified(self, keys: Iterable[NoteKey]) -> dict[NoteKey, int | None]:
        """The known keys that signed, each with the time that it states. Raises `NoteInvalid` if one fails."""
        known = {(key.name, key.id): key for key in keys}
        found: dict[NoteKey, int | None] = {}
        for signature in self.signatures:
            key = known.get((signature.name, signature.key_id))
            if key is not None and key not in found:
                found[key] = key.verify(self.text, signature.blob)
        return found


def cosigned_bytes(text: str, seconds: int) -> bytes:
    """What a witness signs (C2SP tlog-cosignature, cosignature/v1)."""
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


def cosignature(name: str, key_id: bytes, seconds: int, signature: bytes) -> NoteSignature:
    """A witness's signature line for its Ed25519 `signature` over `cosigned_bytes`."""
    return NoteSignature(name, key_id, seconds.to_bytes(_TIME_BYTES, "big") + signature)


def read_note(data: bytes) -> Note:
    """Raises `NoteInvalid` unless it is a note in its one form, with one signature or more."""
    if len(data) > MAX_NOTE_BYTES:
        raise NoteInvalid(f"a note has at most {MAX_NOTE_BYTES} bytes", reason="too_large")
    try:
        whole = data.decode()
    except UnicodeDecodeError:
        raise NoteInvalid("a note is UTF-8", reason="not_a_note") from None
    text, gap, tail = whole.rpartition("\n\n")
    if not gap or not tail.endswith("\n") or _CONTROL.search(whole):
        raise NoteInvalid("a note is a text, an empty line and signature lines", reason="not_a_note")
    return Note(text + "\n", tuple(read_signatures(tail)))


def read_signatures(tail: str) -> list[NoteSignature]:
    """Signature lines, each with a newline. Raises `NoteInvalid`."""
    lines = tail.split("\n")
    if not tail.endswith("\n") or not 1 <= len(lines) - 1 <= MAX_SIGNATURES:
        raise NoteInvalid(f"a note has 1 to {MAX_SIGNATURES} signature lines", reason="not_a_note")
    return [_signature(line) for line in lines[:-1]]


def _signature(line: str) -> NoteSignature:
    found = _LINE.fullmatch(line)
    if found is None or not _NAME.fullmatch(found[1]):
        raise NoteInvalid("a signature line is `— name base64`", reason="not_a_note")
    blob = _strict_base64(found[2])
    if blob is None or len(blob) <= _ID_BYTES:
        raise NoteInvalid("a signature line's last part is not base64 of a key id and a signature", reason="not_a_note")
    return NoteSignature(found[1], blob[:_ID_BYTES], blob[_ID_BYTES:])


def note_key(name: str, kind: int, public: bytes) -> NoteKey:
    """A verifier key. Raises `LogPolicyInvalid` for a name that no note can carry, or a key of another kind or size."""
    if not _NAME.fullmatch(name):
        raise LogPolicyInvalid("a key's name has no space, plus or control character", reason="bad_name")
    if kind not in {ED25519, COSIGNATURE} or len(public) != _KEY_BYTES:
        raise LogPolicyInvalid("only Ed25519 keys (kinds 1 and 4) of 32 bytes are known", reason="unknown_kind")
    try:
        verifying_key({"kty": "OKP", "crv": "Ed25519", "x": b64u(public)})
    except JoseError as error:
        raise LogPolicyInvalid(f"the key is refused ({error.reason})", reason="bad_key") from None
    return NoteKey(name, kind, public)


def read_vkey(text: str) -> NoteKey:
    """A line `name+hex(id)+base64(kind ‖ key)`. Raises `LogPolicyInvalid`."""
    found = _VKEY.fullmatch(text.strip())
    typed = _strict_base64(found[3]) if found is not None else None
    if found is None or not typed:
        raise LogPolicyInvalid("a verifier key is name+hash+base64", reason="bad_vkey")
    key = note_key(found[1], typed[0], typed[1:])
    if key.id.hex() != found[2]:
        raise LogPolicyInvalid("a verifier key's hash is not the one of its name and key", reason="bad_vkey")
    return key


def _strict_base64(text: str) -> bytes | None:
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return data if base64.b64encode(data).decode("ascii") == text else None
