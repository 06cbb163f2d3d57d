"""Regular expressions against libjq: every construct, random patterns, and bounds on those that backtrack for ever.

Rules: libjq (PyPI `jq`) is the oracle. Where this engine knowingly differs, the result is written out here and told in
docs/expressions.md.
"""

import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, seed, settings
from hypothesis import strategies as st

from fastrunner._jq import ExpressionError, compile_expression

libjq = pytest.importorskip("jq")

SEED = 20261123
EXAMPLES = 3_000
CPU_S_MAX = 0.1

MATCHES = "[match($p; $f) | [.offset, .length, .string, [.captures[] | [.offset, .length, .string, .name]]]]"
OURS = compile_expression(MATCHES)

Case = tuple[str, str, str | None]

# (pattern, text, flags), by construct.
CASES: tuple[Case, ...] = (
    ("(?<n>a)?b?", "cb", "g"),
    ("a\\Kb", "abab", "g"),
    ("a\\K", "aa", "g"),
    ("(?=(a))", "aba", "g"),
    ("(?=(?<x>a)|(?<y>b))", "ab", "g"),
    ("\\h", "hf0", None),
    ("\\H", "Hf0", None),
    ("\\v", "v\x0b", None),
    ("\\x0b", "\x0b", None),
    ("\\u0041", "uA", None),
    ("u0041", "u0041", None),
    ("\\e", "\x1b", None),
    ("\\a", "\x07", None),
    ("\\cA", "\x01", None),
    ("\\C-A", "\x01C-A", None),
    ("\\M-A", "M-A", None),
    ("\\Qa.b\\E+", "a.bb", None),
    ("\\Qa.b", "a.b", None),
    ("[\\Qa\\E]", "QE", None),
    ("a++b", "aab", None),
    ("a++a", "aaa", None),
    ("a*+a", "aa", None),
    ("a?+a", "a", None),
    ("a{2}+", "aaaa", None),
    ("a{1,2}+a", "aa", None),
    ("a{,2}", "a{,2}aa", None),
    ("a{2}?", "aaaa", None),
    ("a{1,2}?", "aaaa", None),
    ("a**", "aa", None),
    ("a{2,1}", "aa", None),
    ("a{100001}", "aa", None),
    ("a{", "a{", None),
    ("a{1", "a{1", None),
    ("a{1,", "a{1,", None),
    ("{1}", "{1}", None),
    ("*a", "*a", None),
    ("+", "+", None),
    ("?", "?", None),
    ("(?*a)", "a", None),
    ("a|*", "a", None),
    ("[a-c&&b]", "&", None),
    ("[a&&b]", "b", None),
    ("[[a]b]", "ab]", None),
    ("[[a]b]", "[b]", None),
    ("[]a]", "]", None),
    ("[]", "]", None),
    ("[^]a]", "b", None),
    ("[a-]", "-", None),
    ("[a-c-e]", "d", None),
    ("[a-c-e]", "-", None),
    ("[z-a]", "b", None),
    ("[\\w-a]", "-", None),
    ("[\\w-]", "-", None),
    ("[a-\\w]", "b", None),
    ("[[:alpha:]]", "é", None),
    ("[[:^alpha:]]", "1", None),
    ("[[:foo:]]", "1", None),
    ("[[:alpha]]", "a]", None),
    ("[[:word:]]", "_", None),
    ("[\\p{Lu}]", "aÉ", None),
    ("\\p{^Lu}", "Éa", None),
    ("\\P{^Lu}", "aÉ", None),
    ("\\p{Greek}", "aα", None),
    ("\\p{foo}", "a", None),
    ("\\p{L", "a", None),
    ("\\pL", "pL", None),
    ("(?i)a", "A", None),
    ("(?i:a)b", "AB", None),
    ("(?i:a)b", "Ab", None),
    ("(?s).", "\n", None),
    ("(?m)^b", "a\nb", None),
    ("(?m)a$", "a\nb", None),
    ("(?-i)A", "a", "i"),
    ("(?x) a b # c", "ab", None),
    ("(?x: a )b", "ab", None),
    ("a(?i)b|c", "AC", None),
    ("a(?i)b|c", "aC", None),
    ("(?a)b", "b", None),
    ("(?W)b", "b", None),
    ("(?ix-s:a)", "A", None),
    ("(?#c\\)d)a", "a", None),
    ("(?#", "a", None),
    ("(?>a+)a", "aa", None),
    ("(?<=a)b", "ab", None),
    ("(?<=a|bc)d", "bcd", None),
    ("(?<=a+)b", "aab", None),
    ("(?<=a(?:b|cd))e", "acde", None),
    ("(?<!a)b", "ab cb", None),
    ("(?<!(a))b", "cb", None),
    ("(?<=(a))b", "ab", None),
    ("(?<=a*)b", "b", None),
    ("(?<=\\b)b", "b", None),
    ("(?<=(?=a))a", "a", None),
    ("(?<=(?<=a)b)c", "abc", None),
    ("(?<=a?)b", "ab", None),
    ("(?<=a{2})b", "aab", None),
    ("(?<=a{1,2})b", "aab", None),
    ("(a)\\1", "aa", None),
    ("\\1(a)", "aa", None),
    ("\\2(a)", "a", None),
    ("(?<n>a)\\k<n>", "aa", None),
    ("(?<n>a)\\k<1>", "aa", None),
    ("(?<n>a)\\k<-1>", "aa", None),
    ("(?<n>a)\\1", "aa", None),
    ("\\k<m>", "aa", None),
    ("(?'n'a)\\k'n'", "aa", None),
    ("(?<1a>a)", "a", None),
    ("(?<>a)", "a", None),
    ("(?<é>a)", "a", None),
    ("(?<a-b>a)", "a", None),
    ("(?P<n>a)", "a", None),
    ("\\10", "\x08", None),
    ("\\101", "A", None),
    ("\\8", "8", None),
    ("\\377", "ÿ", None),
    ("\\x41", "A", None),
    ("\\xe9", "é", None),
    ("\\xc3\\xa9", "é", None),
    ("\\x{e9}", "é", None),
    ("\\x{110000}", "é", None),
    ("\\x{d800}", "é", None),
    ("\\x", "a", None),
    ("\\x{", "x{", None),
    ("\\o{101}", "A", None),
    ("\\0", "a", None),
    ("\\400", "a", None),
    ("(?(1)a|b)", "b", None),
    ("(a)?(?(1)b|c)", "ab", None),
    ("(a)?(?(1)b|c)", "c", None),
    ("(?<n>a)?(?(<n>)b|c)", "c", None),
    ("(?(?=a)ab|c)", "ab", None),
    ("(?<n>a|b\\g<n>c)", "bac", None),
    ("\\g<1>(a)", "aa", None),
    ("(a)\\g<0>?b", "aabb", None),
    ("(?R)", "a", None),
    ("(?&n)", "a", None),
    ("(?|a)", "a", None),
    ("\\R", "\r\n", None),
    ("\\N", "\n", None),
    ("\\O", "\n", None),
    ("\\G", "a", None),
    ("\\Ga", "aab", "g"),
    ("\\<a", "<a", None),
    ("\\b", "a", None),
    ("\\Bb", "ab", None),
    ("\\`a", "`a", None),
    ("\\Z", "a\n", None),
    ("\\z", "a\n", None),
    ("a\\Z", "a\n", None),
    ("a$", "a\n", None),
    ("$", "a\n", "g"),
    ("(?m)$", "a\n", "g"),
    ("(?m)^", "a\n", "g"),
    ("\\_", "_", None),
    ("\\é", "é", None),
    ("\\", "a", None),
    (")", "a", None),
    ("(", "a", None),
    ("[a", "a", None),
    ("a]", "a]", None),
    ("(?", "a", None),
    ("(?<", "a", None),
    ("(?z)", "a", None),
    ("(?<=a", "a", None),
    ("(?=a)*a", "a", None),
    ("(?=a)+", "a", None),
    ("\\b+", "a", None),
    ("^*a", "a", None),
    ("(?i)*", "a", None),
    ("a", "a", "m"),
    ("a", "a", "gg"),
    ("a", "a", ""),
    ("a|ab", "ab", "l"),
    ("a|ab|abc", "abcabc", "gl"),
    ("a*?", "aaa", "n"),
    ("|a", "a", "n"),
    ("a*|b", "b", "n"),
    ("a.b", "a\nb", "p"),
    ("a.b", "a\nb", "s"),
    ("a b", "ab", "x"),
    ("a\\ b", "a b", "x"),
    ("[a b]", " ", "x"),
    ("a #c\nb", "ab", "x"),
    ("(?:a|b)*?c", "abac", None),
    ("(a|b)*", "abac", None),
    ("(?:(a)|b)*", "ab", None),
    ("(a*)*", "b", None),
    ("(a*)+", "aab", None),
    ("(?:()|())*\\1\\2", "", None),
    ("(?:\\1a|())*", "a", None),
    ("(|a)*", "aa", None),
    ("(|a)+", "aa", None),
    ("(a|\\1b)*", "abab", None),
    ("(?:a?)*?b", "aab", None),
    ("(a?)*?b", "ab", None),
    ("(?:a?){3,5}", "aa", None),
    ("(){3,}", "aa", None),
    ("((a)|b){2}", "ab", None),
    ("(a|b\\1)*", "aba", None),
    ("(a|b\\1)*", "aabab", None),
    ("a.b", "a\nb", "m"),
    ("[^a]", "\n", None),
    ("a|abc", "ab abc", "l"),
    ("(?<=(?>a))b", "ab", None),
    ("(?<=^)b", "b", None),
    ("(?<=$)", "b", None),
    ("(?<=\\Z)", "b", None),
    ("(?<=\\z)", "b", None),
    ("(?<=a\\K)b", "ab", None),
    ("(?<!a*)b", "cb", None),
    ("(?<=(?:a|bc)?)d", "bcd", None),
    ("(?<=ab|cd)e", "cde", None),
    ("(?<=a|b|)e", "cde", None),
    ("(?<=ca+)e", "caae", None),
    ("(?<=(a|b))e", "be", None),
    ("(?<=(?<n>a))e\\k<n>", "aea", None),
    ("(?<!a|b)e", "ce", None),
    ("(?<!(?=a))e", "ce", None),
    ("(?<=\\R)e", "\ne", None),
    ("(?<=\\n|\\r\\n)e", "\ne", None),
    ("(?<=ß)e", "sse", "i"),
    ("(?<=ss)e", "ßse", "i"),
    ("(?<n>\\((?:\\g<n>)*\\))", "(((((((((((((((((((((((((((((())))))))))))))))))))))))))))))", None),
    ("(?<n>\\((?:\\g<n>)*\\))", "(((((((((((((((((((((((())))))))))))))))))))))))", None),
    ("(?<n>\\((?:\\g<n>)*\\))", "((((((((((((((((((((((()))))))))))))))))))))))", None),
    ("(?<n>a)(?<n>b)\\g<n>", "ab", None),
    ("\\g<2>(a)", "aa", None),
    ("\\g<m>(a)", "aa", None),
    ("\\g<+1>(a)", "aa", None),
    ("(a)\\g<-1>", "aa", None),
    ("(a)\\k<+1>", "aa", None),
    ("(?<n>a)(?<n>b)\\k<n>", "abb", None),
    ("(?<n>a)(?<n>b)\\k<n>", "aba", None),
    ("(?(a)b|c)", "ab", None),
    ("(?(a)b|c)", "c", None),
    ("(?(a)b)", "ab", None),
    ("(?(a)b)", "c", None),
    ("(a)?(?(1))b", "ab", None),
    ("(a)?(?(1))b", "b", None),
    ("(a)?(?(1)b|c|d)", "d", None),
    ("(*FAIL)", "d", None),
    ("a(*FAIL)|d", "ad", None),
    ("(?:^)*a", "a", None),
    ("(?:^|a)*", "a", None),
    ("(?:^a)*", "a", None),
    ("(?:)*a", "a", None),
    ("\\K*a", "a", None),
    ("(^)*a", "a", None),
    ("a??*", "aaa", None),
    ("a*??", "aaa", None),
    ("a+??", "aaa", None),
    ("a+?*", "aaa", None),
    ("a+?+", "aaa", None),
    ("a??+", "aaa", None),
    ("(?:a?)+?", "aaa", None),
    ("(?:a+)?", "aaa", None),
    ("(?:a+?)?", "aaa", None),
    ("(?:a?)*", "aaa", None),
    ("(?:a??){2}", "aaa", None),
    ("(?:a??){2,}", "aaa", None),
    ("(?:a*?)*", "aaa", None),
    ("(?:a*){2,3}b", "aab", None),
    ("ß", "SS", "i"),
    ("ss", "ß", "i"),
    ("[ß]", "ss", "i"),
    ("[^ß]", "ss", "i"),
    ("ſ", "S", "i"),
    ("k", "K", "i"),
    ("ﬃ", "ffi", "i"),
    ("ffi", "ﬃ", "i"),
    ("f", "ﬀ", "i"),
    ("s+", "ß", "i"),
    ("[a-z]", "K", "i"),
    ("[^a-z]", "K", "i"),
    ("\\p{Lu}", "a", "i"),
    ("[\\p{Lu}]", "a", "i"),
    ("[[:upper:]]", "a", "i"),
    ("(é)\\1", "éÉ", "i"),
    ("σ", "ς", "i"),
    ("İ", "i̇", "i"),
    ("i", "İ", "i"),
    ("ss", "ſß", "i"),
    ("\\p{Alpha}", "ͅ", None),
    ("\\w", "Ⓐ", None),
    ("\\p{IsL}", "a", None),
    ("\\p{Letter}", "a", None),
    ("\\p{Uppercase_Letter}", "A", None),
    ("\\p{uppercase letter}", "A", None),
    ("\\p{ALNUM}", "a", None),
    ("\\p{Any}", "a", None),
    ("\\p{Assigned}", "a", None),
    ("\\p{Script=Greek}", "a", None),
    ("\\p{Latin}", "a", None),
    ("\\p{Alphabetic}", "a", None),
    ("\\p{}", "a", None),
    ("\\p{L&}", "a", None),
    ("\\p{LC}", "a", None),
    ("[[:punct:]]", "$", None),
    ("\\p{Punct}", "+", None),
    ("[[:punct:]]", "+", None),
    ("\\p{PosixPunct}", "+", None),
    ("[[:cntrl:]]", "\u200b", None),
    ("[[:graph:]]", "\u200b", None),
    ("[[:print:]]", "\u3000", None),
    ("\\s", "\x1c", None),
    ("\\s", "\x85", None),
    ("\\d", "٣", None),
    ("\\x41\\x{42}", "AB", None),
    ("\\xe9a", "é", None),
    ("\\x80", "é", None),
    ("[\\xc3\\xa9]", "é", None),
    ("[\\x80]", "é", None),
    ("[\\x41-\\x43]", "B", None),
    ("[\\b]", "\x08", None),
    ("[\\cA]", "\x01", None),
    ("[\\n\\t]", "\t", None),
    ("[\\0]", "\x00", None),
    ("[\\101]", "A", None),
    ("[\\x{41}-\\x{5a}]", "B", None),
    ("[a\\]]", "]", None),
    ("[\\d-]", "-", None),
    ("[+--]", ",", None),
    ("[--/]", ".", None),
    ("[a-z&&[^b]]", "b", None),
    ("[\\R]", "R", None),
    ("[\\K]", "K", None),
    ("[a-a-z]", "m", None),
    ("a{0}b", "b", None),
    ("(a){0}b\\g<1>", "ba", None),
    ("a{0,0}b", "ab", None),
    ("(?x)a{2} {3}", "aaaaaa", None),
    ("(?x)a +", "aaa", None),
    ("a(?#c)+", "aaa", None),
    ("(?x)[ a]", "  ", None),
    ("\\c", "c", None),
    ("\\c\\\\", "\x1c", None),
    ("\\x{}", "x{}", None),
    ("\\x{zz}", "x{zz}", None),
    ("\\x{123456789}", "x", None),
    ("\\x{7fffffff}", "x", None),
    ("\\x{80000000}", "x", None),
    ("\\o{9}", "o{9}", None),
    ("\\k", "k", None),
    ("\\g", "g", None),
    ("\\ka", "ka", None),
    ("\\k<", "k", None),
    ("(?<n", "n", None),
    ("(?<n)", "n", None),
    ("(?<n>", "n", None),
    ("(?<-n>a)", "n", None),
    ("(?<!>a)", "n", None),
    ("(?'n>a)", "n", None),
    ("[[:^foo:]]", "n", None),
    ("[[:al", "n", None),
    ("[\\p{L]", "n", None),
    ("[a\\", "n", None),
    ("(?:", "n", None),
    ("(?i", "n", None),
    ("(?i:", "n", None),
    ("(?-", "n", None),
    ("aaaaa{2}{3}", "aaaaaaaaaa", None),
    ("(a{1000}){1000}", "a", None),
    ("(?=b(a))", "bba", "g"),
    ("(?=b(a))()", "bba", "g"),
    ("(?<=(b))", "ba", None),
    ("\\w", "²", None),
    ("[\\w]", "²", None),
    ("[[:word:]]", "²", None),
    ("\\p{Word}", "²", None),
    ("\\W", "²", None),
    ("[^\\w]", "²", None),
    ("²\\b", "²", None),
    ("[[:punct:]]", "©", None),
    ("[[:punct:]]", "€", None),
    ("\\p{PosixPunct}", "€", None),
    ("[^[:punct:]]", "€", None),
    ("[[:alnum:]]", "²", None),
    ("[[:alpha:]]", "²", None),
    ("[[:digit:]]", "²", None),
    ("\\w", "¼", None),
    ("[[:lower:]]", "ª", None),
    ("[[:print:]]", "\u2028", None),
    ("[[:graph:]]", "\u0378", None),
    ("\\w", "\u200d", None),
    ("[[:space:]]", "\u180e", None),
    ("\\400", "\x00", None),
    ("\\501", "A", None),
)

