"""Warnings: text and conditions that hardly do what is meant, and the readings that are let alone."""

import json
from typing import Any

import pytest

from fastrunner._core import Compilation, Problem, compile, validate  # noqa: A004 - the core's verb
from tests.core.documents import CONFORMANCE, needs_conformance, workflow


def warned(document: Any) -> list[tuple[str, str]]:
    """Code and pointer of each warning of a document without problems; the same however it is compiled."""
    text = json.dumps(document)
    found = validate(text, True)
    assert [problem for problem in found if problem.severity == "error" and problem.code != "unsupported"] == []
    warnings = [problem for problem in found if problem.severity == "warning"]
    assert validate(text) == tuple(problem for problem in found if problem.severity == "error")
    if len(warnings) == len(found):
        assert compile(text).warnings == tuple(warnings) == in_small_steps(text)
        assert compile(text, True).warnings == ()
    return [(warning.code, warning.pointer) for warning in warnings]


def in_small_steps(text: str) -> tuple[Problem, ...]:
    compilation = Compilation(text)
    while (plan := compilation.step(1)) is None:
        pass
    return plan.warnings


def of_values(*values: str) -> list[str]:
    """The codes of warnings for texts in a list of data."""
    codes = dict.fromkeys(range(len(values)), "")
    for code, pointer in warned(workflow({"set": {"values": list(values)}})):
        codes[int(pointer.rpartition("/")[2])] = code
    return list(codes.values())


@pytest.mark.parametrize(
    "text",
    [
        "Hello ${.page}",
        "Hello ${ .page }",
        "a ${ .b } c ${ .d }",
        "Bearer ${ $context.token }",
        "Hi ${name}",
        "x ${ .y",
    ],
)
def test_an_expression_within_text(text: str) -> None:
    assert of_values(text) == ["text-around-expression"]


@pytest.mark.parametrize("text", ["{{ .page }}", "Hello {{name}}", "{{- $x -}}", "a {{ .b | upper }} c"])
def test_templates_of_other_languages(text: str) -> None:
    assert of_values(text) == ["foreign-template"]


@pytest.mark.parametrize(
    "text",
    [
        ".amount", ".items[0].id", '.a["b"]', ".a?.b", "$input.x", "$context", "$workflow.id", "$.amount",
        ".amount * 2", ".items | length", '.a // "x"', '.first + " " + .last', ".a == 1",
    ],
)  # fmt: skip
def test_text_that_looks_like_an_expression(text: str) -> None:
    assert of_values(text) == ["text-like-expression"]


@pytest.mark.parametrize(
    "text",
    [
        "${ .a }", " ${ .a } ", "echo ${HOME} in ${A_B}", "$HOME", "$5.00", "$", ".", "..", "...", ".5", ".pdf",
        ".tar.gz", ".NET and others", ".NET - a framework", ".a b", "{ .a }", "{{}}", "{{ }}", "a.b", "see .a",
        "$price", "100%", '{"a": {"b": {}}}',
    ],
)  # fmt: skip
def test_text_that_is_text(text: str) -> None:
    assert of_values(text) == [""]


def test_keys_that_name_files_and_the_like() -> None:
    data = {"suffix": ".foo", "fileExtension": ".foo", "cssClass": ".foo", "jsonPath": "$.foo", "amount": ".foo"}
    assert warned(workflow({"set": data})) == [("text-like-expression", "/do/0/t0/set/amount")]


def test_every_position_of_values() -> None:
    call = {
        "method": "post",
        "endpoint": "https://example.com/${id}",
        "headers": {"a": "Bearer ${ .t }"},
        "query": {"q": ".q"},
        "body": {"amount": ".amount", "list": [{"x": "$input.x"}]},
    }
    error = {"type": "https://example.com/e", "status": 400, "title": "No ${ .x }"}
    document = workflow(
        {"call": "http", "with": call},
        {"raise": {"error": error}},
        {
            "set": {"a": 1},
            "output": {"as": {"b": ".c"}},
            "export": {"as": {"d": "{{ .e }}"}},
            "input": {"from": {"f": ".g"}},
        },
        input={"from": {"h": ".i"}},
        output={"as": {"j": ".k"}},
    )
    assert {pointer for _, pointer in warned(document)} == {
        "/input/from/h",
        "/output/as/j",
        "/do/0/t0/with/endpoint",
        "/do/0/t0/with/headers/a",
        "/do/0/t0/with/query/q",
        "/do/0/t0/with/body/amount",
        "/do/0/t0/with/body/list/0/x",
        "/do/1/t1/raise/error/title",
        "/do/2/t2/input/from/f",
        "/do/2/t2/output/as/b",
        "/do/2/t2/export/as/d",
    }


def test_what_is_not_evaluated_is_not_warned_about() -> None:
    document = workflow({"set": {"a": 1}, "metadata": {"a": ".amount", "b": "Hello ${ .x }"}})
    document["document"] = {**document["document"], "summary": "Hello {{ .name }} and ${ .name }"}
    assert warned(document) == []


