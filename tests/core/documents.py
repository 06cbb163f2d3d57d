"""Support of the core's tests: where the shared conformance data lies, and small documents to build on."""

import json
from pathlib import Path
from typing import Any

import pytest

from fastrunner._core import Problem, validate, validate_in_steps

CONFORMANCE = Path(__file__).parents[3] / "shared" / "conformance"

needs_conformance = pytest.mark.skipif(not CONFORMANCE.is_dir(), reason="the shared conformance data is absent")

HEADER = {"dsl": "1.0.3", "namespace": "tests", "name": "sample", "version": "1.0.0"}


def workflow(*tasks: Any, **root: Any) -> dict[str, Any]:
    """A workflow around tasks; they are named t0, t1, ... unless they are items with a name already."""
    items = [
        task if len(task) == 1 and next(iter(task))[:1] == "n" else {f"t{i}": task} for i, task in enumerate(tasks)
    ]
    return {"document": HEADER, "do": items, **root}


def problems(document: Any) -> list[Problem]:
    """Problems of a document given as data, `unsupported` ones left out; the same in one pass and in small steps."""
    text = json.dumps(document)
    reported = validate(text)
    assert in_steps(text) == reported
    return [problem for problem in reported if problem.code != "unsupported"]


def found(document: Any) -> list[tuple[str, str]]:
    """Code and pointer of each problem, `unsupported` ones left out."""
    return [(problem.code, problem.pointer) for problem in problems(document)]


def in_steps(text: str, budget: int = 1) -> tuple[Problem, ...]:
    """What validation in steps of this size finds."""
    steps = validate_in_steps(text, budget)
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return tuple(end.value)
