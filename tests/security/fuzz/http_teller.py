"""Tells the stories of `http_stories` to a walk's broker, each once honestly and once not.

* Honestly: before each true request come twins of it whose caller is not proven, the last of them with a body that no
  endpoint takes: who calls is looked at first. Which ways they take goes round for each endpoint by itself, so that
  after `TELLINGS` of all stories every endpoint has refused every way. The true request then works, so the twins have
  done nothing; and its proof, sent once more, is refused.
* Not honestly: bodies and names are changed first, and the story goes on as long as the true request is let.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import schemathesis

from security.fuzz import odd_json
from security.fuzz.http_callers import kinds_of
from security.fuzz.http_stories import STORIES, Ask, Story
from security.fuzz.http_unproven import WAYS, ways_for

if TYPE_CHECKING:
    from security.fuzz.http_walk import Walk

TWINS: Final = 3
"""How many unproven twins come before each true request."""
TELLINGS: Final = -(-len(WAYS) // TWINS)
"""After so many tellings of all stories, every endpoint has seen every way."""
ODD: Final = {"nobody": "takes this"}
PATIENT: Final = 20
UNAVAILABLE: Final = 503
Send = Callable[[], schemathesis.Response]


class LostError(AssertionError):
    """What was answered does not lead on. Told honestly, a story never comes to this."""


class Teller:
    """Tells the stories, each under a name of its own."""

    def __init__(self, walk: Walk, schema: schemathesis.BaseSchema) -> None:
        self.walk, self.rng, self.schema = walk, walk.rng, schema
        self.told = 0
        self._asked: Counter[str] = Counter()
        self._turns: Counter[str] = Counter()

    def tell(self) -> None:
        """The next story, honestly, and then not."""
        make = STORIES[self.told % len(STORIES)]
        name = f"{make.__name__}-{self.told}"
        self._tell(name, make, self._truly)
        # An odd request may be a good one, with another outcome than the story's next needs.
        with suppress(LostError):
            self._tell(f"{name}-wild", make, self._wildly)
        self.told += 1

    def missing(self, document: Mapping[str, Any]) -> Iterator[str]:
        """What the tellings ought to have reached and have not: endpoints that ask who calls, and ways at them."""
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                label = f"{method.upper()} {path}"
                kinds = frozenset(name for one in operation["security"] for name in one)
                if kinds and self._asked[label] < self.told // len(STORIES):
                    yield f"no story asks {label}"
                for way in ways_for(kinds):
                    if not self.walk.refusals[label, way]:
                        yield f"{label} was never asked by a caller not proven ({way})"

    def _tell(self, name: str, make: Callable[[str], Story], send: Callable[[str, Ask], Any]) -> None:
        self.walk.callers.succeed()
        story = make(name)
        ask = next(story)
        with suppress(StopIteration):
            while (answer := send(name, ask)) is not None:
                try:
                    ask = story.send(answer)
                except KeyError:
                    raise LostError(f"{name}: {ask} -> {answer}") from None
        story.close()

    def _truly(self, name: str, ask: Ask) -> Any:  # noqa: ANN401 - the JSON of the answer
        label = f"{ask.method} {ask.path}"
        ways = ways_for(kinds_of(self._case(ask)))
        for twin in range(TWINS):
            way = ways[self._turns[label] % len(ways)]
            self._turns[label] += 1
            odd = ask.body is not None and twin == TWINS - 1
            self._patiently(partial(self._unproven, replace(ask, body=ODD) if odd else ask, way))
        case = self._case(ask)
        response = self._patiently(lambda: self._true(ask, case))
        if response.status_code != 200:
            self.walk.found.append(f"{name}: {ask} -> {response.status_code} {response.text[:500]}")
            return None
        self._asked[label] += 1
        self._used_before(ask, case)
        return response.json()

    def _unproven(self, ask: Ask, way: str) -> schemathesis.Response:
        return self.walk.unproven(self._case(ask), way, who=ask.who)

    def _used_before(self, ask: Ask, case: schemathesis.Case[Any]) -> None:
        """The proof that was just taken, or that of a workload that may look at the same place, comes again."""
        if "DPoP" not in case.headers:
            if ask.method != "GET":
                return
            self._patiently(lambda: self._true(ask, case, who="agent"))
        self._patiently(lambda: self.walk.again(case, ask.again))

    def _wildly(self, _: str, ask: Ask) -> Any:  # noqa: ANN401 - the JSON of the answer
        for _again in range(1 + self.rng.randrange(2)):
            case = self._case(ask)
            if case.path_parameters and (ask.body is None or self.rng.random() < 0.2):
                self.walk.live.rename(case)
            elif ask.body is not None:
                case.body = odd_json.changed(self.rng, dict(ask.body))
            self.walk.fuzzed(case, who=ask.who)
        case = self._case(ask)
        response = self._patiently(lambda: self._true(ask, case))
        return response.json() if response.status_code == 200 else None

    def _patiently(self, send: Send) -> schemathesis.Response:
        """The answer; again if the broker says that it cannot now (a busy machine is no finding)."""
        again = PATIENT
        while (response := send()).status_code == UNAVAILABLE and (again := again - 1):
            time.sleep(0.5)
        return response

    def _true(self, ask: Ask, case: schemathesis.Case[Any], who: str = "") -> schemathesis.Response:
        self.walk.callers.authenticate(case, who=who or ask.who, keyed=1.0)
        return self.walk.send(case)

    def _case(self, ask: Ask) -> schemathesis.Case[Any]:
        case = self.schema[ask.path][ask.method].Case(path_parameters=dict(ask.where), headers={}, query={})
        if ask.body is not None:
            case.body, case.media_type = dict(ask.body), "application/json"
        return case
