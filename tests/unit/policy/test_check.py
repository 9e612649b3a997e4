"""What may not be activated, by the code of its finding. Unchecked, these lines fail open or never end."""

import pytest

from policies import ALLOW, HEAD, SLOW, one
from stepgrant_broker.policy import builtins
from stepgrant_broker.policy.bundle import from_files, read_demo, read_starter, starter_files
from stepgrant_broker.policy.check import MAX_NESTING, check, check_tests
from stepgrant_broker.policy.findings import Finding, PolicyInvalid

DECIDE = 'decision := {"effect": "allow", "reasons": ["ok"]} if '


def codes(text: str, **more: str) -> list[tuple[int, str]]:
    return [(finding.line, finding.code) for finding in check(one(text, **more))]


@pytest.mark.parametrize("text", [ALLOW, SLOW])
def test_sound_policies_have_no_findings(text: str) -> None:
    assert check(one(text)) == ()


def test_the_starter_has_no_findings() -> None:
    assert check(read_starter()) == ()
    assert check(read_demo()) == ()
    assert check_tests(read_starter()) == ()


def test_a_finding_says_where_what_and_how_to_mend_it() -> None:
    (finding,) = check(one(HEAD + DECIDE + 'input.action.toool == "x"\n'))
    assert finding == Finding(
        "stepgrant/main.rego", 5, "unknown_input",
        "input.action.toool never exists, so this is always undefined", "write tool",
    )  # fmt: skip
    assert str(PolicyInvalid([finding])).startswith("stepgrant/main.rego:5: unknown_input: input.action.toool")


def test_an_error_names_five_findings_and_counts_the_rest() -> None:
    findings = [Finding("a.rego", line, "code", "message", "fix") for line in range(9, 0, -1)]
    error = PolicyInvalid(findings)
    assert [finding.line for finding in error.findings] == list(range(1, 10))
    assert str(error).endswith("(4 more)")
    assert error.code == "schema_violation"


@pytest.mark.parametrize(
    "body",
    [
        'input.action.toool == "x"',
        'input["action"]["toool"] == "x"',
        'input.actoin.tool == "x"',
        'not input.action.toool == "x"',
        "count([1 | input.approval.ids]) > 0",
        "count({x | some x in input.history.lables}) > 0",
        'object.get(input, ["action", "toool"], "") == ""',
        'object.get(input.action, "toool", "") == ""',
        "input.history.labels.pii",
        "input.tenant.name",
        'input.history.counts.tools["x"] > 1',
        "{\n\tevery label in input.history.lables {\n\t\tlabel\n\t}\n}",
        '"x" in input.history.tool',
    ],
)
def test_a_misspelt_member_of_the_input_is_found(body: str) -> None:
    assert {code for _, code in codes(HEAD + DECIDE + body + "\n")} == {"unknown_input"}


@pytest.mark.parametrize(
    "text",
    [
        DECIDE + '{\n\ta := input.action\n\ta.toool == "x"\n}\n',
        DECIDE + "{\n\tsome label in input.history.labels\n\tlabel.name\n}\n",
        DECIDE + "{\n\tevery _, value in input.claimed.labels {\n\t\tvalue.name\n\t}\n}\n",
        DECIDE + "resumed(input.run)\n\nresumed(run) if run.resummed\n",
        DECIDE + "outer(input.run)\n\nouter(x) if inner(x)\n\ninner(run) if run.resummed\n",
        DECIDE + "action.toool\n\naction := input.action\n",
        DECIDE + "action.toool\n\naction := a if {\n\ta := input.action\n}\n",
        DECIDE + 'object.filter(input.run, ["key"]).kee\n',
    ],
)
def test_a_misspelt_member_is_found_behind_other_names(text: str) -> None:
    assert {code for _, code in codes(HEAD + text)} == {"unknown_member"}


@pytest.mark.parametrize(
    "body",
    [
        "input.claimed.context.anything.at[3].all",
        "input.action.args.items[0].price > 1",
        "input.identity.attributes.team",
        'input.claimed.labels["env"] == "prod"',
        'input.history.counts.tool["mail.send"] > 1',
        "input.history.meters.usd > 2.5",
        "input.principal.subject",
        "input.principal == null",
        "input.approval.approvers[0]",
        'input.run.key == "x"',
        "input.requested.ttl == null",
        'input.requested.params.role == "reader"',
        "{\n\tsome index\n\tinput.history.labels[index] == input.tenant\n}",
        "{\n\tsome key\n\tinput.claimed.labels[key] == input.tenant\n}",
        '{\n\tsome key\n\tinput.action[key] == "x"\n}',
        'input.action.effect in {"read", "once"}',
        '"pii:customer" in input.history.labels',
    ],
)
def test_what_the_schema_knows_or_leaves_open_is_no_finding(body: str) -> None:
    assert codes(HEAD + DECIDE + body + "\n") == []


