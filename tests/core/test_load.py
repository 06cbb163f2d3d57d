"""Loading: YAML 1.2 core and JSON as the same data, everything else refused with its place."""

import json
import string
from contextlib import suppress
from io import StringIO
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from fastrunner._core import InvalidWorkflow, Problem, load, load_in_steps, validate
from fastrunner.base import limits
from tests.properties import examples


def refusal(text: str | bytes) -> list[tuple[str, int, int]]:
    """Code, line and column of each problem the load has."""
    with pytest.raises(InvalidWorkflow) as caught:
        load(text)
    return [(problem.code, problem.line, problem.column) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on: yes", {"on": "yes"}),
        ("a: [y, n, off, NO]", {"a": ["y", "n", "off", "NO"]}),
        ("a: [true, True, FALSE, null, Null, ~, ]", {"a": [True, True, False, None, None, None]}),
        ("a:\nb: ''", {"a": None, "b": ""}),
        ("a: [0x1F, 0o17, 017, 0b11, 1_000, +12, -0]", {"a": [31, 15, 17, "0b11", "1_000", 12, 0]}),
        ("a: [1.5, -.5, 1., 1e3, 1.e-1, .e3, e3, 1e]", {"a": [1.5, -0.5, 1.0, 1000.0, 0.1, ".e3", "e3", "1e"]}),
        ("a: [1.0, '1.0', \"1\", 1.0.0]", {"a": [1.0, "1.0", "1", "1.0.0"]}),
        ("a: 2025-01-31T12:00:00Z\nb: 2025-01-31", {"a": "2025-01-31T12:00:00Z", "b": "2025-01-31"}),
        ("a: 12:30:45", {"a": "12:30:45"}),
        ("<<: {a: 1}", {"<<": {"a": 1}}),
        ("a: &x [1, 2]\nb: *x", {"a": [1, 2], "b": [1, 2]}),
        ("&k a: 1\nb: *k", {"a": 1, "b": "a"}),
        (
            "a: !!str 1\nb: !!int '1'\nc: !!float 1\nd: !!map {}\ne: ! 1",
            {"a": "1", "b": 1, "c": 1.0, "d": {}, "e": "1"},
        ),
        ("a: |\n  x\n  y\nb: >-\n  x\n  y", {"a": "x\ny\n", "b": "x y"}),
        ("{uri: http://x/y?z=1, b: c:d}", {"uri": "http://x/y?z=1", "b": "c:d"}),
        ("a: {uri: http://x/y?z=1, at: 12:30}", {"a": {"uri": "http://x/y?z=1", "at": "12:30"}}),
        ("{a: 1, b: [x, y]}", {"a": 1, "b": ["x", "y"]}),
        ('{"a": 1,}', {"a": 1}),
        ('{"a": 01}', {"a": 1}),
        ("\ufeffa: 1", {"a": 1}),
        ("%YAML 1.2\n---\na: 1\n...\n", {"a": 1}),
        ("# nothing\n- 1\n", [1]),
        ("a: 18446744073709551615\nb: 18446744073709551616", {"a": 18446744073709551615, "b": 1.8446744073709552e19}),
        ("a: 0xFFFFFFFFFFFFFFFFF", {"a": 2.9514790517935283e20}),
        ("plain", "plain"),
    ],
)
def test_yaml_follows_the_core_schema(text: str, value: Any) -> None:
    loaded = load(text)
    assert loaded == value
    assert json.dumps(loaded) == json.dumps(value)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, -2, 3.5, 1e3, 1E-2, true, false, null, "x"], "": {}}',
        " [ ] ",
        '["\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00\\u0000"]',
        '{"long": 123456789012345678901234567890, "edge": [9223372036854775807, -9223372036854775808]}',
        '{"nested": [[[[{"a": [{}]}]]]]}',
        "[-0.0]",
        '{"é": "日本 \U0001f600"}',
    ],
)
def test_json_equals_orjson(text: str) -> None:
    assert repr(load(text)) == repr(orjson.loads(text))
    assert load(text.encode()) == load(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", ("empty-document", 1, 1)),
        ("# nothing", ("empty-document", 1, 1)),
        ("a: 1\n---\nb: 2", ("multiple-documents", 2, 1)),
        ("a: b: c", ("syntax-error", 1, 5)),
        ("a: 1\nb: @x", ("syntax-error", 2, 4)),
        ("a:\n\t- b", ("syntax-error", 2, 1)),
        ("a: 'x", ("syntax-error", 1, 6)),
        ("é: 1\nb: \x01", ("syntax-error", 2, 4)),
        ('{"a": 1 "b": 2}', ("syntax-error", 1, 9)),
        ('{"a":\n  [1, 2}', ("syntax-error", 2, 8)),
        ('{"a": "\\ud800"}', ("syntax-error", 1, 14)),
        ("{a: [1, 2}", ("syntax-error", 1, 10)),
        (b"a: \xff", ("invalid-encoding", 1, 4)),
        ("a: 1\nb: \ud800", ("invalid-encoding", 2, 4)),
        ("a: *nowhere", ("invalid-alias", 1, 4)),
        ("a: &x [*x]", ("invalid-alias", 1, 8)),
        ("a: 1\na: 2", ("duplicate-key", 2, 1)),
        ('{"a": 1,\n "a": 2}', ("duplicate-key", 2, 2)),
        ("a: {b: 1, b: 2}", ("duplicate-key", 1, 11)),
        ("404: x", ("non-string-key", 1, 1)),
        ("a:\n  true: x", ("non-string-key", 2, 3)),
        ("ports: {80: x}", ("non-string-key", 1, 9)),
        ("container: {ports: {true: x}}", ("non-string-key", 1, 21)),
        ("? [a]\n: x", ("non-string-key", 1, 3)),
        ("a: !!binary eA==", ("unsupported-tag", 1, 4)),
        ("a: !!timestamp 2025-01-31", ("unsupported-tag", 1, 4)),
        ("a: !mine x", ("unsupported-tag", 1, 4)),
        ("a: !!set {x: }", ("unsupported-tag", 1, 4)),
        ("a: !!int x", ("invalid-scalar", 1, 4)),
        ("a: .inf", ("invalid-scalar", 1, 4)),
        ("a: [-.Inf]", ("invalid-scalar", 1, 5)),
        ("a: .nan", ("invalid-scalar", 1, 4)),
        ("a: 1e999", ("invalid-scalar", 1, 4)),
        ('{"a": 1e999}', ("invalid-scalar", 1, 7)),
        ("? " + "x" * 2000 + "\n: 1", ("key-too-long", 1, 3)),
        ('{"' + "x" * 2000 + '": 1}', ("key-too-long", 1, 2)),
        ("a: 1\n" + "- " * 300, ("syntax-error", 2, 1)),
        ("- " * 300, ("too-deep", 1, 257)),
        ("[" * 300, ("too-deep", 1, 129)),
        ("a: " + "[" * 300, ("too-deep", 1, 131)),
    ],
)
def test_refusals_say_where(text: str | bytes, problem: tuple[str, int, int]) -> None:
    assert refusal(text) == [problem]


