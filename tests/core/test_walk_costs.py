"""Walk: whatever the data, a turn is short, an execution ends, and what is written and told stays small."""

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastrunner._core import Capsule, EffectFailure, EffectResult, MoreSteps, Plan, TimerDue, Turn, Walk
from tests.core.walking import START_MS, Run, call, error_type, finish, plan_of

COSTLY = "[range(150000)] | length < 0"
"""A condition that takes a good part of a budget."""
KIB = 1024
ROOT = Path(__file__).resolve().parents[2]


def turns_of(plan: Plan, input_: Any = None) -> tuple[Walk, list[Turn]]:
    """A walk, and its turns for as long as it needs nobody."""
    walk, turn = Walk.start(plan, "execution", input_, START_MS)
    turns = [turn]
    while turns[-1].more or 0 < walk.wake_at_ms <= START_MS:
        turns.append(walk.resume(MoreSteps() if turns[-1].more else TimerDue(), START_MS))
    return walk, turns


# --- budgets ---


@pytest.mark.parametrize("cases", [20, 40, 200])
def test_the_cases_of_a_switch_share_one_budget(cases: int) -> None:
    switch = {"switch": [{f"c{n}": {"when": COSTLY, "then": "end"}} for n in range(cases)]}
    error = finish([{"s": switch}]).error
    assert error["type"] == error_type("expression")
    assert "ran out of steps" in error["detail"]


def test_a_few_costly_cases_have_room() -> None:
    switch = {"switch": [{f"c{n}": {"when": COSTLY, "then": "end"}} for n in range(3)]}
    assert finish([{"s": switch}], {"x": 1}).output == {"x": 1}


def test_each_position_of_a_call_has_a_budget_of_its_own() -> None:
    costly = f"{COSTLY} | tostring"
    task = call("http://x/{a}", body=f"${{ {costly} }}", headers={"h": f"${{ {costly} }}"}, query={"q": "${ .a }"})
    run = Run(plan_of([{"c": {**task, "if": f"{COSTLY} | not"}}]), {"a": 1})
    assert run.arguments(run.open[1])["body"] == "false"


# --- slices ---


@pytest.mark.parametrize(
    "value",
    ["${ . + {i: 1} }", "${ {a: .} | .a }", {"order": "${ . }"}],
    ids=["merged", "wrapped and taken", "template"],
)
def test_large_state_makes_slices_short(value: Any) -> None:
    """Two megabytes are checked with each task, so a slice has few of them."""
    large = {"rows": ["x" * KIB] * (2 * KIB)}
    tasks = [{"l": {"for": {"in": "[range(20)]"}, "do": [{"s": {"input": {"from": "$workflow.input"}, "set": value}}]}}]
    walk, turns = turns_of(plan_of(tasks), large)
    assert walk.status == "completed"
    assert max(turn.last_sequence - turn.first_sequence for turn in turns[1:] if turn.events) <= 6
    small, quick = turns_of(plan_of(tasks), {"rows": ["x"]})
    assert small.status == "completed"
    assert len(quick) <= 2


def test_a_schema_that_is_costly_ends_its_slice() -> None:
    schema = {"document": {"type": "array", "uniqueItems": True}}
    tasks = [
        {"l": {"for": {"in": "[range(5)]"}, "do": [{"s": {"set": "$workflow.input", "output": {"schema": schema}}}]}}
    ]
    walk, turns = turns_of(plan_of(tasks), [{"n": number} for number in range(2000)])
    assert walk.status == "completed"
    assert len(turns) >= 5


