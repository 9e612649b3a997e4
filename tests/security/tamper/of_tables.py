"""Manipulations of tables and stored values, and of the files beside the database."""

from __future__ import annotations

from collections.abc import Callable

from security.tamper.stolen import TENANT, Stolen
from security.tamper.table import Expected, flipped, manipulation
from security.tamper.victim import STEPS, signing_key
from stepgrant_broker.ledger.findings import Code, Place, chain, head, row
from stepgrant_broker.signing.local import LocalSigner
from stepgrant_broker.signing.wrap import LocalWrap

Where = Callable[[Stolen], Place]


def _of(table: str, key: str, select: str, *, run: bool = False) -> Where:
    """The row that a query names."""

    def place(stolen: Stolen) -> Place:
        return row(table, tenant=TENANT, **({"run": stolen.victim.run} if run else {}), **{key: stolen.one(select)})

    return place


def _by_sql(name: str, where: Where, code: Code, *statements: str) -> None:
    """A row of the table that is one statement or a few."""

    def act(stolen: Stolen) -> Expected:
        place = where(stolen)
        assert sum(stolen.do(sql, **({"run": stolen.victim.run} if ":run" in sql else {})) for sql in statements) >= 1
        return [(code, place)]

    act.__name__ = name
    manipulation(act)


REVOKED = "SELECT min(jti) FROM grants WHERE status = 'revoked'"
APPROVAL = "SELECT min(id) FROM approvals"
WORKLOAD = "SELECT min(id) FROM workloads WHERE removed_at IS NULL"
PERSON = "SELECT min(id) FROM operators WHERE removed_at IS NULL"
STEP = "SELECT 's5' FROM log"

_by_sql("a_grant_is_not_revoked_any_more", _of("grants", "jti", REVOKED, run=True), Code.ROW_DIFFERS,
        "UPDATE grants SET status = 'issued'"
        " WHERE jti = (SELECT min(jti) FROM grants WHERE status = 'revoked')")  # fmt: skip
_by_sql("a_grant_was_never_redeemed", _of("grants", "jti", "SELECT min(jti) FROM grants", run=True), Code.ROW_DIFFERS,
        "UPDATE grants SET redeemed_at = NULL WHERE jti = (SELECT min(jti) FROM grants)")  # fmt: skip
_by_sql("a_step_was_not_completed", _of("steps", "key", "SELECT 's1' FROM log", run=True), Code.ROW_DIFFERS,
        "UPDATE steps SET state = 'prepared', done = 0 WHERE key = 's1' AND run = :run")  # fmt: skip
_by_sql("a_step_is_gone", _of("steps", "key", STEP, run=True), Code.ROW_MISSING,
        "DELETE FROM steps WHERE key = 's5' AND run = :run")  # fmt: skip
_by_sql("a_step_is_hidden_from_those_that_are_not_done", _of("steps", "key", "SELECT 's2' FROM log", run=True),
        Code.ROW_DIFFERS, "UPDATE steps SET done = 1 WHERE key = 's2' AND run = :run")  # fmt: skip
_by_sql("a_living_credential_is_hidden_from_the_sweeper", _of("grants", "jti", REVOKED, run=True), Code.ROW_DIFFERS,
        "UPDATE grants SET live_until = 5"
        " WHERE jti = (SELECT min(jti) FROM grants WHERE status = 'revoked')")  # fmt: skip
_by_sql("an_approval_was_given", _of("approvals", "id", APPROVAL, run=True), Code.ROW_DIFFERS,
        "UPDATE approvals SET quorum = 0")  # fmt: skip
_by_sql("an_epoch_was_held_by_another_key", lambda stolen: row(
            "run_epochs", tenant=TENANT, run=stolen.victim.run, epoch=2), Code.ROW_DIFFERS,
        "UPDATE run_epochs SET jkt = 'stolen' WHERE epoch = 2")  # fmt: skip
