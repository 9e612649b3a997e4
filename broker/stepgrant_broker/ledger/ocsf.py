"""Entries as OCSF events (schema.ocsf.io), for systems that collect events: a pure function of entry and position.

Rules:
* Each type of entry has one place (`ocsf_places.py`); a new type without one is a failed test, never a guess.
* Only what the entry carries in clear is in the event. A `…_c` stays the commitment that it is: it tells equal from
  different within one run, and nothing else.
* `metadata.sequence` is the position in the log, `raw_data` the entry's very bytes. Their SHA-256 is `metadata.uid`,
  and is what the log has there. Everything else is a reading of these bytes; `README.md` beside this file lists it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from stepgrant import canonical
from stepgrant_broker.domain.entries import EntryType
from stepgrant_broker.ledger.ocsf_places import (
    ACCESS,
    ACTIONS,
    ACTIVITIES,
    API,
    AUTHENTICATION,
    CLASSES,
    DISPOSITIONS,
    ENTITY,
    FAILED,
    OF_DECISION,
    OF_VERDICT,
    OTHER,
    PLACES,
    SERVICE_USER,
    SESSION,
    SEVERITIES,
    UNKNOWN,
    USERS,
    Place,
)

VERSION: Final = "1.8.0"
PRODUCT: Final = "Stepgrant"
SAYS_WHO: Final[Mapping[str, str]] = {
    EntryType.APPROVAL_DECIDED: "operator",
    EntryType.DUPLICATE_DECIDED: "operator",
    EntryType.STEP_RECONCILED: "operator",
    EntryType.GRANT_REDEEMED: "server",
}
"""Members of bodies that name whoever did it."""
Event: TypeAlias = dict[str, Any]
EMPTY: Final[tuple[Any, ...]] = (None, {}, [])


def event_of(
    fields: Mapping[str, Any], data: bytes, *, position: int, digest: bytes, origin: str, product: str
) -> Event:
    """The event of an entry.

    Args:
        fields: what `data` says.
        data: the entry's bytes.
        position: its leaf index.
        digest: the SHA-256 of its bytes.
        origin: the log's name.
        product: Stepgrant's version.

    Raises:
        ValueError: a type that has no place here.
    """
    kind = EntryType(fields["type"])
    place = PLACES[kind]
    event = _head(fields, kind, place)
    event["metadata"] = {
        "version": VERSION,
        "product": {"name": PRODUCT, "vendor_name": PRODUCT, "version": product},
        "uid": "sha-256:" + canonical.b64u(digest),
        "sequence": position,
        "log_name": origin,
        "event_code": kind.value,
        "tenant_uid": fields["tenant"],
        "correlation_uid": fields["run"],
        "profiles": ["host"] if place.class_uid != API else [],
    }
    event |= _SHAPES[place.class_uid](fields, place)
    _control(event, fields, kind)
    event["unmapped"] = _rest(fields)
    event["raw_data"] = data.decode()
    return {name: one for name, one in ((name, _present(one)) for name, one in event.items()) if one not in EMPTY}


def _head(fields: Mapping[str, Any], kind: EntryType, place: Place) -> Event:
    (category, category_name), class_name = CLASSES[place.class_uid]
    activity = _activity(fields, place)
    name = ACTIVITIES[place.class_uid].get(activity, kind.value)
    status, status_name = _status(fields, kind)
    return {
        "time": fields["ts"],
        "category_uid": category,
        "category_name": category_name,
        "class_uid": place.class_uid,
        "class_name": class_name,
        "activity_id": activity,
        "activity_name": name,
        "type_uid": place.class_uid * 100 + activity,
        "type_name": f"{class_name}: {name}",
        "severity_id": place.severity,
        "severity": SEVERITIES[place.severity],
        "status_id": status,
        "status": status_name,
        "status_detail": _detail(fields),
        "message": " ".join(filter(None, (kind.value, fields["step"], fields["run"]))),
    }


def _activity(fields: Mapping[str, Any], place: Place) -> int:
    if place.activity is None:
        # Whether an effect creates, changes or removes is the tool's own; only reading is known.
        return 2 if (fields["action"] or {}).get("effect") == "read" else OTHER
    if fields["type"] == EntryType.WORKLOAD_ENROLLED and fields["body"]["status"] != "enrolled":
        return 7
    return place.activity


def _status(fields: Mapping[str, Any], kind: EntryType) -> tuple[int, str]:
    outcome = (fields.get("outcome") or {}).get("status") or fields["body"].get("status")
    denied = (fields["decision"] or {}).get("effect") == "deny"
    if kind is EntryType.STEP_IN_DOUBT or outcome in UNKNOWN:
        return 0, "Unknown"
    if kind in {EntryType.GRANT_FAILED, EntryType.STEP_FAILED} or outcome in FAILED or denied:
        return 2, "Failure"
    return 1, "Success"


def _detail(fields: Mapping[str, Any]) -> str | None:
    reasons = (fields["decision"] or {}).get("reasons") or ()
    found = [*reasons, fields.get("cause"), (fields.get("outcome") or {}).get("status")]
    return ", ".join(str(one) for one in found if one) or None


# --- who, and where from ---------------------------------------------------------------------------------------------


def _user(fields: Mapping[str, Any]) -> Event:
    """Whoever did it: by the commitment to the name, which differs from run to run, and by what the body says."""
    by = fields["by"]
    type_id, type_name = USERS.get(by["kind"], SERVICE_USER)
    told = fields["body"].get(SAYS_WHO.get(fields["type"], ""))
    return {"uid": by["subject_c"] or by["kind"], "uid_alt": told, "type_id": type_id, "type": type_name}


def _actor(fields: Mapping[str, Any]) -> Event:
    agent = fields["agent"] or {}
    session = {"uid": fields["run"]} if fields["run"] else None
    return {"user": _user(fields), "app_name": agent.get("name"), "app_uid": agent.get("jkt"), "session": session}


def _source(fields: Mapping[str, Any]) -> Event:
    agent = fields["agent"] or {}
    return {"name": agent.get("name") or fields["by"]["kind"], "uid": agent.get("jkt")}


def _resources(fields: Mapping[str, Any]) -> list[Event]:
    action, grant = fields["action"] or {}, fields.get("grant") or {}
    found = []
    if action.get("resource_c"):
        found.append({"uid": action["resource_c"], "type": "commitment to a resource"})
    if grant.get("jti"):
        found.append({"uid": grant["jti"], "type": "grant"})
    return found


# --- the classes -----------------------------------------------------------------------------------------------------


def _api(fields: Mapping[str, Any], _: Place) -> Event:
    action, body = fields["action"] or {}, fields["body"]
    operation = action.get("tool") or body.get("action") or fields["type"]
    request = (fields["decision"] or {}).get("decision_id") or body.get("redemption_id")
    return {
        "actor": _actor(fields),
        "api": {"operation": operation, "request": {"uid": request} if request else None},
        "src_endpoint": _source(fields),
        "resources": _resources(fields),
    }


def _authentication(fields: Mapping[str, Any], _: Place) -> Event:
    method = (fields["body"].get("attestation") or {}).get("method")
    return {
        "actor": _actor(fields),
        "user": _user(fields),
        "session": {"uid": fields["run"], "uid_alt": f"{fields['run']}#{fields['epoch']}"},
        "service": {"name": PRODUCT.lower()},
        "auth_protocol_id": OTHER if method else None,
        "auth_protocol": method,
    }


def _session(fields: Mapping[str, Any], _: Place) -> Event:
    grant, body = fields["grant"], fields["body"]
    return {
        "actor": _actor(fields),
        "user": _user(fields),
        "privileges": [(fields["action"] or {}).get("tool")],
        "session": {
            "uid": grant["jti"],
            "issuer": grant["issuer"],
            "created_time": body.get("issued_at"),
            "expiration_time": grant["exp"],
        },
        "dst_endpoint": {"name": body["audience"]} if body.get("audience") else None,
    }


def _access(fields: Mapping[str, Any], _: Place) -> Event:
    return {
        "actor": _actor(fields),
        "user": _user(fields),
        "privileges": [(fields["action"] or {}).get("tool")],
        "resources": _resources(fields),
    }


def _entity(fields: Mapping[str, Any], place: Place) -> Event:
    body = fields["body"]
    named: Mapping[str | None, tuple[Any, Any, Any]] = {
        "run": (fields["run"], None, None),
        "approval": ((fields.get("approval") or {}).get("id"), None, None),
        "lease": (body.get("lease_c"), None, None),
        "workload": (body.get("workload"), body.get("name"), None),
        "policy": (str(body.get("revision")).partition(":")[2], None, body.get("revision")),
        "signing key": (body.get("kid"), body.get("purpose"), None),
        "store": (body.get("origin"), None, str(body.get("size"))),
    }
    uid, name, version = named[place.entity]
    return {"actor": _actor(fields), "entity": {"uid": uid, "name": name, "type": place.entity, "version": version}}


_SHAPES: Final = {API: _api, AUTHENTICATION: _authentication, SESSION: _session, ACCESS: _access, ENTITY: _entity}


# --- what was decided, and the rest ----------------------------------------------------------------------------------


def _control(event: Event, fields: Mapping[str, Any], kind: EntryType) -> None:
    """The profile `security_control`, for entries in which something is allowed or refused."""
    decision = fields["decision"]
    if kind is EntryType.APPROVAL_DECIDED:
        action, disposition = OF_VERDICT[fields["body"]["verdict"]]
    elif kind is EntryType.GRANT_REVOKED:
        action, disposition = 2, 24
    elif decision is not None:
        action, disposition = OF_DECISION[decision["effect"]]
    else:
        return
    event["metadata"]["profiles"].append("security_control")
    event |= {"action_id": action, "action": ACTIONS[action]}
    event |= {"disposition_id": disposition, "disposition": DISPOSITIONS[disposition]}
    if decision is not None:
        revision = decision["policy_revision"]
        policy = {"uid": revision.partition(":")[2], "version": revision} if revision else None
        event |= {"policy": policy, "authorizations": [{"decision": decision["effect"], "policy": policy}]}


def _rest(fields: Mapping[str, Any]) -> Event:
    """Members of the entry that have no place in OCSF, under their own names."""
    names = ("seq", "step", "attempt", "epoch", "cause", "mode", "body")
    return {name: fields.get(name) for name in names}


def _present(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Without members that are null or empty: OCSF leaves out what is not known."""
    if isinstance(value, dict):
        kept = {name: _present(one) for name, one in value.items()}
        return {name: one for name, one in kept.items() if one not in EMPTY}
    return [_present(one) for one in value] if isinstance(value, list) else value
