"""Expressions within bounds: hostile ones end soon and in little memory, deep ones where jq's do or at the budget."""

import contextlib
import functools
import multiprocessing
import resource
import threading
import time
from typing import Any

import pytest

from fastrunner._jq import ExpressionError, ExpressionProblem, compile_expression
from fastrunner.base import limits
from tests.core import hostile

# Far above what the budget allows: this is no measurement, which benchmarks/ has.
CPU_S_MAX = 1.0
MEMORY_SIZE_BYTES_MAX = 300 << 20
DEPTH = 100_000

spawning = multiprocessing.get_context("spawn")


def first(program: str, value: Any = None) -> Any:
    return compile_expression(program).first(value)


@functools.cache
def deep_pair(of: type) -> list[Any]:
    """Two equal values of nested arrays, or objects; made once, as evaluations leave their input alone."""
    pair: list[Any] = [None, None]
    for index in range(2):
        for _ in range(DEPTH):
            pair[index] = [pair[index]] if of is list else {"a": pair[index]}
    return pair


# --- hostile expressions ---


@pytest.mark.parametrize("program", hostile.ERRORS)
def test_hostile_expressions_fail_soon(program: str) -> None:
    """Each ends with an error of the expression, within its budget."""
    compiled = compile_expression(program)
    started = time.process_time()
    with pytest.raises(ExpressionError):
        compiled.first(None)
    assert time.process_time() - started < CPU_S_MAX


@pytest.mark.parametrize("program", hostile.PATTERNS)
def test_hostile_patterns_end_soon(program: str) -> None:
    """A regular expression that would backtrack for ever ends: with an error, or because it need not backtrack."""
    compiled = compile_expression(program)
    started = time.process_time()
    with contextlib.suppress(ExpressionError):
        compiled.first(None)
    assert time.process_time() - started < CPU_S_MAX


def memory_grown_by(programs: tuple[str, ...]) -> int:
    """Runs in a child: bytes its peak grew by."""
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for program in programs:
        with contextlib.suppress(ExpressionError):
            compile_expression(program).first(None)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) << 10


def test_hostile_expressions_take_little_memory() -> None:
    """The budget of steps bounds memory as well: no evaluation holds more than a few hundred megabytes."""
    with spawning.Pool(1) as pool:
        assert pool.apply(memory_grown_by, (hostile.ERRORS + hostile.PATTERNS,)) < MEMORY_SIZE_BYTES_MAX


def test_the_budget_is_renewed() -> None:
    """What one evaluation used, and the stacks it grew, are nothing to the next one."""
    for _ in range(3):
        with pytest.raises(ExpressionError, match="out of steps"):
            first("def f: f; try f catch .")
        assert first("[limit(3; repeat(1))]") == [1, 1, 1]


def test_error_messages_are_cut() -> None:
    """An error may carry any value; its message is what travels."""
    for program in (f"error({hostile.LONG})", f"error({hostile.SHARED})", f"{hostile.LONG} | fromjson"):
        with pytest.raises(ExpressionError) as caught:
            first(program)
        assert len(str(caught.value)) <= limits.EXPRESSION_ERROR_SIZE_MAX + 20
    with pytest.raises(ExpressionError) as caught:
        first("error({a: 1})")
    assert str(caught.value) == '{"a":1} (not a string)'


@pytest.mark.parametrize("text", hostile.TEXTS.values(), ids=hostile.TEXTS)
def test_hostile_texts_compile_soon(text: str) -> None:
    """A text either compiles or is refused with a short message and an offset within it, soon."""
    started = time.process_time()
    refused: list[ExpressionProblem] = []
    try:
        compile_expression(text)
    except ExpressionProblem as problem:
        refused.append(problem)
    assert all(0 <= problem.offset <= len(text) and len(problem.message) < 1_000 for problem in refused)
    assert time.process_time() - started < CPU_S_MAX


# --- recursion a hundred thousand levels deep ---


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("def f: if . == 0 then 0 else (. - 1 | f) + 1 end; 100000 | f", 100_000),
        ("def f(g): if . == 0 then g else . - 1 | f(g + 1) end; 100000 | f(0)", 100_000),
        ("def f: ., if . < 100000 then . + 1 | f else empty end; [0 | f] | length", 100_001),
        ("def f: first(if . == 0 then 0 else . - 1 | f end); 100000 | f", 0),
        ("def f: label $out | if . == 0 then break $out else . - 1 | f end; [100000 | f]", []),
        ("def f: if . > 0 then (. - 1 | [f]) else . end; 100000 | f | length", 1),
        ("[recurse(if . < 100000 then . + 1 else empty end)] | length", 100_001),
    ],
)
def test_programs_recurse_a_hundred_thousand_levels(program: str, expected: Any) -> None:
    """Frames, variables and ways back lie on the heap."""
    if program.startswith("[recurse"):
        program = f"0 | {program}"
    assert first(program) == expected


