"""Bounds of documents, walks and expressions that no other module reaches: the largest passes, the next is refused."""

import gc
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fastrunner._core import InvalidSchema, InvalidWorkflow, Walk, compile_schema, load
from fastrunner._jq import ExpressionError, ExpressionProblem, compile_expression
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import ReportProgressBatchRequest
from fastrunner.base import limits
from tests.core.documents import found, workflow
from tests.core.walking import START_MS, error_type, finish, plan_of

SET = {"set": {"a": 1}}
LIGATURE = "\N{LATIN SMALL LIGATURE FFI}"


def refusal(text: str) -> str:
    with pytest.raises(InvalidWorkflow) as caught:
        load(text)
    return caught.value.problems[0].code


def first(program: str, value: Any = None) -> Any:
    return compile_expression(program).first(value)


def nested(levels: int, kind: str) -> Any:
    """So many task lists within task lists."""
    task: dict[str, Any] = SET
    for _ in range(levels):
        task = {"do": [{"n": task}]} if kind == "do" else {"try": [{"n": task}], "catch": {}}
    return workflow(task)


# --- documents ---


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a": ', "}"), ("\n[", "]")])
def test_depth_of_a_document(opening: str, closing: str) -> None:
    """In JSON as in YAML, which a leading line break makes of it."""
    inner = "1" if opening.endswith(" ") else ""
    deepest = limits.DOCUMENT_DEPTH_MAX
    load(opening * deepest + inner + closing * deepest)
    assert refusal(opening * (deepest + 1) + inner + closing * (deepest + 1)) == "too-deep"


@pytest.mark.parametrize("of", ['{"%s": 1}', "? %s\n: 1"])
def test_size_of_a_key(of: str) -> None:
    longest = "k" * limits.DOCUMENT_KEY_SIZE_MAX
    assert load(of % longest) == {longest: 1}
    assert refusal(of % (longest + "k")) == "key-too-long"


@pytest.mark.parametrize("kind", ["do", "try"])
def test_task_lists_within_task_lists(kind: str) -> None:
    assert found(nested(limits.TASK_NESTING_MAX - 1, kind)) == []
    ((code, pointer),) = found(nested(limits.TASK_NESTING_MAX, kind))
    assert code == "too-deep"
    assert pointer.count("/n") == limits.TASK_NESTING_MAX - 1


# --- the walk ---


