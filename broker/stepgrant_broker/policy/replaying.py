"""Recorded decisions made again under the recorded text, on the engine that made them, and under a candidate.

Rules:
* A text counts only if its digest is the one in the revision; a revision is the name of its text.
* The engine must be the one that is recorded, in its version. What is not here is said, never replaced by another.
* The same input on the same text gives the same answer; one that does not come, or is outside the contract, is a
  difference. What was erased or is missing is not replayable, and never equal.
* An opening or a resume does not record its engine. It is made again on that of the decisions beside it, and says so.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from stepgrant import canonical
from stepgrant_broker.domain.decisions import Decision
from stepgrant_broker.domain.errors import PolicyUnavailable
from stepgrant_broker.domain.replaying import Recorded, Remade, differing, recorded_terms, remade
from stepgrant_broker.policy.bundle import Bundle, digest_of, from_files
from stepgrant_broker.policy.contract import parse
from stepgrant_broker.policy.engines import EngineMissing, Engines
from stepgrant_broker.policy.findings import PolicyInvalid
from stepgrant_broker.policy.opa_tool import ToolAnswer

KEPT: Final = 8
"""Texts that are kept in mind."""
IMPOSSIBLE: Final = (LookupError, ValueError, TypeError, AttributeError)
"""What the domain raises for a record that it cannot have written."""


class Verdict(StrEnum):
    """What came of making a decision again."""

    EQUAL = "equal"
    DIFFERENT = "different"
    TAMPERED = "tampered"
    NOT_REPLAYABLE = "not_replayable"


class Why(StrEnum):
    """Why there is no equal decision."""

    OTHER_DECISION = "other_decision"
    OTHER_TERMS = "other_terms"
    ENGINE_FAILED = "engine_failed"
    INPUT_CHANGED = "input_changed"
    TEXT_CHANGED = "policy_text_changed"
    CHAIN_BROKEN = "chain_broken"
    IMPOSSIBLE_RECORD = "impossible_record"
    INPUT_ERASED = "input_erased"
    TEXT_MISSING = "policy_text_missing"
    ENGINE_MISSING = "engine_missing"


@dataclass(frozen=True, slots=True)
class Made:
    """A recorded decision, made again. `terms` names those that differ.

    `engine_assumed`: the entry does not name its engine. `would`: what the candidate comes to; `would_fail`: why it
    comes to nothing.
    """

    recorded: Recorded
    verdict: Verdict
    engine: str
    engine_assumed: bool = False
    why: Why | None = None
    detail: str = ""
    again: Remade | None = None
    terms: tuple[str, ...] = ()
    would: Remade | None = None
    would_fail: str | None = None

    @property
    def changes(self) -> bool:
        """Whether the candidate decides otherwise than the record, or grants and asks on other terms."""
        if self.would is None:
            return self.would_fail is not None
        recorded = self.recorded
        if (self.would.effect, self.would.reasons) != (recorded.effect, recorded.reasons):
            return True
        before = recorded_terms(recorded) if self.again is None else self.again.terms
        return canonical.dumps(dict(before)) != canonical.dumps(dict(self.would.terms))


class TextUnusable(Exception):
    """There is no text to decide by: `verdict` and `why` say what that means."""

    def __init__(self, verdict: Verdict, why: Why, detail: str) -> None:
        super().__init__(detail)
        self.verdict, self.why, self.detail = verdict, why, detail


class Texts:
    """Policy texts by revision, each proven by its digest. `find` gives the files, or None where they are not kept."""

    def __init__(self, find: Callable[[str], Mapping[str, str] | None]) -> None:
        self._find = find
        self._known: OrderedDict[str, Bundle | TextUnusable] = OrderedDict()

    def bundle(self, revision: str) -> Bundle:
        """The text that the revision names. Raises `TextUnusable`."""
        found = self._known.get(revision)
        if found is None:
            found = self._known[revision] = self._read(revision)
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        if isinstance(found, TextUnusable):
            raise found
        return found

    def _read(self, revision: str) -> Bundle | TextUnusable:
        files = self._find(revision)
        if files is None:
            return TextUnusable(Verdict.NOT_REPLAYABLE, Why.TEXT_MISSING, f"the text of {revision} is not kept")
        changed = TextUnusable(Verdict.TAMPERED, Why.TEXT_CHANGED, f"the text kept for {revision} is another one")
        if digest_of(files) != revision.partition(":")[2]:
            return changed
        try:
            return from_files(files)
        except PolicyInvalid:
            return changed


class Replay:
    """Makes decisions again, some at a time. `candidate`: a text that each is made under, too."""

    def __init__(self, engines: Engines, texts: Texts, candidate: Bundle | None = None) -> None:
        self._engines = engines
        self._texts = texts
        self._candidate = candidate
        self._named: str | None = None
        """The engine that was named last."""

    def make(self, decisions: Sequence[Recorded], *, beside: Sequence[Recorded] = ()) -> list[Made]:
        """Each decision of one chain again, in their order. Raises `OpaToolFailed`.

        `beside`: the decisions that these were taken out of, which may name the engine of those that do not.
        """
        begun = [self._begin(one, self._engine_of(one, beside or decisions)) for one in decisions]
        groups: dict[tuple[str, str], list[int]] = {}
        for at, made in enumerate(begun):
            if made.why is None:
                groups.setdefault((made.recorded.revision, made.engine), []).append(at)
        for (revision, engine), places in groups.items():
            self._make_group(begun, self._texts.bundle(revision), engine, places)
        if self._candidate is not None:
            self._under_candidate(begun, self._candidate)
        return begun

    def _engine_of(self, one: Recorded, beside: Sequence[Recorded]) -> str:
        """The recorded one, else that of the next decision under the same text, of the one before, or of any before."""
        if one.engine is not None:
            self._named = one.engine
            return one.engine
        same = [other for other in beside if other.engine is not None and other.revision == one.revision]
        after, before = ([o for o in same if o.seq > one.seq], [o for o in same if o.seq < one.seq])
        nearest = after[:1] or before[-1:]
        return (nearest[0].engine if nearest else self._named) or self._engines.preferred

    def _begin(self, one: Recorded, engine: str) -> Made:
        begun = Made(one, Verdict.EQUAL, engine, engine_assumed=one.engine is None)
        if one.spoiled:
            detail = "what is stored as its input is not what its entry commits to"
            return replace(begun, verdict=Verdict.TAMPERED, why=Why.INPUT_CHANGED, detail=detail)
        if one.input is None:
            return replace(begun, verdict=Verdict.NOT_REPLAYABLE, why=Why.INPUT_ERASED, detail="its input was erased")
        try:
            self._texts.bundle(one.revision)
        except TextUnusable as unusable:
            return replace(begun, verdict=unusable.verdict, why=unusable.why, detail=unusable.detail)
        return begun

    def _make_group(self, begun: list[Made], bundle: Bundle, engine: str, places: Sequence[int]) -> None:
        try:
            answers = self._engines.decide(bundle, engine, [_input(begun[at]) for at in places])
        except EngineMissing as missing:
            for at in places:
                begun[at] = replace(
                    begun[at], verdict=Verdict.NOT_REPLAYABLE, why=Why.ENGINE_MISSING, detail=str(missing)
                )
            return
        for at, answer in zip(places, answers, strict=True):
            begun[at] = _compared(begun[at], answer)

    def _under_candidate(self, begun: list[Made], candidate: Bundle) -> None:
        """What a decision would be needs its input only, not the text that it was made under."""
        groups: dict[str, list[int]] = {}
        for at, made in enumerate(begun):
            if made.recorded.input is not None and not made.recorded.spoiled:
                groups.setdefault(made.engine, []).append(at)
        for engine, places in groups.items():
            inputs = [_input(begun[at]) for at in places]
            try:
                answers = self._engines.decide(candidate, engine, inputs)
            except EngineMissing as missing:
                answers = [ToolAnswer(error=str(missing))] * len(inputs)
            for at, answer in zip(places, answers, strict=True):
                begun[at] = _under(begun[at], answer)


def _input(made: Made) -> bytes:
    return canonical.dumps(dict(made.recorded.input or {}))


def decision_in(answer: ToolAnswer) -> Decision:
    """What an engine's answer says. Raises `PolicyUnavailable` where it says nothing within the contract."""
    if answer.error is not None:
        raise PolicyUnavailable(answer.error)
    return parse(answer.raw)


