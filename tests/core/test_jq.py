"""Expressions through their public surface: results, arguments, problems with offsets, budget, immutability."""

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrunner._jq import ExpressionError, ExpressionProblem, Program, compile_expression


def outputs(program: str, value: Any = None, arguments: tuple[Any, ...] = (), now_ms: int = 0) -> list[Any]:
    return compile_expression(program).outputs(value, arguments, now_ms)


def first(program: str, value: Any = None, arguments: tuple[Any, ...] = (), now_ms: int = 0) -> Any:
    return compile_expression(program).first(value, arguments, now_ms)


# --- results ---


@pytest.mark.parametrize(
    ("program", "value", "expected"),
    [
        ("", 5, [5]),
        (".", {"a": 1}, [{"a": 1}]),
        (".counter + 1", {"counter": 1}, [2]),
        (".a.b.c", {"a": None}, [None]),
        ('.a."b c"["d"]', {"a": {"b c": {"d": 7}}}, [7]),
        (".[] | select(. > 1) | . * 2", [1, 2, 3], [4, 6]),
        ("{a: .x, (.y, .z): 1}", {"x": 1, "y": "p", "z": "q"}, [{"a": 1, "p": 1}, {"a": 1, "q": 1}]),
        ('"\\(.a) and \\(.b)"', {"a": 1, "b": [2]}, ["1 and [2]"]),
        ('@uri "q=\\(.)"', "a b", ["q=a%20b"]),
        (".a? // 1", 5, [1]),
        (".a.b? // 1", {"a": 5}, [1]),
        ("(false, null, 1) // 2", None, [1]),
        ("empty // 2", None, [2]),
        ("1 + 2 as $x | -$x", None, [-3]),
        ("if . then 1 elif true then 2 else 3 end", None, [2]),
        ("reduce .[] as [$a, $b] (0; . + $a * $b)", [[1, 2], [3, 4]], [14]),
        ("[foreach range(3) as $x (0; . + $x; [$x, .])]", None, [[[0, 0], [1, 1], [2, 3]]]),
        ("label $out | .[] | if . > 1 then break $out else . end", [0, 1, 2, 0], [0, 1]),
        ("def f(g; $x): [g, $x, x]; f(.[]; 9)", [1, 2], [[1, 2, 9, 9]]),
        ("def fib: if . < 2 then . else (. - 1 | fib) + (. - 2 | fib) end; fib", 15, [610]),
        ("try error({a: 1}) catch .a", None, [1]),
        ("[.[] | try tonumber catch -1]", ["1", "x"], [[1, -1]]),
        (".a[1:] = [9]", {"a": [1, 2, 3]}, [{"a": [1, 9]}]),
        ('.. |= (if type == "number" then . + 1 else . end)', [1, {"a": 2}], [[2, {"a": 3}]]),
        ("del(.[0, 2])", [1, 2, 3], [[2]]),
        ("[paths]", {"a": [1]}, [[["a"], ["a", 0]]]),
        ("to_entries | from_entries", {"b": 1, "a": 2}, [{"b": 1, "a": 2}]),
        ("group_by(.k) | map(length)", [{"k": 2}, {"k": 1}, {"k": 2}], [[1, 2]]),
        ('[match("(?<n>[a-z])\\\\d"; "g") | .captures[0].name, .offset]', "a1b2", [["n", 0, "n", 2]]),
        ('gsub("(?<x>[aeiou])"; "<\\(.x)>")', "hello", ["h<e>ll<o>"]),
        ("[.[] as [$a] ?// $a | $a]", [[1], 2], [[1, 2]]),
        ("$__loc__", None, [{"file": "<top-level>", "line": 1}]),
        ("# nothing but a comment\n1", None, [1]),
        ("[limit(3; repeat(1))]", None, [[1, 1, 1]]),
        ("input_output", {}, None),
    ],
)
def test_results(program: str, value: Any, expected: list[Any] | None) -> None:
    """A program yields these results in this order; None: it does not compile."""
    if expected is None:
        with pytest.raises(ExpressionProblem):
            compile_expression(program)
    else:
        assert outputs(program, value) == expected


