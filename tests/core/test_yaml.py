"""YAML 1.2: what a document says is what is read, whoever wrote it; what is none is refused with its place and a way
out."""

import json
import re
from contextlib import suppress
from io import StringIO
from time import process_time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, SingleQuotedScalarString

from fastrunner._core import InvalidWorkflow, load, validate
from fastrunner.base import limits
from tests.core.test_load import FLOATS, KEYS, VALUES, refusal
from tests.properties import examples


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # U+0085, U+2028 and U+2029 end no line.
        ("'a\x85b'", "a\x85b"),
        ("'a\x85\nb'", "a\x85 b"),
        ("'a\u2029b'", "a\u2029b"),
        ('"a\x85b\\N"', "a\x85b\x85"),
        ("a: b\u2028c", {"a": "b\u2028c"}),
        ("a: b\u2028\n  c", {"a": "b\u2028 c"}),
        ("a: b\x85c", {"a": "b\x85c"}),
        ("a: |\n  b\u2028c\n", {"a": "b\u2028c\n"}),
        ("# b\x85c\na: 1", {"a": 1}),
        ("a: 1 # b\u2028c: 2", {"a": 1}),
        ("a: 1 #\x85\nb: 2", {"a": 1, "b": 2}),
        ("a: 1\x85# b", {"a": "1\x85# b"}),
        # Text within brackets may start with ? : - before what is no white space.
        ("[?x]", ["?x"]),
        ("[-x, ?x, :x]", ["-x", "?x", ":x"]),
        ("[a?, a:b, a?b]", ["a?", "a:b", "a?b"]),
        ("[? x]", [{"x": None}]),
        ("{v: :x}", {"v": ":x"}),
        ("{v: ::x}", {"v": "::x"}),
        ("{v::x: 1}", {"v::x": 1}),
        ('{"v"::x}', {"v": ":x"}),
        ("{r: ?x}", {"r": "?x"}),
        ("{?r: x}", {"?r": "x"}),
        ("{? r: x}", {"r": "x"}),
        ("{r: x?}", {"r": "x?"}),
        # Names of anchors.
        ("a: &a.b 1\nb: *a.b", {"a": 1, "b": 1}),
        ("a: &a/b [x]\nb: *a/b", {"a": ["x"], "b": ["x"]}),
        ("a: &a: x\nb: *a:", {"a": "x", "b": "x"}),
        ("[&a.b x,*a.b]", ["x", "x"]),
        ("a: &ü 1\nb: *ü", {"a": 1, "b": 1}),
        ("a: &日本 1\nb: *日本", {"a": 1, "b": 1}),
        ("a: &😀 1\nb: *😀", {"a": 1, "b": 1}),
        ("&ü a: 1\nb: *ü", {"a": 1, "b": "a"}),
        # Escapes.
        ('a: "\\ud83d\\ude00"', {"a": "\U0001f600"}),
        ('a: "x\\uD83D\\uDE00y"', {"a": "x\U0001f600y"}),
        ('a: "\\U0001F600\\u00e9\\xe9"', {"a": "\U0001f600éé"}),
        ('a: "\\/\\e\\_\\L\\0"', {"a": "/\x1b\xa0\u2028\0"}),
        # Lines of white space.
        ("a: 1\n\t\nb: 2", {"a": 1, "b": 2}),
        ("\t\na: 1\n \t \n", {"a": 1}),
        ("a:\n- b\n\t\n- c", {"a": ["b", "c"]}),
        ("a: [b,\n\t\n c]", {"a": ["b", "c"]}),
        ("a: 'b\n\t\n  c'", {"a": "b\nc"}),
        # Text of lines.
        ("a: |\n  \tb\n  c\n", {"a": "\tb\nc\n"}),
        ("a: |\n \t\n  b\n", {"a": "\t\n b\n"}),
        ("a: >\n  b\n  \tc\n  d\n", {"a": "b\n\tc\nd\n"}),
        ("|\n\ta", "\ta\n"),
        ("a: |\n  b", {"a": "b\n"}),
        ("a: |-\n  b\n\n", {"a": "b"}),
        ("a: |+\n  b\n\nc: 1", {"a": "b\n\n", "c": 1}),
        ("a: |1\n  b\n", {"a": " b\n"}),
        # Ends of lines.
        ("a: 1\rb: 'c\r\r d'\re: |\r f\r", {"a": 1, "b": "c\nd", "e": "f\n"}),
        ("a: 1\r\nb: 'c\r\n d'\r\n", {"a": 1, "b": "c d"}),
        # A key within braces may be as long as any; its own text counts.
        ('{"' + "\\u0041" * 200 + '": 1, b: 2}', {"A" * 200: 1, "b": 2}),
        ('a: {"' + "\\u0041" * 200 + '": 1}', {"a": {"A" * 200: 1}}),
        ("a: {" + " " * 2000 + "b" + " " * 2000 + ": 1}", {"a": {"b": 1}}),
        ("a: {? " + "b" * 1000 + "\n  : 1}", {"a": {"b" * 1000: 1}}),
        # A closing bracket may stand as far left as its key.
        ("a: [\n  b\n]\nc: {\n  d: e\n}", {"a": ["b"], "c": {"d": "e"}}),
        # Directives.
        ("%YAML 1.1\n%TAG !y! tag:yaml.org,2002:\n---\na: !y!str 1", {"a": "1"}),
        ("%FOO bar\n--- # b\na: !<tag:yaml.org,2002:int> '1'\n... # c\n# d\n", {"a": 1}),
        ("---\n", None),
    ],
)
def test_text_reads_as_it_says(text: str, value: Any) -> None:
    assert load(text) == value


