"""The ways in which a caller is not proven, each with the one code that it must be refused with.

The code is that of the first check that can see it: so a broker that looks at the body, the run or the caller's role
before it knows who calls is found, though it refuses in the end. Every way starts from an agent that could be proven:
its token is fresh and its nonce current, and only what the way is called after is wrong.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Protocol

from stepgrant._dpop import DpopKey

Headers = dict[str, str]
USED_BEFORE: Final = "used before"
"""A proof that came with the same request before; what it is refused with depends on what the request did."""


class Place(NamedTuple):
    """Where a request goes: `kinds` of caller that the endpoint takes, of `person` and `workload`."""

    method: str
    path: str
    kinds: frozenset[str]


class Used(NamedTuple):
    """Headers that were taken, and where."""

    method: str
    path: str
    headers: Headers


class Agent(Protocol):
    """A workload's process (`http_callers.Process`)."""

    dpop: DpopKey
    token: str
    nonce: str | None

    def headers(self, method: str, path: str) -> Headers:
        """Token and a fresh proof."""
        ...

    def proof(self, method: str, path: str, *, key: DpopKey | None = None, nonce: str | None = None) -> str:
        """A proof for its token, by its key and nonce or by others."""
        ...


class Known(NamedTuple):
    """What a way is made of: an agent, a person's token, and what was used before (of two places at least)."""

    agent: Agent
    person: str
    used: tuple[Used, ...]
    rng: random.Random


Way = Callable[[Known, Place, Headers], Headers]
OTHER: Final = DpopKey()


def _bearer(known: Known, _: Place, __: Headers) -> Headers:
    return {"Authorization": f"Bearer {known.agent.token}"}


def _rubbish(known: Known, _: Place, __: Headers) -> Headers:
    return {"Authorization": known.rng.choice(["DPoP", "Basic YTpi", "Bearer sgo_x", "DPoP a.b.c", "x"])}


def _cut_token(known: Known, _: Place, true: Headers) -> Headers:
    said = true["Authorization"]
    return {**true, "Authorization": said[: known.rng.randrange(len(said))]}


def _with(known: Known, proof: str) -> Headers:
    return {"Authorization": f"DPoP {known.agent.token}", "DPoP": proof}


def _cut_proof(known: Known, place: Place, _: Headers) -> Headers:
    proof = known.agent.proof(place.method, place.path)
    return _with(known, proof[: known.rng.randrange(len(proof))])


def _elsewhere(known: Known, place: Place, _: Headers) -> Headers:
    return dict(known.rng.choice([used.headers for used in known.used if used[:2] != place[:2]]))


def _other_kind(known: Known, place: Place, _: Headers) -> Headers:
    if "person" in place.kinds:
        return known.agent.headers(place.method, place.path)
    return {"Authorization": f"Bearer {known.person}"}


WAYS: Final[Mapping[str, tuple[str, Way]]] = {
    "nothing": ("invalid_token", lambda *_: {}),
    "bearer": ("invalid_token", _bearer),
    "rubbish": ("invalid_token", _rubbish),
    "cut token": ("invalid_token", _cut_token),
    "two schemes": ("invalid_token", lambda known, place, true: {**_bearer(known, place, true), "DPoP": "x"}),
    "no proof": ("invalid_dpop_proof", lambda known, *_: {"Authorization": f"DPoP {known.agent.token}"}),
    "cut proof": ("invalid_dpop_proof", _cut_proof),
    "another key": (
        "invalid_dpop_proof", lambda known, place, _: _with(known, known.agent.proof(*place[:2], key=OTHER)),
    ),
    "another path": (
        "invalid_dpop_proof", lambda known, place, _: known.agent.headers(place.method, place.path + "x"),
    ),
    "another method": ("invalid_dpop_proof", lambda known, place, _: known.agent.headers("PATCH", place.path)),
    "used elsewhere": ("invalid_dpop_proof", _elsewhere),
    "another nonce": (
        "use_dpop_nonce", lambda known, place, _: _with(known, known.agent.proof(*place[:2], nonce="old")),
    ),
    "of the other kind": ("forbidden", _other_kind),
}  # fmt: skip
"""Each way: what it must be refused with, and the headers that it puts in the place of the true ones."""


def ways_for(kinds: frozenset[str]) -> tuple[str, ...]:
    """The ways that are no way in to an endpoint of these kinds of callers; none where nobody is asked."""
    return tuple(way for way in WAYS if kinds and (len(kinds) == 1 or way != "of the other kind"))
