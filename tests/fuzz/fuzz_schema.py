"""Invariant: any schema is refused as invalid or gives the same verdict on equal data, in as many steps, in short time.

python -m tests.fuzz.fuzz_schema [--seconds N] [--seed S] [options of libFuzzer]
"""

import json
from random import Random
from typing import Any

from fastrunner._core import InvalidSchema, Schema, compile_schema
from fastrunner.base import limits
from tests.fuzz.running import measured
from tests.fuzz.source import ByteSource, value

DRAFTS = (
    "http://json-schema.org/draft-04/schema#",
    "http://json-schema.org/draft-06/schema#",
    "http://json-schema.org/draft-07/schema#",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
    "urn:none",
)
NAMES = ("a", "b", "c", "key", "x y", "", "~", "a/b", "children")
REFERENCES = ("#", "#/$defs/x", "#/$defs/y", "#/$defs/none", "#anchor", "#/properties/a", "x.json", "urn:x", "#/%", "")
PATTERNS = (
    *("a", "^a*$", "(a|b)+", "^(a+)+$", "(x+x+)+y", ".*.*.*=.*", r"\p{L}+", r"^\S+\d{2,30}$", "[", "(?=a)a|aa", ""),
    *(r"(a)\1", "(?<=a)b", "^((?=a)a|aa)+$", "a{1,600}", "(?:a?){30}a{30}", "é", "(?i)A", r"\cA", r"[^\W_]", "(?<n>a)"),
)
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object", "nothing")
FORMATS = (
    *("date", "date-time", "time", "duration", "email", "idn-email", "hostname", "idn-hostname", "ipv4", "ipv6"),
    *("uri", "uri-reference", "iri", "uri-template", "json-pointer", "relative-json-pointer", "regex", "uuid", "none"),
)
TEXTS = (
    *("", "a", "aXbX", "aaaaaaaaaaaaaaaaaaaaaaaaaaaab", "xxxxxxxx", "2024-02-30", "23:59:60Z", "1.2.3.4", "::1"),
    *("a@b.c", "xn--a.de", "P1D", "http://a/{b}", "/a/~0", "é\U0001f600", "\x00", "1/a#", "12345678-1234-1234-1234-1"),
)
NUMBERS = (0, 1, -1, 2, 3, 100, 0.1, 1.5, 1e300, 1e-300, 2**53, 2**64, -(2**63), 1e308)
WITH_SCHEMA = (
    *("not", "if", "then", "else", "contains", "propertyNames", "additionalProperties", "additionalItems", "items"),
    *("unevaluatedProperties", "unevaluatedItems", "contentSchema"),
)
WITH_SCHEMAS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
WITH_NAMED = ("properties", "patternProperties", "dependentSchemas", "dependencies", "$defs", "definitions")
WITH_NUMBER = (
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "minItems"),
    *("maxItems", "minProperties", "maxProperties", "minContains", "maxContains"),
)
DEPTH_MAX = 5
GROWTH = (*[1] * 12, 30, 30, 1_000)
GROWTHS_MAX = 1
"""Of one schema, or of one value: growth within growth multiplies."""


