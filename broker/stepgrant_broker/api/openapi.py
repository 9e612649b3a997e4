"""The OpenAPI 3.1 document, made from the declarations of the endpoints and the structs that they name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from stepgrant_broker.api import shapes
from stepgrant_broker.api.problems import STATUSES
from stepgrant_broker.api.routing import REST, WITH_BODY, Endpoint, Needs

PARAMETER: Final = re.compile(r"\{(\w+)\}")
REF: Final = "#/components/schemas/{name}"
TOKEN_PATH: Final = "/oauth/token"  # noqa: S105 - a path
SEGMENT: Final = "^[A-Za-z0-9._:@~-]{1,200}$"
TILE: Final = "^[a-z0-9/.]{1,100}$"
SECURITY: Final[Mapping[Needs, list[dict[str, list[str]]]]] = {
    Needs.NOBODY: [],
    Needs.AGENT: [{"workload": []}],
    Needs.PERSON: [{"person": []}],
    Needs.EITHER: [{"workload": []}, {"person": []}],
}
SECURITY_SCHEMES: Final = {
    "workload": {
        "type": "http",
        "scheme": "dpop",
        "description": "`Authorization: DPoP <token>` and a fresh `DPoP: <proof>` with the server's nonce (RFC 9449).",
    },
    "person": {"type": "http", "scheme": "bearer", "description": "An operator token (`sgo_...`)."},
}
MEDIA: Final[Mapping[Any, str]] = {str: "text/plain", bytes: "application/octet-stream"}
TOKEN_FORM: Final = {
    "type": "object",
    "required": ["grant_type", "subject_token", "subject_token_type"],
    "properties": {
        "grant_type": {"const": "urn:ietf:params:oauth:grant-type:token-exchange"},
        "subject_token": {"type": "string"},
        "subject_token_type": {
            "enum": ["urn:ietf:params:oauth:token-type:jwt", "urn:ietf:params:oauth:token-type:id_token"]
        },
        "requested_token_type": {"const": "urn:ietf:params:oauth:token-type:access_token"},
        "resource": {"type": "string"},
        "audience": {"type": "string"},
    },
}


def document(endpoints: Iterable[Endpoint], *, base: Mapping[str, Any]) -> dict[str, Any]:
    """The whole document. `base` brings what FastAPI says of the application itself."""
    declared = tuple(endpoints)
    described = _schemas(declared)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in declared:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, described)
    return {
        **base,
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "paths": {**base.get("paths", {}), **paths},
        "components": {"schemas": described.components, "securitySchemes": SECURITY_SCHEMES},
    }


class _Described(msgspec.Struct):
    """The schema of each type by its identity, and the components that they refer to."""

    of: dict[int, dict[str, Any]]
    components: dict[str, Any]

    def schema(self, kind: object) -> dict[str, Any]:
        return self.of[id(kind)]


@lru_cache(maxsize=1)  # all brokers of a process declare the same
def _schemas(endpoints: tuple[Endpoint, ...]) -> _Described:
    kinds = [shapes.Problem, shapes.OAuthError]
    for endpoint in endpoints:
        kinds += [endpoint.takes, endpoint.answers]
    unique = list({id(kind): kind for kind in kinds}.values())
    schemas, components = msgspec.json.schema_components(unique, ref_template=REF)
    components = dict(components)
    components["Problem"]["properties"]["code"]["enum"] = sorted(STATUSES)
    return _Described({id(kind): schema for kind, schema in zip(unique, schemas, strict=True)}, components)


def _operation(endpoint: Endpoint, described: _Described) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{endpoint.name}",
        "summary": endpoint.summary,
        "tags": [endpoint.path.split("/")[2] if endpoint.path.startswith("/v1/") else "open"],
        "security": SECURITY[endpoint.needs],
        "parameters": _parameters(endpoint, described),
        "responses": _responses(endpoint, described),
    }
    if endpoint.path == TOKEN_PATH:
        operation["requestBody"] = _content("application/x-www-form-urlencoded", TOKEN_FORM, required=True)
    elif endpoint.method in WITH_BODY:
        operation["requestBody"] = _content("application/json", described.schema(endpoint.takes), required=True)
    return operation


def _parameters(endpoint: Endpoint, described: _Described) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "pattern": TILE if name == REST else SEGMENT},
        }
        for name in PARAMETER.findall(endpoint.path)
    ]
    if endpoint.keyed:
        found.append(_header("Idempotency-Key", "New for each call; the same again only for a transport retry."))
    if endpoint.needs is Needs.AGENT:
        found.append(_header("DPoP", "The proof of possession (RFC 9449)."))
    if endpoint.method not in WITH_BODY:
        query = described.components[described.schema(endpoint.takes)["$ref"].rpartition("/")[2]]
        found += [
            {"name": name, "in": "query", "required": False, "schema": schema}
            for name, schema in query["properties"].items()
        ]
    return found


def _header(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": True, "description": text, "schema": {"type": "string"}}


def _responses(endpoint: Endpoint, described: _Described) -> dict[str, Any]:
    problem = {"$ref": REF.format(name="Problem")}
    error = ("application/problem+json", problem)
    if endpoint.path == TOKEN_PATH:
        error = ("application/json", {"$ref": REF.format(name="OAuthError")})
    media = MEDIA.get(endpoint.answers, "application/json")
    schema = described.schema(endpoint.answers) if endpoint.answers is not bytes else {"type": "string"}
    responses = {
        "200": {"description": "Done.", **_content(media, schema)},
        "4XX": {"description": "Refused; nothing happened.", **_content(*error)},
        "5XX": {"description": "Failed; nothing was released.", **_content(*error)},
    }
    if endpoint.path == "/readyz":
        responses["503"] = {"description": "Not ready.", **_content(media, schema)}
    return responses


def _content(media: str, schema: Mapping[str, Any], *, required: bool = False) -> dict[str, Any]:
    body: dict[str, Any] = {"content": {media: {"schema": schema}}}
    if required:
        body["required"] = True
    return body
