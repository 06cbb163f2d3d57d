"""Stage 5, tasks: JSON values as the text that a header, a query, an argument or a variable holds.

Rules: pure; shared by all kinds of effects, so that a number is written the same everywhere.
"""

import math
from typing import Any

__all__ = ["json_kind", "scalar_text"]


def scalar_text(value: Any) -> str | None:
    """A scalar as text; None for null, arrays, objects and numbers that are none."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    return None


def json_kind(value: Any) -> str:
    """A JSON value's type, for people."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
