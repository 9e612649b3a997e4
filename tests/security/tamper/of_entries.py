"""Manipulations of entries: their bytes, their chains, the columns beside them, and their places in the tree."""

from __future__ import annotations

from security.tamper.stolen import TENANT, Stolen
from security.tamper.table import Expected, entry, flipped, manipulation
from stepgrant_broker.ledger.findings import Code, chain, leaf, row


@manipulation
def a_bit_of_an_entry_is_flipped(stolen: Stolen) -> Expected:
    run, seq = stolen.victim.run, stolen.seq_of("grant_issued")
    data = stolen.entry(run, seq)
    stolen.put_entry(run, seq, flipped(data, data.index(b"enforce")))
    return [(Code.ENTRY_CHANGED, entry(stolen, seq))]


@manipulation
def the_last_entry_says_something_else(stolen: Stolen) -> Expected:
    run, seq = stolen.victim.run, stolen.seq_of("run_ended")
    data = stolen.entry(run, seq)
    stolen.put_entry(run, seq, data.replace(b'"enforce"', b'"observe"'))
    return [(Code.ROW_DIFFERS, chain(TENANT, run)), (Code.ENTRY_CHANGED, entry(stolen, seq))]


@manipulation
def an_entry_of_the_tenants_own_chain_says_something_else(stolen: Stolen) -> Expected:
    stolen.put_entry(None, 3, stolen.entry(None, 3).replace(b'"enforce"', b'"observe"'))
    return [(Code.ENTRY_CHANGED, entry(stolen, 3, run=None))]


@manipulation
def an_entry_is_changed_and_its_chain_made_whole_again(stolen: Stolen) -> Expected:
    """Hashes, links and the run's head fit; the tree that was signed does not have them."""
    run, first = stolen.victim.run, stolen.seq_of("run_ended") - 2
    stolen.rechain(run, first, lambda one: one.update(salt="A" * 22))
    return [(Code.ENTRY_CHANGED, entry(stolen, seq)) for seq in range(first, first + 3)]


@manipulation
def the_first_entry_is_deleted(stolen: Stolen) -> Expected:
    index = stolen.leaf_of(stolen.victim.run, 0)
    stolen.do("DELETE FROM entries WHERE chain = :run AND seq = 0", run=stolen.victim.run)
    return [(Code.ENTRY_MISSING, entry(stolen, 0)), (Code.LEAF_MISSING, leaf(index))]


@manipulation
def an_entry_in_the_middle_is_deleted(stolen: Stolen) -> Expected:
    index = stolen.leaf_of(stolen.victim.run, 7)
    stolen.do("DELETE FROM entries WHERE chain = :run AND seq = 7", run=stolen.victim.run)
    return [(Code.ENTRY_MISSING, entry(stolen, 7)), (Code.LEAF_MISSING, leaf(index))]


@manipulation
def the_last_entry_is_deleted(stolen: Stolen) -> Expected:
    run, seq = stolen.victim.run, stolen.seq_of("run_ended")
    index = stolen.leaf_of(run, seq)
    stolen.do("DELETE FROM entries WHERE chain = :run AND seq = :seq", run=run, seq=seq)
    return [(Code.ROW_DIFFERS, chain(TENANT, run)), (Code.LEAF_MISSING, leaf(index))]


@manipulation
def a_run_is_deleted_with_all_that_is_of_it(stolen: Stolen) -> Expected:
    run = stolen.victim.long_run
    first, last = stolen.look("SELECT min(leaf_index), max(leaf_index) FROM entries WHERE chain = :run", run=run)[0]
    for table, column in (
        ("approvals", "run"), ("grants", "run"), ("steps", "run"), ("run_epochs", "run"), ("payloads", "chain"),
        ("chain_keys", "run"), ("entries", "chain"), ("runs", "id"),
    ):  # fmt: skip
        stolen.do(f"DELETE FROM {table} WHERE {column} = :run", run=run)  # noqa: S608 - our own tables
    assert last - first == 200
    marks = [size for size in sorted(stolen.victim.heads) if first < size]
    return [(Code.LEAF_MISSING, leaf(start)) for start in [first, *marks[:-1]]]


