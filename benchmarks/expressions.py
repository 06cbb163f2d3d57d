"""Expressions as workflows use them, on this engine, on libjq through PyPI `jq`, and written by hand in Python.

    python -m benchmarks.expressions

prints one table: every cell comes from the same run, the three engines taking turns, the best of many rounds. libjq is
given each value the faster of its two ways (as a Python value, or as JSON text, whose serialization is then not
counted); its programs are compiled beforehand where evaluation is measured. Goals are ratios; the last column says
which are missed.

A second table is of updates and of what builds a container piece by piece, over 1,000, 10,000 and 100,000 elements:
how many times as long libjq takes, and how much longer ten times as much takes here; linear work takes ten times.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any

import jq
import orjson

from fastrunner._jq import compile_expression
from fastrunner.base.clock import monotonic_s

__all__ = ["CASES", "Case"]

_ROUNDS = 15
_ROUND_S = 0.01
_TRIES = 5
_COMPILE_RATIO_MIN = 50.0
_SMALL_RATIO_MIN = 10.0
_FLOOR_RATIO_MAX = 3.0
_WHOLE_RATIO_MIN = 1.0

_PERSON = {
    "first": "Ada",
    "last": "Lovelace",
    "age": 36,
    "city": "London",
    "zip": "W1",
    "orders": 3,
    "a": {"b": {"c": 1, "d": 2}, "e": 3},
}
_ITEMS = [{"id": n, "price": n * 7 % 25, "name": f"item {n}", "tags": ["x", "y"]} for n in range(1_000)]
_DOCUMENT = {"rows": [{"id": n, "at": {"x": [1, 2, {"name": f"point {n}"}], "y": n / 4}} for n in range(1_700)]}
_ADDRESS = re.compile(r"^[a-z]+@[a-z]+\.com$")


@dataclass(frozen=True)
class Case:
    """One expression, its input and the same by hand."""

    name: str
    """In the table's first column."""
    text: str
    """The jq expression."""
    value: Any
    """Its input."""
    by_hand: Callable[[Any], Any]
    """What a programmer would write instead."""
    whole: bool = False
    """Works through a whole document: another goal."""


def _template(v: Any) -> Any:
    return {
        "first": v["first"],
        "last": v["last"],
        "age": v["age"],
        "city": v["city"],
        "zip": v["zip"],
        "orders": v["orders"],
        "deep": v["a"]["b"]["c"],
        "kind": "person",
        "next": v["age"] + 1,
        "name": f"{v['first']} {v['last']}",
    }


def _update(v: Any) -> Any:
    return {**v, "a": {**v["a"], "b": {**v["a"]["b"], "c": v["a"]["b"]["c"] + 1}}}


def _group(v: Any) -> Any:
    return [len(list(group)) for _, group in groupby(sorted(v, key=itemgetter("price")), key=itemgetter("price"))]


def _reduce(v: Any) -> Any:
    total = 0
    for item in v:
        total += item["price"]
    return total


def _descend(v: Any) -> Any:
    count, left = 0, [v]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
        elif isinstance(value, int | float):
            count += 1
    return count


