"""The policy text that decisions were made by. It proves itself: the digest of its files stands in each revision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from stepgrant._receipt_entries import Event
from stepgrant._receipt_errors import PolicyTextInvalid
from stepgrant.canonical import JsonValue, digest, digest_bytes

_POLICY: Final = frozenset({"revision", "files"})


def check_policies(value: JsonValue, events: Sequence[Event]) -> dict[str, dict[str, str]]:
    """The files (path to text) of each revision. Raises `PolicyTextInvalid`.

    Each revision must be one that an entry was decided under; a revision whose text is missing is told by `undecided`.
    """
    if not isinstance(value, list):
        raise PolicyTextInvalid("policies is not an array", reason="policy_malformed")
    used = set(revisions(events))
    found: dict[str, dict[str, str]] = {}
    for item in value:
        if not isinstance(item, dict) or item.keys() != _POLICY:
            raise PolicyTextInvalid("a policy has revision and files", reason="policy_malformed")
        revision, files = item["revision"], item["files"]
        if not isinstance(revision, str) or not isinstance(files, dict) or not files:
            raise PolicyTextInvalid("a policy has a revision and files", reason="policy_malformed")
        texts = {path: text for path, text in files.items() if isinstance(text, str)}
        if len(texts) != len(files):
            raise PolicyTextInvalid("a file of a policy is not text", reason="policy_malformed")
        if revision not in used or revision in found:
            raise PolicyTextInvalid("no entry was decided under it, or it is there twice", reason="policy_foreign")
        if policy_digest(texts) != revision.partition(":")[2]:
            raise PolicyTextInvalid("not the text that the revision names", reason="wrong_policy_text")
        found[revision] = texts
    if list(found) != sorted(found):
        raise PolicyTextInvalid("not in order of the revision", reason="policy_malformed")
    return found


def revisions(events: Sequence[Event]) -> list[str]:
    """The revisions that entries were decided under, each once, in order of the text."""
    named = (event.part("decision").get("policy_revision") for event in events)
    return sorted({one for one in named if isinstance(one, str)})


def policy_digest(files: Mapping[str, str]) -> str:
    """`"sha-256:…"` of the canonical listing `[{"digest", "path"}, …]` in the order of paths."""
    listing: JsonValue = [{"digest": digest_bytes(files[path].encode()), "path": path} for path in sorted(files)]
    return digest(listing)
