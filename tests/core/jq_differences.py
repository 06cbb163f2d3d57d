"""Support: where this engine and libjq 1.8 differ on purpose, and how their results are compared.

Rules: a difference has a reason, an example that still shows it, and a test of what it may excuse. What only touches
how a number or a path error is written is made equal before comparing.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

Results = list[list[str]] | None
"""Per input the results as JSON, an error as `!` and the JSON that `catch` sees; None for a refused program."""

NUMBER = re.compile(r"(?<![\d.])-?\d+(?:\.\d+)?[eE][-+]?\d+")
LONG = re.compile(r"\d{16}")
ZERO = re.compile(r"-0(?![.\d])")
PATH_ERROR = re.compile(r"Invalid path expression.*")
# What a function is written with, where the error here names the function itself.
NAMED_ERROR = re.compile(
    r"(explode|ascii_upcase|ascii_downcase) input must be a string"
    r"|strptime/1 requires string inputs and arguments"
    r"|fromdate(iso8601)? input must be a string such as 2025-01-31T12:00:00Z"
    r"|(strftime/1|date|todate(iso8601)?) requires parsed datetime inputs"
    r"|(date|todate(iso8601)?) input must be a number of seconds since 1970, or a list of a date's parts"
)
NO_EXTREME = re.compile(r"^(!?\").* (cannot be iterated over|has no (minimum|maximum), as it is not an array)\"$")
PATTERN = re.compile(r"(as|\?//) [\[{]")
PATHS = re.compile(r"path|pick|del|walk|entries|map_values|[-+*/%|/]?=|limit|first|last")
NAMED_CALL = re.compile(r"ascii_(up|down)case|date|min|max")
LEAVES_EARLY = re.compile(r"walk|map_values|=|first|limit|isempty|any|all|IN|until|label|nth|skip|entries")


def canonical(lines: list[str]) -> list[str]:
    """Lines without what is not compared."""
    lines = [NUMBER.sub(lambda found: repr(float(found[0])), line) for line in lines]
    lines = [NO_EXTREME.sub(r'\1no extreme"', NAMED_ERROR.sub("wrong input", line)) for line in lines]
    return [PATH_ERROR.sub("Invalid path expression", ZERO.sub("0", line)) for line in lines]


@dataclass(frozen=True)
class Difference:
    """A kind of program that may give other results; `excuses` gets the program and both results for one input."""

    reason: str
    example: str
    excuses: Callable[[str, list[str], list[str]], bool]
    refused: Callable[[str, Results, Results], bool] = lambda _program, _ours, _theirs: False


def failed(lines: list[str]) -> bool:
    return bool(lines) and lines[-1].startswith("!")


def path_error(lines: list[str]) -> bool:
    return any("Invalid path expression" in line for line in lines)


def nothing(_program: str, _ours: list[str], _theirs: list[str]) -> bool:
    return False


DIFFERENCES = (
    Difference(
        "a pattern in a path expression moves jq's path, so that `path(. as [$a] | .)` fails there",
        "path(. as [$a] | .)",
        lambda program, _ours, _theirs: bool(PATTERN.search(program) and PATHS.search(program)),
    ),
    Difference(
        "where a path goes wrong, jq's text tells how its builtins are written in jq",
        "path(1 | map(.))",
        lambda program, ours, theirs: path_error(theirs) and (failed(ours) or "try" in program),
    ),
    Difference(
        "jq takes the source of a fold, an argument of `add` or `error`, for part of the path",
        "path(reduce add([1] | .[]) as $x (.; .))",
        lambda program, _ours, theirs: path_error(theirs) and bool(re.search(r"add|reduce|foreach|error", program)),
    ),
    Difference(
        "jq takes a value that an update left as it was for the very value that came in; numbers have no identity here",
        "1 | path(add(.))",
        lambda program, ours, _theirs: (
            path_error(ours) and bool(re.search(r"add\(|del\(|setpath|last\(|\[:2\]", program))
        ),
    ),
    Difference(
        "a value leads a path on because it came by it, in jq because it is the same object, wherever it was bound",
        ". as $x | path($x)",
        lambda program, ours, _theirs: path_error(ours) and "$" in program,
    ),
    Difference(
        "jq's `?//` takes the break that ends `first` and the like for an error, and goes on with the next pattern",
        "first(1 as $x ?// $y | $x, $y)",
        lambda program, _ours, _theirs: "?//" in program and bool(LEAVES_EARLY.search(program)),
    ),
    Difference(
        "jq adds while `add(f)` goes on, and so meets an error of adding before a later one of f",
        'add(1, "a", error)',
        lambda program, ours, theirs: "add(" in program and failed(ours) and "cannot be added" in (theirs or [""])[-1],
    ),
    Difference(
        "jq's mktime takes -1 and -2 for failures of the C library",
        "-1 | gmtime | mktime",
        lambda _program, _ours, theirs: any(re.search("mktime not supp|invalid gmtime repr", line) for line in theirs),
    ),
    Difference(
        "jq's years wrap around where C's int ends",
        '[100000000000000000000] | strftime("%Y")',
        lambda program, _ours, _theirs: (
            bool(re.search("strftime|todate|mktime|gmtime|iso8601", program))
            and any("-214748" in line for line in _theirs)
        ),
    ),
    Difference(
        "jq numbers its labels through all builtins that use one; the number of a caught break is not kept",
        "first(1, 2) | label $a | try break $a catch .",
        lambda _program, _ours, theirs: any("__jq" in line for line in theirs),
    ),
    Difference(
        "jq does not look into a function that nobody calls; here every name must be known",
        "def f: $nowhere; 1",
        nothing,
        lambda program, ours, _theirs: ours is None and "def " in program,
    ),
    Difference(
        "jq refuses keys that fold to constants other than strings; here they fail when they are used",
        '{(null + {"a": 1}): 2}',
        nothing,
        lambda program, ours, theirs: theirs is None and bool(re.search(r"[{,] *\(", program)),
    ),
    Difference(
        "jq finds out about an unknown format when it is used",
        "try @nosuch catch .",
        nothing,
        lambda program, ours, _theirs: ours is None and "@" in program,
    ),
    Difference(
        "jq runs the source of a fold again on null for each further initial value; here it always sees the input",
        "reduce .[]? as $x (1, 2; . + $x)",
        nothing,
    ),
    Difference(
        "libjq with decNumber tells integers apart that are one double; without it, as here, it does not",
        "have_decnum",
        lambda program, _ours, _theirs: "have_decnum" in program or bool(LONG.search(program)),
    ),
    Difference(
        "an error names the function that was called, in jq what that is written with",
        "try ascii_upcase catch .",
        lambda program, ours, _theirs: bool(NAMED_CALL.search(program)) and ("catch" in program or failed(ours)),
    ),
    Difference("jq prints a computed zero that was negated as -0; zero has no sign here", "-(1 - 1)", nothing),
    Difference("jq prints a decimal literal as it was written; here it is a double", "1E2", nothing),
)


def excused(program: str, ours: Results, theirs: Results) -> bool:
    """Whether the results are equal but for known differences."""
    if ours is None or theirs is None:
        return ours is theirs or any(difference.refused(program, ours, theirs) for difference in DIFFERENCES)
    pairs = ((canonical(mine), canonical(other)) for mine, other in zip(ours, theirs, strict=True))
    return all(
        mine == other or any(difference.excuses(program, mine, other) for difference in DIFFERENCES)
        for mine, other in pairs
    )


def equal(ours: Results, theirs: Results) -> bool:
    """Whether the results are equal without any excuse."""
    if ours is None or theirs is None:
        return ours is theirs
    return [canonical(lines) for lines in ours] == [canonical(lines) for lines in theirs]
