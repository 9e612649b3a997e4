"""The last chapters: the timeline, the receipt, and the search for secrets. Broker and targets end on the way.

What a receipt says is verified before it is believed: first by a fresh process that has the receipt and the public key
and nobody to ask, then here, where its entries become the evidence for the rest.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from signal import SIGTERM
from typing import Final

from stepgrant import receipt
from stepgrant.canonical import dumps
from stepgrant.cli import timeline
from stepgrant.errors import ReceiptError
from stepgrant_broker.demo import evidence, leaks
from stepgrant_broker.demo.checks import Broken, Checks
from stepgrant_broker.demo.stage import LAST_STEP, SLOW, Stage
from stepgrant_broker.demo.words import Words

MAX_TTL_MS: Final = 60_000
FLIPS: Final = 100
REFUSED: Final = 1


def prove(stage: Stage, checks: Checks, words: Words) -> None:
    """Raises `Broken` if there is no receipt to look at."""
    checks.chapter = "The receipt, with nobody left to ask"
    file, keys = take_home(stage)
    codes = stage.curtain()
    ended = all(code in {0, -SIGTERM} for code in codes)
    checks.check("broker and targets have ended as they were asked to", ended, f"exit codes {codes}")
    verify_offline(stage, checks, file, keys)
    checks.chapter = "What the verified entries say"
    verified = receipt.verify(file.read_bytes(), keys.read_bytes())
    _entries(stage, checks, verified)
    checks.chapter = "The timeline out of these entries"
    _timeline(checks, words, verified)
    checks.chapter = "Secrets"
    leaked = leaks.nothing_leaked(stage.folder, stage.secret_files())
    checks.check("none rests in database, logs, books or output", leaked)


def _timeline(checks: Checks, words: Words, verified: receipt.Verified) -> None:
    story = timeline.tell(verified.events)
    steps = {block.step for block in story.blocks if block.step is not None}
    expected = {event.step for event in verified.events if event.step is not None}
    lines = sum(len(block.lines) for block in story.blocks)
    checks.check("it tells of every step", steps == expected, f"{len(steps)} steps in {lines} lines")
    words.show(story)


def take_home(stage: Stage) -> tuple[Path, Path]:
    """The run's receipt and the broker's public keys, as files. Raises `Broken`."""
    file, keys = stage.folder / "evidence" / "receipt.json", stage.folder / "evidence" / "keys.json"
    done = stage.command("receipt", "get", stage.run_key, "--out", str(file), client="ops")
    if done.process.returncode != 0 or not file.exists():
        raise Broken(f"stepgrant receipt get gave nothing; {done.last_words()}")
    with stage.people() as people:
        keys.write_bytes(dumps(people.get("/v1/ledger/keys")))
    return file, keys


def verify_offline(stage: Stage, checks: Checks, file: Path, keys: Path) -> None:
    """Check the receipt where there is nobody to ask, whole and with bytes changed."""
    verified = stage.offline("receipt", "verify", str(file), "--key", str(keys))
    code, size = verified.process.returncode, file.stat().st_size
    checks.check("a fresh process verifies it with the public key alone", code == 0, f"exit code {code}, {size} bytes")
    data = file.read_bytes()
    place = secrets.randbelow(len(data))
    flipped = stage.folder / "evidence" / "flipped.json"
    flipped.write_bytes(flip(data, place))
    refused = stage.offline("receipt", "verify", str(flipped), "--key", str(keys))
    code, said = refused.process.returncode, " ".join(refused.said[-1:])
    checks.check("one flipped byte makes it fail", code == REFUSED, f"byte {place}, exit code {code}: {said}")
    public = keys.read_bytes()
    places = [secrets.randbelow(len(data)) for _ in range(FLIPS)]
    held = [place for place in places if _holds(flip(data, place), public)]
    checks.check(f"so does a flip at any of {FLIPS} other places", not held, f"held at {held}" if held else "none held")


def flip(data: bytes, place: int) -> bytes:
    """The bytes with one bit of one of them changed."""
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def _holds(data: bytes, keys: bytes) -> bool:
    try:
        receipt.verify(data, keys)
    except ReceiptError:
        return False
    return True


def _entries(stage: Stage, checks: Checks, verified: receipt.Verified) -> None:
    events, check = verified.events, checks.check
    check(
        "they are complete: the run has ended", verified.complete, f"{len(events)} entries, head {verified.head_hash}"
    )
    check("each act in a book has a grant of its own, redeemed once", evidence.acts_were_granted(stage.books(), events))
    check(
        "every grant was narrow and short, and none is alive",
        evidence.grants_are_narrow(events, stage.addresses, MAX_TTL_MS),
    )
    check("each resume had a fresh key and the next epoch", evidence.keys_are_fresh(events))
    check("nobody took a run from a holder whose lease still ran", evidence.leases_lapsed(events))
    check("no fenced holder got anything", evidence.fenced_got_nothing(events))
    check("the doubt was settled by a look", evidence.settled_by_looking(events, f"rotate:{SLOW}"))
    check(
        "revoking rests on a person's answer and a fresh credential", evidence.approved_by_a_person(events, LAST_STEP)
    )