def test_first_result_rule() -> None:
    """No result is null, one is itself, several are an array."""
    assert first("empty") is None
    assert first(".[]", [[1]]) == [1]
    assert first(".[]", [1, 2]) == [1, 2]


def test_numbers_are_integers_where_they_can_be() -> None:
    """Arithmetic is on doubles; integral results below 2^63 are ints; literals are handed on as they are."""
    assert repr(outputs("1 + 1, 4 / 2, 10 / 4, 0.5 + 0.5")) == "[2, 2, 2.5, 1]"
    assert repr(outputs("9007199254740993, 9007199254740993 + 0, -9007199254740993")) == (
        "[9007199254740993, 9007199254740992, -9007199254740992]"
    )
    assert repr(outputs("1e17 + 0, pow(2; 62), pow(2; 63), -pow(2; 63)")) == (
        "[100000000000000000, 4611686018427387904, 9.223372036854775808e+18, -9.223372036854775808e+18]"
    ).replace("9.223372036854775808e+18", repr(2.0**63))


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("1795893024 * 1000000000 | tostring", "1795893024000000000"),
        ("9007199254740992 + 2 | tojson", "9007199254740994"),
        ("0 * -1 | tostring", "-0"),
        ("-0 | tojson", "0"),
        ("1e1000 | tojson", "1.7976931348623157e+308"),
        ("[infinite, -infinite, nan] | tojson", "[1.7976931348623157e+308,-1.7976931348623157e+308,null]"),
        ("pow(2; 60) | @text", "1152921504606847000"),
        ('1152921504606846976 | "\\(.)"', "1152921504606847000"),
        ("12345678909876543212345 | @json", "12345678909876543000000"),
        ("[1e-5, 0.0001, 1.5e300, 3.0, 1e15, 1e16] | tojson", "[1e-05,0.0001,1.5e+300,3,1000000000000000,1e+16]"),
    ],
)
def test_numbers_print_as_doubles_do(program: str, text: str) -> None:
    """As jq prints them without decNumber: 17 digits, and no more than 15 zeros behind the last one."""
    assert first(program) == text


@pytest.mark.parametrize(
    ("program", "left", "right"),
    [
        ("$a == $b", 2**53 + 1, 2**53),
        ("[$a, $b] | unique | length == 1", 2**53 + 1, 2**53),
        ("[$a, $b] | group_by(.) | length == 1", 10**25 + 1, 10**25),
        ("[$a, $b] | (min_by(.) == $b) and ($a <= $b)", -(2**60) - 1, -(2**60)),
    ],
)
def test_integers_compare_as_doubles(program: str, left: int, right: int) -> None:
    """Those that are one double are equal; those that are not keep their order."""
    compiled = compile_expression(program)
    values = {"a": left, "b": right}
    assert compiled.first(None, [values[name] for name in compiled.arguments]) is True
    assert first("sort", [left, right]) == [left, right]
    assert first("sort", [2 * left, right, 3 * left]) == sorted([2 * left, right, 3 * left])


@pytest.mark.parametrize(
    ("program", "value", "plain"),
    [
        ("nan", None, None),
        ("infinite", None, sys.float_info.max),
        ("-infinite", None, -sys.float_info.max),
        ("1e1000", None, sys.float_info.max),
        (". * -1", 0, 0),
        ('"-0" | tonumber', None, 0),
        ('"nan" | fromjson', None, None),
        ("[1, nan, {a: [., -infinite]}]", [7], [1, None, {"a": [[7], -sys.float_info.max]}]),
        ("[limit(2; repeat(nan))], 5", None, [[None, None], 5]),
        ("{a: nan, b: .} | .b", {"c": 1.5}, {"c": 1.5}),
        ("[nan] | sort | .[0] < 1 | [., nan]", None, [True, None]),
        ("reduce range(3) as $i (nan; [., .])", None, [[[None, None], [None, None]], [[None, None], [None, None]]]),
    ],
)
def test_results_hold_json_s_numbers_only(program: str, value: Any, plain: Any) -> None:
    """nan leaves as null, infinities as the largest double, zero without a sign; at any depth, input left alone."""
    before = repr(value)
    result = first(program, value)
    assert repr(result) == repr(plain)
    assert repr(value) == before