@pytest.mark.parametrize(
    ("text", "problem", "message"),
    [
        ("a: b: c", ("syntax-error", 1, 5), "quote a value that contains ': '"),
        ("a: b\n  c: d", ("syntax-error", 2, 4), "starts on line 1"),
        ("a: - b", ("syntax-error", 1, 4), "quote a value that starts with '- '"),
        ("a:\n\tb: c", ("syntax-error", 2, 1), "indent with spaces"),
        ("a:\n  b: 1\n  \tc: 2", ("syntax-error", 3, 3), "indent with spaces"),
        ("-\t- a", ("syntax-error", 1, 2), "indent with spaces"),
        ("a: |\n\t\nb: 1", ("syntax-error", 2, 1), "indent with spaces"),
        ("a:\n  b: 1\n c: 2", ("syntax-error", 3, 2), "block that line 1 opened has 2, .* line 1 opened has 0"),
        ("- a\nb: 1", ("syntax-error", 2, 1), "align the items"),
        ("a: 1\nb 2\nc: 3", ("syntax-error", 2, 4), "a key needs a ':'"),
        ("a: 1\n- b", ("syntax-error", 2, 1), "next key of the mapping that line 1 opened"),
        ("a: 'b\nc: d", ("syntax-error", 2, 1), "starts at 1:4"),
        ("a: 'b\n c: d", ("syntax-error", 2, 6), "close the quoted text"),
        ("a: 'b' c", ("syntax-error", 1, 8), "as a whole"),
        ("a: {amount: ${ .x }}", ("syntax-error", 1, 13), r"quote `\$\{ ... \}`, as in \{amount: '\$\{ .amount \}'\}"),
        ("a: [b\nc: d", ("syntax-error", 2, 1), "the list that starts at 1:4"),
        ("a: {b: c", ("syntax-error", 1, 9), "close it with '}'"),
        ("a: [b, c}", ("syntax-error", 1, 9), "expected ',' or ']'"),
        ("a: [b]]", ("syntax-error", 1, 7), "end of the line"),
        ("a: [b,,c]", ("syntax-error", 1, 7), "expected an entry"),
        ("a: [b,#c\n]", ("syntax-error", 1, 7), "a comment needs a space"),
        ("a: [-]", ("syntax-error", 1, 5), "quote a value"),
        ("a: [b\n  : c]", ("syntax-error", 2, 3), "expected ',' or ']'"),
        ("a: @b", ("syntax-error", 1, 4), "quote a value that starts with @"),
        ("a: `b`", ("syntax-error", 1, 4), "quote a value that starts with @"),
        ("a: %b", ("syntax-error", 1, 4), "quote a value that starts with @"),
        ("a: *", ("syntax-error", 1, 5), "quote a value that starts with '&' or '\\*'"),
        ('a: "\\q"', ("syntax-error", 1, 6), "in single quotes"),
        ('a: "\\ud83d"', ("syntax-error", 1, 11), "surrogate pair"),
        ('a: "\\ude00\\ud83d"', ("syntax-error", 1, 11), "surrogate pair"),
        ('a: "\\ud83d\\u0041"', ("syntax-error", 1, 17), "surrogate pair"),
        ('a: "\\U00110000"', ("syntax-error", 1, 15), "beyond"),
        ('a: "\\x4"', ("syntax-error", 1, 8), "2 hexadecimal digits"),
        ("a: | b\n", ("syntax-error", 1, 6), "begin the text on the next line"),
        ("a: |\n    \n  b", ("syntax-error", 2, 3), "remove the spaces"),
        ("a: b\x07", ("syntax-error", 1, 5), "remove it or write it as an escape"),
        ("a: b\ufeff", ("syntax-error", 1, 5), "remove it or write it as an escape"),
        ("--- a: b", ("syntax-error", 1, 6), "or of '---'"),
        ("%YAML 2.0\n---\na", ("syntax-error", 1, 1), "%YAML 1.2"),
        ("%YAML 1.2\na", ("syntax-error", 2, 1), "'---'"),
        ("a: !x!y b", ("syntax-error", 1, 7), "no %TAG directive"),
        ("a: &b &c d", ("syntax-error", 1, 7), "remove one"),
        ("a: &b *b", ("syntax-error", 1, 9), "has no anchor or tag of its own"),
        ("a\n...\nb", ("multiple-documents", 3, 1), "one workflow"),
        ("[a]: b", ("non-string-key", 1, 1), "keys are strings"),
        ("a: 1\n: b", ("non-string-key", 2, 1), "quote it"),
        ("x" * 1025 + ": 1", ("key-too-long", 1, 1), "limit is 1024"),
        ('"' + "\\u0041" * 200 + '": 1', ("key-too-long", 1, 1), "limit is 1024"),
    ],
)
def test_refusals_say_where_and_what_to_do(text: str, problem: tuple[str, int, int], message: str) -> None:
    assert refusal(text) == [problem]
    with pytest.raises(InvalidWorkflow, match=message):
        load(text)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"a": NaN}', (1, 7)),
        ('{"a": -Infinity}', (1, 8)),
        ("[NaN]", (1, 2)),
        ('{"a": [1,], "b": NaN}', (1, 10)),
        ('{"a": undefined}', (1, 7)),
        ('{"a": 1 // one\n}', (1, 9)),
        ('{\n  // one\n  "a": 1}', (2, 3)),
        ('{"a": /* one */ 1}', (1, 7)),
        ("[1 2]", (1, 4)),
        ('{"a": "b\nc"}', (1, 9)),
    ],
)
def test_broken_json_is_no_yaml(text: str, place: tuple[int, int]) -> None:
    """Where YAML would make text of what the author meant as JSON, the text is refused as JSON."""
    assert refusal(text) == [("syntax-error", *place)]
    with pytest.raises(InvalidWorkflow, match="JSON: expected"):
        load(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{a: NaN}", {"a": "NaN"}),
        ("{a: 1 // b\n}", {"a": "1 // b"}),
        ("{a: ['b\n c', 1 2]}", {"a": ["b c", "1 2"]}),
        ("{b: 'c\n d', \"a\": NaN}", {"b": "c d", "a": "NaN"}),
        ('{"a": yes, "b": PT5S}', {"a": "yes", "b": "PT5S"}),
        ("[a b, 12:30]", ["a b", "12:30"]),
        ('{"a": True}', {"a": True}),
        ("[1, # one\n 2]", [1, 2]),
    ],
)
def test_flow_style_is_no_broken_json(text: str, value: Any) -> None:
    assert load(text) == value


