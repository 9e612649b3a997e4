"""The `PolicyEngine` over the operator's own OPA.

Rules:
* An answer counts only if OPA says, in the same answer, that it was made by the policy that this broker activated: the
  revision of its bundle is the activated digest (`stepgrant policy build` writes it there). OPA gives both out of one
  transaction, so a bundle that is exchanged meanwhile is seen.
* Undefined is a denial (`contract.parse`); everything else that is no whole, strict, well-typed answer is
  `PolicyUnavailable`, each with its own reason. Reasons quote nothing of the input: an error of OPA may.
* One deadline for all: the wait for a connection, the connection, the question. Whoever gives up closes its connection,
  and OPA stops working on it. Beyond the queue, `PolicyUnavailable` at once.
* Nothing is remembered of a failure: the first call after OPA's return is served.
* The policy's text is checked here as for the embedded engine, and OPA must answer the samples within the contract,
  before it decides.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from stepgrant import canonical
from stepgrant_broker.domain.errors import PolicyUnavailable
from stepgrant_broker.domain.ports import Evaluation
from stepgrant_broker.policy.bundle import Bundle
from stepgrant_broker.policy.embedded import PROBE_DEADLINE_S
from stepgrant_broker.policy.findings import PolicyInvalid
from stepgrant_broker.policy.opa_client import OpaClient, OpaStatus
from stepgrant_broker.policy.opa_http import Pool
from stepgrant_broker.policy.opa_place import Limits, OpaFailed, Place, Reply
from stepgrant_broker.policy.probes import proven, sample_finding, samples

DEADLINE_S: Final = 1.0
RETRY_AFTER_MS: Final = 1000
DECISION_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
REVISION: Final = re.compile(r"[\x21-\x7e]{1,200}")
VERSION: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,39}")
_WORD: Final = re.compile(r"[a-z][a-z_]{0,63}")
_FILE: Final = re.compile(r"/?[A-Za-z0-9._/-]{1,200}")
UNAUTHORIZED: Final = (401, 403)
BAD_REQUEST: Final = 400


@dataclass(frozen=True, slots=True)
class OpaOptions:
    """Where OPA is and how long it may take. `bundle` names one of its bundles; without it, it must have just one."""

    place: Place
    bundle: str | None = None
    deadline_s: float = DEADLINE_S
    limits: Limits = field(default_factory=Limits)


class OpaEngine:
    """`PolicyEngine` on OPA. Before the first `load`, and after `close`, every call is `PolicyUnavailable`."""

    def __init__(self, settings: OpaOptions, *, decision_ids: Callable[[], str]) -> None:
        """Raises `OpaFailed` for a CA file that is none; connects later."""
        self._settings = settings
        self._decision_ids = decision_ids
        self._client = OpaClient(settings.place, Pool(settings.place, settings.limits))
        self._revision: str | None = None
        self._digest = ""
        self._closed = False

    @property
    def revision(self) -> str | None:
        """The revision that decides now."""
        return self._revision

    async def load(self, revision: str, bundle: Bundle) -> None:
        """Decide by this policy from now on, if OPA has it.

        Raises `PolicyInvalid` for a policy with findings, `PolicyUnavailable` when OPA cannot be asked or has another
        policy; the engine then goes on as before.
        """
        await self._ask(canonical.dumps({}), bundle.digest)
        await asyncio.to_thread(checked, bundle)
        for name, document in samples().items():
            answer = await self._ask(canonical.dumps(document), bundle.digest)
            finding = sample_finding(name, answer.raw, f"probe {name!r} on OPA")
            if finding is not None:
                raise PolicyInvalid([finding])
        self._revision, self._digest = revision, bundle.digest

    async def evaluate(self, policy_input: bytes) -> Evaluation:
        """As the port says. The input is bytes of `canonical.dumps`."""
        if self._closed:
            raise _unavailable("the policy engine is closed")
        revision = self._revision
        if revision is None:
            raise _unavailable("no policy is loaded")
        answer = await self._ask(policy_input, self._digest)
        return Evaluation(answer.raw, revision, answer.decision_id or self._decision_ids(), answer.engine)

    async def close(self) -> None:
        """Close the connections; whoever still waits gets `PolicyUnavailable`."""
        self._closed = True
        self._revision = None
        await self._client.close_connection()

    async def _ask(self, policy_input: bytes, digest: str) -> _Answer:
        """OPA's answer, if it was made by the policy with this digest. Raises `PolicyUnavailable`."""
        try:
            async with asyncio.timeout(self._settings.deadline_s):
                said = await self._client.decide(policy_input)
        except TimeoutError:
            raise _unavailable(f"no decision within {self._settings.deadline_s} s") from None
        except OpaStatus as status:
            raise _unavailable(_of_status(status.reply)) from None
        except OpaFailed as failed:
            raise _unavailable(str(failed)) from None
        answer = _read(said, self._settings.bundle)
        if answer.revision != digest:
            raise _unavailable(_other_policy(answer.revision, digest))
        return answer


