"""Policy answers that are almost right, through the contract: nothing outside the closed schema is ever an allow.

The judge is the published schema (`policies/…/schemas/decision.json`), read by a library that knows nothing of us, and
a reader that refuses two members of one name. The contract may be stricter than the schema, never looser.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from importlib import resources
from typing import Any, Final

import jsonschema

from security.fuzz import odd_json
from soak.result import Result
from stepgrant_broker.domain.decisions import Allow, Deny
from stepgrant_broker.domain.errors import PolicyUnavailable
from stepgrant_broker.policy.contract import parse

SCHEMA: Final = jsonschema.Draft202012Validator(
    json.loads(resources.files("stepgrant_policies").joinpath("schemas/decision.json").read_bytes())
)
GRANT: Final = {
    "issuer": "orders-db", "effect": "once", "ttl": 60, "redeem": "required", "audience": "https://tool.example",
    "params": {"role": "reader"}, "digest_only": False,
}  # fmt: skip
RIGHT: Final[tuple[dict[str, Any], ...]] = (
    {"effect": "allow", "reasons": ["tool_allowed"]},
    {"effect": "allow", "reasons": ["ok"], "grant": GRANT, "labels": ["pii:customer"], "meters": {"refund_usd": 100}},
    {"effect": "require_approval", "reasons": ["large"], "grant": GRANT,
     "approval": {"groups": ["managers"], "quorum": 2, "answer_within": 86400, "valid_for": 900}},
    {"effect": "deny", "reasons": ["no_rule_matched"]},
)  # fmt: skip
ODD: Final = ("allow", "require_approval", "ALLOW", ["allow"], 301, 10.5, "1e2", ["pii", "pii"], -1, 1e300)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("two members of one name")
    return members


def in_schema(raw: bytes) -> bool:
    """Whether the closed schema takes these bytes."""
    try:
        return bool(SCHEMA.is_valid(json.loads(raw.decode(), object_pairs_hook=_unique)))
    except (ValueError, RecursionError):
        return False


def answer(rng: random.Random) -> bytes:
    """One answer of an engine, right or nearly so."""
    document: Any = rng.choice(RIGHT)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        document = odd_json.changed(rng, document, ODD)
    return odd_json.text(rng, document)


def slice(seed: int, size: int) -> Result:  # noqa: A001 - the name that soak looks for
    """`size` answers."""
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    found: list[str] = []
    for _ in range(size):
        raw = answer(rng)
        try:
            decision = parse(raw)
        except PolicyUnavailable:
            counts["refused"] += 1
            continue
        except Exception as error:  # noqa: BLE001 - a foreign error is what is looked for
            found.append(f"{type(error).__name__} ({error}) for {raw[:2000]!r}")
            continue
        counts[type(decision).__name__] += 1
        if not isinstance(decision, Deny) and not in_schema(raw):
            found.append(f"{'allowed' if isinstance(decision, Allow) else 'asked'} outside the schema: {raw[:2000]!r}")
    return Result({"answers": size, **counts}, found[:20])
