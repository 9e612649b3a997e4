"""What can be told of a run that is over: how it ended and with which result, from the record of the run itself.

Rules:
* The refusal names the run and its state; an older broker's does not, and then the run is searched.
* Nothing is opened, decided or done: a run's end is final, and the broker has said so before anybody asks here.
* A workload reads its own runs only. What it may not read, or what was erased, is not known; that is no failure.
* A result belongs to one input. It is given back only to a caller who named no other one.
* Each value is checked against what its entry committed to, so that no result of another run can be taken for this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from stepgrant import _calls, _outcomes
from stepgrant import _errors as e
from stepgrant._flows import Flow
from stepgrant._problems import ENDS
from stepgrant._timeouts import Patience
from stepgrant.canonical import digest_bytes

if TYPE_CHECKING:
    from stepgrant._receipt_entries import Event
    from stepgrant._run_flows import Means, Order

SEARCHED: Final = 2000
"""So many of this workload's newest runs are searched for a run's key."""
_PAGE: Final = 500
_ASK_S: Final = 5.0


def learned(order: Order, means: Means, said: e.RunEnded) -> Flow[e.RunEnded]:
    """The same refusal, with what the record of the run says of its end. Raises nothing of its own."""
    if order.run_key is None or not order.learn:
        return said
    known = _Known(order, means, said)
    try:
        yield from known.look()
    except e.StepgrantError:
        # Whatever keeps the record from us: that the run is over stands without it.
        return known.told(said)
    return known.told(said)


class _Known:
    """What was learned so far."""

    def __init__(self, order: Order, means: Means, said: e.RunEnded) -> None:
        self._order = order
        self._means = means
        self._patience = Patience(min(_ASK_S, order.timeouts.broker))
        self._run, self._state = said.run, said.state
        self._result: Any = None
        self._recorded = False
        self._other_input = False

    def told(self, said: e.RunEnded) -> e.RunEnded:
        """The error that says all of it."""
        return e.RunEnded(
            str(said),
            run_key=self._order.run_key,
            run=self._run,
            state=self._state,
            result=self._result,
            recorded=self._recorded,
            other_input=self._other_input,
        )

    def look(self) -> Flow[None]:
        """Find the run, where the refusal did not name it, then read its record. Raises `StepgrantError`."""
        if self._run is None:
            row = yield from self._find()
            if row is None or row.state not in ENDS:
                return
            self._run, self._state = row.id, row.state
        receipt: _outcomes.Evidence = yield from self._ask(_calls.receipt(self._run), _outcomes.Evidence)
        self._read(receipt)

    def _find(self) -> Flow[_outcomes.ListedRun | None]:
        after: str | None = None
        for _ in range(SEARCHED // _PAGE):
            call = _calls.own_runs(self._order.agent, limit=_PAGE, after=after)
            page: _outcomes.RunPage = yield from self._ask(call, _outcomes.RunPage)
            found = next((row for row in page.runs if row.key == self._order.run_key), None)
            after = page.next
            if found is not None or after is None:
                return found
        return None

    def _ask(self, call: _calls.Call, kind: Any) -> Flow[Any]:  # noqa: ANN401  # as `Caller.call`
        return self._means.caller.call(call, kind, patience=self._patience)

    def _read(self, receipt: _outcomes.Evidence) -> None:
        """The run's input and result, where they are still there. Raises `ReceiptError`."""
        from stepgrant._receipt_disclosures import disclose  # noqa: PLC0415 - only who asks for a run that is over
        from stepgrant._receipt_entries import read_event  # noqa: PLC0415 - as above
        from stepgrant._receipt_parts import entry_bytes  # noqa: PLC0415 - as above

        events = tuple(read_event(data, position) for position, data in enumerate(entry_bytes(receipt.entries)))
        if any(event.fields["run"] != self._run for event in events):
            return
        shown, _, _ = disclose(receipt.disclosures, events)
        same = self._same_input(shown)
        if not same:
            self._other_input = same is False
            return
        end = next((event for event in reversed(shown) if event.type == "run_ended"), None)
        if end is None or end.part("outcome").get("status") != self._state:
            return
        if "result_c" not in end.part("outcome"):
            self._recorded = True  # it ended without one, and that is known
        elif "outcome.result" in end.preimages:
            self._result, self._recorded = end.preimages["outcome.result"], True

    def _same_input(self, events: Sequence[Event]) -> bool | None:
        """Whether the run was opened with what this caller gives, who may give none; None where nobody can tell."""
        opened = next((event for event in events if event.type == "run_opened"), None)
        if self._order.input is None:
            return True
        if opened is None or ("input_c" in opened.part("body") and "run.input" not in opened.disclosed):
            return None
        return opened.disclosed.get("run.input") == digest_bytes(self._order.input)
