"""A step in doubt, in a pure world."""

from fakes.world import World, agent, call


def doubtful(world: World, settle_ms: int = 0) -> None:
    """Bring s1 into doubt: used, then the process crashed; epoch 2 holds the run."""
    world.begin(call(settle_ms=settle_ms))
    world.redeem()
    world.lapse()
    world.resume(agent("k2", now=world.now))
