"""The log as `stepgrant ledger verify` looks at it: through this process or over HTTP, and whom it believes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepgrant import _http
from stepgrant_broker.ledger import findings
from stepgrant_broker.ledger.check_heads import KeptHead
from stepgrant_broker.ledger.findings import Code, Finding
from stepgrant_broker.ledger.newest import NAME
from stepgrant_broker.ledger.readers import HttpLog
from stepgrant_broker.ledger.verify import TheLog
from stepgrant_broker.wiring.witnessing import policy_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AsyncExitStack

    from stepgrant.tlog.policy import LogPolicy
    from stepgrant_broker.config import Settings
    from stepgrant_broker.domain.log import LogStore
    from stepgrant_broker.ledger.readers import LogReader
    from stepgrant_broker.wiring.broker import Broker


def the_log(
    store: LogStore,
    own: LogReader,
    settings: Settings,
    *,
    reader: LogReader | None = None,
    policy: LogPolicy | None = None,
    known: Sequence[KeptHead] = (),
) -> TheLog:
    """What to check. `reader`: instead of this process's own. The newest head outside the database is always compared.

    With `policy`, only the log keys in it are believed; without, those that the log publishes, and the witnesses that
    the settings name. Raises `SettingsError`.
    """
    trusted = () if policy is None else policy.logs
    return TheLog(store, reader or own, policy or policy_of(settings), trusted, (*kept_outside(settings), *known))


def kept_outside(settings: Settings) -> list[KeptHead]:
    """The newest head that a broker with these settings kept outside the database, if one did."""
    path = settings.newest_folder / NAME
    try:
        return [KeptHead(path.read_bytes(), str(path))]
    except FileNotFoundError:
        return []
    except OSError as error:
        return [KeptHead(b"", f"{path} ({error.strerror})")]


async def remembered(broker: Broker) -> list[Finding]:
    """What the witnesses that the settings name remember, and the store does not continue.

    Raises `StoreUnavailable` for a head file that cannot be used.
    """
    size = (await broker.store.log_tail(1)).head.size
    return [
        Finding(Code.ROLLED_BACK if one.known.size > size else Code.FORKED, findings.head(one.known.size), one.why)
        for one in await broker.seen.contradictions(ask_witnesses=True)
    ]


def log_at(stack: AsyncExitStack, url: str) -> HttpLog:
    """The log of a running broker. Raises `ConfigurationError` for a URL that is neither https nor loopback."""
    import httpx  # noqa: PLC0415 - 0.1 s that most commands need not wait

    client = httpx.AsyncClient(verify=_http.authorities(), timeout=10.0, trust_env=False)
    stack.push_async_callback(client.aclose)
    return HttpLog(url, client)