_by_sql("a_workload_gets_the_thiefs_key", _of("workloads", "id", WORKLOAD), Code.ROW_DIFFERS,
        "UPDATE workloads SET jkt = 'stolen' WHERE removed_at IS NULL")  # fmt: skip
_by_sql("a_person_gets_a_role", _of("operators", "id", PERSON), Code.ROW_DIFFERS,
        "UPDATE operators SET roles = '[\"approver\"]' WHERE removed_at IS NULL")  # fmt: skip
_by_sql("a_kill_switch_is_gone", lambda _: row("quarantines", tenant=TENANT, kind="agent", name="other-agent"),
        Code.ROW_MISSING, "DELETE FROM quarantines WHERE kind = 'agent'")  # fmt: skip
_by_sql("another_policy_is_active", lambda _: chain(TENANT, None), Code.ROW_DIFFERS,
        "UPDATE tenants SET policy_revision = '9:x'")  # fmt: skip
_by_sql("a_policy_text_is_another", _of("policies", "revision", "SELECT revision FROM policies"), Code.ROW_DIFFERS,
        "UPDATE policies SET counter = 7")  # fmt: skip
_by_sql("a_secret_may_go_to_the_thief", lambda _: row("secrets", tenant=TENANT, name="crm"), Code.ROW_DIFFERS,
        "UPDATE secrets SET hosts = '[\"evil.example\"]' WHERE name = 'crm'")  # fmt: skip
_by_sql("a_run_has_ended_otherwise", lambda stolen: chain(TENANT, stolen.victim.run), Code.ROW_DIFFERS,
        "UPDATE runs SET state = 'failed' WHERE id = :run")  # fmt: skip


@manipulation
def a_grant_is_planted_in_a_run_that_does_not_exist(stolen: Stolen) -> Expected:
    jti = stolen.one("SELECT min(jti) FROM grants")
    stolen.do("UPDATE grants SET run = 'run_evil' WHERE jti = :jti", jti=jti)
    return [
        (Code.ROW_MISSING, row("grants", tenant=TENANT, run=stolen.victim.run, jti=jti)),
        (Code.ROW_ORPHAN, row("grants", tenant=TENANT, run="run_evil")),
    ]


def _value(stolen: Stolen) -> str:
    sql = "SELECT min(c) FROM payloads WHERE chain = :run AND field = 'outcome.result'"
    return str(stolen.one(sql, run=stolen.victim.run))


@manipulation
def a_result_is_another(stolen: Stolen) -> Expected:
    c = _value(stolen)
    body = stolen.one("SELECT body FROM payloads WHERE c = :c", c=c)
    stolen.do("UPDATE payloads SET body = :body WHERE c = :c", body=flipped(body), c=c)
    return [(Code.PAYLOAD_CHANGED, row("payloads", tenant=TENANT, chain=stolen.victim.run, c=c))]


@manipulation
def a_result_is_put_there_in_clear(stolen: Stolen) -> Expected:
    c = _value(stolen)
    stolen.do("UPDATE payloads SET body = :body, key_id = NULL, nonce = NULL WHERE c = :c", body=b'"forged"', c=c)
    return [(Code.PAYLOAD_CHANGED, row("payloads", tenant=TENANT, chain=stolen.victim.run, c=c))]


def _deleted(name: str, field: str, *, run: bool = True) -> None:
    """A value is gone, as if it had never been kept: of a run, or of the tenant's own chain."""

    def act(stolen: Stolen) -> Expected:
        chain_of = stolen.victim.run if run else ""
        c = stolen.one(
            "SELECT min(c) FROM payloads WHERE chain = :chain AND field = :field", chain=chain_of, field=field
        )
        assert stolen.do("DELETE FROM payloads WHERE chain = :chain AND c = :c", chain=chain_of, c=c) == 1
        return [(Code.PAYLOAD_MISSING, row("payloads", tenant=TENANT, chain=chain_of, c=c))]

    act.__name__ = name
    manipulation(act)


