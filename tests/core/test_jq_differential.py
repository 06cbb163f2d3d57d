"""Expressions against libjq: random programs over random values give the same results and errors, in the same order.

Rules: libjq (PyPI `jq`) is the oracle and needed for development only. `--jq-seed` sets the seed, which the header of a
run shows; `--fuzz-factor` multiplies the number of programs. What may differ is listed in jq_differences.py.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from fastrunner._jq import ExpressionError, ExpressionProblem, compile_expression
from tests import properties
from tests.core.jq_differences import DIFFERENCES, Difference, Results, equal, excused
from tests.core.jq_grammar import Grammar, Node, leaf
from tests.core.jq_oracle import Oracle

pytest.importorskip("jq")

BATCHES = 12
PROGRAMS = 1_000
GROUP = 10
INPUTS = 3
MUTATED = 0.08
PAIRS_MIN = 20_000
SHRINK_TRIES = 300

to_json = compile_expression("tojson")
counted: Counter[str] = Counter()


class OutOfBudgetError(Exception):
    """The program is too large for this engine's budget; libjq is not asked."""


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with Oracle() as running:
        yield running


def results_of(program: str, inputs: list[str]) -> Results:
    """This engine's results, as `Oracle.ask` gives libjq's."""
    try:
        compiled = compile_expression(program)
    except ExpressionProblem:
        return None
    if compiled.arguments:
        return None
    found = []
    for text in inputs:
        try:
            found.append([to_json.first(value) for value in compiled.outputs(json.loads(text))])
        except ExpressionError as error:
            check_budget(error)
            found.append(results_before(program, text, error))
    return found


def check_budget(error: ExpressionError) -> None:
    """An error that `try` cannot catch is that of the budget."""
    if type(error) is not ExpressionError:
        raise OutOfBudgetError


def results_before(program: str, text: str, error: ExpressionError) -> list[str]:
    """The results before an error, and the error; a `try` delivers both."""
    wrapped = compile_expression(f"try (({program}) | [tojson]) catch [tojson, 1]")
    try:
        lines = wrapped.outputs(json.loads(text))
    except ExpressionError as exhausted:
        check_budget(exhausted)
        raise
    assert lines[-1] == [to_json.first(error.value), 1], "an error is the same within `try`"
    return [("!" if len(line) > 1 else "") + line[0] for line in lines]


def compare(oracle: Oracle, nodes: list[Node], programs: list[str], inputs: list[str]) -> Iterator[int]:
    """Positions of the programs that do not agree; counts pairs."""
    ours: dict[int, Results] = {}
    for index, program in enumerate(programs):
        try:
            ours[index] = results_of(program, inputs)
        except OutOfBudgetError:
            counted["over the budget"] += 1
    runs = [index for index, results in ours.items() if results is not None]
    refused = [index for index, results in ours.items() if results is None]
    for group in (runs, *([index] for index in refused)):
        answers = oracle.ask([programs[index] for index in group], inputs) if group else []
        if answers is None:
            counted["without an answer of libjq"] += len(group)
            continue
        for index, theirs in zip(group, answers, strict=True):
            counted["pairs"] += len(inputs)
            if not equal(ours[index], theirs):
                counted["known differences"] += 1
                if not excused(programs[index], ours[index], theirs):
                    yield index


def disagree(oracle: Oracle, program: str, inputs: list[str]) -> bool:
    try:
        ours = results_of(program, inputs)
    except OutOfBudgetError:
        return False
    theirs = oracle.ask([program], inputs)
    return theirs is not None and (ours is None) == (theirs[0] is None) and not excused(program, ours, theirs[0])


def smaller(node: Node) -> Iterator[Node]:
    """The node with one part of it replaced by something shorter."""
    yield from (leaf(text) for text in (".", "1", "null", "[]") if len(text) < len(node.text()))
    yield from node.below()
    for index, part in enumerate(node.parts):
        if not isinstance(part, str):
            for kid in smaller(part[0]):
                yield replace(node, parts=(*node.parts[:index], (kid, part[1]), *node.parts[index + 1 :]))


def shrunk(oracle: Oracle, node: Node, inputs: list[str]) -> str:
    """A shorter program that also differs, for the report."""
    tries = 0
    for text in inputs:
        if disagree(oracle, node.text(), [text]):
            inputs = [text]
            break
    while tries < SHRINK_TRIES:
        for candidate in smaller(node):
            tries += 1
            if len(candidate.text()) < len(node.text()) and disagree(oracle, candidate.text(), inputs):
                node = candidate
                break
            if tries >= SHRINK_TRIES:
                break
        else:
            break
    return report(oracle, node.text(), inputs)


def report(oracle: Oracle, program: str, inputs: list[str]) -> str:
    theirs = oracle.ask([program], inputs)
    answer = "none" if theirs is None else theirs[0]
    return f"{program}\n  over {inputs}\n  here  {results_of(program, inputs)}\n  libjq {answer}"


@pytest.mark.parametrize("batch", range(BATCHES))
def test_results_agree_with_libjq(oracle: Oracle, request: pytest.FixtureRequest, batch: int) -> None:
    """Results, their order, errors, their texts and the results before them are libjq's."""
    grammar = Grammar(request.config.getoption("--jq-seed") * BATCHES + batch)
    wrong = []
    for _ in range(PROGRAMS * properties.factor // GROUP):
        inputs = [grammar.input_text() for _ in range(INPUTS)]
        nodes = [grammar.program() for _ in range(GROUP)]
        texts = [node.text() for node in nodes]
        programs = [grammar.mutated(text) if grammar.random.random() < MUTATED else text for text in texts]
        for index in compare(oracle, nodes, programs, inputs):
            same = programs[index] == texts[index]
            wrong.append(shrunk(oracle, nodes[index], inputs) if same else report(oracle, programs[index], inputs))
        assert len(wrong) < 5, "\n".join(wrong)
    assert not wrong, "\n".join(wrong)


def test_enough_was_compared(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    """The batches above compared at least what is promised, with few excuses; the count goes to the run's output."""
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        counts = ", ".join(f"{count} {what}" for what, count in counted.items())
        with capsys.disabled():
            reporter.write_line(f"\njq differential, seed {request.config.getoption('--jq-seed')}: {counts}")
    if counted["pairs"] == 0:
        pytest.skip("the batches did not run")
    assert counted["pairs"] >= PAIRS_MIN
    assert counted["known differences"] + counted["without an answer of libjq"] < counted["pairs"] / 200


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.example)
def test_differences_are_still_there(oracle: Oracle, difference: Difference) -> None:
    """A difference that is gone leaves the list."""
    inputs = ["[1, 2]"]
    theirs = oracle.ask([difference.example], inputs)
    assert theirs is not None
    assert results_of(difference.example, inputs) != theirs[0]


@pytest.mark.parametrize(
    "program",
    [
        "toarray",
        "[.[]? | ascii]",
        "@base32",
        '"MFRGG===" | @base32d',
        '0 | dateadd("seconds"; 1)',
        '1 | datesub("seconds"; 1)',
        "0 | date",
    ],
)
def test_what_the_manual_has_and_libjq_lacks(oracle: Oracle, program: str) -> None:
    """The grammar leaves these out, because libjq as PyPI has it does not know them."""
    theirs = oracle.ask([program], ["[65]"])
    assert theirs is not None
    ours = results_of(program, ["[65]"])
    assert ours is not None
    assert not ours[0][-1].startswith("!")
    assert theirs[0] is None or theirs[0][0][-1].startswith("!")
