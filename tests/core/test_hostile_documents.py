"""Documents that would keep a compiler busy: their steps are counted, and nobody waits for them."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from fastrunner._core import InvalidWorkflow, Problem, validate
from fastrunner._core import compile as compile_workflow
from fastrunner.base import limits
from tests.core.documents import in_steps, workflow
from tests.core.hostile_documents import DOCUMENTS, nested_patterns, sets

CPU_S_MAX = 2.0
"""Four times what a document may take: a compiler beside the tests takes half of a core."""


@pytest.fixture(scope="module", params=DOCUMENTS)
def document(request: pytest.FixtureRequest) -> str:
    make: Callable[[], str] = DOCUMENTS[request.param]
    return make()


def test_no_document_takes_long(document: str) -> None:
    assert len(document.encode()) <= limits.DOCUMENT_SIZE_BYTES_MAX
    started_s = time.process_time()
    problems = validate(document)
    assert time.process_time() - started_s < CPU_S_MAX
    assert [problem.code for problem in problems].count("document-too-costly") <= 1
    started_s = time.process_time()
    if problems:
        with pytest.raises(InvalidWorkflow) as caught:
            compile_workflow(document)
        assert caught.value.problems == problems
    else:
        compile_workflow(document)
    assert time.process_time() - started_s < CPU_S_MAX


@pytest.mark.parametrize("budget", [50, 5_000])
@pytest.mark.parametrize(
    "name",
    [
        "unknown functions in tasks",
        "alternatives of patterns, shallow",
        "a template of expressions",
        "many invalid schemas",
    ],
)
def test_steps_find_the_same(name: str, budget: int) -> None:
    text = DOCUMENTS[name]()
    assert in_steps(text, budget) == validate(text)


def numbers(count: int, **root: Any) -> str:
    """A document with so many small expressions, each another."""
    return json.dumps(workflow({"set": {"a": [f"${{ {number} + 1 }}" for number in range(count)]}}, **root))


def costs(text: str) -> list[Problem]:
    return [problem for problem in validate(text) if problem.code == "document-too-costly"]


def test_expressions_of_a_document_share_its_steps() -> None:
    assert costs(numbers(20_000)) == []
    (problem,) = costs(numbers(50_000))
    assert str(limits.DOCUMENT_COMPILE_STEPS_MAX) in problem.message
    place = int(problem.pointer.removeprefix("/do/0/t0/set/a/"))
    assert limits.DOCUMENT_COMPILE_STEPS_MAX / 240 < place < limits.DOCUMENT_COMPILE_STEPS_MAX / 190


def test_the_same_expression_costs_once() -> None:
    assert costs(json.dumps(workflow({"set": {"a": ["${ .a + 1 }"] * 50_000}}))) == []


def test_text_that_may_be_an_expression_costs_what_one_costs() -> None:
    words = [f"word {number}" for number in range(50_000)]
    assert costs(json.dumps(workflow({"set": {"a": words}}))) == []
    assert len(costs(json.dumps(workflow({"set": {"a": words}}, evaluate={"mode": "loose"})))) == 1
    assert costs(json.dumps(workflow({"set": {"a": words[:10_000]}}, evaluate={"mode": "loose"}))) == []


def test_expressions_and_schemas_share_steps() -> None:
    schema: list[Any] = [
        {"patternProperties": {f"^[a-z]{{1,{most}}}{number}$": {} for most in range(1, 60)}} for number in range(10)
    ]
    tasks = [{"set": {"a": 1}, "output": {"schema": {"document": each}}} for each in schema]
    many = {"set": {"a": [f"${{ {number} + 1 }}" for number in range(100, 24_000)]}}
    assert costs(json.dumps(workflow(*tasks))) == []
    assert costs(json.dumps(workflow(many))) == []
    assert len(costs(json.dumps(workflow(*tasks, many)))) == 1


def test_one_part_has_fewer_steps() -> None:
    (problem,) = costs(sets([nested_patterns(14, 1)]))
    assert problem.pointer == "/do/0/t0/set/a"
    assert str(limits.DOCUMENT_COMPILE_STEPS_MAX // 12) in problem.message
    assert costs(sets([nested_patterns(6, 1)])) == []
    schema = {"enum": [[{str(number): number} for number in range(100)] for _ in range(500)]}
    task = {"set": {"a": 1}, "output": {"schema": {"document": schema}}}
    assert [problem.pointer for problem in costs(json.dumps(workflow(task)))] == ["/do/0/t0/output/schema/document"]


def test_problems_before_it_are_told() -> None:
    text = json.dumps(
        workflow({"set": {"a": "${ . + }"}}, {"set": {"a": f"${{ {nested_patterns(14, 1)} }}"}}, {"wait": 1})
    )
    assert [problem.code for problem in validate(text)] == ["invalid-expression", "document-too-costly"]


def test_a_stored_document_was_paid_for() -> None:
    compile_workflow(numbers(50_000), stored=True)
    with pytest.raises(InvalidWorkflow, match="takes too much"):
        compile_workflow(numbers(50_000))


def test_what_is_told_has_hints() -> None:
    problems = validate(sets(["lenght"] * 150))
    assert len(problems) == limits.PROBLEMS_MAX
    assert all("did you mean 'length'?" in problem.message for problem in problems)
