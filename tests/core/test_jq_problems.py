"""Expressions: problems say where, what was found and expected, and how jq writes what other languages write."""

import pytest

from fastrunner._jq import ExpressionError, ExpressionProblem, compile_expression

PROBLEMS = (
    # What was opened and not closed.
    ("if .a then 1", 1, 13, "'elif', 'else' or 'end' to close the 'if' at column 1"),
    ("if .a then 1 else 2", 1, 20, "'end' to close the 'if' at column 1"),
    ("if .a then 1 elif .b then 2", 1, 28, "to close the 'if' at column 1"),
    (".a |\n  if .b then 1\n", 3, 1, "to close the 'if' at line 2, column 3"),
    ("if .a then 1 else if .b then 2 else 3 end", 1, 42, "'elif' does not"),
    ("if .a 1 end", 1, 7, "expected 'then'"),
    ("[1, 2", 1, 6, "',' or ']' to close the '[' at column 1"),
    (".a\n| .b\n| [1, 2", 3, 8, "to close the '[' at column 3"),
    ("{a: 1", 1, 6, "',' or '}' to close the '{' at column 1"),
    ("(1 + 2", 1, 7, "')' to close the '(' at column 1"),
    ("map(.a", 1, 7, "';' or ')' to close the '(' at column 4"),
    (".[0", 1, 4, "']' to close the '[' at column 2"),
    ('"abc', 1, 1, "'\"' to close the string"),
    ('"a \\(.b"', 1, 8, "')' to close the interpolation at column 4"),
    ("def f: 1", 1, 9, "';' to end the definition of 'f'"),
    # Keywords as names, names without their sign.
    (".a | end", 1, 6, "a field of that name is '.end'"),
    ("def if: 1; .", 1, 5, "'if' is a keyword"),
    (". as x | x", 1, 6, "variables begin with '$': $x"),
    (". as $__loc__ | 1", 1, 6, "a name that is not taken"),
    ("label x | 1", 1, 7, "a label's name such as '$out'"),
    ("def f(x, y): 1; .", 1, 8, "expected ';' or ')'"),
    # Operators of other languages.
    (".a === 1", 1, 6, "'=='"),
    (".a !== 1", 1, 6, "'!='"),
    (".a <> .b", 1, 5, "'!='"),
    (".a == 1 == 2", 1, 9, "parentheses"),
    (".a = 1 = 2", 1, 8, "parentheses"),
    (".a && .b", 1, 4, "'and'"),
    (".a || .b", 1, 5, "'or'"),
    ("!.a", 1, 1, "'.a | not'"),
    (".a ? 1 : 2", 1, 6, "'if a then b else c end'"),
    (".a ? .b : .c", 1, 9, "'if a then b else c end'"),
    (".a ?// 1", 1, 4, "'? //'"),
    (".a++", 1, 4, "'+= 1'"),
    ("2 ** 3", 1, 4, "pow(a; b)"),
    ("2 ^ 3", 1, 3, "pow(a; b)"),
    ("x => y", 1, 4, "'>='"),
    # Strings, numbers, other characters.
    ("'abc'", 1, 1, "double quotes"),
    ("{'a': 1}", 1, 2, "double quotes"),
    ("`a`", 1, 1, "double quotes"),
    ('"\\x"', 1, 2, "escape"),
    ("1.2.3", 1, 1, "such as 1.5"),
    ("0x10", 1, 2, "decimal"),
    ("1_000", 1, 2, "decimal"),
    (".é", 1, 2, "ASCII letters"),
    ("$", 1, 1, "such as $input"),
    ("$.a", 1, 1, "the input is '.'"),
    ("${ .a }", 1, 1, "around a whole expression"),
    ("{{ .a }}", 1, 2, "between '${' and '}'"),
    (".items[*]", 1, 8, "'.[]'"),
    (".items[?(@.a)]", 1, 8, "select"),
    (".a. b", 1, 5, "no space behind the dot"),
    ("{a: 1; b: 2}", 1, 6, "';' separates"),
    (".a; .b", 1, 3, "'|' or ','"),
    ("{1: 2}", 1, 2, "expected a string"),
    # Functions and words of other languages.
    (".a.length()", 1, 10, "follows a pipe"),
    ("foo.bar", 1, 1, "'.foo'"),
    (".foo-bar", 1, 6, '."...-bar"'),
    ("length(.a)", 1, 1, "its argument is its input"),
    ('sub(.a, "b")', 1, 1, "separated by ';'"),
    ("lenght", 1, 1, "did you mean 'length'?"),
    ("True", 1, 1, "'true'"),
    ("None", 1, 1, "'null'"),
    ("undefined", 1, 1, "'null'"),
    ("let x = 1", 1, 5, "'value as $name | ...'"),
    ("return .a + $", 1, 13, "such as $input"),
    ("for x in .a", 1, 5, "'.[]'"),
    ("function(x) { x }", 1, 13, "expected an operator"),
)


@pytest.mark.parametrize(("program", "line", "column", "words"), PROBLEMS, ids=[case[0] for case in PROBLEMS])
def test_common_mistakes(program: str, line: int, column: int, words: str) -> None:
    """A mistake has its place and words that help."""
    with pytest.raises(ExpressionProblem) as caught:
        compile_expression(program)
    problem = caught.value
    assert (problem.line, problem.column) == (line, column)
    assert len("\n".join(program.split("\n")[: line - 1])) + (line > 1) + column - 1 == problem.offset
    assert words in problem.message
    assert problem.message.startswith(("found ", "modules "))
    assert str(problem) == f"{problem.message} (at line {line}, column {column})"


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("ascii_upcase", "ascii_upcase"),
        ("ascii_downcase", "ascii_downcase"),
        ("todate", "todate"),
        ("todateiso8601", "todateiso8601"),
        ("date", "date"),
        ("fromdate", "fromdate"),
        ("fromdateiso8601", "fromdateiso8601"),
    ],
)
def test_errors_name_the_function_that_was_called(call: str, name: str) -> None:
    """Not what the function is written with."""
    for value in (None, True, {"a": 1}):
        with pytest.raises(ExpressionError) as failed:
            compile_expression(call).first(value)
        assert str(failed.value).startswith((f"{name} input ", f"{name} requires "))


def test_a_minimum_of_no_array_says_so() -> None:
    for call, what in (("min", "minimum"), ("max", "maximum")):
        with pytest.raises(ExpressionError, match=f"number .1. has no {what}, as it is not an array"):
            compile_expression(call).first(1)
