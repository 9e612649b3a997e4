"""Reads `deploy/Dockerfile` and `deploy/compose.yaml`, where no container runtime is needed to judge them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import regorus

ROOT = Path(__file__).parents[1]
PINNED = re.compile(r"^[a-z0-9._/-]+:(?P<tag>[\w.-]*\d[\w.-]*)(@sha256:[0-9a-f]{64})?$")
SECRET = re.compile("PASSWORD|TOKEN|SECRET|KEY|CREDENTIAL")
SAID = re.compile(r"(?i)(token|password|secret)[a-z_]*=[^\s\"$]+")
YAML = "package p\n\nimport rego.v1\n\nread := yaml.unmarshal(input.text)\n"


def read_yaml(text: str) -> Any:  # noqa: ANN401 - whatever the document holds
    """The document; merge keys (`<<`) are resolved as compose does. Text that is no YAML is a RuntimeError."""
    value, wrong = _evaluated(text)
    if wrong is not None:
        raise RuntimeError(wrong)
    return merged(value)


def _evaluated(text: str) -> tuple[Any, str | None]:
    """The value, or what is wrong. No traceback leaves: it would keep the engine, which must die in this thread."""
    engine = regorus.Engine()
    engine.add_policy("yaml.rego", YAML)
    engine.set_input_json(json.dumps({"text": text}))
    try:
        return engine.eval_rule("data.p.read"), None
    except RuntimeError as error:
        return None, str(error)


def merged(value: Any) -> Any:  # noqa: ANN401 - as above
    """`value` with every `<<` replaced by what it names; the map's own keys win."""
    if isinstance(value, list):
        return [merged(one) for one in value]
    if not isinstance(value, dict):
        return value
    named = merged(value["<<"]) if "<<" in value else {}
    return named | {name: merged(one) for name, one in value.items() if name != "<<"}


def is_pinned(image: str) -> bool:
    """Whether an image's tag is a version; `latest`, `stable` or no tag is whatever is there that day."""
    found = PINNED.match(image)
    return found is not None and "latest" not in found["tag"]


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile, continuation lines joined."""

    name: str
    rest: str

    @property
    def words(self) -> list[str]:
        """Its arguments without its options (`--from=build`)."""
        return [word for word in self.rest.split() if not word.startswith("--")]


@dataclass(frozen=True)
class Mount:
    """What stands at `target` in a container: a named volume, or a file or folder of the host's."""

    source: str
    target: str
    volume: bool = False
    read_only: bool = False


def mounts(service: dict[str, Any], secrets: dict[str, Any]) -> list[Mount]:
    """The mounts of a service, its secrets among them, as compose understands what this repository's file says."""
    found = [
        Mount(secrets[name]["file"], f"/run/secrets/{name}", read_only=True) for name in service.get("secrets", [])
    ]
    for said in service.get("volumes", []):
        if isinstance(said, str):
            source, target, *mode = said.split(":")
            found.append(Mount(source, target, volume=True, read_only=mode == ["ro"]))
        else:
            found.append(Mount(said["source"], said["target"], read_only=said.get("read_only", False)))
    return found


def is_ours(service: dict[str, Any]) -> bool:
    """Whether a service runs the image that `deploy/Dockerfile` makes."""
    return "dockerfile" in service.get("build", {})


def image_environment(dockerfile: str) -> dict[str, str]:
    """What a Dockerfile's `ENV` sets."""
    said = [word for one in read_dockerfile(dockerfile) if one.name == "ENV" for word in one.words]
    return dict(word.split("=", 1) for word in said)


def service_environment(service: dict[str, Any], files: list[str]) -> dict[str, str]:
    """What a service's env files (their texts; the last line of a name counts) and its `environment` set."""
    lines = [line for text in files for line in text.splitlines() if line and not line.startswith("#")]
    given: dict[str, str] = service.get("environment", {})
    return dict(line.split("=", 1) for line in lines) | given


def read_dockerfile(text: str) -> list[Instruction]:
    """Its instructions in order."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines()]


def of_one(one: Instruction, root: Path) -> list[str]:
    """What is wrong with one instruction by itself."""
    match one.name:
        case "ADD":
            return [f"ADD {one.rest}: use COPY, which fetches and unpacks nothing"]
        case "COPY" if "--from=" not in one.rest:
            return [f"COPY {path}: not there" for path in one.words[:-1] if not (root / path).exists()]
        case "RUN" if re.search(r"\b(curl|wget|sudo)\b|chmod\s+777", one.rest):
            return [f"RUN {one.rest}: fetches or opens what is not pinned"]
        case "ENV" | "ARG" if re.search(r"PASSWORD|TOKEN|SECRET", one.rest):
            return [f"{one.name} {one.rest}: a secret stays in the image"]
        case _:
            return []


def docker_findings(text: str, root: Path) -> list[str]:
    """What is wrong with a Dockerfile whose context is `root`."""
    wrong = []
    stages: set[str] = set()
    last: dict[str, str] = {}
    for one in read_dockerfile(text):
        wrong += of_one(one, root)
        if one.name == "FROM":
            last = {}
            if one.words[0] not in stages and not is_pinned(one.words[0]):
                wrong.append(f"FROM {one.words[0]} is not pinned to a version")
            stages.add(one.words[-1])
        last[one.name] = one.rest
    if last.get("USER", "root").partition(":")[0] in {"0", "root"}:
        wrong.append("the last stage runs as root")
    if last.get("HEALTHCHECK", "NONE") == "NONE":
        wrong.append("the last stage has no HEALTHCHECK")
    return wrong


def compose_secrets(compose: dict[str, Any]) -> list[str]:
    """The settings and secrets of a compose file that hold a value instead of naming a file or a variable."""
    wrong = []
    for name, service in compose["services"].items():
        for setting, value in service.get("environment", {}).items():
            if SECRET.search(setting) and not value.startswith("/run/secrets/"):
                wrong.append(f"{name}: {setting}")
        words = " ".join([*service.get("command", []), *service.get("entrypoint", [])])
        wrong += [
            f"{name}: {found[0]}" for found in re.finditer(r"(?i)(token|password|secret)[a-z_]*=[^\s\"$]+", words)
        ]
    for name, secret in compose.get("secrets", {}).items():
        if list(secret) != ["file"] or not secret["file"].startswith("${"):
            wrong.append(f"secret {name}")
    return wrong
