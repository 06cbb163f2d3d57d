"""JSON Schemas: the verdicts of jsonschema-rs, the words for wrong schemas and for violations, what checks cost."""

import json
import re
import time
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import assume, given, note
from hypothesis import strategies as st

from fastrunner._core import InvalidSchema, compile_schema
from fastrunner.base.limits import SCHEMA_STEPS_MAX
from tests.core.walking import Run, plan_of
from tests.properties import examples

DRAFTS = [
    "http://json-schema.org/draft-04/schema#",
    "http://json-schema.org/draft-06/schema#",
    "http://json-schema.org/draft-07/schema#",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
]


def violation(schema: Any, value: Any) -> str | None:
    return compile_schema(schema).check(value)[0]


# --- the oracle ---

NAMES = st.sampled_from(["a", "b", "c", "ab"])
NUMBERS = st.one_of(st.integers(-3, 5), st.sampled_from([0.5, 1.0, 2.5, -0.0, 0.1, 0.3, 1e18, 2**53 + 1, 2.0**53]))
TEXTS = st.sampled_from(["", "a", "b", "ab", "aab", "é", "💩", "12", "a-1"])
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=8,
)
PATTERNS = st.sampled_from(["^a", "b$", "[ab]+", r"\d", "^(a|b)*$", "(?!a)", "^.$", r"\w-"])
TYPES = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
SIZES = st.integers(0, 3)
BOUNDS = st.one_of(st.integers(-2, 4), st.sampled_from([0.5, 1.5]))
REFERENCES = st.sampled_from(["#", "#/$defs/x", "#/$defs/y"])
LEAVES: dict[str, st.SearchStrategy[Any]] = {
    "type": st.one_of(TYPES, st.lists(TYPES, min_size=1, max_size=3, unique=True)),
    "enum": st.lists(VALUES, min_size=1, max_size=3, unique_by=repr),
    "const": VALUES,
    "minimum": BOUNDS,
    "maximum": BOUNDS,
    "multipleOf": st.sampled_from([1, 2, 0.5, 0.1, 1.5]),
    "minLength": SIZES,
    "maxLength": SIZES,
    "pattern": PATTERNS,
    "minItems": SIZES,
    "maxItems": SIZES,
    "uniqueItems": st.booleans(),
    "minProperties": SIZES,
    "maxProperties": SIZES,
    "required": st.lists(NAMES, min_size=1, max_size=2, unique=True),
}
NEWER = {
    "exclusiveMinimum": BOUNDS,
    "exclusiveMaximum": BOUNDS,
    "minContains": SIZES,
    "maxContains": SIZES,
    "dependentRequired": st.dictionaries(NAMES, st.lists(NAMES, max_size=2, unique=True), max_size=2),
    "$ref": REFERENCES,
}


def keywords(inner: st.SearchStrategy[Any], newest: bool) -> dict[str, st.SearchStrategy[Any]]:
    lists = st.lists(inner, min_size=1, max_size=3)
    return {
        **LEAVES,
        **NEWER,
        **dict.fromkeys(("allOf", "anyOf", "oneOf"), lists),
        **dict.fromkeys(("not", "if", "then", "else", "contains", "propertyNames", "additionalProperties"), inner),
        **dict.fromkeys(("unevaluatedProperties", "unevaluatedItems"), inner),
        "properties": st.dictionaries(NAMES, inner, max_size=3),
        "patternProperties": st.dictionaries(PATTERNS, inner, max_size=2),
        "dependentSchemas": st.dictionaries(NAMES, inner, max_size=2),
        "items": inner if newest else st.one_of(inner, lists),
        **({"prefixItems": lists} if newest else {"additionalItems": inner}),
    }


SAME_VALUE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else")


def leads_to_itself(document: Any, schema: Any, around: tuple[int, ...] = ()) -> bool:
    """Whether a schema applies to the value it applies to: what `not` of itself is, nobody says."""
    if not isinstance(schema, dict):
        return False
    if id(schema) in around:
        return True
    inner = [schema[name] for name in SAME_VALUE if name in schema]
    inner = [each for held in inner for each in (held if isinstance(held, list) else [held])]
    if "dependentSchemas" in schema:
        inner.extend(schema["dependentSchemas"].values())
    targets = {"#": document, **{f"#/$defs/{name}": each for name, each in document.get("$defs", {}).items()}}
    if "$ref" in schema:
        inner.append(targets[schema["$ref"]])
    return any(leads_to_itself(document, each, (*around, id(schema))) for each in inner)


