"""Stage 5, tasks: JSON text as a value, in pieces.

Theory of operation: parsing eight megabytes takes 60 to 500 ms, in which the interpreter serves nobody else, in
whatever thread. Large text is therefore cut: a regular expression finds the brackets, so a piece ends where an item of
some container ends, and the containers that are still open there are built item by item. Each piece is parsed by the
library and is complete JSON when brackets are put around it, so what it accepts is what it would accept whole. This
takes two to five times as long as parsing at once, a few hundred microseconds at a time.

Rules: pure, no I/O. The value is the one the library gives for the whole text; a later one of two equal keys wins.
Nothing is parsed before its depth is known.
"""

import re
from collections.abc import Generator
from typing import Any

import orjson

from fastrunner.base import limits

__all__ = ["TooComplex", "parse"]

_WHOLE_SIZE_BYTES_MAX = 65_536
"""Up to here text is parsed in one piece: at most some 3 ms."""
_PIECE_SIZE_BYTES = 16_384

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_TO_BRACKET = re.compile(rb'[^][{}"]*+(?:' + _STRING.pattern + rb'[^][{}"]*+)*+[][{}]', re.DOTALL)
_MARK = re.compile(rb'[][{},"]')
_BLANK = b" \t\r\n"
_QUOTE, _COMMA, _OPEN_LIST, _CLOSE_LIST, _OPEN_MAP, _BACKSLASH = b'",[]{\\'
_OPENING = frozenset((_OPEN_LIST, _OPEN_MAP))

Container = list[Any] | dict[str, Any]


class TooComplex(ValueError):
    """A value that nests deeper, or has more arrays and objects, than it may; the message says which."""


def parse(text: bytes) -> Generator[None, None, Any]:
    """The value; yields between the pieces of a large one. Raises orjson.JSONDecodeError and TooComplex."""
    if len(text) <= _WHOLE_SIZE_BYTES_MAX:
        value = orjson.loads(text)
        # Text with fewer brackets than levels needs no second look, and most has.
        may_be_deep = text.count(b"[") + text.count(b"{") > limits.HTTP_RESPONSE_DEPTH_MAX
        if may_be_deep and _depth_exceeds(value, limits.HTTP_RESPONSE_DEPTH_MAX):
            raise _too_deep()
        return value
    start = len(text) - len(text.lstrip(_BLANK))
    if text[start : start + 1] not in (b"[", b"{"):
        return orjson.loads(text)
    return (yield from _Parser(text).parse(start))


