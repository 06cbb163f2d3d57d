"""Updates: what they cost grows with what they touch, and neither results nor costs depend on who else holds a value.

Rules: an evaluation may change in place only what it made and nobody can see; every way to see an older value - a
variable, a fork, a result given out, the input - must still show it afterwards. Costs are measured as in test_machine.
"""

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from fastrunner._jq import BudgetExceeded, ExpressionError, compile_expression
from tests.core.test_machine import PAD_MAX, pad_of, padded

SIZE = 100_000

NUMBERS = list(range(SIZE))
ROWS = [{"id": n * 7919 % SIZE, "kind": n % 10, "name": f"item {n}"} for n in range(SIZE)]
OBJECT = {f"k{n}": n for n in range(SIZE)}


def first(program: str, value: Any = None) -> Any:
    return compile_expression(program).first(value)


# --- linear in what they touch ---


@pytest.mark.parametrize(
    ("program", "value", "size"),
    [
        ("[range(100000)] | map_values(. + 1)", None, SIZE),
        ("map_values(. + 1)", OBJECT, SIZE),
        ("map_values(select(. % 2 == 0))", OBJECT, SIZE // 2),
        (".[] |= (tostring | length)", NUMBERS, SIZE),
        (".[] |= if . > 9 then . else empty end", NUMBERS, SIZE - 10),
        ("def f: . + 1; .[] |= f", NUMBERS, SIZE),
        (".[] += 1", NUMBERS, SIZE),
        (".[] //= 1", OBJECT, SIZE),
        (".[].kind |= . + 1", ROWS, SIZE),
        ("{a: {b: .}} | .a.b[] += 1 | .a.b", NUMBERS, SIZE),
        ("reduce .[] as $x ({}; .[$x.name] = $x)", ROWS, SIZE),
        ("reduce .[] as $x ({}; .[$x.name] += 1)", ROWS, SIZE),
        ("reduce .[] as $x ({}; .[$x.kind | tostring] += [$x.id])", ROWS, 10),
        ("reduce .[] as $x (.; .[$x] = 1)", NUMBERS, SIZE),
        ("reduce .. as $x ([]; .[length] = 1)", NUMBERS, SIZE + 1),
        ("reduce range(50000) as $i ({}; .a.b[$i] = $i) | .a.b", None, SIZE // 2),
        ("reduce .[] as $x ({}; . + {($x.name): 1})", ROWS, SIZE),
        ("reduce .[] as $x ([]; . + [$x])", NUMBERS, SIZE),
        ("reduce range(100000) as $x ([]; . + [$x])", None, SIZE),
        ("reduce range(50000) as $x ([]; . + [$x] | . + [-$x])", None, SIZE),
        ("reduce .[] as $x ([]; if $x > 9 then . + [$x] else . end)", NUMBERS, SIZE - 10),
        ("reduce .[] as [$x] ([]; . + [1])", [[1]] * SIZE, SIZE),
        ("reduce .[] as $x ({}; setpath([$x.name]; 1))", ROWS, SIZE),
        ("def add1(f): . + [f]; reduce range(50000) as $i ([]; add1($i))", None, SIZE // 2),
        ("def count(f): .[f] += 1; reduce range(40000) as $i ({}; count($i | tostring))", None, 40_000),
        ("reduce (keys[:20000])[] as $k (.; del(.[$k]))", {f"k{n}": n for n in range(40_000)}, 20_000),
        ("[] | until(length >= 100000; . + [1])", None, SIZE),
        ("{a: [], i: 0} | until(.i >= 50000; .a += [.i] | .i += 1) | .a", None, SIZE // 2),
        ("[] | first(recurse(. + [1]) | select(length == 50000))", None, SIZE // 2),
        ("[limit(100000; range(1e9))]", None, SIZE),
        ("[limit(100000; .[])]", NUMBERS, SIZE),
        ("map({(.name): .id}) | add", ROWS, SIZE),
        ("[null, map([.])[], null] | add", NUMBERS, SIZE),
        ("INDEX(.id)", ROWS, SIZE),
        ("INDEX(.[]; .name)", ROWS, SIZE),
        ("to_entries | from_entries", OBJECT, SIZE),
        ("with_entries(.value += 1)", OBJECT, SIZE),
        ("with_entries(select(.value % 2 == 0))", OBJECT, SIZE // 2),
        ("group_by(.id)", ROWS, SIZE),
        ("group_by(.name)", ROWS, SIZE),
        ("group_by(.kind)", ROWS, 10),
        ("del(.[range(100)])", NUMBERS, SIZE - 100),
        ("del(.[] | select(. % 2 == 0))", NUMBERS, SIZE // 2),
        ("del(.[].kind)", ROWS, SIZE),
        ("del(.[])", OBJECT, 0),
        ("[fromstream(.[] | tostream)]", NUMBERS[:20_000], 20_000),
        ('map(select(.name | test("^[a-z]+ [0-9]+$")))', ROWS, SIZE),
    ],
)
def test_a_hundred_thousand_elements_are_within_the_budget(program: str, value: Any, size: int) -> None:
    """Each form in one evaluation; no container is copied for each element."""
    assert first(f"{program} | length", value) == size


# --- what was there before is still seen ---


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        # A variable keeps what it was bound to.
        ("reduce (1, 2, 3) as $i ([]; . + [$i] | . as $old | . + [$old | length])", [1, 1, 2, 3, 3, 5]),
        ("reduce (1, 2, 3) as $i ([[], []]; .[0] += [$i] | .[1] += [.[0]])", [[1, 2, 3], [[1], [1, 2], [1, 2, 3]]]),
        (
            "reduce (1, 2, 3) as $i ({}; . as $o | .[$i | tostring] = $o)",
            {"1": {}, "2": {"1": {}}, "3": {"1": {}, "2": {"1": {}}}},
        ),
        ("[[1] | . + [2] | . as $x | (. + [3]), $x, (. + [4]), $x]", [[1, 2, 3], [1, 2], [1, 2, 4], [1, 2]]),
        ("def f($a): $a + [1] | ., $a; [reduce (1, 2) as $i ([]; . + [$i]) | f(.)]", [[1, 2, 1], [1, 2]]),
        # So does what was given out before.
        ("[foreach (1, 2, 3) as $i ([]; . + [$i])]", [[1], [1, 2], [1, 2, 3]]),
        (
            "[foreach (1, 2) as $i ({}; .a[$i] = $i; ., .a)]",
            [{"a": [None, 1]}, [None, 1], {"a": [None, 1, 2]}, [None, 1, 2]],
        ),
        ("[limit(3; [0] | recurse(. + [1]))]", [[0], [0, 1], [0, 1, 1]]),
        ("[[] | recurse(if length < 3 then . + [1] else empty end)]", [[], [1], [1, 1], [1, 1, 1]]),
        ("[[] | while(length < 3; . + [1])]", [[], [1], [1, 1]]),
        # Whoever goes back sees what was there.
        ("[reduce (1, 2) as $i ([0]; . + [$i]) | (.[0] = 7), (. + [8]), .]", [[7, 1, 2], [0, 1, 2, 8], [0, 1, 2]]),
        ("[reduce (1, 2) as $i ([]; . + [$i]) | .[(0, 1)] = 9]", [[9, 9]]),
        ("[reduce (1, 2) as $i ([]; . + [$i]) | . + ([3], [4])]", [[1, 2, 3], [1, 2, 4]]),
        ("[reduce (1, 2) as $i ([]; . + [$i]) | .[0] += (10, 20)]", [[11, 2], [21, 2]]),
        ("reduce (1, 2) as $i ([]; . + [$i]) | (. + [3] | error)? // .", [1, 2]),
        ('reduce (1, 2) as $i ([]; . + [$i]) | try (.[0] |= error("x")) catch [.]', ["x"]),
        (
            '[reduce (1, 2) as $i ([]; . + [$i]) | . as [$a] ?// $a | if ($a | type) == "number" then error '
            "else . + [9] end]",
            [[1, 2, 9]],
        ),
        ("[label $out | reduce (1, 2) as $i ([]; . + [$i]) | (. + [3] | ., break $out), .]", [[1, 2, 3]]),
        ("[reduce (1, 2) as $i ([]; . + [$i]) | first((. + [3]), .), .]", [[1, 2, 3], [1, 2]]),
        # One value in two places is two values.
        ("reduce (1, 2) as $i ([]; . + [$i]) | [., .] | .[0] += [3]", [[1, 2, 3], [1, 2]]),
        ("reduce (1, 2, 3) as $i ([[]]; . + [.[0]] | .[0] += [$i])", [[1, 2, 3], [], [1], [1, 2]]),
        ("reduce (1, 2) as $i ({}; .a += [$i] | .b = .a | .b += [0])", {"a": [1, 2], "b": [1, 2, 0]}),
        ("reduce (1, 2) as $i ([]; . + [$i]) | . + .", [1, 2, 1, 2]),
        ("reduce (1, 2) as $i ([]; . + [.])", [[], [[]]]),
        ("reduce (1, 2) as $i ({}; . + {a: .})", {"a": {"a": {}}}),
        ("reduce (1, 2) as $i ({}; .a = .)", {"a": {"a": {}}}),
        ("reduce (1, 2) as $i ([]; setpath([0]; .))", [[[]]]),
        ("reduce (1, 2) as $i ([]; . + (. + [$i]))", [1, 1, 2]),
        ("reduce (1, 2) as $i ({}; .a |= ([., $i]))", {"a": [[None, 1], 2]}),
        # Paths and deletions address what was there.
        ("reduce (1, 2) as $i ([]; . + [$i]) | [path(..)], (.[1] = 5 | [paths])", [[[], [0], [1]], [[0], [1]]]),
        ('[1, [2]] | (.. | select(type == "number")) |= . + 1', [2, [3]]),
        ("[1, 2, 3, 4] | .[] |= if . == 2 then empty else . * 10 end", [10, 30, 40]),
        ("{a: 1, b: 2} | (.a, .b) |= if . == 1 then empty else . end", {"b": 2}),
        ('{a: {b: 1}} | (.a, .a.b) |= if type == "object" then empty else . + 1 end', {}),
        ("{a: null} | .a.b |= empty", {"a": None}),
        ("[[1, 2], [3]] | .[][0] |= empty", None),
        ('reduce ("a", "b") as $k ({a: 1, b: 2, c: 3}; del(.[$k]))', {"c": 3}),
        ("[1, 2, 3] as $a | reduce (0, 1) as $i ($a; .[$i] = 0) | [., $a]", [[0, 0, 3], [1, 2, 3]]),
        ("def f: [1, 2]; [(f | .[0] = 9), f, ([1, 2] | .[] += 1), f]", [[9, 2], [1, 2], [2, 3], [1, 2]]),
    ],
)
def test_older_values_are_still_seen(program: str, expected: Any) -> None:
    """Through variables, results, forks, shared parts and constants, again and again."""
    compiled = compile_expression(program)
    results = compiled.outputs(None)
    want = [expected] if len(results) == 1 else expected
    if expected is not None:
        assert results == want
    assert compiled.outputs(None) == results
    assert json.loads(json.dumps(results)) == results


# --- aliases ---

PROGRAMS = (
    "reduce range(50) as $i (.a; . + [$i])",
    "reduce range(50) as $i (.; .a[$i] = $x)",
    "reduce range(50) as $i (.; .a += [$i] | .b += $x)",
    "reduce $x[] as $y (.a; . + $x | . + [$y])",
    ".a[] |= [., .] | .b = .a",
    ".a[0] += 1 | .b[]? |= .",
    "[.a, .b, $x] | .[0] += [1] | .[1] += [2] | .[2] += [3] | .[] += [4]",
    "[.a, .b, $x] | add | reduce range(30) as $i (.; .[$i] = $x)",
    "[foreach $x[] as $y (.a; . + [$y]; ., $x)]",
    "{x: $x} * {x: .a} | .x |= . + [1] | until((.x | length) > 40; .x += [1])",
    "def f(g): g as $v | $v + [1] | [., $v]; [f(.a), f(.b), f($x)]",
    'del(.a[0], .b[1]) | reduce range(9) as $i (.; setpath(["a", $i]; $x))',
    "[limit(5; .a | repeat(. + $x))] | map(length)",
    "path(.a[0]) as $p | reduce range(9) as $i (.; setpath($p; $i)) | [., $x]",
    ".a as [$p, $q] | [$p, $q] | .[0] = $x | .[1] = $x | .[0] += [1]",
    'INDEX($x[]; .) as $i | reduce range(9) as $n ($i; .["\\($n)"] += 1)',
)


def round_trip(value: Any) -> Any:
    return json.loads(json.dumps(value))


def same(value: Any) -> Any:
    return value


COPIES: tuple[Callable[[Any], Any], ...] = (same, copy.deepcopy, round_trip, lambda v: pickle.loads(pickle.dumps(v)))


@pytest.mark.parametrize("program", PROGRAMS)
def test_results_and_costs_do_not_depend_on_aliases(program: str) -> None:
    """The same object as input twice, as an argument, held by others or by nobody: equal results for equal steps."""
    compiled = padded(f"$x as $_ | {program}")
    order = {name: index for index, name in enumerate(compiled.arguments)}
    value = [1, 2, [3]]

    def run(pad: int, of: Callable[[Any], Any]) -> Any:
        arguments: list[Any] = [None, None]
        arguments[order["n"]], arguments[order["x"]] = pad, of(value)
        return compiled.first({"a": of(value), "b": of(value)}, arguments)

    def fits(pad: int, of: Callable[[Any], Any] = same) -> bool:
        try:
            run(pad, of)
        except BudgetExceeded:
            return False
        return True

    expected, pad = run(1, same), most(fits)
    for of in COPIES:
        for held in ([], [value] * 100):
            assert run(pad, of) == expected
            assert not fits(pad + 1, of)
            assert value == [1, 2, [3]]
            assert all(item is value for item in held)


def most(fits: Callable[[int], bool]) -> int:
    """The most rounds of padding within the budget."""
    low, high = 0, PAD_MAX
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def test_results_of_one_evaluation_are_not_the_next_one_s_own() -> None:
    """What an evaluation made came in from outside for the next, which leaves it alone and pays for the copy."""
    build = compile_expression("reduce range(1000) as $i ([]; . + [$i])")
    grow = padded("reduce range(3) as $i (.; . + [$i]) | length")
    made = build.first(None)
    pad = pad_of(grow, made)
    assert len(made) == 1_000
    assert pad_of(grow, round_trip(made)) == pad
    assert pad_of(grow, build.first(None)) == pad
    assert made == list(range(1_000))


def test_copies_are_paid_for_where_they_are_made() -> None:
    """An older value that is still seen makes each update a copy: then the budget ends the evaluation."""
    assert first("reduce range(100000) as $i ([]; . + [$i]) | length") == SIZE
    for seen in (
        "last(foreach range(100000) as $i ([]; . + [$i])) | length",
        "reduce range(100000) as $i ([]; . as $old | . + [$i]) | length",
        "reduce range(100000) as $i ({a: []}; {a: (.a + [$i])}) | length",
        "[range(100000)] | last(range(100000) as $i | . + [$i]) | length",
    ):
        with pytest.raises(ExpressionError, match="out of steps"):
            first(seen)


def test_constants_are_never_changed() -> None:
    """Of a program, of the library and of folded expressions."""
    compiled = compile_expression("reduce range(3) as $i ([0, {a: [1]}]; .[1].a += [$i] | . + [$i])")
    assert [compiled.first(None) for _ in range(3)] == [[0, {"a": [1, 0, 1, 2]}, 0, 1, 2]] * 3
    builtins = compile_expression("builtins | length")
    before = builtins.first(None)
    first("reduce range(3) as $i (builtins; . + [$i] | .[0] = 1)")
    assert builtins.first(None) == before


@pytest.mark.parametrize("size", [10, 1_000, 100_000])
def test_an_error_s_value_costs_what_its_size_is(size: int) -> None:
    """Wrapped and raised again at four levels: no level looks through it, and the message is cut once."""
    program = "error({a: .})"
    for _ in range(3):
        program = f"try ({program}) catch error({{a: .}})"
    compiled = padded(f"try ({program}) catch length")
    assert pad_of(compiled, "x" * size) == pad_of(compiled, "x")
    with pytest.raises(ExpressionError) as caught:
        first(program, "x" * size)
    assert str(caught.value).startswith('{"a":{"a":{"a":{"a":"xxx')
    assert len(str(caught.value)) <= 4_096 + 20
