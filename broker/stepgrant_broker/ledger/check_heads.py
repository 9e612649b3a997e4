"""Checking signed heads: who signed them, who cosigned them, and what somebody else kept of them.

Rules:
* A head says nothing until a key of this log that was good for it has signed it; then its root is the judge.
* Heads that were kept elsewhere (`KeptHead`) are what makes a rollback or a fork visible: nothing in a store, whoever
  has all of it, contradicts an earlier state of the same store.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from stepgrant import tlog
from stepgrant_broker.ledger import findings
from stepgrant_broker.ledger.findings import Code, Finding

if TYPE_CHECKING:
    from stepgrant.tlog.policy import LogPolicy
    from stepgrant_broker.domain.log import LogStore, SignedHead
    from stepgrant_broker.ledger.findings import Progress
    from stepgrant_broker.ledger.tenant_fold import Restored

PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class KeptHead:
    """A signed head, as bytes, that was kept elsewhere; `by` says where."""

    data: bytes
    by: str


@dataclass(frozen=True, slots=True)
class LogKey:
    """A key of the log: the heads that it may have signed are of sizes up to `last` (`None`: of any)."""

    key: tlog.NoteKey
    last: int | None = None


@dataclass(slots=True)
class Heads:
    """Whom to believe. `keys`: the log's own, under each name that it had. `policy`: the witnesses that count."""

    keys: Sequence[LogKey]
    policy: LogPolicy | None
    progress: Progress
    signed: int = 0

    def judge(self, kept: SignedHead) -> tuple[bytes | None, list[Finding]]:
        """The root that was truly signed for this size, if any was, and what is wrong with the row."""
        at = findings.head(kept.size)
        self.progress.heads += 1
        try:
            head, note = tlog.read_signed_head(kept.note)
        except (tlog.NoteInvalid, tlog.HeadUnreadable) as error:
            return None, [Finding(Code.HEAD_UNREADABLE, at, str(error))]
        wrong = self.unsigned(head, note)
        if wrong is not None:
            return None, [Finding(Code.HEAD_UNSIGNED, at, wrong)]
        if head.size != kept.size:
            return None, [Finding(Code.HEAD_DIFFERS, at, f"its note is of size {head.size}")]
        self.signed += 1
        found = list(self._cosigned(kept.size, note))
        if head.root != kept.root:
            found.append(Finding(Code.HEAD_DIFFERS, at, "its row has another root than its note"))
        return head.root, found

    def unsigned(self, head: tlog.Head, note: tlog.Note) -> str | None:
        """Why no key of this log stands behind this head; `None` if one does."""
        named = [one for one in self.keys if one.key.name == head.origin]
        if not named:
            return f"it is of another log, {head.origin!r}"
        good = [one.key for one in named if one.last is None or head.size <= one.last]
        try:
            if not note.verified(good):
                return "no key of this log that was good for it signed it"
        except tlog.NoteInvalid as error:
            return str(error)
        return None

    def _cosigned(self, size: int, note: tlog.Note) -> list[Finding]:
        found: list[Finding] = []
        if self.policy is None:
            self.progress.counted = max(self.progress.counted, size)
            return found
        for witness in self.policy.witnesses.values():
            try:
                self.progress.cosignatures += len(note.verified([witness.key]))
            except tlog.NoteInvalid:
                what = f"the cosignature of {witness.name} does not verify"
                found.append(Finding(Code.COSIGNATURE_INVALID, findings.head(size), what))
        if self._counts(note):
            self.progress.counted = max(self.progress.counted, size)
        return found

    def counts(self, kept: SignedHead | None) -> bool:
        """Whether this head counts, and so the log: witnesses cosign a moment after it was signed."""
        if kept is None:
            return False
        try:
            head, note = tlog.read_signed_head(kept.note)
        except (tlog.NoteInvalid, tlog.HeadUnreadable):
            return False
        counted = self.unsigned(head, note) is None and self._counts(note)
        if counted:
            self.progress.counted = max(self.progress.counted, head.size)
        return counted

    def _counts(self, note: tlog.Note) -> bool:
        try:
            if self.policy is not None:
                self.policy.check(note)
        except (tlog.NoteInvalid, tlog.WitnessesMissing):
            return False
        return True


def keys_of(own: Iterable[LogKey], restored: Iterable[Restored]) -> list[LogKey]:
    """The log's keys under its name of now, and, up to where a restore ended it, under each name of before."""
    own = list(own)
    last: dict[str, int] = {}
    for one in restored:
        if one.before is not None:
            last[one.before] = min(one.size, last.get(one.before, one.size))
    present = {one.key.name for one in own}
    return [
        *own,
        *(
            LogKey(tlog.note_key(name, one.key.kind, one.key.public), size if one.last is None else min(size, one.last))
            for name, size in last.items()
            if name not in present
            for one in own
        ),
    ]


async def published(store: LogStore, end: int) -> AsyncIterator[SignedHead]:
    """The signed heads that rest in the store, up to this size, smallest first."""
    size = -1
    while page := await store.log_published_after(size, PAGE):
        for kept in page:
            if kept.size > end:
                return
            yield kept
        size = page[-1].size
