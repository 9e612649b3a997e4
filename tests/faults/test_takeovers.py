"""Who holds a run when several want it: at once, by policy, by a fork, at the end of a lease, past a frozen broker.

Four brokers on one PostgreSQL serve all of it, and agents reach them through a gate.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from checker.check import check
from checker.reading import read_lines
from faults import zombies
from faults.letters import OK, Post, Reply
from faults.processes import Line, Puppet
from faults.puppet import CALLS
from faults.rivals import HOLDERS, SHORT_MS, Rivalry, Slow, patiently
from faults.sites import Site, site
from stepgrant.receipt import Event, read_event

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer

pytestmark = pytest.mark.timeout(180)
BROKERS: Final = 4
LONG_MS: Final = 60_000
ROUNDS: Final = 10
SLOW: Final = "usecase.before_commit=sleep:2000"
DECIDED_S: Final = 0.3
IN_CALL_S: Final = 0.012
FREEZES: Final = 8
RIVALS: Final = 4
EXPIRY_S: Final = 4.0
TRIES: Final = 5


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer) -> Iterator[Site]:
    folder, url = tmp_path_factory.mktemp("takeovers"), postgres_server.create_database()
    with site(folder, brokers=BROKERS, database_url=url, lease_ms=LONG_MS, sweep_ms=200) as made:
        yield made


class Cast:
    """The agents of one test, by name."""

    def __init__(self, at: Site, folder: Path) -> None:
        self.site, self.folder = at, folder
        self.puppets: list[Puppet] = []

    def puppet(self, who: str = "worker") -> Puppet:
        heard = self.folder / f"heard-{len(self.puppets)}"
        heard.touch()
        self.puppets.append(self.site.puppet(heard, who))
        return self.puppets[-1]

    def events(self, run: str) -> list[Event]:
        records = [one for one in self.site.evidence(run=run).entries if one.chain == run]
        return [read_event(one.data) for one in sorted(records, key=lambda one: one.seq)]

    def broken(self) -> list[str]:
        heard = [read_lines(self.folder / f"heard-{number}") for number in range(len(self.puppets))]
        return [str(one) for one in check(self.site.evidence(*heard))]


@pytest.fixture
def cast(at: Site, tmp_path: Path) -> Iterator[Cast]:
    made = Cast(at, tmp_path)
    yield made
    for puppet in made.puppets:
        puppet.__exit__(None, None, None)


def refusals(puppet: Puppet) -> dict[str, Line]:
    return {verb: puppet.do(f"ask {verb}") for verb in CALLS}


def test_three_that_want_one_run_at_once(cast: Cast) -> None:
    """Two resume it and a third takes it over: every epoch has one holder, and the last one holds it."""
    trio = [cast.puppet(), cast.puppet(), cast.puppet("rescuer")]
    run, epochs = "", []
    for number in range(ROUNDS):
        key = f"race-{number // 2}"
        for puppet in trio:
            puppet.tell(f"open {key}" + (" 0 takeover" if puppet is trio[2] else ""))
        answers = [puppet.answer() for puppet in trio]
        held = {int(answer["epoch"]): puppet for answer, puppet in zip(answers, trio, strict=True) if "epoch" in answer}
        said = [answer for answer in answers if "epoch" not in answer]
        assert len(held) + len(said) == len(trio), answers
        assert all(answer["refused"] in {"lease_held", "policy_denied"} for answer in said), answers
        run = next(str(answer["run"]) for answer in answers if "run" in answer)
        for epoch in sorted(held)[:-1]:
            assert held[epoch].do("ask heartbeat") == {"refused": "stale_epoch"}
        epochs = sorted(held)
        if number % 2 == 0:
            assert held[epochs[-1]].do("park") == {"parked": True}
    taken = [event.epoch for event in cast.events(run) if event.type in {"run_opened", "run_resumed"}]
    assert taken == list(range(1, epochs[-1] + 1))
    assert cast.broken() == []


def test_policy_says_who_takes_over(cast: Cast) -> None:
    """While the lease runs: the rescuer may, a stranger may not, and nobody may who does not ask for it."""
    holder, other, stranger, rescuer = (cast.puppet(who) for who in ("worker", "worker", "stranger", "rescuer"))
    run = str(holder.do("open by-policy")["run"])
    assert holder.do("hold pay") == {"holding": "pay"}
    assert other.do("open by-policy") == {"refused": "lease_held"}
    assert other.do("open by-policy 0 takeover") == {"refused": "policy_denied"}
    assert stranger.do("open by-policy 0 takeover") == {"refused": "policy_denied"}
    assert stranger.do("open by-policy") == {"refused": "lease_held"}
    assert [event.epoch for event in cast.events(run)][-1] == 1
    assert holder.do("ask heartbeat") == {"answer": "accepted"}

    assert rescuer.do("open by-policy 0 takeover") == {"run": run, "epoch": 2}
    assert refusals(holder) == {verb: {"refused": "stale_epoch"} for verb in CALLS}
    assert holder.do("present")["code"] == "grant_revoked"
    assert rescuer.do("hold pay") == {"holding": "pay"}
    assert rescuer.do("present")["status"] == OK
    assert rescuer.do("return") == {"returned": {"order": "0"}}

    resumed = next(event for event in cast.events(run) if event.type == "run_resumed")
    assert (resumed.part("body")["kind"], resumed.part("body")["lease_lapsed"]) == ("takeover", False)
    assert [(line["step"], line["epoch"]) for line in cast.site.target.book(run) if "did" in line] == [("pay", 2)]
    assert rescuer.do("park") == {"parked": True}
    assert stranger.do("open by-policy") == {"refused": "policy_denied"}
    assert cast.broken() == []


def test_a_forked_child_holds_nothing(cast: Cast) -> None:
    """It has all of its parent's memory, but not the key; the run it cannot open either. Its parent goes on."""
    parent = cast.puppet()
    run = str(parent.do("open forked")["run"])
    assert parent.do("hold pay") == {"holding": "pay"}
    before = [event.hash for event in cast.events(run)]
    assert parent.do(" ".join(["fork", *CALLS])) == {
        "child": {**dict.fromkeys(CALLS, "key_lost"), "open": "lease_held"}
    }
    assert [event.hash for event in cast.events(run)] == before
    assert parent.do("present")["status"] == OK
    assert parent.do("return") == {"returned": {"order": "0"}}
    assert parent.do("leave") == {"left": True}
    assert cast.broken() == []


