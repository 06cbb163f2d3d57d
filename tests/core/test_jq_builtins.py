"""Expressions: every builtin of jq 1.8 by name and arity is defined here, or refused because of what it reaches."""

import pytest

from fastrunner._jq import ExpressionProblem, compile_expression

JQ = """
IN/1 IN/2 INDEX/1 INDEX/2 JOIN/2 JOIN/3 JOIN/4 abs/0 acos/0 acosh/0 add/0 add/1 all/0 all/1 all/2 any/0 any/1 any/2
arrays/0 ascii_downcase/0 ascii_upcase/0 asin/0 asinh/0 atan/0 atan2/2 atanh/0 booleans/0 bsearch/1 builtins/0
capture/1 capture/2 cbrt/0 ceil/0 combinations/0 combinations/1 contains/1 copysign/2 cos/0 cosh/0 debug/0 debug/1
del/1 delpaths/1 drem/2 empty/0 endswith/1 env/0 erf/0 erfc/0 error/0 error/1 exp/0 exp10/0 exp2/0 explode/0 expm1/0
fabs/0 fdim/2 finites/0 first/0 first/1 flatten/0 flatten/1 floor/0 fma/3 fmax/2 fmin/2 fmod/2 format/1 frexp/0
from_entries/0 fromdate/0 fromdateiso8601/0 fromjson/0 fromstream/1 gamma/0 get_jq_origin/0 get_prog_origin/0
get_search_list/0 getpath/1 gmtime/0 group_by/1 gsub/2 gsub/3 halt/0 halt_error/0 halt_error/1 has/1 have_decnum/0
have_literal_numbers/0 hypot/2 implode/0 in/1 index/1 indices/1 infinite/0 input/0 input_filename/0
input_line_number/0 inputs/0 inside/1 isempty/1 isfinite/0 isinfinite/0 isnan/0 isnormal/0 iterables/0 j0/0 j1/0
jn/2 join/1 keys/0 keys_unsorted/0 last/0 last/1 ldexp/2 length/0 lgamma/0 lgamma_r/0 limit/2 localtime/0 log/0
log10/0 log1p/0 log2/0 logb/0 ltrim/0 ltrimstr/1 map/1 map_values/1 match/1 match/2 max/0 max_by/1 min/0 min_by/1
mktime/0 modf/0 modulemeta/0 nan/0 nearbyint/0 nextafter/2 nexttoward/2 normals/0 not/0 now/0 nth/1 nth/2 nulls/0
numbers/0 objects/0 path/1 paths/0 paths/1 pick/1 pow/2 range/1 range/2 range/3 recurse/0 recurse/1 recurse/2
remainder/2 repeat/1 reverse/0 rindex/1 rint/0 round/0 rtrim/0 rtrimstr/1 scalars/0 scalb/2 scalbln/2 scan/1 scan/2
select/1 setpath/2 significand/0 sin/0 sinh/0 skip/2 sort/0 sort_by/1 split/1 split/2 splits/1 splits/2 sqrt/0
startswith/1 stderr/0 strflocaltime/1 strftime/1 strings/0 strptime/1 sub/2 sub/3 tan/0 tanh/0 test/1 test/2
tgamma/0 to_entries/0 toboolean/0 todate/0 todateiso8601/0 tojson/0 tonumber/0 tostream/0 tostring/0 transpose/0
trim/0 trimstr/1 trunc/0 truncate_stream/1 type/0 unique/0 unique_by/1 until/2 utf8bytelength/0 values/0 walk/1
while/2 with_entries/1 y0/0 y1/0 yn/2
"""
"""What `builtins` of libjq 1.8.2 gives."""

REFUSED = """
debug/0 debug/1 env/0 get_jq_origin/0 get_prog_origin/0 get_search_list/0 halt/0 halt_error/0 halt_error/1 input/0
input_filename/0 input_line_number/0 inputs/0 modulemeta/0 stderr/0
"""
"""Of these, what reads or changes the host."""

MANUAL = """
ascii/0 date/0 dateadd/2 datesub/2 error/0 getpath/1 has/1 implode/0 ltrimstr/1 splits/2 strflocaltime/1 toarray/0
"""
"""What the manual of jq 1.8 or its users know, whether or not this libjq does."""

FORMATS = ["text", "json", "csv", "tsv", "html", "uri", "urid", "sh", "base64", "base64d", "base32", "base32d"]


