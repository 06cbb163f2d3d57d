"""Validation of meaning: targets, references, expressions, the variables they may use, inline schemas."""

import json
from typing import Any

import pytest

from fastrunner._core import validate
from tests.core.documents import found, problems, workflow

SET = {"set": {"a": 1}}


# --- targets ---


@pytest.mark.parametrize("target", ["continue", "exit", "end", "t0", "t1"])
def test_targets_are_directives_and_tasks_of_the_same_list(target: str) -> None:
    assert found(workflow({**SET, "then": target}, SET)) == []
    assert found(workflow({"switch": [{"a": {"then": target}}]}, SET)) == []
    assert found(workflow({"try": [], "catch": {"then": target}}, SET)) == []


@pytest.mark.parametrize(
    "task",
    [
        {**SET, "then": "nowhere"},
        {**SET, "then": "${ .next }"},
        {**SET, "then": ""},
        {"do": [{"inner": {**SET, "then": "t1"}}]},
        {"do": [{"inner": {"switch": [{"a": {"then": "t1"}}]}}]},
        {"for": {"in": ".a"}, "do": [{"inner": {**SET, "then": "t1"}}]},
        {"try": [{"inner": {**SET, "then": "t1"}}], "catch": {}},
        {"try": [], "catch": {"do": [{"inner": {**SET, "then": "t1"}}]}},
        {"try": [{"inner": SET}], "catch": {"then": "inner"}},
        {"try": [], "catch": {"do": [{"inner": SET}], "then": "inner"}},
        {"fork": {"branches": [{"left": {**SET, "then": "right"}}, {"right": SET}]}},
        {"fork": {"branches": [{"left": {"switch": [{"a": {"then": "right"}}]}}, {"right": SET}]}},
        {"listen": {"to": {"any": []}}, "foreach": {"do": [{"inner": {**SET, "then": "t1"}}]}},
    ],
)
def test_targets_elsewhere_are_refused(task: dict[str, Any]) -> None:
    assert [code for code, _ in found(workflow(task, SET))] == ["unknown-target"]


def test_functions_and_extensions_have_targets_of_their_own() -> None:
    use = {
        "functions": {"f": {**SET, "then": "t0"}},
        "extensions": [{"e": {"extend": "all", "before": [{"a": {**SET, "then": "b"}}, {"b": {**SET, "then": "t0"}}]}}],
    }
    assert found(workflow(SET, use=use)) == [
        ("unknown-target", "/use/functions/f/then"),
        ("unknown-target", "/use/extensions/0/e/before/1/b/then"),
    ]


# --- references ---


@pytest.mark.parametrize(
    ("task", "use"),
    [
        ({**SET, "timeout": "x"}, {"timeouts": {"x": {"after": "PT1S"}}}),
        ({"raise": {"error": "x"}}, {"errors": {"x": {"type": "https://a", "status": 400}}}),
        ({"try": [], "catch": {"retry": "x"}}, {"retries": {"x": {}}}),
        ({"call": "x"}, {"functions": {"x": SET}}),
        ({"call": "log:1.0.0@x"}, {"catalogs": {"x": {"endpoint": "https://a"}}}),
    ],
)
def test_references_need_their_definition(task: dict[str, Any], use: dict[str, Any]) -> None:
    assert found(workflow(task, use=use)) == []
    assert [code for code, _ in found(workflow(task))] == ["unknown-reference"]
    assert [code for code, _ in found(workflow(task, use={name: {} for name in use}))] == ["unknown-reference"]


@pytest.mark.parametrize("name", ["log:1.0.0@default", "https://example.com/function.yaml", "http"])
def test_calls_that_need_no_definition(name: str) -> None:
    assert "unknown-reference" not in [code for code, _ in found(workflow({"call": name}))]


def test_functions_named_like_protocols_are_refused() -> None:
    assert found(workflow(SET, use={"functions": {"http": SET}})) == [("reserved-name", "/use/functions/http")]


def test_workflow_timeout_may_be_a_reference() -> None:
    use = {"timeouts": {"x": {"after": "PT1S"}}}
    assert found(workflow(SET, use=use, timeout="x")) == []
    assert found(workflow(SET, use=use, timeout="PT5S")) == [("unknown-reference", "/timeout")]


def test_malformed_groups_are_told_once_each() -> None:
    use = {"timeouts": [], "secrets": [{}], "errors": "x"}
    task = {**SET, "timeout": "x"}
    assert found(workflow(task, use=use)) == [
        ("unknown-reference", "/do/0/t0/timeout"),
        ("wrong-type", "/use/timeouts"),
        ("wrong-type", "/use/secrets/0"),
        ("wrong-type", "/use/errors"),
    ]


# --- expressions ---


@pytest.mark.parametrize("text", [".[", "${ .[ }", "${ .a } and ${ .b }", "${ {a: 1 }", "${ .a", "", "${ }", "a b c"])
@pytest.mark.parametrize("key", ["if", "set"])
def test_expressions_by_type_compile(key: str, text: str) -> None:
    assert [code for code, _ in found(workflow({**SET, key: text}))] == ["invalid-expression"]


