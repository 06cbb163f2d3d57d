"""Stage 4: the expressions of `benchmarks.expressions`, one by one; run that module to have them compared."""

from typing import Any

import pytest

from benchmarks.expressions import CASES, Case
from fastrunner._jq import compile_expression


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_evaluate(benchmark: Any, case: Case) -> None:
    program = compile_expression(case.text)
    assert benchmark(program.first, case.value) == case.by_hand(case.value)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_compile(benchmark: Any, case: Case) -> None:
    assert benchmark(compile_expression, case.text).arguments == ()
