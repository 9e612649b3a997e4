"""How a refusal leaves LangGraph: as its own control flow, so that no loop shows it to a model (`integrations.md` R8).

`ToolNode` turns exceptions of tools and of wrappers into messages for the model, but never a `GraphBubbleUp`. An error
of ours becomes one that is both: `except stepgrant.StaleEpoch` still catches it, around `graph.invoke`.
"""

from __future__ import annotations

from typing import Any, Final, cast

from langgraph.errors import GraphBubbleUp

from stepgrant._errors import StepgrantError

__all__ = ["SecretInCheckpoint", "bubbling"]


class SecretInCheckpoint(StepgrantError):
    """A live secret was about to be saved with a checkpoint; nothing was saved. `where` says in which part."""

    code = "secret_in_checkpoint"

    def __init__(self, *, where: str) -> None:
        super().__init__(f"{where} contains a live secret; credentials stay in the tool that got them")
        self.where = where


def bubbling(error: StepgrantError) -> StepgrantError:
    """The error as LangGraph's control flow: of its own class and a `GraphBubbleUp`, with the same fields."""
    if isinstance(error, GraphBubbleUp):
        return error
    return _revive(type(error), error.args, dict(error.__dict__))


_known: Final[dict[type[StepgrantError], type[StepgrantError]]] = {}


def _both(kind: type[StepgrantError]) -> type[StepgrantError]:
    if kind not in _known:
        _known[kind] = _make(kind)
    return _known[kind]


def _make(kind: type[StepgrantError]) -> type[StepgrantError]:
    def reduce(self: StepgrantError) -> tuple[object, ...]:
        # The class is made here, so pickle could not find it by its name.
        return _revive, (kind, self.args, dict(self.__dict__))

    members: dict[str, Any] = {"__doc__": kind.__doc__, "__module__": __name__, "__reduce__": reduce}
    return cast("type[StepgrantError]", type(kind.__name__, (kind, GraphBubbleUp), members))


def _revive(kind: type[StepgrantError], args: tuple[object, ...], state: dict[str, object]) -> StepgrantError:
    both = _both(kind)
    made = both.__new__(both, *args)
    made.args = args
    made.__dict__.update(state)
    return made
