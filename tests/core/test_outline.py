"""Where the tasks of a document stand: by the references that events have, from the first line to the last."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastrunner._core import InvalidWorkflow, TaskPlace, outline_in_steps, validate

ROOT = Path(__file__).parents[2]
HEAD = "document: {dsl: 1.0.3, namespace: a, name: b, version: 1.0.0}\n"
NESTED = (
    HEAD
    + """do:
- first:
    set: {a: 1}

# about the loop
- loop:
    for: {in: '${ [1] }'}
    do:
      - inner:
          set:
            text: |
              hello
              # no comment
      - a/b:
          fork:
            branches:
            - x: {wait: {seconds: 1}}
            - y:
                try:
                - z: {set: {a: 1}}
                catch:
                  do:
                  - w: {set: {a: 1}}
# the end of the loop
- l:
    listen: {to: {any: []}}
    foreach:
      do:
      - in: {set: {a: 2}}

output: {as: '${ . }'}
"""
)


def outlined(text: str, budget: int = 100_000) -> list[TaskPlace]:
    steps = outline_in_steps(text, budget)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: list[TaskPlace] = end.value
            return found


def test_every_kind_of_list() -> None:
    found = [(each.reference, each.kind, each.line, each.column, each.end_line) for each in outlined(NESTED)]
    assert found == [
        ("/do/0/first", "set", 3, 3, 4),
        ("/do/1/loop", "for", 7, 3, 24),
        ("/do/1/loop/do/0/inner", "set", 10, 9, 14),
        ("/do/1/loop/do/1/a~1b", "fork", 15, 9, 24),
        ("/do/1/loop/do/1/a~1b/fork/branches/0/x", "wait", 18, 15, 18),
        ("/do/1/loop/do/1/a~1b/fork/branches/1/y", "try", 19, 15, 24),
        ("/do/1/loop/do/1/a~1b/fork/branches/1/y/try/0/z", "set", 21, 19, 21),
        ("/do/1/loop/do/1/a~1b/fork/branches/1/y/catch/do/0/w", "set", 24, 21, 24),
        ("/do/2/l", "listen", 26, 3, 30),
        ("/do/2/l/foreach/do/0/in", "set", 30, 9, 30),
    ]
    assert [each.name for each in outlined(NESTED)][3] == "a/b"


def test_small_steps_find_the_same() -> None:
    assert [each.reference for each in outlined(NESTED, 1)] == [each.reference for each in outlined(NESTED)]


def test_json() -> None:
    document = {"do": [{"a": {"set": {"x": 1}}}, {"b": {"do": [{"c": {"set": {"x": [1, 2]}}}]}}]}
    found = [(each.reference, each.line, each.end_line) for each in outlined(json.dumps(document, indent=1))]
    assert found == [("/do/0/a", 4, 8), ("/do/1/b", 11, 24), ("/do/1/b/do/0/c", 14, 21)]
    assert [(each.line, each.end_line) for each in outlined(json.dumps(document))] == [(1, 1)] * 3


def test_what_an_anchor_repeats_is_where_it_is_repeated() -> None:
    text = HEAD + "do:\n- a: &a\n    set: {x: 1}\n- b: *a\n"
    assert [(each.reference, each.line, each.end_line) for each in outlined(text)] == [
        ("/do/0/a", 3, 4),
        ("/do/1/b", 5, 5),
    ]


def examples() -> Iterator[str]:
    for path in sorted((ROOT / "examples").rglob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        if "\ndo:" in text:
            yield text


def test_tasks_of_real_documents_stand_where_their_names_are() -> None:
    count = 0
    for text in examples():
        lines = text.splitlines()
        for each in outlined(text):
            count += 1
            rest = lines[each.line - 1][each.column - 1 :].lstrip("'\"")
            assert rest.startswith(each.name)
            assert each.line <= each.end_line <= len(lines)
            assert lines[each.end_line - 1].strip()
    assert count > 20


@pytest.mark.parametrize("text", ["a: [", "", "{"])
def test_what_does_not_parse(text: str) -> None:
    with pytest.raises(InvalidWorkflow):
        outlined(text)


def test_the_document_of_these_tests_is_one() -> None:
    assert validate(NESTED) == ()
