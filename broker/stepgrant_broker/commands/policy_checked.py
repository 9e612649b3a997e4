"""`stepgrant policy check`: what it found, and what it could not look at from here.

The embedded engine always has its say; then an `opa` program, where one is at hand.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stepgrant.cli import plain
from stepgrant_broker.commands.policy_files import opa_said, read

if TYPE_CHECKING:
    from stepgrant.cli.output import Output
    from stepgrant_broker.policy.bundle import Bundle
    from stepgrant_broker.policy.findings import Finding
    from stepgrant_broker.policy.opa_tool import OpaTool

ISSUERS_FILE: Final = "STEPGRANT_BROKER_ISSUERS_FILE"


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check said. `unseen`: what nobody could look at from here, a line each."""

    name: str
    bundle: Bundle | None
    findings: tuple[Finding, ...]
    engine: str
    unseen: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        found = [
            {"file": str(Path(self.name, f.file)), "line": f.line, "code": f.code, "message": f.message, "fix": f.fix}
            for f in self.findings
        ]
        digest = self.bundle.digest if self.bundle else None
        return {
            "policy": self.name, "digest": digest, "engine": self.engine, "findings": found, "unseen": list(self.unseen)
        }  # fmt: skip

    def show(self, out: Output) -> None:
        """For people: a line for each finding, as editors read them, and the sum."""
        for one in self.findings:
            place = f"{Path(self.name, one.file)}:{one.line}" if one.line else str(Path(self.name, one.file))
            out.line(plain.visible(f"{place}: {one.code}: {one.message}; {one.fix}"), style="red")
        for line in self.unseen:
            out.line(plain.visible(line), style="yellow")
        if self.findings:
            out.line(f"{plain.count(len(self.findings), 'finding')}; {self._sum()}", style="bold red")
        elif self.bundle is not None:
            rules = plain.count(len(self.bundle.modules), "file")
            text = f"{self.name} can be activated: {rules}, {self.bundle.digest}, checked by {self.engine}"
            out.line(text, style="green")

    def _sum(self) -> str:
        """What comes of the findings."""
        from stepgrant_broker.policy.findings import grave

        said = "this policy cannot be activated"
        return said if grave(self.findings, in_force=True) else f"{said} (where it is in force, it stays so)"


def checked_policy(folder: Path | None, tool: OpaTool | None, issuers: Collection[str] | None) -> Checked:
    """Check the policy in the folder. `issuers` as of `policy.check.check`. Raises `CommandError`."""
    from stepgrant_broker.policy.check import check, check_tests
    from stepgrant_broker.policy.embedded import PROBE_DEADLINE_S
    from stepgrant_broker.policy.findings import PolicyInvalid
    from stepgrant_broker.policy.probes import proven
    from stepgrant_broker.policy.rego import ENGINE as EMBEDDED

    engine = EMBEDDED if tool is None else f"{EMBEDDED} and {tool.engine}"
    try:
        name, bundle = read(folder)
        findings = check(bundle, issuers) or check_tests(bundle)
        if not findings:
            proven(bundle, "check", deadline_s=PROBE_DEADLINE_S).end()
    except PolicyInvalid as invalid:
        return Checked(str(folder or "policy"), None, invalid.findings, engine)
    if not findings and tool is not None:
        with opa_said():
            findings = tool.check(bundle)
    return Checked(name, bundle, findings, engine, _not_looked_up(name, bundle) if issuers is None else ())


def known_issuers(file: Path | None) -> Collection[str] | None:
    """The issuers of a broker with this issuers file; `None` where no file is named. Raises `SettingsError`."""
    path = file or (Path(os.environ[ISSUERS_FILE]) if os.environ.get(ISSUERS_FILE) else None)
    if path is None:
        return None
    from stepgrant_broker.wiring.vault import issuer_names

    return issuer_names(path)


def _not_looked_up(name: str, bundle: Bundle) -> tuple[str, ...]:
    from stepgrant_broker.policy.check_settings import issuers_named

    found = list(issuers_named(bundle))
    if not found:
        return ()
    from stepgrant_broker.wiring.vault import issuer_names

    always, lines = issuer_names(None), []
    for named, line in found:
        if named.name not in always:
            near = difflib.get_close_matches(named.name, sorted(always), n=1)
            meant = f"; was {near[0]} meant?" if near else ""
            what = f"not looked up: issuer {named.name}; --issuers names the broker's issuers file{meant}"
            lines.append(f"{Path(name, named.file)}:{line}: {what}")
    return tuple(lines)
