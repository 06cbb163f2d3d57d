"""Invariant: any text is a plan, or the same problems in steps of one and at once, and no call takes long.

python -m tests.fuzz.fuzz_document [--seconds N] [--seed S] [options of libFuzzer]
"""

import json
from functools import cache
from pathlib import Path
from random import Random

from fastrunner._core import InvalidWorkflow, Problem, ResourcesMissing, load, validate, validate_in_steps
from fastrunner._core import compile as compile_workflow
from fastrunner.base import limits
from tests.conformance.full_documents import FULL_DOCUMENTS
from tests.conformance.mutations import Mutator
from tests.core.documents import CONFORMANCE
from tests.fuzz.running import measured
from tests.fuzz.source import ByteSource, program

OURS = Path(__file__).parents[2] / "examples"
TOKENS = (
    *(
        ": ",
        "- ",
        "? ",
        "&a ",
        "*a",
        "<<: *a\n",
        "!!str ",
        "!!float ",
        "! ",
        "|\n",
        ">-\n",
        "|9+\n",
        "# ",
        "\n",
        "\n\n",
    ),
    *("\t", " ", "  ", "{", "}", "[", "]", ",", '"', "'", "\\", "\\u00e9", "\\ud800", "%YAML 1.2\n", "---\n", "...\n"),
    *("\x00", "\x85", "\u2028", "\ufeff", "\ud800", "\U0001f600", "\r\n", "\r", "~", "null", "0x1F", "0o17", ".inf"),
    *("1e999", "1" * 400, "-0", "2001-01-01", "${", "}", "${ . }", "${ $x }", "$", "PT1S", "a" * 1_025, "/", "~1"),
)
SIZE_MAX = 200_000


@cache
def corpus() -> list[str]:
    """Valid documents, and those of the conformance folder where it is."""
    paths = [*sorted(OURS.glob("*.yaml")), *sorted(CONFORMANCE.glob("*/*.yaml"))]
    return [*(path.read_text() for path in paths), *FULL_DOCUMENTS]


@cache
def mutator() -> Mutator:
    loaded = []
    for text in corpus():
        try:
            loaded.append(load(text))
        except InvalidWorkflow:
            continue
    return Mutator(loaded, Random(0))


# --- making documents ---


def document(choices: Random) -> str | bytes:
    """A damaged document as text, or now and then as bytes that are no text."""
    text = mutated_data(choices) if choices.randrange(3) == 0 else choices.choice(corpus())
    for _ in range(choices.choice((0, 1, 1, 2, 4, 8))):
        text = damaged(text, choices)[:SIZE_MAX]
    if choices.randrange(10):
        return text
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    if data:
        data[choices.randrange(len(data))] = choices.randrange(256)
    return bytes(data)


def mutated_data(choices: Random) -> str:
    """JSON of a document with accidents in its data."""
    known = mutator()
    known.random = choices
    return json.dumps(known.document(), indent=choices.choice((None, None, 2)))


def damaged(text: str, choices: Random) -> str:
    """One accident of the text."""
    at = choices.randrange(len(text) + 1)
    end = min(len(text), at + choices.choice((1, 1, 5, 20, 200)))
    kind = choices.randrange(8)
    if kind == 0:
        return text[:at] + text[end:]
    if kind == 1:
        return text[:at] + choices.choice(TOKENS) + text[at:]
    if kind == 2:
        return text[:at] + choices.choice(TOKENS) + text[end:]
    if kind == 3:
        return text[:at] + text[at:end] * choices.choice((2, 3, 50, 2_000)) + text[end:]
    if kind == 4:
        other = choices.choice(corpus())
        start = choices.randrange(len(other))
        return text[:at] + other[start : start + choices.choice((10, 100, 1_000))] + text[at:]
    if kind == 5:
        expression = program(ByteSource(choices.randbytes(60)))
        return text[:at] + f"'${{ {expression} }}'" + text[end:]
    if kind == 6:
        return text[:at] + choices.choice(TOKENS) * choices.choice((10, 130, 3_000)) + text[at:]
    return rearranged(text, choices)


def rearranged(text: str, choices: Random) -> str:
    """A line elsewhere, deeper, twice, or many times."""
    lines = text.split("\n")
    one, two = choices.randrange(len(lines)), choices.randrange(len(lines))
    kind = choices.randrange(4)
    if kind == 0:
        lines[one], lines[two] = lines[two], lines[one]
    elif kind == 1:
        lines[one] = " " * choices.choice((1, 2, 4)) + lines[one]
    elif kind == 2:
        lines.insert(two, lines[one])
    else:
        lines[one:one] = [lines[one]] * choices.choice((10, 100, 2_000))
    return "\n".join(lines)


# --- what becomes of them ---


def in_steps(text: str | bytes) -> tuple[Problem, ...]:
    """All problems, found in steps of one."""
    steps = validate_in_steps(text, 1)
    while True:
        try:
            with measured("a step", len(text)):
                next(steps)
        except StopIteration as end:
            problems: tuple[Problem, ...] = end.value
            return problems


def compiling(text: str | bytes) -> tuple[Problem, ...]:
    """The problems that keep a document from being a plan."""
    try:
        with measured("compile", len(text)):
            plan = compile_workflow(text)
    except InvalidWorkflow as invalid:
        return invalid.problems
    except ResourcesMissing:
        # It has no problems of its own.
        return ()
    assert plan.name
    return ()


def check(data: bytes) -> None:
    """One input of the fuzzer: the choices that damage a document."""
    text = document(Random(data))
    with measured("validate", len(text)):
        problems = validate(text)
    assert in_steps(text) == problems, "found other problems in steps"
    assert len(problems) <= limits.PROBLEMS_MAX
    assert all(problem.line > 0 and problem.column > 0 and problem.message for problem in problems)
    assert compiling(text) == problems, "compiling found other problems"


if __name__ == "__main__":
    from tests.fuzz.running import run

    run(check)
