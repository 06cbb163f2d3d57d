"""Validation of structure: keys, types, formats, combinations; how problems are ordered, bounded and worded."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fastrunner._core import validate, validate_in_steps
from fastrunner.base import limits
from tests.core.documents import HEADER, found, problems, workflow

SET = {"set": {"a": 1}}
ROOT = Path(__file__).parents[2]


def with_header(**changes: Any) -> dict[str, Any]:
    """A workflow whose `document` differs in some keys; None drops one."""
    header = {key: value for key, value in {**HEADER, **changes}.items() if value is not None}
    return {"document": header, "do": []}


def emit(**properties: Any) -> dict[str, Any]:
    return {"emit": {"event": {"with": {"type": "a", **properties}}}}


def wanting(**properties: Any) -> dict[str, Any]:
    """A task that listens for one event."""
    return {"listen": {"to": {"one": {"with": properties}}}}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ([], [("wrong-type", "")]),
        ({}, [("missing-key", ""), ("missing-key", "")]),
        (with_header(dsl=None), [("missing-key", "/document")]),
        (with_header(dsl="1.0"), [("invalid-format", "/document/dsl")]),
        (with_header(dsl=1.0), [("wrong-type", "/document/dsl")]),
        (with_header(dsl="v1.0.0"), [("invalid-format", "/document/dsl")]),
        (with_header(dsl="2.0.0"), [("unsupported-dsl", "/document/dsl")]),
        (with_header(dsl="3.1.0"), [("unsupported-dsl", "/document/dsl")]),
        (with_header(dsl="10.0.0"), [("unsupported-dsl", "/document/dsl")]),
        (with_header(dsl="0.9.0"), [("unsupported-dsl", "/document/dsl")]),
        (with_header(dsl="1.1.0"), []),
        (with_header(dsl="1.20.3"), []),
        (with_header(dsl="1.0.9"), []),
        (with_header(dsl="1.0.0-alpha5"), []),
        (with_header(version="1"), [("invalid-format", "/document/version")]),
        (with_header(version="1.2.3-rc.1+build.5"), []),
        (with_header(namespace="a.b"), [("invalid-format", "/document/namespace")]),
        (with_header(name="a" * 64), [("invalid-format", "/document/name")]),
        (with_header(name="Has-Upper-1"), []),
        (with_header(description="text", title="t", summary="s", tags={"a": 1}, metadata={}), []),
        (with_header(descripton="text"), [("unknown-key", "/document/descripton")]),
        ({"states": [], "id": "x"}, [("foreign-dialect", "")]),
        ({"specVersion": "0.8"}, [("foreign-dialect", "")]),
        ({**workflow(SET), "stats": []}, [("unknown-key", "/stats")]),
        ({**workflow(SET), "do": {"a": SET}}, [("wrong-type", "/do")]),
        (workflow({}), [("missing-key", "/do/0/t0")]),
        (workflow({"sett": {}}), [("missing-key", "/do/0/t0")]),
        (workflow({"set": {}}), [("empty-value", "/do/0/t0/set")]),
        (workflow({"set": []}), [("wrong-type", "/do/0/t0/set")]),
        (workflow({**SET, "wait": "PT1S"}), [("conflicting-keys", "/do/0/t0/wait")]),
        (workflow({**SET, "foo": 1}), [("unknown-key", "/do/0/t0/foo")]),
        (workflow({**SET, "if": True}), [("wrong-type", "/do/0/t0/if")]),
        (workflow({**SET, "metadata": "x"}), [("wrong-type", "/do/0/t0/metadata")]),
        (workflow({**SET, "input": {"from": []}}), [("wrong-type", "/do/0/t0/input/from")]),
        ({**workflow(), "do": [{}]}, [("not-one-key", "/do/0")]),
        ({**workflow(), "do": ["x"]}, [("wrong-type", "/do/0")]),
        (
            {**workflow(), "do": [{"a": SET, "b": {"wait": "x"}}]},
            [("not-one-key", "/do/0/b"), ("invalid-format", "/do/0/b/wait")],
        ),
        ({**workflow(), "do": [{"a": SET}, {"a": SET}]}, [("duplicate-task", "/do/1/a")]),
        (workflow({"switch": []}), [("empty-value", "/do/0/t0/switch")]),
        (
            workflow({"switch": [{"a": {"then": "end"}}, {"b": {"then": "end"}}, {"c": {"then": "end"}}]}),
            [("duplicate-default", "/do/0/t0/switch/1/b")],
        ),
        (workflow({"switch": [{"a": {"when": "."}}]}), [("missing-key", "/do/0/t0/switch/0/a")]),
        (workflow({"for": {"in": [1, "a", None, [True], {"a": "${ .b }"}, "${ .c }"]}, "do": []}), []),
        (workflow({"for": {"in": [1, ["${ .[ }"]]}, "do": []}), [("invalid-expression", "/do/0/t0/for/in/1/0")]),
        (workflow({"for": {"in": {"a": 1}}, "do": []}), [("wrong-type", "/do/0/t0/for/in")]),
        (workflow({"for": {"in": ".a", "while": "."}, "do": []}), [("unknown-key", "/do/0/t0/for/while")]),
        (workflow({"for": {"in": ".a", "each": "$x"}, "do": []}), [("invalid-format", "/do/0/t0/for/each")]),
        (workflow({"for": {"in": ".a", "each": "input"}, "do": []}), [("reserved-name", "/do/0/t0/for/each")]),
        (workflow({"for": {"in": ".a"}}), [("missing-key", "/do/0/t0")]),
        (workflow({"fork": {"branches": {}}}), [("wrong-type", "/do/0/t0/fork/branches")]),
        (workflow({"try": []}), [("missing-key", "/do/0/t0")]),
        (workflow({"try": [], "catch": {"errors": {"with": {"details": "x"}}}}), []),
        (workflow({"try": [], "catch": {"errors": {"with": {}}}}), [("empty-value", "/do/0/t0/catch/errors/with")]),
        (
            workflow({"try": [], "catch": {"errors": {"with": {"status": "404"}}}}),
            [("wrong-type", "/do/0/t0/catch/errors/with/status")],
        ),
        (
            workflow({"try": [], "catch": {"errors": {"with": {"detail": "x", "details": "x"}}}}),
            [("conflicting-keys", "/do/0/t0/catch/errors/with/details")],
        ),
        (
            workflow({"try": [], "catch": {"retry": {"backoff": {"constant": {}, "linear": {}}}}}),
            [("conflicting-keys", "/do/0/t0/catch/retry/backoff/linear")],
        ),
        (
            workflow({"try": [], "catch": {"retry": {"jitter": {"from": "PT1S"}}}}),
            [("missing-key", "/do/0/t0/catch/retry/jitter")],
        ),
        (
            workflow({"raise": {"error": {"type": "x", "status": "${ 4 }"}}}),
            [("wrong-type", "/do/0/t0/raise/error/status")],
        ),
        (workflow({"emit": {"event": {}}}), [("missing-key", "/do/0/t0/emit/event")]),
        (workflow({"emit": {"event": {"with": {"source": "/x"}}}}), [("missing-key", "/do/0/t0/emit/event/with")]),
        (workflow(emit(orderId="1")), [("invalid-format", "/do/0/t0/emit/event/with/orderId")]),
        (workflow(emit(type="")), [("empty-value", "/do/0/t0/emit/event/with/type")]),
        (workflow(emit(specversion="0.3")), [("invalid-value", "/do/0/t0/emit/event/with/specversion")]),
        (workflow(emit(rank=1.5)), [("wrong-type", "/do/0/t0/emit/event/with/rank")]),
        (workflow(emit(rank=2**31)), [("wrong-type", "/do/0/t0/emit/event/with/rank")]),
        (workflow(emit(tags={"a": 1})), [("wrong-type", "/do/0/t0/emit/event/with/tags")]),
        (workflow(emit(type=5)), [("wrong-type", "/do/0/t0/emit/event/with/type")]),
        (workflow(emit(time="soon")), [("invalid-format", "/do/0/t0/emit/event/with/time")]),
        (workflow(emit(rank=-(2**31), urgent=True, data={"orderId": 1.5}, tag="${ . }")), []),
        (workflow(wanting(room_id="1")), [("never-matches", "/do/0/t0/listen/to/one/with/room_id")]),
        (workflow(wanting(rank=None)), [("never-matches", "/do/0/t0/listen/to/one/with/rank")]),
        (workflow(wanting(type="")), [("empty-value", "/do/0/t0/listen/to/one/with/type")]),
        (workflow({"listen": {"to": {"one": {}}}}), [("missing-key", "/do/0/t0/listen/to/one")]),
        (workflow({"listen": {"to": {}}}), [("missing-key", "/do/0/t0/listen/to")]),
        (workflow({"listen": {"to": {"any": []}, "read": "all"}}), [("invalid-value", "/do/0/t0/listen/read")]),
        (
            workflow({"listen": {"to": {"any": [], "until": {"any": [], "until": "true"}}}}),
            [("unknown-key", "/do/0/t0/listen/to/until/until")],
        ),
        (
            workflow({"listen": {"to": {"one": {"with": {"type": "a"}, "correlate": {"k": {"expect": "1"}}}}}}),
            [("missing-key", "/do/0/t0/listen/to/one/correlate/k")],
        ),
        (workflow({"listen": {"to": {"one": {"with": {}}}}}), [("empty-value", "/do/0/t0/listen/to/one/with")]),
        (workflow({"listen": {"to": {"all": [], "any": []}}}), [("conflicting-keys", "/do/0/t0/listen/to/any")]),
        (workflow({"listen": {"to": {"all": [], "until": "."}}}), [("conflicting-keys", "/do/0/t0/listen/to/until")]),
        (workflow({"run": {}}), [("missing-key", "/do/0/t0/run")]),
        (workflow({"run": {"shell": {"command": "a"}, "script": {}}}), None),
        (
            workflow({"run": {"container": {"image": "a", "lifetime": {"cleanup": "never", "after": "PT1S"}}}}),
            [("conflicting-keys", "/do/0/t0/run/container/lifetime/after")],
        ),
        (
            workflow({"run": {"container": {"image": "a", "lifetime": {"cleanup": "eventually"}}}}),
            [("missing-key", "/do/0/t0/run/container/lifetime")],
        ),
        (
            workflow({"run": {"script": {"language": "ruby", "code": "x"}}}),
            [("invalid-value", "/do/0/t0/run/script/language")],
        ),
        (
            workflow({"run": {"shell": {"command": "a", "arguments": [1]}}}),
            [("wrong-type", "/do/0/t0/run/shell/arguments/0")],
        ),
        (workflow({"call": "a2a", "with": {"method": "tasks/get"}}), [("missing-key", "/do/0/t0/with")]),
        (
            workflow({"call": "mcp", "with": {"method": "tools/list", "transport": {}}}),
            [("missing-key", "/do/0/t0/with/transport")],
        ),
        (
            workflow({"call": "asyncapi", "with": {"document": {"endpoint": "x"}, "operation": "o", "channel": "c"}}),
            [("conflicting-keys", "/do/0/t0/with/channel"), ("missing-key", "/do/0/t0/with")],
        ),
        (
            workflow(
                {
                    "call": "grpc",
                    "with": {
                        "proto": {"endpoint": "x"},
                        "service": {"name": "a", "host": "::1", "port": 70000},
                        "method": "m",
                    },
                }
            ),
            [("invalid-format", "/do/0/t0/with/service/host"), ("out-of-range", "/do/0/t0/with/service/port")],
        ),
        ({**workflow(), "schedule": {}}, [("missing-key", "/schedule")]),
        ({**workflow(), "schedule": {"every": "PT1S", "read": "raw"}}, [("conflicting-keys", "/schedule/read")]),
        ({**workflow(), "schedule": {"cron": "0 0 * *"}}, [("invalid-format", "/schedule/cron")]),
        ({**workflow(), "schedule": {"cron": "*/5 0-6,12 1 jan mon-fri"}}, []),
        ({**workflow(), "schedule": {"cron": "60 0 * * *"}}, [("invalid-format", "/schedule/cron")]),
        ({**workflow(), "evaluate": {"mode": "lose"}}, [("invalid-value", "/evaluate/mode")]),
        ({**workflow(), "use": {"secret": []}}, [("unknown-key", "/use/secret")]),
        (
            {**workflow(), "use": {"extensions": [{"a": {"extend": "do"}}]}},
            [("invalid-value", "/use/extensions/0/a/extend")],
        ),
    ],
)
def test_structure(document: Any, expected: list[tuple[str, str]] | None) -> None:
    if expected is None:
        assert found(document)
    else:
        assert sorted(found(document)) == sorted(expected)


def call(**arguments: Any) -> dict[str, Any]:
    """A workflow of one HTTP call."""
    return workflow({"call": "http", "with": {"method": "get", "endpoint": "https://example.com", **arguments}})


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, []),
        ({"endpoint": "https://example.com/{id}?q={pet.id}"}, []),
        ({"endpoint": "relative/path"}, [("invalid-format", "/endpoint")]),
        ({"endpoint": " ${ .url } "}, []),
        ({"endpoint": {"uri": "${ .url }"}}, []),
        ({"endpoint": {}}, [("missing-key", "/endpoint")]),
        ({"endpoint": ""}, [("invalid-format", "/endpoint")]),
        ({"endpoint": "https://example.com/a b"}, [("invalid-format", "/endpoint")]),
        ({"endpoint": "https://example.com/{?q}"}, [("unsupported-template", "/endpoint")]),
        ({"endpoint": "https://example.com/{a*}"}, [("unsupported-template", "/endpoint")]),
        ({"endpoint": "https://example.com/{a,b}"}, [("unsupported-template", "/endpoint")]),
        ({"endpoint": "https://example.com/${.a}"}, [("unsupported-template", "/endpoint")]),
        ({"endpoint": "https://example.com/{a"}, [("invalid-format", "/endpoint")]),
        ({"endpoint": "https://example.com/{a-b}"}, [("invalid-format", "/endpoint")]),
        ({"endpoint": "https://example.com/%zz"}, [("invalid-format", "/endpoint")]),
        ({"endpoint": "${ .a }/${ .b }"}, [("invalid-expression", "/endpoint")]),
        ({"endpoint": "${\n.a }"}, [("invalid-format", "/endpoint")]),
        ({"headers": {"a": 1}}, [("wrong-type", "/headers/a")]),
        ({"headers": "${ .h }", "query": "${ .q }"}, []),
        ({"headers": ".h"}, [("invalid-format", "/headers")]),
        ({"query": {"a": "${ .a"}}, [("invalid-expression", "/query/a")]),
        ({"body": None}, []),
        (
            {"body": {"a": ["${ .b", ".c", "${ .a } and ${ .b }", "${ .d }"]}},
            [("invalid-expression", "/body/a/0"), ("invalid-expression", "/body/a/2")],
        ),
        ({"body": {"a": ["${ {a: 1 }"]}}, [("invalid-expression", "/body/a/0")]),
        ({"output": "all"}, [("invalid-value", "/output")]),
        ({"redirect": "yes"}, [("wrong-type", "/redirect")]),
        ({"method": "GET /"}, [("invalid-format", "/method")]),
        ({"method": "${ .m }"}, []),
        ({"method": "${ $item.method }"}, [("unknown-variable", "/method")]),
        ({"method": "${ $output.method }"}, [("unavailable-variable", "/method")]),
        ({"method": "${ .m } GET"}, [("invalid-expression", "/method")]),
        ({"method": "${ .m"}, [("invalid-expression", "/method")]),
        ({"method": ".m"}, [("invalid-format", "/method")]),
        ({"timeout": 5}, [("unknown-key", "/timeout")]),
    ],
)
def test_http_calls(arguments: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert found(call(**arguments)) == [(code, "/do/0/t0/with" + pointer) for code, pointer in expected]


@pytest.mark.parametrize(
    "duration",
    [
        "PT5S",
        "P1Y2M3W4DT5H6M7.5S",
        "P1.5D",
        "P0D",
        {"seconds": 5},
        {"days": 1, "milliseconds": -1},
        {"hours": 1.0},
        "${ .d }",
    ],
)
def test_durations(duration: Any) -> None:
    assert found(workflow({"wait": duration})) == []


@pytest.mark.parametrize(
    "duration",
    [
        "P",
        "PT",
        "P1DT",
        "p1d",
        "PT5",
        "5S",
        "30s",
        "-PT5S",
        "PT-5S",
        "P1M1Y",
        "PT1S1S",
        "P1D ",
        "",
        "1",
        5,
        None,
        [],
        {},
        {"seconds": 1.5},
        {"seconds": "1"},
        {"seconds": True},
        {"weeks": 1},
        "${ }",
        "${\n.a }",
        "P1001Y",
        {"days": 10**9},
    ],
)
def test_invalid_durations(duration: Any) -> None:
    assert len(found(workflow({"wait": duration}))) == 1


@pytest.mark.parametrize(
    "authentication",
    [
        {"basic": {"username": "u", "password": "${ .p }"}},
        {"bearer": {"token": "t"}},
        {"digest": {"username": "u", "password": "p"}},
        {"bearer": {"use": "known"}},
        {"use": "known"},
        {"oauth2": {"authority": "https://a", "grant": "password", "client": {"id": "x"}}},
        {"oidc": {"authority": "https://a", "grant": "client_credentials", "scopes": ["a"]}},
    ],
)
def test_authentication(authentication: Any) -> None:
    document = call(endpoint={"uri": "https://a", "authentication": authentication})
    document["use"] = {"secrets": ["known"], "authentications": {"known": {"bearer": {"token": "t"}}}}
    assert validate(json.dumps(document)) == ()


@pytest.mark.parametrize(
    "authentication",
    [
        "known",
        {},
        {"basic": {"username": "u"}},
        {"bearer": "t"},
        {"bearer": {}},
        {"bearer": {"token": "t", "use": "known"}},
        {"bearer": {"token": "t"}, "basic": {"username": "u", "password": "p"}},
        {"use": "known", "bearer": {"token": "t"}},
        {"use": ""},
        {"use": "unknown"},
        {"basic": {"use": "unknown"}},
        {"oauth2": {"authority": "${ .a }", "grant": "password"}},
        {"oauth2": {"authority": "https://a", "grant": "client-credentials"}},
        {"oidc": {"authority": "https://a", "grant": "password", "endpoints": {}}},
        {"oauth2": {"authority": "https://a", "grant": "password", "client": {}}},
        {
            "oauth2": {
                "authority": "https://a",
                "grant": "password",
                "client": {"id": "a", "authentication": "private_key_jwt"},
            }
        },
        {"certificate": {"use": "known"}},
    ],
)
def test_invalid_authentication(authentication: Any) -> None:
    document = call(endpoint={"uri": "https://a", "authentication": authentication})
    document["use"] = {"secrets": ["known"], "authentications": {"known": {"bearer": {"token": "t"}}}}
    assert found(document)


# --- how problems are told ---


def test_everything_unsupported_is_named_and_hides_nothing() -> None:
    document = workflow(
        {
            "call": "openapi",
            "foo": 1,
            "with": {"document": {"endpoint": "x"}, "operationId": "a", "authentication": {"bearer": {"token": "t"}}},
        },
        {"call": "mine"},
        {"set": {"a": 1}, "input": {"schema": {"format": "avro", "document": {}}}},
        use={
            "secrets": ["s"],
            "functions": {"mine": {"set": {"a": 1}}},
            "catalogs": {"c": {"endpoint": "x"}},
            "authentications": {"a": {"bearer": {"token": "t"}}},
        },
        evaluate={"language": "js"},
    )
    features = [p.message.partition(":")[0] for p in validate(json.dumps(document)) if p.code == "unsupported"]
    assert sorted(features) == sorted(
        [
            "schema format 'avro' (supported",
            "expression language 'js' (supported",
        ]
    )
    assert found(document) == [("unknown-key", "/do/0/t0/foo")]


def test_empty_groups_are_not_unsupported() -> None:
    assert validate(json.dumps(workflow(SET, use={"secrets": [], "functions": {}, "extensions": []}))) == ()


def test_problems_come_in_document_order_with_lines_and_columns() -> None:
    text = """\
