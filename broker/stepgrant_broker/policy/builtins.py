"""The built-in functions that a policy may call.

Rules:
* A list of what is allowed, never of what is refused: the engine loads a policy that calls an unknown function, and
  only notices when that line is reached.
* Allowed is what is a pure function of its arguments, has a bound on time and memory that its arguments give, and
  answers the same in regorus and in OPA: `tests/conformance/policy/builtins.json` holds answers seen in both.
* Patterns run in linear time in both engines, so regex and glob need no other bound. Comprehensions and `every` are
  bounded by the input; time that they take beyond the engine's deadline costs the caller its decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

ALLOWED: Final[Mapping[str, int]] = MappingProxyType(
    {
        "abs": 1, "array.concat": 2, "array.reverse": 1, "array.slice": 3, "ceil": 1, "concat": 2, "contains": 2,
        "count": 1, "endswith": 2, "floor": 1, "format_int": 2, "glob.match": 3, "indexof": 2,
        "intersection": 1, "is_array": 1, "is_boolean": 1, "is_null": 1, "is_number": 1, "is_object": 1, "is_set": 1,
        "is_string": 1, "json.is_valid": 1, "json.marshal": 1, "json.unmarshal": 1, "max": 1, "min": 1,
        "net.cidr_contains": 2, "object.filter": 2, "object.get": 3, "object.keys": 1, "object.remove": 2,
        "object.subset": 2, "object.union": 2, "object.union_n": 1, "product": 1, "regex.is_valid": 1,
        "regex.match": 2, "regex.split": 2, "replace": 3, "round": 1, "semver.compare": 2, "semver.is_valid": 1,
        "sort": 1, "split": 2, "startswith": 2, "strings.any_prefix_match": 2, "strings.any_suffix_match": 2,
        "strings.count": 2, "strings.reverse": 1, "substring": 3, "sum": 1, "time.parse_rfc3339_ns": 1,
        "to_number": 1, "trim": 2, "trim_left": 2, "trim_prefix": 2, "trim_right": 2, "trim_space": 1,
        "trim_suffix": 2, "type_name": 1, "union": 1,
    }
)  # fmt: skip
"""Name to number of arguments."""

_NOT_PURE: Final = "is not a function of the input, so the decision could not be replayed"
_NO_BOUND: Final = "has no bound: a small argument makes it use all memory and ends the broker"
_DIFFERS: Final = "changes letters in one engine that the other keeps"
REFUSED: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "http.send": ("calls the network and " + _NOT_PURE, "put what it would fetch into data.json"),
        "net.lookup_ip_addr": ("calls the network", "put the addresses into data.json"),
        "time.now_ns": (_NOT_PURE, "use input.time"),
        "rand.intn": (_NOT_PURE, "decide on a value of the input"),
        "uuid.rfc4122": (_NOT_PURE, "use input.run.id or input.step.key"),
        "opa.runtime": (_NOT_PURE, "put settings into data.json"),
        "print": ("writes arguments of actions into the broker's log", "use it in tests only"),
        "trace": ("writes arguments of actions into the broker's log", "use stepgrant policy explain"),
        "numbers.range": (_NO_BOUND, "compare with < and <= instead"),
        "numbers.range_step": (_NO_BOUND, "compare with < and <= instead"),
        "bits.lsh": (_NO_BOUND, "multiply instead"),
        "net.cidr_expand": (_NO_BOUND, "use net.cidr_contains"),
        "sprintf": (_NO_BOUND, "reasons are codes; use concat to build a text"),
        "lower": (_DIFFERS, "use regex.match with (?i)"),
        "upper": (_DIFFERS, "use regex.match with (?i)"),
        "walk": ("goes through everything, and engines differ on it", "name the path"),
    }
)
"""Why some well-known functions are not allowed, and what to do instead."""
OTHERWISE: Final = ("is not on the list of functions that a policy may call", "see policies/README.md for the list")
