"""Stage 5, tasks: the evaluated arguments of a run as command lines, environments and input.

Rules: pure, no I/O; what cannot be given to a process is refused before one is started; no problem's text holds a
value, because values may be secrets.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from fastrunner.tasks.scalars import json_kind, scalar_text

__all__ = [
    "IDEMPOTENCY_VARIABLE",
    "PATH",
    "RunProblem",
    "argv_of",
    "command_of",
    "encoded",
    "environment_of",
    "pairs_of",
    "stdin_of",
    "text_of",
]

IDEMPOTENCY_VARIABLE = "FASTRUNNER_IDEMPOTENCY_KEY"
"""Holds the effect's key: the same when the effect is performed again after a crash, another one for every retry."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a process finds programs unless the document says otherwise."""

_NAME = re.compile(r"[^=\0]+")
_SHOWN_NAME_SIZE_CHARS_MAX = 100


class RunProblem(Exception):
    """A run without an output; becomes an error. The text never holds a value."""

    def __init__(self, type_: str, status: int, title: str, detail: str) -> None:
        super().__init__(detail)
        self.type = type_
        """A DSL error's short name."""
        self.status = status
        self.title = title
        self.detail = detail

    @staticmethod
    def of_argument(type_: str, detail: str) -> "RunProblem":
        """Of arguments that no process can be given."""
        return RunProblem(type_, 400, "Invalid Run", detail)


def encoded(text: str, argument: str) -> bytes:
    """As a process is given it. Raises RunProblem."""
    if "\0" in text:
        raise RunProblem.of_argument("configuration", f"{argument} holds a zero character, which ends it for a process")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise RunProblem.of_argument("configuration", f"{argument} holds characters that UTF-8 does not have") from None


def text_of(value: Any, argument: str) -> str:
    """A scalar as text. Raises RunProblem."""
    text = scalar_text(value)
    if text is None:
        raise RunProblem.of_argument("expression", f"{argument} is {json_kind(value)}, where a scalar is needed")
    return text


def argv_of(given: Any) -> list[bytes]:
    """The arguments: a list's items, or a map's members as NAME=value in the order written. Raises RunProblem."""
    if given is None:
        return []
    if isinstance(given, dict):
        return [encoded(f"{name}={text}", "arguments") for name, text in pairs_of(given, "arguments")]
    if not isinstance(given, list):
        raise RunProblem.of_argument("expression", f"arguments is {json_kind(given)}, where an array is needed")
    return [encoded(text_of(value, "an item of arguments"), "an item of arguments") for value in given]


def environment_of(given: Any, idempotency_key: str) -> dict[bytes, bytes]:
    """The variables of a process: those of the document, the key of the effect, and nothing else. Raises RunProblem."""
    environment = {IDEMPOTENCY_VARIABLE.encode(): encoded(idempotency_key, IDEMPOTENCY_VARIABLE)}
    for name, text in pairs_of(given, "environment"):
        if not _NAME.fullmatch(name):
            raise RunProblem.of_argument("configuration", "environment has a name that is empty or holds '='")
        shown = f"environment variable {name[:_SHOWN_NAME_SIZE_CHARS_MAX]!r}"
        environment[encoded(name, "a name in environment")] = encoded(text, shown)
    return environment


def pairs_of(given: Any, argument: str) -> list[tuple[str, str]]:
    """Names and values of a map; null drops its name. Raises RunProblem."""
    if given is None:
        return []
    if not isinstance(given, dict):
        raise RunProblem.of_argument("expression", f"{argument} is {json_kind(given)}, where a map is needed")
    return [(name, text_of(value, f"a value in {argument}")) for name, value in given.items() if value is not None]


def stdin_of(given: Any) -> bytes:
    """What a process reads: text as it is, any other value as JSON. Raises RunProblem."""
    if given is None:
        return b""
    if isinstance(given, str):
        try:
            return given.encode()
        except UnicodeEncodeError:
            raise RunProblem.of_argument("configuration", "stdin holds characters that UTF-8 does not have") from None
    try:
        return orjson.dumps(given)
    except TypeError:
        raise RunProblem.of_argument("expression", "stdin holds a number that JSON text cannot carry") from None


def command_of(arguments: Mapping[str, Any]) -> bytes:
    """The text that a shell is given. Raises RunProblem."""
    return encoded(text_of(arguments.get("command"), "command"), "command")
