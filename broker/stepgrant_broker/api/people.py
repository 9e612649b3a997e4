"""What only people do: answer approvals, enrol workloads and people, keep secrets, throw and lift kill switches."""

from __future__ import annotations

from typing import Any, Final, Literal

from stepgrant import _wire
from stepgrant._keys import JoseError, verifying_key
from stepgrant_broker.api import parsing
from stepgrant_broker.api import shapes_people as shapes
from stepgrant_broker.api.context import Api
from stepgrant_broker.api.routing import Call, Endpoint, Nothing, people
from stepgrant_broker.domain.caller import PersonCaller
from stepgrant_broker.domain.errors import InvalidRequest
from stepgrant_broker.usecases import enroll as enrolling
from stepgrant_broker.usecases import operators, set_secret
from stepgrant_broker.usecases.decide_approval import decide_approval
from stepgrant_broker.usecases.quarantine import quarantine, release

Answer = dict[str, Any]
Kind = Literal["run", "agent", "workload", "issuer"]
KINDS: Final[tuple[Kind, ...]] = ("run", "agent", "workload", "issuer")
ITEMS_MAX: Final = 100


async def decide_(api: Api, call: Call[PersonCaller, _wire.DecideApproval]) -> Answer:
    """Answer an approval, echoing the digest that was shown."""
    taken = call.taken
    if not parsing.DIGEST.fullmatch(taken.digest):
        raise InvalidRequest("digest is sha-256: and 43 characters of base64url", field="digest")
    return await decide_approval(
        api.ports,
        call.caller,
        call.segment("approval"),
        verdict=taken.verdict,
        digest=taken.digest,
        note=taken.note,
        request=call.request(),
    )


async def enroll_(api: Api, call: Call[PersonCaller, _wire.EnrollWorkload]) -> Answer:
    """Enrol a workload by its public key."""
    taken = call.taken
    try:
        key = verifying_key(taken.jwk)
    except JoseError as error:
        # Also a private key is refused: whoever sends one has given it away.
        raise InvalidRequest(f"jwk is not a public key of P-256 or Ed25519: {error.detail}", field="jwk") from None
    new = enrolling.Enrolment(
        taken.name, tuple(taken.agents), tuple(taken.audiences), key.jwk, key.jkt, taken.another_key
    )
    return await enrolling.enroll(api.ports, call.caller.tenant, call.caller, new, call.request())


async def unenroll_(api: Api, call: Call[PersonCaller, Nothing]) -> Answer:
    """Remove an enrolment; the workload's tokens stop working."""
    workload = call.segment("workload")
    answer = await enrolling.unenroll(api.ports, call.caller.tenant, call.caller, workload, call.request(workload))
    api.tokens.forget(workload)
    return answer


async def list_workloads(api: Api, call: Call[PersonCaller, Nothing]) -> Answer:
    """All enrolments of the tenant."""
    return {"workloads": [enrolling.view(row) for row in await api.ports.reads.workloads(call.caller.tenant)]}


async def create_operator_(api: Api, call: Call[PersonCaller, _wire.CreateOperator]) -> Answer:
    """Create a person; the token is in this answer and nowhere else."""
    taken = call.taken
    if len(taken.groups) > ITEMS_MAX:
        raise InvalidRequest(f"a person is in at most {ITEMS_MAX} groups", field="groups")
    return await operators.create_operator(
        api.ports,
        call.caller.tenant,
        call.caller,
        name=taken.name,
        roles=taken.roles,
        groups=taken.groups,
        another_token=taken.another_token,
        request=call.request(),
    )


async def remove_operator_(api: Api, call: Call[PersonCaller, Nothing]) -> Answer:
    """Remove a person; the token stops working at once."""
    who = call.segment("operator")
    return await operators.remove_operator(api.ports, call.caller.tenant, call.caller, who, call.request(who))


async def whoami(_: Api, call: Call[PersonCaller, Nothing]) -> Answer:
    """Whose token this is, and what it may do."""
    who = call.caller
    return {
        "id": who.id,
        "name": who.name,
        "tenant": who.tenant,
        "roles": sorted(who.roles),
        "groups": sorted(who.groups),
    }