def _remade(known: Recorded, answer: ToolAnswer) -> tuple[Remade | None, str | None]:
    """What the answer comes to, or why it comes to nothing. Raises `IMPOSSIBLE` for a record that cannot be."""
    try:
        said = decision_in(answer)
    except PolicyUnavailable as closed:
        return None, closed.detail
    return remade(known, said), None


def _under(made: Made, answer: ToolAnswer) -> Made:
    try:
        would, failed = _remade(made.recorded, answer)
    except IMPOSSIBLE as error:
        would, failed = None, f"its record does not hold together ({type(error).__name__})"
    return replace(made, would=would, would_fail=failed)


def _compared(made: Made, answer: ToolAnswer) -> Made:
    known = made.recorded
    try:
        again, failed = _remade(known, answer)
        terms = () if again is None else differing(recorded_terms(known), again.terms)
    except IMPOSSIBLE as error:
        detail = f"its record does not hold together ({type(error).__name__})"
        return replace(made, verdict=Verdict.TAMPERED, why=Why.IMPOSSIBLE_RECORD, detail=detail)
    if again is None:
        return replace(made, verdict=Verdict.DIFFERENT, why=Why.ENGINE_FAILED, detail=failed or "")
    if (again.effect, again.reasons) != (known.effect, known.reasons):
        return replace(made, verdict=Verdict.DIFFERENT, why=Why.OTHER_DECISION, again=again)
    if terms:
        return replace(made, verdict=Verdict.DIFFERENT, why=Why.OTHER_TERMS, again=again, terms=terms)
    return replace(made, again=again)


def grouped(made: Iterable[Made]) -> Iterator[tuple[str, str, str, int]]:
    """What a candidate changes, as (from, to, reasons, how often), the most frequent first."""
    counts: dict[tuple[str, str, str], int] = {}
    for one in made:
        key = change_of(one)
        counts[key] = counts.get(key, 0) + 1
    for (before, after, reasons), count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        yield before, after, reasons, count


def change_of(made: Made) -> tuple[str, str, str]:
    """What a candidate changes about one decision: from, to, and the reasons of the new one."""
    if made.would is None:
        return made.recorded.effect, "no decision", made.would_fail or ""
    return made.recorded.effect, made.would.effect, ", ".join(made.would.reasons)