FUNCTIONS = (
    ('sub("(?<x>a)"; "b\\(.x)")', "banana"),
    ('gsub("(?<x>a)"; "b\\(.x)", "c")', "banana"),
    ('gsub("a"; empty)', "banana"),
    ('sub("a"; "1", "2", "3")', "banana"),
    ('gsub(""; "-")', "abc"),
    ('gsub("^"; "-")', "abc"),
    ('gsub("$"; "-")', "abc"),
    ('gsub("x*"; "-")', "axb"),
    ('[gsub("(?<a>a)|(?<b>b)"; .a, .b)]', "ab"),
    ('try gsub("a"; 1) catch .', "banana"),
    ('gsub("a"; null)', "banana"),
    ('sub("z"; 1)', "banana"),
    ('gsub("(?=u)"; "u")', "qux"),
    ('gsub("a"; "b"; "i")', "AaA"),
    ('gsub("a"; "b"; null)', "AaA"),
    ('[scan("a"; "i")]', "aA"),
    ('[scan("(a)(b)?")]', "aba"),
    ('try scan(["a", "i"]) catch .', "aA"),
    ('try scan("a"; 1) catch .', "aA"),
    ('[splits("a+")]', "baab"),
    ('[splits("a"; "i")]', "bAab"),
    ('split("a"; null)', "banana"),
    ('split(""; null)', "abc"),
    ('split("a|"; "g")', "bab"),
    ('capture("(?<a>a)(?<b>z)?")', "abc"),
    ('capture("(?<a>a)|(?<a>b)")', "b"),
    ('[capture("(?<a>.)"; "g")]', "ab"),
    ('capture(["(?<a>A)", "i"])', "ab"),
    ('capture("(?=(?<a>a))")', "ab"),
    ('[match(["a", "g"]) | .offset]', "banana"),
    ('[match("a", "n") | .offset]', "banana"),
    ('[test("A"; "i", null)]', "banana"),
    ('test(["A", "i"])', "banana"),
    ("try test([]) catch .", "banana"),
    ("try test({}) catch .", "banana"),
    ('try test(["a", 1]) catch .', "banana"),
    ('try test("a") catch .', 1),
    ("try test(null) catch .", "a"),
    ('try match("a"; 1) catch .', "a"),
    ('try match("a"; "gq") catch .', "a"),
    ('sub("(?<x>.)"; .x + .x, .x)', "ab"),
    ('sub("a"; "b"; "x", "g")', "aa"),
    ('sub("a", "b"; "c")', "ab"),
    ('try sub("a"; error("x")) catch .', "a"),
    ('[.[] | sub(", "; ":")]', ["a,b, c, d", "e, f"]),
    ('[match("( )*"; "gn")]', "abc"),
    ('[match("( )*"; "g")]', "ab"),
    ('[gsub("a"; "b", "c", "d"; "g")]', "aa"),
)

