"""Expressions against libjq: programs from the grammar over small data give the same results, or fail on both sides.

Rules: libjq (PyPI `jq`) is the oracle and needed for development only. Messages are compared by the jq suite, not here.
"""

import json
import math
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from fastrunner._core import ExpressionError, ExpressionProblem, compile_expression

libjq = pytest.importorskip("jq")

EXAMPLES = 3_000

PLAIN = (
    ".",
    ".a",
    ".b",
    ".a?",
    ".[]",
    ".[]?",
    ".[0]",
    ".[1:]",
    ".[:1]?",
    "..",
    "1",
    "0",
    "-1",
    "2.5",
    '"x"',
    '"ab"',
    "null",
    "true",
    "false",
    "[]",
    "{}",
    "empty",
    "$x",
    "length",
    "keys",
    "type",
    "not",
    "add",
    "tostring",
    "tojson",
    "reverse",
    "sort",
    "unique",
    "floor",
    "first",
    "last",
    "to_entries",
    "paths",
    "any",
    "all",
    "flatten",
    "min",
    "max",
    "error",
    "range(3)",
    "arrays",
    "scalars",
    "tostream",
    "ascii_downcase",
    "explode",
    "tonumber",
    "transpose",
    "@json",
    "@html",
    "@base64",
    "@sh",
    "@csv",
)
UNARY = (
    "({})",
    "[{}]",
    "-({})",
    "({})?",
    "map({})",
    "select({})",
    "try ({}) catch .",
    "first({})",
    "[limit(2; {})]",
    "isempty({})",
    "path({})",
    "[paths({})]",
    "del({})",
    "sort_by({})",
    "group_by({})",
    "unique_by({})",
    "min_by({})",
    "map_values({})",
    "any({})",
    "all({})",
    "add({})",
    "has({})",
    "contains({})",
    "index({})",
    "walk({})",
    "with_entries({})",
    "recurse({}; false)",
    "def f: {}; f",
    "def f(g): g; f({})",
    "def f($a): $a, a; f({})",
    '"<\\({})>"',
    '@json "v\\({})"',
    "{{a: {}}}",
    "{{({}): 1}}",
    ".[{}]",
    ".[({}):]",
    "getpath([{}])",
    "label $l | {} | ., break $l",
    "join({})",
    "split({})",
    "startswith({})",
    "last({})",
    "[range({})]",
    "pick({})",
    "error({})",
    "fromjson?, ({})",
)
BINARY = (
    "{} | {}",
    "{}, {}",
    "({}) + ({})",
    "({}) - ({})",
    "({}) * ({})",
    "({}) / ({})",
    "({}) % ({})",
    "({}) == ({})",
    "({}) != ({})",
    "({}) < ({})",
    "({}) <= ({})",
    "({}) // ({})",
    "({}) and ({})",
    "({}) or ({})",
    "({}) = ({})",
    "({}) |= ({})",
    "({}) += ({})",
    "({}) //= ({})",
    "({}) as $x | {}",
    "({}) as [$x, $y] | $x, $y, {}",
    "if {} then {} end",
    "reduce ({}) as $x (0; {})",
    "foreach ({}) as $x (0; {})",
    "foreach ({}) as $x (0; .; {})",
    "try ({}) catch ({})",
    "any({}; {})",
    "all({}; {})",
    "range({}; {})",
    "{{a: ({}), b: ({})}}",
    "[({}), ({})]",
    "setpath([{}]; {})",
    ".[({}):({})]",
    "limit({}; {})",
    "skip({}; {})",
    "nth({}; {})",
    "[{}] | map({})",
    "path({} | {})",
    "del({} , {})",
    "IN({}; {})",
)

PROGRAMS = st.recursive(
    st.sampled_from(PLAIN),
    lambda inner: st.one_of(
        st.builds(str.format, st.sampled_from(UNARY), inner),
        st.builds(str.format, st.sampled_from(BINARY), inner, inner),
    ),
    max_leaves=6,
)
VALUES = st.recursive(
    st.sampled_from([None, True, False, 0, 1, -1, 2, 1.5, "", "a", "ab", "x", "b,c"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "b", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def canonical(value: Any) -> str:
    """Text that tells booleans from numbers but not 1 from 1.0."""
    if isinstance(value, float) and not math.isfinite(value):
        # As jq prints them.
        value = None if math.isnan(value) else math.copysign(sys.float_info.max, value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{canonical(v)}" for k, v in sorted(value.items())) + "}"
    return json.dumps(value)


def ours(program: str, value: Any) -> list[str] | str:
    try:
        compiled = compile_expression(program)
        if compiled.arguments:
            return "problem"
        return [canonical(result) for result in compiled.outputs(value)]
    except ExpressionProblem:
        return "problem"
    except ExpressionError as error:
        return "budget" if type(error) is not ExpressionError else "error"


def theirs(program: str, value: Any) -> list[str] | str:
    try:
        compiled = libjq.compile(program)
    except ValueError:
        return "problem"
    try:
        return [canonical(result) for result in compiled.input_text(json.dumps(value)).all()]
    except ValueError:
        return "error"


@seed(20261123)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
@given(program=PROGRAMS, value=VALUES)
def test_results_agree_with_libjq(program: str, value: Any) -> None:
    """Both give the same results in the same order, or both fail."""
    mine = ours(program, value)
    if mine != "budget":
        assert (program, value, mine) == (program, value, theirs(program, value))
