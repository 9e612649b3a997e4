"""Entries as OCSF events: every type has its place, what the class requires is there, and only what was in clear."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from fakes.ledgers import Ledger
from stepgrant import canonical
from stepgrant.receipt import read_event
from stepgrant_broker.domain.entries import EntryType
from stepgrant_broker.ledger import ocsf, ocsf_places
from stepgrant_broker.ledger.ocsf import event_of
from stepgrant_broker.ledger.ocsf_places import CLASSES, PLACES

VECTORS: Final = Path(__file__).parents[2] / "vectors" / "entry_v1"
README: Final = Path(ocsf.__file__).with_name("README.md")
ALWAYS: Final = {
    "activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid", "status_id", "message",
}  # fmt: skip
REQUIRED: Final[Mapping[int, set[str]]] = {
    3002: {"user", "service"},
    3003: {"user", "privileges", "session"},
    3004: {"entity"},
    3005: {"user", "privileges"},
    6003: {"actor", "api", "src_endpoint"},
}
"""What OCSF 1.8.0 requires of each class (and, of its "at least one" rules, what we give)."""


def golden() -> list[bytes]:
    return [line for path in sorted(VECTORS.glob("*.jsonl")) for line in path.read_bytes().splitlines()]


def event(data: bytes, position: int = 7) -> dict[str, Any]:
    digest = hashlib.sha256(data).digest()
    return event_of(
        json.loads(data), data, position=position, digest=digest, origin="broker.example/log", product="1.2.3"
    )


def made_up(kind: EntryType) -> bytes:
    """An entry of any type, with the members that its class reads."""
    base = json.loads(golden()[-1])
    body: dict[str, Any] = {"revision": "1:sha-256:x", "kid": "k", "purpose": "heads", "workload": "w", "name": "n"} | {
        "status": "enrolled", "origin": "o", "size": 3, "lease_c": "c", "action": "secret_set", "verdict": "approve",
    }  # fmt: skip
    more: dict[str, Any] = {
        "grant": {"jti": "grn_1", "issuer": "jwt", "exp": 9}, "approval": {"id": "apr_1"}, "run": "run_1", "epoch": 2,
        "action": {"tool": "pay", "resource_c": None, "digest_c": "d", "effect": "read"},
    }  # fmt: skip
    return canonical.dumps({**base, **more, "type": kind.value, "body": body})


def test_every_type_has_a_place() -> None:
    assert set(PLACES) == set(EntryType)


@pytest.mark.parametrize("kind", EntryType)
def test_what_a_class_requires_is_there(kind: EntryType) -> None:
    place, told = PLACES[kind], event(made_up(kind))
    assert set(told) >= ALWAYS | REQUIRED[place.class_uid]
    assert told["class_uid"] == place.class_uid
    assert told["type_uid"] == place.class_uid * 100 + told["activity_id"]
    assert (told["category_uid"], told["category_name"]) == CLASSES[place.class_uid][0]
    assert told["metadata"]["event_code"] == kind.value
    assert ocsf_places.ACTIVITIES[place.class_uid].get(told["activity_id"], kind.value) == told["activity_name"]
    if place.class_uid == ocsf_places.ENTITY:
        assert told["entity"]["uid"]
        assert told["entity"]["type"] == place.entity
    if "user" in told:
        assert told["user"]["uid"]
    if "actor" in told:
        assert told["actor"]["user"]["uid"]
    if "src_endpoint" in told:
        assert told["src_endpoint"]["name"]


def test_the_bytes_are_the_entry_and_name_it() -> None:
    for data in golden():
        told = event(data)
        assert told["raw_data"].encode() == data
        assert told["metadata"]["uid"] == "sha-256:" + read_event(data).hash
        assert (told["metadata"]["sequence"], told["metadata"]["version"]) == (7, "1.8.0")
        fields = json.loads(data)
        assert told["time"] == fields["ts"]
        assert told["metadata"].get("correlation_uid") == fields["run"]
        assert told["metadata"]["tenant_uid"] == fields["tenant"]


def of_type(kind: str, **more: str) -> dict[str, Any]:
    """The first golden event of this type, with these members in its entry's body, decision or outcome."""
    for data in golden():
        fields = json.loads(data)
        found = {**(fields.get("outcome") or {}), **fields["body"], **(fields["decision"] or {})}
        if fields["type"] == kind and all(found.get(name) == value for name, value in more.items()):
            return event(data)
    raise LookupError(kind)


