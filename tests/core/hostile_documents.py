"""Documents from strangers who mean the compiler harm: each within the bound of 1 MiB, each by its name.

Rules: a document is made when it is asked for, since each is large; what it gives, a plan or problems, is told by the
tests that use it.
"""

import json
from collections.abc import Callable
from typing import Any

from tests.core.documents import HEADER


def written(tasks: list[Any], **root: Any) -> str:
    """A document of named tasks, as JSON."""
    return json.dumps({"document": HEADER, "do": [{f"t{n}": task} for n, task in enumerate(tasks)], **root})


def sets(texts: list[str]) -> str:
    """A document with one expression per task."""
    return written([{"set": {"a": f"${{ {text} }}"}} for text in texts])


def one_object(texts: list[str]) -> str:
    """A document with all expressions in one task."""
    return written([{"set": {f"k{n}": f"${{ {text} }}" for n, text in enumerate(texts)}}])


def schemas(held: list[Any]) -> str:
    return written([{"set": {"a": 1}, "output": {"schema": {"document": schema}}} for schema in held])


def nested_patterns(depth: int, number: int) -> str:
    return ". as [$a] ?// $a | " * depth + str(number)


def functions(name: str, count: int) -> str:
    return "".join(f"def {name}{n}: .; " for n in range(count))


