"""Why a store refused a write set whole. These never leave `usecases/`, which load and decide again.

StoreRefusal
├── VersionMoved  GuardMoved  AnswerTaken     somebody was faster
├── RevisionMoved                             policy is being activated
└── ProofReplayed                             an attack, or a proxy that repeats requests
"""

from __future__ import annotations


class StoreRefusal(Exception):
    """A write set was refused whole. Never leaves `usecases/`."""


class VersionMoved(StoreRefusal):
    """The chain's version is not the one the decision was made on: load and decide again."""


class GuardMoved(StoreRefusal):
    """The kill switch was thrown between load and commit: load and decide again."""


class RevisionMoved(StoreRefusal):
    """The engine decides by another revision than the active one, as happens while one is being activated."""


class ProofReplayed(StoreRefusal):
    """The proof's `jti` was written by an earlier call."""


class AnswerTaken(StoreRefusal):
    """An equal Idempotency-Key was answered by a call that ran beside this one: load and answer from it."""
