"""What `deploy/compose.yaml` gives to each service is what the broker's own code takes: settings, files, commands."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

import pytest
import typer
from typer.main import get_command

from containers import Mount, image_environment, mounts, read_dockerfile, read_yaml, service_environment
from stepgrant.cli import app
from stepgrant_broker.config import PREFIX, Settings, SettingsError, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterable

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
DOCKERFILE: Final = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: Final = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
SECTION: Final = (
    (DEPLOY / "README.md").read_text(encoding="utf-8").partition("## With containers\n")[2].partition("\n## ")[0]
)
BROKER_ENV: Final = "\n".join(re.findall(rf"^#\s+({PREFIX}[A-Z_]+=[^\s,]+)", COMPOSE, re.MULTILINE))
"""`broker.env` as the top of the compose file shows it."""


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    read: dict[str, Any] = read_yaml(COMPOSE)
    return read


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The services of the compose file by name."""
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


def test_page_and_compose_file_name_the_same_settings_and_files(compose: dict[str, Any]) -> None:
    shown = [line.partition("=")[0] for line in BROKER_ENV.splitlines()]
    assert shown == sorted(set(re.findall(rf"\b({PREFIX}[A-Z_]+)=", SECTION)))
    for name, secret in compose["secrets"].items():
        assert secret["file"].endswith(f"/secrets/{name}"), name
        assert f"secrets/{name}" in SECTION, name
        assert name in COMPOSE.partition("\nname:")[0], name


def loaded(service: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings that a broker's command finds in this service. Raises `SettingsError`."""
    files = [BROKER_ENV for _ in service.get("env_file", [])]
    for name, value in (image_environment(DOCKERFILE) | service_environment(service, files)).items():
        if name.startswith(PREFIX):
            monkeypatch.setenv(name, value)
    return load_settings()


def uncovered(paths: Iterable[str], service: dict[str, Any]) -> list[str]:
    """Those of the paths that nothing is mounted at, or above."""
    secrets = read_yaml(COMPOSE)["secrets"]
    targets = [PurePosixPath(mount.target) for mount in mounts(service, secrets)]
    return [path for path in paths if not any(PurePosixPath(path).is_relative_to(one) for one in targets)]


@pytest.mark.parametrize("name", ["migrate", "broker"])
def test_settings_of_a_service_are_whole_and_their_files_are_mounted(
    services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    settings = loaded(services[name], monkeypatch)

    assert settings.postgres_url is not None
    assert settings.policy_dir is not None
    assert settings.issuers_file is not None
    paths = [settings.keys_folder, *(value for _, value in settings if isinstance(value, Path))]
    assert len(paths) > 6
    assert uncovered(map(str, paths), services[name]) == []
    assert uncovered(["/etc/elsewhere"], services[name]) == ["/etc/elsewhere"]
    written = {mount.target for mount in mounts(services[name], read_yaml(COMPOSE)["secrets"]) if not mount.read_only}
    assert written == {str(settings.data_dir)}


def test_migrate_and_broker_have_the_same_settings_and_files(services: dict[str, dict[str, Any]]) -> None:
    for member in ("environment", "env_file", "secrets", "volumes", "image"):
        assert services["migrate"][member] == services["broker"][member], member


def test_a_service_without_the_shared_settings_is_refused(
    services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match="only count with STEPGRANT_BROKER_VAULT_ADDR"):
        loaded({"env_file": services["migrate"]["env_file"]}, monkeypatch)


def test_policy_of_the_broker_and_bundle_of_opa_are_one(services: dict[str, dict[str, Any]]) -> None:
    policy = services["broker"]["environment"][f"{PREFIX}POLICY_DIR"]
    build, opa = services["bundle"]["command"], services["opa"]["command"]
    assert build[:3] == ["policy", "build", policy]
    assert build[build.index("--out") + 1] == opa[opa.index("--bundle") + 1]
    at = {name: {mount.target: mount for mount in mounts(services[name], {})} for name in ("bundle", "opa")}
    assert at["bundle"]["/etc/stepgrant"] in mounts({"volumes": services["broker"]["volumes"]}, {})
    assert at["bundle"]["/bundles"] == Mount("bundles", "/bundles", volume=True)
    assert at["opa"]["/bundles"] == Mount("bundles", "/bundles", volume=True, read_only=True)
    assert services["opa"]["depends_on"]["bundle"] == {"condition": "service_completed_successfully"}
    # A new volume is root's, unless the image has its folder.
    made = [part.split() for one in read_dockerfile(DOCKERFILE) if one.name == "RUN" for part in one.rest.split("&&")]
    folders = {words[-1]: words for words in made if words[:2] == ["install", "--directory"]}
    assert set(folders) == {"/var/lib/stepgrant", "/bundles"}
    assert all(words[words.index("--owner") + 1] == "stepgrant" for words in folders.values())


@pytest.mark.parametrize("name", ["bundle", "vault-setup", "migrate", "broker"])
def test_commands_of_the_services_are_commands(
    services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    service = services[name]
    for setting, value in service.get("environment", {}).items():
        monkeypatch.setenv(setting, value)

    parsed(service["command"])
    with pytest.raises(typer.TyperException, match=r"No such (command|option)"):
        parsed([*service["command"][:1], "--no-such-option"])
    assert uncovered([word for word in service["command"] if word.startswith("/")], service) == []


def parsed(words: list[str]) -> None:
    """Let the command line read these words, and run nothing. Raises `TyperException`."""
    command: Any = get_command(app.build(words))
    context = command.make_context("stepgrant", list(words))
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)
