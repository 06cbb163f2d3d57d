"""Walk: sequence, directives, switch, for, fork, and the data that flows between tasks."""

from typing import Any

import pytest

from tests.core.walking import Run, call, error_type, finish, plan_of, raising

SET_ONE = {"set": {"v": 1}}


def appended(colour: str, **members: Any) -> dict[str, Any]:
    return {"set": {"colours": f'${{ .colours + ["{colour}"] }}'}, **members}


# --- sequence and directives ---


def test_tasks_run_in_declaration_order() -> None:
    run = finish([{"red": appended("red")}, {"green": appended("green")}, {"blue": appended("blue")}])
    assert run.output == {"colours": ["red", "green", "blue"]}
    assert run.log == [
        "red started",
        "red completed",
        "green started",
        "green completed",
        "blue started",
        "blue completed",
        "workflow_completed",
    ]


@pytest.mark.parametrize(
    ("tasks", "started"),
    [
        ([{"a": {**SET_ONE, "then": "c"}}, {"b": SET_ONE}, {"c": SET_ONE}], ["a", "c"]),
        ([{"a": {**SET_ONE, "then": "end"}}, {"b": SET_ONE}], ["a"]),
        ([{"a": {**SET_ONE, "then": "exit"}}, {"b": SET_ONE}], ["a"]),
        ([{"a": {**SET_ONE, "then": "continue"}}, {"b": SET_ONE}], ["a", "b"]),
        ([{"d": {"do": [{"a": {**SET_ONE, "then": "exit"}}, {"b": SET_ONE}]}}, {"c": SET_ONE}], ["d", "a", "c"]),
        ([{"d": {"do": [{"a": {**SET_ONE, "then": "end"}}, {"b": SET_ONE}]}}, {"c": SET_ONE}], ["d", "a"]),
        ([{"d": {"do": [{"a": SET_ONE}], "then": "e"}}, {"c": SET_ONE}, {"e": SET_ONE}], ["d", "a", "e"]),
        # the directive of a skipped task is not followed
        ([{"a": {**SET_ONE, "if": "false", "then": "end"}}, {"b": SET_ONE}], ["b"]),
    ],
)
def test_directives(tasks: list[dict[str, Any]], started: list[str]) -> None:
    assert finish(tasks).started == started


def test_a_directive_may_go_backwards() -> None:
    run = finish(
        [
            {"count": {"set": "{n: ((.n // 0) + 1)}"}},
            {"again": {"switch": [{"more": {"when": ".n < 4", "then": "count"}}]}},
        ]
    )
    assert run.output == {"n": 4}
    assert run.started == ["count", "again"] * 4


def test_end_deep_inside_still_shapes_the_workflow_output() -> None:
    body = [{"try": {"try": [{"stop": {"set": {"x": 5}, "then": "end"}}], "catch": {}}}]
    run = finish([{"loop": {"for": {"in": "[1,2]"}, "do": body}}, {"never": SET_ONE}], output={"as": ".x"})
    assert run.output == 5
    assert run.log == ["loop started", "try started", "stop started", "stop completed", "workflow_completed"]


# --- do, set ---


def test_an_empty_do_passes_its_input_through() -> None:
    assert finish([{"d": {"do": []}}], {"x": 1}).output == {"x": 1}
    assert finish([], 7).output == 7


def test_set_replaces_the_data() -> None:
    run = finish([{"a": {"set": {"deep": {"list": ["${ .x }", "text", {"k": "${ .x + 1 }"}]}}}}], {"x": 1, "gone": 2})
    assert run.output == {"deep": {"list": [1, "text", {"k": 2}]}}


def test_keys_and_mixed_text_are_no_expressions() -> None:
    value = {"${ .x }": "a ${ .x } b", "bare": ".x", "wrapped": " ${ .x } "}
    assert finish([{"a": {"set": value}}], {"x": 1}).output == {"${ .x }": "a ${ .x } b", "bare": ".x", "wrapped": 1}


def test_expressions_in_data_are_not_evaluated() -> None:
    data = {"a": "${ .b }", "b": "secret"}
    assert finish([{"a": {"set": "${ . }"}}, {"b": {"set": {"again": "${ .a }"}}}], data).output == {"again": "${ .b }"}