def test_longest_computed_wait() -> None:
    """A duration that an expression gives is cut there; one that is written is refused."""
    for seconds in (limits.DURATION_MS_MAX // 1000, 10**12):
        plan = plan_of([{"w": {"wait": "${ .d }"}}])
        walk, _ = Walk.start(plan, "id", {"d": f"PT{seconds}S"}, START_MS)
        assert (walk.status, walk.wake_at_ms) in (("running", START_MS + limits.DURATION_MS_MAX), ("failed", 0))


def test_branch_rests_after_its_steps() -> None:
    """An endless branch does not keep another waiting for its own end, nor even for its slice's."""
    endless = {"do": [{"again": {"set": {"a": 1}, "then": "again"}}]}
    brief = {"do": [{"brief": {"set": {"b": 1}}}]}
    fork = [{"both": {"fork": {"branches": [{"endless": endless}, {"short": brief}]}}}]
    _, turn = Walk.start(plan_of(fork), "id", {}, START_MS)
    assert turn.more
    names = [event.task_name for event in ReportProgressBatchRequest.FromString(turn.events).events]
    # Two events for a task, which takes a step.
    assert 0 < names[: names.index("brief")].count("again") <= 2 * limits.STRAND_STEPS_MAX


def test_violations_of_a_schema_that_are_told() -> None:
    schema = {"type": "object", "additionalProperties": {"type": "integer"}}
    value = {f"k{number}": "x" * 1_000 for number in range(10)}
    run = finish([{"a": SET}], value, input={"schema": {"document": schema}})
    assert run.error["type"] == error_type("validation")
    told = run.error["detail"].split("; ")
    assert len(told) == limits.SCHEMA_ERRORS_MAX
    assert all(limits.SCHEMA_MESSAGE_SIZE_MAX <= len(each) < limits.SCHEMA_MESSAGE_SIZE_MAX + 100 for each in told)


def test_work_of_a_schema() -> None:
    """A check that takes too long ends as a violation of the place it stands at."""
    schema = {"items": {"pattern": "^(a+)+$"}}
    run = finish([{"a": SET}], ["a" * 40 + "b"] * 100, input={"schema": {"document": schema}})
    assert run.error["type"] == error_type("validation")
    assert run.error["detail"].endswith(f"/: schema took more than {limits.SCHEMA_STEPS_MAX} steps")


def test_schemas_within_schemas() -> None:
    """A chain of references does not reach the end of the stack, in a thread either."""
    chain = {f"a{number}": {"not": {"$ref": f"#/$defs/a{number + 1}"}} for number in range(5_000)}
    schema = {"$defs": {**chain, "a5000": {}}, "$ref": "#/$defs/a0"}
    told = f"/: schemas apply within schemas more than {limits.SCHEMA_DEPTH_MAX} times"
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(compile_schema(schema).check, 1).result()[0] == told
    short = {"$defs": {**chain, f"a{limits.SCHEMA_DEPTH_MAX // 2 - 1}": True}, "$ref": "#/$defs/a0"}
    assert compile_schema(short).check(1)[0] == '/: {"$ref":"#/$defs/a1"} is not allowed for 1'


def test_work_of_compiling_a_schema() -> None:
    schema = {"enum": [[{str(number): number} for number in range(100)] for _ in range(5_000)]}
    with pytest.raises(InvalidSchema, match=f"takes more than {limits.SCHEMA_COMPILE_STEPS_MAX} steps"):
        compile_schema(schema)


# --- expressions ---


def test_size_of_an_expression() -> None:
    padding = " " * (limits.EXPRESSION_SIZE_BYTES_MAX - 1)
    assert first("1" + padding) == 1
    with pytest.raises(ExpressionProblem, match=f"at most {limits.EXPRESSION_SIZE_BYTES_MAX} are allowed"):
        compile_expression("1 " + padding)


def test_work_of_compiling_an_expression(monkeypatch: pytest.MonkeyPatch) -> None:
    alternatives = ". as " + " ?// ".join(f"[$a{number}]" for number in range(200)) + " | 1"
    monkeypatch.setattr(limits, "EXPRESSION_COMPILE_STEPS_MAX", 10_000)
    with pytest.raises(ExpressionProblem, match="too long to compile"):
        compile_expression(alternatives)
    compile_expression(". + 1")


@pytest.mark.parametrize(
    ("program", "limit", "error"),
    [
        ("last(range(%d))", limits.EXPRESSION_STEPS_MAX, "ran out of steps"),
        ("def f: 1 + f; %d | f", limits.EXPRESSION_DEPTH_MAX, "nested too deeply"),
        ('"a" * %d | length', limits.EXPRESSION_STRING_SIZE_MAX, "a string that is too long"),
    ],
)
def test_bounds_of_an_evaluation(program: str, limit: int, error: str) -> None:
    with pytest.raises(ExpressionError, match=error):
        first(program % (limit + 1))


def test_results_of_an_evaluation() -> None:
    assert len(compile_expression(f"range({limits.EXPRESSION_OUTPUTS_MAX})").outputs(None)) == 100_000
    with pytest.raises(ExpressionError, match="too many"):
        compile_expression(f"range({limits.EXPRESSION_OUTPUTS_MAX + 1})").outputs(None)


def test_array_of_an_evaluation() -> None:
    """Its elements cost little where they are put there all at once."""
    half = [None] * (limits.EXPRESSION_ARRAY_SIZE_MAX // 2)
    assert len(first(". + .", half)) == limits.EXPRESSION_ARRAY_SIZE_MAX
    with pytest.raises(ExpressionError, match="an array that is too long"):
        first(". + . + [1]", half)


# --- regular expressions ---


def test_size_of_a_regular_expression() -> None:
    longest = "a" * limits.REGEX_SIZE_CHARS_MAX
    assert first("test($p)".replace("$p", json.dumps(longest)), "b") is False
    with pytest.raises(ExpressionError, match=f"at most {limits.REGEX_SIZE_CHARS_MAX} are allowed"):
        first("test(.)", longest + "a")


def test_nesting_of_a_regular_expression() -> None:
    levels = limits.REGEX_DEPTH_MAX
    assert first("test(.)", "(?:" * (levels // 3) + ")" * (levels // 3)) is True
    with pytest.raises(ExpressionError, match="too deep nest level"):
        first("test(.)", "(" * (levels + 1) + ")" * (levels + 1))


def test_instructions_of_a_regular_expression() -> None:
    """Some characters are as many as three others where case does not count."""
    assert first('test(.; "i")', LIGATURE * (limits.REGEX_INSTRUCTIONS_MAX // 10)) is True
    with pytest.raises(ExpressionError, match="too big pattern"):
        first('test(.; "i")', LIGATURE * (limits.REGEX_INSTRUCTIONS_MAX // 5))


def test_stack_of_the_matcher() -> None:
    """A match that could go back to any of a million places."""
    with pytest.raises(ExpressionError, match="too much memory for a regular expression"):
        first('test("(?:a|b)*c")', "ab" * limits.REGEX_STACK_MAX)


def test_compiled_regular_expressions_that_are_kept() -> None:
    """Patterns made from data do not pile up."""
    program = compile_expression(
        '. as [$from, $to] | [range($from; $to) | tostring | . as $p | "x" | test($p)] | length'
    )
    size = limits.REGEX_PATTERNS_MAX
    counts = []
    for part in range(6):
        program.first([part * size, (part + 1) * size])
        gc.collect()
        counts.append(len(gc.get_objects()))
    assert max(counts) - min(counts) < size
