"""Whatever carries a secret in memory masks it when it is shown, and refuses to be pickled or copied."""

from __future__ import annotations

import copy
import pickle
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from fakes.faults_secrets import Secrets
from stepgrant import _http, _http1, _outcomes, _wire
from stepgrant._dpop import DpopKey
from stepgrant._exchange import AccessToken, Exchanged, TokenRequest, WorkloadKey
from stepgrant._keys import SecretKey
from stepgrant._secrets import LiveSecrets
from stepgrant.cli.client_file import Client
from stepgrant.credential import Credential, end, receive
from stepgrant.verify import Presented
from stepgrant_broker.api.messages import Answer
from stepgrant_broker.domain.caller import Request
from stepgrant_broker.domain.chain_keys import Keys
from stepgrant_broker.domain.commitments import ChainSecret, Committer, Kept, Payload
from stepgrant_broker.domain.ports import Minted
from stepgrant_broker.signing.local import LocalSigner
from stepgrant_broker.signing.wrap import LocalWrap

VALUE: Final = "sk_live_51f0c2d94b7e4f6a8d3e"
PROTOCOLS: Final = range(pickle.HIGHEST_PROTOCOL + 1)
HEADERS: Final = {"Authorization": f"DPoP {VALUE}", "DPoP": VALUE}


def run_outcome() -> _outcomes.Run:
    """What the broker answers to `begin`."""
    grant = _outcomes.IssuedGrant("grn_1", 0, 60_000, "https://tool.example", "static", "once", "optional", "key")
    issued = _outcomes.IssuedCredential("static", {"value": VALUE, "header": "X-Key"}, ["tool.example"])
    return _outcomes.Run(step="s", attempt=1, grant=grant, credential=issued)


def credential() -> Credential:
    return receive(run_outcome(), asked_at=0, key=DpopKey(), alive=lambda: None)


def live() -> LiveSecrets:
    made = LiveSecrets()
    made.add([VALUE], until=1e12)
    return made


def keys() -> Keys:
    made = Keys()
    made._kept["acme", "run_1", b"", b""] = ChainSecret(VALUE.encode())
    return made


def exchanged() -> Exchanged:
    return Exchanged(AccessToken(VALUE, 1.0, "jkt"), None)


FIXED: Final[dict[str, Callable[[], object]]] = {
    "Credential": credential,
    "IssuedCredential": lambda: run_outcome().credential,
    "LiveSecrets": live,
    "one of LiveSecrets": lambda: next(iter(live()._known.values())),
    "AccessToken": lambda: exchanged().token,
    "a request of the SDK": lambda: _http1.Request(b"POST", b"/", [(b"authorization", VALUE.encode())], b"", 1.0),
    "an answer to the SDK": lambda: _http.Answer(200, {}, VALUE.encode()),
    "SetSecret": lambda: _wire.SetSecret(value=VALUE, hosts=["tool.example"]),
    "Client": lambda: Client("https://broker.example", VALUE, "a file"),
    "Minted": lambda: Minted("static", {"value": VALUE, "header": "X-Key"}, 1),
    "ChainSecret": lambda: ChainSecret(VALUE.encode()),
    "Committer": lambda: Committer(VALUE.encode()),
    "Keys": keys,
}
"""With `VALUE` inside."""

SHOWN: Final[dict[str, Callable[[], object]]] = {
    "an outcome": run_outcome,
    "an exchange": exchanged,
    "Presented": lambda: Presented.of("POST", "https://tool.example", HEADERS),
    "an answer of the API": lambda: Answer(200, VALUE.encode()),
    "a payload": lambda: Payload("c", "field", "value", VALUE.encode()),
    "a payload at rest": lambda: Kept("c", "field", "value", VALUE.encode()),
    "a request to a use case": lambda: Request("key", VALUE.encode()),
}
"""These hold something of the above, or live for one call; they are shown masked."""


def fresh(kind: str, folder: Path) -> tuple[object, Secrets]:
    """A key of ours, and what is secret in it."""
    secrets = Secrets()
    if kind in {"LocalSigner", "LocalWrap"}:
        owner: Any = LocalSigner if kind == "LocalSigner" else LocalWrap
        made = owner.open(folder / "keys", create=True)
        for path in (folder / "keys").iterdir():
            secrets.add_file(path)
        return made, secrets
    secret = SecretKey.generate()
    secrets.add(kind, secret.to_private_jwk()["d"])
    if kind == "SecretKey":
        return secret, secrets
    workload = WorkloadKey("wkl_1", secret)
    return (workload, secrets) if kind == "WorkloadKey" else (TokenRequest("https://b", workload, DpopKey()), secrets)


def refuses(thing: object, *, shallow: bool = True) -> None:
    """Pickling and copying; `shallow`: also the copy that only takes over what is inside."""
    acts: list[Callable[[], object]] = [partial(pickle.dumps, thing, protocol=number) for number in PROTOCOLS]
    acts += [partial(copy.deepcopy, thing), *([partial(copy.copy, thing)] if shallow else [])]
    for act in acts:
        with pytest.raises(TypeError, match=r"pickled|copied|cannot pickle|no state") as caught:
            act()
        assert VALUE not in "".join(traceback.format_exception(caught.value))


def masks(thing: object, secrets: Secrets) -> None:
    assert secrets.found_in([repr(thing), str(thing), f"{thing}", repr([thing]), repr({"thing": thing})]) == []


def known() -> Secrets:
    secrets = Secrets()
    secrets.add("the secret", VALUE)
    return secrets


@pytest.mark.parametrize("name", FIXED)
def test_it_masks_and_refuses(name: str) -> None:
    thing = FIXED[name]()
    masks(thing, known())
    refuses(thing)


@pytest.mark.parametrize("name", SHOWN)
def test_it_masks(name: str) -> None:
    masks(SHOWN[name](), known())


@pytest.mark.parametrize("kind", ["SecretKey", "WorkloadKey", "LocalSigner", "LocalWrap"])
def test_a_key_masks_and_refuses(kind: str, tmp_path: Path) -> None:
    thing, secrets = fresh(kind, tmp_path)
    masks(thing, secrets)
    refuses(thing)


def test_a_holders_key_masks_and_refuses() -> None:
    key, secrets = DpopKey(), Secrets()
    assert key._secret is not None
    secrets.add("key", key._secret.to_private_jwk()["d"])
    masks(key, secrets)
    refuses(key)


def test_an_exchange_masks_its_keys(tmp_path: Path) -> None:
    request, secrets = fresh("TokenRequest", tmp_path)
    masks(request, secrets)
    refuses(request, shallow=False)


def test_what_carries_a_carrier_refuses_with_it() -> None:
    """Pickling an outcome, or an exchange, means pickling what is in it."""
    refuses(exchanged(), shallow=False)
    refuses(run_outcome(), shallow=False)


def test_the_credential_is_gone_with_its_step() -> None:
    held = credential()
    assert end(held) == [VALUE]
    assert held._fields == {}
