"""The promises that every framework's adapter keeps, as cases to run: `stepgrant.testing.adapter_suite`.

    @pytest.mark.parametrize("case", adapter_suite(make_harness), ids=str)
    def test_my_framework(case, tmp_path):
        case(tmp_path)

Each case starts the framework's real program in one new process after the other, kills it with SIGKILL where the case
says, and looks at the target's own book: against a real broker, over HTTP. Needs the extras `broker` and `embedded`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stepgrant.testing._adapter_play import Asked
from stepgrant.testing._adapter_world import Harness, World, world_for

__all__ = ["Case", "adapter_suite"]

Check = Callable[[World], None]
_LIVES_MOST: Final = 4


@dataclass(frozen=True)
class Case:
    """One promise. Call it with an empty folder. Raises `AdapterBroken` with the whole story."""

    name: str
    check: Check
    make_harness: Callable[[], Harness]

    def __call__(self, folder: Path) -> None:
        """Run it."""
        with world_for(self.make_harness(), folder) as world:
            self.check(world)

    def __str__(self) -> str:
        return self.name


def adapter_suite(make_harness: Callable[[], Harness]) -> list[Case]:
    """The cases, for a framework's harness. `make_harness` is called once for each case that is run."""
    return [Case(check.__name__, check, make_harness) for check in _CASES]


# ------------------------------------------------------------------------------------------------------------ crashes


def crash_after_the_effect(world: World) -> None:
    """The reconcile hook finds it done; it is not done again."""
    world.killed(world.begin([Asked("pay", {"invoice": "a"}, "c1")], kill="sdk.after_effect"))
    world.did("pay", 1)
    world.ended(world.resume())
    world.did("pay", 1)
    world.check('"invoice": "a"' in world.shown, "the model is shown what the hook found")


def crash_before_the_effect(world: World) -> None:
    """Granted and provably unused: it runs once."""
    world.killed(world.begin([Asked("pay", {"invoice": "a"}, "c1")], kill="sdk.before_effect"))
    world.did("pay", 0)
    world.ended(world.resume())
    world.did("pay", 1)


def crash_between_siblings(world: World) -> None:
    """Two calls at once, killed when one of them is recorded: each is done once."""
    both = [Asked("pay", {"invoice": "a"}, "c1"), Asked("send", {"text": "b"}, "c2")]
    world.killed(world.begin(both, kill="sdk.after_complete"))
    last = _go_on(world)
    if "paused" in last or "stopped" in last:
        # It was under way: the target did it, or refused it because its time was over by then. Its book says which.
        if world.target.done("send"):
            world.settle("done", {"done": "send"})
        else:
            world.settle_not_done()
        world.ended(world.resume())
    world.did("pay", 1)
    world.did("send", 1)


def crash_after_the_record(world: World) -> None:
    """Recorded, and the framework heard nothing of it: the recorded result comes back."""
    world.killed(world.begin([Asked("send", {"text": "a"}, "c1")], kill="sdk.after_complete"))
    world.ended(world.resume())
    world.did("send", 1)
    world.check('"done": "send"' in world.shown, "the model is shown the recorded result")


# ----------------------------------------------------------------------------------------------------------- decisions


def veto_reaches_the_model(world: World) -> None:
    """Denied: not done, the model hears why, the agent goes on."""
    world.ended(world.begin([Asked("wipe", {"disk": "a"}, "c1")], [Asked("look", {"topic": "b"}, "c2")]))
    world.did("wipe", 0)
    world.did("look", 1)
    reasons = world.entries("decision")[0].part("decision")["reasons"]
    world.check(isinstance(reasons, list) and all(str(one) in world.shown for one in reasons), f"it hears {reasons}")


def approved_in_another_process(world: World) -> None:
    """Paused until a person answers; resuming carries no authority."""
    world.paused(world.begin([Asked("order", {"item": "a"}, "c1")]))
    world.paused(world.resume())
    world.did("order", 0)
    world.answer("approve")
    world.ended(world.resume())
    world.did("order", 1)