@pytest.mark.parametrize(
    "program",
    [
        "def f: if . == 0 then 0 else (. - 1 | f) + 1 end; 1e7 | f",
        "def f: try (if . == 0 then error(1) else . - 1 | f end) catch error(.); 1e7 | f",
        "def f: reduce (if . == 0 then 0 else . - 1 | f end) as $x (0; $x); 1e7 | f",
        "def f: [if . == 0 then 0 else . - 1 | f end]; 1e7 | f",
        "def f(g): def h: g | f(h); h; 1 | f(.)",
        "def f: path(f); f",
        "def f: .[f]; f",
        'def f: "\\(f)"; f',
    ],
)
def test_deeper_programs_fail(program: str) -> None:
    """Beyond the bound on calls or steps there is an error, no crash."""
    with pytest.raises(ExpressionError, match=r"nested too deeply|out of steps"):
        first(program)


DEEP_ERRORS = (
    # program, over arrays; over objects; the error, or the result's text.
    (".[0] == .[1]", "Equality check too deep"),
    (".[0] < .[1]", "Comparison too deep"),
    ("sort", "Comparison too deep"),
    ("unique", "Comparison too deep"),
    ("group_by(.)", "Comparison too deep"),
    ("min", "Comparison too deep"),
    ("unique_by(.)", "Comparison too deep"),
    (".[0] as $x | .[1] | contains($x)", "Containment check too deep"),
    (".[0] as $x | .[1] | inside($x)", "Containment check too deep"),
    ("index([.[1]])", "Equality check too deep"),
    (". - [.[1]]", None),
    (".[0] | getpath([range(20000) | 0])", "Path too deep"),
    (".[0] | setpath([range(20000) | 0]; 1)", "Path too deep"),
    (".[0] | delpaths([[range(20000) | 0]])", "Path too deep"),
    ("[.[0] | tostream]", "Path too deep|out of steps"),
    ("[.[0] | paths]", "out of steps"),
    (".[0] | path(..)", "out of steps"),
    (".[0] | .. |= .", "out of steps|too deep"),
    (".[0] | del(..)", "out of steps|too deep"),
    (".[0] | walk(.) | length", None),
    (".[0] | [..] | length", 100_001),
    (".[0] | last(..)", None),
    (".[0] | [.[]?] | length", 1),
    (".[0] | first(recurse) | length", 1),
    (".[0] | map_values(.) | length", 1),
    (".[0] | error(.)", r"\.\.\.$"),
    (".[0] | try error(.) catch length", 1),
    (".[0] | .[{}]", "Cannot index|indices must be integers"),
    (".[0] | try .[{}] catch length", None),
    (".[0] | until(. == null; .[]?)", None),
    (".[0] | [limit(3; ..)] | length", 3),
    ("[.[0], .[0]] | .[0] == .[1]", True),
    ("add | length", None),
)


@pytest.mark.parametrize(("program", "expected"), DEEP_ERRORS)
@pytest.mark.parametrize("of", [list, dict])
def test_data_a_hundred_thousand_levels_deep(of: type, program: str, expected: Any) -> None:
    """Fails where jq fails, or at the budget; whatever passes through such data only works. None: either will do."""
    if isinstance(expected, str):
        with pytest.raises(ExpressionError, match=expected):
            first(program, deep_pair(of))
        return
    try:
        result = first(program, deep_pair(of))
    except ExpressionError:
        assert expected is None
    else:
        assert expected is None or result == expected


def test_deep_arrays_flatten_and_objects_merge_to_jq_s_bound() -> None:
    """Both go down 10,000 levels."""
    with pytest.raises(ExpressionError, match="nested too deeply"):
        first("flatten", deep_pair(list))
    with pytest.raises(ExpressionError, match="Object merge too deep"):
        first(".[0] * .[1]", deep_pair(dict))


def test_deep_data_prints_to_jq_s_bound() -> None:
    """Beyond 10,000 levels the text says so."""
    for of in (list, dict):
        for program in ("tojson", "tostring", "@json", "@text", '"\\(.)"'):
            assert "<skipped: too deep>" in first(program, deep_pair(of)[0])


def test_deep_text_is_refused() -> None:
    """Reading JSON ends at jq's depth limit."""
    for text in ("[" * 100_000, '{"a":' * 100_000, "[" * 10_001 + "]" * 10_001):
        with pytest.raises(ExpressionError, match="Exceeds depth limit for parsing"):
            first("fromjson", text)
    assert first("fromjson | length", "[" * 10_000 + "]" * 10_000) == 1


def deep_outcomes() -> list[str]:
    """What the deep expressions give, wherever they run."""
    outcomes = []
    for of in (list, dict):
        for program, _ in DEEP_ERRORS:
            try:
                outcomes.append(type(first(program, deep_pair(of))).__name__)
            except ExpressionError as error:
                outcomes.append(str(error)[:100])
    return outcomes


def test_deep_data_in_threads_and_processes() -> None:
    """Neither a thread with the default stack nor a new process crashes."""
    from_thread: list[list[str]] = []
    thread = threading.Thread(target=lambda: from_thread.append(deep_outcomes()))
    thread.start()
    thread.join()
    with spawning.Pool(1) as pool:
        assert pool.apply(deep_outcomes) == from_thread[0]