@pytest.mark.parametrize("kind", ["wait", "timeout", "retry"])
def test_thousands_of_equal_deadlines_are_met_in_slices(kind: str) -> None:
    """4,000 branches that wake at the same moment: no turn meets them all, and none is met twice."""
    tasks: dict[str, Any] = {
        "wait": {"wait": "PT1S"},
        "timeout": {"try": [{"w": {"wait": "PT9S", "timeout": {"after": "PT1S"}}}], "catch": {}},
        "retry": {
            "try": [{"w": {"wait": "PT9S"}}],
            "catch": {"retry": {"limit": {"attempt": {"count": 0, "duration": "PT1S"}}}, "do": []},
        },
    }
    forks = [{f"f{n}": {"fork": {"branches": [{f"b{m}": tasks[kind]} for m in range(1000)]}}} for n in range(4)]
    plan = plan_of([{"all": {"fork": {"branches": forks}}}])
    walk, _ = turns_of(plan)
    sizes = []
    now_ms = START_MS + 1000
    turn = walk.resume(TimerDue(), now_ms)
    while walk.status == "running":
        sizes.append(turn.last_sequence - turn.first_sequence)
        assert turn.more or walk.wake_at_ms <= now_ms
        turn = walk.resume(MoreSteps() if turn.more else TimerDue(), now_ms)
    assert walk.status == "completed"
    assert max(sizes) < 5000
    assert len(sizes) > 3


# --- bounds of an execution ---


@pytest.mark.parametrize(
    "tasks",
    [
        [{"l": {"for": {"in": "[range(100000)]"}, "do": [{"m": {"for": {"in": "[range(100000)]"}, "do": []}}]}}],
        [
            {
                "l": {
                    "for": {"in": "[range(90000)]"},
                    "do": [{"m": {"for": {"in": "[range(90000)]"}, "while": "true", "do": []}}],
                }
            }
        ],
        [{"s": {"switch": [{"again": {"then": "s"}}]}}],
        [
            {
                "d": {
                    "do": [
                        {"x": {"if": "false", "set": "1", "then": "d2"}},
                        {"d2": {"if": "false", "do": [], "then": "x"}},
                    ],
                    "then": "d",
                }
            }
        ],
    ],
    ids=["loops", "while", "switch", "skipped"],
)
def test_endless_work_that_says_nothing_ends(tasks: Any) -> None:
    bounds = {"STEPS_PER_EXECUTION_MAX": 50_000, "EVENTS_PER_EXECUTION_MAX": 40_000}
    walk, turn = Walk.start(plan_of(tasks), "execution", None, START_MS, bounds=bounds)
    while turn.more:
        turn = walk.resume(MoreSteps(), START_MS)
    assert walk.error is not None
    assert walk.error["type"] == error_type("runtime")
    assert "no more are allowed" in walk.error["detail"]


def test_steps_taken_survive_a_restart() -> None:
    loop = {"for": {"in": "[range(1000)]"}, "do": [{"m": {"for": {"in": "[range(1000)]"}, "do": []}}]}
    run = Run(plan_of([{"l": loop}]), restoring=True)
    assert "10000000 steps" not in str(run.walk.error)
    plan = plan_of([{"w": {"wait": "PT1S"}}, {"l": loop}])
    walk, _ = Walk.start(plan, "execution", None, START_MS, bounds={"STEPS_PER_EXECUTION_MAX": 300})
    turn = walk.resume(TimerDue(), START_MS + 1000)
    while walk.status == "running":
        walk = Walk.restore(plan, "execution", None, walk.snapshot())
        turn = walk.resume(MoreSteps(), START_MS + 1000)
    assert not turn.more
    assert "has taken 300 steps" in str(walk.error)


# --- snapshots ---


