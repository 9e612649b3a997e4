"""Inputs of decisions, made up from a seed: likely ones, odd ones, and broken ones.

Each starts as a call that the settings know, then some of its members are replaced by values that make engines differ
(fractions, exponents, other types, Unicode) or are taken away.
"""

from __future__ import annotations

import copy
import math
import random
import struct
from collections.abc import Iterator
from typing import Any, Final

from stepgrant import canonical
from stepgrant_broker.policy.probes import SAMPLE

EFFECTS: Final = ("read", "idempotent", "once")
RUN_ACTIONS: Final = tuple(f"stepgrant.run.{verb}" for verb in ("open", "resume", "takeover"))
TEXTS: Final = (
    "", " ", "a", "wl_probe", "pii:customer", "ä", "a\u0308", "\u00df", "\u0130", "\U0001f600", "\u2028", "\x00",
    "\ufeff", "\uffff", "0", "1e3", "true", "null", "<undefined>", '"}', "\\", "../x", "x" * 300,
)  # fmt: skip
NUMBERS: Final = (
    0, 1, 2, 7, 99, 100, 101, 999, 1000, 1001, 1999, 2000, 2001, -1, -0.0, 0.1, 0.2, 0.3, 0.1 + 0.2, 0.7, 0.1 * 3,
    0.29999999999999993, 1.1, 2.2, 1.1 + 2.2, 99.99, 100.00000000000001, 99.99999999999999, 1000.0000000000001, 1e-6,
    1.5e-6, 5e-7, 4.9e-7, 1e-7, 1e-12, 5e-324, 9.5e-6, 1e-5, 0.0000105, 1e9, 1e9 + 0.5, 9007199254, 9007199254.740991,
    9007199254740991, 1e21, 1.5e300, 1.7976931348623157e308, 19.99, 1999.999999, 1999.9999995, 0.0000005, 2.675, 1.005,
)  # fmt: skip
OTHERS: Final[tuple[Any, ...]] = (None, True, False, [], {}, [1], {"a": 1}, [[]], "80", ["x"] * 20)
AMOUNTS: Final = ("amount", "total", "n")


def inputs(settings: dict[str, Any], count: int, seed: int) -> Iterator[bytes]:
    """`count` inputs for agents and tools of these settings, and for others."""
    rng = random.Random(seed)
    made = 0
    while made < count:
        try:
            yield canonical.dumps(_input(rng, settings))
        except canonical.CanonicalError:
            # No agent can send it either.
            continue
        made += 1


def doubles(count: int, seed: int) -> Iterator[float]:
    """Numbers of every size, many of them beside those on which rounding turns."""
    rng = random.Random(seed)
    made = 0
    while made < count:
        kind = rng.randrange(5)
        if kind == 0:
            value = struct.unpack("<d", rng.randbytes(8))[0]
        elif kind == 1:
            value = rng.uniform(0, 10 ** rng.randint(-8, 10))
        elif kind == 2:
            value = rng.randrange(10**9) / 10 ** rng.randint(0, 9)
        elif kind == 3:
            value = (rng.randrange(10 ** rng.randint(1, 10)) + 0.5) / 10**6
        else:
            value = rng.choice(NUMBERS) + rng.choice(NUMBERS)
        if rng.random() < 0.3:
            value = math.nextafter(value, rng.choice((0, math.inf)))
        try:
            canonical.dumps(value)
        except canonical.CanonicalError:
            continue
        yield value
        made += 1


def _input(rng: random.Random, settings: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = copy.deepcopy(dict(SAMPLE))
    agents = settings["agents"]
    agent = rng.choice([*agents, "stranger"])
    tools = list(agents.get(agent, {"tools": {"x": 1}})["tools"])
    tool = rng.choice([*tools, *tools, *RUN_ACTIONS, rng.choice(tools) + ".reconcile", "unknown", *TEXTS[:3]])
    known = agents.get(agent, {}).get("tools", {}).get(tool, {})
    document["agent"]["name"] = agent
    document["step"]["key"] = rng.choice(["1", "1~reconcile~1"] if tool.endswith(".reconcile") else ["1", "a~b"])
    document["identity"]["subject"] = rng.choice(["wl_probe", "wl_other", "wl_1", *TEXTS])
    document["action"].update(
        tool=tool, effect=rng.choice([known.get("effect", "once"), *EFFECTS]), args=_args(rng, tool),
        resource=rng.choice([None, *known.get("resources", {}), "order/991", *TEXTS[:4]]),
    )  # fmt: skip
    meters = [*agents.get(agent, {}).get("budgets", {}), "other"]
    document["history"].update(
        meters={name: abs(rng.choice(NUMBERS)) for name in meters if rng.random() < 0.5},
        labels=sorted(rng.sample([*settings["flows"], "x:y", "z"], rng.randint(0, 1 + len(settings["flows"])))),
    )
    resumed = rng.random() < 0.3
    document["run"].update(
        resumed=resumed, epoch=2 if resumed else 1, parked_seconds=rng.choice([0, 1, 86400, 86401, 90000])
    )
    document["requested"].update(
        issuer=rng.choice([None, None, "jwt", "static", *TEXTS[:2]]),
        ttl=rng.choice([None, None, 0, 1, 29, 30, 31, 900]),
    )
    for _ in range(rng.choice((0, 0, 1, 1, 2, 5))):
        _break(rng, document)
    return document


def _args(rng: random.Random, tool: str) -> Any:  # noqa: ANN401 - any JSON value
    if tool in RUN_ACTIONS:
        flags = {name: rng.random() < 0.5 for name in ("takeover", "same_subject", "lease_lapsed")}
        return {**flags, "parked_seconds": 0, "agent": "x"}
    values = [*NUMBERS, *NUMBERS, *OTHERS, *TEXTS]
    return {name: rng.choice(values) for name in AMOUNTS if rng.random() < 0.7}


def _break(rng: random.Random, document: dict[str, Any]) -> None:
    """Take a member away, or give it another value; somewhere in the document."""
    at = document
    while True:
        if not at:
            return
        name = rng.choice(sorted(at))
        below = at[name]
        if isinstance(below, dict) and below and rng.random() < 0.8:
            at = below
            continue
        if rng.random() < 0.5:
            del at[name]
        else:
            at[name] = rng.choice([*OTHERS, *NUMBERS, *TEXTS])
        return