def test_loose_mode_evaluates_text() -> None:
    assert warned(workflow({"set": {"a": ".amount"}}, evaluate={"mode": "loose"})) == []


@pytest.mark.parametrize(
    "condition",
    [
        ".x = 1", "${ .x = 1 }", ".a == 1 and .b = 2", ".a or (.b = 2)", "(.x = 1) | not", ".x |= 1", ".n += 1",
        ".items | length", "[.items[] | select(.open)]", ".items | map(.id)", "{a: .b}", '"\\(.a)"', ".enabled // true",
        ".items // []", ". as $x | $x.a = 1", ".items | map(select(.open = true)) | length > 0", ".items | any(.x = 1)",
        "if .a = 1 then true else false end",
    ],
)  # fmt: skip
def test_conditions_that_are_always_the_same(condition: str) -> None:
    document = workflow({"if": condition, "set": {"a": 1}}, {"switch": [{"one": {"when": condition, "then": "end"}}]})
    assert warned(document) == [
        ("constant-condition", "/do/0/t0/if"),
        ("constant-condition", "/do/1/t1/switch/0/one/when"),
    ]


@pytest.mark.parametrize(
    "condition",
    [
        ".x == 1", ".x", "true", ".items | length > 0", "(.items | length) > 0", ".a // false", ".a // null",
        ". = .x", ".x as $y | $y", "(.x = 1) | .y", ".items | any(.x == 1)", "[.items[]] | length == 2",
        "def length: false; length", '.a != ""', ".items | map(.x = 1) | any(.y)",
    ],
)  # fmt: skip
def test_conditions_that_ask_something(condition: str) -> None:
    assert warned(workflow({"if": condition, "set": {"a": 1}})) == []


def test_updates_are_no_mistake_in_values() -> None:
    assert warned(workflow({"set": "${ .x = 1 }"}, {"set": {"a": "${ .items | length }"}})) == []


def loop(*body: Any, **binds: str) -> dict[str, Any]:
    items = [{f"b{at}": task} for at, task in enumerate(body)]
    return {"for": {"in": ".items", **binds}, "do": items}


GET = {"call": "http", "with": {"method": "get", "endpoint": "https://example.com"}}


@pytest.mark.parametrize(
    ("body", "binds", "pointers"),
    [
        (({"set": {"x": "${ .item.name }"}},), {}, ["b0/set/x"]),
        (({"set": {"x": "${ .order.id }"}},), {"each": "order"}, ["b0/set/x"]),
        (({"set": {"x": "${ .index + 1 }"}},), {}, ["b0/set/x"]),
        (({"set": {"x": "${ .n }"}, "if": ".n > 0"},), {"at": "n"}, ["b0/set/x", "b0/if"]),
        (({"wait": {"seconds": 1}}, {"set": {"x": '${ "a \\(.item)" }'}}), {}, ["b1/set/x"]),
        # Another reading is as likely.
        (({"set": {"x": "${ $item.name }"}},), {}, []),
        (({"set": {"x": "${ .a | .item }"}},), {}, []),
        (({"set": {"x": "${ .a.item }"}},), {}, []),
        (({"set": {"item": 1}}, {"set": {"x": "${ .item }"}}), {}, []),
        ((GET, {"set": {"x": "${ .item }"}}), {}, []),
        (({"set": "${ .a }"}, {"set": {"x": "${ .item }"}}), {}, []),
        (({"set": {"x": "${ .item }"}, "input": {"from": "${ .a }"}},), {}, []),
        (({"set": {"x": "${ .item }"}},), {"each": "other"}, []),
    ],
)
def test_members_that_are_called_like_variables(
    body: tuple[Any, ...], binds: dict[str, str], pointers: list[str]
) -> None:
    document = workflow(GET, loop(*body, **binds))
    expected = [("variable-as-member", f"/do/1/t1/do/{pointer[1]}/{pointer}") for pointer in pointers]
    assert warned(document) == expected


def test_the_error_is_a_variable_in_handlers() -> None:
    handler = {"as": "problem", "when": ".problem.status == 1", "do": [{"h": {"set": {"x": "${ .problem.title }"}}}]}
    document = workflow({"try": [{"a": GET}], "catch": handler})
    assert warned(document) == [
        ("variable-as-member", "/do/0/t0/catch/when"),
        ("variable-as-member", "/do/0/t0/catch/do/0/h/set/x"),
    ]
    assert warned(workflow({"try": [{"a": GET}], "catch": {"as": "status", "when": ".status == 1"}})) == []


@pytest.mark.parametrize(
    "endpoint",
    [
        "localhost:7471/x", "example.com/x", "/x", "//example.com/x", "x", "https:/x", "http:x", "http://", "http:///x",
        "ftp://example.com", ".url", "$input.url", "htp{x}://a",
    ],
)  # fmt: skip
def test_endpoints_without_scheme_or_host_are_problems(endpoint: str) -> None:
    for written in (endpoint, {"uri": endpoint}):
        text = json.dumps(workflow({"call": "http", "with": {"method": "get", "endpoint": written}}))
        (problem,) = validate(text)
        assert (problem.code, problem.severity) == ("invalid-format", "error")
        assert "http" in problem.message
        # An execution that was accepted goes on.
        compile(text, True)