def test_several_results_are_an_array_and_none_is_null() -> None:
    assert finish([{"a": {"set": ".[]"}}], [1, 2]).output == [1, 2]
    assert finish([{"a": {"set": ".[]"}}], [1]).output == 1
    assert finish([{"a": {"set": "empty"}}], [1]).output is None


def test_numbers_that_json_lacks_become_null() -> None:
    assert finish([{"a": {"set": {"n": "${ nan }", "l": "${ [infinite] }"}}}]).output["n"] is None


def test_missing_input_reads_as_null() -> None:
    assert finish([{"a": {"set": {"v": "${ .missing }"}}}]).output == {"v": None}


# --- switch ---


@pytest.mark.parametrize(
    ("colour", "then", "started"),
    [("red", "continue", ["s", "r"]), ("blue", "continue", ["s", "d"]), ("red", "end", ["s", "r"])],
)
def test_switch_takes_the_first_match_and_the_default_wherever_it_stands(
    colour: str, then: str, started: list[str]
) -> None:
    cases = [
        {"other": {"then": "d"}},
        {"red": {"when": '.c == "red"', "then": "r"}},
        {"also": {"when": 'true and .c == "red"', "then": "d"}},
    ]
    tasks = [{"s": {"switch": cases, "then": then}}, {"d": {**SET_ONE, "then": "end"}}, {"r": SET_ONE}]
    assert finish(tasks, {"c": colour}).started == started


@pytest.mark.parametrize(("then", "started"), [("end", ["s"]), ("continue", ["s", "a", "b"]), ("b", ["s", "b"])])
def test_switch_without_a_match_follows_the_tasks_own_directive(then: str, started: list[str]) -> None:
    tasks = [{"s": {"switch": [{"c": {"when": ".x", "then": "a"}}], "then": then}}, {"a": SET_ONE}, {"b": SET_ONE}]
    assert finish(tasks, {}).started == started


@pytest.mark.parametrize("value", [0, "", [], {}])
def test_truth_is_as_in_jq(value: Any) -> None:
    tasks = [{"s": {"switch": [{"c": {"when": ".x", "then": "end"}}]}}, {"a": SET_ONE}]
    assert finish(tasks, {"x": value}).started == ["s"]


# --- for ---


def test_for_accumulates_over_items_and_indexes() -> None:
    body = {"set": {"c": "${ .c + [$colour] }", "i": "${ .i + [$index] }"}}
    run = finish([{"l": {"for": {"each": "colour", "in": ".colours"}, "do": [{"m": body}]}}], {"colours": ["r", "g"]})
    assert run.output == {"c": ["r", "g"], "i": [0, 1]}


def test_for_names_default_to_item_and_index_and_nest() -> None:
    inner = {"for": {"in": "[10, 20]"}, "do": [{"add": {"set": "${ . + [[$item, $index]] }"}}]}
    body = [{"inner": inner}, {"after": {"set": "${ . + [[$item, $index]] }"}}]
    run = finish([{"outer": {"for": {"in": '["a"]'}, "do": body}}], [])
    assert run.output == [[10, 0], [20, 1], ["a", 0]]


def test_for_variables_reach_common_properties_of_subtasks() -> None:
    body = {"if": "$item > 1", "input": {"from": "$item"}, "set": {"v": "${ . }"}, "export": {"as": "$item"}}
    run = finish([{"l": {"for": {"in": "[1, 2]"}, "do": [{"s": body}]}}, {"e": {"set": "[., $context]"}}])
    assert run.output == [{"v": 2}, 2]


@pytest.mark.parametrize(("collection", "output"), [("[]", "in"), ("null", "in")])
def test_for_without_items_passes_its_input_through(collection: str, output: str) -> None:
    assert finish([{"l": {"for": {"in": collection}, "do": [{"s": SET_ONE}]}}], "in").output == output


@pytest.mark.parametrize("collection", ["1", '"text"', "{}"])
def test_for_over_what_is_no_array_is_an_expression_error(collection: str) -> None:
    error = finish([{"l": {"for": {"in": collection}, "do": []}}]).error
    assert (error["type"], error["status"], error["instance"]) == (error_type("expression"), 400, "/do/0/l")


