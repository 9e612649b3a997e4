"""Asking witnesses for cosignatures (C2SP tlog-witness). A witness signs only what continues what it signed before.

Rules:
* Only a cosignature that verifies here is kept: a witness that answers nonsense costs nothing but its vote.
* Witnesses are asked side by side and each is given little time; one that is away is asked again with the next head.
* An answer has a limit. URLs are https, or http on loopback.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from stepgrant import tlog
from stepgrant._errors import BrokerUnavailable, StepgrantError
from stepgrant._http import asend, safe_url
from stepgrant.tlog import witnessing
from stepgrant.tlog.note import read_signatures
from stepgrant_broker.domain.restoring import KnownHead

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import httpx

    from stepgrant._http import Answer
    from stepgrant_broker.ledger.public_log import PublicLog

PATIENCE_S: Final = 3.0
MAX_ANSWER: Final = 16_384
TRIES: Final = 2
_SIZE_DIGITS: Final = 19
_OK: Final = 200
_CONFLICT: Final = 409
_INCONSISTENT: Final = 422

_log = structlog.get_logger(__name__)


class HttpWitnesses:
    """The witnesses of a policy that have a URL. Raises `ConfigurationError` for a URL that is not to be used.

    `refused` is told whoever did not cosign a head, by name, and how: `silent`, `refused`, or `invalid` (an answer that
    does not verify).
    """

    def __init__(
        self,
        policy: tlog.LogPolicy,
        client: httpx.AsyncClient,
        refused: Callable[[str, str], None] = lambda _witness, _kind: None,
    ) -> None:
        self.policy = policy
        self._refused = refused
        self._client = client
        self._asked = [one for one in policy.witnesses.values() if one.url is not None and safe_url(one.url)]
        self._known: dict[str, int] = {}
        self._log: PublicLog | None = None

    def prove_from(self, log: PublicLog) -> None:
        """Where consistency proofs come from."""
        self._log = log

    async def cosign(self, head: tlog.Head, note: tlog.Note) -> Sequence[tlog.NoteSignature]:
        """The cosignatures that were to be had now, each verified."""
        answers = await asyncio.gather(*(self._patiently(one, head, note) for one in self._asked))
        return [signature for signature in answers if signature is not None]

    async def contradictions(self, head: tlog.Head, note: tlog.Note) -> list[KnownHead]:
        """What witnesses remember of this log that this head does not continue; a silent one says nothing.

        Witnesses that find it to continue what they remember cosign it, which nobody needs here.
        """
        found = await asyncio.gather(*(self._remembered(one, head, note) for one in self._asked))
        return [known for known in found if known is not None]

    async def _remembered(self, witness: tlog.Witness, head: tlog.Head, note: tlog.Note) -> KnownHead | None:
        old, where = 0, f"witness {witness.name}"
        try:
            async with asyncio.timeout(PATIENCE_S):
                for _ in range(TRIES + 1):
                    answer = await self._propose(witness, old, head, note)
                    size = _size(answer) if answer.status == _CONFLICT else None
                    if size is not None and size > head.size:
                        return KnownHead(head.origin, size, None, where)
                    if answer.status == _INCONSISTENT:
                        return KnownHead(head.origin, old, None, where)
                    if size is None:
                        return None
                    old = size
        except TimeoutError:
            _log.warning("witness_silent", witness=witness.name)
        except StepgrantError as error:
            _log.warning("witness_refused", witness=witness.name, why=str(error))
        return None

    async def _propose(self, witness: tlog.Witness, old: int, head: tlog.Head, note: tlog.Note) -> Answer:
        proof = [] if self._log is None else await self._log.consistency(old, head.size)
        return await self._send(witness, tlog.AddCheckpoint(old, tuple(proof), note.encoded()))

    async def _patiently(self, witness: tlog.Witness, head: tlog.Head, note: tlog.Note) -> tlog.NoteSignature | None:
        try:
            return await asyncio.wait_for(self._ask(witness, head, note), PATIENCE_S)
        except (TimeoutError, BrokerUnavailable) as error:
            self._refused(witness.name, "silent")
            _log.warning("witness_silent", witness=witness.name, why=str(error) or None)
        except StepgrantError as error:
            self._refused(witness.name, "invalid")
            _log.warning("witness_refused", witness=witness.name, why=str(error))
        return None

    async def _ask(self, witness: tlog.Witness, head: tlog.Head, note: tlog.Note) -> tlog.NoteSignature | None:
        """One cosignature. Raises `NoteInvalid` for one that does not verify, `BrokerUnavailable` without an answer."""
        for _ in range(TRIES):
            old = self._known.get(witness.name, 0)
            if old > head.size or self._log is None:
                return None
            proof = await self._log.consistency(old, head.size)
            answer = await self._send(witness, tlog.AddCheckpoint(old, tuple(proof), note.encoded()))
            if answer.status == _CONFLICT and (size := _size(answer)) is not None:
                self._known[witness.name] = size
                continue
            if answer.status != _OK:
                self._refused(witness.name, "refused")
                _log.warning("witness_refused", witness=witness.name, status=answer.status)
                return None
            self._known[witness.name] = head.size
            return _own(witness, note, answer.body)
        return None

    async def _send(self, witness: tlog.Witness, request: tlog.AddCheckpoint) -> Answer:
        url = f"{witness.url}{witnessing.PATH}"
        return await asend(
            self._client, self._client.build_request("POST", url, content=request.encoded()), max_bytes=MAX_ANSWER
        )


def _size(answer: Answer) -> int | None:
    """The size that a witness knows, from its refusal."""
    text = answer.body.strip()
    return int(text) if text.isdigit() and len(text) <= _SIZE_DIGITS else None


def _own(witness: tlog.Witness, note: tlog.Note, body: bytes) -> tlog.NoteSignature | None:
    """The witness's own signature among those that it sent. Raises `NoteInvalid`."""
    try:
        lines = read_signatures(body.decode())
    except UnicodeDecodeError:
        raise tlog.NoteInvalid("the answer is not UTF-8", reason="not_a_note") from None
    for signature in lines:
        if (signature.name, signature.key_id) == (witness.key.name, witness.key.id):
            witness.key.verify(note.text, signature.blob)
            return signature
    return None
