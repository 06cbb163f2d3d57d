"""jq's own test suite, jq.test, whole outputs compared; exceptions are in jq_exclusions.txt, each with its reason."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fastrunner._jq import ExpressionError, ExpressionProblem, compile_expression

SUITE = Path(__file__).parents[3] / "shared" / "jq" / "jq.test"
EXCLUSIONS = Path(__file__).parent / "jq_exclusions.txt"

# How reasons begin for cases that cannot run at all.
UNAVAILABLE = ("modules are", "an expression cannot read", "an expression cannot write")
# What libjq passes itself where whole outputs are compared.
SHARE_MIN = 0.985

parse = compile_expression("fromjson")
same = compile_expression("$a == $b")


@dataclass(frozen=True)
class Case:
    """One group of lines; `outputs` is None where the program must not compile."""

    line: int
    program: str
    input: str
    outputs: tuple[str, ...] | None


def read_suite() -> list[Case]:
    lines = SUITE.read_text(encoding="utf-8").split("\n") if SUITE.is_file() else []
    cases = []
    at = 0
    while at < len(lines):
        if not lines[at].strip() or lines[at].startswith("#"):
            at += 1
            continue
        refused = lines[at].startswith("%%FAIL")
        start = at + refused
        end = start
        while end < len(lines) and lines[end].strip():
            end += 1
        group = [line for line in lines[start + 2 : end] if not line.startswith("#")]
        outputs = None if refused else tuple(group)
        cases.append(Case(start + 1, lines[start], "" if refused else lines[start + 1], outputs))
        at = end
    return cases


def read_exclusions() -> dict[int, str]:
    lines = EXCLUSIONS.read_text(encoding="utf-8").splitlines()
    pairs = (line.split(": ", 1) for line in lines if not line.startswith("#"))
    return {int(number): reason for number, reason in pairs}


CASES = read_suite()
EXCLUDED = read_exclusions()


def value_of(text: str) -> Any:
    return parse.first(text.lstrip("\ufeff"))


def passes(case: Case) -> bool:
    try:
        compile_expression(case.program)
    except ExpressionProblem:
        return case.outputs is None
    if case.outputs is None:
        return False
    # The program reads its input itself, because nan among it would leave another evaluation as null.
    text = case.input.lstrip("\ufeff")
    try:
        results = compile_expression(f"fromjson | {case.program}").outputs(text)
    except ExpressionError:
        # Some cases end in an error; the results before it are those of as many as the suite expects.
        limited = compile_expression(f"fromjson | [limit({len(case.outputs)}; {case.program})]")
        try:
            results = limited.first(text)
        except ExpressionError:
            return False
    expected = [value_of(output) for output in case.outputs]
    return len(results) == len(expected) and all(
        same.first(None, [result, value]) is True or repr(result) == repr(value)
        for result, value in zip(results, expected, strict=True)
    )


@pytest.mark.skipif(not CASES, reason="the shared jq.test is absent")
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"line{case.line}")
def test_case(case: Case) -> None:
    """A case passes, or is excluded with a reason and fails."""
    assert passes(case) is (case.line not in EXCLUDED), EXCLUDED.get(case.line, case.program)


@pytest.mark.skipif(not CASES, reason="the shared jq.test is absent")
def test_exclusions_name_cases() -> None:
    """Every exclusion is a case of the suite."""
    assert set(EXCLUDED) <= {case.line for case in CASES}


@pytest.mark.skipif(not CASES, reason="the shared jq.test is absent")
def test_share_that_passes(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the cases that need neither modules nor the host, more pass than with libjq; the share goes to the output."""
    runnable = [case for case in CASES if not EXCLUDED.get(case.line, "").startswith(UNAVAILABLE)]
    passed = sum(passes(case) for case in runnable)
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        share = f"{passed} of {len(runnable)} runnable cases pass ({passed / len(runnable):.2%})"
        with capsys.disabled():
            reporter.write_line(f"\njq.test: {share}, {len(CASES) - len(runnable)} need modules or the host")
    assert passed / len(runnable) >= SHARE_MIN