def test_the_place_within_an_expression_is_told() -> None:
    (problem,) = problems(workflow({"set": {"a": "${ .a + $nothing }"}}))
    assert (problem.code, problem.pointer) == ("unknown-variable", "/do/0/t0/set/a")
    assert "character 6" in problem.message


@pytest.mark.parametrize(
    "text",
    [
        '${ "}" }',
        '${ "\\(.a | "}") }" }',
        "${ {a: {b: 1}} }",
        "  ${ .a }  ",
        '${ "\\"}" }',
        "${ .a # } \n }",
        "literal",
        "$context",
        ".a",
        "x ${ .a }",
        "x ${ .a } and ${ .b }",
        "$ {.a}",
        "{ .a }",
    ],
)
def test_values_are_expressions_only_as_a_whole(text: str) -> None:
    assert found(workflow({"set": {"a": text}})) == []


POLICY = {"bearer": {"token": "t"}}
PROVIDING = {
    "use": {"secrets": ["keys"], "catalogs": {"c": {"endpoint": {"uri": "https://a", "authentication": POLICY}}}}
}
"""What gives `$secrets` and `$authorization` a value."""


def available(place: dict[str, Any]) -> set[str]:
    """The variables that an expression may use in a document that `place` makes from the expression's text."""
    names = ["context", "input", "output", "secrets", "task", "workflow", "runtime", "authorization", "nothing"]
    return {
        name
        for name in names
        if not found(PROVIDING | place | json.loads(json.dumps(place).replace("EXPR", f"${{ ${name} }}")))
    }


EVERYWHERE = {"secrets", "workflow", "runtime"}
TASK = EVERYWHERE | {"context", "task"}
BODY = TASK | {"input", "authorization"}


@pytest.mark.parametrize(
    ("document", "variables"),
    [
        (workflow(SET, input={"from": "EXPR"}), EVERYWHERE),
        (workflow(SET, output={"as": "EXPR"}), EVERYWHERE | {"context"}),
        (workflow(SET, timeout={"after": "EXPR"}), EVERYWHERE),
        (workflow(SET, schedule={"every": "EXPR"}), EVERYWHERE),
        (workflow({**SET, "if": "EXPR"}), TASK),
        (workflow({**SET, "input": {"from": {"a": ["EXPR"]}}}), TASK),
        (workflow({"set": "EXPR"}), BODY),
        (workflow({"set": {"a": ["EXPR"]}}), BODY),
        (workflow({"wait": "EXPR"}), BODY),
        (workflow({**SET, "timeout": {"after": "EXPR"}}), BODY),
        (workflow({"switch": [{"a": {"when": "EXPR", "then": "end"}}]}), BODY),
        (workflow({"for": {"in": "EXPR"}, "while": "EXPR", "do": []}), BODY),
        (
            workflow(
                {"call": "http", "with": {"method": "get", "endpoint": "EXPR", "headers": "EXPR", "body": "EXPR"}}
            ),
            BODY,
        ),
        (workflow({"raise": {"error": {"type": "EXPR", "status": 400, "title": "EXPR", "instance": "EXPR"}}}), BODY),
        (workflow({"try": [], "catch": {"when": "EXPR", "exceptWhen": "EXPR", "retry": {"when": "EXPR"}}}), BODY),
        (workflow({**SET, "output": {"as": "EXPR"}}), BODY | {"output"}),
        (workflow({**SET, "export": {"as": "EXPR"}}), BODY | {"output"}),
        (workflow({"do": [{"inner": {**SET, "if": "EXPR"}}]}), TASK),
    ],
)
def test_variables_by_position(document: dict[str, Any], variables: set[str]) -> None:
    assert available(document) == variables


def uses(text: str) -> dict[str, Any]:
    return {"set": {"a": f"${{ {text} }}"}}


def test_scoped_names_are_bound_within_their_body_only() -> None:
    inner = {"inner": uses("$color + $i")}
    loop = {"for": {"each": "color", "at": "i", "in": ".a"}, "while": "$color != $i", "do": [inner]}
    assert found(workflow(loop)) == []
    assert found(workflow({**loop, "if": "$color"}))[0][0] == "unknown-variable"
    assert found(workflow(loop, uses("$color")))[0] == ("unknown-variable", "/do/1/t1/set/a")
    assert found(workflow({"for": {"in": ".a"}, "do": [{"x": uses("[$item, $index]")}]})) == []
    assert found(workflow({"for": {"in": "$item"}, "do": []})) == [("unknown-variable", "/do/0/t0/for/in")]


