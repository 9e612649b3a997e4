"""What a question to people is about, and that it is all that an answer would be bound to. Pure.

The broker tells what it asks and the digest that the answer echoes. A person reads the one and answers the other, so
the digest is computed here once more, from what is printed and nothing else; where it comes out otherwise, nobody
answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from stepgrant import canonical
from stepgrant.cli import plain

EFFECTS: Final = {
    "read": "changes nothing",
    "idempotent": "may be repeated, with one key, without doing it twice",
    "once": "at most once; nobody repeats it by himself",
}
WANTS: Final = {
    "stepgrant.run.resume": "resume: go on with a run that nobody holds",
    "stepgrant.run.takeover": "takeover: go on with a run that somebody else holds or held",
}
UNKEPT: Final = "what it is bound to was erased, or asked by an older broker, and cannot be shown"


def mismatch(asked: Mapping[str, Any]) -> str | None:
    """Why what is shown is not what the digest stands for; `None` where it is."""
    bound = asked.get("bound")
    if not isinstance(bound, Mapping):
        return UNKEPT
    if _digest(bound) != asked["digest"]:
        return "what it is bound to has another digest"
    if any(bound.get(name) != asked[name] for name in ("run", "step", "effect", "issuer")):
        return "it is bound to another run, step, effect or issuer"
    resume, action = asked.get("resume"), asked.get("action") or {}
    if isinstance(resume, Mapping):
        fits = resume.get("run") == bound.get("run") and _digest(resume) == bound.get("digest")
        return None if fits else "it is bound to another resume"
    shown = {"action": action.get("tool"), "resource": action.get("resource"), "args": action.get("args")}
    return None if _digest(shown) == bound.get("digest") else "it is bound to another action"


def _digest(value: Mapping[str, Any]) -> str | None:
    try:
        return canonical.digest(dict(value))
    except canonical.CanonicalError:
        return None


def heading(asked: Mapping[str, Any]) -> str:
    """What the facts below it are about."""
    return "this exact action" if asked.get("resume") is None else "going on with this run"


def facts(asked: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Name and value of what is asked; values are not made visible yet."""
    action, resume = asked.get("action") or {}, asked.get("resume")
    tool = action.get("tool", asked["tool"])
    if resume is None:
        yield "tool", tool
        yield "resource", "none" if action.get("resource") is None else action["resource"]
    else:
        yield "asks for", WANTS.get(tool, tool)
        yield "who", resume["subject"]
        yield "counts for", "a resume or a takeover of this run by this subject, by nobody else"
    yield "effect", f"{asked['effect']}: {EFFECTS.get(asked['effect'], '')}"
    yield "issuer", asked["issuer"]


def values(asked: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Heading and lines of what may be long: arguments, and the parameters that the issuer gets."""
    if asked.get("resume") is None:
        yield "arguments", plain.json_lines((asked.get("action") or {}).get("args"))
    bound = asked.get("bound")
    yield "issuer parameters", ["not known"] if bound is None else plain.json_lines(bound["params"])