@pytest.mark.parametrize(
    "body",
    [
        'input.time.weekday == "Monday"',
        '"Monday" == input.time.weekday',
        'input.action.effect in {"read", "onec"}',
        'input.action.effect != "write"',
        'input.time.hour == "9"',
        'input.time.hour < "9"',
        'input.run.resumed == "true"',
        "1 in input.history.labels",
        "input.tenant == null",
    ],
)
def test_a_constant_that_is_never_met_is_found(body: str) -> None:
    assert codes(HEAD + DECIDE + body + "\n") == [(5, "never_equal")]


@pytest.mark.parametrize("name", [*sorted(builtins.REFUSED), "io.jwt.decode", "unknown.function", "crypto.sha256"])
def test_functions_that_are_not_allowed_are_refused_where_nothing_reaches_them(name: str) -> None:
    text = HEAD + DECIDE + f"{{\n\tinput.tenant\n\tfalse\n\t{name}(input.tenant)\n}}\n"
    assert codes(text) == [(8, "builtin_refused")]


def test_a_refused_function_is_found_in_every_corner() -> None:
    hidden = "http.send({})"
    for body in (
        f"count([x | x := {hidden}]) > 0",
        f"count([{hidden}]) > 0",
        f'count({{"a": {hidden}}}) > 0',
        f"not {hidden}",
        f"input[{hidden}]",
        f"{hidden}.status == 200",
        f"1 + {hidden} > 0",
        f"{{\n\tevery x in [1] {{\n\t\tx == {hidden}\n\t}}\n}}",
        f"1 in {hidden}",
        f"input.tenant else := {hidden}",
    ):
        assert "builtin_refused" in {code for _, code in codes(HEAD + DECIDE + body + "\n")}, body
    assert "builtin_refused" in {code for _, code in codes(HEAD + f"decision := {hidden}\n")}
    assert "builtin_refused" in {code for _, code in codes(HEAD + DECIDE + f"f(1)\n\nf(x) := {hidden} if x\n")}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (DECIDE + "count(1, 2)\n", "wrong_arguments"),
        (DECIDE + "f(1, 2)\n\nf(x) if x\n", "wrong_arguments"),
        (DECIDE + "data.settings.max > 1\n", "unknown_data"),
        (DECIDE + "data.stepgrant.helper\n", "unknown_data"),
        (DECIDE + "{\n\tsome x\n\tdata.stepgrant.rules[x].denny\n}\n", "unknown_data"),
        (DECIDE + "input.tenant == helper\n", "does_not_compile"),
        (DECIDE + "f(input.tenant)\n\nf(x) := y if x\n", "unknown_name"),
        (DECIDE + "f(1)\n\nf(x) := f(x)\n", "recursion"),
        (DECIDE + "f(1)\n\nf(x) := data.stepgrant.f(x)\n", "recursion"),
        (DECIDE + "f(1)\n\nf(x) := g(x)\n\ng(x) := [y | y := f(x)]\n", "recursion"),
        (DECIDE + "g[1]\n\ng contains x if some x in h\n\nh := {1} if not g[1]\n", "recursion"),
        (DECIDE + "data.stepgrant\n", "recursion"),
        (DECIDE + "{\n\tsome x\n\tdata[x].decision\n}\n", "recursion"),
        (DECIDE + 'input.tenant\n\ndenny contains "x" if input.tenant == "b"\n', "unused_rule"),
        (DECIDE + "h with input as {}\n\nh if input.tenant\n", "with_refused"),
        (DECIDE + "count([1 | h with input as {}]) > 0\n\nh if input.tenant\n", "with_refused"),
        (DECIDE + "h\n\nh if input.tenant\n\nh contains 1 if not input.tenant\n", "conflicting_rules"),
        (DECIDE + "h\n\ndefault h := 1\n\ndefault h := 2\n", "conflicting_rules"),
        (DECIDE + f"{'[' * 11}1{']' * 11}\n", "too_nested"),
        (DECIDE + "{\n\tinput.tenant ===\n}\n", "does_not_compile"),
        ('decision := "a" if {\n', "does_not_compile"),
    ],
)
def test_what_fails_open_or_never_ends_is_refused(text: str, code: str) -> None:
    assert code in {found for _, found in codes(HEAD + text)}


def test_imports_are_looked_at() -> None:
    imported = HEAD.replace("\n\ndefault", "\n\nimport WHAT\n\ndefault", 1)
    assert codes(imported.replace("WHAT", "data.nowhere") + DECIDE + "nowhere.x\n")[0] == (3, "unknown_data")
    assert (3, "input_imported") in codes(imported.replace("WHAT", "input.action") + DECIDE + 'action.tool == "x"\n')
    helper = "package stepgrant.lib\n\nok if input.tenant\n"
    assert (
        codes(imported.replace("WHAT", "data.stepgrant.lib") + DECIDE + "lib.ok\n", stepgrant__lib__lib__rego=helper)
        == []
    )
    assert codes(imported.replace("WHAT", "rego.v1") + DECIDE + "input.tenant\n") == []