def test_errors_are_bound_in_their_catch() -> None:
    catch = {"as": "err", "when": "$err.status == 1", "exceptWhen": "$err", "do": [{"x": uses("$err")}]}
    assert found(workflow({"try": [], "catch": catch})) == []
    assert found(workflow({"try": [], "catch": {"when": "$error", "retry": {"when": "$error"}}})) == []
    assert found(workflow({"try": [{"x": uses("$error")}], "catch": {}}))[0][0] == "unknown-variable"
    assert found(workflow({"try": [], "catch": {"as": "err", "when": "$error"}}))[0][0] == "unknown-variable"


def test_items_are_bound_in_their_iterator() -> None:
    iterator = {
        "item": "event",
        "do": [{"x": uses("[$event, $index]")}],
        "output": {"as": "$event"},
        "export": {"as": "$index"},
    }
    assert found(workflow({"listen": {"to": {"any": []}}, "foreach": iterator})) == []
    assert found(workflow({"listen": {"to": {"any": [{"with": {"data": "${ $item }"}}]}}}))[0][0] == "unknown-variable"


def test_reusable_definitions_are_checked_where_they_are_used() -> None:
    use = {
        "retries": {"r": {"when": "$err.status == 500"}},
        "timeouts": {"t": {"after": "${ $input.wait }"}},
        "errors": {"e": {"type": "https://a", "status": 400, "title": "${ $item }"}},
    }
    assert found(workflow(SET, use=use)) == []
    assert found(workflow({"try": [], "catch": {"as": "err", "retry": "r"}}, use=use)) == []
    assert found(workflow({"try": [], "catch": {"retry": "r"}}, use=use)) == [
        ("unknown-variable", "/use/retries/r/when")
    ]
    assert found(workflow({**SET, "timeout": "t"}, use=use)) == []
    assert found(workflow(SET, use=use, timeout="t")) == [("unavailable-variable", "/use/timeouts/t/after")]
    loop = {"for": {"in": ".a"}, "do": [{"x": {"raise": {"error": "e"}}}]}
    assert found(workflow(loop, use=use)) == []
    assert found(workflow({"raise": {"error": "e"}}, use=use)) == [("unknown-variable", "/use/errors/e/title")]


def test_local_variables_of_jq_are_none_of_ours() -> None:
    assert found(workflow({"set": "${ . as $x | reduce .[] as $y (0; . + $y) | [$x, .] }"})) == []


def test_loose_mode_leaves_other_text_alone() -> None:
    task = {"set": {"a": "not an expression (", "b": ".a", "c": "$nothing"}}
    assert found(workflow(task, evaluate={"mode": "loose"})) == []
    assert found(workflow({"if": "not (", **SET}, evaluate={"mode": "loose"})) == [
        ("invalid-expression", "/do/0/t0/if")
    ]


# --- schemas ---


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"type": "string"}}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {}},
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "prefixItems": [True]},
    ],
)
def test_schemas(schema: Any) -> None:
    assert validate(json.dumps(workflow(SET, input={"schema": {"document": schema}}))) == ()


@pytest.mark.parametrize(
    "schema",
    [
        "string",
        "{}",
        5,
        None,
        [],
        {"type": "objct"},
        {"pattern": "("},
        {"$ref": "#/nowhere"},
        {"$ref": "https://example.com/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"$schema": "https://example.com/unknown"},
    ],
)
@pytest.mark.parametrize("place", ["input", "output"])
def test_schemas_that_do_not_compile(place: str, schema: Any) -> None:
    assert found(workflow(SET, **{place: {"schema": {"document": schema}}})) == [
        ("invalid-schema", f"/{place}/schema/document")
    ]


def test_schemas_have_a_document_or_a_resource() -> None:
    both = {"document": {}, "resource": {"endpoint": "https://example.com"}}
    assert found(workflow(SET, input={"schema": {}})) == [("missing-key", "/input/schema")]
    assert found(workflow(SET, input={"schema": both})) == [("conflicting-keys", "/input/schema/resource")]


@pytest.mark.parametrize("schema_format", ["json", "json:2020-12"])
def test_schema_formats(schema_format: str) -> None:
    assert validate(json.dumps(workflow(SET, input={"schema": {"format": schema_format, "document": {}}}))) == ()


@pytest.mark.parametrize("schema_format", ["avro", "json:draft-07", ""])
def test_other_schema_formats_are_unsupported(schema_format: str) -> None:
    (problem,) = validate(json.dumps(workflow(SET, input={"schema": {"format": schema_format, "document": {}}})))
    assert (problem.code, problem.pointer) == ("unsupported", "/input/schema/format")


def test_a_variable_whose_name_is_no_string_is_one_problem() -> None:
    """Also where a definition of `use` is checked in the variables of the place that names it."""
    document = workflow(
        {"for": {"each": {"a": 1}, "in": "."}, "do": [{"step": {"set": {"a": 1}, "timeout": "soon"}}]},
        use={"timeouts": {"soon": {"after": {"seconds": 1}}}},
    )
    assert [problem.code for problem in problems(document)] == ["wrong-type"]