# ------------------------------------------------------------------------------------- brokers that stand still


def test_the_fence_is_checked_by_the_commit(at: Site) -> None:
    """A broker decides, and before it commits another one fences the holder: what was decided is not written."""
    at.nurseries[0].kill()
    at.up(0, SLOW)
    with Post() as post, ThreadPoolExecutor(1) as pool:
        for verb in HOLDERS:
            fenced = any(fenced_before_its_commit(at, post, pool, verb, number) for number in range(TRIES))
            assert fenced, verb
    at.nurseries[0].kill()
    at.up(0)


def fenced_before_its_commit(at: Site, post: Post, pool: ThreadPoolExecutor, verb: str, number: int) -> bool:
    """Whether the takeover came between decision and commit; a machine that stands still for seconds lets it miss."""
    slow = Slow(at, post, verb, f"slow-{verb}-{number}")
    asked: Future[Reply] = pool.submit(post.send, at.doors[0], slow.letter)
    time.sleep(DECIDED_S)
    taken = patiently(slow)
    code = asked.result().code
    assert outlived(at, slow.run) == []
    if code == "":
        return False
    assert (code, taken.members["epoch"]) == (slow.expected, 2), verb
    return True


def outlived(at: Site, run: str) -> list[str]:
    """What was written for an older epoch after a newer one had begun, and what else does not hold."""
    evidence = at.evidence(run=run)
    return [text for _, text in zombies.outlived(evidence)] + [str(one) for one in check(evidence)]


@pytest.mark.parametrize("seed", range(FREEZES))
def test_a_broker_that_stands_still(at: Site, seed: int) -> None:
    """SIGSTOP anywhere in a call, a takeover through another broker, SIGCONT: it was before the fence, or never."""
    chance = random.Random(seed)
    with Post() as post, ThreadPoolExecutor(1) as pool:
        slow = Slow(at, post, chance.choice(HOLDERS), f"frozen-{seed}")
        asked: Future[Reply] = pool.submit(post.send, at.doors[0], slow.letter)
        time.sleep(chance.uniform(0, IN_CALL_S))
        at.freeze(0)
        try:
            taken = patiently(slow)
        finally:
            at.thaw(0)
        code = asked.result().code
    assert code in {"", slow.expected, "run_ended", "conflict", "ledger_unavailable"}
    assert taken.status == OK or (code == "" and taken.code == "run_ended")
    assert outlived(at, slow.run) == []


# ------------------------------------------------------------------------------------------------ the end of a lease


def test_leases_end_when_they_were_said_to_under_load(at: Site) -> None:
    """Four runs, each wanted by two processes that renew at random times around the end of the lease."""
    for order in at.orders:
        order["settings"]["lease_ms"] = SHORT_MS
    at.crash()
    with Post() as post, ThreadPoolExecutor(2 * RIVALS) as pool:
        rivalries = [Rivalry(at, post, f"rivals-{number}", random.Random(number)) for number in range(RIVALS)]
        for _ in range(TRIES):
            end = time.monotonic() + EXPIRY_S
            for done in [pool.submit(one.live, end) for one in rivalries for _ in range(2)]:
                done.result()
            accepted, fenced = sum(one.accepted for one in rivalries), sum(one.fenced for one in rivalries)
            if accepted and fenced and max(max(one.until) for one in rivalries) > 1:
                break
        else:
            pytest.fail("nobody renewed a lease, or nobody lost one")
    assert [wrong for one in rivalries for wrong in one.wrong] == []
    assert [str(one) for one in check(at.evidence())] == []
