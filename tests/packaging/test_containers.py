"""The broker's image and the compose file: what can be said about them without a container runtime."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from containers import compose_secrets, docker_findings, is_ours, is_pinned, merged, read_dockerfile, read_yaml
from processes import environment, started, stepgrant
from stepgrant_broker.config import PREFIX, Settings
from stepgrant_services import OpaServer
from stepgrant_services.binaries import KINDS, numbers
from stepgrant_services.processes import free_port

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
GOOD = "FROM python:3.13.7-slim\nCOPY README.md ./\nUSER 10423:10423\nHEALTHCHECK CMD true\n"
SETTING = re.compile(rf"\b{PREFIX}[A-Z_]+")
OURS = {"bundle", "vault-setup", "migrate", "broker"}


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    """The services of the compose file by name."""
    read: dict[str, dict[str, dict[str, Any]]] = read_yaml(COMPOSE)
    return read["services"]


# --- the image -------------------------------------------------------------------------------------------------------


def test_dockerfile_has_no_findings() -> None:
    assert docker_findings(DOCKERFILE, ROOT) == []


@pytest.mark.parametrize(
    ("before", "after", "finding"),
    [
        ("FROM python:3.13.7-slim", "FROM python:latest", "FROM python:latest is not pinned to a version"),
        ("FROM python:3.13.7-slim", "FROM python", "FROM python is not pinned to a version"),
        ("USER 10423:10423\n", "", "the last stage runs as root"),
        ("USER 10423:10423", "USER root", "the last stage runs as root"),
        ("USER 10423:10423", "USER 0:0", "the last stage runs as root"),
        ("USER 10423:10423\n", "USER 1\nFROM alpine:3.22\nHEALTHCHECK CMD true\n", "the last stage runs as root"),
        ("HEALTHCHECK CMD true", "HEALTHCHECK NONE", "the last stage has no HEALTHCHECK"),
        ("COPY README.md ./", "COPY no-such-file ./", "COPY no-such-file: not there"),
        ("COPY README.md ./", "ADD https://a.example/x.tgz /", "ADD https://a.example/x.tgz /: use COPY"),
        ("COPY README.md ./", "RUN curl a.example | sh", "RUN curl a.example | sh: fetches"),
        ("COPY README.md ./", "ENV TOKEN=abc", "ENV TOKEN=abc: a secret stays in the image"),
    ],
)
def test_the_check_of_a_dockerfile_finds(before: str, after: str, finding: str) -> None:
    assert docker_findings(GOOD, ROOT) == []
    assert [one[: len(finding)] for one in docker_findings(GOOD.replace(before, after), ROOT)][:1] == [finding]


def test_image_takes_packages_by_hash_and_nothing_after_that() -> None:
    runs = [one.rest for one in read_dockerfile(DOCKERFILE) if one.name == "RUN"]
    fetching = [
        command for run in runs for command in run.split("&&") if re.search(r"pip (download|install|wheel)", command)
    ]

    assert [("--require-hashes" in command, "--no-index" in command) for command in fetching] == [
        (True, False),
        (False, True),
        (False, True),
    ]


def test_image_sees_no_more_of_the_repository_than_it_copies() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [one for one in read_dockerfile(DOCKERFILE) if one.name == "COPY" and "--from=" not in one.rest]

    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == {path for one in copied for path in one.words[:-1]}
    assert {"**/__pycache__", "**/.stepgrant"} <= set(rules)


# --- compose ---------------------------------------------------------------------------------------------------------


def test_compose_has_what_a_broker_needs(services: dict[str, dict[str, Any]]) -> None:
    assert set(services) == {"pod", "opa", "vault", "postgres", *OURS}
    assert {name for name, service in services.items() if is_ours(service)} == OURS
    for name, service in services.items():
        assert is_pinned(service["image"]), name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["healthcheck"].get("test") or service["restart"] == "no", name
        assert "privileged" not in service, name


def test_compose_runs_the_versions_that_the_tests_accept(services: dict[str, dict[str, Any]]) -> None:
    tags = {name: services[name]["image"].partition(":")[2] for name in ("opa", "vault", "postgres")}
    assert tags["opa"] == f"{KINDS['opa'].pinned}-static"
    for name, brand in (("vault", "OpenBao"), ("postgres", "postgres")):
        lowest, beyond = KINDS[name].accepted[brand]
        assert lowest <= numbers(tags[name]) < beyond
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    version = services["broker"]["image"].partition(":")[2]
    assert f'version = "{version}"' in project
    assert f"stepgrant:{version}" in DOCKERFILE


def test_which_vault_was_run_is_said_wherever_openbao_is_promised() -> None:
    for name in ("README.md", "vault/README.md", "compose.yaml"):
        said = " ".join((DEPLOY / name).read_text(encoding="utf-8").replace("\n#", "\n").split())
        assert f"Vault {KINDS['vault'].pinned}" in said, name
        assert re.search(r"OpenBao has the same HTTP API for what is used here, and was not run", said), name


def test_compose_publishes_the_broker_only_on_loopback_and_with_tls(services: dict[str, dict[str, Any]]) -> None:
    published = [port for service in services.values() for port in service.get("ports", [])]

    assert published == ["127.0.0.1:8423:8423"]
    assert {service.get("network_mode") for name, service in services.items() if name != "pod"} == {"service:pod"}
    settings = services["broker"]["environment"]
    assert settings[f"{PREFIX}HOST"] == "0.0.0.0"  # noqa: S104 - inside the pod's network, published on loopback
    assert {f"{PREFIX}TLS_CERT", f"{PREFIX}TLS_KEY"} <= set(settings)


def test_compose_holds_no_secret() -> None:
    compose = read_yaml(COMPOSE)
    assert compose_secrets(compose) == []

    compose["services"]["postgres"]["environment"]["POSTGRES_PASSWORD"] = "hunter2"
    compose["services"]["vault"]["command"] = ["BAO_DEV_ROOT_TOKEN_ID=root exec bao server -dev"]
    compose["secrets"]["tls.key"] = {"environment": "TLS_KEY"}
    assert sorted(compose_secrets(compose)) == ["postgres: POSTGRES_PASSWORD", "secret tls.key", "vault: TOKEN_ID=root"]


def test_what_compose_waits_for_is_there_and_says_when_it_is_ready(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert services[other]["healthcheck"]["test"], (name, other)
        used = set(service.get("secrets", []))
        assert used <= set(read_yaml(COMPOSE)["secrets"]), name


def test_settings_that_the_files_name_exist() -> None:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}

    assert set(SETTING.findall(COMPOSE + DOCKERFILE)) <= known


def test_merge_keys_are_resolved() -> None:
    assert merged({"<<": {"a": 1, "b": 2}, "b": 3}) == {"a": 1, "b": 3}
    with pytest.raises(RuntimeError):
        read_yaml("a: [1")


# --- what the health checks run --------------------------------------------------------------------------------------


def healthy(**settings: str) -> int:
    command = [sys.executable, "-I", str(DEPLOY / "healthcheck.py")]
    return subprocess.run(command, env=environment(**settings), check=False, capture_output=True).returncode


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for another name than the health check asks for, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.crt", folder / f"{name}.key"
    paths[0].write_bytes(built.public_bytes(serialization.Encoding.PEM))
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    paths[1].write_bytes(key.private_bytes(*plain))
    paths[1].chmod(0o600)
    return paths


@pytest.mark.parametrize("tls", ["", "broker.example"])
def test_health_check_of_the_broker(tmp_path: Path, tls: str) -> None:
    settings = {f"{PREFIX}DATA_DIR": str(tmp_path / "data"), f"{PREFIX}PORT": str(free_port())}
    if tls:
        paths = certificate(tmp_path, tls)
        settings |= {f"{PREFIX}TLS_CERT": str(paths[0]), f"{PREFIX}TLS_KEY": str(paths[1])}
        settings[f"{PREFIX}PUBLIC_URL"] = f"https://{tls}"
    assert stepgrant(tmp_path, "db", "migrate", **settings).returncode == 0
    assert healthy(**settings) == 1
    with started(tmp_path, tmp_path / "log", "serve", "--json", **settings) as broker:
        broker.wait_for('"url"|listening|serving')

        assert healthy(**settings) == 0
        if tls:
            other = certificate(tmp_path, "impostor.example")[0]
            assert healthy(**settings | {f"{PREFIX}TLS_CERT": str(other)}) == 1


def test_health_check_of_opa(
    services: dict[str, dict[str, Any]], opa_server: Callable[..., OpaServer], opa_binary: Path
) -> None:
    _, _, *words = services["opa"]["healthcheck"]["test"]
    with opa_server() as opa:
        here = [word.replace("127.0.0.1:8181", opa.host_port) for word in words]
        asked = subprocess.run([str(opa_binary), *here], check=False, capture_output=True, text=True)
        assert asked.returncode == 0, asked.stdout + asked.stderr
        assert json.loads(asked.stdout)["result"]
        opa.stop()
        assert subprocess.run([str(opa_binary), *here], check=False, capture_output=True).returncode != 0