def program_of(builtin: str) -> str:
    name, _, arity = builtin.partition("/")
    return name + (f"({'; '.join(['.'] * int(arity))})" if arity != "0" else "")


@pytest.mark.parametrize("builtin", sorted({*JQ.split(), *MANUAL.split()}))
def test_every_builtin_is_defined_or_refused(builtin: str) -> None:
    """No builtin of jq is unknown here, and what is refused says so."""
    if builtin in REFUSED.split():
        with pytest.raises(ExpressionProblem, match="is not available: it "):
            compile_expression(program_of(builtin))
    else:
        assert compile_expression(program_of(builtin)).arguments == ()


def test_the_table_is_that_of_libjq() -> None:
    """The names above are those of the libjq the tests compare with."""
    libjq = pytest.importorskip("jq")
    assert sorted(libjq.compile("builtins").input_value(None).first()) == sorted(JQ.split())


def test_builtins_lists_what_is_defined() -> None:
    """The function `builtins` names all that is defined, and only that."""
    names = compile_expression("builtins").first(None)
    assert set(JQ.split()) - set(REFUSED.split()) <= set(names)
    assert set(names) <= set(JQ.split()) | set(MANUAL.split())
    for name in names:
        compile_expression(program_of(name))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_there(name: str) -> None:
    """Formats stand alone and before strings."""
    compile_expression(f'@{name}, @{name} "\\(.)"')


@pytest.mark.parametrize("variable", ["ENV", "__prog_args"])
def test_variables_of_the_host_are_refused(variable: str) -> None:
    """jq's own variables beside `$__loc__` tell about the host."""
    with pytest.raises(ExpressionProblem, match="not available"):
        compile_expression(f"${variable}")
    assert compile_expression("$__loc__").first(None) == {"file": "<top-level>", "line": 1}


@pytest.mark.parametrize(
    ("program", "result"),
    [
        ("3.0 + 0 | tojson", "3"),
        ("1 / 3 | tojson", "0.3333333333333333"),
        ("0.1 + 0.2 | tojson", "0.30000000000000004"),
        ("1e17 + 0 | tojson", "1e+17"),
        ("1e1000 | tojson", "1.7976931348623157e+308"),
        ("100000000000000000000 | tojson", "1e+20"),
        (
            "[100000000000000000001, 100000000000000000000] | sort | tojson",
            "[1e+20,1e+20]",
        ),
        ("1e1000 == infinite", True),
        ("8.5 | significand, logb, frexp, modf, trunc, nearbyint", [1.0625, 3, [0.53125, 4], [0.5, 8], 8, 8]),
        ('0.5 | gamma, lgamma, lgamma_r | if type == "array" then .[1] else . * 1000 | floor end', [572, 572, 1]),
        ("drem(10; 3), ldexp(3; 2), scalb(3; 2), scalbln(3; 2), (2 | exp10)", [1, 12, 12, 12, 100]),
        ("try error(null) catch .", None),
        ("[limit(0; error)]", []),
        ("try limit(-1; 1) catch .", "limit doesn't support negative count"),
        ("try ([1] | ltrimstr(1)) catch .", "startswith() requires string inputs"),
        ("have_decnum, have_literal_numbers", [False, True]),
        ('@sh "echo \\([1, "a b", "it\'s"])"', "echo 1 'a b' 'it'\\''s'"),
        ('{"a": [1]} | getpath(["a", 0], ["b", 0], [])', [1, None, {"a": [1]}]),
        ("[.[] as [$a] ?// $a | $a]", []),
        ('"a" * 0, "a" * 0.5, "ab" * 2.7, ("a" * -1)', ["", "", "abab", None]),
        ('"2015-03-05T23:51:47Z" | strptime("%Y-%m-%dT%H:%M:%SZ")', [2015, 2, 5, 23, 51, 47, 4, 63]),
        (
            '1425599507 | strftime("%A %-d %_H %5Y %^b"), strflocaltime("%Z"), (gmtime | mktime)',
            ["Thursday 5 23 02015 MAR", "UTC", 1425599507],
        ),
    ],
)
def test_what_easily_goes_wrong(program: str, result: object) -> None:
    """Numbers as text, rarer mathematics, errors of null, limits, formats, dates."""
    assert compile_expression(program).first([]) == result