def test_the_decision_needs_a_default_that_denies() -> None:
    rule = 'decision := {"effect": "allow", "reasons": ["x"]} if input.tenant\n'
    assert codes("package stepgrant\n\n" + rule) == [(3, "no_default_decision")]
    assert codes("package other\n\nx := 1\n")[0] == (1, "no_default_decision")
    for default in ('{"effect": "allow", "reasons": ["x"]}', '{"reasons": ["x"]}', '"deny"', '["deny"]'):
        assert codes(f"package stepgrant\n\ndefault decision := {default}\n\n" + rule) == [(3, "default_not_deny")]


def test_data_may_not_take_the_place_of_a_rule() -> None:
    forged = '{"decision": {"effect": "allow", "reasons": ["forged"]}}'
    found = check(from_files({"main.rego": ALLOW, "stepgrant/data.json": forged}))
    assert [finding.code for finding in found] == ["data_over_rule"]


def test_a_rule_may_not_be_a_package() -> None:
    text = HEAD + DECIDE + "lib\n\nlib := 1\n"
    assert (7, "conflicting_rules") in codes(text, stepgrant__lib__lib__rego="package stepgrant.lib\n\nok := 1\n")


def test_settings_must_fit_their_schema() -> None:
    schema = '{"type": "object", "additionalProperties": false, "properties": {"max": {"type": "number"}}}'
    text = HEAD + DECIDE + "data.settings.max > 1\n"
    files = {"stepgrant/main.rego": text, "settings/schema.json": schema}
    assert check(from_files({**files, "settings/data.json": '{"max": 2}'})) == ()
    (finding,) = check(from_files({**files, "settings/data.json": '{\n  "max": 2,\n  "maxx": 3\n}'}))
    assert (finding.file, finding.line, finding.code) == ("settings/data.json", 3, "bad_settings")
    # What the schema knows may be absent from the data; what it does not know is a misspelling.
    assert check(from_files({**files, "settings/data.json": "{}"})) == ()
    wrong = {**files, "stepgrant/main.rego": text.replace(".max", ".maxx"), "settings/data.json": '{"max": 2}'}
    assert {finding.code for finding in check(from_files(wrong))} == {"unknown_data", "unknown_member"}


@pytest.mark.parametrize(
    "more",
    [
        {"settings/schema.json": "[]"},
        {"settings/schema.json": '{"type": "text"}'},
        {"settings/schema.json": '{"properties": {"max": 3}}'},
        {"settings/schema.json": '{"required": "max"}'},
        {"settings/schema.json": '{"additionalProperties": {"minimum": "0"}}'},
    ],
)
def test_a_schema_that_is_none_is_a_finding(more: dict[str, str]) -> None:
    found = check(from_files({"stepgrant/main.rego": ALLOW, "settings/data.json": '{"max": 1}', **more}))
    assert [(finding.file, finding.code) for finding in found] == [("settings/schema.json", "bad_schema")]


def test_schemas_within_each_other_are_borne() -> None:
    text = HEAD + DECIDE + "data.settings.a.b.c > data.settings.z\n"
    files = {"stepgrant/main.rego": text, "settings/data.json": '{"a": 3, "z": 1}', "settings/schema.json": "{}"}
    assert check(from_files({**files, "settings/a/b/schema.json": "{}", "settings/z/schema.json": "{}"})) == ()


def test_members_of_described_data_are_followed() -> None:
    files = dict(read_starter().files)
    path = "stepgrant/rules/amounts/amounts.rego"
    files[path] = files[path].replace("settings.tool.amount.max", "settings.tool.amount.maximum")
    files["stepgrant_config/schema.json"] = '{"type": "object"}'
    assert check(from_files(files)) == ()
    files["stepgrant_config/schema.json"] = starter_files()["stepgrant_config/schema.json"].decode()
    assert [(finding.file, finding.code) for finding in check(from_files(files))] == [(path, "unknown_member")]


def test_brackets_in_texts_and_comments_do_not_count() -> None:
    many = "[" * 50
    text = HEAD + f"# {many}\n" + DECIDE + f'input.tenant in {{"{many}\\"{many}", `{many}`}}\n'
    assert codes(text) == []
    deep = HEAD + DECIDE + f"count({'[' * (MAX_NESTING - 1)}1{']' * (MAX_NESTING - 1)}) > 0\n"
    assert codes(deep) == []


def test_tests_that_would_end_the_process_are_found() -> None:
    endless = "package main_test\n\ntest_a if f(1)\n\nf(x) := f(x)\n"
    found = check_tests(one(ALLOW, stepgrant__main_test__rego=endless.replace("x)\n", "x)\n")))
    assert [finding.code for finding in found] == ["recursion"]
    nested = f"package main_test\n\ntest_a if {'[' * 20}1{']' * 20}\n"
    assert [finding.code for finding in check_tests(one(ALLOW, stepgrant__main_test__rego=nested))] == ["too_nested"]
    broken = "package main_test\n\ntest_a if {\n"
    assert [finding.code for finding in check_tests(one(ALLOW, stepgrant__main_test__rego=broken))] == [
        "does_not_compile"
    ]
