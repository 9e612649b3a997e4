"""Comparing what entries fold to with what the tables say, both ways: a row differs, is missing, or is too much."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from stepgrant import canonical
from stepgrant_broker.domain.reads import Listed, Page
from stepgrant_broker.ledger.findings import Code, Finding, Place, row

if TYPE_CHECKING:
    from stepgrant_broker.domain.reads import Reads
    from stepgrant_broker.domain.scanning import Scans
    from stepgrant_broker.domain.state import View
    from stepgrant_broker.domain.writes import Operator, Quarantine, Tenant, Workload
    from stepgrant_broker.ledger.tenant_fold import TenantView

PAGE: Final = 500
POLICY_MAX_BYTES: Final = 67_108_864
Key = TypeVar("Key")
Row = TypeVar("Row")
Removed = TypeVar("Removed", "Workload", "Operator")
Compared: TypeAlias = tuple[Callable[[Any], Place], Mapping[Any, object], Mapping[Any, object]]
"""How a table names its rows, what its entries fold to, and what stands in it."""


def compare(at: Callable[[Key], Place], folded: Mapping[Key, object], rows: Mapping[Key, object]) -> Iterator[Finding]:
    """One finding for each key whose values are not equal; `at` names a key's row."""
    for key in folded:
        if key not in rows:
            yield Finding(Code.ROW_MISSING, at(key), "its entries are there, its row is not")
        elif folded[key] != rows[key]:
            what = ", ".join(differing(folded[key], rows[key]))
            yield Finding(Code.ROW_DIFFERS, at(key), f"{what} is not what its entries say")
    for key in rows.keys() - folded.keys():
        yield Finding(Code.ROW_ORPHAN, at(key), "no entry made this row")


def differing(one: object, other: object) -> list[str]:
    """The names of members that differ (never their values, which may be personal)."""
    names: tuple[str, ...] = getattr(type(one), "__match_args__", ())
    if names and type(one) is type(other):
        return [name for name in names if getattr(one, name) != getattr(other, name)]
    return ["the row"]


async def everything(read: Callable[[Page], Awaitable[Listed[Row]]]) -> AsyncIterator[Row]:
    """All rows of a paged list."""
    after: str | None = None
    while True:
        page = await read(Page(PAGE, after))
        for one in page.rows:
            yield one
        if page.next is None:
            return
        after = page.next


async def run_tables(reads: Reads, view: View, stored: View, tenant: str, run: str) -> list[Finding]:
    """The tables of one run against its folded view. `stored` gives the run's row and its epochs."""
    steps = {row.key: row async for row in everything(lambda page: reads.steps(tenant, run, page))}
    grants = {row.jti: row async for row in everything(lambda page: reads.grants(tenant, page, run=run))}
    approvals = {row.id: row async for row in everything(lambda page: reads.approvals(tenant, page, run=run))}
    pairs: list[Compared] = [
        (lambda key: row("runs", tenant=tenant, id=key), {run: view.run}, {run: stored.run}),
        (lambda key: row("run_epochs", tenant=tenant, run=run, epoch=key), view.epochs, stored.epochs),
        (lambda key: row("steps", tenant=tenant, run=run, key=key), view.steps, steps),
        (lambda key: row("grants", tenant=tenant, run=run, jti=key), view.grants, grants),
        (lambda key: row("approvals", tenant=tenant, run=run, id=key), view.approvals, approvals),
    ]
    return [finding for at, folded, rows in pairs for finding in compare(at, folded, rows)]


async def tenant_tables(
    reads: Reads, scans: Scans, view: TenantView, stands: Tenant, digest_of: Callable[[Mapping[str, str]], str] | None
) -> list[Finding]:
    """The tables of a tenant against its folded view; with `digest_of`, policy texts against their revisions."""
    tenant = stands.id
    operators = {operator.id: operator for operator in await scans.people(tenant)}
    workloads = {workload.id: workload for workload in await reads.workloads(tenant)}
    switches = {(one.kind, one.name): one for one in await reads.quarantines(tenant) if not _outlives(one, view)}
    secrets = {secret.name: (secret.hosts, secret.header, secret.set_at) for secret in await reads.secrets(tenant)}
    policies = {
        policy.revision: (policy.activated_at, policy.counter, policy.digest) for policy in await reads.policies(tenant)
    }
    activated = {revision: (at, *_revision(revision)) for revision, at in view.policies.items()}
    counter = 0 if view.revision is None else _revision(view.revision)[0]
    expected_secrets = {name: (known.hosts, known.header, known.set_at) for name, known in view.secrets.items()}
    pairs: list[Compared] = [
        (lambda _: row("tenants", id=tenant), {tenant: (view.seq, view.head, view.last_ts, view.revision, counter)},
         {tenant: (stands.seq, stands.head, stands.last_ts, stands.policy_revision, stands.policy_counter)}),
        (lambda key: row("workloads", tenant=tenant, id=key), _kept(view.workloads, workloads), workloads),
        (lambda key: row("operators", tenant=tenant, id=key), _kept(view.operators, operators), operators),
        (lambda key: row("quarantines", tenant=tenant, kind=key[0], name=key[1]), view.switches, switches),
        (lambda key: row("secrets", tenant=tenant, name=key), expected_secrets, secrets),
        (lambda key: row("policies", tenant=tenant, revision=key), activated, policies),
    ]  # fmt: skip
    found = [finding for at, folded, rows in pairs for finding in compare(at, folded, rows)]
    return [*found, *(await _policy_texts(reads, tenant, view, digest_of))]


def _revision(text: str) -> tuple[int, str]:
    """`<counter>:<digest>`."""
    counter, _, digest = text.partition(":")
    return (int(counter) if counter.isdecimal() else -1), digest


def _kept(folded: Mapping[str, Removed], rows: Mapping[str, object]) -> dict[str, Removed]:
    """What has to be there: a removed one may have been forgotten."""
    return {key: one for key, one in folded.items() if one.removed_at is None or key in rows}


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
            at = row("policies", tenant=tenant, revision=revision)
            found.append(Finding(Code.ROW_DIFFERS, at, "the text is not the one that the revision names"))
    return found


def _is_text_of(text: bytes, revision: str, digest_of: Callable[[Mapping[str, str]], str]) -> bool:
    try:
        files = canonical.loads(text, max_bytes=POLICY_MAX_BYTES)
    except canonical.CanonicalError:
        return False
    if not isinstance(files, dict) or not all(isinstance(value, str) for value in files.values()):
        return False
    return digest_of({path: str(value) for path, value in files.items()}) == revision.partition(":")[2]
