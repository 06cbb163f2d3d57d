"""Functions: tasks that are called by name, of `use.functions` or from elsewhere, wherever and however often."""

import json
from typing import Any

import pytest

from fastrunner._core import (
    EffectResult,
    InvalidWorkflow,
    PerformEffect,
    Plan,
    ResourcesMissing,
    Walk,
    compile,  # noqa: A004 - the core's verb
    validate,
)
from fastrunner.base import limits
from fastrunner.engine.pinned import document_digest, pinned_text
from tests.core.documents import found, workflow
from tests.core.walking import Run, call, error_type, finish, plan_of, raising

SET = {"set": {"a": 1}}
ECHO = {"echo": {"set": "{got: .}"}}


def answer(effect: PerformEffect) -> EffectResult:
    return EffectResult(effect.effect_id, {"by": effect.reference})


# --- data ---


def test_arguments_are_all_that_a_function_gets() -> None:
    functions = {"greet": {"set": '{text: "Hello \\(.name)", keys: keys, input: $input, raw: $task.input}'}}
    run = finish(
        [{"one": {"call": "greet", "with": {"name": "${ .who }"}}}], {"who": "Ada"}, use={"functions": functions}
    )
    name = {"name": "Ada"}
    assert run.output == {"text": "Hello Ada", "keys": ["name"], "input": name, "raw": name}


def test_without_arguments_it_gets_what_the_call_has() -> None:
    task = {"call": "echo", "input": {"from": ".part"}}
    assert finish([{"one": task}], {"part": [1, 2]}, use={"functions": ECHO}).output == {"got": [1, 2]}
    assert finish([{"one": {"call": "echo", "with": {}}}], {"a": 1}, use={"functions": ECHO}).output == {"got": {}}


def test_both_sides_shape_what_flows_the_function_first() -> None:
    functions = {
        "double": {
            "input": {"from": "{n: .number}"},
            "set": "{n: (2 * .n)}",
            "output": {"as": ".n"},
            "export": {"as": "{inner: ., outer: null}"},
        }
    }
    task = {
        "call": "double",
        "with": {"number": "${ .a }"},
        "output": {"as": "{result: .}"},
        "export": {"as": "$context + {outer: .result}"},
    }
    run = finish(
        [{"one": task}, {"two": {"set": "{context: $context, input: .}"}}], {"a": 21}, use={"functions": functions}
    )
    assert run.output == {"context": {"inner": 42, "outer": 42}, "input": {"result": 42}}


def test_a_schema_of_a_function_checks_the_arguments() -> None:
    schema = {"document": {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}}}
    functions = {"pet": {**SET, "input": {"schema": schema}}}
    assert finish([{"one": {"call": "pet", "with": {"id": 1}}}], use={"functions": functions}).status == "completed"
    error = finish([{"one": {"call": "pet", "with": {"id": "x"}}}], use={"functions": functions}).error
    assert (error["type"], error["status"], error["instance"]) == (error_type("validation"), 400, "/do/0/one/call/pet")


def test_arguments_are_evaluated_where_the_call_stands() -> None:
    """Loop variables and a handler's error there; within, none of them: not even under a name of its own."""
    loop = {
        "for": {"in": "[10, 20]", "each": "x"},
        "do": [{"one": {"call": "echo", "with": {"x": "${ $x }", "at": "${ $index }"}}}],
    }
    assert finish([{"all": loop}], use={"functions": ECHO}).output == {"got": {"x": 20, "at": 1}}
    handler = {
        "try": [{"no": raising(418)}],
        "catch": {"do": [{"one": {"call": "echo", "with": {"status": "${ $error.status }"}}}]},
    }
    assert finish([{"safe": handler}], use={"functions": ECHO}).output == {"got": {"status": 418}}
    inside = workflow(
        {"for": {"in": "[1]"}, "do": [{"one": {"call": "f"}}]}, use={"functions": {"f": {"set": "$item"}}}
    )
    assert found(inside) == [("unknown-variable", "/use/functions/f/set")]