def test_while_is_tested_before_each_iteration_on_the_flowing_data() -> None:
    loop = {"for": {"in": "[1,2,3,4]"}, "while": ". < 3 and $index >= 0", "do": [{"add": {"set": "${ . + $item }"}}]}
    assert finish([{"l": loop}], 0).output == 3
    assert finish([{"l": {**loop, "while": "false"}}], 0).output == 0


def test_an_inline_array_may_hold_expressions() -> None:
    loop = {"for": {"in": [{"n": "${ .x }"}, {"n": 2}]}, "do": [{"take": {"set": "${ $item.n }"}}]}
    assert finish([{"l": loop}], {"x": 1}).output == 2


def test_exit_in_a_loop_ends_the_loop() -> None:
    body = [{"add": {"set": "${ . + 1 }"}}, {"leave": {"switch": [{"c": {"when": ". > 1", "then": "exit"}}]}}]
    assert finish([{"l": {"for": {"in": "[1,2,3,4]"}, "do": body}}, {"next": {"set": "${ [.] }"}}], 0).output == [2]


def test_an_empty_body_still_counts_its_iterations() -> None:
    assert finish([{"l": {"for": {"in": "[range(1000)]"}, "do": []}}], 5).output == 5


# --- fork ---


def branches(compete: bool = False, **tasks: Any) -> dict[str, Any]:
    return {"fork": {"branches": [{name: task} for name, task in tasks.items()], "compete": compete}}


def test_fork_gives_outputs_in_declaration_order() -> None:
    slow = {"do": [{"w": {"wait": {"seconds": 9}}}, {"s": {"set": "1"}}]}
    run = finish([{"f": branches(a=slow, b={"wait": "PT1S", "output": {"as": "2"}}, c={"set": "3"})}])
    assert run.output == [1, 2, 3]
    assert [line for line in run.log if line.endswith("completed")] == [
        "c completed",
        "b completed",
        "w completed",
        "s completed",
        "a completed",
        "f completed",
        "workflow_completed",
    ]


def test_fork_without_branches() -> None:
    assert finish([{"f": branches()}], 1).output == []
    assert finish([{"f": branches(compete=True)}], 1).output is None


def test_branches_see_the_forks_input_and_variables() -> None:
    fork = {**branches(a={"set": "[., $item]"}, b={"set": "$input"}), "input": {"from": ".x"}}
    assert finish([{"l": {"for": {"in": "[7]"}, "do": [{"f": fork}]}}], {"x": 1}).output == [[1, 7], 1]


def test_a_race_has_one_winner_and_its_losers_are_interrupted() -> None:
    run = Run(plan_of([{"f": branches(True, a=call(), b={"wait": "PT1S"}, c=call())}, {"s": {"set": "[.]"}}]), 5)
    first, second = run.open
    run.tick()
    assert run.output == [5]
    assert run.interrupted == [first, second]
    assert not any("a " in line and "started" not in line for line in run.log)


def test_a_call_that_lost_in_its_own_turn_is_never_asked_for() -> None:
    run = Run(plan_of([{"f": branches(True, a=call(), b={"set": "1"})}]))
    assert run.output == 1
    assert not run.interrupted
    assert run.started == ["f", "a", "b"]


def test_a_fault_does_not_win_a_race() -> None:
    assert finish([{"f": branches(True, a=raising(), b={"wait": "PT1S", "output": {"as": "2"}})}]).output == 2


def test_a_race_fails_when_every_branch_has() -> None:
    run = finish([{"f": branches(True, a=raising(1), b=raising(2))}])
    assert run.error["status"] == 2
    assert run.error["instance"] == "/do/0/f/fork/branches/1/b"
    assert run.log[-2:] == ["f failed", "workflow_failed"]


def test_a_failing_branch_fails_the_fork_and_cancels_its_siblings() -> None:
    nested = {"do": [{"g": branches(x=call(), y=call())}]}
    run = Run(plan_of([{"f": branches(a=nested, b={"wait": "PT1S"}, c={"do": [{"w": {"wait": "PT2S"}}]})}]))
    run.tick()
    assert run.walk.status == "running"
    run = Run(plan_of([{"f": branches(a=nested, b={"do": [{"w": {"wait": "PT1S"}}, {"r": raising()}]})}]))
    run.tick()
    assert run.error["instance"] == "/do/0/f/fork/branches/1/b/do/1/r"
    assert run.interrupted == [1, 2]
    assert run.log[-4:] == ["r failed", "b failed", "f failed", "workflow_failed"]