def checked(bundle: Bundle) -> None:
    """The checks of the embedded engine, samples included. Blocks. Raises `PolicyInvalid`."""
    proven(bundle, "check", deadline_s=PROBE_DEADLINE_S).end()


@dataclass(frozen=True, slots=True)
class _Answer:
    raw: bytes | None
    revision: str
    decision_id: str | None
    engine: str


def _read(said: object, bundle: str | None) -> _Answer:
    """The parts of OPA's answer that count. Raises `PolicyUnavailable`."""
    if not isinstance(said, dict):
        raise _unavailable("OPA's answer is not an object")
    decision_id = said.get("decision_id")
    if decision_id is not None and (not isinstance(decision_id, str) or DECISION_ID.fullmatch(decision_id) is None):
        raise _unavailable("OPA's decision_id is not an identifier")
    provenance = said.get("provenance")
    if not isinstance(provenance, dict):
        raise _unavailable("OPA does not say by which policy it decided (no provenance in its answer)")
    version = provenance.get("version")
    engine = version if isinstance(version, str) and VERSION.fullmatch(version) else "unknown"
    raw = canonical.dumps(said["result"]) if "result" in said else None
    return _Answer(raw, _loaded(provenance.get("bundles"), bundle), decision_id, f"opa/{engine}")


def _loaded(bundles: object, wanted: str | None) -> str:
    """The digest of the policy in OPA's bundle, without the counter that may stand before it."""
    if bundles is None or bundles == {}:
        raise _unavailable("OPA has another policy loaded: none from a bundle; " + MEND)
    if not isinstance(bundles, dict):
        raise _unavailable("OPA's provenance names no bundles")
    if wanted is None and len(bundles) > 1:
        raise _unavailable("OPA has several bundles; name the one with this policy in opa_bundle")
    one = next(iter(bundles.values())) if wanted is None else bundles.get(wanted)
    if one is None:
        raise _unavailable("OPA has no bundle of the name in opa_bundle")
    revision = one.get("revision", "") if isinstance(one, dict) else None
    if not isinstance(revision, str) or (revision and REVISION.fullmatch(revision) is None):
        raise _unavailable("the revision of OPA's bundle is not text")
    counter, colon, rest = revision.partition(":")
    return rest if colon and counter.isdecimal() else revision


MEND: Final = (
    "give OPA the bundle that `stepgrant policy build` makes of the broker's policy, or the broker the policy of OPA"
)


def _other_policy(found: str, wanted: str) -> str:
    return f"OPA has another policy loaded: {found or 'one without a revision'}, but {wanted} is wanted; {MEND}"


def _of_status(reply: Reply) -> str:
    """Why OPA refused. Its message may quote the input, so only its code and its place in the policy are told."""
    if reply.status in UNAUTHORIZED:
        return f"OPA refuses the broker ({reply.status}): check the token in opa_token_file and OPA's own authorization"
    code, place = _details(reply.body)
    word = "refused the input" if reply.status == BAD_REQUEST else "failed"
    return f"OPA {word} with status {reply.status}" + (f", {code}" if code else "") + (f" at {place}" if place else "")


def _details(body: bytes) -> tuple[str, str]:
    try:
        said = canonical.loads(body)
    except canonical.CanonicalError:
        return "", ""
    errors = said.get("errors") if isinstance(said, dict) else None
    first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else said
    members: Mapping[str, Any] = first if isinstance(first, dict) else {}
    code, location = members.get("code"), members.get("location")
    file, row = (location.get("file"), location.get("row")) if isinstance(location, dict) else (None, None)
    known = isinstance(file, str) and _FILE.fullmatch(file) is not None and isinstance(row, int)
    return (
        code if isinstance(code, str) and _WORD.fullmatch(code) else "",
        f"{file}:{row}" if known else "",
    )


def _unavailable(why: str) -> PolicyUnavailable:
    return PolicyUnavailable(why, retry_after_ms=RETRY_AFTER_MS)