def test_a_function_sees_context_and_workflow_of_its_caller() -> None:
    functions = {"look": {"set": "{context: $context, name: $workflow.definition.document.name, task: $task.name}"}}
    tasks = [{"one": {"set": {"a": 1}, "export": {"as": "{kept: .a}"}}}, {"two": {"call": "look"}}]
    run = finish(tasks, use={"functions": functions})
    assert run.output == {"context": {"kept": 1}, "name": "walked", "task": "look"}


# --- every kind of task, nested, side by side ---

KINDS: dict[str, tuple[dict[str, Any], Any]] = {
    "set": ({"set": {"a": 1}}, {"a": 1}),
    "do": ({"do": [{"a": {"set": {"n": 1}}}, {"b": {"set": "{n: (.n + 1)}"}}]}, {"n": 2}),
    "for": (
        {"for": {"in": ".items"}, "do": [{"add": {"set": "{items: .items, sum: ((.sum // 0) + $item)}"}}]},
        {"items": [1, 2, 3], "sum": 6},
    ),
    "fork": ({"fork": {"branches": [{"a": {"set": {"v": 1}}}, {"b": {"call": "other"}}]}}, [{"v": 1}, {"other": True}]),
    "try": (
        {"try": [{"no": raising(400)}], "catch": {"do": [{"ok": {"set": {"caught": "${ $error.status }"}}}]}},
        {"caught": 400},
    ),
    "switch": ({"switch": [{"any": {"then": "continue"}}]}, {"items": [1, 2, 3]}),
    "wait": ({"wait": {"seconds": 5}}, {"items": [1, 2, 3]}),
    "call": (call("http://host.test/{items}"), None),
    "function": ({"call": "other"}, {"other": True}),
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_function_is_a_task_of_any_kind(kind: str) -> None:
    """Restored after every turn, twice in one list, and within a fork."""
    task, output = KINDS[kind]
    functions = {"mine": task, "other": {"set": {"other": True}}}
    given = {"items": [1, 2, 3]} if kind != "call" else {"items": "x"}
    asked = {"call": "mine", "with": {name: f"${{ $workflow.input.{name} }}" for name in given}}
    both = {"fork": {"branches": [{"left": asked}, {"right": asked}]}}
    run = finish([{"one": asked}, {"two": asked}, {"both": both}], given, answer, use={"functions": functions})
    assert isinstance(run.output, list)
    for side, found_output in zip(("left", "right"), run.output, strict=True):
        place = f"/do/2/both/fork/branches/{('left', 'right').index(side)}/{side}/call/mine"
        assert found_output == (output if kind != "call" else {"by": place})
    assert run.started.count("mine") == 4


def test_each_call_is_a_place_of_its_own() -> None:
    """References and keys of effects tell calls apart; a loop around a call is told within it."""
    functions = {"ask": call(), "twice": {"do": [{"first": {"call": "ask"}}, {"second": {"call": "ask"}}]}}
    loop = {"for": {"in": "[1, 2]"}, "do": [{"each": {"call": "twice"}}]}
    effects: list[PerformEffect] = []

    def keep(effect: PerformEffect) -> EffectResult:
        effects.append(effect)
        return answer(effect)

    run = finish([{"all": loop}, {"last": {"call": "ask"}}], {}, keep, use={"functions": functions})
    assert run.status == "completed"
    base = "/do/0/all/do/0/each/call/twice/do"
    assert [effect.reference for effect in effects] == [
        *[f"{base}/0/first/call/ask", f"{base}/1/second/call/ask"] * 2,
        "/do/1/last/call/ask",
    ]
    assert len({effect.idempotency_key for effect in effects}) == 5
    told = [(e.task_name, list(e.iteration)) for e in run.events if e.event_type == "task_started"]
    assert told[:6] == [("all", []), ("each", [0]), ("twice", [0]), ("first", [0]), ("ask", [0]), ("second", [0])]
    assert told[-2:] == [("last", []), ("ask", [])]


def test_names_are_escaped_in_references() -> None:
    run = finish([{"one": {"call": "a/b~c"}}], use={"functions": {"a/b~c": SET}})
    assert [event.task_reference for event in run.events if event.event_type == "task_started"] == [
        "/do/0/one", "/do/0/one/call/a~1b~0c",
    ]  # fmt: skip


@pytest.mark.parametrize(("then", "started"), [
    ("end", ["one", "f"]), ("exit", ["one", "f", "two"]), ("continue", ["one", "f", "two"]),
])  # fmt: skip
def test_where_a_function_leads(then: str, started: list[str]) -> None:
    run = finish([{"one": {"call": "f"}}, {"two": SET}], use={"functions": {"f": {**SET, "then": then}}})
    assert run.started == started


def test_faults_and_timeouts_go_through_a_call() -> None:
    use = {"functions": {"no": raising(418, title="Tea"), "long": {"wait": {"hours": 1}}}}
    handler = {"try": [{"one": {"call": "no"}}], "catch": {"as": "e", "do": [{"ok": {"set": "$e"}}]}}
    assert finish([{"safe": handler}], use=use).output["instance"] == "/do/0/safe/try/0/one/call/no"
    error = finish([{"slow": {"call": "long", "timeout": {"after": {"seconds": 1}}}}], use=use).error
    assert (error["type"], error["instance"]) == (error_type("timeout"), "/do/0/slow")
    retrying = {"try": [{"one": {"call": "no"}}], "catch": {"retry": {"limit": {"attempt": {"count": 2}}}}}
    run = finish([{"again": retrying}], use=use)
    assert run.started == ["again", *["one", "no"] * 3]
    assert [event.attempt for event in run.events if event.task_name == "no"] == [1, 1, 2, 2, 3, 3]


def test_a_paused_call_goes_on() -> None:
    run = Run(
        plan_of([{"one": {"call": "f"}}], use={"functions": {"f": {"do": [{"ask": call()}, {"then": SET}]}}}),
        restoring=True,
    )
    (effect,) = run.open.values()
    assert effect.reference == "/do/0/one/call/f/do/0/ask"
    run.resume(EffectResult(effect.effect_id, 1))
    assert run.started == ["one", "f", "ask", "then"]


# --- what is refused ---


def sentences(functions: dict[str, Any], *tasks: Any) -> list[tuple[str, str, str]]:
    text = json.dumps(workflow(*(tasks or (SET,)), use={"functions": functions}))
    return [(problem.code, problem.pointer, problem.message) for problem in validate(text)]


def test_a_function_that_comes_to_itself_is_refused() -> None:
    loop = {"for": {"in": "[1]"}, "do": [{"x": {"call": "b"}}]}
    (problem,) = sentences({"a": loop, "b": {"fork": {"branches": [{"y": {"call": "a"}}]}}, "c": {"call": "a"}})
    assert problem[:2] == ("recursive-function", "/use/functions/a")
    assert problem[2].startswith("'a' calls 'b' calls 'a': a function does not come to itself again")
    assert [p[:2] for p in sentences({"a": {"call": "a"}})] == [("recursive-function", "/use/functions/a")]
    handler = {"try": [], "catch": {"do": [{"x": {"call": "a"}}]}}
    assert [p[:2] for p in sentences({"a": handler})] == [("recursive-function", "/use/functions/a")]
    # Data is no call.
    assert sentences({"a": {"set": {"call": "a", "do": [{"x": {"call": "a"}}]}}}) == []


def test_copies_count_against_the_bounds() -> None:
    doubling = {f"f{n}": {"do": [{"x": {"call": f"f{n + 1}"}}, {"y": {"call": f"f{n + 1}"}}]} for n in range(13)}
    assert sentences({**doubling, "f13": SET}) == []
    assert [p[:2] for p in sentences({**doubling, "f13": SET}, {"call": "f0"})] == [
        ("too-many-tasks", "/use/functions")
    ]
    chain = {f"f{n}": {"call": f"f{n + 1}"} for n in range(5_000)}
    assert [p[:2] for p in sentences({**chain, "f5000": SET}, {"call": "f0"})] == [("too-deep", "/use/functions")]
    shallow = {f"f{n}": {"call": f"f{n + 1}"} for n in range(30)}
    assert sentences({**shallow, "f30": SET}, {"call": "f0"}) == []
    assert finish([{"one": {"call": "f0"}}], use={"functions": {**shallow, "f30": {"set": {"deep": True}}}}).output == {
        "deep": True
    }


# --- from elsewhere ---

URL = "https://host.test/function.yaml"
OTHER = "https://host.test/other.yaml"


def compiled(document: Any, texts: dict[str, str] | None = None) -> Plan:
    return compile(json.dumps(document), False, texts)


def missing(document: Any, texts: dict[str, str] | None = None) -> list[tuple[str, str]]:
    with pytest.raises(ResourcesMissing) as raised:
        compiled(document, texts)
    return [(each.url, each.pointer) for each in raised.value.resources]


def refused(document: Any, texts: dict[str, str] | None = None) -> list[tuple[str, str, str]]:
    with pytest.raises(InvalidWorkflow) as raised:
        compiled(document, texts)
    return [(problem.code, problem.pointer, problem.message) for problem in raised.value.problems]


def test_the_text_that_a_url_names_is_called() -> None:
    document = workflow({"call": URL, "with": {"n": 1}}, {"call": "mine"}, use={"functions": {"mine": {"call": OTHER}}})
    assert missing(document) == [(URL, "/do/0/t0/call"), (OTHER, "/use/functions/mine/call")]
    texts = {URL: f"do:\n  - inner: {{call: '{OTHER}'}}\n", OTHER: "set: '{n: ((.n // 10) + 1)}'", "unused": "{"}
    assert missing(document, {URL: texts[URL]}) == [(OTHER, "/use/functions/mine/call")]
    plan = compiled(document, texts)
    assert dict(plan.resources) == {URL: texts[URL], OTHER: texts[OTHER]}
    run = Run(plan)
    assert (run.status, run.output) == ("completed", {"n": 3})
    assert run.events[-2].task_reference == "/do/1/t1"
    inner = "/do/0/t0/call/https:~1~1host.test~1function.yaml/do/0/inner"
    assert inner in {event.task_reference for event in run.events}


def test_a_document_is_known_by_all_of_its_texts() -> None:
    document = workflow({"call": URL})
    digests = {compiled(document, {URL: f"set: {{a: {value}}}", "unused": str(value)}).digest for value in (1, 2, 1)}
    assert len(digests) == 2
    for text in ("set: {a: 1}", "set: {a: 2}"):
        pinned = pinned_text(compiled(document, {URL: text}).resources)
        assert document_digest(json.dumps(document), pinned) in digests
    plain = workflow(SET)
    assert compiled(plain, {URL: "{"}).digest == compiled(plain).digest == document_digest(json.dumps(plain), "")


def test_a_function_from_elsewhere_is_alone() -> None:
    """It sees nothing of its caller's `use`, no secrets, and is strict whatever its caller is."""
    use = {"secrets": ["key"], "functions": {"mine": SET}, "timeouts": {"short": {"after": {"seconds": 1}}}}
    texts = [
        "set: {a: '${ $secrets.key }'}",
        "{call: mine}",
        "{set: {a: 1}, timeout: short}",
        "{call: http, with: {method: get, endpoint: {uri: 'http://host.test', authentication: {bearer: {use: key}}}}}",
    ]
    for text in texts:
        ((code, pointer, message),) = refused(workflow({"call": URL}, use=use), {URL: text})
        assert (code, pointer) == ("invalid-function", "/do/0/t0/call")
        assert message.startswith(f"the function at {URL} is none: ")
    loose = workflow({"call": URL}, {"set": {"b": ".a"}}, use=use, evaluate={"mode": "loose"})
    plan = compiled(loose, {URL: "{do: [{x: {set: {a: '$secrets.key'}}}]}"})
    walk, _ = Walk.start(plan, "execution", None, 0, secrets={"key": "hidden"})
    assert (walk.status, walk.output) == ("completed", {"b": "$secrets.key"})


@pytest.mark.parametrize("text", ["<html>", "", "[]", "set", "{sett: 1}", "document: {}", "a: b: c", "{call: http}"])
def test_what_is_no_function(text: str) -> None:
    assert {problem[:2] for problem in refused(workflow(SET, {"call": URL}), {URL: text})} == {
        ("invalid-function", "/do/1/t1/call")
    }


def test_bounds_hold_across_texts() -> None:
    assert refused(workflow({"call": URL}), {URL: f"{{call: '{OTHER}'}}", OTHER: f"{{call: '{URL}'}}"})[0][0] == (
        "recursive-function"
    )
    twice = "{do: [{a: {call: '%s'}}, {b: {call: '%s'}}]}"
    chain = {f"https://h.test/{n}": twice % ((f"https://h.test/{n + 1}",) * 2) for n in range(15)}
    chain["https://h.test/15"] = "{set: {a: 1}}"
    assert refused(workflow({"call": "https://h.test/0"}), chain)[0][0] == "too-many-tasks"
    count = limits.RESOURCES_PER_DOCUMENT_MAX
    calls = [{"call": f"https://h.test/{n}"} for n in range(count)]
    assert len(missing(workflow(*calls))) == count
    assert [p[:2] for p in refused(workflow(*calls, {"call": URL}))] == [
        ("too-many-resources", f"/do/{count}/t{count}/call")
    ]
    texts = {f"https://h.test/{n}": f"{{call: '{URL}'}}" for n in range(count)}
    assert refused(workflow(*calls), texts)[0][0] == "too-many-resources"


@pytest.mark.parametrize("url", [
    "ftp://host.test/f.yaml", "https://user:password@host.test/f", "https://{host}/f", "https://host.test/${ .a }",
    "https:///f", "https://host.test:99999/f", "https://host.test/f#part", "https://host.test/a b",
    "https://host.test/" + "x" * limits.RESOURCE_URL_SIZE_CHARS_MAX,
])  # fmt: skip
def test_urls_that_are_refused(url: str) -> None:
    assert [p[:2] for p in sentences({}, {"call": url})] == [("unresolved-resource", "/do/0/t0/call")]


def test_functions_of_catalogs() -> None:
    catalogs = {
        "own": {"endpoint": {"uri": "https://host.test/root/", "authentication": {"use": "key"}}},
        "default": {"endpoint": "https://host.test/all"},
    }
    use = {"catalogs": catalogs, "authentications": {"key": {"bearer": {"token": "text"}}}}
    document = workflow({"call": "log:1.2.0-rc.1@own"}, {"call": "a/b:1.0.0@default"}, use=use)
    with pytest.raises(ResourcesMissing) as raised:
        compiled(document)
    assert [(each.reference, each.url, each.authentication) for each in raised.value.resources] == [
        (
            "log:1.2.0-rc.1@own",
            "https://host.test/root/functions/log/1.2.0-rc.1/function.yaml",
            {"bearer": {"token": "text"}},
        ),
        ("a/b:1.0.0@default", "https://host.test/all/functions/a%2Fb/1.0.0/function.yaml", None),
    ]  # fmt: skip
    run = Run(compiled(document, {"log:1.2.0-rc.1@own": "{set: {a: 1}}", "a/b:1.0.0@default": "{set: {b: '${ .a }'}}"}))
    assert run.output == {"b": 1}
    assert refused(workflow({"call": "log:1.0.0@default"}))[0][0] == "unresolved-resource"
    assert "did you mean 'own'" in refused(workflow({"call": "log:1.0.0@owns"}, use=use))[0][2]
    use["authentications"] = {"key": {"bearer": {"token": "${ $secrets.key }"}}}
    assert refused(workflow({"call": "log:1.0.0@own"}, use={**use, "secrets": ["key"]}))[0][:2] == (
        "unsupported", "/do/0/t0/call",
    )  # fmt: skip


def test_validation_by_itself_says_what_it_has_not_seen() -> None:
    text = json.dumps(workflow({"call": URL}, {"call": URL}))
    assert validate(text) == ()
    assert [(p.code, p.pointer, p.severity) for p in validate(text, True)] == [
        ("not-fetched", "/do/0/t0/call", "warning")
    ]
    assert compile(text, False, {URL: "{set: {a: 1}}"}).warnings == ()


def test_mistakes_in_functions_are_told_where_they_stand() -> None:
    functions = {"f": {"sett": 1}, "g": [], "h": {**SET, "then": "t0"}, "http": SET}
    assert [p[:2] for p in sentences(functions, {"call": "ff", "with": "${ . }"})] == [
        ("unknown-reference", "/do/0/t0/call"),
        ("wrong-type", "/do/0/t0/with"),
        ("missing-key", "/use/functions/f"),
        ("wrong-type", "/use/functions/g"),
        ("unknown-target", "/use/functions/h/then"),
        ("reserved-name", "/use/functions/http"),
    ]