def schemas(newest: bool) -> st.SearchStrategy[Any]:
    def widen(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        rows = keywords(inner, newest)
        return st.lists(st.sampled_from(sorted(rows)), min_size=1, max_size=4, unique=True).flatmap(
            lambda names: st.fixed_dictionaries({name: rows[name] for name in names})
        )

    leaves = st.one_of(st.booleans(), st.fixed_dictionaries({"type": TYPES}), st.fixed_dictionaries({"const": VALUES}))
    return st.recursive(leaves, widen, max_leaves=6)


@pytest.mark.parametrize("newest", [True, False], ids=["2020-12", "2019-09"])
def test_verdicts_agree_with_jsonschema_rs(newest: bool) -> None:
    @examples(1_500)
    @given(
        schema=schemas(newest), x=schemas(newest), y=schemas(newest), values=st.lists(VALUES, min_size=1, max_size=4)
    )
    def check(schema: Any, x: Any, y: Any, values: list[Any]) -> None:
        document = {**(schema if isinstance(schema, dict) else {"allOf": [schema]}), "$defs": {"x": x, "y": y}}
        document["$schema"] = DRAFTS[4 if newest else 3]
        assume(not leads_to_itself(document, document))
        # In 2019-09 `contains` evaluates no items; jsonschema-rs has it as in 2020-12.
        assume(newest or not {"contains", "unevaluatedItems"} <= set(re.findall(r"\w+", json.dumps(document))))
        note(json.dumps(document))
        ours, oracle = compile_schema(document), jsonschema_rs.validator_for(document, offline=True)
        for value in values:
            told, steps = ours.check(value)
            assert (told is None) is oracle.is_valid(value), value
            assert ours.check(json.loads(json.dumps(value))) == (told, steps)

    check()


@pytest.mark.parametrize("draft", DRAFTS)
@examples(300)
@given(schema=schemas(True), value=VALUES)
def test_drafts_agree_with_jsonschema_rs(draft: str, schema: Any, value: Any) -> None:
    """Schemas written for the newest draft: what an older one refuses, and what it ignores."""
    document = {**(schema if isinstance(schema, dict) else {"allOf": [{}]}), "$schema": draft}
    document = json.loads(json.dumps(document).replace("#/$defs/x", "#").replace("#/$defs/y", "#"))
    assume(not leads_to_itself(document, document))
    try:
        oracle = jsonschema_rs.validator_for(document, offline=True)
    except (ValueError, jsonschema_rs.ValidationError):
        with pytest.raises(InvalidSchema):
            compile_schema(document)
        return
    assert (violation(document, value) is None) is oracle.is_valid(value)


# --- patterns ---

REWRITTEN = [
    *(
        r"\d",
        r"\D",
        r"\w",
        r"\W",
        r"\s",
        r"\S",
        r"\bé",
        r"\B",
        ".",
        "a$",
        "^a",
        "$",
        "^$",
        "[[:alpha:]]",
        "[[]",
        "[a[b]]",
    ),
    *(r"[^[\]]", "[a&&b]", r"\p{L}", r"\p{Letter}", r"\pL", r"\p{Script=Greek}", r"\p{sc=Greek}", r"\p{Lu}", r"\P{Lu}"),
    *(
        "(?i)A",
        "(?i:A)",
        "(?s).",
        r"a\z",
        r"\A",
        r"\cA",
        r"\u0041",
        r"\u{41}",
        r"\x41",
        r"\x{41}",
        r"(a)\1",
        "(?P<n>a)",
    ),
    *(
        "a++",
        "]",
        r"\-",
        r"\_",
        r"\/",
        r"\"",
        r"[\-a]",
        "(?<=ab|c)d",
        "(?<!ab|c)d",
        "(?<=(a|b)|é )b",
        "(?<!a)b",
        "(?=a)",
        r"\v",
        r"[\s\S]",
    ),
    *(
        r"[^\s]",
        r"[\d\W]",
        "[a-z]{2,3}",
        "a|",
        "()",
        r"[\u0041-\u0043]",
        "a{2}",
        "a{1,}",
        "^(?:a|b)+?b",
        "[^a-c]",
        "[-a]",
    ),
    *("[a-]", "(a)(b)?", "^((?=a)a|aa)+$", r"\p{Alphabetic}", r"\p{Any}"),
]
REFUSED = [
    *(
        r"\Z",
        r"\a",
        r"\e",
        r"\h",
        r"\R",
        r"\K",
        r"\G",
        r"(?>a)",
        "a{,2}",
        "a{",
        "{",
        r"[\w-a]",
        r"[a-\d]",
        "(",
        ")",
        "[",
    ),
    *("[z-a]", r"\c", r"\N", r"\Q..\E", r"\u12", r"\xZZ", "(?=a)*", "*", "a{2,1}", r"\p{Nonsense}", "\\"),
]
ONLY_HERE = {r"\0": "\0", "(?<n>a)\\k<n>": "aa", "[]|a": "a", "[^]": "\n", "[\\b]": "\b", r"\uD83D\uDC32": "🐲"}
"""Of ECMA-262 and refused by jsonschema-rs: a text each matches."""
LINE_ENDS = ("\r", "\u2028", "\u2029", "\n")
SUBJECTS = [
    *(
        "",
        "a",
        "A",
        "aa",
        "b",
        "ab\n",
        "a\n",
        "a\nb",
        "é",
        "5",
        "٣",
        "_",
        " ",
        "\u00a0",
        "\ufeff",
        "\r",
        "\u2028",
        "aé",
    ),
    *(
        "é b",
        "Σ",
        "🐲",
        "[",
        "]",
        "a]",
        "\x01",
        "\x07",
        "\x0b",
        "\x08",
        "-",
        "/",
        '"',
        "{",
        "}",
        "bb",
        "cd",
        "abd",
        "&",
    ),
    *("Z", "\\", "\0", "ß", "xx", "aab", "ac"),
]


@pytest.mark.parametrize("pattern", REWRITTEN)
def test_patterns_agree_with_jsonschema_rs(pattern: str) -> None:
    ours, oracle = compile_schema({"pattern": pattern}), jsonschema_rs.validator_for({"pattern": pattern})
    # To a dot of some versions of jsonschema-rs only a line feed ends a line.
    subjects = [text for text in SUBJECTS if "." not in pattern or text not in LINE_ENDS]
    assert [ours.check(text)[0] is None for text in subjects] == [oracle.is_valid(text) for text in subjects]


@pytest.mark.parametrize("text", LINE_ENDS)
def test_a_dot_is_no_end_of_a_line(text: str) -> None:
    """ECMA-262, 22.2.2.9.1: LineTerminator."""
    assert violation({"pattern": "."}, text) is not None
    assert violation({"pattern": "a."}, f"a{text}") is not None


@pytest.mark.parametrize("pattern", REFUSED)
def test_patterns_that_are_refused(pattern: str) -> None:
    schemas: list[dict[str, Any]] = [{"pattern": pattern}, {"patternProperties": {pattern: {}}}]
    for schema in schemas:
        with pytest.raises(InvalidSchema, match='is not a "regex": '):
            compile_schema(schema)


@pytest.mark.parametrize(("pattern", "text"), ONLY_HERE.items())
def test_patterns_beyond_jsonschema_rs(pattern: str, text: str) -> None:
    assert violation({"pattern": f"^(?:{pattern})$"}, text) is None


# --- words ---


@pytest.mark.parametrize(
    ("schema", "value", "told"),
    [
        ({"type": "integer"}, "x", '/: "x" is not of type "integer"'),
        ({"type": ["integer", "null"]}, "x", '/: "x" is not of types "null", "integer"'),
        ({"required": ["a", "b"]}, {}, '/: "a" is a required property; /: "b" is a required property'),
        ({"properties": {"a/b": {"minimum": 2}}}, {"a/b": 1}, "/a~1b: 1 is less than the minimum of 2"),
        ({"items": {"exclusiveMaximum": 2}}, [1, 2], "/1: 2 is greater than or equal to the maximum of 2"),
        ({"minLength": 2}, "a", '/: "a" is shorter than 2 characters'),
        ({"maxItems": 1}, [1, 2], "/: [1,2] has more than 1 item"),
        ({"pattern": "^a"}, "b", '/: "b" does not match "^a"'),
        ({"enum": [1, "b", None]}, 2, '/: 2 is not one of 1, "b" or null'),
        ({"const": {"a": 1}}, 2, '/: {"a":1} was expected'),
        ({"uniqueItems": True}, [1, 1.0], "/: [1,1.0] has non-unique elements"),
        (
            {"properties": {"z": {}}, "additionalProperties": False},
            {"a": 1, "b": 2},
            "/: Additional properties are not allowed ('a', 'b' were unexpected)",
        ),
        (False, 1, "/: False schema does not allow 1"),
        ({"anyOf": [{"type": "null"}]}, 1, "/: 1 is not valid under any of the schemas listed in the 'anyOf' keyword"),
        ({"oneOf": [{}, {}]}, 1, "/: 1 is valid under more than one of the schemas listed in the 'oneOf' keyword"),
        ({"not": {"type": "integer"}}, 1, '/: {"type":"integer"} is not allowed for 1'),
        ({"contains": {"type": "null"}}, [1], "/: None of [1] are valid under the given schema"),
        ({"multipleOf": 0.1}, 0.35, "/: 0.35 is not a multiple of 0.1"),
        ({"unevaluatedProperties": False}, {"a": 1}, "/: Unevaluated properties are not allowed ('a' was unexpected)"),
        ({"$schema": DRAFTS[2], "format": "email"}, "x", '/: "x" is not a "email"'),
    ],
)
def test_violations(schema: Any, value: Any, told: str) -> None:
    """The words of jsonschema-rs."""
    assert violation(schema, value) == told


@pytest.mark.parametrize(
    ("schema", "pointer", "reason"),
    [
        ({"properties": {"a": {"type": "x"}}}, "/properties/a/type", '"x" is not valid under any of the schemas'),
        ({"minLength": -1}, "/minLength", "-1 is less than the minimum of 0"),
        ({"items": [1]}, "/items", '[1] is not of types "boolean", "object"'),
        ({"pattern": "["}, "/pattern", '"[" is not a "regex": premature end of char-class'),
        ({"patternProperties": {"(?<=a|bc*)": {}}}, "/patternProperties/(?<=a|bc*)", "invalid pattern in look-behind"),
        (
            {"items": {"$ref": "https://example.com/s"}},
            "/items/$ref",
            '"https://example.com/s" is outside of the schema',
        ),
        ({"$ref": "#/nope"}, "/$ref", 'Pointer "/nope" does not exist'),
        ({"$ref": "#nope"}, "/$ref", 'Anchor "nope" does not exist'),
        ({"$ref": "#/x", "x": {"type": 5}}, "/x/type", "5 is not valid under any of the schemas"),
        ({"$ref": "#/x", "x": 5}, "/$ref", 'at "/x" is no schema'),
        ({"$schema": "https://example.com/x"}, "", 'Unknown meta-schema: "https://example.com/x"'),
        (5, "", "a JSON Schema is an object or a boolean, not "),
    ],
)
def test_wrong_schemas(schema: Any, pointer: str, reason: str) -> None:
    with pytest.raises(InvalidSchema) as refused:
        compile_schema(schema)
    assert refused.value.pointer == pointer
    assert reason in refused.value.reason


def test_schemas_that_lead_to_themselves() -> None:
    """They ask nothing new, as jsonschema-rs has it."""
    assert violation({"$ref": "#"}, 1) is None
    assert violation({"anyOf": [{"type": "integer"}, {"$ref": "#"}]}, "x") is None
    assert violation({"allOf": [{"type": "integer"}, {"$ref": "#"}]}, "x") == '/: "x" is not of type "integer"'


@pytest.mark.parametrize("schema", [{"not": {"$ref": "#"}}, {"oneOf": [{"minimum": 1}, {"$ref": "#"}]}])
def test_schemas_that_contradict_themselves(schema: Any) -> None:
    """Nobody says what they ask; what does not match is told in words."""
    assert violation(schema, 1) == "/: does not match a schema that contradicts itself"


def test_meta_schemas_are_at_hand() -> None:
    for draft in DRAFTS:
        schema = {"$schema": draft, "properties": {"s": {"$ref": draft}}}
        assert violation(schema, {"s": {"properties": {"a": {"maxLength": 3}}}}) is None
        told = violation(schema, {"s": {"properties": {"a": {"maxLength": "x"}}}})
        assert told is not None
        assert told.startswith('/s/properties/a/maxLength: "x" is not of type "integer"')


# --- costs ---


def nested(depth: int, leaf: Any) -> Any:
    return leaf if depth == 0 else {"children": [nested(depth - 1, leaf)]}


def nodes(keyword: str) -> dict[str, Any]:
    node = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/node"}}}}
    return {"$ref": "#/$defs/node", "$defs": {"node": {keyword: [node, node, node]}}}


def chain(keyword: str, length: int, end: Any, **more: Any) -> dict[str, Any]:
    """Each schema applies the next one twice."""
    links = {f"a{i}": {keyword: [{"$ref": f"#/$defs/a{i + 1}"}] * 2, **more} for i in range(length)}
    return {"$ref": "#/$defs/a0", "$defs": {**links, f"a{length}": end}}


OBJECTS = [{"a": number, "b": "x"} for number in range(3_000)]
TWICE = {"$dynamicAnchor": "n", "properties": {"children": {"items": {"anyOf": [{"$dynamicRef": "#n"}] * 2}}}}
SPENT = f"/: schema took more than {SCHEMA_STEPS_MAX} steps"
HOSTILE: dict[str, tuple[Any, Any, str | None]] = {
    "a tree with one bad leaf": (nodes("oneOf"), nested(10, 5), "'oneOf' keyword"),
    "a deep tree": (nodes("anyOf"), nested(90, 5), "'anyOf' keyword"),
    "a good tree met three times": (nodes("allOf"), nested(90, {}), None),
    "a tree by a dynamic reference": ({**TWICE, "type": "object"}, nested(90, 5), "'anyOf' keyword"),
    "anyOf doubling": (chain("anyOf", 60, {"type": "string"}), 1, "'anyOf' keyword"),
    "allOf doubling": (chain("allOf", 60, {"type": "string"}), 1, '/: 1 is not of type "string"'),
    "oneOf doubling": (chain("oneOf", 60, {"type": "string"}), "x", "'oneOf' keyword"),
    "unevaluated doubling": (
        chain("anyOf", 60, {"properties": {"a": {}}}, unevaluatedProperties=False),
        {"a": 1, "b": 2},
        "'anyOf' keyword",
    ),
    "enum of objects": ({"items": {"enum": OBJECTS}}, OBJECTS * 7, None),
    "enum of large objects": ({"items": {"enum": [{"all": OBJECTS}]}}, [{"all": OBJECTS}] * 100, SPENT),
    "unique objects": ({"uniqueItems": True}, [{"a": number} for number in range(20_000)], None),
    "unique numbers whose hashes are one": (
        {"uniqueItems": True},
        [odd * 2.0 ** (61 * power) for odd in range(1, 3_001, 2) for power in range(15)],
        None,
    ),
    "a pattern in two ways": ({"items": {"pattern": "^((?=a)a|aa)+$"}}, ["a" * 40 + "b"] * 500, SPENT),
    "a pattern of patterns": ({"items": {"pattern": "^(a+)+$"}}, ["a" * 40 + "b"] * 500, SPENT),
    "patterns for names": (
        {"patternProperties": {f"(x+x+)+y{number}": {} for number in range(50)}},
        {"x" * 30 + str(number): 1 for number in range(50)},
        SPENT,
    ),
    "a pattern in a long text": ({"pattern": ".*.*.*=.*"}, "x" * 20_000, SPENT),
}


def step_s() -> float:
    """What a step of the cheapest kind takes of the processor, here and now."""
    compiled, words = compile_schema({"items": {"type": "string"}}), ["a"] * 20_000
    taken = []
    for _ in range(5):
        started = time.process_time()
        steps = compiled.check(words)[1]
        taken.append((time.process_time() - started) / steps)
    return min(taken)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_schemas_end_soon(name: str) -> None:
    """Within the budget, of which no step is dear, the same each time and for equal data that is not the same."""
    schema, value, told = HOSTILE[name]
    compiled = compile_schema(schema)
    taken = []
    found = set()
    for copy in (value, value, json.loads(json.dumps(value))):
        started = time.process_time()
        found.add(compiled.check(copy))
        taken.append(time.process_time() - started)
    ((violated, steps),) = found
    assert violated is None if told is None else told in str(violated)
    assert steps <= SCHEMA_STEPS_MAX
    assert min(taken) < 0.001 + 25 * steps * step_s()


def test_a_shared_part_costs_what_two_equal_ones_do() -> None:
    part = nested(30, 5)
    schema: dict[str, Any] = {**nodes("anyOf"), "$ref": "#/$defs/all"}
    schema["$defs"]["all"] = {"items": {"$ref": "#/$defs/node"}}
    assert compile_schema(schema).check([part, part]) == compile_schema(schema).check([nested(30, 5), nested(30, 5)])


def test_a_restore_changes_no_verdict() -> None:
    """The same violation before and after, in the same words."""
    document = {"items": {"pattern": "^(a+)+$"}, "uniqueItems": True}
    tasks = [{"w": {"wait": {"seconds": 1}}}, {"n": {"set": "${ . }", "output": {"schema": {"document": document}}}}]
    for value in (["a" * 40 + "b"] * 3, ["aa", "aa"], ["aa"]):
        plan = plan_of(tasks)
        runs = [Run(plan, value, restoring=restoring).finish() for restoring in (False, True)]
        told = [run.error["detail"] if run.status == "failed" else None for run in runs]
        assert told[0] == told[1]
        assert (told[0] is None) is (value == ["aa"])