_deleted("a_result_is_deleted", "outcome.result")
_deleted("what_a_decision_was_made_on_is_deleted", "decision.input")
_deleted("what_a_person_approved_is_deleted", "approval.binding")
_deleted("who_held_the_run_is_deleted", "by.subject")
_deleted("a_persons_name_is_deleted", "operator.name", run=False)


@manipulation
def a_value_stands_under_another_name(stolen: Stolen) -> Expected:
    c = _value(stolen)
    stolen.do("UPDATE payloads SET c = 'another' WHERE c = :c", c=c)
    return [(Code.PAYLOAD_MISSING, row("payloads", tenant=TENANT, chain=stolen.victim.run, c=c))]


@manipulation
def a_value_stands_in_another_run(stolen: Stolen) -> Expected:
    c = _value(stolen)
    stolen.do("UPDATE payloads SET chain = :other WHERE c = :c", c=c, other=stolen.victim.long_run)
    return [(Code.PAYLOAD_MISSING, row("payloads", tenant=TENANT, chain=stolen.victim.run, c=c))]


@manipulation
def all_values_of_a_run_are_deleted_as_if_it_had_been_erased(stolen: Stolen) -> Expected:
    """Which no entry says."""
    run = stolen.victim.long_run
    sql = "SELECT c FROM payloads WHERE chain = :run AND expires_at IS NULL"
    gone = [c for (c,) in stolen.look(sql, run=run)]
    assert len(gone) > STEPS
    stolen.do("DELETE FROM payloads WHERE chain = :run", run=run)
    return [(Code.PAYLOAD_MISSING, row("payloads", tenant=TENANT, chain=run, c=c)) for c in gone]


@manipulation
def a_runs_key_is_deleted(stolen: Stolen) -> Expected:
    """As if it had been erased, which no entry says."""
    stolen.do("DELETE FROM chain_keys WHERE run = :run", run=stolen.victim.run)
    return [(Code.KEY_MISSING, row("chain_keys", tenant=TENANT, run=stolen.victim.run))]


@manipulation
def a_run_gets_the_key_of_another(stolen: Stolen) -> Expected:
    nonce, text = stolen.look("SELECT nonce, ciphertext FROM chain_keys WHERE run = :r", r=stolen.victim.long_run)[0]
    sql = "UPDATE chain_keys SET nonce = :nonce, ciphertext = :text WHERE run = :run"
    stolen.do(sql, nonce=nonce, text=text, run=stolen.victim.run)
    return [(Code.KEY_UNUSABLE, row("chain_keys", tenant=TENANT, run=stolen.victim.run))]


@manipulation
def the_key_that_signs_heads_is_another(stolen: Stolen) -> Expected:
    """With a key of his own in the folder, the thief could sign any log; what was signed before is not his."""
    before = signing_key(stolen.folder)
    kid = stolen.one("SELECT kid FROM signing_keys WHERE purpose = 'heads'")
    for path in (stolen.folder / "keys").glob("heads-*.jwk"):
        path.unlink()
    LocalSigner.open(stolen.folder / "keys", create=True)
    assert signing_key(stolen.folder) != before
    unknown = (Code.ROW_ORPHAN, row("signing_keys", purpose="heads", kid=kid))
    return [unknown, *((Code.HEAD_UNSIGNED, head(size)) for size in stolen.victim.heads)]


@manipulation
def the_key_that_wraps_keys_is_another(stolen: Stolen) -> Expected:
    for path in (stolen.folder / "keys").glob("wrap*"):
        path.unlink()
    LocalWrap.open(stolen.folder / "keys", create=True)
    chains = [run for (run,) in stolen.look("SELECT run FROM chain_keys")]
    assert len(chains) == 3
    return [(Code.KEY_UNUSABLE, row("chain_keys", tenant=TENANT, run=run)) for run in chains]