# What jq takes and this engine does not, or otherwise: pattern, text, flags, our result.
DIFFERENT: tuple[tuple[str, str, str | None, Any], ...] = (
    ("", "é", "g", [[0, 0, "", []], [1, 0, "", []]]),
    (r"\X", "a", None, r"Regex failure: \X is not supported"),
    (r"\y", "a", None, r"Regex failure: \y is not supported"),
    ("(?~a)", "a", None, "Regex failure: (?~ is not supported"),
    ("(?{x})", "a", None, "Regex failure: (?{ is not supported"),
    ("(*COUNT)", "a", None, "Regex failure: (* is not supported, but for (*FAIL)"),
    (r"\p{InBasicLatin}", "a", None, "Regex failure: invalid character property name {InBasicLatin}"),
    (r"(?<n>a)\k<n+0>", "a", None, "Regex failure: undefined name <n+0> reference"),
)

LONG_A = '("a" * 40) + "!"'
CATASTROPHES = (
    f'{LONG_A} | test("(a+)+$")',
    f'{LONG_A} | test("(a|aa)+$")',
    f'{LONG_A} | test("(a*)*b")',
    f'{LONG_A} | test("(?:a|a|a)*b")',
    f'{LONG_A} | test("(?i)(A+)+$")',
    '"a" * 5000 | test("(.*)*x")',
    '"a" * 3000 | test(".*.*.*=.*")',
    '"a" * 3000 | test("(?:(?=(a+))a)*b")',
    '"a" * 3000 | test("(?:(?<=a)a|a)*b\\\\1()")',
    '"ab" * 1000000 | test("(a|b)*c")',
    '"a" * 100000 | test("((a{1,100}){1,100}){1,100}b")',
    '"a" * 100000 | test("a{1000}{1000}")',
    '"()" * 100 | test("(?<n>\\\\((?:\\\\g<n>|\\\\)|)*\\\\g<n>)+x")',
    '"a" * 60 | test("^(a+)+\\\\1\\\\1b")',
    '"word " * 20000 | [match("(\\\\w+\\\\s?)+:"; "g")]',
)