def test_branches_work_on_their_own_context_and_the_last_declared_export_stays() -> None:
    slow = {"do": [{"w": {"wait": "PT5S"}}, {"s": {"set": "$context", "export": {"as": '"a"'}}}]}
    quick = {"set": "$context", "export": {"as": '"b"'}}
    tasks = [{"p": {"set": "0", "export": {"as": '"p"'}}}, {"f": branches(a=slow, b=quick, c={"set": "$context"})}]
    assert finish([*tasks, {"e": {"set": "[., $context]"}}]).output == [["p", "p", "p"], "b"]


def test_the_winners_context_is_the_only_one_kept() -> None:
    race = branches(
        True,
        a={"do": [{"x": {"set": "1", "export": {"as": "1"}}}, {"w": {"wait": "PT9S"}}]},
        b={"wait": "PT1S", "export": {"as": "2"}},
    )
    assert finish([{"f": race}, {"e": {"set": "$context"}}]).output == 2


def test_end_in_a_branch_ends_the_workflow_with_its_output() -> None:
    run = Run(plan_of([{"f": branches(a=call(), b={"set": "4", "then": "end"})}, {"n": SET_ONE}]))
    assert run.output == 4


def test_branches_take_turns() -> None:
    spin = {"do": [{"a": {"set": "1", "then": "b"}}, {"b": {"set": "2", "then": "a"}}]}
    assert Run(plan_of([{"f": branches(True, spin=spin, other={"do": [{"x": {"set": "9"}}]})}])).output == 9


# --- the data flow ---


def test_task_data_flow_in_order() -> None:
    task = {
        "if": ".raw == 1",
        "input": {"schema": {"document": {"required": ["raw"]}}, "from": "{from: .raw}"},
        "set": {"in": "${ . }", "same": "${ $input == . }", "raw": "${ $task.input }"},
        "output": {
            "as": "{as: ., input: $input, raw: $task.output, also: ($output == .)}",
            "schema": {"document": {"required": ["as"]}},
        },
        "export": {
            "as": "{of: $output, dot: (. == $output), input: $input}",
            "schema": {"document": {"required": ["of"]}},
        },
    }
    run = finish([{"t": task}, {"c": {"set": "{data: ., context: $context}"}}], {"raw": 1})
    own = {"in": {"from": 1}, "same": True, "raw": {"raw": 1}}
    data = {"as": own, "input": {"from": 1}, "raw": own, "also": True}
    assert run.output == {"data": data, "context": {"of": data, "dot": True, "input": {"from": 1}}}


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({**SET_ONE, "input": {"schema": {"document": {"type": "string"}}, "from": '"fine"'}}, "input"),
        ({**SET_ONE, "output": {"schema": {"document": {"type": "string"}}}}, "output"),
        ({**SET_ONE, "output": {"as": '"s"', "schema": {"document": False}}}, "output"),
        ({**SET_ONE, "export": {"as": "1", "schema": {"document": {"type": "string"}}}}, "context"),
    ],
)
def test_schema_violations_are_validation_errors_of_the_task(task: dict[str, Any], message: str) -> None:
    run = finish([{"t": task}], {})
    assert (run.error["type"], run.error["status"]) == (error_type("validation"), 400)
    assert run.error["instance"] == "/do/0/t"
    assert run.error["detail"].startswith(message)
    assert run.log == ["t started", "t failed", "workflow_failed"]
    assert run.events[-1].error.code == "VALIDATION_ERROR"


def test_workflow_data_flow() -> None:
    sections: dict[str, Any] = {
        "input": {"schema": {"document": {"required": ["a"]}}, "from": ".a"},
        "output": {"as": "{out: .}"},
    }
    assert finish([{"t": {"set": "[., $workflow.input]"}}], {"a": 1}, **sections).output == {"out": [1, {"a": 1}]}