document:
  dsl: '1.0.3'
  namespace: tests
  name: a b
  version: '1.0.0'
do:
  - first:
      sett: {}
  - second:
      set: {a: '${ .[ }'}
      then: nowhere
      timeoutt: PT1S
"""
    assert [(p.code, p.line, p.column) for p in validate(text)] == [
        ("invalid-format", 4, 9),
        ("missing-key", 7, 5),
        ("invalid-expression", 10, 16),
        ("unknown-target", 11, 13),
        ("unknown-key", 12, 7),
    ]
    indented = json.dumps(workflow({"set": []}), indent=2)
    (problem,) = validate(indented)
    assert indented.splitlines()[problem.line - 1][problem.column - 1 :].startswith("[]")


def test_problems_are_bounded_in_document_order() -> None:
    document = workflow(*[{"foo": 1} for _ in range(limits.PROBLEMS_MAX * 3)])
    reported = problems(document)
    assert len(reported) == limits.PROBLEMS_MAX
    assert [problem.pointer for problem in reported] == [f"/do/{i}/t{i}" for i in range(limits.PROBLEMS_MAX)]


def test_hostile_documents_cost_little() -> None:
    """Each of these would take minutes if every problem were spelled out, or every alias and reference scanned anew."""
    typos = workflow(*[{**SET, "then": f"task-number-{i}"} for i in range(limits.TASKS_PER_DOCUMENT_MAX)])
    assert len(problems(typos)) == limits.PROBLEMS_MAX
    retries = {"r": {"when": "${ .a " + " " * 60_000 + "}"}}
    catches = [{"try": [], "catch": {"as": f"e{i}", "retry": "r"}} for i in range(5_000)]
    assert found(workflow(*catches, use={"retries": retries})) == []
    aliases = "x: &x '${ " + "a" * 100_000 + " }'\ny: [" + ", ".join(["*x"] * 1_000) + "]"
    assert [problem.code for problem in validate(aliases)] == ["too-many-values"]


@pytest.mark.parametrize(
    "document",
    [
        workflow(*[{**SET, "if": f".a > {i}"} for i in range(2_000)]),
        workflow({"set": {"a": [f"${{ .a{i} }}" for i in range(2_000)]}}),
        workflow({"set": {"a": [{"b": [i]} for i in range(50_000)]}}),
        workflow({"switch": [{f"c{i}": {"when": f".a == {i}", "then": "end"}} for i in range(2_000)]}),
        workflow(*[{**SET, "input": {"schema": {"document": {"title": f"{i}"}}}} for i in range(500)]),
        workflow({"do": [{"inner": {"fork": {"branches": [{f"b{i}": {"set": f".a + {i}"}} for i in range(1_000)]}}}]}),
    ],
    ids=["tasks", "expressions", "values", "cases", "schemas", "branches"],
)
def test_large_documents_are_checked_in_steps(document: Any) -> None:
    """Whatever makes a document large, it is left between its parts."""
    text = json.dumps(document)
    assert len(list(validate_in_steps(text, 50))) >= 3
    assert len(list(validate_in_steps(text, 1))) >= 150


def test_problems_of_steps_are_the_first_of_the_document() -> None:
    """What stands behind a nested list may be checked before it; the first problems are reported all the same."""
    many = limits.PROBLEMS_MAX * 3
    inner = [{f"t{i}": {"foo": 1}} for i in range(many)]
    document = workflow({"do": inner, "output": {"as": {f"k{i}": "${ .[ }" for i in range(many)}}})
    assert [problem.pointer for problem in problems(document)] == [
        f"/do/0/t0/do/{i}/t{i}" for i in range(limits.PROBLEMS_MAX)
    ]


def test_pointers_are_escaped() -> None:
    assert found(workflow({"nested": SET}) | {"do": [{"a/b~c": {"set": []}}]}) == [("wrong-type", "/do/0/a~1b~0c/set")]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (workflow({"sett": {}}), "did you mean 'set'"),
        (workflow({**SET, "timout": "x"}), "did you mean 'timeout'"),
        (workflow({**SET, "then": "t"}), "did you mean 't0'"),
        (workflow({"call": "htpp"}), "did you mean 'http'"),
        (call(output="contents"), "did you mean 'content'; allowed: content, raw, response".replace("'; ", "'?; ")),
        (workflow({**SET, "timeout": "lng"}, use={"timeouts": {"long": {"after": "PT1S"}}}), "did you mean 'long'"),
        (workflow({"set": {"a": "${ $contxt.a }"}}), "did you mean '$context'"),
        (call(endpoint={"url": "x"}), "did you mean 'uri'"),
    ],
)
def test_messages_suggest_what_was_meant(document: Any, words: str) -> None:
    assert any(words in problem.message for problem in problems(document)), problems(document)


def test_messages_do_not_echo_values() -> None:
    secret = "hunter2"
    document = call(
        headers={"Authorization": secret, "a": [secret]}, body=f"${{ {secret}( }}", query={"x": {"y": secret}}
    )
    document["document"] = {**HEADER, "version": secret}
    assert not any(secret in problem.message for problem in problems(document))


def test_bounds_of_tasks() -> None:
    many = workflow(*[SET] * (limits.TASKS_PER_DOCUMENT_MAX + 1))
    assert [code for code, _ in found(many)] == ["too-many-tasks"]
    branches = [{f"b{i}": {"wait": "PT1S"}} for i in range(limits.FORK_BRANCHES_MAX + 1)]
    assert found(workflow({"fork": {"branches": branches}})) == [("too-many-tasks", "/do/0/t0/fork/branches")]


def test_every_code_is_documented() -> None:
    sources = "".join(path.read_text() for path in sorted((ROOT / "src" / "fastrunner" / "core").rglob("*.pxi")))
    given = set(
        re.findall(r'(?:problem\(|Problem\(|doubt\(|check_refusal\()(?:checker, )?"([a-z]+(?:-[a-z]+)*)"', sources)
    )
    given |= set(re.findall(r'return (?:None if extra is None else )?\(?\s*"([a-z-]+)",', sources))
    documented = set(re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "docs" / "validation.md").read_text(), re.MULTILINE))
    assert documented >= {"unsupported", "duplicate-key", "invalid-expression", "unsupported-template"}
    assert given - documented == set()
    assert documented - given == set()
