"""A receipt that holds, and what can be asked of it. Public as `stepgrant.receipt.Verified`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stepgrant._receipt_entries import Event
from stepgrant._receipt_errors import ChainBroken, LogProofInvalid, NotInReceipt
from stepgrant._receipt_facts import Approval, Decision, Erased, Facts, Gap, Grant, Step
from stepgrant._receipt_log import Logged
from stepgrant._receipt_parts import part_of


@dataclass(frozen=True, slots=True)
class Verified:
    """A receipt that holds. `head_ts` is when the head was signed (ms). `unknown_types` were hashed, not understood.

    `hidden` counts the commitments of which no value is disclosed. `scope` is what it is about: (kind, id); a receipt
    of a step or grant has no run head (`kid` and `head_ts` None). `logged`: its place in the log. `policies`: the text
    of each revision, as far as the receipt has it. `digest`: `sha-256:…` of the receipt's bytes. `facts`:
    what the questions below are answered from. `key_revoked_at`: when the head's key was revoked (ms), if it was;
    witnesses that you trust saw the entries in the log before.
    """

    tenant: str
    run: str
    complete: bool
    events: tuple[Event, ...]
    head_hash: str
    head_ts: int | None
    kid: str | None
    disclosed: int
    hidden: int
    unknown_types: tuple[str, ...]
    scope: tuple[str, str]
    logged: Logged | None
    policies: Mapping[str, Mapping[str, str]]
    digest: str
    facts: Facts = field(repr=False, compare=False)
    key_revoked_at: int | None = None

    def continues(self, earlier: Verified) -> int:
        """Compare with an earlier receipt of the same run, each entry with the one of its `seq`: parts have no chain.

        Returns how many of the earlier receipt's entries are in this one, and the same. Entries that this one is not
        about (it is of another step or grant) cannot be compared.

        Raises:
            ChainBroken: forked, shorter_than_earlier (it leaves out what it is about), other_run.
            NotInReceipt: nothing_to_compare: no entry is in both.
        """
        if (earlier.tenant, earlier.run) != (self.tenant, self.run):
            raise ChainBroken("the earlier receipt is of another run", reason="other_run")
        places = {event.seq: position for position, event in enumerate(self.events)}
        both = [event for event in earlier.events if event.seq in places]
        for event in both:
            at = places[event.seq]
            if self.events[at].hash != event.hash:
                raise ChainBroken("the earlier receipt has another entry here", reason="forked", position=at)
        belongs = part_of(earlier.events, self.scope)
        if any(event.seq not in places and belongs(event) for event in earlier.events):
            raise ChainBroken("the earlier receipt has more entries", reason="shorter_than_earlier")
        if not both:
            raise NotInReceipt("the earlier receipt has none of its entries", reason="nothing_to_compare")
        return len(both)

    def tlog_proof(self, position: int) -> bytes:
        """The C2SP tlog-proof file of the entry at this place in the receipt, for any other verifier.

        Its leaf is the 32-byte hash of the entry. Raises `LogProofInvalid` (not_logged), `NotInReceipt`.
        """
        if self.logged is None:
            raise LogProofInvalid("it has no proof that its entries are in the log", reason="not_logged")
        if not 0 <= position < len(self.events):
            raise NotInReceipt(f"the receipt has {len(self.events)} entries", reason="no_such_entry")
        return self.logged.tlog_proof(position)

    # --------------------------------------------------------------------------------------------------- questions

    @property
    def steps(self) -> tuple[Step, ...]:
        """Each step, in the order of their first entries."""
        return self.facts.steps

    def step(self, name: str | int) -> Step:
        """The step of this key, or at this position (from 1, as the run counted). Raises `NotInReceipt`."""
        for step in self.steps:
            if name == (step.key if isinstance(name, str) else step.position):
                return step
        raise NotInReceipt(f"the receipt has no entry of step {name!r}", reason="no_such_step")

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """Each decision, also those on opening and resuming the run."""
        return self.facts.decisions

    @property
    def approvals(self) -> tuple[Approval, ...]:
        """Each question to people."""
        return self.facts.approvals

    @property
    def grants(self) -> tuple[Grant, ...]:
        """Each grant."""
        return self.facts.grants

    def grant(self, jti: str) -> Grant:
        """The grant of this id. Raises `NotInReceipt`."""
        for grant in self.grants:
            if grant.jti == jti:
                return grant
        raise NotInReceipt(f"the receipt has no entry of grant {jti!r}", reason="no_such_grant")

    @property
    def erased(self) -> Erased | None:
        """When and by whom the run's values were erased; `None` if they were not, as far as this receipt goes."""
        return self.facts.erased

    @property
    def missing(self) -> tuple[Gap, ...]:
        """What is not in it, as far as it can know; nothing for a whole, ended run with all its values and texts.

        Codes: part_only, not_ended, not_logged, erased, hidden, no_policy_text, unknown_types. What no receipt can
        prove is in `DOES_NOT_PROVE`.
        """
        found: list[Gap] = []
        if self.scope[0] != "run":
            found.append(Gap("part_only", f"it is about one {self.scope[0]}: what else the run did is not in it"))
        elif not self.complete:
            found.append(Gap("not_ended", "the run had not ended when it was made: more may have come since"))
        if self.logged is None:
            found.append(Gap("not_logged", "it has no proof that the log holds its entries: ask for a newer receipt"))
        if self.erased is not None:
            found.append(Gap("erased", "the values of the run were erased; nobody can show or guess them any more"))
        elif self.hidden:
            found.append(Gap("hidden", f"{self.hidden} committed values are not disclosed"))
        found += [
            Gap("no_policy_text", f"the text of policy revision {one} is not in it")
            for one in self.facts.revisions
            if one not in self.policies
        ]
        if self.unknown_types:
            names = ", ".join(self.unknown_types)
            found.append(Gap("unknown_types", f"entries of newer types were hashed, not understood: {names}"))
        return tuple(found)
