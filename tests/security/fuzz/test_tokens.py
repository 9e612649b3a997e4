"""50,000 structured mutants of tokens and proofs at the verifier and at the broker: none accepted, no foreign error."""

from __future__ import annotations

import pytest

from security.fuzz import tokens

SIZE = 50_000


@pytest.mark.timeout(600)
def test_no_mutant_gets_in_and_each_is_refused_by_name() -> None:
    result = tokens.slice(0, SIZE)

    assert not result.violations
    assert sum(n for name, n in result.counts.items() if name.endswith(("mutants", "true"))) == SIZE
    for door in ("grant", "proof at a server", "access token", "proof at the broker"):
        assert result.counts[f"{door}: true"] == SIZE // 4 // tokens.TRUE_EVERY
