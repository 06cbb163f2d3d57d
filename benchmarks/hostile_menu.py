"""What strangers could send to stop a worker: documents, data, schemas and expressions, each by its name.

Rules: an attack is made when its turn comes, since each is large, and keeps within the bounds of a request. How it
should end is no matter here: what is measured is what others notice of it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.core import hostile
from tests.integration.test_hostile_expressions import EXPRESSIONS, document

__all__ = ["ATTACKS", "Attack", "workflow"]

FACTS = {"dsl": "1.0.0", "namespace": "bench", "name": "hostile", "version": "1.0.0"}
MIB = 1_048_576


@dataclass(frozen=True)
class Attack:
    """A document, and an input for it."""

    group: str
    name: str
    document: Callable[[], str]
    input: Callable[[], Any] = dict


# --- documents ---


def workflow(*tasks: Any, **root: Any) -> str:
    """A document of tasks, as JSON."""
    named = [{f"t{number}": task} for number, task in enumerate(tasks)]
    return json.dumps({"document": FACTS, "do": named, **root})


def sets(texts: list[str]) -> str:
    """One task per expression."""
    return workflow(*({"set": {"a": f"${{ {text} }}"}} for text in texts))


def one_set(texts: list[str]) -> str:
    """One task with all expressions."""
    return workflow({"set": {f"k{number}": f"${{ {text} }}" for number, text in enumerate(texts)}})


def yaml_lines(line: str) -> str:
    """A document of as many such lines as it may have."""
    facts = "".join(f"  {name}: {text}\n" for name, text in FACTS.items())
    head = f"do:\n- first: {{set: {{a: 1}}}}\ndocument:\n{facts}  metadata:\n    rows:\n"
    return head + line * ((MIB - len(head)) // len(line.encode()))


def aliases() -> str:
    rows = ["a0: &a0 ['${ .x }', '${ $nothing }', '${ . [ }', b, c]"]
    rows += [f"a{depth}: &a{depth} [{', '.join([f'*a{depth - 1}'] * 8)}]" for depth in range(1, 6)]
    return f"document: {json.dumps(FACTS)}\ndo:\n- t:\n    set:\n" + "".join(f"      {row}\n" for row in rows)


PATTERNS_IN_PATTERNS = ". as [$a] ?// $a | " * 14
HEAVY = [{"pattern": f"\\p{{L}}{{1,60}}{number}[a-z]{{1,90}}"} for number in range(200)]
DOCUMENTS = {
    "8,000 unknown functions": lambda: one_set([f"nothing{number}" for number in range(8_000)]),
    "8,000 tasks with an unknown function": lambda: sets([f"lenght{number}" for number in range(8_000)]),
    "deep ?// in 60 tasks": lambda: sets([PATTERNS_IN_PATTERNS + str(number) for number in range(60)]),
    "200 schemas of heavy patterns": lambda: workflow(
        *({"set": {"a": 1}, "output": {"schema": {"document": schema}}} for schema in HEAVY)
    ),
    "4,000 heavy patterns": lambda: sets([f'"x" | test("{n}\\\\p{{L}}{{1,60}}[a-z]{{1,90}}")' for n in range(4_000)]),
    "1 MiB of YAML, flow": lambda: yaml_lines("    - {a: 1.5e3, b: [x, 'it''s'], c: null, and a longer key: ~}\n"),
    "1 MiB of YAML, texts": lambda: yaml_lines('    - "' + "\\u00e9" * 60 + '"\n'),
    "1 MiB of YAML, duplicate keys": lambda: yaml_lines("     a: 123\n"),
    "aliases of aliases": aliases,
    "10,000 tasks": lambda: sets([f"[{number}, 1] | length" for number in range(10_000)]),
}


# --- data ---


def rows(size: int) -> dict[str, Any]:
    return {"rows": ["x" * 1_000] * (size // 1_000)}


def loop(count: int, *tasks: Any) -> dict[str, Any]:
    named = [{f"t{number}": task} for number, task in enumerate(tasks)]
    return {"for": {"in": f"[range({count})]"}, "do": named}


def deadlines() -> str:
    waits = [{f"w{number}": {"wait": "PT1S"}} for number in range(1_000)]
    return workflow({"fork": {"branches": [{f"f{number}": {"fork": {"branches": waits}}} for number in range(4)]}})


def deep(depth: int, task: Any) -> Any:
    return task if depth == 0 else {"do": [{"d": deep(depth - 1, task)}]}


FROM_INPUT = {"input": {"from": "$workflow.input"}}
LARGE = {"type": "object", "properties": {"rows": {"type": "array", "items": {"type": "string", "maxLength": 2_000}}}}
DETAIL = {"type": "urn:x", "status": 400, "detail": '${ "e" * 8000000 }'}
BRANCH = {"do": [{"s": {"set": {"order": "${ . }"}}}, {"w": {"wait": {"milliseconds": 300}}}]}
DATA = {
    "3 MB state, merged 1,000 times": (
        lambda: workflow(loop(1_000, {**FROM_INPUT, "set": "${ . + {i: 1} }"})),
        lambda: rows(3_000_000),
    ),
    "3 MB state under a schema 300 times": (
        lambda: workflow(loop(300, {**FROM_INPUT, "set": "${ . }", "output": {"schema": {"document": LARGE}}})),
        lambda: rows(3_000_000),
    ),
    "fork of 100 over 240 KB": (
        lambda: workflow({"fork": {"branches": [{f"b{number}": BRANCH} for number in range(100)]}}),
        lambda: rows(240_000),
    ),
    "an error of 8 MB, four deep": (lambda: workflow(deep(4, {"raise": {"error": DETAIL}})), dict),
    "4,000 equal deadlines": (deadlines, dict),
    "100,000 x 100,000 times nothing": (
        lambda: workflow(loop(100_000, {"for": {"in": "[range(100000)]"}, "do": []})),
        dict,
    ),
}


# --- schemas ---


def checked(schema: Any) -> Callable[[], str]:
    """A workflow that checks its input."""
    return lambda: workflow({"set": {"a": 1}}, input={"schema": {"document": schema}})


def tree(keyword: str) -> dict[str, Any]:
    node = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/node"}}}}
    return {"$ref": "#/$defs/node", "$defs": {"node": {keyword: [node, node, node]}}}


def nested(depth: int, leaf: Any) -> Any:
    for _ in range(depth):
        leaf = {"children": [leaf]}
    return leaf


def chain(keyword: str, length: int) -> dict[str, Any]:
    """Each schema applies the next one twice."""
    links: dict[str, Any] = {f"a{n}": {keyword: [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(length)}
    return {"$ref": "#/$defs/a0", "$defs": {**links, f"a{length}": {"type": "string"}}}


def choices() -> dict[str, Any]:
    return {"properties": {"all": {"items": {"enum": [{"a": number, "b": "x"} for number in range(3_000)]}}}}


def of_all(schema: Any) -> dict[str, Any]:
    return {"properties": {"all": {"items": schema}}}


LATE = "a" * 40 + "b"
SCHEMAS = {
    "oneOf tree with one bad leaf": (checked(tree("oneOf")), lambda: nested(12, 5)),
    "anyOf tree with one bad leaf": (checked(tree("anyOf")), lambda: nested(50, 5)),
    "anyOf chain": (checked(chain("anyOf", 60)), dict),
    "oneOf chain": (checked(chain("oneOf", 60)), dict),
    "enum of 3,000 objects": (checked(choices()), lambda: {"all": [{"a": n, "b": "x"} for n in range(3_000)] * 7}),
    "20,000 unique objects": (
        checked({"properties": {"all": {"uniqueItems": True}}}),
        lambda: {"all": [{"a": number} for number in range(20_000)]},
    ),
    "a pattern that goes back": (checked(of_all({"pattern": "^(a+)+$"})), lambda: {"all": [LATE] * 500}),
    "a pattern in two ways": (checked(of_all({"pattern": "^((?=a)a|aa)+$"})), lambda: {"all": [LATE] * 500}),
    "a pattern in a long text": (checked(of_all({"pattern": ".*.*.*=.*"})), lambda: {"all": ["x" * 20_000]}),
}


# --- expressions ---

MANY = "[range(100000)]"
QUADRATIC = (
    "reduce range(100000) as $i ([]; . + [$i])",
    "reduce range(100000) as $i ([]; [$i] + .)",
    "reduce range(100000) as $i ([]; .[$i] = $i)",
    'reduce range(100000) as $i ({}; .["k\\($i)"] = $i)',
    'reduce range(100000) as $i ({}; . + {"k\\($i)": $i})',
    'reduce range(100000) as $i (""; . + "x")',
    f"{MANY} | until(length < 2; .[1:])",
    f"{MANY} - {MANY}",
    f"{MANY} as $a | $a | map(. as $x | $a | index($x))",
    f"{MANY} | del(.[range(0; 100000; 2)])",
    f"{MANY} | . as $a | [limit(100000; $a | indices([5, 6]))]",
    f"{MANY} | contains({MANY})",
    f"{MANY} | map([., 1]) | unique_by(.[1]) | length",
    f"{MANY} | to_entries | map(.value |= . + 1) | length",
    f"{MANY} | [paths] | length",
    f"{MANY} | map(tostring) | add | length",
    f"{MANY} | reduce range(100000) as $i (.; .[$i] += 1) | length",
    f'{MANY} | map({{key: "k\\(.)", value: .}}) | from_entries | with_entries(.value += 1) | length',
    f'{MANY} | map("k\\(.)") | join(",") | gsub("k"; "") | length',
    f"[{MANY} | combinations(2)]",
)


def evaluated(text: str) -> Callable[[], str]:
    """A workflow that evaluates: as a condition what may not be kept."""
    return lambda: document(text, "condition" if "error(" in text else "value")


def _attacks() -> list[Attack]:
    found = [Attack("document", name, made) for name, made in DOCUMENTS.items()]
    for group, made_with_data in (("data", DATA), ("schema", SCHEMAS)):
        found += [Attack(group, name, made, data) for name, (made, data) in made_with_data.items()]
    texts = (*QUADRATIC, *EXPRESSIONS)
    return [*found, *(Attack("expression", text.replace(hostile.LONG, "LONG"), evaluated(text)) for text in texts)]


ATTACKS = _attacks()