def denied_after_the_pause(world: World) -> None:
    """A person says no: not done, the model hears it, the agent goes on."""
    world.paused(world.begin([Asked("order", {"item": "a"}, "c1")]))
    world.answer("deny")
    world.ended(world.resume())
    world.did("order", 0)
    world.check("approval_denied" in world.shown, "the model is shown that a person said no")


def arguments_edited_after_approval(world: World) -> None:
    """What a person approved is not what comes back: a person is asked again, about that."""
    world.paused(world.begin([Asked("order", {"item": "a"}, "c1")]))
    world.answer("approve")
    if not world.harness.edits:
        world.ended(world.resume())
        world.did("order", 1)
        return
    world.paused(world.resume(edits={"c1": {"item": "b"}}))
    world.did("order", 0)
    world.answer("approve")
    world.ended(world.resume())
    world.check([dict(act.args) for act in world.target.acts] == [{"item": "b"}], "what ran is what was approved last")


# --------------------------------------------------------------------------------------------------------------- doubt


def doubt_of_an_idempotent_tool(world: World) -> None:
    """Again, with the same idempotency key."""
    world.killed(world.begin([Asked("note", {"text": "a"}, "c1")], kill="sdk.after_effect"))
    world.ended(world.resume())
    keys = {act.key for act in world.target.acts if act.tool == "note"}
    world.check(len(keys) == 1, f"one idempotency key in all attempts, not {len(keys)}")


def doubt_and_the_hook_finds_nothing(world: World) -> None:
    """The grant was spent, the work not begun: the hook says so once that is sure, and it runs."""
    world.killed(world.begin([Asked("pay", {"invoice": "a"}, "c1")], dying="pay"))
    world.ended(world.resume())
    world.did("pay", 1)


def doubt_and_the_hook_cannot_tell(world: World) -> None:
    """Paused until a person says what happened."""
    world.killed(world.begin([Asked("pay", {"invoice": "a"}, "c1")], kill="sdk.after_effect"))
    world.paused(world.resume(verdict="unknown"))
    world.did("pay", 1)
    world.settle("done", {"seen": "found in the ledger"})
    world.ended(world.resume(verdict="unknown"))
    world.did("pay", 1)
    world.check("found in the ledger" in world.shown, "the model is shown what the person said")


def doubt_without_a_hook(world: World) -> None:
    """Paused; a person says that it was not done, and it runs."""
    world.killed(world.begin([Asked("send", {"text": "a"}, "c1")], dying="send"))
    world.paused(world.resume())
    world.did("send", 0)
    world.settle_not_done()
    world.ended(world.resume())
    world.did("send", 1)


def doubt_of_a_tool_that_raised(world: World) -> None:
    """It raised after the effect: no model is told that it failed, and it is not done again."""
    world.paused(world.begin([Asked("drop", {"text": "a"}, "c1")]))
    world.check("the answer was lost" not in world.shown, "the model is not told what the tool raised")
    world.settle("done", {"done": "drop"})
    world.ended(world.resume())
    world.did("drop", 1)


def ids_lost_in_doubt(world: World) -> None:
    """The model is asked anew and calls under another id: the step in doubt is taken up, not done again."""
    world.killed(world.begin([Asked("pay", {"invoice": "a"}, "c1")], kill="sdk.after_effect"))
    world.ended(world.forget([Asked("pay", {"invoice": "a"}, "n1")]))
    world.did("pay", 1)


def ids_lost_after_completion(world: World) -> None:
    """The model is asked anew and repeats a completed call: a person says that it is the same."""
    world.killed(world.begin([Asked("send", {"text": "a"}, "c1")], kill="sdk.after_complete"))
    world.paused(world.forget([Asked("send", {"text": "a"}, "n1")]))
    world.did("send", 1)
    world.which("n1", "replay")
    world.ended(world.resume())
    world.did("send", 1)


