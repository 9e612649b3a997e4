"""Versions of the services, as each tells its own, against those that the broker is tested with.

Rules:
* The ranges are those in which `deploy/services` takes a program for the tests; a test compares the two.
* A version outside of them is a warning: it may do, but nobody has seen it do.
* Of what a service says only the numbers are shown.
* Vault and OpenBao tell their version and not which of the two they are: one that fits either passes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from stepgrant_broker.wiring.doctor.findings import Area, Found

Version: TypeAlias = tuple[int, ...]

TESTED: Final[Mapping[str, tuple[Version, Version]]] = MappingProxyType({
    "OPA": ((1, 0), (2,)),
    "Vault": ((1, 16), (2,)),
    "OpenBao": ((2, 0), (3,)),
    "PostgreSQL": ((15,), (19,)),
})  # fmt: skip
"""From the first version, and before the second."""
_NUMBERS: Final = re.compile(r"v?(\d{1,6}(?:\.\d{1,6}){0,3})(?!\d)")


def version_of(area: Area, said: object, *products: str) -> Found:
    """The finding on what a service says is its version. `products`: of `TESTED`; it is one of them."""
    wanted = " or ".join(f"{product} {_span(*TESTED[product])}" for product in products)
    mend = f"run {wanted}: with no other the broker is tested"
    match = _NUMBERS.match(said) if isinstance(said, str) else None
    if match is None:
        return area.warn("version", "it does not say which version it is", mend)
    numbers = tuple(int(part) for part in match[1].split("."))
    for product in products:
        lowest, beyond = TESTED[product]
        if lowest <= numbers < beyond:
            return area.ok("version", f"{product} {match[1]}")
    return area.warn("version", f"it is version {match[1]}", mend)


def postgres_says(url: str) -> object:
    """What the server at this address says is its version. Blocks. Raises `StepgrantFault`. Needs psycopg."""
    from stepgrant_broker.store.asking import Ask  # noqa: PLC0415 - with the driver's
    from stepgrant_broker.store.postgres_faults import Lost, Refused, told  # noqa: PLC0415 - an extra
    from stepgrant_broker.store.postgres_link import Link, Manner  # noqa: PLC0415 - as above
    from stepgrant_broker.store.statements import Text  # noqa: PLC0415 - with the driver's

    link = Link(url, Manner(application="stepgrant-doctor"))
    try:
        (answer,) = link.round([Ask(Text("SHOW server_version", ()), ())])
    except (Lost, Refused) as error:
        raise told(error) from None
    finally:
        link.close()
    return answer.rows[0][0]


def _span(lowest: Version, beyond: Version) -> str:
    first, end = (".".join(map(str, one)) for one in (lowest, beyond))
    return f"{first} or newer, before {end}"
