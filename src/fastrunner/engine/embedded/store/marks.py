"""Stage 4, walk: whose turn runs, where it outlives the worker; and of whose turns workers have died.

    shard-0000.marks    one page, mapped: magic | key and start of the turn that runs | suspects

Theory of operation. While the worker runs a turn of a stored execution, restores it, writes its snapshot or renders
arguments of its effects, the page names the execution. It is mapped memory: to mark a turn is two stores, nothing is
flushed, and what was stored is there when the process is killed. It may be lost with the machine, which kills no worker
again. The successor, told how its predecessor died, counts the death against whoever was marked. A suspect is written
with the last sequence number its file had then: once that has moved the execution has made progress, and its count is
void. So nothing has to be reset when a commit lands.

Rules: the shard's owner alone maps the page; damage to it is said and costs the counts. An execution that was never
accepted is no suspect: it does not come back by itself.
"""

import logging
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple
from zlib import crc32

from fastrunner.base import limits
from fastrunner.base.deaths import CAUSES, Death

__all__ = ["BEGAN_AT", "KEY_AT", "Marks", "Standing", "Suspect"]

_log = logging.getLogger(__name__)

_SIZE_BYTES: Final = 4096
_MAGIC: Final = b"FRMARKS1"
KEY_AT: Final = 1
BEGAN_AT: Final = 2
_SUSPECTS_AT: Final = 64
_ENTRY: Final = Struct("<qqqii")
_CHECKED: Final = Struct("<32sQ")
_NO_ENTRY: Final = bytes(_CHECKED.size)

assert _SUSPECTS_AT + limits.SUSPECTS_MAX * _CHECKED.size <= _SIZE_BYTES


class Standing(NamedTuple):
    """How the file has an unfinished execution."""

    execution_id: str
    """The caller's id."""
    accepted_ms: int
    """When it was accepted: with the key it tells executions apart, whatever was restored from a backup."""
    last_sequence: int
    """Sequence number of its latest event."""


class Suspect(NamedTuple):
    """An execution of whose turns workers have died."""

    execution_key: int
    """Its number in the shard."""
    accepted_ms: int
    """When it was accepted."""
    last_sequence: int
    """How far it had come."""
    deaths_count: int
    """How many workers died, one after the other, while it came no further."""
    cause: int
    """What the last one died of, as a place in CAUSES."""

    @property
    def cause_name(self) -> str:
        """What the last one died of."""
        return CAUSES[self.cause]

    def is_still(self, standing: Standing | None) -> bool:
        """Whether it is where it was when it was suspected."""
        return standing is not None and standing[1:] == self[1:3]


Find = Callable[[int], Standing | None]
"""How the file has an execution, by key; None if it has none that is unfinished."""


class Marks:
    """The page of one shard; in this process's own memory until it is opened, and where it cannot be."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._use(mmap.mmap(-1, _SIZE_BYTES))

    def _use(self, page: mmap.mmap) -> None:
        self._page = page
        self.keys = memoryview(page).cast("q")
        """The page as whole numbers; at KEY_AT whose turn runs, 0: nobody's."""
        self.times = memoryview(page).cast("d")
        """The page as times; at BEGAN_AT when that turn began."""

    def open(self) -> None:
        """Maps the file, made anew if it is missing or damaged. Hold the shard's lock."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._use(self._mapped(descriptor))
            finally:
                os.close(descriptor)
        except OSError as error:
            _log.warning(
                "%s cannot be used: executions that kill their worker are not noticed: %s",
                self._path.name,
                error.strerror,
            )

    def _mapped(self, descriptor: int) -> mmap.mmap:
        content = os.pread(descriptor, _SIZE_BYTES + 1, 0)
        if not _is_sound(content):
            if content:
                _log.warning("%s is damaged: it is ignored and made anew", self._path.name)
            os.pwrite(descriptor, _MAGIC.ljust(_SIZE_BYTES, b"\0"), 0)
            os.ftruncate(descriptor, _SIZE_BYTES)
        # On a disk without room for it, the first store into the page would kill the process.
        os.posix_fallocate(descriptor, 0, _SIZE_BYTES)
        return mmap.mmap(descriptor, _SIZE_BYTES)

    def close(self) -> None:
        """Lets go of the file: one that is mapped keeps its file system busy."""
        page, views = self._page, (self.keys, self.times)
        self._use(mmap.mmap(-1, _SIZE_BYTES))
        for view in views:
            view.release()
        page.close()

    # --- the turn that runs ---

    def begin(self, execution_key: int, began_s: float) -> None:
        """A turn of an execution runs from now on; `began_s`, on the monotonic clock, may be a few milliseconds old."""
        self.times[BEGAN_AT] = began_s
        self.keys[KEY_AT] = execution_key

    def end(self) -> None:
        """None runs."""
        self.keys[KEY_AT] = 0

    # --- suspects ---

    def judge(self, death: Death | None, find: Find) -> Suspect | None:
        """Takes away a predecessor's mark. If it died of the marked turn, the execution has one death more."""
        key, began_s = self.keys[KEY_AT], self.times[BEGAN_AT]
        self.end()
        if not key or death is None or not death.was_of(began_s):
            return None
        standing = find(key)
        if standing is None:
            return None
        others = [each for each in self._suspects() if each.is_still(find(each.execution_key))]
        known = next((each for each in others if each.execution_key == key), None)
        deaths_count = 1 if known is None else known.deaths_count + 1
        suspect = Suspect(key, *standing[1:], deaths_count, CAUSES.index(death.cause))
        others = sorted((each for each in others if each is not known), key=lambda each: -each.deaths_count)
        self._write([suspect, *others[: limits.SUSPECTS_MAX - 1]])
        return suspect

    def condemned(self, find: Find) -> list[Suspect]:
        """Who has been the death of as many workers as may be, and still is where it was."""
        return [
            each
            for each in self._suspects()
            if each.deaths_count >= limits.DEATHS_IN_TURN_MAX and each.is_still(find(each.execution_key))
        ]

    def _suspects(self) -> list[Suspect]:
        return [Suspect(*_ENTRY.unpack_from(entry)) for entry in _entries(self._page) if entry != _NO_ENTRY]

    def _write(self, suspects: list[Suspect]) -> None:
        entries = [_ENTRY.pack(*each) for each in suspects]
        content = b"".join([_CHECKED.pack(entry, crc32(entry)) for entry in entries])
        self._page[_SUSPECTS_AT:] = content.ljust(_SIZE_BYTES - _SUSPECTS_AT, b"\0")


def _entries(content: "bytes | mmap.mmap") -> Iterator[bytes]:
    for number in range(limits.SUSPECTS_MAX):
        start = _SUSPECTS_AT + number * _CHECKED.size
        yield content[start : start + _CHECKED.size]


def _is_sound(content: bytes) -> bool:
    if len(content) != _SIZE_BYTES or not content.startswith(_MAGIC):
        return False
    for entry in _entries(content):
        if entry != _NO_ENTRY:
            body, checksum = _CHECKED.unpack(entry)
            if crc32(body) != checksum or not 0 <= Suspect(*_ENTRY.unpack_from(body)).cause < len(CAUSES):
                return False
    return True
