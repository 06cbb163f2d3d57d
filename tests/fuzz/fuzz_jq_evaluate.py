"""Invariant: any program on any data gives values or an ExpressionError, soon, twice the same, and keeps its input.

python -m tests.fuzz.fuzz_jq_evaluate [--seconds N] [--seed S] [options of libFuzzer]
"""

from typing import Any

from fastrunner._jq import ExpressionError, ExpressionProblem, Program, compile_expression
from tests.fuzz.running import measured
from tests.fuzz.source import ByteSource, program, value

PARTS_COMPARED_MAX = 20_000


def parts_of(values: Any) -> list[str]:
    """A value as a list of its parts, cut: results may share parts so often that they could not be printed."""
    parts: list[str] = []
    pending = [values]
    while pending and len(parts) < PARTS_COMPARED_MAX:
        part = pending.pop()
        if isinstance(part, list):
            parts.append(f"[{len(part)}")
            pending.extend(reversed(part[:PARTS_COMPARED_MAX]))
        elif isinstance(part, dict):
            parts.append(f"{{{list(part)[:PARTS_COMPARED_MAX]!r}")
            pending.extend(reversed(list(part.values())[:PARTS_COMPARED_MAX]))
        else:
            assert part is None or isinstance(part, bool | int | float | str), type(part)
            parts.append(repr(part[:1000] if isinstance(part, str) else part))
    return parts


def outcome(compiled: Program, data: Any, arguments: tuple[Any, ...]) -> list[str]:
    """The results, or the error, as parts; raises whatever else the evaluation raises."""
    try:
        with measured("outputs", len(compiled.text)):
            values = compiled.outputs(data, arguments, 1_700_000_000_123)
    except ExpressionError as error:
        return ["error", str(error), *parts_of(error.value)]
    return parts_of(values)


def check(data: bytes) -> None:
    """One input of the fuzzer."""
    source = ByteSource(data)
    given, argument = value(source), value(source)
    try:
        compiled = compile_expression(program(source))
    except ExpressionProblem:
        return
    arguments = (argument,) * len(compiled.arguments)
    before = repr((given, argument))
    first = outcome(compiled, given, arguments)
    assert repr((given, argument)) == before, f"{compiled.text!r} changed its input"
    assert outcome(compiled, given, arguments) == first, f"{compiled.text!r} is not the same again"


if __name__ == "__main__":
    from tests.fuzz.running import run

    run(check)