def test_deep_and_shared_results_are_made_plain() -> None:
    """By a loop, each container once."""
    deep = first("reduce range(50000) as $i (nan; [.])")
    for _ in range(50_000):
        deep = deep[0]
    assert deep is None
    shared = first("reduce range(60) as $i (nan; [., .])")
    for _ in range(60):
        assert shared[0] is shared[1]
        shared = shared[0]
    assert shared is None


def test_order_of_all_values() -> None:
    """null < false < true < numbers < strings < arrays < objects."""
    values = [{}, [], "a", 1, True, False, None]
    assert first("sort", values) == values[::-1]
    assert first("map(type) | unique", values) == ["array", "boolean", "null", "number", "object", "string"]


def test_input_is_never_modified() -> None:
    """Updates copy the path they change and share the rest."""
    value = {"a": {"b": [1, 2]}, "c": {"d": 1}}
    result = first(".a.b[0] = 9 | del(.a.b[1])", value)
    assert value == {"a": {"b": [1, 2]}, "c": {"d": 1}}
    assert result == {"a": {"b": [9]}, "c": {"d": 1}}
    assert result["c"] is value["c"]


# --- arguments and time ---


def test_free_variables_are_arguments() -> None:
    """In order of first use, with the offset of it; bound variables are none."""
    program = compile_expression("$b + (1 as $x | $x + $a + $b)")
    assert program.arguments == ("b", "a")
    assert [program.argument_offset(name) for name in program.arguments] == [0, 21]
    assert program.first(None, [1, 10]) == 13
    with pytest.raises(ValueError, match="takes 2 arguments"):
        program.first(None, [1])


def test_arguments_reach_closures_and_generators() -> None:
    """An argument is seen by functions, closures and every result of a generator."""
    assert outputs("def f(g): [g]; f(.[] + $n)", [1, 2], (10,)) == [[11, 12]]


def test_now_is_an_argument() -> None:
    """`now` is the walk's clock."""
    assert first("now", None, (), 1_700_000_000_500) == 1700000000.5
    assert first("now | todate", None, (), 1_700_000_000_500) == "2023-11-14T22:13:20Z"


@given(seconds=st.integers(-(10**11), 10**12))
def test_dates_are_the_same_on_the_short_way(seconds: int) -> None:
    """`todate` of an ordinary second is what `strftime` makes of it."""
    assert outputs("todate", seconds) == outputs('strftime("%Y-%m-%dT%H:%M:%SZ")', seconds)


def test_a_program_is_made_by_compiling() -> None:
    """There is no other way to one."""
    with pytest.raises(TypeError):
        Program()
    assert repr(compile_expression(".a")) == "Program('.a')"


# --- problems ---


@pytest.mark.parametrize(
    ("program", "offset", "words"),
    [
        (".a +", 4, "end of the expression"),
        (".a | | .b", 5, "'|'"),
        ("{a: 1", 5, "'}'"),
        ("[1, 2", 5, "']'"),
        ('"abc', 0, "close the string"),
        ('"a\\qb"', 1, "escape"),
        ("if . then 1", 11, "'end'"),
        (". as [] | 1", 6, "expected a variable"),
        ("1 == 2 == 3", 7, "parentheses"),
        (".a ?// 1", 3, "'?//'"),
        ("lenght", 0, "length"),
        ("map(1; 2)", 0, "takes 1 argument"),
        ("nosuchthing(1)", 0, "nosuchthing/1"),
        ("break $x", 0, "label"),
        ("{(1): 2}", 2, "number (1)"),
        ("@base99", 0, "@base64"),
        ("1 ~ 2", 2, "'~'"),
        ("reduce . as $x 1", 15, "'('"),
        ("1.2.3", 0, "numeric literal"),
    ],
)
def test_problems_say_what_and_where(program: str, offset: int, words: str) -> None:
    """A program that does not compile names what was found or expected, with its offset."""
    with pytest.raises(ExpressionProblem) as caught:
        compile_expression(program)
    assert caught.value.offset == offset
    assert words in caught.value.message


