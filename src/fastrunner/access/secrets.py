"""Support: where secrets come from: a folder of files, as Kubernetes mounts them, and variables of the environment.

Rules: a value goes to whoever evaluates or calls and into no file, log or message; whatever is read is hidden from
texts first. A file is read again when it has changed, so a rotated secret needs no restart. A name that is no plain
file name has no value: no document reaches outside the folder.
"""

import logging
import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from fastrunner.base import limits
from fastrunner.base.redaction import hide

__all__ = ["Secrets"]

_log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,252}")
_NOT_IN_VARIABLE = re.compile(r"[^A-Za-z0-9_]")

_Signature = tuple[int, int, int, int]


class Secrets:
    """The secrets of one process."""

    def __init__(self, folder: Path | None = None, variables: Mapping[str, str] | None = None) -> None:
        """`variables` are values by what follows FASTRUNNER_SECRET_ in their names."""
        self._folder = folder
        self._variables = {name: _value(text) for name, text in (variables or {}).items()}
        self._known: dict[str, tuple[_Signature, Any]] = {}
        self._troubles: set[str] = set()
        hide(list(self._variables.values()))

    def read(self, names: Iterable[str]) -> dict[str, Any]:
        """The current values of those that have one: text, or the object that a text in JSON is."""
        found = {}
        for name in names:
            if _NAME.fullmatch(name):
                value = self._from_file(name)
                if value is None:
                    value = self._from_variable(name)
                if value is not None:
                    found[name] = value
        return found

    def _from_variable(self, name: str) -> Any:
        """A name that no variable can have stands for one in capitals, with underscores."""
        value = self._variables.get(name)
        return self._variables.get(_NOT_IN_VARIABLE.sub("_", name).upper()) if value is None else value

    def _from_file(self, name: str) -> Any:
        if self._folder is None:
            return None
        try:
            # A fifo of that name must not hold the loop.
            descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            return self._unreadable(name, error.strerror or "no reason given")
        try:
            return self._read(name, descriptor)
        except OSError as error:
            return self._unreadable(name, error.strerror or "no reason given")
        finally:
            os.close(descriptor)

    def _read(self, name: str, descriptor: int) -> Any:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            return self._unreadable(name, "it is no file")
        if facts.st_size > limits.SECRET_SIZE_BYTES_MAX:
            return self._unreadable(name, f"it has more than {limits.SECRET_SIZE_BYTES_MAX} bytes")
        signature = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
        known = self._known.get(name)
        if known is not None and known[0] == signature:
            return known[1]
        try:
            text = os.read(descriptor, limits.SECRET_SIZE_BYTES_MAX).decode()
        except UnicodeDecodeError:
            return self._unreadable(name, "it is no UTF-8 text")
        value = _value(text.removesuffix("\n").removesuffix("\r"))
        hide(value)
        self._known[name] = (signature, value)
        self._troubles.discard(name)
        return value

    def _unreadable(self, name: str, reason: str) -> None:
        if name not in self._troubles:
            self._troubles.add(name)
            _log.warning("the secret %s cannot be read from FASTRUNNER_SECRETS_DIR: %s", name, reason)


def _value(text: str) -> Any:
    """A text, or the object it is in JSON."""
    if not text.lstrip().startswith("{"):
        return text
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return value if _depth(value) <= limits.SECRET_DEPTH_MAX else text


def _depth(value: Any) -> int:
    """How deep a value is nested; no deeper than the JSON parser goes."""
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            part
            for each in level
            for part in (each.values() if isinstance(each, dict) else each if isinstance(each, list) else ())
        ]
    return depth
