"""Comparing what entries fold to with what the tables say, both ways: a row differs, is missing, or is too much."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from stepgrant import canonical
from stepgrant_broker.domain.reads import Listed, Page
from stepgrant_broker.ledger.findings import Finding

if TYPE_CHECKING:
    from stepgrant_broker.domain.reads import Reads
    from stepgrant_broker.domain.state import View
    from stepgrant_broker.domain.writes import Quarantine, Tenant
    from stepgrant_broker.ledger.tenant_fold import TenantView

PAGE: Final = 500
POLICY_MAX_BYTES: Final = 67_108_864
Key = TypeVar("Key")
Row = TypeVar("Row")


def compare(
    tenant: str, run: str | None, table: str, folded: Mapping[Key, object], rows: Mapping[Key, object]
) -> Iterator[Finding]:
    """One finding for each key whose values are not equal."""
    for key in folded:
        if key not in rows:
            yield Finding("row_missing", tenant, run, f"{table} {key}: its entries are there, its row is not")
        elif folded[key] != rows[key]:
            what = ", ".join(differing(folded[key], rows[key]))
            yield Finding("row_differs", tenant, run, f"{table} {key}: {what} is not what its entries say")
    for key in rows.keys() - folded.keys():
        yield Finding("row_orphan", tenant, run, f"{table} {key}: no entry made this row")


def differing(one: object, other: object) -> list[str]:
    """The names of members that differ (never their values, which may be personal)."""
    if is_dataclass(one) and type(one) is type(other):
        return [member.name for member in fields(one) if getattr(one, member.name) != getattr(other, member.name)]
    return ["the row"]


async def everything(read: Callable[[Page], Awaitable[Listed[Row]]]) -> AsyncIterator[Row]:
    """All rows of a paged list."""
    after: str | None = None
    while True:
        page = await read(Page(PAGE, after))
        for row in page.rows:
            yield row
        if page.next is None:
            return
        after = page.next


async def run_tables(reads: Reads, view: View, stored: View, tenant: str, run: str) -> list[Finding]:
    """The tables of one run against its folded view. `stored` gives the run's row and its epochs."""
    steps = {row.key: row async for row in everything(lambda page: reads.steps(tenant, run, page))}
    grants = {row.jti: row async for row in everything(lambda page: reads.grants(tenant, page, run=run))}
    approvals = {row.id: row async for row in everything(lambda page: reads.approvals(tenant, page, run=run))}
    pairs: list[tuple[str, Mapping[Any, object], Mapping[Any, object]]] = [
        ("runs", {run: view.run}, {run: stored.run}),
        ("epochs", view.epochs, stored.epochs),
        ("steps", view.steps, steps),
        ("grants", view.grants, grants),
        ("approvals", view.approvals, approvals),
    ]
    return [finding for table, folded, rows in pairs for finding in compare(tenant, run, table, folded, rows)]


async def tenant_tables(
    reads: Reads, view: TenantView, row: Tenant, digest_of: Callable[[Mapping[str, str]], str] | None
) -> list[Finding]:
    """The tables of a tenant against its folded view; with `digest_of`, policy texts against their revisions."""
    tenant = row.id
    operators = {operator.id: operator for operator, _ in await reads.operators(tenant)}
    workloads = {workload.id: workload for workload in await reads.workloads(tenant)}
    switches = {(one.kind, one.name): one for one in await reads.quarantines(tenant) if not _outlives(one, view)}
    secrets = {secret.name: (secret.hosts, secret.header, secret.set_at) for secret in await reads.secrets(tenant)}
    policies = {policy.revision: policy.activated_at for policy in await reads.policies(tenant)}
    expected_secrets = {name: (known.hosts, known.header, known.set_at) for name, known in view.secrets.items()}
    gone = {key for key, known in view.operators.items() if known.removed_at is not None} - operators.keys()
    gone_workloads = {key for key, known in view.workloads.items() if known.removed_at is not None} - workloads.keys()
    pairs: list[tuple[str, Mapping[Any, object], Mapping[Any, object]]] = [
        ("tenants", {tenant: (view.seq, view.head, view.last_ts, view.revision)},
         {tenant: (row.seq, row.head, row.last_ts, row.policy_revision)}),
        ("workloads", {key: one for key, one in view.workloads.items() if key not in gone_workloads}, workloads),
        ("operators", {key: one for key, one in view.operators.items() if key not in gone}, operators),
        ("quarantines", view.switches, switches),
        ("secrets", expected_secrets, secrets),
        ("policies", view.policies, policies),
    ]  # fmt: skip
    found = [finding for table, folded, rows in pairs for finding in compare(tenant, None, table, folded, rows)]
    return [*found, *(await _policy_texts(reads, tenant, view, digest_of))]


def _outlives(switch: Quarantine, view: TenantView) -> bool:
    """Removing a workload throws a switch on it that releases itself (`usecases/enroll.py`): it has no entry."""
    known = view.workloads.get(switch.name) if switch.kind == "workload" else None
    return switch.released_at is not None and known is not None and known.removed_at is not None


async def _policy_texts(
    reads: Reads, tenant: str, view: TenantView, digest_of: Callable[[Mapping[str, str]], str] | None
) -> list[Finding]:
    found: list[Finding] = []
    if digest_of is None:
        return found
    for revision in view.policies:
        policy = await reads.policy(tenant, revision)
        if policy is not None and not _is_text_of(policy.text, revision, digest_of):
            what = f"policies {revision}: the text is not the one that the revision names"
            found.append(Finding("row_differs", tenant, None, what))
    return found


def _is_text_of(text: bytes, revision: str, digest_of: Callable[[Mapping[str, str]], str]) -> bool:
    try:
        files = canonical.loads(text, max_bytes=POLICY_MAX_BYTES)
    except canonical.CanonicalError:
        return False
    if not isinstance(files, dict) or not all(isinstance(value, str) for value in files.values()):
        return False
    return digest_of({path: str(value) for path, value in files.items()}) == revision.partition(":")[2]