def _depth_exceeds(value: Any, depth_max: int) -> bool:
    """Whether a JSON value nests deeper: goes down level by level, so that it needs no stack of its own."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(depth_max):
        if not level:
            return False
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) is dict or type(child) is list
        ]
    return bool(level)


def _too_deep() -> TooComplex:
    return TooComplex(f"is nested deeper than {limits.HTTP_RESPONSE_DEPTH_MAX} levels")


class _Parser:
    """One text on its way to a value."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._open: list[Container] = []
        self._containers_count = 0
        self._at = 0
        """Where to go on: after the bracket of the innermost open container, or after an item of it."""
        self._is_after_item = False

    def parse(self, start: int) -> Generator[None, None, Any]:
        self._begin(start)
        root = self._open[0]
        while self._open:
            self._step()
            yield
        if self._text[self._at :].strip(_BLANK):
            raise _malformed("text after the value")
        return root

    def _step(self) -> None:
        """Goes on by one piece, or to the end of the innermost container."""
        end = self._at + _PIECE_SIZE_BYTES
        position, openings, item_ends = self._at, list[int](), [-1]
        levels_left = limits.HTTP_RESPONSE_DEPTH_MAX - len(self._open)
        while run := _TO_BRACKET.match(self._text, position, end):
            position = run.end()
            if self._text[position - 1] in _OPENING:
                if len(openings) == levels_left:
                    raise _too_deep()
                openings.append(position - 1)
                item_ends.append(-1)
                self._containers_count += 1
            elif openings:
                openings.pop()
                item_ends.pop()
                item_ends[-1] = position
            else:
                self._end(position - 1)
                return
        if self._containers_count > limits.HTTP_RESPONSE_CONTAINERS_MAX:
            raise TooComplex(f"has more than {limits.HTTP_RESPONSE_CONTAINERS_MAX} arrays and objects")
        # What is still open there, from the outermost: the whole items of it, then the one that was opened last.
        self._absorb(item_ends[0])
        for opening, item_end in zip(openings, item_ends[1:], strict=True):
            self._begin(opening)
            self._absorb(item_end)
        if not openings and item_ends[0] < 0:
            self._step_over_scalars()

    def _step_over_scalars(self) -> None:
        """Goes on where no bracket is near: to a comma, or to a bracket behind long strings."""
        start, end = self._at, self._at + _PIECE_SIZE_BYTES
        # The first comma after an item leads to the next one and does not end it.
        commas_skipped, comma = int(self._is_after_item), -1
        if self._text.find(b'"', start, end) < 0:
            comma = self._text.rfind(b",", start, end)
            if comma > start and self._text.count(b",", start, comma) >= commas_skipped:
                return self._absorb(comma)
            comma = -1
        position = start
        while token := _MARK.search(self._text, position):
            position, character = token.start(), self._text[token.start()]
            if character == _QUOTE:
                position = self._string_end(position)
                continue
            if position > end and comma >= 0:
                return self._absorb(comma)
            if character != _COMMA:
                self._absorb(comma)
                return self._begin(position) if character in _OPENING else self._end(position)
            if commas_skipped:
                commas_skipped = 0
            else:
                comma = position
            position += 1
        raise _malformed("unexpected end of text")

    def _string_end(self, quote: int) -> int:
        """Where the string ends that begins there. One without quotes in it, however long, is only searched for it."""
        end = self._text.find(b'"', quote + 1)
        if end - quote > _PIECE_SIZE_BYTES and self._text[end - 1] != _BACKSLASH:
            return end + 1
        string = _STRING.match(self._text, quote)
        if string is None:
            raise _malformed("unexpected end of text")
        return string.end()

    def _begin(self, opening: int) -> None:
        """Opens a container, the next item of the innermost one."""
        child: Container = [] if self._text[opening] == _OPEN_LIST else {}
        if self._open:
            parent, before = self._open[-1], self._piece_until(opening)
            # Scalars may lie before it. It is null until it is read.
            if isinstance(parent, dict):
                parent.update(orjson.loads(b"{" + before + b"null}"))
                *_, last = _STRING.finditer(before)
                parent[orjson.loads(last[0])] = child
            else:
                parent.extend(orjson.loads(b"[" + before + b"null]"))
                parent[-1] = child
        if len(self._open) == limits.HTTP_RESPONSE_DEPTH_MAX:
            raise _too_deep()
        self._open.append(child)
        self._at, self._is_after_item = opening + 1, False

    def _piece_until(self, end: int) -> bytes:
        """The text up to there, without the comma that leads to it."""
        piece = self._text[self._at : end]
        if self._is_after_item:
            piece = piece.lstrip(_BLANK)
            if not piece.startswith(b","):
                raise _malformed("comma or bracket expected")
            piece = piece[1:]
        return piece

    def _absorb(self, end: int) -> None:
        """Takes in the items of the innermost container that end there; -1 if there are none."""
        if end < 0:
            return
        container, piece = self._open[-1], self._piece_until(end)
        items: Container
        if isinstance(container, dict):
            items = orjson.loads(b"{" + piece + b"}")
            container.update(items)
        else:
            items = orjson.loads(b"[" + piece + b"]")
            container.extend(items)
        if not items:
            raise _malformed("value expected")
        self._at, self._is_after_item = end, True

    def _end(self, position: int) -> None:
        """Closes the innermost container."""
        if self._text[self._at : position].strip(_BLANK):
            self._absorb(position)
        container = self._open.pop()
        if (self._text[position] == _CLOSE_LIST) != isinstance(container, list):
            raise _malformed("bracket does not match")
        self._at, self._is_after_item = position + 1, True


def _malformed(reason: str) -> orjson.JSONDecodeError:
    return orjson.JSONDecodeError(reason, "", 0)
