"""Support: numbers that one process counts and others read, while it lives and after it was killed.

A file holds an array of doubles and, behind it, the keys that say which cells belong to what. It is mapped into memory:
to count is to store eight bytes, so there is nothing to flush and SIGKILL loses nothing.

    cell 0: bytes of keys | the other cells | keys, a JSON array per line: [name, labels, first cell, width]

Rules: one process writes a file, on one thread; its successor takes the file over and counts on. Keys are only added,
and are complete before cell 0 counts them. A cell is never given back.
"""

import mmap
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import orjson

from fastrunner.base import limits

__all__ = ["Cells", "Counter", "Gauge", "Histogram", "Key", "Note", "read_cells"]

_KEYS_AT = 8 * limits.METRIC_CELLS_MAX
_KEYS_SIZE_BYTES = 48 * limits.METRIC_CELLS_MAX
_SIZE_BYTES = _KEYS_AT + _KEYS_SIZE_BYTES


class Key(NamedTuple):
    """What some cells belong to."""

    name: str
    labels: tuple[str, ...]
    at: int
    """The first cell."""
    width: int
    """How many they are."""


class Cells:
    """The numbers of this process, in a file others read, or in memory."""

    def __init__(self, path: Path | None = None) -> None:
        """Opens the file, made anew or as a predecessor left it."""
        self._map = _mapped(path, _SIZE_BYTES)
        self._bytes = memoryview(self._map)
        self.values = self._bytes[:_KEYS_AT].cast("d")
        """The numbers."""
        keys = list(_keys(self._map))
        self._places = {(key.name, key.labels): key.at for key in keys}
        self._free = max((key.at + key.width for key in keys), default=1)

    def place(self, name: str, labels: tuple[str, ...], width: int) -> int:
        """The first of the cells that belong to a name and labels. Raises RuntimeError when there are too many."""
        at = self._places.get((name, labels))
        if at is not None:
            return at
        line = orjson.dumps([name, labels, self._free, width], option=orjson.OPT_APPEND_NEWLINE)
        used = int(self.values[0])
        if self._free + width > limits.METRIC_CELLS_MAX or used + len(line) > _KEYS_SIZE_BYTES:
            raise RuntimeError(f"too many metrics: no room for {name}{labels}; a label has values without end")
        start = _KEYS_AT + used
        self._bytes[start : start + len(line)] = line
        self.values[0] = used + len(line)
        at = self._places[name, labels] = self._free
        self._free += width
        return at

    def read(self) -> list[tuple[Key, Sequence[float]]]:
        """What this process has counted so far."""
        return _contents(self._map)


def read_cells(path: Path) -> list[tuple[Key, Sequence[float]]]:
    """What a process has counted so far. Raises OSError."""
    content = path.read_bytes()
    # A process that is just making its file has counted nothing.
    return _contents(content) if len(content) == _SIZE_BYTES else []


def _contents(content: "bytes | mmap.mmap") -> list[tuple[Key, Sequence[float]]]:
    values = memoryview(content)[:_KEYS_AT].cast("d")
    return [(key, values[key.at : key.at + key.width].tolist()) for key in _keys(content)]


def _keys(content: "bytes | mmap.mmap") -> Iterator[Key]:
    used = int(memoryview(content)[:8].cast("d")[0])
    for line in content[_KEYS_AT : _KEYS_AT + used].splitlines():
        name, labels, at, width = orjson.loads(line)
        yield Key(name, tuple(labels), at, width)


def _mapped(path: Path | None, size_bytes: int) -> mmap.mmap:
    if path is None:
        return mmap.mmap(-1, size_bytes)
    with path.open("a+b") as file:
        file.truncate(size_bytes)
        return mmap.mmap(file.fileno(), size_bytes)


# --- what is counted ---


class Counter:
    """A number that only grows."""

    __slots__ = ("_values", "at")
    width = 1

    def __init__(self, cells: Cells, at: int) -> None:
        self._values = cells.values
        self.at = at
        """Its cell."""

    def inc(self, amount: float = 1) -> None:
        """Counts."""
        self._values[self.at] += amount

    @property
    def value(self) -> float:
        """What was counted."""
        return self._values[self.at]


class Gauge(Counter):
    """A number that goes up and down."""

    __slots__ = ()

    def set(self, value: float) -> None:
        """Says how much it is now."""
        self._values[self.at] = value

    def dec(self, amount: float = 1) -> None:
        """Takes away."""
        self._values[self.at] -= amount


class Histogram:
    """How often values lay between bounds: a cell per bucket (the last has no bound), and their sum."""

    __slots__ = ("_bounds", "_values", "at", "sum_at")

    def __init__(self, cells: Cells, at: int, bounds: Sequence[float]) -> None:
        self._values = cells.values
        self._bounds = bounds
        self.at = at
        """The cell of the first bucket."""
        self.sum_at = at + len(bounds) + 1
        """The cell of the sum."""

    def observe(self, value: float) -> None:
        """Counts a value."""
        values = self._values
        values[self.at + bisect_left(self._bounds, value)] += 1
        values[self.sum_at] += value

    @property
    def count(self) -> float:
        """How many values were counted."""
        return sum(self._values[self.at : self.sum_at])


class Note:
    """A few bytes that outlive this process: what it is about to count, for its successor."""

    def __init__(self, path: Path | None) -> None:
        self._map = _mapped(path, limits.METRIC_NOTE_SIZE_BYTES_MAX)
        self._size = memoryview(self._map)[:8].cast("q")

    def write(self, content: bytes) -> None:
        """Keeps it; one that is too long is as none."""
        if len(content) <= limits.METRIC_NOTE_SIZE_BYTES_MAX - 8:
            self._map[8 : 8 + len(content)] = content
            self._size[0] = len(content)

    def read(self) -> bytes:
        """What was kept; empty if nothing was."""
        return self._map[8 : 8 + self._size[0]]

    def clear(self) -> None:
        """Keeps nothing any more."""
        self._size[0] = 0