@pytest.mark.parametrize(
    "endpoint",
    ["http://localhost:7471/x", "HTTPS://example.com", "{base}/x", "http{s}://x/y", "https://{host}/x", "${ .url }"],
)
def test_endpoints_that_may_lead_somewhere(endpoint: str) -> None:
    assert warned(workflow({"call": "http", "with": {"method": "get", "endpoint": endpoint}})) == []


def test_warnings_are_bounded_and_in_order() -> None:
    text = json.dumps(workflow(*({"set": {"a": ".b"}} for _ in range(300))))
    warnings = compile(text).warnings
    assert len(warnings) == 100
    assert [warning.pointer for warning in warnings[:2]] == ["/do/0/t0/set/a", "/do/1/t1/set/a"]
    assert list(warnings) == sorted(warnings, key=lambda warning: (warning.line, warning.column))


def test_a_definition_used_twice_warns_once() -> None:
    use = {"errors": {"no": {"type": "https://example.com/e", "status": 400, "title": "No ${ .x }"}}}
    document = workflow({"raise": {"error": "no"}}, {"raise": {"error": "no"}}, use=use)
    assert warned(document) == [("text-around-expression", "/use/errors/no/title")]


def test_messages_have_the_remedy_and_no_values() -> None:
    data = {"a": "secret-value ${ .b }", "c": ".d", "e": "secret-value {{ .f }}"}
    messages = [warning.message for warning in compile(json.dumps(workflow({"set": data}))).warnings]
    assert len(messages) == 3
    assert all("${" in message and "secret-value" not in message for message in messages)
    assert "write ${ .d }" in messages[1]


@needs_conformance
def test_the_official_examples_warn_where_they_are_wrong() -> None:
    """Two of them: values that strict mode takes for text, in a body and in a `set`."""
    found = {
        (path.name, problem.line)
        for path in (CONFORMANCE / "examples").glob("*.yaml")
        for problem in validate(path.read_bytes(), True)
        if problem.severity == "warning" and problem.code != "not-fetched"
    }
    assert found == {("conditional-task.yaml", 21), ("conditional-task.yaml", 22), ("try-catch-then.yaml", 30)}


@pytest.mark.parametrize(
    "task",
    [
        {"set": {"a": ["${ $secrets.key }"]}},
        {"set": {"a": 1}, "input": {"from": "$secrets"}},
        {"set": {"a": 1}, "output": {"as": {"b": "${ $secrets.key }"}}},
        {"set": {"a": 1}, "export": {"as": "$secrets.key"}},
        {"raise": {"error": {"type": "https://a.test/e", "status": 400, "detail": "${ $secrets.key }"}}},
        {"for": {"in": "$secrets | keys"}, "do": [{"x": {"set": {"a": 1}}}]},
    ],
)
def test_secrets_that_become_data(task: Any) -> None:
    assert [code for code, _ in warned(workflow(task, use={"secrets": ["key"]}))] == ["secret-as-data"]


def test_secrets_where_they_belong() -> None:
    policy = {"basic": {"username": "${ $secrets.key.name }", "password": "${ $secrets.key.password }"}}
    arguments = {
        "method": "get",
        "endpoint": {"uri": "https://a.test", "authentication": policy},
        "headers": {"X": "${ $secrets.key }"},
        "query": "${ $secrets.key }",
        "body": "${ $secrets.key }",
    }
    task = {"call": "http", "with": arguments, "if": "$secrets.key.on"}
    assert warned(workflow(task, {"wait": "${ $secrets.key.pause }"}, use={"secrets": ["key"]})) == []


@pytest.mark.parametrize("kind", ["shell", "script", "container"])
def test_arguments_as_a_map(kind: str) -> None:
    fields = {"shell": {"command": "a"}, "script": {"language": "js", "code": "a"}, "container": {"image": "a"}}[kind]
    process = {"run": {kind: {**fields, "arguments": {"a": 1, "b": "${ .b }"}}}}
    assert warned(workflow(process)) == [("outdated-arguments", f"/do/0/t0/run/{kind}/arguments")]
    process["run"][kind]["arguments"] = ["a=1"]
    assert warned(workflow(process)) == []


# --- patterns ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://host.test/a(b", True),
        ("order[", True),
        ("*.paid", True),
        ("order.*", False),
        ("https://host.test/a?b=1", False),
        ("order.paid", False),
        ("${ .type }", False),
    ],
)
def test_text_of_an_event_filter_that_is_no_pattern(text: str, expected: bool) -> None:
    document = workflow({"listen": {"to": {"any": [{"with": {"subject": text, "data": {"a": "("}}}]}}})
    found = [("text-like-pattern", "/do/0/t0/listen/to/any/0/with/subject")]
    assert warned(document) == (found if expected else [])