class Maker:
    """Makes schemas and data."""

    def __init__(self, choices: Random) -> None:
        self.choices = choices
        self.growths = 0

    def growth(self) -> int:
        times = self.choices.choice(GROWTH) if self.growths < GROWTHS_MAX else 1
        self.growths += times > 1
        return times

    def root(self) -> Any:
        self.growths = 0
        made = self.schema(0)
        if isinstance(made, dict):
            made["$defs"] = {"x": self.schema(2), "y": self.schema(2)}
            if self.choices.randrange(3) == 0:
                made["$schema"] = self.choices.choice(DRAFTS)
        return made

    def schema(self, depth: int) -> Any:
        if depth > DEPTH_MAX or self.choices.randrange(8) == 0:
            return self.choices.choice((True, False, {}, {"type": self.choices.choice(TYPES)}))
        members: dict[str, Any] = {}
        for _ in range(self.choices.choice((1, 1, 2, 3, 5))):
            members |= self.member(depth)
        return members

    def member(self, depth: int) -> dict[str, Any]:
        choices = self.choices
        if choices.randrange(150) == 0:
            return {choices.choice((*WITH_SCHEMA, *WITH_SCHEMAS, *WITH_NAMED, *WITH_NUMBER, "type")): self.data()}
        kind = choices.randrange(7)
        if kind == 0:
            return {choices.choice(WITH_SCHEMA): self.schema(depth + 1)}
        if kind == 1:
            made = [self.schema(depth + 1) for _ in range(choices.choice((1, 2, 3)))]
            return {choices.choice(WITH_SCHEMAS): made * self.growth()}
        if kind == 2:
            name = choices.choice(WITH_NAMED)
            names = PATTERNS if name == "patternProperties" else NAMES
            return {name: {choices.choice(names): self.schema(depth + 1) for _ in range(choices.choice((1, 2, 3)))}}
        if kind == 3:
            number = choices.choice(NUMBERS) if choices.randrange(20) == 0 else choices.choice((0, 1, 2, 3, 5))
            return {choices.choice(WITH_NUMBER): number}
        if kind == 4:
            name = choices.choice(("$ref", "$ref", "$ref", "$dynamicRef", "$recursiveRef"))
            return {name: "#" if name == "$recursiveRef" else choices.choice(REFERENCES)}
        return self.leaf()

    def leaf(self) -> dict[str, Any]:
        choices = self.choices
        return choices.choice(
            (
                {"type": choices.choice(TYPES)},
                {"type": [choices.choice(TYPES[:4]), choices.choice(TYPES[4:])]},
                {"const": self.data()},
                {"enum": [self.data() for _ in range(3)] * self.growth()},
                {"pattern": choices.choice(PATTERNS)},
                {"format": choices.choice(FORMATS)},
                {"uniqueItems": choices.choice((True, True, False))},
                {"required": [choices.choice(NAMES)]},
                {"dependentRequired": {choices.choice(NAMES): [choices.choice(NAMES)]}},
                {choices.choice(("$anchor", "$dynamicAnchor")): choices.choice(("anchor", "other"))},
                {"$id": choices.choice(("x.json", "urn:x", "http://h/x", "#anchor"))},
                {"contentMediaType": "application/json", "contentEncoding": "base64"},
            )
        )

    def data(self) -> Any:
        """A value, now and then long or deep."""
        choices = self.choices
        kind = choices.randrange(8)
        if kind == 0:
            return choices.choice(TEXTS) * self.growth()
        if kind == 1:
            return choices.choice(NUMBERS)
        if kind == 2:
            return [value(ByteSource(choices.randbytes(20)))] * self.growth()
        if kind == 3:
            return {choices.choice(NAMES): self.data() for _ in range(2)}
        if kind == 4:
            return [{"a": number} for number in range(self.growth())]
        if kind == 5:
            return nested(choices.choice((1, 5, 100)), value(ByteSource(choices.randbytes(10))))
        return value(ByteSource(choices.randbytes(100)))


def nested(depth: int, leaf: Any) -> Any:
    for _ in range(depth):
        leaf = {"a": [leaf], "children": leaf} if depth < 8 else [leaf]
    return leaf


def plain(made: Any) -> Any:
    """As JSON has it, without infinities."""
    return json.loads(json.dumps(made), parse_constant=lambda _: None)


# --- what becomes of them ---


def compiled(document: Any, size: int) -> Schema | tuple[str, str]:
    """A schema, or where it is wrong and why."""
    try:
        with measured("compile_schema", size):
            return compile_schema(document)
    except InvalidSchema as invalid:
        return invalid.pointer, invalid.reason


def check(data: bytes) -> None:
    """One input of the fuzzer: the choices that make a schema and data for it."""
    maker = Maker(Random(data))
    document = plain(maker.root())
    text = json.dumps(document)
    schema, again = compiled(document, len(text)), compiled(json.loads(text), len(text))
    assert json.dumps(document) == text, "a schema was changed"
    if isinstance(schema, tuple) or isinstance(again, tuple):
        assert schema == again, "a copy of a schema is refused otherwise"
        return
    for _ in range(3):
        maker.growths = 0
        checked = plain(maker.data())
        size = len(text) + len(json.dumps(checked))
        with measured("check", size):
            first = schema.check(checked)
        with measured("check", size):
            second = again.check(json.loads(json.dumps(checked)))
        assert first == second, f"{first} and {second}"
        assert first[0] is None or 0 < len(first[0]) < 100 * limits.SCHEMA_MESSAGE_SIZE_MAX


if __name__ == "__main__":
    from tests.fuzz.running import run

    run(check)
