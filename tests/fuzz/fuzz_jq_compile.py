"""Invariant: any text gives a Program, the same one each time, or an ExpressionProblem within it, in bounded time.

python -m tests.fuzz.fuzz_jq_compile [--seconds N] [--seed S] [options of libFuzzer]
"""

from fastrunner._jq import ExpressionProblem, Program, compile_expression
from tests.fuzz.running import measured
from tests.fuzz.source import ByteSource, text

MESSAGE_SIZE_MAX = 1_000


def outcome(program: str) -> tuple[object, ...]:
    """What compiling gives; raises whatever else than a problem of the text it raises."""
    try:
        compiled = compile_expression(program)
    except ExpressionProblem as problem:
        refused = problem
    else:
        return accepted(compiled)
    assert 0 <= refused.offset <= len(program), (refused.offset, len(program))
    assert 0 < len(refused.message) <= MESSAGE_SIZE_MAX, len(refused.message)
    return ("problem", refused.message, refused.offset)


def accepted(compiled: Program) -> tuple[object, ...]:
    for name in compiled.arguments:
        at = compiled.argument_offset(name)
        assert 0 <= at < len(compiled.text), (name, at)
    return ("program", compiled.arguments)


def check(data: bytes) -> None:
    """One input of the fuzzer."""
    program = text(ByteSource(data))
    with measured("compile_expression", len(program)):
        first = outcome(program)
    assert outcome(program) == first, "compiled twice, with different outcomes"


if __name__ == "__main__":
    from tests.fuzz.running import run

    run(check)
