"""The real demo's checks, fed the evidence of broken promises: each of them has to say so. And the gate, by itself."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from stepgrant.receipt import Event
from stepgrant_demo_real import looks
from stepgrant_demo_real.gate import Gate, listen
from stepgrant_demo_real.leaks import shapes_in
from stepgrant_demo_real.refusing import ENDED, NOT_LET_IN, refusal
from stepgrant_demo_real.witness import Noted, Write


def made(seq: int, login: str, role: str = "app_create", others: Sequence[str] = ()) -> Noted:
    return Noted(seq, float(seq), "made", login, role, list(others), None)


def dropped(seq: int, login: str, sessions: int = 0) -> Noted:
    return Noted(seq, float(seq), "dropped", login, None, None, sessions)


GONE = [made(1, "v-old"), dropped(2, "v-old"), made(3, "v-new"), dropped(4, "v-new")]


@pytest.mark.parametrize(
    "book",
    [
        [made(1, "v-old"), made(2, "v-new", others=["v-old"]), dropped(3, "v-old")],
        [made(1, "v-old"), made(2, "v-new"), dropped(3, "v-old")],
        [made(1, "v-old"), dropped(2, "v-old"), made(3, "v-new", others=["v-old"])],
        [made(1, "v-old"), dropped(2, "v-old"), made(3, "v-new", others=["v-third"])],
        [made(1, "v-old"), made(2, "v-new")],
        [made(1, "v-old"), dropped(2, "v-old")],
        [*GONE, dropped(5, "v-old")],
        [*GONE, made(5, "v-newest", others=["v-old"])],
        [],
    ],
)
def test_a_login_that_outlived_its_successors_birth_is_found(book: list[Noted]) -> None:
    assert looks.gone_before(GONE, "v-old").holds
    assert not looks.gone_before(book, "v-old").holds


@pytest.mark.parametrize(
    ("book", "roles", "sessions"),
    [
        (GONE, ["v-old"], []),
        (GONE, [], ["idle"]),
        (GONE[:3], [], []),
        ([*GONE, dropped(5, "v-new")], [], []),
        ([], [], []),
    ],
)
def test_a_login_or_session_that_is_left_is_found(book: list[Noted], roles: list[str], sessions: list[str]) -> None:
    assert looks.all_dropped(GONE, [], []).holds
    found = looks.all_dropped(book, roles, sessions)
    assert not found.holds
    assert all(role in found.evidence for role in roles)


ALL = [Write("v-1", what, "acme") for what, (_, times) in looks.WORK.items() for _ in range(times)]


@pytest.mark.parametrize(
    "writes", [ALL[1:], [*ALL, ALL[0]], [*ALL, Write("v-1", "insert accounts", "another")], [], ALL[:1] * len(ALL)]
)
def test_work_that_is_missing_or_there_twice_is_found(writes: list[Write]) -> None:
    assert looks.done_once(ALL, "acme").holds
    assert not looks.done_once(writes, "acme").holds


def test_a_write_by_a_login_of_another_role_is_found() -> None:
    logins = [made(n, role, role) for n, role in enumerate(("app_create", "app_room", "app_defaults", "app_activate"))]
    writes = [Write(looks.WORK[write.what][0], write.what, "acme") for write in ALL]
    assert looks.each_by_its_own(writes, logins).holds
    assert not looks.each_by_its_own([replace(writes[0], login="app_room"), *writes[1:]], logins).holds
    assert not looks.each_by_its_own([replace(writes[0], login="postgres"), *writes[1:]], logins).holds
    assert not looks.each_by_its_own([], logins).holds


def test_what_is_left_in_vault_is_found_and_a_blind_look_too() -> None:
    assert looks.nothing_in_vault([], ["lease x", "token y"]).holds
    assert not looks.nothing_in_vault(["lease z"], ["lease x", "token y"]).holds
    assert not looks.nothing_in_vault([], []).holds


def event(seq: int, kind: str, *, epoch: int = 1, step: str = "create", **fields: Any) -> Event:  # noqa: ANN401
    return Event(
        seq=seq, ts=seq, type=kind, step=step, attempt=1, epoch=epoch, hash=str(seq), fields=fields, disclosed={}
    )


def grant(jti: str, seq: int, *, epoch: int = 1, role: str = "app_create") -> list[Event]:
    """The entries of one grant from its intent to its confirmed death."""
    named: dict[str, Any] = {"grant": {"jti": jti, "issuer": "app-db"}, "action": {"tool": "account.create"}}
    bodies: tuple[dict[str, Any], ...] = ({"params": {"role": role}}, {}, {"confirmed": False}, {"confirmed": True})
    kinds = ("grant_issued", "lease_recorded", "grant_revoked", "grant_revoked")
    both = enumerate(zip(kinds, bodies, strict=True))
    return [event(seq + n, kind, epoch=epoch, body=body, **named) for n, (kind, body) in both]


def test_a_lease_that_was_not_recorded_or_a_death_not_confirmed_is_found() -> None:
    one = grant("grn_1", 1)
    assert looks.leases_were_recorded(one).holds
    for wrong in (one[:3], [one[0], *one[2:]], [one[1], one[0], *one[2:]], [*one, one[3]], []):
        assert not looks.leases_were_recorded(wrong).holds


def test_a_grant_that_lives_when_the_next_epoch_has_one_is_found() -> None:
    old, new = grant("grn_1", 1), grant("grn_2", 11, epoch=2)
    assert looks.dead_before_next([*old, *new]).holds
    found = looks.dead_before_next([*old[:3], new[0], old[3], *new[1:]])
    assert not found.holds
    assert "grn_1 of epoch 1 when epoch 2 began" in found.evidence
    assert not looks.dead_before_next(old).holds


def test_a_role_or_issuer_that_policy_did_not_choose_is_found() -> None:
    wanted = {"account.create": ("app-db", "app_create")}
    assert looks.chosen_by_policy(grant("grn_1", 1), wanted).holds
    assert not looks.chosen_by_policy(grant("grn_1", 1, role="app_look"), wanted).holds
    assert not looks.chosen_by_policy(grant("grn_1", 1), {"account.create": ("other", "app_create")}).holds
    assert not looks.chosen_by_policy([], wanted).holds


def test_a_doubt_that_was_settled_otherwise_is_found() -> None:
    looked = event(2, "grant_issued", step="create~reconcile~1")
    verdict = {"verdict": "done", "via": "create~reconcile~1"}
    whole = [event(0, "grant_issued"), event(1, "step_in_doubt"), looked, event(3, "step_reconciled", body=verdict)]
    assert looks.settled(whole, "create", "done", 1).holds
    assert not looks.settled(whole, "create", "not_done", 1).holds
    assert not looks.settled(whole, "create", "done", 2).holds
    assert not looks.settled([*whole[:2], whole[3]], "create", "done", 1).holds
    assert not looks.settled(whole[:3], "create", "done", 1).holds


def test_a_password_or_token_is_recognised_by_its_shape() -> None:
    password = b"abc~~~~23defghijkmnpq~~~~rstuvwxyz2345678"
    assert shapes_in(b"password=" + password + b" ") == ["a password of a login"]
    assert shapes_in(b"hvs.CAESIJ0123456789abcdefghij") == ["a token of Vault"]
    assert shapes_in(password.replace(b"~", b"x") + b"hvs.short") == []


def test_what_postgresql_says_is_told_without_names() -> None:
    text = 'connection to server at "127.0.0.1" failed: FATAL:  password authentication failed for user "v-1"'
    assert refusal(psycopg.OperationalError(text)) == NOT_LET_IN
    assert refusal(psycopg.OperationalError("server closed the connection unexpectedly")) == ENDED
    assert refusal(psycopg.errors.InsufficientPrivilege("no")) == "42501"


# ------------------------------------------------------------------------------------------------------------ the gate


def echo(listening: socket.socket) -> bytes:
    """Take one connection and what comes first over it."""
    listening.settimeout(60)
    taken, _ = listening.accept()
    with taken:
        taken.settimeout(60)
        return taken.recv(100)


def test_a_gate_goes_to_the_next_backend_and_past_a_dead_one() -> None:
    with listen() as first, listen() as second, listen() as dead:
        ports = [one.getsockname()[1] for one in (first, dead, second)]
        dead.close()
        with Gate("test", listen(), ports) as gate:
            for backend, said in ((first, b"one"), (second, b"two")):
                with socket.create_connection(("127.0.0.1", gate.port), timeout=60) as client:
                    client.sendall(said)
                    assert echo(backend) == said


def test_what_the_dead_had_sent_into_a_held_gate_never_arrives() -> None:
    with listen() as backend, Gate("test", listen(), [backend.getsockname()[1]]) as gate:
        gate.hold()
        with socket.create_connection(("127.0.0.1", gate.port), timeout=60) as killed:
            killed.sendall(b"of the dead")
        alive = socket.create_connection(("127.0.0.1", gate.port), timeout=60)
        alive.sendall(b"of the living")
        backend.settimeout(0.3)
        with pytest.raises(TimeoutError):
            backend.accept()
        gate.let_through()
        assert echo(backend) == b"of the living"
        alive.close()
