"""Rules that came after the first format of stored documents: what each refuses and leaves, and stored documents."""

import json
from typing import Any

import pytest

from fastrunner._core import InvalidWorkflow, Plan, validate
from fastrunner._core import compile as compile_workflow
from tests.core.documents import found, problems, workflow
from tests.core.walking import finish

SET = {"set": {"a": 1}}
LOOSE = {"evaluate": {"mode": "loose"}}
HTTP = {"method": "get", "endpoint": "https://example.com"}


def codes(document: Any) -> list[str]:
    return [code for code, _ in found(document)]


# --- names of tasks ---


@pytest.mark.parametrize("name", ["end", "exit", "continue"])
def test_tasks_named_like_directives(name: str) -> None:
    named = {name: SET}
    assert found({**workflow(), "do": [named]}) == [("reserved-name", f"/do/0/{name}")]
    assert found(workflow({"do": [{"a": SET}, named]})) == [("reserved-name", f"/do/0/t0/do/1/{name}")]
    assert found(workflow({"try": [named], "catch": {"do": [named]}})) == [
        ("reserved-name", f"/do/0/t0/try/0/{name}"),
        ("reserved-name", f"/do/0/t0/catch/do/0/{name}"),
    ]
    assert codes(workflow({"fork": {"branches": [named]}})) == ["reserved-name"]
    assert f"then: {name}" in problems({**workflow(), "do": [named]})[0].message


@pytest.mark.parametrize("name", ["End", "ends", "exit ", "continued", "then"])
def test_tasks_named_nearly_so(name: str) -> None:
    assert found({**workflow(), "do": [{name: SET}]}) == []


def test_other_things_may_have_these_names() -> None:
    assert found(workflow({"switch": [{"end": {"when": ".a", "then": "exit"}}, {"exit": {"then": "end"}}]})) == []
    assert found(workflow(SET, use={"functions": {"end": SET}, "timeouts": {"exit": {"after": "PT1S"}}})) == []


# --- lists of loops ---


@pytest.mark.parametrize(
    "text",
    [
        ".xs[]",
        "${ .xs[] }",
        ".xs[]?",
        ".xs | .[]",
        ".a, .b",
        "range(3)",
        "range(0; 10; 2)",
        "..",
        "recurse",
        "recurse(.children[])",
        "empty",
        ".groups[].items",
        ".xs[] | select(.ok)",
        ".xs[] // []",
        "try .xs[]",
        ".xs[] as $x | $x",
        ".xs as [$a, $b] | $a, $b",
        "def f: 1; .xs[]",
        "paths",
        "(.a, .b)",
    ],
)
def test_loops_over_results_one_by_one(text: str) -> None:
    document = workflow({"for": {"in": text}, "do": []})
    assert found(document) == [("several-results", "/do/0/t0/for/in")]
    assert "[.items[]]" in problems(document)[0].message
    assert codes({**document, **LOOSE}) == ["several-results"]


@pytest.mark.parametrize(
    "text",
    [
        "[.xs[]]",
        ".xs",
        "${ .xs }",
        "map(.a)",
        ".xs | map(.a)",
        "map(select(.ok))",
        "[.xs[] | select(.ok)]",
        "[.a, .b]",
        "[range(3)]",
        ".xs | select(length > 0)",
        ".xs // []",
        ".xs?",
        ".xs[0]",
        ".xs[1:]",
        "first(.xs[])",
        "last(.xs[])",
        "reduce .xs[] as $x ([]; . + [$x])",
        "try error(.xs) catch .",
        "try (.xs[] | error) catch .",
        "label $out | .xs[] | if .ok then .items, break $out else empty end",
        "if .a then .xs else [] end",
        "[limit(3; .xs[])]",
        "def range(x): [x]; range(3)",
        "def f: .xs; f",
        "to_entries",
        "keys",
        ". as [$a] | [$a]",
        "$input.xs",
        ".a += 1 | .xs",
        "any(.xs[]; .) | [.]",
        'split(",")',
        "[paths]",
    ],
)
def test_loops_over_one_list(text: str) -> None:
    assert found(workflow({"for": {"in": text}, "do": []})) == []


