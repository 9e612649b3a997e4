"""Which log and which witnesses an auditor trusts, as text (C2SP tlog-policy).

    log <vkey>
    witness <name> <vkey> [<url>]
    group <name> <k>|any|all <member> ...
    quorum <name>|none

A head counts if a log key signed it and the quorum's witnesses cosigned it. Members are witnesses or groups that stand
above. Empty lines and lines that begin with `#` are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from stepgrant.tlog.errors import LogPolicyInvalid, NoteInvalid, WitnessesMissing
from stepgrant.tlog.note import COSIGNATURE, ED25519, Note, NoteKey, read_vkey

MAX_LINES: Final = 1000
NONE: Final = "none"


@dataclass(frozen=True, slots=True)
class Witness:
    """One witness, and where it answers (its submission prefix), if that is known here."""

    name: str
    key: NoteKey
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """`needed` of `members` (names of witnesses or groups)."""

    needed: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LogPolicy:
    """The text, read. `quorum` None: no cosignature is asked for."""

    logs: tuple[NoteKey, ...]
    witnesses: Mapping[str, Witness] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)
    quorum: str | None = None

    def check(self, note: Note) -> dict[str, int]:
        """That the head counts; when each witness cosigned it (seconds), by name.

        Raises `NoteInvalid` (no log key signed, or a known key's signature fails), `WitnessesMissing`.
        """
        keys = {one.key: one.name for one in self.witnesses.values()}
        signed = note.verified([*self.logs, *keys])
        if not any(key in signed for key in self.logs):
            raise NoteInvalid("the head is signed by no log key that is trusted here", reason="unknown_key")
        times = {keys[key]: seconds for key, seconds in signed.items() if key in keys and seconds is not None}
        if self.quorum is not None and not self._holds(self.quorum, times):
            have = ", ".join(sorted(times)) or "none"
            raise WitnessesMissing(f"too few witnesses cosigned the head (have: {have})", reason="quorum")
        return times

    def enough(self, times: Mapping[str, int]) -> bool:
        """True if these witnesses are enough: some have to be asked for, or nobody vouches for anything."""
        return self.quorum is not None and self._holds(self.quorum, times)

    def _holds(self, name: str, times: Mapping[str, int]) -> bool:
        group = self.groups.get(name)
        if group is None:
            return name in times
        return sum(self._holds(member, times) for member in group.members) >= group.needed


def read_log_policy(text: str) -> LogPolicy:
    """Raises `LogPolicyInvalid`, naming the line."""
    logs: list[NoteKey] = []
    witnesses: dict[str, Witness] = {}
    groups: dict[str, Group] = {}
    quorum: list[str] = []
    for number, words in _lines(text):
        match words:
            case ["log", vkey]:
                logs.append(_key(vkey, ED25519, number))
            case ["witness", name, vkey, *url] if len(url) <= 1:
                _refuse_taken(name, number, witnesses, groups)
                witnesses[name] = Witness(name, _key(vkey, COSIGNATURE, number), *url)
            case ["group", name, needed, *members] if members:
                _refuse_taken(name, number, witnesses, groups)
                groups[name] = _group(number, needed, members, {*witnesses, *groups})
            case ["quorum", name] if not quorum and (name == NONE or name in witnesses or name in groups):
                quorum.append(name)
            case _:
                raise _bad(number, "not a line of a log policy, or it names what does not stand above")
    if not logs or not quorum:
        raise LogPolicyInvalid("a log policy has a `log` line and one `quorum` line", reason="incomplete")
    return LogPolicy(tuple(logs), witnesses, groups, None if quorum[0] == NONE else quorum[0])


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    lines = text.splitlines()
    if len(lines) > MAX_LINES:
        raise LogPolicyInvalid(f"a log policy has at most {MAX_LINES} lines", reason="too_large")
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line.split()


def _key(vkey: str, kind: int, number: int) -> NoteKey:
    key = read_vkey(vkey)
    if key.kind != kind:
        raise _bad(number, f"the key is not of kind {kind}")
    return key


def _group(number: int, needed: str, members: list[str], known: set[str]) -> Group:
    if len(set(members)) != len(members) or not known.issuperset(members):
        raise _bad(number, "a member is named twice, or does not stand above")
    counts = {"any": "1", "all": str(len(members))}
    text = counts.get(needed, needed)
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= len(members):
        raise _bad(number, "needed is `any`, `all` or a number of the members")
    return Group(int(text), tuple(members))


def _refuse_taken(name: str, number: int, *taken: Mapping[str, object]) -> None:
    if name == NONE or any(name in names for names in taken):
        raise _bad(number, f"the name {name} is taken")


def _bad(number: int, why: str) -> LogPolicyInvalid:
    return LogPolicyInvalid(f"line {number}: {why}", reason="bad_line")