# ------------------------------------------------------------------------------------------------ results and secrets


def concurrent_calls_have_their_own_credentials(world: World) -> None:
    """Two calls of one turn: two grants, two steps."""
    world.ended(world.begin([Asked("note", {"text": "a"}, "c1"), Asked("note", {"text": "b"}, "c2")]))
    acts = {act.args["text"]: act for act in world.target.acts}
    world.check(acts["a"].jti != acts["b"].jti, "two calls have two grants")
    world.check(acts["a"].step != acts["b"].step, "two calls are two steps")


def same_arguments_twice(world: World) -> None:
    """The model means it: two calls, two steps, two effects."""
    world.ended(world.begin([Asked("pay", {"invoice": "a"}, "c1")], [Asked("pay", {"invoice": "a"}, "c2")]))
    world.did("pay", 2)


def tool_exception(world: World) -> None:
    """A look that fails is recorded as failed, never as a result, and the agent can go on."""
    first = world.begin([Asked("fail", {"topic": "a"}, "c1")])
    if "ended" not in first.last:
        world.check(not world.harness.tells_errors, "the exception is shown to the model")
        _go_on(world)
    world.ended(world.lives[-1])
    world.did("fail", 1)
    world.check(len(world.entries("step_failed")) == 1, "it is recorded as failed")
    world.check(not world.entries("step_completed"), "it is not recorded as completed")
    world.check("no such topic" in world.shown, "the model is shown the failure")


def unknown_result_type(world: World) -> None:
    """What cannot be given back later is not recorded as a result, and its effect is not repeated."""
    world.begin([Asked("odd", {"text": "a"}, "c1")])
    _go_on(world)
    world.ended(world.lives[-1])
    world.check(world.target.done("odd") <= 1, "it is not done again")


def no_credential_is_left_anywhere(world: World) -> None:
    """Not in what the framework saves, not in what the model is shown, not in what the program writes."""
    calls = [Asked("pay", {"invoice": "a"}, "c1"), Asked("leak", {"text": "b"}, "c2")]
    world.begin(calls, [Asked("order", {"item": "c"}, "c3")])
    world.answer("approve")
    world.ended(world.resume())
    world.did("leak", 1)
    tokens = [token.encode() for token in world.target.tokens if token]
    world.check(len(tokens) >= 3, "the target was shown three tokens")  # noqa: PLR2004  # as many as there are calls
    saved = {str(path): path.read_bytes() for path in world.folder.rglob("*") if path.is_file()}
    written = {f"life {n}": (one.output + one.errors).encode() for n, one in enumerate(world.lives)}
    for place, data in {**saved, **written}.items():
        world.check(not any(token in data for token in tokens), f"no token in {place}")
    world.check(len(saved) > 1, "the framework saved something")


def _go_on(world: World) -> dict[str, object]:
    """Start it again, as a supervisor would, until it ends or waits for a person; its last line."""
    while len(world.lives) < _LIVES_MOST and "ended" not in world.lives[-1].last:
        if "paused" in world.resume().last:
            break
    return dict(world.lives[-1].last)


_CASES: Final[tuple[Check, ...]] = (
    crash_after_the_effect,
    crash_before_the_effect,
    crash_between_siblings,
    crash_after_the_record,
    veto_reaches_the_model,
    approved_in_another_process,
    denied_after_the_pause,
    arguments_edited_after_approval,
    doubt_of_an_idempotent_tool,
    doubt_and_the_hook_finds_nothing,
    doubt_and_the_hook_cannot_tell,
    doubt_without_a_hook,
    doubt_of_a_tool_that_raised,
    ids_lost_in_doubt,
    ids_lost_after_completion,
    concurrent_calls_have_their_own_credentials,
    same_arguments_twice,
    tool_exception,
    unknown_result_type,
    no_credential_is_left_anywhere,
)