def test_items_of_an_inline_list_may_be_anything() -> None:
    assert found(workflow({"for": {"in": ["${ .xs[] }", "${ .a, .b }"]}, "do": []})) == []
    assert found(workflow({"set": ".xs[]"}, {**SET, "input": {"from": ".a, .b"}})) == []


# --- filters of errors ---


@pytest.mark.parametrize("key", ["type", "instance", "title", "detail", "details"])
def test_filters_are_literal(key: str) -> None:
    def filtered(value: Any) -> Any:
        return workflow({"try": [], "catch": {"errors": {"with": {key: value}}}})

    for text in ("${ .x }", " ${.x}", "${ .x } and more", "${"):
        assert found(filtered(text)) == [("never-matches", f"/do/0/t0/catch/errors/with/{key}")]
    for text in ("x", "", ".x", "costs $5", "x ${ .x }", "$ {x}"):
        assert found(filtered(text)) == []


def test_status_of_a_filter_is_a_number() -> None:
    document = workflow({"try": [], "catch": {"errors": {"with": {"status": "${ .x }"}}}})
    assert codes(document) == ["wrong-type"]


@pytest.mark.parametrize(
    ("instance", "expected"),
    [("/do/0", []), ("", []), ("${ .i }", []), ("do/0", ["invalid-format"]), ("/a~2", ["invalid-format"])],
)
def test_instances_of_raised_errors_are_pointers(instance: str, expected: list[str]) -> None:
    error = {"type": "https://a", "status": 400, "instance": instance}
    assert codes(workflow({"raise": {"error": error}})) == expected


# --- durations ---


@pytest.mark.parametrize(
    "wait",
    [
        "P1001Y",
        "P365001D",
        "PT99999999999999999H",
        "P" + "9" * 40 + "Y",
        "P" + "9" * 5_000 + "D",
        {"days": 365_001},
        {"days": 10**30},
        {"milliseconds": -(10**30)},
        {"days": 300_000, "hours": 24 * 65_001},
    ],
)
def test_durations_of_more_than_a_thousand_years(wait: Any) -> None:
    document = workflow({"wait": wait})
    (problem,) = problems(document)
    assert (problem.code, problem.message) == ("out-of-range", "a duration is at most a thousand years")


@pytest.mark.parametrize("wait", ["P1000Y", "P365000D", {"days": 365_000}, "P0000000000000001Y", {"days": 0}])
def test_durations_of_less(wait: Any) -> None:
    assert found(workflow({"wait": wait})) == []


@pytest.mark.parametrize(
    ("wait", "code"), [("P1001", "invalid-format"), ({"days": 1.5}, "wrong-type"), ("1001Y", "invalid-format")]
)
def test_no_durations(wait: Any, code: str) -> None:
    assert codes(workflow({"wait": wait})) == [code]


# --- text that opens like an expression ---


@pytest.mark.parametrize(
    "text", ["${ .y }}", "${ .a } and ${ .b }", "${ .a", "${", "${HOME}/bin", "  ${ .a }/x", "${ (.a }"]
)
@pytest.mark.parametrize("mode", ["strict", "loose"])
def test_text_that_opens_like_an_expression(text: str, mode: str) -> None:
    root = {"evaluate": {"mode": mode}}
    assert found(workflow({"set": {"x": text}}, **root)) == [("invalid-expression", "/do/0/t0/set/x")]
    assert codes(workflow({"set": {"x": [{"y": text}]}}, **root)) == ["invalid-expression"]
    assert codes(workflow({"call": "http", "with": {**HTTP, "headers": {"a": text}}}, **root)) == ["invalid-expression"]
    error = {"type": "https://a", "status": 400, "detail": text}
    assert codes(workflow({"raise": {"error": error}}, **root)) == ["invalid-expression"]


@pytest.mark.parametrize("text", ["a ${ .b }", "costs $5", "$ { .a }", "}", "{ .a }", "$x", "", "${ .a }", " ${ .a } "])
def test_other_text_stays_text(text: str) -> None:
    assert found(workflow({"set": {"x": text}})) == []


