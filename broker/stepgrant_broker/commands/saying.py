"""From the broker's errors to the command line's: the same code, one line, and the exit code follows from it.

Settings are named in it as they are set, in the environment.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stepgrant.cli.exits import CommandError


@contextmanager
def said() -> Iterator[None]:
    """Domain faults and wrong settings become `CommandError` with their code."""
    from stepgrant_broker.config import SettingsError, spelled
    from stepgrant_broker.domain.errors import SchemaViolation, StepgrantFault, Unavailable

    try:
        yield
    except SchemaViolation as invalid:  # a policy with findings
        raise CommandError(invalid.detail, code="check_failed") from None
    except SettingsError as error:
        raise CommandError("; ".join(error.problems), code="configuration_error") from None
    except StepgrantFault as fault:
        # A conflict of the store is "not now"; one of the domain is a state that will not change by trying again.
        later = isinstance(fault, Unavailable) and fault.code == "conflict"
        raise CommandError(spelled(fault.detail), code="ledger_unavailable" if later else fault.code) from None
