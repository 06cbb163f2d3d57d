"""What an evaluation gives and costs depends on its values alone: not on threads, on what ran before, or on aliases.

Costs are seen at the budget's end: an expression that pads itself with a range of `n` succeeds up to exactly one `n`.
"""

import copy
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastrunner import _jq
from fastrunner._jq import BudgetExceeded, ExpressionError, Program, compile_expression

PAD_MAX = 1 << 21
# Text compiled from it costs a quarter of a whole budget.
LONG_PATTERN_SIZE = 9_000


def within_budget(program: Program, pad: int, value: Any = None) -> bool:
    """Whether an evaluation that takes a further `pad` rounds ends in time."""
    try:
        program.first(value, [pad])
    except BudgetExceeded:
        return False
    return True


def pad_of(program: Program, value: Any = None) -> int:
    """The most rounds within the budget: what the rest of the program costs, to a round."""
    low, high = 0, PAD_MAX
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if within_budget(program, middle, value) else (low, middle - 1)
    return low


def padded(text: str) -> Program:
    return compile_expression(f"(last(range($n)) // 0) as $_ | {text}")


# --- threads ---

COSTLY = (
    '[range(300) | tostring | @uri] | join("&") | length',
    '[range(200) | "item \\(.)" | test("^item (?<n>[0-9]+)$")] | all',
    "reduce range(150) as $i ([]; . + [$i | tojson | @base32d? // $i]) | sort | length",
    '[range(50) | strftime("%Y-%m-%dT%H:%M:%SZ") | ascii_downcase | @uri] | unique | length',
)


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Threads take turns as often as Python lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_threads_do_not_disturb_each_other(eager_threads: None) -> None:
    """Results and costs of four threads are those of each alone."""
    programs = [padded(text) for text in COSTLY]
    pads = [pad_of(program) for program in programs]
    alone = [program.first(None, [pad]) for program, pad in zip(programs, pads, strict=True)]
    together: list[list[Any]] = [[] for _ in programs]
    barrier = threading.Barrier(len(programs))

    def work(index: int) -> None:
        program, pad = programs[index], pads[index]
        barrier.wait()
        for _ in range(3):
            together[index].append((program.first(None, [pad]), within_budget(program, pad + 1)))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(programs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [[(result, False)] * 3 for result in alone]


def test_an_evaluation_within_another_has_a_budget_of_its_own() -> None:
    """A value whose class is no JSON's is named by Python, which may evaluate; the outer one goes on as it was."""
    inner = padded("1")
    outer = padded('test("b+")')
    expected = pad_of(outer, "abbc")

    class Nosy(type):
        def __getattribute__(cls, name: str) -> Any:
            if name == "__name__":
                seen.append(within_budget(inner, PAD_MAX))
            return super().__getattribute__(name)

    class Foreign(metaclass=Nosy):
        pass

    seen: list[bool] = []
    with pytest.raises(ExpressionError, match="is no JSON value"):
        compile_expression("[., length]").first(Foreign())
    assert seen
    assert not any(seen)
    assert pad_of(outer, "abbc") == expected


# --- what ran before ---


def test_a_kept_pattern_costs_what_a_new_one_does() -> None:
    """Whoever uses a pattern pays for it, whether another evaluation had it compiled or not."""
    pattern = "a" * LONG_PATTERN_SIZE
    text = f'last(range(760000)) as $x | "b" | test("{pattern}")'
    outcomes = []
    for _ in range(2):
        try:
            outcomes.append(compile_expression(text).first(None))
        except BudgetExceeded as error:
            outcomes.append(str(error))
        assert compile_expression(f'"b" | test("{pattern}")').first(None) is False
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    "pattern", ["unheard of", r"(?i)stra\\u00dfe [k-s]", r"\\p{Thai}+\\d", "(?<a>x)|(?<b>[[:alpha:]])"]
)
def test_costs_of_a_pattern_are_equal(pattern: str) -> None:
    """To a round, for patterns with tables of their own: those never seen before cost what one often used does."""

    def using(number: int) -> Program:
        return padded(f'"b" | [range(20) as $i | test("{pattern} {number}")]')

    pad = pad_of(using(100))
    assert within_budget(using(101), pad)
    assert not within_budget(using(102), pad + 1)


