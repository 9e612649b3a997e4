"""Tools for agents of tests: each calls the shop, and says what the shop said."""

from __future__ import annotations

from typing import Any

import httpx

import stepgrant
from faces import Face
from faults.forks import NO_TLS
from shop import Shop


def calling(shop: Shop, name: str) -> Any:  # noqa: ANN401 - a function with a signature
    """A function that has the shop do `name`."""

    def tool(order: str, amount: int = 5) -> dict[str, Any]:
        with httpx.Client(auth=stepgrant.http.Auth(), verify=NO_TLS, trust_env=False) as client:
            answer = client.post(f"{shop.url}/{name}", json={"order": order, "amount": amount})
        return dict(answer.raise_for_status().json())

    tool.__name__ = name
    return tool


def asking(shop: Shop, name: str) -> Any:  # noqa: ANN401 - a function with a signature
    """A reconcile hook: ask the shop what was done under the step's idempotency key."""

    def look(step: stepgrant.CurrentStep) -> stepgrant.Verdict:
        with httpx.Client(auth=stepgrant.http.Auth(), verify=NO_TLS, trust_env=False) as client:
            url = f"{shop.url}/{name}.reconcile"
            answer = client.post(url, params={"key": step.idempotency_key}, json=dict(step.args))
        found = answer.raise_for_status().json()
        return stepgrant.done({"done": name, **found[0]}, evidence="in the book") if found else stepgrant.not_done()

    return look


def tool_of(face: Face, shop: Shop, name: str, **declared: Any) -> Any:  # noqa: ANN401 - a guarded tool
    """The guarded tool `name`, its step named after the order."""
    return face.tool(calling(shop, name), **{"step_id": f"{name}-{{order}}", **declared})