def test_ports_of_a_container_may_be_numbers() -> None:
    ports = load("container:\n  ports:\n    8880: 80\n    0x10: 1\n    '1': 2\n")
    assert ports == {"container": {"ports": {"8880": 80, "16": 1, "1": 2}}}
    assert refusal("container: {ports: {80: 1, '80': 2}}") == [("duplicate-key", 1, 28)]


def test_duplicates_do_not_hide_other_problems() -> None:
    codes = [problem.code for problem in validate("document: {}\ndo: []\ndo: []\nnot: 1")]
    assert codes == ["missing-key"] * 4 + ["duplicate-key", "unknown-key"]


def test_bounds() -> None:
    assert refusal("a" * (limits.DOCUMENT_SIZE_BYTES_MAX + 1))[0][0] == "document-too-large"
    assert refusal("é" * (limits.DOCUMENT_SIZE_BYTES_MAX // 2 + 1))[0][0] == "document-too-large"
    assert refusal(b"a" * (limits.DOCUMENT_SIZE_BYTES_MAX + 1))[0][0] == "document-too-large"
    many = "[" + "1," * limits.DOCUMENT_NODES_MAX + "1]"
    assert refusal(many)[0][0] == "too-many-values"
    assert len(load("[" + "1," * (limits.DOCUMENT_NODES_MAX - 2) + "1]")) == limits.DOCUMENT_NODES_MAX - 1


def test_aliases_cost_what_they_expand_to() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert refusal("\n".join(lines))[0][0] == "too-many-values"
    deep = ["a0: &a0 [1]"] + [f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 200)]
    assert refusal("\n".join(deep))[0][0] == "too-deep"


def test_messages_say_what_was_expected() -> None:
    with pytest.raises(InvalidWorkflow, match=r"1:9: JSON: expected ',' or '}' after a member, found '\"'"):
        load('{"a": 1 "b": 2}')
    with pytest.raises(InvalidWorkflow, match="quote a value that contains ': '"):
        load("a: b: c")
    with pytest.raises(TypeError, match="str or bytes"):
        load(5)  # type: ignore[arg-type]


def test_problems_are_plain_data() -> None:
    problem = Problem("unknown-key", "/a", 1, 2, "text")
    assert problem == Problem("unknown-key", "/a", 1, 2, "text")
    assert problem != Problem("unknown-key", "/a", 1, 3, "text")
    assert len({problem, Problem("unknown-key", "/a", 1, 2, "text")}) == 1
    assert "unknown-key" in repr(problem)
    error = InvalidWorkflow([problem, problem])
    assert str(error) == "1:2: text (and 1 more)"
    assert error.problems == (problem, problem)


# --- properties ---

KEYS = st.text(string.ascii_letters + string.digits + " -_./~é日:#'\"{}[]?,&*!|>%@`", max_size=12)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | FLOATS | st.text(max_size=20) | KEYS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=30,
)


