"""Calls whose ids a framework made, in a pure world in which their process is gone."""

from __future__ import annotations

from fakes.world import World, agent, call
from stepgrant_broker.domain.calls import Doubtful, Ready, Replayed, Settled, StepCall, Suspected
from stepgrant_broker.domain.decisions import Effect
from stepgrant_broker.domain.state import IdSource


def lost(key: str, epoch: int, effect: Effect = Effect.ONCE, **more: object) -> StepCall:
    """A call under an id of a framework."""
    return call(key, epoch=epoch, effect=effect, **{"id_source": IdSource.CALL_ID, **more})


def crash(world: World) -> None:
    """The process is gone, another one resumes; what the old one held is dead by then."""
    world.lapse()
    world.now += 400_000
    world.resume(agent(f"k{world.epoch + 1}", now=world.now))


def used(world: World, key: str, epoch: int = 1, effect: Effect = Effect.ONCE, **more: object) -> None:
    """A step whose credential was used; nothing is known of its outcome."""
    assert isinstance(world.begin(lost(key, epoch, effect, **more)), Ready)
    world.redeem(key, digest=lost(key, epoch, effect, **more).digest)


def done(world: World, key: str, epoch: int = 1, effect: Effect = Effect.ONCE, **more: object) -> None:
    """A step that is completed."""
    used(world, key, epoch, effect, **more)
    world.complete(key)


def types(world: World, since: int = 0) -> list[str]:
    """The types of the entries from that one on."""
    return [entry.type.value for entry in world.entries[since:]]


def named(settled: Settled) -> str:
    """The step that the answer is about."""
    assert isinstance(settled, Ready | Replayed | Doubtful | Suspected), settled
    return settled.step.key