# --- variables without a value ---


def test_secrets_that_nobody_declares() -> None:
    task = {"set": {"a": "${ $secrets.x }"}}
    (problem,) = problems(workflow(task))
    assert (problem.code, problem.pointer) == ("unprovided-variable", "/do/0/t0/set/a")
    assert "use.secrets" in problem.message
    assert codes(workflow(task, use={"secrets": []})) == ["unprovided-variable"]
    assert codes(workflow({**SET, "if": "$secrets.x"})) == ["unprovided-variable"]
    assert codes(workflow(SET, output={"as": "{a: $secrets}"})) == ["unprovided-variable"]
    assert codes(workflow(task, use={"secrets": ["x"]})) == []


def test_authorization_where_nothing_authenticates() -> None:
    task = {"set": {"a": "${ $authorization.parameter }"}}
    policy = {"bearer": {"token": "t"}}
    endpoint = {"uri": "https://a", "authentication": policy}
    (problem,) = problems(workflow(task))
    assert problem.code == "unprovided-variable"
    assert "authentication" in problem.message
    assert codes(workflow(task, {"set": {"authentication": policy}})) == ["unprovided-variable"]
    assert codes(workflow(task, {"call": "http", "with": {**HTTP, "endpoint": endpoint}})) == []
    assert codes(workflow({"call": "http", "with": {**HTTP, "endpoint": endpoint}}, task)) == []
    named = {"uri": "https://a", "authentication": {"use": "p"}}
    use = {"authentications": {"p": policy}}
    assert codes(workflow(task, {"call": "http", "with": {**HTTP, "endpoint": named}}, use=use)) == []


@pytest.mark.parametrize(
    "text", ["$output", "$secrets", "$secrets.x", "$authorization", "$nothing", "$item", "$output.a"]
)
def test_loose_text_whose_variable_has_no_value_is_text(text: str) -> None:
    run = finish([{"t": {"set": {"a": text, "b": [text]}}}], evaluate={"mode": "loose"})
    assert run.output == {"a": text, "b": [text]}


def test_loose_text_whose_variable_has_a_value() -> None:
    task = {"set": {"a": 1}, "output": {"as": {"x": "$output", "y": "$context", "z": "$input.q"}}}
    assert finish([{"t": task}], {"q": 2}, evaluate={"mode": "loose"}).output == {"x": {"a": 1}, "y": None, "z": 2}


def test_wrapped_expressions_are_checked_in_loose_mode() -> None:
    assert codes(workflow({"set": {"a": "${ $secrets.x }"}}, **LOOSE)) == ["unprovided-variable"]
    assert codes(workflow({"set": {"a": "$secrets.x"}}, **LOOSE)) == []


# --- stored documents ---

STORED = [
    {**workflow(), "do": [{"end": SET}]},
    workflow({"try": [{"a": SET}], "catch": {"errors": {"with": {"type": "${ .x }"}}}}),
    workflow({"set": {"x": "${ .a } and ${ .b }"}}),
    workflow({"set": {"x": "${ .a"}}),
    workflow({"set": {"a": "${ $secrets.x }", "b": "${ $authorization.x }"}}),
]


@pytest.mark.parametrize("document", STORED)
def test_stored_documents_compile(document: Any) -> None:
    text = json.dumps(document)
    assert isinstance(compile_workflow(text, stored=True), Plan)
    with pytest.raises(InvalidWorkflow):
        compile_workflow(text)
    assert validate(text)


@pytest.mark.parametrize(
    "document",
    [
        workflow({"set": {"x": "${ {a: 1 }"}}),
        workflow({"set": {"x": "${ $nothing }"}}),
        workflow({**SET, "then": "nowhere"}),
        workflow({"wait": "P1001Y"}),
        workflow({**SET, "if": "${ .a } and"}),
    ],
)
def test_stored_documents_meet_the_first_rules(document: Any) -> None:
    with pytest.raises(InvalidWorkflow):
        compile_workflow(json.dumps(document), stored=True)
