"""Whether a policy may be activated: it compiles, calls only what it may, names only what exists, and answers.

Rules:
* Everything is checked, also what no input reaches today.
* The text is measured before the engine reads it: its parser takes twice as long for each level of brackets and holds
  the interpreter meanwhile.
* Settings (`data.json`) must fit the `schema.json` beside them: a misspelt limit is no limit.
* Checking runs on an engine of its own in the calling thread; nothing of the active policy is touched.
* The same bytes are wrong in the same way: what was found in the last few policies is remembered by their digests, for
  many tenants have one policy, and each is checked when a broker starts.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from stepgrant import canonical
from stepgrant_broker.policy import schema
from stepgrant_broker.policy.bundle import Bundle
from stepgrant_broker.policy.check_names import name_findings
from stepgrant_broker.policy.check_numbers import number_findings
from stepgrant_broker.policy.check_reasons import reason_findings
from stepgrant_broker.policy.check_rules import recursions, rule_findings
from stepgrant_broker.policy.check_settings import meaning_of_settings, shape_of_settings
from stepgrant_broker.policy.check_shapes import shape_findings
from stepgrant_broker.policy.findings import Finding, PolicyInvalid
from stepgrant_broker.policy.names import Index
from stepgrant_broker.policy.rego import Rego, RegoError
from stepgrant_broker.policy.syntax import Module
from stepgrant_broker.policy.syntax_reader import UnknownSyntax, read_module

MAX_NESTING: Final = 10
"""Brackets within brackets. The parser's time doubles with each: 25 ms at 10, two seconds at 16."""
PROBE_FILE: Final = "(check)"
PROBE_TEXT: Final = "package stepgrant_check\n\nok := true\n"
PROBE_RULE: Final = "data.stepgrant_check.ok"

REMEMBERED: Final = 16

_knowing: Final = threading.Lock()
_known: Final[dict[tuple[str, str, frozenset[str] | None], tuple[Finding, ...]]] = {}
_TOKENS: Final = re.compile(r'"(?:[^"\\\n]|\\.)*"|`[^`]*`|#[^\n]*|[\[{(]|[\]})]|\n', re.DOTALL)


def check(bundle: Bundle, issuers: Collection[str] | None = None) -> tuple[Finding, ...]:
    """Everything that is wrong with the policy as it is written, in order of place; empty when nothing is.

    `issuers`: the names of the broker's, where they are known; `None` lets any name of an issuer pass.
    """
    described = canonical.digest(dict(bundle.schemas))
    key = (bundle.digest, described, None if issuers is None else frozenset(issuers))
    with _knowing:
        found = _known.get(key)
    if found is None:
        found = _check(bundle, issuers)
        with _knowing:
            _known[key] = found
            while len(_known) > REMEMBERED:
                del _known[next(iter(_known))]
    return found


def _check(bundle: Bundle, issuers: Collection[str] | None) -> tuple[Finding, ...]:
    schemas = {path: one for path, one in bundle.schemas.items() if not schema.schema_problem(one)}
    findings = [*_bad_schemas(bundle), *shape_of_settings(bundle, schemas), *number_findings(bundle)]
    findings.extend(finding for path, text in bundle.modules.items() for finding in _nesting(path, text))
    if any(finding.code == "too_nested" for finding in findings):
        return tuple(sorted(findings))
    try:
        modules = compiled(bundle.modules, bundle.data)
    except PolicyInvalid as invalid:
        return tuple(sorted([*findings, *invalid.findings]))
    index = Index(modules)
    findings.extend(name_findings(index, bundle.data, lambda pattern: schema.describes(schemas, pattern)))
    findings.extend(rule_findings(index, bundle.data))
    findings.extend(shape_findings(index, schemas))
    findings.extend(reason_findings(index))
    findings.extend(meaning_of_settings(bundle, schemas, index, issuers))
    return tuple(sorted(set(findings)))


def check_tests(bundle: Bundle) -> tuple[Finding, ...]:
    """What would keep the policy's tests from running: they do not compile, or would end the process."""
    findings = [finding for path, text in bundle.tests.items() for finding in _nesting(path, text)]
    if findings:
        return tuple(sorted(findings))
    try:
        return tuple(sorted(recursions(Index(compiled({**bundle.modules, **bundle.tests}, bundle.data)))))
    except PolicyInvalid as invalid:
        return invalid.findings


def compiled(texts: Mapping[str, str], data: Mapping[str, Any]) -> list[Module]:
    """The modules as the engine reads them. Raises `PolicyInvalid`."""
    modules: list[Module] = []
    tree: dict[str, Any] = {}
    try:
        rego = Rego({**texts, PROBE_FILE: PROBE_TEXT}, data)
        # The engine orders statements when it evaluates for the first time, and finds more mistakes then.
        rego.evaluate(b"{}", PROBE_RULE)
        for tree in rego.syntax_trees():
            if tree["source"]["file"] != PROBE_FILE:
                modules.append(read_module(tree))
    except RegoError as error:
        file = error.file or next(iter(texts))
        raise PolicyInvalid(
            [Finding(file, error.line, "does_not_compile", error.message, "correct the rule")]
        ) from None
    except UnknownSyntax as unknown:
        message = f"{unknown.what} is not understood by the checks"
        file = tree["source"]["file"]
        raise PolicyInvalid(
            [Finding(file, unknown.line, "unknown_syntax", message, "write it in another way")]
        ) from None
    return modules


def _bad_schemas(bundle: Bundle) -> Iterator[Finding]:
    for path, one in bundle.schemas.items():
        problem = schema.schema_problem(one)
        if problem:
            name = path.removesuffix("data.json") + "schema.json"
            yield Finding(name, 0, "bad_schema", problem, "correct the schema, or remove the file")


def _nesting(path: str, text: str) -> Iterator[Finding]:
    depth, line = 0, 1
    for token in _TOKENS.finditer(text):
        word = token[0]
        if word in "[{(":
            depth += 1
        elif word in "]})":
            depth -= 1
        line += word.count("\n")
        if depth > MAX_NESTING:
            message = f"more than {MAX_NESTING} brackets within each other"
            yield Finding(path, line, "too_nested", message, "give the inner part a name of its own")
            return