@manipulation
def two_entries_change_places(stolen: Stolen) -> Expected:
    for old, new in ((5, 999), (6, 5), (999, 6)):
        stolen.do("UPDATE entries SET seq = :n WHERE chain = :run AND seq = :o", n=new, o=old, run=stolen.victim.run)
    return [
        (Code.ENTRY_CHANGED, entry(stolen, 5)), (Code.ENTRY_DIFFERS, entry(stolen, 6)),
    ]  # fmt: skip


@manipulation
def an_entry_stands_twice_in_its_chain(stolen: Stolen) -> Expected:
    run = stolen.victim.run
    end = stolen.seq_of("run_ended") + 1
    stolen.do(
        "INSERT INTO entries SELECT tenant, chain, :end, type, step, ts, hash, data, NULL FROM entries"
        " WHERE chain = :run AND seq = :last",
        end=end, last=end - 1, run=run,
    )  # fmt: skip
    return [(Code.ENTRY_CHANGED, entry(stolen, end))]


@manipulation
def a_chain_is_planted_without_a_run(stolen: Stolen) -> Expected:
    stolen.do(
        "INSERT INTO entries SELECT tenant, 'run_evil', seq, type, step, ts, hash, data, NULL FROM entries"
        " WHERE chain = :run AND seq = 0", run=stolen.victim.run,
    )  # fmt: skip
    return [
        (Code.ROW_ORPHAN, row("entries", tenant=TENANT, chain="run_evil")),
        (Code.ENTRY_DIFFERS, entry(stolen, 0, run="run_evil")),
    ]


@manipulation
def an_entry_is_of_a_tenant_that_does_not_exist(stolen: Stolen) -> Expected:
    stolen.do("UPDATE entries SET tenant = 'evil' WHERE chain = :run AND seq = 0", run=stolen.victim.run)
    run = stolen.victim.run
    return [
        (Code.ENTRY_MISSING, entry(stolen, 0)),
        (Code.ROW_ORPHAN, row("entries", tenant="evil")),
        (Code.ROW_ORPHAN, row("entries", tenant="evil", chain=run)),
        (Code.ENTRY_DIFFERS, row("entries", tenant="evil", chain=run, seq=0)),
    ]


def _rewritten(stolen: Stolen, old: bytes, new: bytes) -> Expected:
    """Other bytes that mean the same to a lenient reader."""
    run, seq = stolen.victim.run, stolen.seq_of("grant_redeemed")
    data = stolen.entry(run, seq)
    assert old in data
    stolen.put_entry(run, seq, data.replace(old, new, 1))
    return [(Code.ENTRY_UNREADABLE, entry(stolen, seq))]


@manipulation
def a_member_stands_twice_in_an_entry(stolen: Stolen) -> Expected:
    return _rewritten(stolen, b'"mode":"enforce"', b'"mode":"enforce","mode":"enforce"')


@manipulation
def a_whole_number_is_written_as_a_fraction(stolen: Stolen) -> Expected:
    return _rewritten(stolen, b'"attempt":1', b'"attempt":1.0')


@manipulation
def a_letter_is_written_as_its_escape(stolen: Stolen) -> Expected:
    return _rewritten(stolen, b'"mode":"enforce"', b'"mode":"\\u0065nforce"')


@manipulation
def a_space_stands_where_none_was(stolen: Stolen) -> Expected:
    return _rewritten(stolen, b'"mode":"enforce"', b'"mode": "enforce"')


@manipulation
def an_entry_is_no_json_at_all(stolen: Stolen) -> Expected:
    stolen.put_entry(stolen.victim.run, 4, b"\xff\x00")
    return [(Code.ENTRY_UNREADABLE, entry(stolen, 4))]


