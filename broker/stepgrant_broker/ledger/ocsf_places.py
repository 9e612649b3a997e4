"""Which OCSF class, activity and severity each type of entry has: the tables of `ocsf.py`, OCSF 1.8.0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from stepgrant_broker.domain.entries import EntryType

IAM: Final = (3, "Identity & Access Management")
APPLICATION: Final = (6, "Application Activity")
AUTHENTICATION, SESSION, ENTITY, ACCESS, API = 3002, 3003, 3004, 3005, 6003
CLASSES: Final[Mapping[int, tuple[tuple[int, str], str]]] = {
    AUTHENTICATION: (IAM, "Authentication"),
    SESSION: (IAM, "Authorize Session"),
    ENTITY: (IAM, "Entity Management"),
    ACCESS: (IAM, "User Access Management"),
    API: (APPLICATION, "API Activity"),
}
ACTIVITIES: Final[Mapping[int, Mapping[int, str]]] = {
    AUTHENTICATION: {1: "Logon", 2: "Logoff"},
    SESSION: {1: "Assign Privileges"},
    ENTITY: {
        1: "Create",
        3: "Update",
        4: "Delete",
        6: "Enroll",
        7: "Unenroll",
        9: "Disable",
        10: "Activate",
        12: "Suspend",
        13: "Resume",
    },
    ACCESS: {2: "Revoke Privileges"},
    API: {2: "Read"},
}
OTHER: Final = 99
SEVERITIES: Final = {1: "Informational", 2: "Low", 3: "Medium", 4: "High"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a type of entry goes. `activity` None: by the action's effect. `entity`: its kind, for that class."""

    class_uid: int
    activity: int | None = OTHER
    severity: int = 1
    entity: str | None = None


PLACES: Final[Mapping[EntryType, Place]] = {
    EntryType.RUN_OPENED: Place(AUTHENTICATION, 1),
    EntryType.RUN_RESUMED: Place(AUTHENTICATION, 1),
    EntryType.RUN_PARKED: Place(AUTHENTICATION, 2),
    EntryType.RUN_ENDED: Place(AUTHENTICATION, 2),
    EntryType.RUN_QUARANTINED: Place(ENTITY, 12, 4, "run"),
    EntryType.RUN_RELEASED: Place(ENTITY, 13, 3, "run"),
    EntryType.RUN_ERASED: Place(ENTITY, 4, 2, "run"),
    EntryType.RUN_RESTORED: Place(ENTITY, 3, 4, "run"),
    EntryType.STEP_PREPARED: Place(API, None),
    EntryType.DECISION: Place(API, None),
    EntryType.APPROVAL_REQUESTED: Place(ENTITY, 1, 2, "approval"),
    EntryType.APPROVAL_DECIDED: Place(ENTITY, 3, 2, "approval"),
    EntryType.GRANT_ISSUED: Place(SESSION, 1),
    EntryType.GRANT_FAILED: Place(SESSION, 1, 3),
    EntryType.LEASE_RECORDED: Place(ENTITY, 1, 1, "lease"),
    EntryType.GRANT_REDEEMED: Place(API, None),
    EntryType.GRANT_REVOKED: Place(ACCESS, 2),
    EntryType.STEP_RECORDED: Place(API, None),
    EntryType.STEP_REPLAYED: Place(API, None),
    EntryType.STEP_ADOPTED: Place(API, None, 2),
    EntryType.DUPLICATE_DECIDED: Place(API, None, 2),
    EntryType.STEP_COMPLETED: Place(API, None),
    EntryType.STEP_FAILED: Place(API, None, 2),
    EntryType.STEP_SUSPENDED: Place(API, None),
    EntryType.STEP_IN_DOUBT: Place(API, None, 3),
    EntryType.STEP_RECONCILED: Place(API, None, 2),
    EntryType.WORKLOAD_ENROLLED: Place(ENTITY, 6, 2, "workload"),
    EntryType.POLICY_ACTIVATED: Place(ENTITY, 10, 2, "policy"),
    EntryType.KEY_ROTATED: Place(ENTITY, 3, 2, "signing key"),
    EntryType.KEY_REVOKED: Place(ENTITY, 9, 4, "signing key"),
    EntryType.STORE_RESTORED: Place(ENTITY, 3, 4, "store"),
    EntryType.OPERATOR_ACTION: Place(API, OTHER, 2),
}

DISPOSITIONS: Final = {1: "Allowed", 2: "Blocked", 8: "Approved", 23: "Challenge", 24: "Access Revoked"}
OF_DECISION: Final = {"allow": (1, 1), "deny": (2, 2), "require_approval": (2, 23)}
OF_VERDICT: Final = {"approve": (1, 8), "deny": (2, 2)}
"""Action (1 allowed, 2 denied) and disposition."""
ACTIONS: Final = {1: "Allowed", 2: "Denied"}
FAILED: Final = frozenset({"failed", "not_executed", "cancelled"})
UNKNOWN: Final = frozenset({"unknown", "in_doubt"})
USERS: Final = {"person": (1, "User"), "broker": (3, "System")}
SERVICE_USER: Final = (4, "Service")