@pytest.mark.parametrize(
    "value",
    [{"order": "${ . }"}, {"deep": [{"deeper": "${ . }"}]}, {"rows": "${ .rows }", "again": "${ .rows }"}],
    ids=["wrapped", "deep", "parts"],
)
@pytest.mark.parametrize("made", [False, True], ids=["input", "made"])
def test_what_values_share_is_written_once_at_any_depth(value: Any, made: bool) -> None:
    rows = [{"id": number, "text": f"{number:0200d}"} for number in range(500)]
    first = [{"m": {"set": "${ {rows: [.rows[] | .copy = 1]} }"}}] if made else []
    branch = {"do": [{"s": {"set": value}}, {"w": {"wait": "PT1S"}}]}
    fork = {"fork": {"branches": [{f"b{n}": branch} for n in range(100)]}, "output": {"as": "length"}}
    run = Run(plan_of([*first, {"f": fork}]), {"rows": rows})
    size = len(json.dumps(rows))
    snapshot = run.walk.snapshot()
    assert len(snapshot) < 40_000 + made * 1.2 * size
    run.restore()
    assert run.walk.snapshot() == snapshot
    run.tick()
    assert run.output == 100


def test_a_fork_over_a_large_order_completes() -> None:
    order = {"rows": ["x" * 1000] * 230}
    branch = {"do": [{"s": {"set": {"order": "${ . }"}}}, {"w": {"wait": {"milliseconds": 300}}}]}
    run = finish([{"f": {"fork": {"branches": [{f"b{n}": branch} for n in range(100)]}}}], order)
    assert run.output == [{"order": order}] * 100


# --- errors ---


def nested(tasks: list[dict[str, Any]], depth: int) -> list[dict[str, Any]]:
    return tasks if depth == 0 else nested([{f"d{depth}": {"do": tasks}}], depth - 1)


@pytest.mark.parametrize("member", ["title", "detail", "instance", "type"])
def test_error_texts_in_events_are_cut_once_and_say_so(member: str) -> None:
    error = {"type": "urn:x", "status": 400, member: "${ .text }"}
    tasks = nested([{"r": {"raise": {"error": error}}}], 4)
    text = "/" + "e" * 8_000_000
    run = Run(plan_of(tasks), {"text": text})
    assert run.error[member] == text
    assert len(run.encoded) < 100_000
    assert "(cut: 8000001 characters)" in str(run.events[-1].error)
    handled = {"try": tasks, "catch": {"do": [{"h": {"set": f"${{ $error.{member} | length }}"}}]}}
    assert finish([{"t": handled}], {"text": text}).output == len(text)


@pytest.mark.parametrize("size", [0, 10, 4096])
def test_short_error_texts_are_whole(size: int) -> None:
    run = finish(
        [{"r": {"raise": {"error": {"type": "urn:x", "status": 400, "detail": "${ .text }"}}}}], {"text": "e" * size}
    )
    assert run.events[-1].error.detail == "e" * size


# --- what comes from outside ---


@pytest.mark.parametrize(
    "outcome",
    [
        EffectFailure(1, "runtime", 500, "T", "d" * 40_000_000),
        EffectResult(1, {"x": "d" * 40_000_000}),
        EffectResult(1, object()),
        EffectResult(1, {"x": {1, 2}}),
        EffectResult(1, {1: 2}),
        EffectResult(1, json.loads("[" * 300 + "]" * 300)),
    ],
    ids=["large failure", "large result", "foreign", "foreign within", "foreign key", "deep"],
)
def test_outcomes_that_cannot_be_kept_fail_the_effect(outcome: Any) -> None:
    run = Run(plan_of([{"t": {"try": [{"c": call()}], "catch": {"do": [{"h": {"set": "$error.detail"}}]}}}]))
    run.resume(outcome)
    assert run.status == "completed"
    assert len(run.output) < 200


@pytest.mark.parametrize("env", [{"K": "\ud800"}, {"\udfff": "v"}, {"K": 1}, {1: "v"}])
def test_env_that_is_no_text_is_refused(env: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="env"):
        Walk.start(plan_of([{"s": {"set": "1"}}]), "execution", None, START_MS, env=env)


def blank(cls: Any) -> Any:
    return cls.__new__(cls)


@pytest.mark.parametrize("make", [blank, lambda cls: cls()], ids=["new", "call"])
@pytest.mark.parametrize("cls", [Plan, Walk, Capsule])
def test_nothing_is_made_of_nothing(cls: Any, make: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError):
        make(cls)


