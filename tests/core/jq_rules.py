"""Support: what a kind of jq value can be made of, for tests/core/jq_grammar.py.

A line is: what the input should be (`*` anything), a blank, the precedence of the whole, a blank, the text. A hole is
`<kind lowest-precedence [kind of input]>`: n number, s string, a array, o object, b boolean, x anything, p a path.
"""

NUMBER = """
* 9 -<n9>
* 7 <n7> + <n8>
* 7 <n7> - <n8>
* 8 <n8> * <n9>
* 8 <n8> / <n9>
* 8 <n8> % <n9>
* 10 length
* 0 <x1> | length
* 0 <s1> | utf8bytelength
* 0 <s1> | tonumber
* 0 <x1> | tonumber?
* 0 <a1> | add
* 0 <n1> | floor
* 0 <n1> | sqrt, ceil, round
* 0 <n1> | trunc, rint, nearbyint, fabs
* 0 <n1> | abs
* 0 <x1> | abs
* 0 <n1> | significand, logb, gamma, lgamma, tgamma
* 0 <n1> | [frexp, modf, lgamma_r]
* 0 <n1> | exp10, exp2, exp, expm1
* 0 <n1> | log, log2, log10, log1p
* 0 <n1> | sin, cos, tan, asin, acos, atan
* 0 <n1> | sinh, cosh, tanh, asinh, acosh, atanh, cbrt
* 0 <n1> | erf, erfc, j0, j1, y0, y1
* 10 pow(<n0>; <n0>)
* 10 atan2(<n0>; <n0>)
* 10 fmod(<n0>; <n0>)
* 10 ldexp(<n0>; <n0>)
* 10 scalb(<n0>; <n0>)
* 10 scalbln(<n0>; <n0>)
* 10 drem(<n0>; <n0>)
* 10 remainder(<n0>; <n0>)
* 10 nextafter(<n0>; <n0>)
* 10 nexttoward(<n0>; <n0>)
* 10 copysign(<n0>; <n0>)
* 10 hypot(<n0>; <n0>)
* 10 fmin(<n0>; <n0>), fmax(<n0>; <n0>), fdim(<n0>; <n0>)
* 10 fma(<n0>; <n0>; <n0>)
* 10 jn(<n0>; <n0>), yn(<n0>; <n0>)
* 0 limit(4; range(<n0>))
* 0 limit(4; range(<n0>; <n0>))
* 0 limit(4; range(<n0>; <n0>; <n0>))
* 10 [range(0; 10; 3)][]
* 0 <s1> | index(<s0>)
* 0 <s1> | rindex(<s0>)
* 0 <a1> | index(<x0>)
* 0 <a1> | rindex(<x0>)
a 10 bsearch(<x0>)
* 0 <a1> | sort | bsearch(<x0>)
* 0 <a1> | min
* 0 <a1> | max
a 10 .[0]
a 10 first
a 10 add(.[]?)
* 10 add(<n0>)
* 0 1425599621.678 | mktime?, todate
* 0 "2015-03-05T23:51:47Z" | fromdate
* 0 "2015-03-05T23:51:47Z" | fromdateiso8601, (strptime("%Y-%m-%dT%H:%M:%SZ") | mktime)
* 0 <n1> | gmtime | mktime
* 0 <s1> | explode | .[0]
* 10 first(<n0>)
* 10 last(<n0>)
* 10 nth(<n0>; <n0>)
* 0 limit(<n0>; <n0>, <n0>)
* 0 skip(<n0>; <n0>, <n0>)
* 0 <n1> | tojson | fromjson
* 10 $__loc__.line
* 0 [limit(5; <n0> | while(. < 100; . * 2 + 1))] | .[]
* 0 [limit(3; <n0> | repeat(. * 2))] | .[]
* 0 [<n0> | recurse(if . < 3 then . + 1 else empty end)][:5] | .[]
* 0 [limit(4; <n0> | recurse(. + 1; . < 4))] | .[]
* 0 {v: <n3>, n: 0} | until(.n > 2; {v: (.v + 1), n: (.n + 1)}) | .v
* 10 getpath(<a0>)
"""
STRING = """
* 7 <s7> + <s8>
* 8 <s8> * <n9>
* 8 <n8> * <s9>
* 10 tostring
* 10 tojson
* 10 type
* 0 <x1> | tostring
* 0 <x1> | tojson
* 0 <x1> | type
* 0 <s1> | ascii_downcase, ascii_upcase
* 0 <s1> | trim, ltrim, rtrim
* 0 <s1> | ltrimstr(<s0>)
* 0 <s1> | rtrimstr(<s0>)
* 0 <s1> | trimstr(<s0>)
* 0 <x1> | try ltrimstr(<x0>) catch .
* 0 <x1> | try trimstr(<x0>) catch .
* 0 <s1> | .[<n0>:<n0>]
* 0 <s1> | .[1:]
* 0 <s1> | .[:-1]
* 0 <a1> | join(<s0>)
* 0 <a1> | try join(<x0>) catch .
* 0 [65, <n2>] | implode
* 0 <a1> | try implode catch .
* 0 <a1> | try @csv catch .
* 0 <a1> | try @tsv catch .
* 0 <x1> | @text, @json
* 0 <x1> | @html
* 0 <x1> | @uri
* 0 <s1> | try @urid catch .
* 0 <x1> | try @sh catch .
* 0 <x1> | @base64
* 0 <s1> | @base64 | @base64d
* 0 <s1> | try @base64d catch .
* 0 <s1> | try format(<s0>) catch .
* 0 <x1> | format("html", "json", "text")
* 0 <a1> | add
* 0 <o1> | keys | .[0]
* 0 <n1> | try todate catch .
* 0 <n1> | try todateiso8601 catch .
* 0 1425599621 | strftime("%A, %B %d, %Y %j %H:%M:%S %Z %e %u %w %y %C %I %p")
* 0 1425599621 | strftime(<s0>)
* 0 [2015, 2, 5, 23, 51, 47, 4, 63] | todate, strftime("%c | %D %T %F %R %h %b %a"), mktime
* 0 [2024, <n2>, <n2>, 1, 2, <n2>, 0, 0] | try (mktime, todate) catch .
* 0 <x1> | try strftime("%Y") catch .
* 0 <x1> | try mktime catch .
* 0 <x1> | try gmtime catch .
* 0 <x1> | try strptime("%Y") catch .
* 0 <s1> | try strptime("%Y-%m-%dT%H:%M:%SZ") catch .
* 0 "10:20 2015 03 05 Mon" | try strptime("%H:%M %Y %m %d %a") catch .
* 10 first(<s0>)
* 10 last(<s0>)
* 0 <s1> | split(<s0>) | .[0]
* 0 try error(<s0>) catch .
* 0 try error(<x0>) catch .
* 0 try error catch .
* 0 try (<x0>) catch .
* 0 try (<n7> + <x8>) catch .
* 0 try (<x7> - <x8>) catch .
* 0 try (<x8> * <x9>) catch .
* 0 try (<x8> / <x9>) catch .
* 0 try (<n8> % <n9>) catch .
* 0 try (<x0> | keys) catch .
* 0 try (<x0> | .[<x0>]) catch .
* 0 try (<x0> | has(<x0>)) catch .
* 0 try (<x0> | contains(<x0>)) catch .
* 0 try (<x0> | tonumber) catch .
* 0 try (<x0> | toboolean) catch .
* 0 try (<x0> | fromjson) catch .
* 0 try (<s0> | fromjson) catch .
* 0 try (<x0> | implode) catch .
* 0 try (<x0> | explode) catch .
* 0 try (<x0> | sort) catch .
* 0 try (<x0> | sort_by(<x0>)) catch .
* 0 try (<x0> | group_by(.a)) catch .
* 0 try (<x0> | min_by(.a)) catch .
* 0 try (<x0> | unique) catch .
* 0 try (<x0> | flatten(<x0>)) catch .
* 0 try (<x0> | from_entries) catch .
* 0 try (<x0> | to_entries) catch .
* 0 try (<x0> | with_entries(.)) catch .
* 0 try (<x0> | join(",")) catch .
* 0 try (<x0> | split(<x0>)) catch .
* 0 try (<x0> | startswith(<x0>)) catch .
* 0 try (<x0> | endswith(<x0>)) catch .
* 0 try (<x0> | ltrimstr(<x0>)) catch .
* 0 try (<x0> | ascii_downcase) catch .
* 0 try (<x0> | trim) catch .
* 0 try (<x0> | splits(<n0>)) catch .
* 0 try (<x0> | tostream) catch .
* 0 try (<x0> | transpose) catch .
* 0 try (<x0> | reverse) catch .
* 0 try (<x0> | add) catch .
* 0 try (<x0> | any) catch .
* 0 try (<x0> | length) catch .
* 0 try (<x0> | utf8bytelength) catch .
* 0 try (<x0> | floor) catch .
* 0 try (<x0> | pow(.; <x0>)) catch .
* 0 try (<x0> | range(.; <x0>)) catch .
* 0 try (<x0> | indices(<x0>)) catch .
* 0 try (<x0> | inside(<x0>)) catch .
* 0 try (<x0> | in(<x0>)) catch .
* 0 try (<x0> | getpath(<x0>)) catch .
* 0 try (<x0> | setpath(<x0>; 1)) catch .
* 0 try (<x0> | delpaths(<x0>)) catch .
* 0 try (<x0> | to_entries) catch .
* 0 try (<x0> | bsearch(<x0>)) catch .
* 0 try (<x0> | combinations) catch .
* 0 try (<x0> | walk(<x0>)) catch .
* 0 try (<x0> | abs) catch .
* 0 try (<x0> | limit(<x0>; 1, 2)) catch .
* 0 try (<x0> | skip(<x0>; 1, 2)) catch .
* 0 try (<x0> | nth(<x0>; 1, 2)) catch .
* 0 try (<x0> | @csv) catch .
* 0 try (<x0> | @tsv) catch .
* 0 try (-<x9>) catch .
* 0 try (<x0> | .[<x0>:<x0>]) catch .
* 0 try (<x0> | {(<x0>): 1}) catch .
* 0 try (<x0> | .[<x0>] = 1) catch .
* 0 try (<x0> | .a = 1) catch .
* 0 try (<x0> | .[<n0>] = 1) catch .
* 0 try (<x0> | .[1:] = <x0>) catch .
* 0 try path(<x0>) catch .
* 0 try del(<x0>) catch .
* 0 try to_entries catch .
"""
ARRAY = """
* 10 [<x0>]
* 10 [<n0>, <n0>]
* 10 [<p0>]
* 7 <a7> + <a8>
* 7 <a7> - <a8>
* 0 <s1> | split(<s0>)
* 8 <s8> / <s9>
* 0 <s1> | explode
* 0 <x1> | keys?
o 10 keys, keys_unsorted
a 10 map(<x0x>)
o 10 map(<x0x>)
a 10 sort, reverse, unique
a 10 sort_by(<x0x>)
a 10 sort_by(<x0x>, <x0x>)
a 10 group_by(<x0x>)
a 10 group_by(.a?, <x0x>)
a 10 unique_by(<x0x>)
a 10 unique_by(length?)
a 10 [min_by(<x0x>), max_by(<x0x>)]
a 10 flatten
a 10 flatten(<n0>)
a 10 transpose
a 10 del(<p0>)
a 10 del(.[0, 2], .[-1])
a 10 del(.[<n0>:<n0>])
a 10 indices(<x0>)
a 10 [combinations]
a 10 [limit(6; combinations(2))]
a 10 map_values(<x0x>)
a 10 .[<n0>:<n0>]
a 10 .[<n0>:]
a 10 .[:<n0>]
a 10 walk(<x0x>)
a 10 [first, last]
a 10 nth(<n0>)
a 10 [limit(<n0>; .[])]
a 10 [skip(<n0>; .[])]
a 10 [.[] | select(<b0x>)]
a 10 [.[] as [$v1] | $v1]?
a 10 to_entries
a 10 [IN(.[]; <x0>)]
a 10 [paths]
a 10 [paths(<b0x>)]
a 10 [tostream]
a 10 fromstream(tostream)
a 10 [fromstream(1 | truncate_stream(<x1>))]?
a 10 [1 | truncate_stream([[0], 1], [[1, 0], 2], [[1, 0]], [[1]])]
a 10 [fromstream(<a0> | tostream)]
a 10 [.[] | tojson]
a 10 [.[] | (<x1x>)?]
a 10 [getpath(<a0>)]
a 10 [getpath(["a", 0], [0, "a"], [])?]
* 10 [path(<p0>)]
* 10 [paths]
* 10 [paths(type == "number")]
* 10 [path(..)]
* 10 [splits("a")?]
* 10 [.[]?]
* 10 [..]
* 10 [.. | numbers]
* 10 [.. | scalars, strings, nulls, booleans]
* 10 [.[]? | arrays, objects, iterables, values]
* 10 [.. | normals?, finites?]
* 10 [tostream]
* 0 <x1> | [tostream]
* 0 <x1> | [tostream] | fromstream(.[])
* 10 [first(<x0>), isempty(<x0>)]
* 10 [until(true; .), limit(3; repeat(1))]
* 10 [limit(<n0>; <x0>)]
* 10 [skip(<n0>; <x0>)]
* 10 [.[]?, <x0>]
* 0 <n1> | gmtime
* 0 <n1> | try localtime catch .
* 0 "2015-03-05T23:51:47Z" | strptime("%Y-%m-%dT%H:%M:%SZ")
* 0 <o1> | to_entries
* 0 <o1> | [.[]]
* 10 [foreach <x10> as $v1 (0; . + 1; [., $v1])]
* 10 [foreach range(4) as $v1 (<n0>; . + $v1; [$v1, .])]
* 10 [range(<n0>; 5)][:6]
* 10 [limit(5; range(0; <n0>; <n0>))]
* 10 [.[]? // <x3>]
* 0 <a1> | [JOIN({"1": 2, "a": 3}; tojson)]
* 0 <a1> | [JOIN({"1": 2}; .[]; tostring)], [JOIN({"1": 2}; .[]; tostring; add?)]
* 10 [splits(", ")?]
* 0 <a1> | try implode | explode catch .
* 10 [$__loc__]
* 0 [<x0>] | tojson | fromjson
"""
OBJECT = """
* 10 {a: <x3>}
* 10 {a: <x3>, b: <x3>}
* 10 {(<s0>): <x3>}
* 10 {"\\(<x0>)": <x3>}
* 10 {"a": <x3>}
* 10 {a: <x3> | tojson}
* 10 {a, b}?
o 10 {a, "b", c: .k}
* 7 <o7> + <o8>
* 8 <o8> * <o9>
o 10 map_values(<x0x>)
o 10 map_values(empty)
o 10 with_entries(<x0o>)
o 10 with_entries(.value |= tojson)
o 10 with_entries(select(<b0o>))
o 10 del(<p0>)
o 10 del(.a, .b?)
o 10 delpaths([paths])
o 10 delpaths(<a0>)
o 10 pick(<p0>)
* 10 pick(.a)
a 10 pick(.[1])
o 10 walk(<x0x>)
o 10 to_entries | from_entries
* 0 [[<s2>, 1]] | map({key: .[0], value: .[1]}) | from_entries
* 0 <a1> | map({name: tojson, value: .}) | from_entries
* 0 <a1> | INDEX(tojson)
* 10 INDEX(<x0>; type)
* 10 reduce <x10> as $v1 ({}; .[$v1 | tojson] += 1)
* 10 setpath(<a0>; <x0>)
* 0 <o1> | setpath(["a", "b"]; <x0>)
* 0 <o1> | setpath(["a", 0, "b"]; <x0>)
* 0 null | setpath(<a0>; 1)
* 10 getpath(["a"])?
* 10 $__loc__
* 0 <o1> | tojson | fromjson
* 0 <s1> | fromjson?
* 0 try error({a: <x3>}) catch .
* 10 first(<o0>)
* 0 <o1> | .. |= <x4x>
* 0 <o1> | (.. | numbers) |= . + 1
* 0 <o1> | to_entries | map(.value) | {v: .}
"""
BOOLEAN = """
* 6 <n7> == <n7>
* 6 <x7> == <x7>
* 6 <x7> != <x7>
* 6 <x7> < <x7>
* 6 <n7> <= <n7>
* 6 <x7> > <x7>
* 6 <x7> >= <x7>
* 5 <b5> and <b6>
* 4 <b4> or <b5>
* 10 not
* 0 <b1> | not
* 10 isempty(<x0>)
* 10 any(<x0>; <b0>)
* 10 all(<x0>; <b0>)
a 10 any, all
a 10 any(<b0x>)
a 10 all(<b0x>)
* 10 IN(<x0>)
* 10 IN(<x0>; <x0>)
a 10 contains(<a0>)
s 10 contains(<s0>)
o 10 contains(<o0>)
a 10 inside(<a0>)
* 0 <s1> | inside(<s0>)
* 0 <s1> | startswith(<s0>)
* 0 <s1> | endswith(<s0>)
o 10 has(<s0>)
a 10 has(<n0>)
* 0 <s1> | in({"a": 1})
* 0 <n1> | in([1, 2])
* 0 <n1> | isnan, isinfinite, isnormal
* 0 <x1> | isfinite?
* 0 <x1> | toboolean?
* 10 have_literal_numbers
* 10 have_decnum
* 6 <s7> < <s7>
* 6 <a7> < <a7>
* 6 <o7> < <o7>
* 6 type == "array"
* 2 <b3> // <b2>
"""
PATH = """
* 10 .
* 10 .a
* 10 .[]?
a 10 .[]
a 10 .[<n0>]
a 10 .[<n0>:<n0>]
a 10 .[1:]
a 10 .[-1]
o 10 .[<s0>]
o 10 .a.b
o 10 .["a", "b"]
* 10 .[<x0>]?
* 10 ..
* 0 .. | select(<b0x>)
* 0 <p1> | <p0x>
* 1 <p1>, <p2>
* 2 <p3> // <p2>
* 10 <p10>?
* 10 first(<p0>)
* 10 last(<p0>)
* 10 limit(<n0>; <p0>)
* 10 skip(<n0>; <p0>)
* 10 nth(<n0>; <p0>)
* 10 select(<b0>)
* 10 recurse
* 10 recurse(.[]?; <b0x>)
* 10 recurse(<p0x>)?
* 10 getpath(<a0>)
* 10 getpath(["a", "b"])
* 10 getpath(["a", 0])?
* 10 empty
* 10 error(<x0>)
* 10 if <b0> then <p0> else <p0> end
* 0 <p1> | if . then . else empty end
* 9 try <p9> catch <p9>
* 10 reduce <n10> as $v1 (.; <p0>)
* 10 foreach limit(2; <n0>) as $v1 (.; <p0>; <p0>)
* 0 label $out | <p0>, break $out
* 0 . as [$v1] | <p0>
* 0 <x10> as $v1 | <p0>
* 0 def f: <p0>; f
* 0 def f(p): p | p; f(<p0>)
* 0 .[]? | arrays, objects
* 0 .[]? | strings, numbers, values, scalars
* 0 to_entries | .[0]
* 0 path(<p0>)
* 0 . as $v1 | .a?
* 10 map(<p0x>)
* 10 <x10>
* 10 $__loc__
* 0 until(true; .a)
* 0 first, last
a 10 first
a 10 nth(<n0>)
* 10 paths
* 10 .a[<n0>:]?
* 10 del(<p0>)
* 10 isempty(<p0>)
* 10 add(<p0>)
"""


def rules_of(text: str) -> tuple[tuple[str, int, str], ...]:
    """The lines as (input, precedence, text)."""
    split = (line.split(" ", 2) for line in text.strip().splitlines())
    return tuple((needed, int(level), body) for needed, level, body in split)


RULES = {
    "n": rules_of(NUMBER),
    "s": rules_of(STRING),
    "a": rules_of(ARRAY),
    "o": rules_of(OBJECT),
    "b": rules_of(BOOLEAN),
    "p": rules_of(PATH),
}
RULES["x"] = tuple(rule for rules in RULES.values() for rule in rules)
