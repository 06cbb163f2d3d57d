"""Support: numbers that one process counts and others read, while it lives and after it was killed.

A `Segment` is memory that the supervisor makes before it forks, one for each process that counts: its successors count
on in it, and the web process reads it. It is an anonymous shared mapping: it has no name, so nothing outside finds or
removes it; no file system's bound applies to it; and it is gone with the last process that has it.

To count is to store eight bytes, so there is nothing to flush and SIGKILL loses nothing. Cells are an array of doubles
and, behind it, the keys that say which cells belong to what:

    cell 0: bytes of keys | the other cells | keys, a JSON array per line: [name, labels, first cell, width]

Rules: one process counts in a segment, on one thread; its successor takes it over. Keys are only added, and are
complete before cell 0 counts them. A cell is never given back.
"""

import mmap
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import orjson

from fastrunner.base import limits

__all__ = ["Cells", "Counter", "Gauge", "Histogram", "Key", "Note", "Segment"]

_KEYS_AT: Final = 8 * limits.METRIC_CELLS_MAX
_KEYS_SIZE_BYTES: Final = 48 * limits.METRIC_CELLS_MAX
_SIZE_BYTES: Final = _KEYS_AT + _KEYS_SIZE_BYTES
_NOTE_HEAD_SIZE_BYTES: Final = 64
"""Of a note: how long it is (8 bytes), and its name."""


class Key(NamedTuple):
    """What some cells belong to."""

    name: str
    labels: tuple[str, ...]
    at: int
    """The first cell."""
    width: int
    """How many they are."""


class Cells:
    """The numbers of this process, in memory that may be shared."""

    def __init__(self, memory: mmap.mmap | None = None) -> None:
        """Takes over what a predecessor counted in there, if any did; without memory it has its own."""
        self._map = _memory(_SIZE_BYTES) if memory is None else memory
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


def _contents(memory: mmap.mmap) -> list[tuple[Key, Sequence[float]]]:
    values = memoryview(memory)[:_KEYS_AT].cast("d")
    return [(key, values[key.at : key.at + key.width].tolist()) for key in _keys(memory)]


def _keys(memory: mmap.mmap) -> Iterator[Key]:
    used = int(memoryview(memory)[:8].cast("d")[0])
    for line in memory[_KEYS_AT : _KEYS_AT + used].splitlines():
        name, labels, at, width = orjson.loads(line)
        yield Key(name, tuple(labels), at, width)


def _memory(size_bytes: int) -> mmap.mmap:
    """Zeroes, which children that are forked share; pages are taken when they are written."""
    return mmap.mmap(-1, size_bytes)


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


# --- what outlives a process ---


class Note:
    """A few bytes that outlive this process: what it is about to count, for its successor."""

    def __init__(self, memory: memoryview | None = None) -> None:
        """Takes over what a predecessor wrote in there; without memory it has its own."""
        self._bytes = memoryview(_memory(limits.METRIC_NOTE_SIZE_BYTES_MAX)) if memory is None else memory
        self._size = self._bytes[:8].cast("q")

    def write(self, content: bytes) -> None:
        """Keeps it; one that is too long is as none."""
        start = _NOTE_HEAD_SIZE_BYTES
        if len(content) <= len(self._bytes) - start:
            self._bytes[start : start + len(content)] = content
            self._size[0] = len(content)

    def read(self) -> bytes:
        """What was kept; empty if nothing was."""
        return bytes(self._bytes[_NOTE_HEAD_SIZE_BYTES : _NOTE_HEAD_SIZE_BYTES + self._size[0]])

    def clear(self) -> None:
        """Keeps nothing any more."""
        self._size[0] = 0


class Segment:
    """The memory in which one process and its successors count, and others read it."""

    def __init__(self, notes: int = 0) -> None:
        """With room for so many notes. Whoever is to share it is forked afterwards."""
        self.counts = _memory(_SIZE_BYTES)
        """For the cells of what only grows."""
        self.gauges = _memory(_SIZE_BYTES)
        """For the cells of what is present, which goes with the process."""
        self._notes = memoryview(_memory(max(1, notes) * limits.METRIC_NOTE_SIZE_BYTES_MAX))
        self._note_count = notes

    def note(self, name: str) -> Note:
        """The note of that name, the predecessor's if it had one. Raises RuntimeError when there is no room."""
        wanted = name.encode().ljust(_NOTE_HEAD_SIZE_BYTES - 8, b"\0")
        for number in range(self._note_count):
            start = number * limits.METRIC_NOTE_SIZE_BYTES_MAX
            memory = self._notes[start : start + limits.METRIC_NOTE_SIZE_BYTES_MAX]
            found = memory[8:_NOTE_HEAD_SIZE_BYTES]
            if not any(found):
                found[:] = wanted
            if found == wanted:
                return Note(memory)
        raise RuntimeError(f"no room for the note {name}: there are {self._note_count} already")

    def forget_gauges(self) -> None:
        """Drops what a dead process counted as present: its gauges are zero. Its counters stay."""
        self.gauges[8:_KEYS_AT] = bytes(_KEYS_AT - 8)

    def read_counts(self) -> list[tuple[Key, Sequence[float]]]:
        """What was counted so far that only grows."""
        return _contents(self.counts)

    def read_gauges(self) -> list[tuple[Key, Sequence[float]]]:
        """What is present."""
        return _contents(self.gauges)