@manipulation
def a_letter_becomes_another_that_looks_like_it(stolen: Stolen) -> Expected:
    """Valid, canonical JSON; only its hash tells."""
    run, seq = stolen.victim.run, stolen.seq_of("grant_redeemed")
    data = stolen.entry(run, seq)
    stolen.put_entry(run, seq, data.replace(b'"enforce"', '"еnforce"'.encode()))  # noqa: RUF001 - a Cyrillic e
    return [(Code.ENTRY_CHANGED, entry(stolen, seq))]


@manipulation
def the_type_beside_an_entry_is_another(stolen: Stolen) -> Expected:
    stolen.do("UPDATE entries SET type = 'run_erased' WHERE chain = :run AND seq = 5", run=stolen.victim.run)
    return [(Code.ENTRY_DIFFERS, entry(stolen, 5))]


@manipulation
def the_step_and_time_beside_an_entry_are_others(stolen: Stolen) -> Expected:
    stolen.do("UPDATE entries SET step = 's9', ts = 1 WHERE chain = :run AND seq = 9", run=stolen.victim.run)
    return [(Code.ENTRY_DIFFERS, entry(stolen, 9))]


@manipulation
def the_hash_beside_an_entry_is_another(stolen: Stolen) -> Expected:
    """It would become the leaf if the tree were built anew."""
    stolen.do("UPDATE entries SET hash = :h WHERE chain = :run AND seq = 6", h=b"\x01" * 32, run=stolen.victim.run)
    return [(Code.ENTRY_DIFFERS, entry(stolen, 6))]


@manipulation
def an_entry_loses_its_place_in_the_tree(stolen: Stolen) -> Expected:
    """The sequencer would give it another one: the same entry would stand twice in the log."""
    index = stolen.leaf_of(stolen.victim.run, 8)
    stolen.do("UPDATE entries SET leaf_index = NULL WHERE chain = :run AND seq = 8", run=stolen.victim.run)
    return [(Code.LEAF_ORDER, entry(stolen, 9)), (Code.LEAF_MISSING, leaf(index))]


@manipulation
def an_entry_claims_a_place_beyond_the_tree(stolen: Stolen) -> Expected:
    run = stolen.victim.run
    index = stolen.leaf_of(run, 8)
    stolen.do("UPDATE entries SET leaf_index = 1000000 WHERE chain = :run AND seq = 8", run=run)
    return [
        (Code.LEAF_ORDER, entry(stolen, 9)), (Code.LEAF_MISSING, leaf(index)), (Code.LEAF_OUTSIDE, entry(stolen, 8)),
    ]  # fmt: skip


@manipulation
def two_entries_exchange_their_places_in_the_tree(stolen: Stolen) -> Expected:
    run = stolen.victim.run
    places = {seq: stolen.leaf_of(run, seq) for seq in (10, 11)}
    for seq, index in ((10, -1), (11, places[10]), (10, places[11])):
        stolen.do("UPDATE entries SET leaf_index = :i WHERE chain = :run AND seq = :seq", i=index, run=run, seq=seq)
    return [(Code.LEAF_ORDER, entry(stolen, 11)), (Code.ENTRY_CHANGED, entry(stolen, 10))]


@manipulation
def two_entries_claim_one_place_in_the_tree(stolen: Stolen) -> Expected:
    run = stolen.victim.run
    taken, left = stolen.leaf_of(run, 12), stolen.leaf_of(run, 13)
    stolen.do("DROP INDEX ix_entries_leaf")
    stolen.do("UPDATE entries SET leaf_index = :i WHERE chain = :run AND seq = 13", i=taken, run=run)
    return [
        (Code.LEAF_ORDER, entry(stolen, 13)), (Code.LEAF_MISSING, leaf(left)),
    ]  # fmt: skip
