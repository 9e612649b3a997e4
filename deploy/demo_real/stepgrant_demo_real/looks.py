"""What the real demo's claims rest on: the database's own books, Vault's lists, entries of a verified receipt. Pure.

As strict as an auditor: what is missing does not hold, and what is there twice does not hold either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from stepgrant.receipt import Event
from stepgrant_broker.demo.checks import Finding
from stepgrant_demo_real.witness import Noted, Write

LOOKS: Final = "app_look"
WORK: Final[Mapping[str, tuple[str, int]]] = {
    "insert accounts": ("app_create", 1),
    "create schema": ("app_room", 1),
    "insert quotas": ("app_room", 2),
    "insert settings": ("app_defaults", 4),
    "update accounts": ("app_activate", 1),
}
"""Everything that has to be done for one account: by a login of which role, and how often."""
HELD_BY: Final = frozenset({"run_opened", "run_resumed"})


def made(logins: Sequence[Noted]) -> list[Noted]:
    """The lines of the book about logins that were made."""
    return [noted for noted in logins if noted.what == "made"]


def done_once(writes: Sequence[Write], account: str) -> Finding:
    """Each piece of work on this account is in the book so often as one account needs it, and nothing else is."""
    counts = Counter(write.what for write in writes if write.account == account)
    expected = {what: times for what, (_, times) in WORK.items()}
    others = len(writes) - counts.total()
    told = ", ".join(f"{what} {times}x" for what, times in counts.items()) or "nothing"
    return Finding(counts == expected and not others, told + (f"; and {others} about others" if others else ""))


def each_by_its_own(writes: Sequence[Write], logins: Sequence[Noted]) -> Finding:
    """Every write was by a login of the one role that policy chose for its step."""
    roles = {noted.login: noted.role for noted in made(logins)}
    wrong = [write.what for write in writes if roles.get(write.login) != WORK.get(write.what, ("", 0))[0]]
    used = {roles.get(write.login) for write in writes}
    told = f"{len(writes)} writes by {len({write.login for write in writes})} logins of {len(used)} roles"
    return Finding(bool(writes) and not wrong, f"{told}: not so for {', '.join(wrong)}" if wrong else told)


def gone_before(logins: Sequence[Noted], old: str) -> Finding:
    """The old login was dropped, and the next one was made by a transaction that could no longer see it."""
    dropped = [noted for noted in logins if noted.login == old and noted.what == "dropped"]
    born = next((noted.seq for noted in made(logins) if noted.login == old), None)
    after = [noted for noted in made(logins) if born is not None and noted.seq > born]
    if len(dropped) != 1 or not after:
        return Finding(holds=False, evidence=f"dropped {len(dropped)}x, {len(after)} logins made later")
    seen = [noted.login for noted in after if old in (noted.others or [])]
    lead_ms = (after[0].at - dropped[0].at) * 1000
    told = f"the next login was made {lead_ms:.0f} ms after, and saw {len(after[0].others or [])} others"
    holds = not seen and dropped[0].seq < after[0].seq and after[0].others == []
    return Finding(holds, told if holds else f"{told}; it was still there for {len(seen)} of {len(after)} later ones")


def all_dropped(logins: Sequence[Noted], roles: Sequence[str], sessions: Sequence[str]) -> Finding:
    """Each login that was ever made was dropped once; none exists, and no session of one."""
    drops = Counter(noted.login for noted in logins if noted.what == "dropped")
    names = [noted.login for noted in made(logins)]
    never = [name for name in names if drops[name] != 1]
    most = max((1 + len(noted.others or []) for noted in made(logins)), default=0)
    told = f"{len(names)} made, {drops.total()} dropped, at most {most} at a time"
    told += f"; now {len(roles)} and {len(sessions)} sessions"
    left = [*never, *roles]
    return Finding(bool(names) and not left and not sessions, f"{told}: {', '.join(left)}" if left else told)


def nothing_in_vault(leftovers: Sequence[str], held: Sequence[str]) -> Finding:
    """No lease and no per-grant token; `held` is what the same look found while a login was out."""
    told = f"0 now; the same look found {len(held)} while the agent held a login"
    return Finding(not leftovers and len(held) > 1, ", ".join(leftovers) or told)


def leases_were_recorded(events: Sequence[Event]) -> Finding:
    """Each grant was an intent, then a recorded lease, then taken back, then confirmed dead; in this order, once."""
    order: dict[str, list[str]] = {}
    for event in events:
        jti = event.part("grant").get("jti")
        if isinstance(jti, str) and event.type in {"grant_issued", "lease_recorded", "grant_revoked"}:
            confirmed = event.part("body").get("confirmed") is True
            order.setdefault(jti, []).append("confirmed" if confirmed else event.type)
    wanted = ["grant_issued", "lease_recorded", "grant_revoked", "confirmed"]
    bad = [f"{jti}: {' '.join(found)}" for jti, found in order.items() if found != wanted]
    told = f"{len(order)} grants, each issued, its lease recorded, revoked, and its death confirmed"
    return Finding(bool(order) and not bad, "; ".join(bad) or told)


def dead_before_next(events: Sequence[Event]) -> Finding:
    """In the entries' own order: when an epoch issues its first grant, every grant of older ones is confirmed dead."""
    alive: dict[str, int] = {}
    bad: list[str] = []
    firsts: set[int] = set()
    for event in events:
        jti, epoch = event.part("grant").get("jti"), event.epoch
        if not isinstance(jti, str) or epoch is None:
            continue
        if event.type == "grant_issued":
            if epoch not in firsts:
                firsts.add(epoch)
                bad += [f"{old} of epoch {by} when epoch {epoch} began" for old, by in alive.items() if by < epoch]
            alive[jti] = epoch
        elif event.type == "grant_revoked" and event.part("body").get("confirmed") is True:
            alive.pop(jti, None)
    return Finding(len(firsts) > 1 and not bad, "; ".join(bad) or f"so in each of {len(firsts)} epochs with grants")


def chosen_by_policy(events: Sequence[Event], wanted: Mapping[str, tuple[str, str]]) -> Finding:
    """Each grant is of the issuer and role that the settings name for its tool."""
    issued = [event for event in events if event.type == "grant_issued"]
    bad = []
    for event in issued:
        tool, body = str(event.part("action").get("tool")), event.part("body")
        params = body.get("params")
        role = params.get("role") if isinstance(params, dict) else None
        issuer = str(event.part("grant").get("issuer"))
        if (issuer, role) != wanted.get(tool):
            bad.append(f"{tool} got {role} of {issuer}")
    told = f"{len(issued)} grants of roles {', '.join(sorted({role for _, role in wanted.values()}))}"
    return Finding(bool(issued) and not bad, "; ".join(bad) or told)


def settled(events: Sequence[Event], step: str, verdict: str, times_granted: int) -> Finding:
    """The step was in doubt once, a look under a login of its own said `verdict`, and it was granted so often."""
    kinds = Counter(event.type for event in events if event.step == step)
    verdicts = [event.part("body") for event in events if event.type == "step_reconciled" and event.step == step]
    looked = {event.step for event in events if event.type == "grant_issued"}
    counted = kinds["step_in_doubt"] == kinds["step_reconciled"] == 1 and kinds["grant_issued"] == times_granted
    told = f"in doubt {kinds['step_in_doubt']}x, granted {kinds['grant_issued']}x, looks: " + ", ".join(
        f"{body.get('verdict')} by {body.get('via')}" for body in verdicts
    )
    holds = counted and verdicts[0].get("verdict") == verdict and verdicts[0].get("via") in looked
    return Finding(holds, told)