def place(text: str, pointer: str) -> tuple[int, int]:
    """Where a document's problem at a pointer stands."""
    return next((p.line, p.column) for p in validate(text) if p.pointer == pointer)


def test_marks_of_all_styles() -> None:
    text = """\
document: {dsl: 1.0.3, namespace: a, name: &n b, version: '1',
  tags: &t !!map
    {x: [1]}}
do:
- first:
    set: *n
- second:
    - wait
  third: |
    text
? other
: [a: *t]
"""
    assert refusal(text.replace("!!map", "!!seq")) == [("unsupported-tag", 2, 9)]
    assert place(text, "/document/version") == (1, 59)
    assert place(text, "/do/0/first/set") == (6, 10)
    assert place(text, "/do/1/second") == (8, 5)
    assert place(text, "/do/1/third") == (9, 3)
    assert place(text, "/other") == (11, 3)


# --- properties ---

TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x2FFF, exclude_categories=("Cs", "Cc")), max_size=20)
LINES = st.lists(st.text(st.sampled_from("ab \t#:-?\u2028é日'\"{}[],&*!|>%@`"), max_size=8), max_size=6)
WORD = st.text(st.sampled_from("ab#:é日'\"{}[],&*!|>%@`\u2028"), min_size=1, max_size=6)


def has_no_break(value: Any) -> bool:
    """Without U+0085, U+2028 and U+2029, which ruamel writes as if they were line breaks."""
    return not re.search("[\x85\u2028\u2029]", json.dumps(value, ensure_ascii=False))


