"""From bytes to values: strict JSON, closed structs, path keys, query and the words that every call shares.

Rules:
* A body is strict JSON first, so that nobody downstream can read it in a second way; then a struct that knows all its
  members. Malformed text is 400 `invalid_request`, a wrong shape 422 `schema_violation` with the place.
* An Idempotency-Key stands for the JCS bytes of the whole body without `not_received` (`protocol.md` §2).
* Nothing here looks at the state: whether a value is allowed is for the use case.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec

from stepgrant import _wire, canonical
from stepgrant._csr import RequestRefused, read_request
from stepgrant_broker.domain.calls import CertificateOrder, StepCall
from stepgrant_broker.domain.decisions import Effect
from stepgrant_broker.domain.errors import DigestMismatch, InvalidRequest, SchemaViolation, TooLarge
from stepgrant_broker.domain.outcomes import Result
from stepgrant_broker.domain.state import IdSource
from stepgrant_broker.usecases.open import OpenCall
from stepgrant_broker.usecases.record import RecordCall

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stepgrant_broker.domain.decisions import Json
    from stepgrant_broker.domain.settings import Limits

T = TypeVar("T")

SEGMENT: Final = re.compile(r"[A-Za-z0-9._:@~-]{1,200}")
DIGEST: Final = re.compile(r"sha-256:[A-Za-z0-9_-]{43}")
TEXT_MAX: Final = 500
KEY_MAX: Final = 200
OBJECT_MAX: Final = 65_536
MAX_TTL_S: Final = 86_400
EFFECTS: Final = {one.value: one for one in Effect}
ID_SOURCES: Final = {one.value: one for one in IdSource}
_PLACE: Final = re.compile(r" - at `(?:key in )?\$\.?(?P<path>[^`]*)`$")
_UNKNOWN: Final = re.compile(r"unknown field `(?P<name>[^`]*)`")
_MISSING: Final = re.compile(r"required field `(?P<name>[^`]*)`")
_QUERY_MAX: Final = 4096
_QUERY_FIELDS: Final = 16


def json_object(raw: bytes, limit: int) -> dict[str, Any]:
    """The body as a JSON object. Raises `InvalidRequest` (which names the place, never the value) and `TooLarge`."""
    try:
        value = canonical.loads(raw, max_bytes=limit)
    except canonical.CanonicalError as error:
        if error.code == "too_large":
            raise TooLarge(error.detail) from None
        raise InvalidRequest(f"the body is not strict JSON: {error.code}: {error.detail}", field=error.path) from None
    if not isinstance(value, dict):
        raise InvalidRequest("the body is not a JSON object")
    return value


def convert(value: object, kind: type[T]) -> T:
    """The struct of this JSON value. Raises `SchemaViolation` with the path of the member."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        text = str(error)
        raise SchemaViolation(_without_place(text), field=_place(text)) from None


def convert_query(raw: bytes, kind: type[T]) -> T:
    """The struct of a query string; each name once, unknown names refused. Raises `InvalidRequest`."""
    if len(raw) > _QUERY_MAX:
        raise InvalidRequest(f"the query is over {_QUERY_MAX} bytes", field="query")
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=_QUERY_FIELDS, errors="strict")
    except ValueError:
        raise InvalidRequest("the query is not URL-encoded UTF-8", field="query") from None
    values = dict(pairs)
    if len(values) != len(pairs):
        raise InvalidRequest("a name stands twice in the query", field="query")
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        text = str(error)
        raise InvalidRequest(_without_place(text), field=_place(text) or "query") from None


def _place(text: str) -> str | None:
    """The member that msgspec's message is about, as a dotted path."""
    found = _PLACE.search(text)
    path = found["path"] if found else ""
    named = _UNKNOWN.search(text) or _MISSING.search(text)
    parts = [part for part in (path, named["name"] if named else "") if part]
    return ".".join(parts)[:KEY_MAX] or None


def _without_place(text: str) -> str:
    return _PLACE.sub("", text)[:TEXT_MAX]


def segment(params: Mapping[str, str], name: str) -> str:
    """A key in the path. Raises `InvalidRequest` outside the alphabet (`%2F` never gets here: it is another path)."""
    value = params[name]
    if not SEGMENT.fullmatch(value):
        raise InvalidRequest(f"{name} is 1 to {KEY_MAX} of A-Z a-z 0-9 . _ : ~ -", field=name)
    return value


def short(value: str | None, name: str, limit: int = TEXT_MAX) -> None:
    """Raises `InvalidRequest` unless the text is printable and of sensible length."""
    if value is not None and (not 1 <= len(value) <= limit or not value.isprintable()):
        raise InvalidRequest(f"{name} is 1 to {limit} printable characters", field=name)


def small(value: Mapping[str, Any], name: str) -> None:
    """Raises `TooLarge` for an object that policy would have to read through at every decision."""
    if value and len(canonical.dumps(value)) > OBJECT_MAX:
        raise TooLarge(f"{name} is over {OBJECT_MAX} bytes", field=name)


