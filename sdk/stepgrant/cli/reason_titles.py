"""The titles that a policy gives to its reasons, from its text as the broker has it.

Rules:
* A title is that of a rule's `# METADATA` comment; its code stands in the comment (`custom: code:`) or in the rule
  after it (`deny contains "code"`).
* Titles only help to read. What the policy does not say, or cannot be read here, has none, and the code stands alone.
* They stand beside a question before its yes, so they are taken only from the text that the revision's digest names:
  who can change a stored policy must not write the words beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from stepgrant.cli.people import segment
from stepgrant.errors import StepgrantError

if TYPE_CHECKING:
    from stepgrant.cli.people import People

_COMMENT: Final = re.compile(r"^#[ \t]*METADATA[ \t]*\n(?P<about>(?:#.*\n)+)(?P<rule>.*)", re.MULTILINE)
_TITLE: Final = re.compile(r"^# title:[ \t]*(?P<text>\S.*)$", re.MULTILINE)
_CODE: Final = re.compile(r"^# custom:[ \t]*\n(?:# +.*\n)*?# +code:[ \t]*(?P<text>\S+)", re.MULTILINE)
_ADDED: Final = re.compile(r'\bcontains[ \t]+"(?P<text>[^"]+)"')


def titles_in(text: str) -> Mapping[str, str]:
    """The titles of one file of a policy, by code."""
    found: dict[str, str] = {}
    for comment in _COMMENT.finditer(text):
        title = _TITLE.search(comment["about"])
        code = _CODE.search(comment["about"]) or _ADDED.search(comment["rule"])
        if title is not None and code is not None:
            found[code["text"].strip("\"'")] = title["text"].strip().strip("\"'")
    return found


class Titles:
    """The titles by revision, each read once."""

    def __init__(self, broker: People) -> None:
        self._broker = broker
        self._known: dict[str, Mapping[str, str]] = {}

    def of(self, asked: Mapping[str, Any]) -> Mapping[str, str]:
        """The titles of the policy that put this question, by code; none where it is not known."""
        revision = asked.get("revision")
        if not isinstance(revision, str):
            return {}
        if revision not in self._known:
            self._known[revision] = self._read(revision)
        return self._known[revision]

    def _read(self, revision: str) -> Mapping[str, str]:
        from stepgrant._receipt_policies import policy_digest

        try:
            files = self._broker.get(f"/v1/policies/{segment(revision)}")["text"]
        except StepgrantError:
            return {}
        if policy_digest(files) != revision.partition(":")[2]:
            return {}
        return {code: title for text in files.values() for code, title in titles_in(text).items()}


def told(reasons: list[str], titles: Mapping[str, str]) -> str:
    """The codes, each with its title where it has one. Not made visible yet."""
    return ", ".join(f"{code} ({titles[code]})" if titles.get(code) else code for code in reasons)
