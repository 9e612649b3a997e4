"""Every call sent more than once: the same bytes, the same key, another body, with its reply lost, after a crash.

A duplicate is one letter more than the one that may succeed. Of the same bytes one is answered; under one
Idempotency-Key all get one answer, or another body is refused; a redeem is answered once and repeated to whom it was
answered. What is left in the ledger is one entry, however often it was asked for.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import urlsplit

from checker.check import check
from faults.letters import OK, Letter, Post, Reply, Writer
from faults.relay import Relay
from faults.sites import Site, site
from soak.result import Result
from stepgrant.canonical import action_digest
from stepgrant.receipt import read_event
from stepgrant_services import PostgresServer

VERBS: Final = ("open", "record", "prepare", "begin", "complete", "fail", "redeem")
WRITES: Final = {
    "record": "step_recorded", "prepare": "step_prepared", "complete": "step_completed", "fail": "step_failed",
    "redeem": "grant_redeemed",
}  # fmt: skip
"""The one entry about its step that each of them leaves."""
FRESH_S: Final = 30.0
CROWD: Final = 64
REPLAYED: Final = "invalid_dpop_proof"
LONG_LEASE: Final[dict[str, Any]] = {"lease_ms": 600_000, "redeem_window_ms": 10_000}
FIRST: Final = {
    "open": "lease_held", "other open": "lease_held", "other complete": "step_drift",
    "other redeem": "already_redeemed",
}  # fmt: skip
"""What refuses a used proof under a new key before it is looked for: nothing would be written, so it is not spent."""


@dataclass(frozen=True)
class Deed:
    """A call that may succeed once. `others` makes bodies that are not its own; `refusal` is what those get."""

    verb: str
    who: Writer
    path: str
    body: Mapping[str, Any]
    others: Callable[[int], dict[str, Any]]
    refusal: str = "duplicate_request"
    key: str = field(default_factory=Writer.new_key)

    def letter(self, number: int | None = None, **more: Any) -> Letter:  # noqa: ANN401 - members
        """With a fresh proof, under its key; with its own body or with another one."""
        body = self.body if number is None else self.others(number)
        return self.who.write(self.path, {**body, **more}, key=self.key)

    def same(self, one: Reply, other: Reply) -> bool:
        """Whether two answers say the same. A credential is never given twice; all else is."""
        if self.verb == "begin":
            grants = [reply.members["grant"] for reply in (one, other)]
            return bool(grants[0]["jti"] != grants[1]["jti"] and grants[0]["attempt"] == grants[1]["attempt"])
        kept = [{name: value for name, value in reply.members.items() if name != "now"} for reply in (one, other)]
        return kept[0] == kept[1]


class Duplicates:
    """Sends them at a site, through `doors` in turn. `wrong` says what did not hold."""

    def __init__(self, at: Site, post: Post, seed: int) -> None:
        self.site, self.post = at, post
        self.chance = random.Random(seed)
        self.name = f"duplicates-{seed}"
        self.pairs = 0
        self.kinds: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.deeds: list[Deed] = []
        self._numbers = iter(range(10**9))
        self._exchanged_at = -FRESH_S
        self._agent = Writer(at.url, at.keys["worker"])
        self._server = Writer(at.url, at.keys["target"])

    @property
    def door(self) -> str:
        """One of the brokers."""
        return self.chance.choice(list(self.site.doors))

    # ------------------------------------------------------------------------------------------------- what may be done

    def _ask(self, who: Writer, path: str, body: object) -> Mapping[str, Any]:
        reply = self.post.send(self.door, who.write(path, body))
        if reply.status != OK:
            raise RuntimeError(f"{path}: {reply}")
        return reply.members

    def deed(self, verb: str) -> Deed:
        """Something new to be done once, with all that it needs done before."""
        if time.monotonic() - self._exchanged_at > FRESH_S:
            self._agent.exchange(self.door)
            self._server.exchange(self.door)
            self._exchanged_at = time.monotonic()
        key = f"{self.name}-{next(self._numbers)}"
        opening = {"agent": "worker", "run_key": key}
        if verb == "open":
            made = Deed(verb, self._agent, "/v1/runs", opening, lambda n: {**opening, "labels": {"n": str(n)}})
        else:
            made = self._step(verb, str(self._ask(self._agent, "/v1/runs", opening)["run"]))
        self.deeds.append(made)
        return made

    def _step(self, verb: str, run: str) -> Deed:
        path, order = f"/v1/runs/{run}/steps/pay", {"order": run}
        action = {"action": {"tool": "card.charge", "args": order}, "effect": "once"}
        held = {"epoch": 1, "attempt": 1}
        if verb in {"prepare", "begin"}:
            body = {"epoch": 1, **action}
            return Deed(verb, self._agent, f"{path}/{verb}", body, lambda n: {**body, "context": {"n": n}})
        if verb == "record":
            body = {"epoch": 1, "name": "plan", "result": 0}
            return Deed(verb, self._agent, f"{path}/record", body, lambda n: {**body, "result": n})
        jti = str(self._ask(self._agent, f"{path}/begin", {"epoch": 1, **action})["grant"]["jti"])
        if verb == "complete":
            return Deed(verb, self._agent, f"{path}/complete", {**held, "result": 0}, lambda n: {**held, "result": n})
        if verb == "fail":
            failed = {**held, "outcome": "not_executed"}
            return Deed(verb, self._agent, f"{path}/fail", failed, lambda n: {**failed, "error": f"e{n}"})
        digest = action_digest("card.charge", None, {"order": run})
        spent = {"redemption_id": "r", "args_digest": digest, "proof_jti": "p"}
        redeem = f"/v1/grants/{jti}/redeem"
        return Deed(
            verb, self._server, redeem, spent, lambda n: {**spent, "redemption_id": f"r{n}"}, "already_redeemed"
        )

    # -------------------------------------------------------------------------------------------------- what is doubled

    def copies(self, verb: str, number: int) -> None:
        """The same bytes, all at once or one after the other."""
        letter = self.deed(verb).letter()
        self._one_success(f"copies of {verb}", self._sent([letter] * number), REPLAYED)

    def proofs(self, verb: str) -> None:
        """The proof of a call that succeeded, on another key, another body and another path."""
        deed = self.deed(verb)
        letter = deed.letter()
        stolen = [
            letter.but(**{"idempotency-key": Writer.new_key()}),
            letter.but(deed.others(1)),
            letter.but(deed.others(2), **{"idempotency-key": Writer.new_key()}),
        ]
        codes = [self.post.send(self.door, one).code for one in (letter, *stolen)]
        wanted = ["", FIRST.get(verb, REPLAYED), deed.refusal, FIRST.get(f"other {verb}", REPLAYED)]
        if codes != wanted:
            self.wrong.append(f"the proof of {verb}: {wanted} was expected, not {codes}")
        self._count(f"the proof of {verb}", len(stolen))

    def repeats(self, verb: str, number: int) -> None:
        """The same key and body with a fresh proof each: one answer for all."""
        deed = self.deed(verb)
        replies = self._sent([deed.letter() for _ in range(number)])
        self._one_answer(f"repeats of {verb}", deed, replies)

    def bodies(self, verb: str, number: int) -> None:
        """The same key with another body each: one of them is done."""
        deed = self.deed(verb)
        replies = self._sent([deed.letter(number=one) for one in range(number)])
        self._one_success(f"bodies of {verb}", replies, deed.refusal)

    def lost(self, verb: str, relays: Sequence[Relay]) -> None:
        """The reply is lost after the commit: the same bytes are refused, the same call is answered as it was."""
        deed, relay = self.deed(verb), self.chance.choice(list(relays))
        letter = deed.letter()
        relay.lost.clear()
        relay.lose_reply()
        if self.post.send(f"http://127.0.0.1:{relay.port}", letter).status or not relay.lost.is_set():
            self.wrong.append(f"{verb}: the reply was not lost")
        copy = self.post.send(self.door, letter)
        again = [deed.letter(**({"not_received": True} if verb == "begin" else {})) for _ in range(2)]
        replies = [self.post.send(self.door, one) for one in again]
        if copy.code != REPLAYED:
            self.wrong.append(f"{verb}: the bytes whose reply was lost got {copy}")
        self.pairs += 1
        self._one_answer(f"lost reply of {verb}", deed, replies)
        other = self.post.send(self.door, deed.letter(number=1))
        if other.code != deed.refusal:
            self.wrong.append(f"{verb}: another body after a lost reply got {other}")

    def crash(self, verbs: Sequence[str]) -> None:
        """All brokers are killed in between: what was used stays used, what was answered stays answered."""
        done = [(deed, letter, self.post.send(self.door, letter)) for deed, letter in map(self._written, verbs)]
        self.site.crash()
        for deed, letter, first in done:
            copy, again = self._patient(letter), self.post.send(self.door, deed.letter())
            if deed.verb == "redeem" and time.time() * 1000 >= first.members["act_before"]:
                continue  # it took so long to start again that nobody may be answered any more
            self._one_success(f"copy of {deed.verb} after a crash", [first, copy], REPLAYED)
            self._one_answer(f"repeat of {deed.verb} after a crash", deed, [first, again])
            other = self.post.send(self.door, deed.letter(number=1))
            self._one_success(f"another body of {deed.verb} after a crash", [first, other], deed.refusal)

    def _written(self, verb: str) -> tuple[Deed, Letter]:
        deed = self.deed(verb)
        return deed, deed.letter()

    def _patient(self, letter: Letter) -> Reply:
        """A connection that was kept over a crash breaks once."""
        reply = self.post.send(self.door, letter)
        return reply if reply.status else self.post.send(self.door, letter)

    def _sent(self, letters: Sequence[Letter]) -> list[Reply]:
        doors = self.chance.sample(list(self.site.doors), len(self.site.doors))
        if self.chance.random() < 1 / 3:
            return [self.post.send(doors[number % len(doors)], letter) for number, letter in enumerate(letters)]
        return self.post.send_all(doors, letters)

    # --------------------------------------------------------------------------------------------- what must come of it

    def _one_success(self, what: str, replies: Sequence[Reply], refusal: str) -> None:
        codes = Counter(reply.code for reply in replies)
        if codes != Counter({"": 1, refusal: len(replies) - 1}):
            self.wrong.append(f"{what}: one success and {refusal} were expected, not {dict(codes)}")
        self._count(what, len(replies) - 1)

    def _one_answer(self, what: str, deed: Deed, replies: Sequence[Reply]) -> None:
        codes = Counter(reply.code for reply in replies)
        if codes != Counter({"": len(replies)}):
            self.wrong.append(f"{what}: the same answer for all was expected, not {dict(codes)}")
        elif any(not deed.same(replies[0], reply) for reply in replies[1:]):
            self.wrong.append(f"{what}: {[dict(reply.members) for reply in replies[:3]]}")
        self._count(what, len(replies) - 1)

    def _count(self, what: str, number: int) -> None:
        self.pairs += number
        self.kinds[what.partition(" of ")[0]] += number

    def broken(self) -> list[str]:
        """Everything that does not hold, once all was sent."""
        evidence = self.site.evidence()
        found = [f"{self.name}: {wrong}" for wrong in self.wrong] + [f"{self.name}: {one}" for one in check(evidence)]
        written: Counter[tuple[str, str]] = Counter()
        for (_, run), records in evidence.chains():
            written.update((run, read_event(record.data).type) for record in records)
        for deed in self.deeds:
            run = deed.path.split("/")[3] if deed.path.startswith("/v1/runs/") else ""
            entry = WRITES.get(deed.verb)
            if run and entry and written[run, entry] != 1:
                found.append(f"{self.name}: {deed.verb} left {written[run, entry]} entries {entry} in {run}")
        once = {"run_opened", "grant_redeemed"}
        twice = [run for (run, entry), count in written.items() if entry in once and count > 1]
        return found + [f"{self.name}: {run} was opened or redeemed twice" for run in twice]


def storm(duplicates: Duplicates, size: int) -> None:
    """At least `size` duplicates of all kinds; the brokers crash once."""
    with ExitStack() as stack:
        ports = [urlsplit(door).port or 0 for door in duplicates.site.doors]
        relays = [stack.enter_context(Relay("127.0.0.1", port)) for port in ports]
        duplicates.crash(VERBS)
        while duplicates.pairs < size:
            for verb in VERBS:
                duplicates.proofs(verb)
                duplicates.copies(verb, 3)
                duplicates.repeats(verb, 3)
                duplicates.bodies(verb, 3)
            for verb in ("open", "begin", "redeem", "complete"):
                duplicates.lost(verb, relays)
            one, two, three = duplicates.chance.sample(VERBS, 3)
            duplicates.copies(one, CROWD)
            duplicates.repeats(two, CROWD)
            duplicates.bodies(three, CROWD)


def slice(seed: int, size: int) -> Result:  # noqa: A001 - the one name that soak looks for
    """At least `size` duplicates; an even seed on SQLite, an odd one with two brokers on PostgreSQL."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="duplicates-")))
        url = None
        if seed % 2:
            url = stack.enter_context(PostgresServer(options={"fsync": "off"})).create_database()
        at = stack.enter_context(site(folder / "site", brokers=1 + seed % 2, database_url=url, **LONG_LEASE))
        made = Duplicates(at, stack.enter_context(Post()), seed)
        storm(made, size)
        return Result({"duplicates": made.pairs, **made.kinds}, made.broken())