@pytest.mark.parametrize(
    ("sections", "instance", "name"),
    [
        ({"input": {"schema": {"document": {"type": "string"}}}}, "/input", "validation"),
        ({"input": {"from": "error"}}, "/input", "expression"),
        ({"output": {"as": "error"}}, "/output", "expression"),
        ({"output": {"schema": {"document": False}}}, "/output", "validation"),
    ],
)
def test_workflow_level_failures(sections: dict[str, Any], instance: str, name: str) -> None:
    run = finish([{"t": {"try": [{"s": SET_ONE}], "catch": {}}}], 1, **sections)
    assert (run.error["type"], run.error["instance"]) == (error_type(name), instance)
    assert run.log[-1] == "workflow_failed"


def test_a_skipped_task_sends_nothing_and_touches_nothing() -> None:
    skipped = {**SET_ONE, "if": "null", "output": {"as": "error"}, "export": {"as": "1"}, "timeout": {"after": "PT0S"}}
    run = finish([{"s": skipped}, {"t": {"set": "[., $context]"}}], "raw")
    assert run.output == ["raw", None]
    assert run.started == ["t"]


def test_a_failing_condition_fails_its_task() -> None:
    run = finish([{"s": {**SET_ONE, "if": "error"}}])
    assert run.log == ["s started", "s failed", "workflow_failed"]
    assert run.error["type"] == error_type("expression")


def test_context_is_the_workflows() -> None:
    tasks = [{"d": {"do": [{"x": {"set": "1", "export": {"as": "$context + {x: .}"}}}]}}, {"e": {"set": "$context.x"}}]
    assert finish(tasks).output == 1
    assert finish([{"e": {"set": "$context.missing"}}]).output is None
    assert finish([{"x": {"set": "1", "export": {"as": "null"}}}, {"e": {"set": "[$context]"}}]).output == [None]


def test_runner_arguments() -> None:
    run = Run(plan_of([{"a/b": {"set": "{w: $workflow, t: $task, r: $runtime}"}}]), {"q": 1}, env={"K": "v"})
    output = run.output
    assert output["w"]["id"] == "execution"
    assert output["w"]["input"] == {"q": 1}
    assert output["w"]["definition"]["document"]["name"] == "walked"
    moment = {
        "iso8601": "2023-11-14T22:13:20.000Z",
        "epoch": {"seconds": 1_700_000_000, "milliseconds": 1_700_000_000_000},
    }
    assert output["w"]["startedAt"] == moment
    assert output["t"]["reference"] == "/do/0/a~1b"
    assert output["t"]["name"] == "a/b"
    assert output["t"]["startedAt"] == moment
    assert output["t"]["definition"] == {"set": "{w: $workflow, t: $task, r: $runtime}"}
    assert (output["r"]["name"], output["r"]["metadata"]) == ("fastrunner", {"env": {"K": "v"}})


def test_loose_mode_tries_every_string_value() -> None:
    value = {"a": ".x", "b": "some words", "c": ".x.y", "d": "${ .x }", "e": "$nobody", "f": "1 + 1"}
    run = finish([{"t": {"set": value}}], {"x": 1}, evaluate={"mode": "loose"})
    assert run.output == {"a": 1, "b": "some words", "c": ".x.y", "d": 1, "e": "$nobody", "f": 2}


def test_loose_mode_swallows_no_failing_condition() -> None:
    run = finish([{"t": {**SET_ONE, "if": ".x.y"}}], {"x": 1}, evaluate={"mode": "loose"})
    assert run.error["type"] == error_type("expression")


def test_too_deep_data_is_an_error_not_a_crash() -> None:
    tasks = [{"grow": {"set": {"a": "${ . }"}, "then": "grow"}}]
    run = finish(tasks, 1)
    assert run.error["type"] == error_type("expression")
    assert "nested deeper" in run.error["detail"]


def test_data_that_doubles_is_an_error_not_gigabytes() -> None:
    for value in ({"a": "${ . }", "b": "${ . }"}, "[., .]"):
        run = Run(plan_of([{"grow": {"set": value, "then": "grow"}}]), "seed").finish()
        assert run.error["type"] == error_type("expression")
        assert "larger" in run.error["detail"]
