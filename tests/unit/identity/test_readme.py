"""The trust file that broker/README.md shows is one, and says what the page says."""

from __future__ import annotations

import re
from pathlib import Path

from stepgrant_broker.identity.trust_file import read
from stepgrant_broker.wiring.identity import METHODS

PAGE = (Path(__file__).parents[3] / "broker" / "README.md").read_text(encoding="utf-8")


def test_the_trust_file_of_the_page_is_right(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    file = tmp_path / "trust.toml"
    file.write_text(block, encoding="utf-8")
    trust = read(file, METHODS, own_url="https://broker.example")

    assert [(issuer.name, issuer.method, issuer.tenant) for issuer in trust.issuers] == [
        ("ci", "oidc", "default"), ("cluster", "kubernetes", "default"), ("mesh", "spiffe-jwt", "default"),
    ]  # fmt: skip
    assert {rule.workload: (*rule.agents, *rule.audiences) for rule in trust.rules} == {
        "release-bot": ("release",), "refunds": ("refunds", "refunds-retry"), "shop": ("https://shop.example",),
    }  # fmt: skip


def test_the_page_knows_every_method() -> None:
    assert all(f"`{method}`" in PAGE for method in ["enrolled_key", *METHODS])