def test_a_pattern_is_paid_for_once_by_an_evaluation() -> None:
    """However often it is used, alone or in turn with others."""
    pattern = "a" * (LONG_PATTERN_SIZE // 2)
    other = "b" * (LONG_PATTERN_SIZE // 4)
    once = compile_expression(f'[range(1) | "c" | test("{pattern}"), test("{other}")] | length')
    often = compile_expression(f'[range(500) | "c" | test("{pattern}"), test("{other}")] | length')
    assert (once.first(None), often.first(None)) == (2, 1_000)


def test_patterns_beyond_what_is_kept_cost_the_same() -> None:
    """More patterns than are kept push each other out; who uses them sees nothing of it."""
    program = padded('[range(1100) | tostring | . as $p | "7" | test($p)] | length')
    assert pad_of(program) == pad_of(program)


def test_refusals_are_the_same_every_time() -> None:
    """A pattern that does not compile is refused alike, and costs alike, however often it is tried."""
    program = padded('try ("a" | test("(a")) catch .')
    assert program.first(None, [1]) == program.first(None, [1])
    assert pad_of(program) == pad_of(program)


# --- aliases ---

Shared = Callable[[Any], Any]


def alias(value: Any) -> Any:
    return value


@pytest.mark.parametrize(
    "program",
    [
        "try ((.a | $x) |= 5) catch .",
        "try path(.a | $x) catch .",
        "try path(.a | $x | .[0]) catch .",
        "try path(.a | $x | .[]) catch .",
        "try [path(.a | $x | ..)] catch .",
        "try path(.a | [$x] | .[0]) catch .",
        "try path(.a | [$x] | add) catch .",
        "try path(.a | if true then $x else . end) catch .",
        "try path(.a | null // $x) catch .",
        "try path(.a | setpath([]; $x)) catch .",
        "try path(.a | getpath([]) | $x) catch .",
        "try path(.a | try error($x) catch .) catch .",
        "try path(.a | first($x, .)) catch .",
        "try path(.a | reduce 1 as $i (.; $x)) catch .",
        "try [path(.a | limit(1; $x))] catch .",
        "def f(g): path(.a | g); try f($x) catch .",
        "try path($x) catch .",
        "try del(.a | $x) catch .",
        "try pick(.a | $x) catch .",
        "try path(.b as $y | .a | $y) catch .",
        "try path(.a | . as $y | $x | $y) catch .",
        "try path(. as $y | .a | path($y)) catch .",
        "try path(.a | $x + null) catch .",
        "try path(.a | [.] | last) catch .",
    ],
)
@pytest.mark.parametrize("value", [[1, [2]], {"k": []}, "text", "t", 7, 1_000_000_007, 1.5, [], None, True])
def test_paths_do_not_depend_on_aliases(program: str, value: Any) -> None:
    """Whether an argument, or another part of the input, is the very object a path leads to, or a copy of it."""
    text = program if "$x" in program else f"$x as $_ | {program}"
    compiled = compile_expression(text)
    outcomes = []
    for of in (alias, lambda value: pickle.loads(pickle.dumps(value))):
        document = {"a": value, "b": of(value)}
        outcomes.append(compiled.outputs(document, [of(value)]))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("[path(limit(1; .a[], .b))]", [["a", 0]]),
        ("path(.a | . as $x | $x)", ["a"]),
        ("[path(foreach .a[] as $i (0; 1; $i))]", [["a", 0], ["a", 1]]),
        ("[path(.a | tostring? // .)]", "Invalid path expression"),
        ('path(.b | trim | ltrimstr("no"))', ["b"]),
        ("path(try error catch .)", []),
        ("[path(first(.a[]))]", [["a", 0]]),
        ("path(if .a then .b else .a end)", ["b"]),
        ("(. as $d | .a |= [$d.b])", {"a": ["s"], "b": "s"}),
        ("path(. as $x | .a | path($x))", "Invalid path expression"),
    ],
)
def test_paths_go_on_from_values_that_came_by_them(program: str, expected: Any) -> None:
    """Through variables, conditions and functions that hand on what they get."""
    document = {"a": [1, 2], "b": "s"}
    if isinstance(expected, str):
        with pytest.raises(ExpressionError, match=expected):
            compile_expression(program).first(document)
    else:
        assert compile_expression(program).first(document) == expected


# --- what Python may do with the classes ---


@pytest.mark.parametrize("make", [Program, lambda: Program.__new__(Program), lambda: vars(_jq)["Machine"]()])
def test_nothing_is_made_of_the_classes_themselves(make: Callable[[], Any]) -> None:
    """Programs and machines come from functions."""
    with pytest.raises(TypeError, match=r"compile_expression|machines belong"):
        make()


@pytest.mark.parametrize("use", [copy.copy, copy.deepcopy, pickle.dumps, lambda program: program.__reduce__()])
def test_programs_are_not_copied(use: Callable[[Program], Any]) -> None:
    """They hold pointers, which no copy could."""
    with pytest.raises(TypeError):
        use(compile_expression(".a"))


def test_the_machinery_cannot_be_reached() -> None:
    """The module shows its contract, and of its classes only those that Python may have in hand."""
    classes = {
        name for name, value in vars(_jq).items() if isinstance(value, type) and value.__module__ == "fastrunner._jq"
    }
    errors = {"BudgetExceeded", "ExpressionError", "ExpressionProblem", "MissingMember"}
    assert classes == errors | {"Machine", "Program", "TextPattern"}