def _date(v: Any) -> Any:
    return datetime.fromtimestamp(v, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


CASES = (
    Case("a field", ".a.b.c", _PERSON, lambda v: v["a"]["b"]["c"]),
    Case("arithmetic", ".orders * 2 + .age - 1", _PERSON, lambda v: v["orders"] * 2 + v["age"] - 1),
    Case(
        "template of 10 fields",
        '{first, last, age, city, zip, orders, deep: .a.b.c, kind: "person", next: (.age + 1),'
        ' name: "\\(.first) \\(.last)"}',
        _PERSON,
        _template,
    ),
    Case(
        "select and map, 100 objects",
        "map(select(.price > 10) | .id)",
        _ITEMS[:100],
        lambda v: [item["id"] for item in v if item["price"] > 10],
    ),
    Case("group_by, 1,000 objects", "group_by(.price) | map(length)", _ITEMS, _group, whole=True),
    Case(
        "string building",
        '"\\(.first) \\(.last) is \\(.age)"',
        _PERSON,
        lambda v: f"{v['first']} {v['last']} is {v['age']}",
    ),
    Case(
        "test with a regular expression",
        'test("^[a-z]+@[a-z]+\\\\.com$")',
        "somebody@example.com",
        lambda v: _ADDRESS.search(v) is not None,
    ),
    Case("update of a path, 3 levels", ".a.b.c |= . + 1", _PERSON, _update),
    Case("reduce, 1,000 objects", "reduce .[] as $item (0; . + $item.price)", _ITEMS, _reduce, whole=True),
    Case("recursive descent, 100 KB", "[.. | numbers] | length", _DOCUMENT, _descend, whole=True),
    Case("date formatting", "todate", 1_700_000_000, _date),
    Case(
        "to_entries and from_entries",
        "to_entries | map(.value |= tostring) | from_entries",
        {"a": 1, "b": 2, "c": 3, "d": 4},
        lambda v: {key: str(value) for key, value in v.items()},
    ),
)


_SIZES = (1_000, 10_000, 100_000)
_UPDATES = (
    "map_values(. + 1) | length",
    ".[] += 1 | length",
    "reduce .[] as $x ([]; .[$x] = $x) | length",
    'reduce .[] as $x ({}; .["k\\($x)"] += $x) | length',
    "reduce .[] as $x ([]; . + [$x]) | length",
    "map({(tostring): 1}) | add | length",
    "INDEX(.) | length",
    "map({key: tostring, value: .}) | from_entries | length",
    "group_by(. % 1000) | length",
    "del(.[] | select(. % 2 == 0)) | length",
    "[limit(length; .[])] | length",
    ". as $d | [] | until(length >= ($d | length); . + [1]) | length",
)


def seconds(calls: list[Callable[[], object]]) -> list[float]:
    """Seconds per call of each, taking turns: the best of many rounds."""
    counts = [_count(call) for call in calls]
    best = [float("inf")] * len(calls)
    for _ in range(_ROUNDS):
        for index, (call, count) in enumerate(zip(calls, counts, strict=True)):
            best[index] = min(best[index], _timed(call, count) / count)
    return best


def _count(call: Callable[[], object]) -> int:
    """How many calls fill a round; the best of a few tries, so that an interruption does not look like a slow call."""
    count = 1
    while min(_timed(call, count) for _ in range(_TRIES)) < _ROUND_S:
        count *= 4
    return count


def _timed(call: Callable[[], object], count: int) -> float:
    begun_s = monotonic_s()
    for _ in range(count):
        call()
    return monotonic_s() - begun_s


def _row(case: Case) -> str:
    ours, theirs = compile_expression(case.text), jq.compile(case.text)
    text, value = orjson.dumps(case.value).decode(), case.value
    assert ours.first(value) == theirs.input_value(value).first() == case.by_hand(value), case.name
    compiled, compiled_jq = seconds([lambda: compile_expression(case.text), lambda: jq.compile(case.text)])
    run, run_value, run_text, hand = seconds(
        [
            lambda: ours.first(value),
            lambda: theirs.input_value(value).first(),
            lambda: theirs.input_text(text).first(),
            lambda: case.by_hand(value),
        ]
    )
    run_jq = min(run_value, run_text)
    missed = []
    if compiled_jq < _COMPILE_RATIO_MIN * compiled:
        missed.append("compile")
    if run_jq < (_WHOLE_RATIO_MIN if case.whole else _SMALL_RATIO_MIN) * run:
        missed.append("libjq")
    if not case.whole and run > _FLOOR_RATIO_MAX * hand:
        missed.append("floor")
    cells = [
        case.name,
        f"{compiled * 1e6:.1f}",
        f"{compiled_jq * 1e6:,.0f}",
        f"{compiled_jq / compiled:,.0f}",
        f"{run * 1e6:.2f}",
        f"{run_jq * 1e6:,.1f}",
        f"{run_jq / run:.1f}",
        f"{hand * 1e6:.2f}",
        f"{run / hand:.1f}",
        ", ".join(missed) or "none",
    ]
    return f"| {' | '.join(cells)} |"


def _updates_row(text: str) -> str:
    ours, theirs = compile_expression(text), jq.compile(text)
    ratios, taken = [], []
    for size in _SIZES:
        values = list(range(size))
        document = orjson.dumps(values).decode()
        assert ours.first(values) == theirs.input_text(document).first(), text
        run, run_jq = (
            min(_timed(call, 1) for _ in range(_TRIES))
            for call in (partial(ours.first, values), partial(_first_of_text, theirs, document))
        )
        ratios.append(f"{run_jq / run:.1f}")
        taken.append(run)
    growth = [f"{more / less:.0f}" for less, more in pairwise(taken)]
    name = text.removesuffix(" | length").replace("|", "\\|")
    return f"| `{name}` | {' | '.join(ratios + growth)} |"


def _first_of_text(program: Any, text: str) -> Any:
    return program.input_text(text).first()


def main() -> None:
    """Prints the tables."""
    print("| expression | compile, µs | libjq | times | evaluate, µs | libjq | times | by hand | of it | missed |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for case in CASES:
        print(_row(case), flush=True)
    print("\n| expression | libjq takes, 1,000 | 10,000 | 100,000 | 10,000 to 1,000 | 100,000 to 10,000 |")
    print("|---|---|---|---|---|---|")
    for text in _UPDATES:
        print(_updates_row(text), flush=True)


if __name__ == "__main__":
    main()
