"""The `# METADATA` comments of Rego: title, description and `custom.code` of what follows them.

Rules:
* Read are plain `key: value` lines, `key: |` blocks and the one nested member `custom: code:`. This is the part of YAML
  that the annotations of a policy need; a value in another notation reads as absent, which only costs `explain` a text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_MARK: Final = re.compile(r"^#\s*METADATA\s*$")
_LINE: Final = re.compile(r"^#(?: (?P<indent> *)(?P<text>.*))?$")
_MEMBER: Final = re.compile(r"(?P<key>[a-z_]+):(?: (?P<value>.*))?$")


@dataclass(frozen=True, slots=True)
class Metadata:
    """What an annotation says; empty texts where it says nothing."""

    title: str = ""
    description: str = ""
    code: str = ""


def read_annotations(text: str) -> Mapping[int, Metadata]:
    """The annotations of a module by the line (from 1) of the code that follows each."""
    found: dict[int, Metadata] = {}
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        if _MARK.match(lines[at]) is None:
            at += 1
            continue
        start = at = at + 1
        while at < len(lines) and lines[at].startswith("#"):
            at += 1
        found[at + 1] = _read(lines[start:at])
    return found


def _read(lines: list[str]) -> Metadata:
    members: dict[str, str] = {}
    parent = block = ""
    for line in lines:
        matched = _LINE.match(line)
        indent, text = (len(matched["indent"] or ""), (matched["text"] or "").strip()) if matched else (0, "")
        if block and (indent > 0 or not text):
            members[block] = f"{members[block]} {text}".strip()
            continue
        block = ""
        member = _MEMBER.match(text)
        if member is None:
            continue
        key, value = member["key"], (member["value"] or "").strip()
        path = f"{parent}.{key}" if indent and parent else key
        if not indent:
            parent = key
        if value in {"|", ">"}:
            block = path
            value = ""
        members[path] = value.strip("\"'")
    return Metadata(members.get("title", ""), members.get("description", ""), members.get("custom.code", ""))