def test_what_was_decided_is_said_as_security_control() -> None:
    for told, action, disposition in (
        (of_type("decision", effect="allow"), 1, 1),
        (of_type("decision", effect="deny"), 2, 2),
        (of_type("approval_requested", effect="require_approval"), 2, 23),
        (of_type("approval_decided", verdict="approve"), 1, 8),
        (of_type("grant_revoked"), 2, 24),
    ):
        assert (told["action_id"], told["disposition_id"]) == (action, disposition)
        assert "security_control" in told["metadata"]["profiles"]
    decided = of_type("decision", effect="deny")
    fields = json.loads(decided["raw_data"])
    assert decided["policy"]["version"] == fields["decision"]["policy_revision"]
    assert decided["status_id"] == 2
    assert decided["status_detail"] == ", ".join(fields["decision"]["reasons"])
    assert decided["api"]["operation"] == fields["action"]["tool"]
    assert "action_id" not in of_type("step_completed")


def test_outcomes_are_success_failure_or_unknown() -> None:
    assert of_type("step_completed")["status_id"] == 1
    assert of_type("step_failed")["status_id"] == 2
    assert of_type("grant_failed")["status_id"] == 2
    assert of_type("step_in_doubt")["status_id"] == 0


def test_a_removed_workload_is_unenrolled() -> None:
    assert of_type("workload_enrolled", status="enrolled")["activity_id"] == 6
    assert event(made_up(EntryType.WORKLOAD_ENROLLED).replace(b'"enrolled"', b'"removed"'))["activity_id"] == 7


async def test_nothing_that_an_entry_only_commits_to_is_in_its_event(ledger: Ledger) -> None:
    told, hidden = "", set[str]()
    for chain in (ledger.run, None):
        for stored in await ledger.store.entries("acme", chain):
            told += json.dumps(event(stored.data), ensure_ascii=False)
            names = [name for _, name in committed(json.loads(stored.data))]
            for payload in (await ledger.store.payloads("acme", chain or "", names)).values():
                hidden.add(payload.body.decode())
    assert {'"user:claire@example.com"', '{"customer":"ada","keys":["alpha","beta"]}'} <= hidden
    for value in (*hidden, "claire", "alpha", "hunter2"):
        if len(value) > 4:  # a shorter one is a number, which stands anywhere
            assert value not in told
            assert json.dumps(value)[1:-1] not in told


def committed(value: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - any JSON value
    """Every `…_c` of an entry."""
    for name, one in value.items() if isinstance(value, dict) else ():
        if name.endswith("_c") and isinstance(one, str):
            yield name, one
        yield from committed(one)


def paths(value: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The attributes of an event, as the README names them."""
    for name, one in value.items():
        path = f"{above}{name}"
        first = one[0] if isinstance(one, list) and one else one
        if isinstance(first, dict) and path != "unmapped":
            yield from paths(first, f"{path}[]." if isinstance(one, list) else f"{path}.")
        else:
            yield path


def rows_of(heading: str) -> list[list[str]]:
    """The table below this heading of the README."""
    text = README.read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_readme_lists_every_type_as_it_is_told() -> None:
    listed = {row[0].strip("`"): row[1:] for row in rows_of("Which event an entry becomes")}
    assert set(listed) == {kind.value for kind in EntryType}
    for kind, place in PLACES.items():
        name = ocsf_places.ACTIVITIES[place.class_uid].get(place.activity or 0)
        activity = name if name is not None else "Read, or Other" if place.activity is None else "Other"
        class_name = f"{CLASSES[place.class_uid][1]} ({place.class_uid})"
        expected = [class_name, activity, ocsf_places.SEVERITIES[place.severity]]
        assert listed[kind.value][:3] == expected, kind


def test_the_readme_lists_every_attribute() -> None:
    told = {path for data in golden() for path in paths(event(data))}
    told |= {path for kind in EntryType for path in paths(event(made_up(kind)))}
    listed = {name for row in rows_of("Where each attribute comes from") for name in re.findall(r"`([^`]+)`", row[0])}
    assert listed == told