def body_bytes(value: Mapping[str, Any]) -> bytes:
    """What an Idempotency-Key stands for: the body without `not_received`, which only the repeated call carries."""
    if "not_received" in value:
        value = {name: member for name, member in value.items() if name != "not_received"}
    return canonical.dumps(value)


def result(value: Any, *, withheld: bool = False) -> Result:  # noqa: ANN401 - any JSON value or UNSET
    """A result as its JCS bytes. Raises `InvalidRequest` if one is sent although it was withheld."""
    if value is msgspec.UNSET:
        return Result(None, withheld)
    if withheld:
        raise InvalidRequest("a withheld result is not sent", field="result")
    return Result(canonical.dumps(value))


def step_call(step: str, body: _wire.StepCall, limits: Limits) -> StepCall:
    """The domain's call. Raises `DigestMismatch`, `TooLarge`, `InvalidRequest`."""
    action = body.action
    short(action.tool, "action.tool")
    if action.resource is not None:
        short(action.resource, "action.resource", 2 * TEXT_MAX)
    if body.idempotency_key is not None:
        short(body.idempotency_key, "idempotency_key", KEY_MAX)
    if body.issuer is not None:
        short(body.issuer, "issuer", KEY_MAX)
    if not 0 <= body.settle_s * 1000 <= limits.settle_max_ms:
        raise InvalidRequest(f"settle_s is 0 to {limits.settle_max_ms // 1000}", field="settle_s")
    if body.ttl_s is not None and not 1 <= body.ttl_s <= MAX_TTL_S:
        raise InvalidRequest(f"ttl_s is 1 to {MAX_TTL_S}", field="ttl_s")
    small(body.context, "context")
    small(body.params, "params")
    args, digest, preimage = _action(action, limits)
    return StepCall(
        step=step,
        epoch=body.epoch,
        tool=action.tool,
        resource=action.resource,
        args=args,
        digest=digest,
        preimage=preimage,
        effect=EFFECTS[body.effect],
        id_source=ID_SOURCES[body.id_source],
        idempotency_key=body.idempotency_key,
        issuer=body.issuer,
        ttl_s=body.ttl_s,
        params=body.params,
        settle_ms=int(body.settle_s * 1000),
        retry_failed=body.retry_failed,
        context=body.context,
        not_received=body.not_received,
        csr=_certificate_order(body.csr),
    )


def _certificate_order(pem: str | None) -> CertificateOrder | None:
    if pem is None:
        return None
    try:
        request = read_request(pem)
    except RequestRefused as error:
        raise InvalidRequest(str(error), field="csr") from None
    return CertificateOrder(request.pem, request.key)


def _action(action: _wire.Action, limits: Limits) -> tuple[Json, str, bytes | None]:
    """Arguments, digest and preimage. Two that were sent must agree, or one of them is not what will be done."""
    sent = action.args_digest
    if sent is not None and not DIGEST.fullmatch(sent):
        raise InvalidRequest("args_digest is sha-256: and 43 characters of base64url", field="action.args_digest")
    if action.args is msgspec.UNSET:
        if sent is None:
            raise InvalidRequest("send args, or args_digest where policy allows it", field="action.args")
        return None, sent, None
    preimage = canonical.action_bytes(action.tool, action.resource, action.args)
    if len(preimage) > limits.max_args_bytes:
        raise TooLarge(f"the action is over {limits.max_args_bytes} bytes", field="action.args")
    digest = canonical.digest_bytes(preimage)
    if sent is not None and sent != digest:
        raise DigestMismatch("args_digest is not the digest of this action", field="action.args_digest")
    return action.args, digest, preimage


def record_call(step: str, body: _wire.RecordStep, limits: Limits) -> RecordCall:
    """The domain's call for a step without a credential. Raises `TooLarge`, `InvalidRequest`."""
    short(body.name, "name")
    preimage = canonical.action_bytes(body.name, None, body.args)
    if len(preimage) > limits.max_args_bytes:
        raise TooLarge(f"name and args are over {limits.max_args_bytes} bytes", field="args")
    return RecordCall(
        step=step,
        epoch=body.epoch,
        name=body.name,
        preimage=preimage,
        id_source=IdSource(body.id_source),
        result=result(body.result, withheld=body.withheld),
    )


def open_call(body: _wire.OpenRun | _wire.QueueRun, *, jkt: str, idempotency_key: str, limits: Limits) -> OpenCall:
    """The domain's call. A run without a key of its own is named after the request, so that its repeat finds it."""
    short(body.version, "version", KEY_MAX)
    short(body.principal, "principal")
    run_key = body.run_key
    if run_key is None:
        name = hashlib.sha256(f"{jkt}\x00{idempotency_key}".encode("utf-8", "surrogatepass")).digest()
        run_key = "auto-" + canonical.b64u(name[:16])
    given = None if body.input is msgspec.UNSET else canonical.dumps(body.input)
    if given is not None and len(given) > limits.max_input_bytes:
        raise TooLarge(f"the input is over {limits.max_input_bytes} bytes", field="input")
    call = OpenCall(run_key, body.agent, body.version, given, body.labels, body.principal, takeover=False)
    return call if isinstance(body, _wire.QueueRun) else replace(call, takeover=body.takeover, resume=body.resume)
