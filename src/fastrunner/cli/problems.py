"""Support: how the commands show what is wrong with a document: the place, a sentence, the line and a caret under it.

Rules: a document is somebody else's text: no character of it moves a terminal's cursor, and a long line is cut to a
window around the place. Scripts get one JSON object per line instead.
"""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import orjson

from fastrunner.base.printable import escaped_json, printable

if TYPE_CHECKING:
    from fastrunner._core import Problem

__all__ = ["NOT_FETCHED", "json_row", "refuses", "show_problems"]

NOT_FETCHED: Final = "not-fetched"
"""Code of the warning that validation has not seen a text from elsewhere."""

_FIELDS: Final = ("severity", "code", "pointer", "line", "column", "message")
_BREAK: Final = re.compile(r"\r\n|\n|\r")
_WINDOW_CHARS: Final = 100
_BEFORE_CHARS: Final = 60
_INDENT: Final = "    "


def refuses(problem: "Problem", *, strict: bool) -> bool:
    """Whether a document is refused for it. No document is better for what a command has not looked at."""
    return problem.severity == "error" or (strict and problem.code != NOT_FETCHED)


def json_row(file: Path, problem: "Problem") -> str:
    """One problem or warning as one line of JSON."""
    row = {name: getattr(problem, name) for name in _FIELDS}
    return escaped_json(orjson.dumps({"file": str(file), **row}).decode())


def show_problems(file: Path, problems: Iterable["Problem"], document: bytes) -> None:
    """Problems and warnings on stderr, each with its line of the document."""
    lines = _BREAK.split(document.decode("utf-8", "replace").removeprefix("\ufeff"))
    for problem in problems:
        kind = "warning: " if problem.severity == "warning" else ""
        place = f"{file}:{problem.line}:{problem.column}"
        click.echo(printable(f"{place}: {kind}{problem.code}: {problem.message}"), err=True)
        line = lines[problem.line - 1] if problem.line <= len(lines) else ""
        if line.strip():
            click.echo(_marked(line, problem.column - 1), err=True)


def _marked(line: str, at: int) -> str:
    """A line, or the part of it around a place, with a caret below that place."""
    start = max(0, at - _BEFORE_CHARS) if len(line) > _WINDOW_CHARS else 0
    shown = "".join(character if character.isprintable() else " " for character in line[start : start + _WINDOW_CHARS])
    cells = sum(_cells(character) for character in shown[: at - start])
    return f"{_INDENT}{shown.rstrip()}\n{_INDENT}{' ' * cells}^"


def _cells(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