def ours(pattern: str, text: str, flags: str | None) -> Any:
    arguments = {"$p": pattern, "p": pattern, "$f": flags, "f": flags}
    try:
        return OURS.first(text, [arguments[name] for name in OURS.arguments])
    except ExpressionError as error:
        return "budget" if type(error) is not ExpressionError else str(error)


def theirs(pattern: str, text: str, flags: str | None) -> Any:
    try:
        return libjq.compile(MATCHES, args={"p": pattern, "f": flags}).input_text(json.dumps(text)).first()
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize(("pattern", "text", "flags"), CASES)
def test_matches_as_libjq_does(pattern: str, text: str, flags: str | None) -> None:
    """The same matches, groups and names, or the same words of refusal."""
    assert ours(pattern, text, flags) == theirs(pattern, text, flags)


@pytest.mark.parametrize(("program", "value"), FUNCTIONS)
def test_functions_use_matches_as_libjq_does(program: str, value: Any) -> None:
    """`sub`, `gsub`, `scan`, `splits`, `capture` and `test` agree, also in their errors."""
    assert compile_expression(program).outputs(value) == libjq.compile(program).input_value(value).all()


@pytest.mark.parametrize(("pattern", "text", "flags", "expected"), DIFFERENT)
def test_known_differences(pattern: str, text: str, flags: str | None, expected: Any) -> None:
    """What is documented to differ does, and what is not supported says so."""
    assert ours(pattern, text, flags) == expected
    assert theirs(pattern, text, flags) != expected