@pytest.mark.parametrize(
    "program",
    [
        'import "a" as a; .',
        'include "a"; .',
        "module {}; .",
        "modulemeta",
        "input",
        "inputs",
        "debug",
        "debug(1)",
        "stderr",
        "input_filename",
        "input_line_number",
        "halt",
        "halt_error",
        "env",
        "$ENV",
        "get_search_list",
        "$__prog_args",
    ],
)
def test_the_host_is_out_of_reach(program: str) -> None:
    """What would read or change the host does not compile."""
    with pytest.raises(ExpressionProblem, match="not available"):
        compile_expression(program)


@pytest.mark.parametrize("program", ["(" * 5000 + "1" + ")" * 5000, "1" + "+." * 20_000, ".a" * 20_000, "-" * 5000])
def test_nesting_is_bounded(program: str) -> None:
    """No program's own depth reaches the end of the C stack."""
    with pytest.raises(ExpressionProblem):
        compile_expression(program)


# --- errors ---


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("1 | .a", 'Cannot index number with string ("a")'),
        ("{} - 1", "object ({}) and number (1) cannot be subtracted"),
        ("1 / 0", "number (1) and number (0) cannot be divided because the divisor is zero"),
        ("null | .[]", "Cannot iterate over null (null)"),
        ("[1] | implode | error", "\x01"),
        ("error({a: 1})", '{"a":1} (not a string)'),
        ("error(null)", "null (not a string)"),
        ("path(1 + 1)", "Invalid path expression with result 2"),
    ],
)
def test_error_texts(program: str, message: str) -> None:
    """An error's text is jq's."""
    with pytest.raises(ExpressionError) as caught:
        outputs(program)
    assert str(caught.value) == message


def test_error_values() -> None:
    """`value` is what `catch` would see."""
    with pytest.raises(ExpressionError) as caught:
        first("error({a: 1})")
    assert caught.value.value == {"a": 1}


def test_an_error_behind_a_try_is_not_its_own() -> None:
    """A `try` sees errors of its body only."""
    with pytest.raises(ExpressionError, match="later"):
        first('try (1, 2) catch "caught" | error("later")')


# --- budget ---


@pytest.mark.parametrize(
    "program",
    [
        "repeat(1)",
        "last(repeat(1))",
        "[range(1e12)]",
        '"a" * 1e9',
        '"a" * 1e12',
        "def f: f; f",
        "def f: 1 + f; f",
        "def f: [f]; f",
        "def f(x): f(x + 1); f(1)",
        "def f: (f, 1); f",
        '"a" | until(false; . + .)',
        "[., .] | until(false; [., .] + .)",
        '[limit(1e9; repeat("a" * 8000000))]',
        "[[range(1000)], [range(1000)], [range(1000)]] | [combinations]",
        "[recurse(. + 1)]",
        "path(repeat(.a))",
        ".[1e9] = 1",
        "try repeat(1) catch 5",
    ],
)
def test_every_evaluation_ends(program: str) -> None:
    """A program without end, or with one too far away, is an error, and `try` does not hide it."""
    with pytest.raises(ExpressionError):
        first(program)


def test_tail_calls_cost_no_depth() -> None:
    """Loops written as recursion run in constant space."""
    assert first("def f: if . >= 100000 then . else . + 1 | f end; f", 0) == 100_000
    assert first("[limit(5; range(1e9))] | add") == 10
    assert first("until(. >= 50000; . + 1)", 0) == 50_000


def test_deep_data_is_an_error_not_a_crash() -> None:
    """Values nested beyond jq's own bound fail where jq fails."""
    deep = "reduce range(20000) as $_ ([]; [.])"
    assert first(f"{deep} | [..] | length") == 20_001
    with pytest.raises(ExpressionError, match="too deep"):
        first(f"({deep}) == ({deep})")
    with pytest.raises(ExpressionError, match="too deep"):
        first(f"[{deep}, {deep}] | sort")
    assert "<skipped: too deep>" in first(f"{deep} | tojson")


def test_a_failed_evaluation_leaves_nothing_behind() -> None:
    """The machine that ran out of budget serves the next evaluation as a fresh one."""
    program = compile_expression("[.[] | . as $x | def f: 1 + f; if $x then f else $x end]")
    for _ in range(3):
        with pytest.raises(ExpressionError):
            program.first([True])
        assert program.first([False, None]) == [False, None]
