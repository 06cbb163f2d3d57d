"""Support: `validate --fix`: what documents often get wrong and what can be rewritten without a change of its meaning.

    $secret                                   $secrets
    $data (Zigflow's)                         $input
    errors: {type: ...}, event: {type: ...}   errors: {with: {type: ...}}
    backoff: exponential, {type: exponential} backoff: {exponential: {}}
    arguments: {a: 1} (of a run)              arguments: ['a=1']

Theory of operation: a problem says where it stands; a fix edits the text there and nowhere else, so comments, quotes
and layout stay. Then the whole document is validated anew. An edit is kept only if what it was made for is gone and
nothing is wrong that was not wrong before, so one that misreads a layout changes nothing.

Rule: only what is wrong is edited, and what is written as in an earlier version of the DSL: any other document stays as
it is, to the byte.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final

from fastrunner._core import Problem, validate
from fastrunner.cli.outdated import OUTDATED, closing, listed

__all__ = ["fixed"]

_FIXES_MAX: Final = 1_000
"""Edits of one document: each validates it anew."""
_BREAK: Final = re.compile(r"\r\n|\n|\r")
_BACKOFF: Final = re.compile(r"""(?:(["']?)type\1\s*:\s*)?((["']?)(?:constant|exponential|linear)\3)""")
_VARIABLES: Final = {"secret": "secrets", "data": "input"}
_SPELLING: Final = re.compile(r"nothing binds \$(\w+) ")


def fixed(document: bytes) -> tuple[bytes, int]:
    """The document with what could be fixed, and how many problems that were. Bytes that are no UTF-8 stay."""
    try:
        text = document.decode()
    except UnicodeDecodeError:
        return document, 0
    count, refused = 0, set[tuple[str, str, str]]()
    while count < _FIXES_MAX:
        problems = _problems(text)
        done = next(_edited(text, problems, refused), None)
        if done is None:
            break
        text, solved = done
        count += solved
    return text.encode(), count


def _problems(text: str) -> list[Problem]:
    """Those that refuse a document, and warnings of what is rewritten."""
    return [each for each in validate(text.encode(), True) if each.severity == "error" or each.code == OUTDATED]


def _edited(text: str, problems: list[Problem], refused: set[tuple[str, str, str]]) -> Iterator[tuple[str, int]]:
    """The text with one problem less, if there is one to fix; how many went with it."""
    before = {_name(problem) for problem in problems}
    for problem in problems:
        fix = _fix_of(problem)
        if fix is None or _name(problem) in refused:
            continue
        edited = fix(text, _offset(text, problem), problem)
        if edited is not None:
            after = {_name(each) for each in _problems(edited)}
            if after < before and _name(problem) not in after:
                yield edited, len(before) - len(after)
                return
        refused.add(_name(problem))


def _name(problem: Problem) -> tuple[str, str, str]:
    """A problem wherever its line is now."""
    return problem.code, problem.pointer, problem.message


def _offset(text: str, problem: Problem) -> int:
    line = 1
    at = 1 if text.startswith("\ufeff") else 0
    for end in _BREAK.finditer(text):
        if line == problem.line:
            break
        line, at = line + 1, end.end()
    return at + problem.column - 1


_Fix = Callable[[str, int, Problem], str | None]


def _fix_of(problem: Problem) -> _Fix | None:
    if problem.code == "unknown-variable":
        return _rename
    if problem.code == "unknown-key" and "it belongs under `with`" in problem.message:
        return _wrap
    if problem.code == OUTDATED:
        return listed
    if "/backoff" in problem.pointer and problem.code in ("wrong-type", "unknown-key"):
        return _backoff
    return None


def _rename(text: str, at: int, problem: Problem) -> str | None:
    """Every place of one expression: the variable is read from its beginning to the end of its text."""
    found = _SPELLING.match(problem.message)
    meant = _VARIABLES.get(found[1]) if found is not None else None
    if found is None or meant is None:
        return None
    variable = re.compile(rf"\${found[1]}(?![\w:])")
    # The first one is in this expression, because it begins here.
    while (place := variable.search(text, at)) is not None:
        text = f"{text[: place.start()]}${meant}{text[place.end() :]}"
        again = [each for each in validate(text.encode()) if each.pointer == problem.pointer and _same(each, found[1])]
        if not again:
            return text
    return None


def _same(problem: Problem, variable: str) -> bool:
    found = _SPELLING.match(problem.message)
    return problem.code == "unknown-variable" and found is not None and found[1] == variable


def _wrap(text: str, at: int, problem: Problem) -> str | None:  # noqa: ARG001 - a fix
    """Puts the members of an object, whose first key is here, under `with`."""
    if text[:at].rstrip().endswith("{"):
        end = closing(text, at)
        # White space before the bracket stays before it.
        last = at + len(text[at:end].rstrip())
        # What is JSON stays JSON.
        key = '"with"' if text[at] == '"' else "with"
        return None if end < 0 else f"{text[:at]}{key}: {{{text[at:last]}}}{text[last:]}"
    line_at = max(text.rfind("\n", 0, at), text.rfind("\r", 0, at)) + 1
    return None if text[line_at:at].strip() else _wrap_block(text, line_at, at - line_at)


def _wrap_block(text: str, at: int, indent: int) -> str:
    """Each line that is indented as much, or is blank or a comment between such, two further in."""
    end = last = at
    for line in re.split(r"(?<=\n)|(?<=\r)(?!\n)", text[at:]):
        content = line.strip()
        depth = len(line) - len(line.lstrip(" "))
        if content and depth < indent:
            break
        end += len(line)
        if content:
            last = end
    lines = re.split(r"(?<=\n)|(?<=\r)(?!\n)", text[at:last])
    ending = next((found[0] for found in _BREAK.finditer(text, at)), "\n")
    moved = "".join(f"  {line}" if line.strip() else line for line in lines)
    return f"{text[:at]}{' ' * indent}with:{ending}{moved}{text[last:]}"


def _backoff(text: str, at: int, problem: Problem) -> str | None:
    """A kind of backoff is a key with an empty object."""
    found = _BACKOFF.match(text, at)
    if found is None:
        return None
    kind = f"{found[2]}: {{}}"
    return f"{text[:at]}{kind if problem.code == 'unknown-key' else f'{{{kind}}}'}{text[found.end() :]}"
