"""Schemas, descriptions and further functions from elsewhere: what a document names, and what it is compiled with."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import pytest

from fastrunner._core import (
    Compilation,
    ExternalResource,
    InvalidWorkflow,
    PerformEffect,
    Plan,
    Problem,
    ResourcesMissing,
    validate,
)
from fastrunner.base import limits
from fastrunner.engine.pinned import document_digest, pinned_text
from tests.core.documents import workflow
from tests.core.walking import Run, error_type

URL = "https://host.test/schemas/order.json"
OTHER = "https://host.test/f.yaml"
ORDER = {"type": "object", "required": ["id"]}
SET = {"set": {"a": 1}}


def compiled(document: Any, texts: Mapping[str, str | None] | None = None, **options: Any) -> Plan:
    compilation = Compilation(json.dumps(document), resources=texts, **options)
    plan = None
    while plan is None:
        plan = compilation.step(1)
    return plan


def missing(document: Any, texts: Mapping[str, str | None] | None = None, **options: Any) -> list[ExternalResource]:
    with pytest.raises(ResourcesMissing) as raised:
        compiled(document, texts, **options)
    return list(raised.value.resources)


def refused(document: Any, texts: Mapping[str, str | None] | None = None, **options: Any) -> list[Problem]:
    with pytest.raises(InvalidWorkflow) as raised:
        compiled(document, texts, **options)
    return list(raised.value.problems)


def schema(url: str = URL, **endpoint: Any) -> dict[str, Any]:
    return {"schema": {"resource": {"endpoint": {"uri": url, **endpoint} if endpoint else url}}}


# --- schemas ---

PLACES: dict[str, tuple[Any, str]] = {
    "workflow input": (workflow(SET, input=schema()), "/input"),
    "workflow output": (workflow(SET, output=schema()), "/output"),
    "task input": (workflow({**SET, "input": schema()}), "/do/0/t0/input"),
    "task output": (workflow({**SET, "output": schema()}), "/do/0/t0/output"),
    "task export": (workflow({**SET, "export": schema()}), "/do/0/t0/export"),
    "function": (
        workflow({"call": "f"}, use={"functions": {"f": {**SET, "output": schema()}}}), "/use/functions/f/output",
    ),
    "nested": (
        workflow({"do": [{"x": {"fork": {"branches": [{"y": {**SET, "output": schema()}}]}}}]}),
        "/do/0/t0/do/0/x/fork/branches/0/y/output",
    ),
}  # fmt: skip


@pytest.mark.parametrize("place", list(PLACES))
def test_a_schema_from_elsewhere_is_one_in_every_place(place: str) -> None:
    document, pointer = PLACES[place]
    (needed,) = missing(document)
    assert (needed.kind, needed.url, needed.pointer) == ("schema", URL, f"{pointer}/schema/resource/endpoint")
    for text in (json.dumps(ORDER), "type: object\nrequired: [id]\n"):
        plan = compiled(document, {URL: text, "unused": "{"})
        assert dict(plan.resources) == {URL: text}
        run = Run(plan, {"no": "id"}) if "input" in place else Run(plan)
        assert run.error is not None
        assert run.error["type"] == error_type("validation")
        assert "does not match its schema" in run.error["detail"]
    assert Run(compiled(document, {URL: "true"}), {}).status == "completed"


def test_references_stay_within_a_schema() -> None:
    inside = {"$ref": "#/$defs/id", "$defs": {"id": {"const": 1}}}
    assert Run(compiled(workflow(SET, input=schema()), {URL: json.dumps(inside)}), 1).status == "completed"
    assert Run(compiled(workflow(SET, input=schema()), {URL: json.dumps(inside)}), 2).status == "failed"
    outside = json.dumps({"$ref": "other.json"})
    (problem,) = refused(workflow(SET, input=schema()), {URL: outside})
    assert (problem.code, problem.pointer) == ("invalid-schema", "/input/schema/resource/endpoint")
    assert problem.message == (
        f'the schema at {URL} is none: at /$ref: "other.json" is outside of the schema, and nothing is fetched'
    )


@pytest.mark.parametrize(("text", "why"), [
    ("<html>", "not a string"), ("a: b: c", "line 1"), ("", "empty-document"), ("{type: 7}", "at /type"),
    ("{type: object, type: object}", "duplicate-key"), ("[]", "not a list"),
])  # fmt: skip
def test_what_is_no_schema(text: str, why: str) -> None:
    (problem,) = refused(workflow({**SET, "input": schema()}), {URL: text})
    assert (problem.code, problem.pointer) == ("invalid-schema", "/do/0/t0/input/schema/resource/endpoint")
    assert problem.message.startswith(f"the schema at {URL} is none: ")
    assert why in problem.message


@pytest.mark.parametrize("url", ["${ .url }", "https://{host}/s.json", "schema.json", "ftp://host.test/s", ""])
def test_a_schema_has_a_constant_url(url: str) -> None:
    problems = validate(json.dumps(workflow(SET, input=schema(url))))
    assert "unresolved-resource" in {problem.code for problem in problems} or url == ""
    assert {problem.pointer for problem in problems} == {"/input/schema/resource/endpoint"}


def test_policies_tell_schemas_apart() -> None:
    use = {"authentications": {"key": {"bearer": {"token": "one"}}}, "secrets": ["mine"]}
    tasks = [
        {**SET, "input": schema(authentication={"use": "key"})},
        {**SET, "input": schema(authentication={"bearer": {"use": "mine"}})},
        {**SET, "output": schema(authentication={"bearer": {"token": "one"}})},
        {**SET, "output": schema()},
    ]
    document = workflow(*tasks, use=use)
    needed = missing(document)
    assert [each.authentication for each in needed] == [
        {"bearer": {"token": "one"}}, {"bearer": {"use": "mine"}}, None,
    ]  # fmt: skip
    assert len({each.reference for each in needed}) == 3
    texts = {needed[0].reference: "true", needed[1].reference: "true", needed[2].reference: "false"}
    run = Run(compiled(document, texts))
    assert (run.status, run.error["instance"]) == ("failed", "/do/3/t3")
    use["authentications"] = {"key": {"bearer": {"token": "${ $secrets.mine }"}}}
    (problem,) = refused(workflow(tasks[0], use=use))
    assert (problem.code, problem.pointer) == ("unsupported", "/do/0/t0/input/schema/resource/endpoint")


def test_one_text_may_be_a_function_and_a_schema() -> None:
    document = workflow({"call": URL, "output": schema()})
    (needed,) = missing(document)
    assert needed.url == URL
    assert Run(compiled(document, {URL: "set: {a: 1}"})).output == {"a": 1}


def test_schemas_count_against_the_bound_and_the_steps() -> None:
    most = limits.RESOURCES_PER_DOCUMENT_MAX
    tasks = [{**SET, "output": schema(f"{URL}/{number}")} for number in range(most)]
    assert len(missing(workflow(*tasks))) == most
    (problem,) = refused(workflow(*tasks, {"call": OTHER}))
    assert (problem.code, problem.pointer) == ("too-many-resources", f"/do/{most}/t{most}/call")
    large = json.dumps({"anyOf": [{"pattern": "(a|b)*" * 50} for _ in range(2000)]})
    (problem,) = refused(workflow(tasks[0]), {f"{URL}/0": large})
    assert "takes" in problem.message


def test_validation_by_itself_has_not_seen_a_schema() -> None:
    text = json.dumps(workflow(SET, input=schema()))
    assert validate(text) == ()
    (warning,) = validate(text, True)
    assert (warning.code, warning.pointer) == ("not-fetched", "/input/schema/resource/endpoint")
    assert "whether there is a schema at this URL" in warning.message


# --- from where things are ---


def test_references_start_from_the_text_they_stand_in() -> None:
    function = {
        "do": [
            {"inner": {"call": "../lib/inner.yaml"}},
            {"own": {"call": "./own.yaml"}},
            {"root": {"call": "/root.json"}},
        ],
        "input": schema("order.json"),
    }
    document = workflow({"call": "https://host.test/a/b/f.yaml"})
    needed = missing(document, {"https://host.test/a/b/f.yaml": json.dumps(function)})
    assert {(each.kind, each.reference, each.url, each.pointer) for each in needed} == {
        (kind, url, url, "/do/0/t0/call") for kind, url in (
            ("function", "https://host.test/a/lib/inner.yaml"), ("function", "https://host.test/a/b/own.yaml"),
            ("function", "https://host.test/root.json"), ("schema", "https://host.test/a/b/order.json"),
        )
    }  # fmt: skip
    texts = {each.reference: "set: {a: 1}" for each in needed}
    texts["https://host.test/a/lib/inner.yaml"] = "call: further.yaml"
    texts["https://host.test/a/lib/further.yaml"] = "{set: '{far: true}', output: {schema: {resource: {endpoint: s}}}}"
    texts["https://host.test/a/lib/s"] = "required: [far]"
    texts["https://host.test/a/b/order.json"] = "true"
    plan = compiled(document, {**texts, "https://host.test/a/b/f.yaml": json.dumps(function)})
    run = Run(plan)
    assert (run.status, run.started) == ("completed", [
        "t0", "https://host.test/a/b/f.yaml", "inner", "https://host.test/a/lib/inner.yaml",
        "https://host.test/a/lib/further.yaml", "own", "https://host.test/a/b/own.yaml", "root",
        "https://host.test/root.json",
    ])  # fmt: skip


def test_a_script_lies_beside_its_function() -> None:
    def script(source: Any) -> str:
        return json.dumps({"run": {"script": {"language": "python", "source": {"endpoint": source}}}})

    plan = compiled(workflow({"call": OTHER}), {OTHER: script("./lib/run.py")})
    assert arguments_of(plan)["source"] == "https://host.test/lib/run.py"
    use = catalogs(team={"endpoint": {"uri": ROOT, "authentication": POLICY}})
    plan = compiled(workflow({"call": "f:1.0.0@team"}, use=use), {"f:1.0.0@team": script("run.py")})
    asked = arguments_of(plan)
    assert (asked["source"], asked["authentication"]) == (f"{ROOT}/functions/f/1.0.0/run.py", POLICY)
    for url, source in {OTHER: "//evil.test/run.py", "file:///srv/f.yaml": "run.py"}.items():
        (problem,) = refused(workflow({"call": url}), {url: script(source)})
        assert problem.code == "invalid-function"
    # A workflow lies nowhere.
    (problem,) = refused(json.loads(json.dumps(workflow(json.loads(script("./run.py"))))))
    assert problem.code == "invalid-format"


def test_files_lie_beside_files() -> None:
    (needed,) = missing(workflow({"call": "file:///srv/a/f.yaml"}), {"file:///srv/a/f.yaml": "call: ../b/g.yaml"})
    assert needed.url == "file:///srv/b/g.yaml"


def test_a_function_that_comes_to_itself_by_another_way_is_refused() -> None:
    texts = {"https://h.test/a/f.yaml": "call: ./g.yaml", "https://h.test/a/g.yaml": "call: ../a/f.yaml"}
    (problem,) = refused(workflow({"call": "https://h.test/a/f.yaml"}), texts)
    assert problem.code == "recursive-function"


@pytest.mark.parametrize("called", [
    "//evil.test/f.yaml", "ftp://host.test/f.yaml", "./g.yaml#part", "a b.yaml", "{g}/f.yaml",
])  # fmt: skip
def test_references_that_lead_nowhere(called: str) -> None:
    (problem,) = refused(workflow({"call": OTHER}), {OTHER: json.dumps({"call": called})})
    assert (problem.code, "[unresolved-resource]" in problem.message) == ("invalid-function", True)


def test_a_workflow_lies_nowhere() -> None:
    for called in ("./f.yaml", "lib/f.yaml", "f.yaml"):
        (problem,) = refused(workflow({"call": called}))
        assert (problem.code, problem.pointer) == ("unknown-reference", "/do/0/t0/call")


# --- catalogs ---

ROOT = "https://cat.test/root"
POLICY = {"bearer": {"token": "catalogue"}}


def catalogs(**catalogs: Any) -> dict[str, Any]:
    return {"catalogs": catalogs}


def test_what_a_catalog_has_is_read_as_the_catalog_is() -> None:
    """References within it keep its policy, and lead nowhere out of it."""
    use = catalogs(team={"endpoint": {"uri": f"{ROOT}/", "authentication": POLICY}})
    document = workflow({"call": "f:1.0.0@team"}, use=use)
    ways = ["../../g/1.0.0/function.yaml", "/lib/h.yaml", "../../../../../up.yaml", f"{ROOT}/free.yaml"]
    inside = {"do": [{f"n{number}": {"call": way}} for number, way in enumerate(ways)]}
    needed = missing(document, {"f:1.0.0@team": json.dumps(inside)})
    assert [(each.reference, each.url, each.authentication) for each in needed] == [
        ("/functions/g/1.0.0/function.yaml@team", f"{ROOT}/functions/g/1.0.0/function.yaml", POLICY),
        ("/lib/h.yaml@team", f"{ROOT}/lib/h.yaml", POLICY),
        ("/up.yaml@team", f"{ROOT}/up.yaml", POLICY),
        # Whoever asks for this one says so.
        (f"{ROOT}/free.yaml", f"{ROOT}/free.yaml", None),
    ]


def test_the_runners_default_catalog() -> None:
    document = workflow({"call": "f:1.0.0@default"})
    (needed,) = missing(document, default_catalog=f"{ROOT}/")
    assert (needed.reference, needed.url) == ("f:1.0.0@default", f"{ROOT}/functions/f/1.0.0/function.yaml")
    texts = {"f:1.0.0@default": "call: ./g.yaml"}
    (needed,) = missing(document, texts, default_catalog=ROOT)
    assert (needed.reference, needed.url) == (
        "default:/functions/f/1.0.0/g.yaml", f"{ROOT}/functions/f/1.0.0/g.yaml",
    )  # fmt: skip
    texts[needed.reference] = "call: h:2.0.0@default"
    (needed,) = missing(document, texts, default_catalog=ROOT)
    assert needed.url == f"{ROOT}/functions/h/2.0.0/function.yaml"
    texts[needed.reference] = "set: {a: 1}"
    plan = compiled(document, texts, default_catalog=ROOT)
    # What is stored goes on whatever the setting has become.
    for catalog in (None, "https://another.test"):
        again = compiled(document, dict(plan.resources), default_catalog=catalog)
        assert (again.digest, again.resources) == (plan.digest, plan.resources)
        assert Run(again).output == {"a": 1}
    (problem,) = refused(document)
    assert (problem.code, "FASTRUNNER_DEFAULT_CATALOG" in problem.message) == ("unresolved-resource", True)
    # Validation by itself knows of no runner.
    assert validate(json.dumps(document)) == ()
    (warning,) = validate(json.dumps(document), True)
    assert (warning.code, "in the runner's default catalog" in warning.message) == ("not-fetched", True)


def test_a_document_has_its_own_default_and_what_it_calls_has_the_runners() -> None:
    use = catalogs(default={"endpoint": "https://own.test"})
    document = workflow({"call": "f:1.0.0@default"}, {"call": OTHER}, use=use)
    needed = missing(document, {OTHER: "call: f:1.0.0@default"}, default_catalog=ROOT)
    assert {(each.reference, each.url) for each in needed} == {
        ("f:1.0.0@default", "https://own.test/functions/f/1.0.0/function.yaml"),
        ("default:/functions/f/1.0.0/function.yaml", f"{ROOT}/functions/f/1.0.0/function.yaml"),
    }
    texts = {OTHER: "call: f:1.0.0@default"}
    values = {each.reference: json.dumps({"set": {"of": each.url}}) for each in needed}
    run = Run(compiled(document, {**texts, **values}, default_catalog=ROOT))
    assert run.output == {"of": f"{ROOT}/functions/f/1.0.0/function.yaml"}


# --- descriptions ---

SPEC = "https://host.test/openapi.yaml"


def openapi(endpoint: Any = SPEC) -> dict[str, Any]:
    return {"call": "openapi", "with": {"document": {"endpoint": endpoint}, "operationId": "get"}}


def arguments_of(plan: Plan, input_: Any = None, secrets: dict[str, Any] | None = None) -> dict[str, Any]:
    run = Run(plan, input_)
    effects = [effect for effect in run.open.values() if isinstance(effect, PerformEffect)]
    return dict(plan.render(effects[0].capsule, secrets))


CALLS: dict[str, tuple[dict[str, Any], str]] = {
    "openapi": (openapi(), "document"),
    "asyncapi": (
        {"call": "asyncapi", "with": {"document": {"endpoint": SPEC}, "operation": "o", "message": {}}}, "document",
    ),
    "grpc": (
        {"call": "grpc", "with": {"proto": {"endpoint": SPEC}, "service": {"name": "s", "host": "h"}, "method": "m"}},
        "proto",
    ),
    "a2a": ({"call": "a2a", "with": {"agentCard": {"endpoint": SPEC}, "method": "tasks/get"}}, "agentCard"),
}  # fmt: skip


@pytest.mark.parametrize("protocol", list(CALLS))
def test_a_description_is_a_part_of_the_plan(protocol: str) -> None:
    call, key = CALLS[protocol]
    document = workflow(call)
    (needed,) = missing(document, pins=True)
    assert (needed.kind, needed.reference, needed.url, needed.pointer) == (
        "description", SPEC, SPEC, f"/do/0/t0/with/{key}",
    )  # fmt: skip
    plan = compiled(document, {SPEC: "the text"}, pins=True)
    assert (dict(plan.resources), plan.is_pinned) == ({SPEC: "the text"}, True)
    digest = sha256(b"the text").digest()
    assert arguments_of(plan)[key] == {"uri": SPEC, "text": "the text", "digest": digest}
    # Stored, it is the same.
    again = compiled(document, dict(plan.resources))
    assert (again.digest, arguments_of(again)[key]["text"]) == (plan.digest, "the text")
    assert document_digest(json.dumps(document), pinned_text(plan.resources)) == plan.digest


def test_where_a_description_was_found_is_kept_with_it() -> None:
    document = workflow(openapi())
    (needed,) = missing(document, pins=True)
    texts = {SPEC: "the text", needed.location_reference: "https://host.test/v2/openapi.yaml"}
    plan = compiled(document, texts)
    assert dict(plan.resources) == texts
    assert arguments_of(plan)["document"]["uri"] == "https://host.test/v2/openapi.yaml"


def test_a_document_can_do_without_a_description() -> None:
    document = workflow(openapi())
    for texts in ({}, {SPEC: None}):
        plan = compiled(document, texts, pins=bool(texts))
        assert (dict(plan.resources), plan.is_pinned) == ({}, False)
        assert arguments_of(plan)["document"] == {"uri": SPEC}
    assert compiled(workflow(SET)).is_pinned


@pytest.mark.parametrize("endpoint", [
    "https://{host}/openapi.yaml", "${ .url }", "openapi.yaml",
    {"uri": SPEC, "authentication": {"bearer": {"token": "${ .token }"}}},
    {"uri": SPEC, "authentication": {"use": "dynamic"}},
])  # fmt: skip
def test_what_the_call_alone_can_ask_for(endpoint: Any) -> None:
    use = {"authentications": {"dynamic": {"bearer": {"token": "${ .token }"}}}}
    plan = compiled(workflow(openapi(endpoint), use=use), pins=True)
    # Nothing that a constant URL names is left out.
    assert plan.is_pinned
    found = arguments_of(plan, {"host": "h.test", "url": "https://u.test", "token": "t"})["document"]
    assert "text" not in found


def test_policies_tell_descriptions_apart() -> None:
    use: dict[str, Any] = {
        "authentications": {"key": {"basic": {"username": "u", "password": "p"}}},
        "secrets": ["mine"],
    }
    first = openapi({"uri": SPEC, "authentication": {"use": "key"}})
    second = openapi({"uri": SPEC, "authentication": {"bearer": {"use": "mine"}}})
    needed = missing(workflow(first, second, openapi(), use=use), pins=True)
    assert [each.authentication for each in needed] == [
        use["authentications"]["key"],
        {"bearer": {"use": "mine"}},
        None,
    ]
    plan = compiled(workflow(first, use=use), {needed[0].reference: "for the key", SPEC: "for all"})
    assert arguments_of(plan)["document"] == {
        "uri": SPEC, "text": "for the key", "digest": sha256(b"for the key").digest(),
        "authentication": {"basic": {"username": "u", "password": "p"}},
    }  # fmt: skip


def test_descriptions_within_functions_from_elsewhere() -> None:
    document = workflow({"call": OTHER})
    function = json.dumps(openapi("./specs/a.yaml"))
    (needed,) = missing(document, {OTHER: function}, pins=True)
    assert (needed.url, needed.pointer) == ("https://host.test/specs/a.yaml", "/do/0/t0/call")
    plan = compiled(document, {OTHER: function})
    assert arguments_of(plan)["document"] == {"uri": "https://host.test/specs/a.yaml"}
    plan = compiled(document, {OTHER: function, needed.reference: "x"})
    assert arguments_of(plan)["document"]["text"] == "x"


def test_only_so_many_descriptions_are_kept() -> None:
    most = limits.DESCRIPTIONS_PER_DOCUMENT_MAX
    document = workflow(*[openapi(f"{SPEC}/{number}") for number in range(most + 1)], {**SET, "output": schema()})
    needed = missing(document, pins=True)
    assert (len(needed), needed[0].kind) == (most + 1, "schema")
    plan = compiled(document, {URL: "true", **{each.reference: "x" for each in needed[1:]}}, pins=True)
    assert (len(plan.resources), plan.is_pinned) == (most + 1, False)