@pytest.mark.parametrize("program", CATASTROPHES)
def test_catastrophic_patterns_end(program: str) -> None:
    """Backtracking ends with the budget, within the time an evaluation may take."""
    compiled = compile_expression(program)
    started_s = time.process_time()
    with pytest.raises(ExpressionError) as caught:
        compiled.first(None)
    assert type(caught.value) is not ExpressionError
    assert time.process_time() - started_s < CPU_S_MAX


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("(" * 5_000 + ")" * 5_000, "too deep nest level"),
        ("(?:" * 1_500 + ")*" * 1_500, "too deep nest level"),
        ("a" + "?+" * 4_000, "too deep nest level"),
        ("a" * 10_001, "at most 10000 are allowed"),
        ("a{100001}", "too big number for repeat range"),
        ("a{99999999999999999999}", "too big number for repeat range"),
    ],
)
def test_oversized_patterns_are_refused(pattern: str, problem: str) -> None:
    """Size and nesting have bounds, so that neither the parser nor the matcher meets one without."""
    assert problem in ours(pattern, "a", None)


def test_long_patterns_match() -> None:
    """Within the bounds, length alone is no problem."""
    assert ours("a|" * 4_000 + "b", "b", None) == [[0, 1, "b", []]]
    assert ours("(a{1000}){1000}", "a", None) == []
    assert ours("[a-z]" * 1_900, "a" * 2_000, "n") == [[0, 1_900, "a" * 1_900, []]]


