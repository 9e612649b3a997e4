"""Which engine decides: what is missing for OPA is said at the start."""

from __future__ import annotations

import sys

import pytest

from stepgrant_broker.config import SettingsError, explicit_settings
from stepgrant_broker.policy.embedded import EmbeddedEngine
from stepgrant_broker.wiring.policy_engines import engines_of


def test_the_embedded_engine_is_the_default() -> None:
    assert isinstance(engines_of(explicit_settings(), lambda: "dec_1")(), EmbeddedEngine)


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("stepgrant_broker.policy.opa")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opa_client", None)
    settings = explicit_settings(policy_engine="opa", opa_url="http://127.0.0.1:8181")
    with pytest.raises(SettingsError, match=r"POLICY_ENGINE: opa needs `pip install 'stepgrant\[opa\]'`"):
        engines_of(settings, lambda: "dec_1")


def test_the_url_is_kept_without_its_last_slash() -> None:
    settings = explicit_settings(policy_engine="opa", opa_url="https://opa.example:8181/")
    assert settings.opa_url == "https://opa.example:8181"