@given(VALUES)
@examples(400)
def test_json_survives_the_load(value: Any) -> None:
    assert load(json.dumps([value])) == [value]
    assert load(json.dumps({"": value}, ensure_ascii=False, indent=1)) == {"": value}


# U+2028 and U+2029 end lines for ruamel.yaml when it writes, as in YAML 1.1; in 1.2 they do not.
YAML_TEXT = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x2FFF, exclude_categories=("Cs", "Cc", "Zl", "Zp")), max_size=20
)
YAML_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | FLOATS | YAML_TEXT | KEYS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=30,
)


@given(YAML_VALUES)
@examples(300)
def test_yaml_equals_ruamel(value: Any) -> None:
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    stream = StringIO()
    yaml.dump(value, stream)
    assert load(stream.getvalue()) == YAML(typ="safe", pure=True).load(stream.getvalue())


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
@examples(500)
def test_no_bytes_raise_anything_else(text: bytes) -> None:
    assert isinstance(validate(text), tuple)
    with suppress(InvalidWorkflow):
        load(text)


PIECES = st.sampled_from(
    [
        "document:",
        "do:",
        "\n",
        " ",
        "  ",
        "- ",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "a",
        '"',
        "'",
        "*a",
        "&a ",
        "!!int",
        "|\n",
        "1",
        "${ .a }",
        "${",
        "}",
        "set:",
        "call: http",
        "with:",
        "null",
        "~",
        "<<",
        "? ",
        "%YAML 1.2\n",
        "---\n",
        "...\n",
        "\t",
    ]
)


@given(st.lists(PIECES, max_size=40).map("".join))
@examples(500)
def test_no_pieces_of_documents_raise_anything_else(text: str) -> None:
    assert isinstance(validate(text), tuple)


@given(st.data())
@examples(200)
def test_damaged_documents_never_raise_anything_else(data: st.DataObject) -> None:
    text = DAMAGED
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(PIECES) + text[at + data.draw(st.integers(0, 6)) :]
    for problem in validate(text):
        assert 1 <= problem.line <= text.count("\n") + 2
        assert problem.column >= 1


DAMAGED = """\
document: {dsl: '1.0.3', namespace: a, name: b, version: 1.0.0}
use:
  timeouts: &t {short: {after: PT5S}}
do:
- first:
    if: ${ .a }
    set: {a: '${ .b }'}
    timeout: short
- second:
    try:
    - inner: {raise: {error: {type: https://example.com, status: 400}}}
    catch: {as: e, do: [{x: {set: {e: '${ $e }'}}}]}
    then: first
"""


# --- in steps ---


def drained(text: str, budget: int = 1_000, takes_any_key: bool = False) -> tuple[object, int]:
    """What is loaded, and in how many steps."""
    loading, steps = load_in_steps(text, budget, takes_any_key), 0
    while True:
        try:
            next(loading)
        except StopIteration as stop:
            return stop.value, steps
        steps += 1


def test_loading_in_steps_gives_what_loading_gives() -> None:
    text = "a: [1, 2]\n" + "".join(f"k{n}: {{x: [{n}, y]}}\n" for n in range(500))
    value, steps = drained(text, budget=10)
    assert value == load(text)
    assert steps > 20
    assert drained('{"a": 1}', budget=10) == ({"a": 1}, 0)


def test_keys_that_are_no_strings_are_their_text_where_they_may_be() -> None:
    text = "responses: {200: fine, 0x1F: odd, true: x}"
    assert drained(text, takes_any_key=True)[0] == {"responses": {"200": "fine", "0x1F": "odd", "true": "x"}}
    with pytest.raises(InvalidWorkflow, match="keys are strings"):
        drained("200: fine")
    with pytest.raises(InvalidWorkflow, match="twice"):
        drained("200: fine\n200: again", takes_any_key=True)
