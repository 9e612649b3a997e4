"""Settings: safe defaults, clear refusals, nothing misspelt passes, nothing secret is repeated."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from stepgrant_broker.config import PREFIX, Settings, SettingsError, explicit_settings, load_settings, spelled
from stepgrant_broker.domain.settings import Limits


def refused(**given: object) -> str:
    with pytest.raises(SettingsError) as caught:
        explicit_settings(**given)
    assert len(caught.value.problems) == 1
    return caught.value.problems[0]


def test_defaults_are_safe_and_those_of_the_domain() -> None:
    settings = explicit_settings()
    assert (settings.host, settings.test_mode, settings.proxy_terminates_tls) == ("127.0.0.1", False, False)
    assert settings.limits() == Limits()
    assert settings.keys_folder == Path(".stepgrant/keys")
    assert settings.database_file == Path(".stepgrant/stepgrant.db")


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPGRANT_BROKER_LEASE_MS", "3000")
    assert load_settings().lease_ms == 3000
    assert load_settings(lease_ms=5000).lease_ms == 5000
    assert explicit_settings().lease_ms == 30_000


def test_a_misspelt_name_is_refused_with_the_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPGRANT_BROKER_LEASE", "3000")
    with pytest.raises(SettingsError, match="did you mean STEPGRANT_BROKER_LEASE_MS") as caught:
        load_settings()
    assert caught.value.problems[0].startswith("STEPGRANT_BROKER_LEASE: there is no such setting")
    monkeypatch.delenv("STEPGRANT_BROKER_LEASE")
    monkeypatch.setenv("STEPGRANT_BROKER_QQQQQQQQQQQQQQQ", "1")
    with pytest.raises(SettingsError, match="lists the settings"):
        load_settings()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"signer": "transit"}, "STEPGRANT_BROKER_SIGNER=transit needs STEPGRANT_BROKER_VAULT_ADDR"),
        ({"transit_key_heads": "stepgrant-grants"}, "must be three keys"),
        ({"transit_mount": "/transit"}, "STEPGRANT_BROKER_TRANSIT_MOUNT: must be the mount's path"),
        ({"transit_key_grants": "a/b"}, "STEPGRANT_BROKER_TRANSIT_KEY_GRANTS: must be 1 to 64"),
        ({"lease_ms": 1}, "STEPGRANT_BROKER_LEASE_MS: "),
        ({"lease_ms": "soon"}, "STEPGRANT_BROKER_LEASE_MS: "),
        ({"grant_ttl_max_s": 301}, "STEPGRANT_BROKER_GRANT_TTL_MAX_S: "),
        ({"redeem_window_ms": 10_001}, "STEPGRANT_BROKER_REDEEM_WINDOW_MS: "),
        ({"no_such": 1}, "STEPGRANT_BROKER_NO_SUCH: "),
        ({"tenant": "Acme Inc"}, "STEPGRANT_BROKER_TENANT: must be 1 to 63"),
        ({"public_url": "broker.example"}, "STEPGRANT_BROKER_PUBLIC_URL: must be like https://broker.example"),
        ({"public_url": "https://broker.example/"}, "STEPGRANT_BROKER_PUBLIC_URL: must be like"),
        ({"public_url": "https://u:p@broker.example"}, "STEPGRANT_BROKER_PUBLIC_URL: must be like"),
        ({"public_url": "https://broker.example?x=1"}, "STEPGRANT_BROKER_PUBLIC_URL: must be like"),
        ({"public_url": "ftp://broker.example"}, "STEPGRANT_BROKER_PUBLIC_URL: must be like"),
        ({"tls_cert": "cert.pem"}, "STEPGRANT_BROKER_TLS_CERT and STEPGRANT_BROKER_TLS_KEY belong together"),
        (
            {"grant_ttl_s": 100, "grant_ttl_max_s": 60},
            "STEPGRANT_BROKER_GRANT_TTL_S is over STEPGRANT_BROKER_GRANT_TTL_MAX_S",
        ),
        ({"watch_policy": True}, "STEPGRANT_BROKER_WATCH_POLICY needs STEPGRANT_BROKER_POLICY_DIR"),
        ({"failpoints": "store.before_commit=kill"}, "production refuses them"),
        ({"test_mode": True, "host": "192.0.2.1"}, "STEPGRANT_BROKER_TEST_MODE listens on loopback only"),
    ],
    ids=count(),
)
def test_what_is_wrong_is_named(given: dict[str, object], said: str) -> None:
    assert refused(**given).startswith(said) or said in refused(**given)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("see public_url", "see STEPGRANT_BROKER_PUBLIC_URL"),
        ("(or use watch_policy)", "(or use STEPGRANT_BROKER_WATCH_POLICY)"),
        ("say policy_instead_of=3.", "say STEPGRANT_BROKER_POLICY_INSTEAD_OF=3."),
        ("grant_ttl_s, grant_ttl_max_s", "STEPGRANT_BROKER_GRANT_TTL_S, STEPGRANT_BROKER_GRANT_TTL_MAX_S"),
        ("signer=transit", "STEPGRANT_BROKER_SIGNER=transit"),
        ("the port of a host and its signer", "the port of a host and its signer"),
        ("/var/keys_dir/x, data_dir.old, my_data_dir, data_dirs, STEPGRANT_BROKER_DATA_DIR",) * 2,
    ],
)
def test_messages_name_settings_as_they_are_set(text: str, said: str) -> None:
    assert spelled(text) == said


def test_several_mistakes_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        explicit_settings(lease_ms=1, port=-1)
    assert [line.partition(":")[0] for line in caught.value.problems] == [PREFIX + "PORT", PREFIX + "LEASE_MS"]


def test_a_database_password_is_never_repeated() -> None:
    url = "postgresql://broker:hunter2@db/stepgrant"
    settings = explicit_settings(database_url=url)
    assert "hunter2" not in repr(settings)
    with pytest.raises(SettingsError) as caught:
        _ = settings.database_file
    assert "hunter2" not in str(caught.value)
    with pytest.raises(SettingsError) as caught:
        explicit_settings(database_url=url, lease_ms=1)
    assert "hunter2" not in str(caught.value)


def test_a_database_file_is_taken_from_its_url() -> None:
    assert explicit_settings(database_url="sqlite:////var/lib/sg.db").database_file == Path("/var/lib/sg.db")


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        explicit_settings().lease_ms = 5000
