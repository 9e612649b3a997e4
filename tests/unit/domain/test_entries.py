"""Entries, commitments, identifiers."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.world import World, call
from stepgrant import canonical
from stepgrant_broker.domain import aad
from stepgrant_broker.domain.commitments import ChainSecret, Committer, opening
from stepgrant_broker.domain.entries import ALWAYS, GENESIS, EntryMalformed, EntryType, Head, check_members, seal
from stepgrant_broker.domain.ids import CROCKFORD, STEP_KEY, default_idempotency_key, parent_of, safe_step_key, ulid
from stepgrant_broker.domain.journal import MODE, Journal


def draft(**change: object) -> dict[str, object]:
    fields: dict[str, object] = dict.fromkeys(ALWAYS - {"v", "tenant", "run", "seq", "ts", "prev", "salt"})
    return {**fields, "type": "run_parked", "mode": MODE, "body": {"reason": "x"}, **change}


def test_every_type_has_a_closed_body() -> None:
    from stepgrant_broker.domain.entries import BODY  # noqa: PLC0415 - beside its one use

    assert set(BODY) == set(EntryType)


@pytest.mark.parametrize(
    "change",
    [{"body": {}}, {"body": {"reason": "x", "more": 1}}, {"extra": 1}, {"body": {"detail_c": "x"}}],
)
def test_a_malformed_draft_is_never_sealed(change: dict[str, object]) -> None:
    with pytest.raises(EntryMalformed):
        seal(Head("t", "r", 0, GENESIS, 0), [draft(**change)], [b"s" * 16], 1)


def test_a_malformed_draft_is_refused_also_behind_a_good_one_of_its_type() -> None:
    with pytest.raises(EntryMalformed):
        seal(Head("t", "r", 0, GENESIS, 0), [draft(), draft(body={"detail_c": "x"})], [b"s" * 16] * 2, 1)
    members = {name: value for name, value in draft().items() if name != "agent"}
    for change in ({"agent": None, "type": "run_ended"}, {}, {"reason": "x"}):
        with pytest.raises(EntryMalformed):
            seal(Head("t", "r", 0, GENESIS, 0), [draft(), {**members, **change}], [b"s" * 16] * 2, 1)


def test_a_draft_without_a_member_is_refused() -> None:
    with pytest.raises(EntryMalformed):
        check_members({"type": "run_parked"})


def test_the_chain_is_by_hash_and_time_never_falls() -> None:
    entries, head = seal(Head("t", "r", 3, "p", 50), [draft(), draft()], [b"a" * 16, b"b" * 16], 7)
    first, second = entries
    assert (first.seq, second.seq, head.seq) == (3, 4, 5)
    assert (first.ts, second.ts, head.last_ts) == (50, 50, 50)
    assert first.fields["prev"] == "p"
    assert second.fields["prev"] == canonical.b64u(hashlib.sha256(first.data).digest())
    assert head.prev == canonical.b64u(second.hash)
    assert canonical.dumps(canonical.loads(first.data)) == first.data


def test_the_first_entry_follows_thirty_two_zero_bytes() -> None:
    assert canonical.b64u_decode(GENESIS) == bytes(32)


@pytest.mark.parametrize("size", [0, 1, 32, 63, 64, 65, 200])
def test_an_opening_is_the_hmac_of_field_and_value(size: int) -> None:
    key = b"k" * size
    assert ChainSecret(key).opening("field", b"value") == hmac.digest(key, b"field\x00value", "sha256")


def test_what_was_asked_for_before_is_told_again_and_never_for_another_field_or_value() -> None:
    one = Committer(b"k" * 32)
    asked = [("f", "a"), ("f", "a"), ("g", "a"), ("f", "b"), ("f", "a"), ("", ""), ("", None)]
    assert [one.peek(*ask) for ask in asked] == [Committer(b"k" * 32).peek(*ask) for ask in asked]


def test_a_commitment_is_the_protocols_formula() -> None:
    key, value = b"k" * 32, b'"secret"'
    r = hmac.digest(key, b"action.resource\x00" + value, "sha256")
    assert opening(key, "action.resource", value) == r
    assert Committer(key).value("action.resource", "secret") == canonical.b64u(hmac.digest(r, value, "sha256"))


def test_commitments_keep_what_they_hide_and_digests_their_preimage() -> None:
    committer = Committer(b"k" * 32)
    c = committer.value("f", {"b": 1, "a": 2})
    d = committer.digest("f", b"text")
    assert committer.payloads[c].body == b'{"a":2,"b":1}'
    assert committer.payloads[c].value() == b'{"a":2,"b":1}'
    assert committer.payloads[d].value() == canonical.dumps(canonical.digest_bytes(b"text"))
    assert committer.peek("f", canonical.digest_bytes(b"text")) == d
    assert committer.maybe("f", None) is None
    assert "text" not in repr(committer)


@given(st.text(), st.text())
def test_field_value_and_key_all_matter(name: str, value: str) -> None:
    name, value = name.encode("ascii", "ignore").decode(), value.encode("utf-8", "ignore").decode()
    one = Committer(b"k" * 32)
    assert one.peek(name, value) == one.peek(name, value)
    assert one.peek(name, value) != Committer(b"j" * 32).peek(name, value)
    assert one.peek(name + "x", value) != one.peek(name, value)
    assert one.peek(name, value + "x") != one.peek(name, value)


def test_step_keys_and_parents() -> None:
    assert safe_step_key("a.b~c") == "a.b~c"
    assert STEP_KEY.fullmatch(safe_step_key("a b/ü\ud800"))
    assert safe_step_key("a b") != safe_step_key("a  b")
    assert [parent_of(key) for key in ("a", "a~b", "a~b~c", "~resume")] == [None, "a", "a~b", None]


@pytest.mark.parametrize("now", [0, 1, 1023, 1 << 20, 1_700_000_000_000, (1 << 48) - 1, 1 << 48])
@pytest.mark.parametrize("entropy", [bytes(10), b"\xff" * 10, b"0123456789", b"0123456789and more"])
def test_a_ulid_is_time_and_randomness_in_crockfords_base32(now: int, entropy: bytes) -> None:
    value = (now & ((1 << 48) - 1)) << 80 | int.from_bytes(entropy[:10], "big")
    assert ulid(now, entropy) == "".join(CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))


def test_a_ulid_sorts_by_time_and_idempotency_keys_differ_by_step() -> None:
    early, late = ulid(1, b"\xff" * 10), ulid(2, b"\x00" * 10)
    assert (len(early), early < late) == (26, True)
    assert default_idempotency_key("r", "a") != default_idempotency_key("r", "b")


def test_wrapped_values_are_bound_to_their_place() -> None:
    assert len({aad.chain_key("a", "b"), aad.chain_key("a\x00b", ""), aad.static_secret("a", "b")}) == 3


def test_a_journal_without_a_run_says_so() -> None:
    world = World()
    with pytest.raises(LookupError):
        _ = Journal(
            view=world.view, head=Head("t", None, 0, GENESIS, 0), now=1, by=world.journal().by,
            committer=Committer(b"k"), random=world.salt,
        ).run  # fmt: skip


def test_changed_rows_are_only_those_that_changed() -> None:
    world = World()
    world.open()
    world.begin(call("a"))
    journal = world.journal()
    assert journal.changed() == ()