@given(VALUES.filter(has_no_break), st.booleans())
@examples(300)
def test_dumps_read_back(value: Any, flow: bool) -> None:
    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 2)
    yaml.default_flow_style = flow
    # ruamel folds some texts with control characters so that it cannot read them itself.
    yaml.width = 1 << 20
    stream = StringIO()
    yaml.dump([value], stream)
    assert load(stream.getvalue()) == [value]


@given(st.dictionaries(KEYS, TEXT | KEYS, max_size=4).filter(has_no_break), st.integers(40, 80))
@examples(200)
def test_quoted_dumps_read_back(value: dict[str, str], width: int) -> None:
    yaml = YAML(pure=True)
    yaml.width = width
    stream = StringIO()
    quoted = {key: DoubleQuotedScalarString(text) for key, text in value.items()}
    yaml.dump([quoted, {key: SingleQuotedScalarString(text) for key, text in value.items()}], stream)
    assert load(stream.getvalue()) == [value, value]


@given(LINES, st.integers(1, 9))
@examples(300)
def test_literal_text_reads_back(lines: list[str], indent: int) -> None:
    body = "".join(f"{' ' * indent}{line}\n" for line in lines)
    text = "".join(f"{line}\n" for line in lines)
    assert load(f"a: |{indent}+\n{body}b: 1\n") == {"a": text, "b": 1}
    assert load(f"- |-{indent}\n{body}- b") == [text.rstrip("\n"), "b"]
    assert load(f"- |{indent} # b\n{body}") == [text.rstrip("\n") + "\n" * bool(text.strip("\n"))]


@given(st.lists(st.lists(WORD, min_size=1, max_size=4), min_size=1, max_size=4), st.integers(1, 9))
@examples(300)
def test_folded_text_reads_back(paragraphs: list[list[str]], indent: int) -> None:
    """A paragraph has its words on lines of their own."""
    margin = " " * indent
    body = "\n".join("".join(f"{margin}{word}\n" for word in words) for words in paragraphs)
    assert load(f"a:\n- >-\n{margin}{body.replace(chr(10), chr(10) + margin)}\nb: 1\n") == {
        "a": ["\n".join(" ".join(words) for words in paragraphs)],
        "b": 1,
    }


@given(VALUES)
@examples(200)
def test_json_within_yaml_reads_as_json(value: Any) -> None:
    """JSON is YAML: behind a key it is read by the other reader."""
    for text in (json.dumps([value]), json.dumps([value], ensure_ascii=False, indent=1)):
        assert repr(load(text)) == repr(orjson.loads(text))
        assert load("a:\n " + text) == {"a": [value]}


@given(FLOATS)
@examples(200)
def test_numbers_read_back(number: float) -> None:
    assert repr(load(f"a: {number!r}")["a"]) == repr(number)


# --- bounds ---

MIB = limits.DOCUMENT_SIZE_BYTES_MAX


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "a",
            "a ",
            "a\n",
            " \n",
            "\t",
            "[",
            "{",
            "[{",
            "- ",
            "? ",
            ": ",
            "a: ",
            "'",
            '"',
            '"\n',
            "\\",
            "|\n",
            "#",
            "&a ",
        ),
        *(
            "!a ",
            "*a ",
            "[a",
            "{a: ",
            "a:\n ",
            "'' ",
            "a: 'b\n",
            "- - - -\n",
            "? - a\n",
            "\r",
            ",",
            "[a]: ",
            "%A\n",
            "...\n",
        ),
        *("&a [", "a\n\n\n", "- |\n", "- >\n  \n", "{? ", "[? ", "x: &a *a\n", "- &a\n", "!!str\n", " #\n", "[\n", "]"),
    ],
)
@pytest.mark.parametrize("head", ["", "a: [", 'a: "', "a: |\n ", "a:\n  "])
def test_time_is_linear(head: str, piece: str) -> None:
    """A mebibyte of anything takes a fraction of a second."""
    text = (head + piece * (MIB // len(piece)))[:MIB]
    begun = process_time()
    with suppress(InvalidWorkflow):
        load(text)
    assert process_time() - begun < 1.5


def test_stairs_take_linear_time() -> None:
    stairs = "".join(" " * depth + f"k{depth}:\n" for depth in range(limits.DOCUMENT_DEPTH_MAX - 2))
    text = "".join(f"- {stairs.replace(chr(10), chr(10) + '  ')}\n" for _ in range(MIB // len(stairs) // 2))
    begun = process_time()
    assert len(load(text)) > 50
    assert process_time() - begun < 1.5