def nested_aliases() -> str:
    lines = ["a0: &a0 ['${ .x }', '${ $nothing }', '${ nothing }', '${ . [ }', b, c, d, e]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 5)]
    header = f"document: {json.dumps(HEADER)}\ndo:\n- t:\n    set:\n"
    return header + "".join(f"      {line}\n" for line in lines)


def big_aliases() -> str:
    text = json.dumps("${ " + "nothing + " * 5_000 + "1 }")
    return f"document: {json.dumps(HEADER)}\ndo:\n- t:\n    set:\n      a: &a {text}\n" + "".join(
        f"      b{n}: *a\n" for n in range(40_000)
    )


def duplicate_keys() -> str:
    return f"document: {json.dumps(HEADER)}\ndo: []\nmetadata:\n" + "  a: 1\n" * 130_000


def references(count: int) -> Any:
    return {
        "$defs": {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(count)} | {f"d{count}": {}},
        "anyOf": [{"$ref": f"#/$defs/d{n}"} for n in range(count)],
    }


def near_names(group: str, count: int) -> str:
    definition: Any = {"after": "PT1S"} if group == "timeouts" else {"type": "a", "status": 400}
    use = {group: {f"someDefinitionOfThatName{n:05}": definition for n in range(count)}}
    tasks: list[Any] = [
        {"wait": "PT1S", "timeout": f"someDefinitionOfThatNome{n:05}"}
        if group == "timeouts"
        else {"raise": {"error": f"someDefinitionOfThatNome{n:05}"}}
        for n in range(count)
    ]
    return written(tasks, use=use)


def reused(count: int) -> str:
    """Definitions checked again wherever they are used."""
    use = {"timeouts": {f"x{n}": {"after": "${ $v + 1 }"} for n in range(count)}}
    tasks: list[Any] = []
    for loop in range(count):
        body = [{f"w{n}": {"wait": "PT1S", "timeout": f"x{(loop * 7 + n) % count}"}} for n in range(20)]
        tasks.append({"for": {"in": ".", "each": f"v{loop}"}, "do": body})
    return written(tasks, use=use)


def nested_schema(depth: int) -> Any:
    schema: Any = {"unevaluatedProperties": False}
    for _ in range(depth):
        schema = {"allOf": [{"properties": {"a": schema}}], "unevaluatedProperties": False}
    return schema


DOCUMENTS: dict[str, Callable[[], str]] = {
    "unknown functions in one task": lambda: one_object([f"nothing{n}" for n in range(8_000)]),
    "unknown functions in tasks": lambda: sets([f"lenght{n}" for n in range(8_000)]),
    "unknown functions with long names": lambda: one_object([f"{'nothing' * 5}{n}" for n in range(8_000)]),
    "unknown functions among many": lambda: sets([functions(f"f{n}_", 400) + "g" for n in range(100)]),
    "unknown variables": lambda: one_object([f"$nothing{n}" for n in range(20_000)]),
    "unknown variables in one expression": lambda: sets(
        [" + ".join(f"$n{n}" for n in range(4_000 + m)) for m in range(16)]
    ),
    "alternatives of patterns": lambda: sets([nested_patterns(14, n) for n in range(60)]),
    "alternatives of patterns, shallow": lambda: sets([nested_patterns(9, n) for n in range(1_000)]),
    "chains of pipes": lambda: sets([f"{n}" + " | .a" * 280 for n in range(600)]),
    "chains of sums": lambda: sets([f"{n}" + " + .a" * 900 for n in range(200)]),
    "long expressions": lambda: sets([f"[{n}" + ", .a" * 16_000 + "]" for n in range(16)]),
    "long strings": lambda: sets([f'"{n}' + "é" * 10_000 + '"' for n in range(16)]),
    "many calls": lambda: sets([f"[{n}" + ", walk(.)" * 6_000 + "]" for n in range(16)]),
    "many updates": lambda: sets([f"[{n}" + ", (.a |= 1)" * 5_000 + "]" for n in range(16)]),
    "regular expressions": lambda: sets([f'test("{n}\\\\p{{L}}{{1,60}}[a-z]{{1,90}}")' for n in range(4_000)]),
    "long regular expressions": lambda: sets([f'test("{n}{"(a|b|[^c])" * 900}")' for n in range(100)]),
    "broken expressions in tasks": lambda: sets([f". + + {n}" for n in range(10_000)]),
    "broken long expressions": lambda: sets(["[" + "1," * 20_000 + f"{n}" for n in range(24)]),
    "broken many-lined expressions": lambda: sets(["\n" * 60_000 + f"[ {n}" for n in range(8)]),
    "valid expressions in tasks": lambda: sets([f".a.b[{n}].c | length" for n in range(10_000)]),
    "valid conditions": lambda: written([{"set": {"a": 1}, "if": f".a == {n}"} for n in range(10_000)]),
    "functions": lambda: sets([functions(f"f{n}_", 290) + f"f{n}_289" for n in range(200)]),
    "many definitions": lambda: sets(
        ["def f: " + "def g: . ; " * 200 + "g; " + " | ".join(["f"] * 200) + f" | {n}" for n in range(200)]
    ),
    "a template": lambda: written([{"set": {"a": ["x"] * 190_000}}]),
    "a template of expressions": lambda: written([{"set": {"a": [f"${{{n}}}" for n in range(80_000)]}}]),
    "a template of one expression": lambda: written([{"set": {"a": ["${ .a }"] * 90_000}}]),
    "a template of broken text": lambda: written([{"set": {"a": ["${"] * 150_000}}]),
    "a template of unbalanced text": lambda: written([{"set": {"a": ["${((((}"] * 90_000}}]),
    "long unbalanced text": lambda: written([{"set": {"a": ["${" + "(" * 400 + "." * 30_000 + "}"] * 30}}]),
    "aliases": nested_aliases,
    "aliases of a long expression": big_aliases,
    "near names of timeouts": lambda: near_names("timeouts", 8_000),
    "near names of errors": lambda: near_names("errors", 7_000),
    "definitions used everywhere": lambda: reused(300),
    "near names of tasks": lambda: written([{"set": {"a": 1}, "then": f"someTaskOfThatName{n}"} for n in range(9_000)]),
    "near keys": lambda: written([{"sett": {"a": 1}, f"metadatum{n}": 1} for n in range(9_000)]),
    "unknown keys": lambda: written([{"set": {"a": 1}, **{f"metadato{n}": 1 for n in range(45_000)}}]),
    "wrong types": lambda: written([{"set": 1} for n in range(10_000)]),
    "duplicate keys": duplicate_keys,
    "duplicate tasks": lambda: json.dumps({"document": HEADER, "do": [{"t": {"set": {"a": 1}}}] * 10_000}),
    "empty lists": lambda: written([{"do": [{}] * 1_000} for n in range(190)]),
    "schemas with patterns": lambda: schemas([{"pattern": f"\\p{{L}}{{1,60}}{n}"} for n in range(200)]),
    "schemas with many patterns": lambda: schemas(
        [{"patternProperties": {f"^[a-z]{{1,{m}}}{n}$": {} for m in range(1, 60)}} for n in range(60)]
    ),
    "schemas with references": lambda: schemas([references(600) for n in range(15)]),
    "a schema with references": lambda: schemas([references(8_000)]),
    "schemas with long lists": lambda: schemas([{"enum": [f"{n}-{m}" for m in range(6_000)]} for n in range(10)]),
    "schemas with lists of objects": lambda: schemas(
        [{"enum": [{"a": m, "b": [n]} for m in range(3_000)]} for n in range(10)]
    ),
    "many schemas": lambda: schemas(
        [{"type": "object", "properties": {f"a{n}": {"type": "string"}}} for n in range(5_000)]
    ),
    "many invalid schemas": lambda: schemas([{"type": f"strng{n}"} for n in range(8_000)]),
    "deep schemas": lambda: schemas([nested_schema(40) for n in range(200)]),
    "many members": lambda: schemas([{"properties": {f"a{n}": True for n in range(50_000)}}]),
    "long choices": lambda: schemas([{"anyOf": [{"type": "string", "maxLength": n} for n in range(20_000)]}]),
}