# --- random patterns ---

ATOMS = st.one_of(
    st.sampled_from(["a", "b", "c", "ab", ".", "[ab]", "[^a]", "[a-c]", "1", "é", "ß", "^", "$", "[b-]", "(?i)"]),
    st.sampled_from([r"\w", r"\W", r"\d", r"\s", r"\n", r"\p{L}", r"\b", r"\B", r"\A", r"\z", r"\Z", r"\G", r"\R"]),
    st.sampled_from(["(?m:^)", "(?m:$)", "(?s:.)", r"[[:alpha:]]", r"[^\w]", r"[\d-]", r"\x62", r"\101", r"\Bb"]),
    st.sampled_from([r"\N", r"\O", r"\K", r"\Qa.\E"]),
)
WRAPPED = ("({})", "(?:{})", "(?<n>{})", "(?>{})", "(?={})", "(?!{})", "(?i:{})", "(?<=a)({})", "(?<!b)({})")
REPEATS = ("*", "+", "?", "*?", "+?", "??", "{2}", "{1,2}", "{0,2}?", "{2,}", "*+", "++", "?+")
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds(lambda left, right: left + right, inner, inner),
        st.builds("{}|{}".format, inner, inner),
        st.builds(str.format, st.sampled_from(WRAPPED), inner),
        st.builds("(?:{}){}".format, inner, st.sampled_from(REPEATS)),
        st.builds("({}){}".format, inner, st.sampled_from(REPEATS)),
        st.builds(r"({})\1".format, inner),
        st.builds("({})?(?(1){}|{})".format, inner, inner, inner),
    ),
    max_leaves=7,
)
# Characters of one byte but for the last: libjq repeats an empty match within others.
TEXTS = st.text(st.sampled_from("aabbcAB1 \n"), max_size=12)
FLAGS = st.sampled_from([None, "g", "gi", "gn", "gx", "gp", "gl", "s"])


@seed(SEED)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
@given(pattern=PATTERNS, text=TEXTS, flags=FLAGS)
def test_random_patterns_agree_with_libjq(pattern: str, text: str, flags: str | None) -> None:
    """Both find the same, or both refuse."""
    note(f"seed {SEED}")
    mine = ours(pattern, text, flags)
    expected = theirs(pattern, text, flags)
    # Within a condition Oniguruma lets anchors repeat.
    if mine != "budget" and not ("(?(" in pattern and "repeat operator" in str(mine)):
        assert (pattern, text, flags, mine) == (pattern, text, flags, expected)
