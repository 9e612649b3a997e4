"""Two that want one run, by letters: a takeover in the middle of a holder's call, and rivals at the end of a lease."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final

from faults.letters import OK, Post, Reply, Writer
from faults.sites import Site
from stepgrant.canonical import action_digest

SHORT_MS: Final = 1_000
PATIENCE_S: Final = 60.0
HOLDERS: Final = ("begin", "record", "complete", "heartbeat", "park", "end", "redeem")


class Slow:
    """A run whose holder asks one broker for something, while another one gives the run away."""

    def __init__(self, at: Site, post: Post, verb: str, name: str) -> None:
        self.site, self.post = at, post
        self.holder, self.rescuer, self.server = (
            Writer(at.url, at.keys[who]).exchange(at.doors[1]) for who in ("worker", "rescuer", "target")
        )
        self.opening = {"agent": "worker", "run_key": name}
        self.run = str(self.ask(self.holder, "/v1/runs", self.opening).members["run"])
        steps = f"/v1/runs/{self.run}/steps"
        action = {"action": {"tool": "card.charge", "args": {"order": "0"}}, "effect": "once"}
        granted = self.ask(self.holder, f"{steps}/pay/begin", {"epoch": 1, **action}).members["grant"]
        digest = action_digest("card.charge", None, {"order": "0"})
        letters: dict[str, tuple[Writer, str, dict[str, Any]]] = {
            "begin": (self.holder, f"{steps}/more/begin", {"epoch": 1, **action}),
            "record": (self.holder, f"{steps}/plan/record", {"epoch": 1, "name": "plan", "result": 1}),
            "complete": (self.holder, f"{steps}/pay/complete", {"epoch": 1, "attempt": 1, "result": 1}),
            "heartbeat": (self.holder, f"/v1/runs/{self.run}/heartbeat", {"epoch": 1}),
            "park": (self.holder, f"/v1/runs/{self.run}/park", {"epoch": 1, "reason": "requested"}),
            "end": (self.holder, f"/v1/runs/{self.run}/complete", {"epoch": 1, "result": 1}),
            "redeem": (
                self.server, f"/v1/grants/{granted['jti']}/redeem",
                {"redemption_id": "r", "args_digest": digest, "proof_jti": "p"},
            ),
        }  # fmt: skip
        who, path, body = letters[verb]
        self.letter = who.write(path, body)
        self.expected = "grant_revoked" if verb == "redeem" else "stale_epoch"

    def ask(self, who: Writer, path: str, body: object) -> Reply:
        reply = self.post.send(self.site.doors[1], who.write(path, body))
        assert reply.status == OK, reply
        return reply

    def take_over(self) -> Reply:
        return self.ask(self.rescuer, "/v1/runs", {**self.opening, "takeover": True})


def patiently(slow: Slow) -> Reply:
    """Take it over, though the frozen broker may hold the run's row until the database ends its transaction."""
    end = time.monotonic() + PATIENCE_S
    while True:
        letter = slow.rescuer.write("/v1/runs", {**slow.opening, "takeover": True})
        reply = slow.post.send(slow.site.doors[1], letter)
        if reply.status == OK or reply.code == "run_ended" or time.monotonic() > end:
            return reply
        time.sleep(0.1)


@dataclass
class Rivalry:
    """A run that two processes want. What each was told of its lease is what the other one is judged by."""

    at: Site
    post: Post
    key: str
    chance: random.Random
    lock: threading.Lock = field(default_factory=threading.Lock)
    until: dict[int, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    accepted: int = 0
    fenced: int = 0

    def live(self, end: float) -> None:
        """Open whenever it can be had, renew the lease at any time around its end, lose it, come again."""
        door = self.chance.choice(list(self.at.doors))
        while time.monotonic() < end:
            holder = Writer(self.at.url, self.at.keys["worker"]).exchange(door)
            reply = self.post.send(door, holder.write("/v1/runs", {"agent": "worker", "run_key": self.key}))
            now = int(time.time() * 1000)
            if reply.code == "lease_held":
                time.sleep(self.chance.uniform(0, 0.3))
                continue
            epoch, until = int(reply.members["epoch"]), int(reply.members["lease_until"])
            with self.lock:
                before = self.until.get(epoch - 1, 0)
                self.until[epoch] = until
            if now < before:
                self.wrong.append(f"epoch {epoch} began {before - now} ms before the lease of the last one was over")
            self.hold(door, holder, str(reply.members["run"]), epoch)

    def hold(self, door: str, holder: Writer, run: str, epoch: int) -> None:
        """Heartbeats until one is refused: none after the lease that was told, and no refusal within it."""
        while True:
            time.sleep(self.chance.uniform(0.2, 1.3) * SHORT_MS / 1000)
            asked = int(time.time() * 1000)
            reply = self.post.send(door, holder.write(f"/v1/runs/{run}/heartbeat", {"epoch": epoch}))
            now = int(time.time() * 1000)
            with self.lock:
                until = self.until[epoch]
                if reply.status == OK:
                    self.until[epoch] = int(reply.members["lease_until"])
            if reply.status == OK:
                self.accepted += 1
                if asked >= until:
                    self.wrong.append(f"a lease was renewed {asked - until} ms after its end")
                continue
            self.fenced += 1
            if reply.code != "stale_epoch" or now < until:
                self.wrong.append(f"{reply.code} came {until - now} ms before the end of the lease")
            return
