"""Stage 5, tasks: the text of a description as data: JSON, or YAML as the core reads it.

Rules: read a slice of the loop's time at a time, bounded in size, depth and values before they cost anything. Keys that
are no strings, such as status codes, are their text. No problem's text holds a value.
"""

from collections.abc import Generator
from typing import Any

import orjson

from fastrunner._core import InvalidWorkflow, load_in_steps
from fastrunner.tasks.call_http import json_text

__all__ = ["NoData", "parsed"]

_STEP_UNITS = 1_000
"""Half a millisecond of reading YAML."""


class NoData(ValueError):
    """A text that is neither JSON nor YAML, or more of it than is read; the message says why, and where."""


def parsed(text: str) -> Generator[None, None, Any]:
    """The value; yields between pieces. Raises NoData."""
    if text.lstrip(" \t\r\n").startswith(("{", "[")):
        try:
            return (yield from json_text.parse(text.encode()))
        except orjson.JSONDecodeError:
            # YAML may open like it.
            pass
        except json_text.TooComplex as why:
            raise NoData(f"it {why}") from None
    try:
        return (yield from load_in_steps(text, _STEP_UNITS, takes_any_key=True))
    except InvalidWorkflow as error:
        first = error.problems[0]
        raise NoData(f"line {first.line}, column {first.column}: {first.message}") from None
