"""A journal: entries added one after the other, each sealed and folded at once.

A transition is a function of a journal and a command. It adds entries or raises a named error; a journal that raised is
thrown away, so nothing half done can be written. What changed between the first and the last view are the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import Struct

from stepgrant_broker.domain import fold
from stepgrant_broker.domain.commitments import Committer
from stepgrant_broker.domain.entries import SALT_BYTES, Entry, EntryType, Head, seal
from stepgrant_broker.domain.state import Grant, Run, Step, View
from stepgrant_broker.domain.writes import Row

MODE: Final = "enforce"


class By(Struct, frozen=True):
    """Who caused an entry: `workload`, `person`, `resource_server` or `broker`; `subject` only for the first three."""

    kind: str
    subject: str | None = None


BROKER: Final = By("broker")


class Journal:
    """Entries for one chain, from one view, at one time. `random` gives salts; `now` is the store's clock (ms)."""

    def __init__(
        self,
        *,
        view: View,
        head: Head,
        now: int,
        by: By,
        committer: Committer,
        random: Callable[[int], bytes],
        version: str | None = None,
    ) -> None:
        self.before = view
        self.view = view
        self.head = head
        self.now = max(now, head.last_ts)
        self.by = by
        self.commit = committer
        self.entries: list[Entry] = []
        self._subjects: dict[str | None, str | None] = {None: None}
        self._random = random
        self._version = version

    @property
    def run(self) -> Run:
        """The run of this journal."""
        if self.view.run is None:
            raise LookupError("this journal has no run")
        return self.view.run

    def step(self, key: str) -> Step:
        """A step that is known to be loaded."""
        return self.view.steps[key]

    def add(
        self,
        kind: EntryType,
        *,
        step: str | None = None,
        attempt: int | None = None,
        epoch: int | None = None,
        action: Mapping[str, Any] | None = None,
        decision: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        agent: Mapping[str, Any] | None = None,
        by: By | None = None,
        **optional: Any,  # noqa: ANN401 - the optional members of an entry
    ) -> Entry:
        """Seal one entry at the head and fold it into the view. Optional members that are `None` are left out."""
        run, who = self.view.run, by or self.by
        fields: dict[str, Any] = {
            "type": str(kind),
            "step": step,
            "attempt": attempt,
            "epoch": epoch if epoch is not None or run is None else run.epoch,
            "by": {"kind": who.kind, "subject_c": self._subject_c(who)},
            "agent": agent if agent is not None else self._agent(),
            "mode": MODE,
            "action": action,
            "decision": decision,
            "body": body or {},
        }
        if optional:
            fields |= {name: value for name, value in optional.items() if value is not None}
        (entry,), self.head = seal(self.head, [fields], [self._random(SALT_BYTES)], self.now)
        self.entries.append(entry)
        if entry.run is not None:
            self.view = fold.apply(self.view, entry)
        return entry

    def add_of(self, what: Grant, kind: EntryType, *, body: Mapping[str, Any], **more: Any) -> Entry:  # noqa: ANN401 - as `add`
        """Seal an entry of this grant, as of its own step, attempt and epoch. `more` goes to `add`."""
        named = {"jti": what.jti, "issuer": what.issuer, "exp": what.exp}
        return self.add(
            kind,
            step=what.step,
            attempt=what.attempt,
            epoch=what.epoch,
            action=self.action_of(what),
            body=body,
            **{"grant": named, **more},
        )

    def _subject_c(self, who: By) -> str | None:
        name = who.subject
        if name not in self._subjects:
            known = self.commit.peek("by.subject", name)
            if self.view.run is None or self.view.run.subject_c != known:
                # The holder's name rests behind the run's first entries already.
                known = self.commit.value("by.subject", name)
            self._subjects[name] = known
        return self._subjects[name]

    def _agent(self) -> Mapping[str, Any] | None:
        run = self.view.run
        return None if run is None else {"name": run.agent, "jkt": run.jkt, "version": run.agent_version}

    def action_of(self, what: Step | Grant) -> dict[str, Any]:
        """The `action` member for a known step or grant."""
        step = what if isinstance(what, Step) else self.view.steps.get(what.step)
        resource_c = step.resource_c if step is not None else None
        return {
            "tool": what.tool, "resource_c": resource_c, "digest_c": what.digest_c, "effect": str(what.effect),
        }  # fmt: skip

    def changed(self) -> tuple[Row, ...]:
        """The rows that differ from the first view."""
        rows: list[Row] = []
        if self.view.run is not None and self.view.run is not self.before.run:
            rows.append(self.view.run)
        was, now = self.before, self.view
        kinds: tuple[tuple[Mapping[Any, Row], Mapping[Any, Row]], ...] = (
            (was.steps, now.steps), (was.grants, now.grants), (was.approvals, now.approvals), (was.epochs, now.epochs),
        )  # fmt: skip
        for old, new in kinds:
            if old is not new:
                rows += [row for key, row in new.items() if old.get(key) is not row]
        return tuple(rows)