@pytest.mark.parametrize("take", [copy.copy, copy.deepcopy, pickle.dumps])
def test_walks_plans_and_capsules_are_no_data(take: Callable[[Any], Any]) -> None:
    run = Run(plan_of([{"c": call()}]))
    for thing in (run.plan, run.walk, run.open[1].capsule):
        with pytest.raises(TypeError):
            take(thing)


# --- calls ---


@pytest.mark.parametrize(("method", "sent"), [("${ .m }", "PUT"), ("get", "GET"), ('${ "pa" + "tch" }', "PATCH")])
def test_a_method_may_be_an_expression(method: str, sent: str) -> None:
    run = Run(plan_of([{"c": {"call": "http", "with": {"method": method, "endpoint": "http://h/"}}}]), {"m": "put"})
    assert run.arguments(run.open[1])["method"] == sent


@pytest.mark.parametrize("method", ["${ .none }", "${ 5 }", "${ [.m] }"])
def test_a_method_that_is_no_text_fails_the_call(method: str) -> None:
    run = finish([{"c": {"call": "http", "with": {"method": method, "endpoint": "http://h/"}}}], {"m": "put"})
    assert run.error["detail"] == "the method is not a string"


@pytest.mark.parametrize("data", [None, {}, {"petId": None}, {"other": 1}])
def test_a_uri_template_without_a_value(data: Any) -> None:
    run = Run(plan_of([{"c": call("http://h/pet/{petId}")}]), data)
    assert run.arguments(run.open[1])["uri"] == "http://h/pet/"


# --- numbers ---


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1795893024 * 1000000000", 1795893024000000000),
        ("9007199254740992 + 2", 9007199254740994),
        ("0 * -1", 0),
        ("[1.0, 2.5, -3.0]", [1, 2.5, -3]),
        ("infinite", 1.7976931348623157e308),
        ("-infinite", -1.7976931348623157e308),
        ("1e1000", 1.7976931348623157e308),
        ("nan", None),
        ("1e18", 10**18),
        ("1e19", 1e19),
        ("-9223372036854775808.0", -9.223372036854775808e18),
    ],
)
def test_numbers_leave_as_json_has_them(expression: str, value: Any) -> None:
    for tasks in (
        [{"s": {"set": expression}}],
        [{"s": {"set": {"v": f"${{ {expression} }}"}, "output": {"as": ".v"}}}],
    ):
        assert repr(finish(tasks).output) == repr(value)
    run = Run(plan_of([{"c": call(body=f"${{ {expression} }}")}]))
    assert repr(run.arguments(run.open[1])["body"]) == repr(value)


@pytest.mark.parametrize(("given", "kept"), [(1.0, 1), (-0.0, 0), (2.5, 2.5), ({"a": [1e3]}, {"a": [1000]})])
def test_numbers_of_inputs_results_and_documents_are_plain(given: Any, kept: Any) -> None:
    assert repr(finish([{"s": {"set": "."}}], given).output) == repr(kept)
    assert repr(finish([{"s": {"set": {"v": given}}}]).output) == repr({"v": kept})
    assert repr(finish([{"c": call()}], answer=lambda effect: EffectResult(effect.effect_id, given)).output) == repr(
        kept
    )


def test_the_first_turn_of_a_process_is_like_any_other() -> None:
    """What a turn borrows is new in a new process, and as good as new in any other."""
    code = (
        "from tests.core.walking import START_MS, plan_of; from fastrunner._core import Walk\n"
        "plan = plan_of([{'s': {'set': {'x': '${ . }'}}}, {'t': {'set': '.x'}}])\n"
        "turns = [Walk.start(plan, 'execution', 'in', START_MS) for _ in range(3)]\n"
        "assert [(walk.status, turn.more) for walk, turn in turns] == [('completed', False)] * 3, turns\n"
        "assert len({turn.events for _, turn in turns}) == 1\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)
