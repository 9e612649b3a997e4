"""An upgrade of the broker brings newer checks: what they only advise does not stop the policy that is in force."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, Final

import pytest

from fakes.wired import REGO, Made, says
from stepgrant_broker.domain.errors import PolicyUnavailable
from stepgrant_broker.domain.reads import Reads
from stepgrant_broker.domain.writes import Query
from stepgrant_broker.policy.bundle import Bundle
from stepgrant_broker.policy.check import check
from stepgrant_broker.policy.findings import ADVICE, PolicyInvalid
from stepgrant_broker.policy.probes import proven
from stepgrant_broker.usecases.activate_policy import activate_policy, next_revision
from stepgrant_broker.wiring import Broker, bundle_of
from stepgrant_broker.wiring.policy_engines import Wanted

RARE: Final = 'decision := {"effect": "deny", "reasons": ["No Code"]} if input.action.tool == "rare"\n'
"""A branch that no sample reaches."""
ADVISED: Final = {
    "bad_reason": RARE,
    "bad_effect": RARE.replace('"deny"', '"dény"').replace("No Code", "rare"),
    "no_codes": 'decision := {"effect": "deny", "reasons": "rare"} if input.action.tool == "rare"\n',
    "unused_rule": "denny := true\n",
}
REFUSED: Final = {
    "builtin_refused": 'decision := {"effect": "deny", "reasons": ["x"]} if http.send({"url": input.action.tool})\n',
    "does_not_compile": "decision := {\n",
    "number_form": 'decision := {"effect": "deny", "reasons": ["x"]} if input.step.attempt > 1e3\n',
    "recursion": "again(n) := again(n)\n\nseen if again(1)\n",
    "unknown_data": 'decision := {"effect": "deny", "reasons": ["x"]} if data.limits.gone\n',
    "unknown_input": 'decision := {"effect": "deny", "reasons": ["x"]} if input.action.gone\n',
    "with_refused": 'decision := {"effect": "deny", "reasons": ["x"]} if input.action.tool == "y" with input as {}\n',
}
MISSPELT: Final = {
    "limits/data.json": '{"mix": 1}',
    "limits/schema.json": '{"type": "object", "properties": {"max": {}}, "additionalProperties": false}',
}


def with_more(rego: str, **files: str) -> Bundle:
    return bundle_of({"stepgrant/main.rego": f"{REGO.replace('WORD', 'old')}\n{rego}", **files})


async def activated_before(broker: Broker, bundle: Bundle) -> str:
    """It became active under a broker whose checks had nothing against it."""
    revision = await next_revision(broker.ports, bundle.digest)
    await activate_policy(broker.ports, "default", None, revision=revision, text=bundle.files)
    return revision


@pytest.mark.parametrize("code", ADVISED)
async def test_what_is_only_advised_does_not_stop_the_policy_in_force(
    broker: Broker, events: list[MutableMapping[str, Any]], code: str
) -> None:
    bundle = with_more(ADVISED[code])
    assert {one.code for one in check(bundle)} & ADVICE == {code}
    revision = await activated_before(broker, bundle)
    assert await broker.activate(bundle) == revision
    assert broker.policy.revision == revision
    (told,) = [event for event in events if event["event"] == "policy_has_findings"]
    assert (told["log_level"], told["revision"]) == ("warning", revision)
    assert told["findings"] == [str(one) for one in check(bundle)]
    assert "stepgrant/main.rego:" in told["findings"][0]
    assert code in told["findings"][0]


@pytest.mark.parametrize("code", ADVISED)
async def test_a_new_policy_with_the_same_fault_is_refused(broker: Broker, code: str) -> None:
    before = broker.policy.revision
    with pytest.raises(PolicyInvalid) as refused:
        await broker.activate(with_more(ADVISED[code]))
    assert {one.code for one in refused.value.findings} == {code}
    assert broker.policy.revision == before
    assert (await broker.ports.store.load(Query("default"))).tenant.policy_revision == before


@pytest.mark.parametrize("code", REFUSED)
async def test_what_may_not_run_is_refused_although_it_is_in_force(broker: Broker, code: str) -> None:
    bundle = with_more(REFUSED[code])
    await activated_before(broker, bundle)
    before = broker.policy.revision
    with pytest.raises(PolicyInvalid) as refused:
        await broker.activate(bundle)
    assert code in {one.code for one in refused.value.findings}
    assert not {one.code for one in refused.value.findings} & ADVICE
    assert broker.policy.revision == before


async def test_one_that_was_in_force_once_is_a_new_one(broker: Broker) -> None:
    bundle = with_more(RARE)
    await activated_before(broker, bundle)
    after = await broker.activate(bundle_of(says("newer")))
    with pytest.raises(PolicyInvalid):
        await broker.activate(bundle)
    assert broker.policy.revision == after


def test_what_is_advice_is_exactly_this() -> None:
    """Whatever joins it lets a policy decide in spite of a finding: none that could make a rule never fire."""
    assert {"bad_effect", "bad_reason", "bad_settings", "no_codes", "unknown_setting", "unused_rule"} == ADVICE


@pytest.mark.parametrize("after", [1, 2, 3, 4])
async def test_who_is_overtaken_while_he_looks_brings_no_findings_back(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """The policy in force that has findings; another replica activates the corrected one between two looks."""
    bundle, corrected = with_more(RARE), bundle_of(says("corrected"))
    await activated_before(broker, bundle)
    store, looks = type(broker.ports.reads), []

    async def overtaken(self: Reads, real: Any = store.tenants) -> Any:  # noqa: ANN401 - as of `tenants`
        found = await real(self)
        looks.append(found)
        if len(looks) == after:
            await activated_before(broker, corrected)
        return found

    monkeypatch.setattr(store, "tenants", overtaken)
    with pytest.raises(PolicyInvalid if after < 4 else PolicyUnavailable):
        await broker.activate(bundle)
    (tenant,) = await broker.ports.reads.tenants()
    assert tenant.policy_revision is not None
    assert tenant.policy_revision.endswith(corrected.digest)


async def test_a_sound_policy_is_told_nothing(broker: Broker, events: list[MutableMapping[str, Any]]) -> None:
    bundle = bundle_of(says("sound"))
    await broker.activate(bundle)
    await broker.activate(bundle)
    assert not [event for event in events if event["event"] == "policy_has_findings"]


async def test_the_broker_starts_again_with_it(made: Made, tmp_path: Path) -> None:
    """The whole start, settings that no schema allows included; other files with the same fault do not start it."""
    folder = tmp_path / "policy"
    bundle = with_more(RARE, **MISSPELT)
    for path, text in (MISSPELT | dict(bundle.files)).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    async with made() as broker:
        revision = await activated_before(broker, bundle)
    async with made(policy_dir=folder, create=False) as broker:
        assert broker.policy.revision == revision
    with (folder / "stepgrant" / "main.rego").open("a") as rules:
        rules.write("# one byte more\n")
    with pytest.raises(PolicyInvalid, match="bad_reason"):
        async with made(policy_dir=folder, create=False):
            pytest.fail("started with a new policy that has findings")


async def test_it_is_waited_for_when_opa_has_not_got_it_yet(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start beside an OPA that comes later: what is waited for is checked as what is activated."""
    bundle = with_more(RARE)

    async def unavailable(*_: object, **__: object) -> str:
        raise PolicyUnavailable("OPA cannot be reached")

    monkeypatch.setattr(Broker, "activate", unavailable)
    wanted = Wanted(broker, patient=True)
    with pytest.raises(PolicyInvalid, match="bad_reason"):
        await wanted.want(bundle)
    waited = wanted.waits
    await activated_before(broker, bundle)
    assert await wanted.want(bundle) is None
    assert (waited, wanted.waits) == (False, True)
    await wanted.stop()


def test_the_checks_alone_know_of_no_policy_in_force() -> None:
    with pytest.raises(PolicyInvalid, match="bad_reason"):
        proven(with_more(RARE), "check", deadline_s=5)
