"""Functions of `use.functions`: tasks that are called by name, wherever and however often."""

import json
from typing import Any

import pytest

from fastrunner._core import EffectResult, PerformEffect, validate
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


@pytest.mark.parametrize(("name", "part"), [
    ("https://example.com/function.yaml", "fetches no functions: copy the task to use.functions"),
    ("log:1.0.0@default", "a function of a catalog: part of the DSL, but this version"),
])  # fmt: skip
def test_functions_from_elsewhere_are_refused(name: str, part: str) -> None:
    ((code, pointer, message),) = sentences({}, {"call": name})
    assert (code, pointer) == ("unsupported", "/do/0/t0/call")
    assert part in message


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
