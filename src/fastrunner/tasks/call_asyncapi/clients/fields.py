"""Stage 5, tasks: values of bindings, which are as a document has them: of any type, and some of them schemas.

Rule: a value that is not what its binding demands is a problem of the document that names the binding, never a default.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import orjson

from fastrunner.tasks.call_http.failures import CallProblem

__all__ = ["BindingProblem", "consumer_name", "flag", "header_text", "named", "number", "section", "word"]

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")


class BindingProblem(CallProblem):
    """A binding, or another part of a described channel, that nothing can be done with."""

    type = "configuration"

    def __init__(self, sentence: str) -> None:
        super().__init__("Invalid Binding", sentence, 400)


def word(fields: Mapping[str, Any], name: str, default: str = "") -> str:
    """A text. Raises BindingProblem."""
    value = fields.get(name, default)
    if not isinstance(value, str):
        raise BindingProblem(f"the binding {name} is no string")
    return value


def named(fields: Mapping[str, Any], name: str) -> str:
    """A text, or a schema that allows one text: by `const`, a single `enum`, or its `default`; empty if it is not given
    or the schema allows several. Raises BindingProblem."""
    value = fields.get(name, "")
    if isinstance(value, dict):
        allowed = value.get("enum")
        value = value.get("const", allowed[0] if isinstance(allowed, list) and len(allowed) == 1 else "") or value.get(
            "default", ""
        )
    if not isinstance(value, str):
        raise BindingProblem(f"the binding {name} is neither a string nor a schema of one")
    return value


def flag(fields: Mapping[str, Any], name: str, *, default: bool) -> bool:
    """A boolean. Raises BindingProblem."""
    value = fields.get(name, default)
    if not isinstance(value, bool):
        raise BindingProblem(f"the binding {name} is no boolean")
    return value


def number(fields: Mapping[str, Any], name: str, *, default: int, lowest: int, highest: int) -> int:
    """An integer. Raises BindingProblem."""
    value = fields.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise BindingProblem(f"the binding {name} is no integer from {lowest} to {highest}")
    return value


def section(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object, empty if it is not given. Raises BindingProblem."""
    value = fields.get(name, {})
    if not isinstance(value, dict):
        raise BindingProblem(f"the binding {name} is no object")
    return value


def consumer_name(consumer: str) -> str:
    """A consumer as a name that every broker takes: itself, if it has nothing but letters, digits, `_` and `-`."""
    if _PLAIN.fullmatch(consumer) and len(consumer) <= 128:
        return consumer
    return "fastrunner-" + hashlib.sha256(consumer.encode()).hexdigest()[:32]


def header_text(value: object) -> str:
    """A header's value as text: brokers have bytes, numbers and tables there, too."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "replace")
    return orjson.dumps(value, default=str).decode()