async def list_operators(api: Api, call: Call[PersonCaller, Nothing]) -> Answer:
    """All people of the tenant."""
    rows = await api.ports.reads.operators(call.caller.tenant)
    return {"operators": [operators.view(row, name) for row, name in rows]}


async def put_secret(api: Api, call: Call[PersonCaller, _wire.SetSecret]) -> Answer:
    """Set or replace a static secret."""
    taken, name = call.taken, call.segment("name")
    if len(taken.hosts) > ITEMS_MAX:
        raise InvalidRequest(f"a secret has at most {ITEMS_MAX} hosts", field="hosts")
    return await set_secret.set_secret(
        api.ports,
        call.caller.tenant,
        call.caller,
        name=name,
        value=taken.value,
        hosts=tuple(taken.hosts),
        header=taken.header,
        request=call.request(name),
    )


async def remove_secret_(api: Api, call: Call[PersonCaller, Nothing]) -> Answer:
    """Forget a static secret."""
    name = call.segment("name")
    return await set_secret.remove_secret(api.ports, call.caller.tenant, call.caller, name, call.request(name))


async def list_secrets(api: Api, call: Call[PersonCaller, Nothing]) -> Answer:
    """All static secrets that are set, without the secrets."""
    return {"secrets": [set_secret.view(row) for row in await api.ports.reads.secrets(call.caller.tenant)]}


async def quarantine_(api: Api, call: Call[PersonCaller, _wire.Throw]) -> Answer:
    """Throw the kill switch on a run, an agent name, a workload or an issuer."""
    return await quarantine(api.ports, call.caller, *_switch(call.taken), beforehand=call.taken.beforehand)


async def release_(api: Api, call: Call[PersonCaller, _wire.Switch]) -> Answer:
    """Lift a kill switch."""
    return await release(api.ports, call.caller, *_switch(call.taken))


def _switch(taken: _wire.Switch) -> tuple[Kind, str]:
    named = [(kind, value) for kind in KINDS if (value := getattr(taken, kind)) is not None]
    if len(named) != 1:
        raise InvalidRequest(f"name exactly one of {', '.join(KINDS)}", field="kind")
    kind, name = named[0]
    parsing.short(name, kind, parsing.KEY_MAX)
    return kind, name


async def list_quarantines(api: Api, call: Call[PersonCaller, Nothing]) -> Answer:
    """Kill switches that are thrown."""
    rows = await api.ports.reads.quarantines(call.caller.tenant)
    views = [{"kind": row.kind, "name": row.name, "at": row.at, "until": row.released_at} for row in rows]
    return {"quarantines": views}


ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    people("POST", "/v1/approvals/{approval}/decide", decide_, _wire.DecideApproval, shapes.ApprovalView),
    people("POST", "/v1/workloads", enroll_, _wire.EnrollWorkload, shapes.WorkloadView),
    people("GET", "/v1/workloads", list_workloads, Nothing, shapes.Workloads),
    people("DELETE", "/v1/workloads/{workload}", unenroll_, Nothing, shapes.WorkloadView),
    people("POST", "/v1/operators", create_operator_, _wire.CreateOperator, shapes.CreatedOperator),
    people("GET", "/v1/operators", list_operators, Nothing, shapes.Operators),
    people("DELETE", "/v1/operators/{operator}", remove_operator_, Nothing, shapes.OperatorView),
    people("GET", "/v1/whoami", whoami, Nothing, shapes.Whoami),
    people("GET", "/v1/secrets", list_secrets, Nothing, shapes.Secrets),
    people("PUT", "/v1/secrets/{name}", put_secret, _wire.SetSecret, shapes.SecretView),
    people("DELETE", "/v1/secrets/{name}", remove_secret_, Nothing, shapes.SecretView),
    people("POST", "/v1/quarantine", quarantine_, _wire.Throw, shapes.QuarantineDone),
    people("GET", "/v1/quarantine", list_quarantines, Nothing, shapes.Quarantines),
    people("POST", "/v1/quarantine/release", release_, _wire.Switch, shapes.Released),
)
