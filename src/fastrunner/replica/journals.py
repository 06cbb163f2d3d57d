"""Support: what was committed to a file since a moment: the frames of its journal (`-wal`), read from outside.

    index of the journal (`-shm`) -> how far it is committed -> frames of the journal itself,
                                                             -> or of the kept one, if its round is over

Rules: nothing is locked and nothing written; a writer does not notice. Frames are taken only as far as the index says
that they are on disk. What was read is good if the index shows the same round afterwards: that changes first when a
journal is written from its beginning. Rounds follow from one another by their salts, and each goes on from the frame
that was read last, by its checksum; where either fails, frames are missing, and Broken says so.

Closing a descriptor of an index gives up the locks that this process has on it: no connection to the file may be open
in this process while its frames are read.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fastrunner.engine.embedded.store.kept_journals import kept_journals
from fastrunner.engine.embedded.store.wal_check import Mark, read_mark

__all__ = ["START", "Broken", "Journal", "NotNow", "Piece", "Position"]

_LOOKS_MAX: Final = 3
"""An index that is just being written is not whole; it is a moment later."""
_HEADER: Final = struct.Struct(">IIII8s")
_HEADER_SIZE_BYTES: Final = 32
_FRAME_HEADER: Final = struct.Struct(">II8s8s")
_FRAME_HEADER_SIZE_BYTES: Final = _FRAME_HEADER.size


class Broken(Exception):
    """Frames that are wanted are gone: what follows cannot be told without them."""


class NotNow(Exception):
    """It cannot be read at the moment; it may be in the next."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the history of a file: behind some frame of some round of its journal."""

    salts: bytes
    """Which round; zeros for a file without a journal."""
    frames: int
    """How many of its frames are before it."""
    sums: bytes
    """Checksum of the last of them; empty if there is none."""


START: Final = Position(bytes(8), 0, b"")
"""Of a file whose journal is yet to be made."""


@dataclass(slots=True)
class Piece:
    """What some frames have changed."""

    end: Position
    """Where they end."""
    page_size_bytes: int
    """Of each page."""
    pages: dict[int, bytes] = field(default_factory=dict)
    """The pages they have written, as the last of them has each, by number."""
    pages_count: int = 0
    """How many pages the file has then; 0 if they end within a transaction."""

    @property
    def size_bytes(self) -> int:
        """What the pages take."""
        return len(self.pages) * self.page_size_bytes


@dataclass(frozen=True, slots=True)
class _Round:
    """A journal's file: that of the round under way, or a kept one."""

    path: Path
    salts: bytes
    frames: int
    is_first: bool
    page_size_bytes: int

    @property
    def frame_size_bytes(self) -> int:
        return _FRAME_HEADER_SIZE_BYTES + self.page_size_bytes


class Journal:
    """The journal of one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._live = path.with_name(f"{path.name}-wal")

    def committed(self) -> Position:
        """As far as is committed now. Raises NotNow."""
        mark = self._mark()
        if mark is not None and mark.frames:
            return Position(mark.salts, mark.frames, mark.sums)
        try:
            if mark is None and self._live.stat().st_size:
                raise NotNow(f"the index of {self._live.name} is yet to be made by whoever writes it")
        except FileNotFoundError:
            pass
        return START

    def behind_bytes(self, position: Position, committed: Position) -> int:
        """About how many bytes of frames lie between two places. Raises NotNow, OSError."""
        rounds = {each.salts: each for each in self._rounds(committed)}
        size_bytes, at = 0, rounds.get(position.salts)
        taken = position.frames if at is not None else 0
        at = at or self._successor(position, rounds)
        while at is not None:
            end = committed.frames if at.salts == committed.salts else at.frames
            size_bytes += max(0, end - taken) * at.frame_size_bytes
            if at.salts == committed.salts:
                break
            taken, at = 0, self._successor(Position(at.salts, at.frames, b""), rounds)
        return size_bytes

    def read(self, position: Position, committed: Position, size_bytes_max: int) -> Piece:
        """What the next frames have changed on the way to a place that was committed; call again until it is reached.

        Raises Broken, NotNow, OSError.
        """
        rounds = {each.salts: each for each in self._rounds(self.committed())}
        at = rounds.get(position.salts)
        is_over = position.salts != committed.salts and at is not None and position.frames >= at.frames
        if at is not None and is_over and position.frames > at.frames:
            raise Broken(f"{at.path.name} has fewer frames than were read of it")
        if at is None or is_over:
            at, position = self._next(position, rounds), START
        end = committed.frames if at.salts == committed.salts else at.frames
        if end > at.frames or position.frames > end:
            raise Broken(f"{at.path.name} has {at.frames} frames of the {end} that were committed")
        piece = _read(at, position, min(end, position.frames + max(1, size_bytes_max // at.frame_size_bytes)))
        if at.path == self._live and ((mark := self._mark()) is None or mark.salts != at.salts):
            raise NotNow(f"{at.path.name} has just been begun anew")
        if piece.end.salts == committed.salts and piece.end.frames == committed.frames and piece.end != committed:
            raise Broken(f"{at.path.name} is not what its index says")
        return piece

    def forget(self, position: Position) -> None:
        """Deletes what is kept of rounds that are over at a place. Raises NotNow."""
        rounds = {each.salts: each for each in self._rounds(self.committed())}
        passed = {each.salts for each in rounds.values() if each.path != self._live}
        at: Position | None = position
        while at is not None:
            # What follows is yet to be read.
            passed.discard(at.salts)
            following = self._successor(at, rounds)
            at = None if following is None else Position(following.salts, 0, b"")
        for each in kept_journals(self.path):
            if each.salts in passed:
                each.path.unlink(missing_ok=True)

    # --- rounds ---

    def _mark(self) -> Mark | None:
        for _ in range(_LOOKS_MAX):
            with ExitStack() as held:
                mark = read_mark(self.path, held)
            if mark is not None:
                return mark
        return None

    def _rounds(self, committed: Position) -> Iterator[_Round]:
        """Kept ones and the one under way, which may be kept as far as it has been folded."""
        for kept in kept_journals(self.path):
            found = _round_of(kept.path, kept.frames)
            if found is not None and found.salts == kept.salts:
                yield found
        if committed.frames:
            live = _round_of(self._live, committed.frames)
            if live is None or live.salts != committed.salts:
                raise NotNow(f"{self._live.name} has just been begun anew")
            yield live

    def _next(self, position: Position, rounds: dict[bytes, _Round]) -> _Round:
        """The round after that of a position, if all of that one has been read. Raises Broken."""
        found = self._successor(position, rounds)
        if found is None or (position.salts not in rounds and position != START):
            raise Broken(f"what was committed to {self.path.name} has not been kept")
        return found

    def _successor(self, position: Position, rounds: dict[bytes, _Round]) -> _Round | None:
        """SQLite begins a journal with some salts, and adds one to the first of them with each new round."""
        if position == START:
            return next((each for each in rounds.values() if each.is_first), None)
        wanted = (int.from_bytes(position.salts[:4], "big") + 1) & 0xFFFFFFFF
        return next((each for each in rounds.values() if int.from_bytes(each.salts[:4], "big") == wanted), None)


def _round_of(path: Path, frames: int) -> _Round | None:
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
    except FileNotFoundError:
        return None
    if len(head) < _HEADER.size:
        return None
    _, _, page_size, number, salts = _HEADER.unpack(head)
    return _Round(path, salts, frames, number == 0, page_size)


def _read(at: _Round, position: Position, end: int) -> Piece:
    """Frames of a round behind a position and up to one. Raises Broken, OSError."""
    frame_size = at.frame_size_bytes
    # With the one before: that it is the one that was read last shows that nothing else was written meanwhile.
    first = max(0, position.frames - 1)
    with _opened(at.path) as descriptor:
        data = memoryview(os.pread(descriptor, (end - first) * frame_size, _HEADER_SIZE_BYTES + first * frame_size))
    if len(data) < (end - first) * frame_size:
        raise Broken(f"{at.path.name} ends before its {end} frames")
    piece = Piece(position, at.page_size_bytes)
    sums = position.sums
    for number in range(first, end):
        start = (number - first) * frame_size
        page, pages_count, salts, sums = _FRAME_HEADER.unpack_from(data, start)
        if salts != at.salts or (number < position.frames and sums != position.sums):
            raise Broken(f"frame {number + 1} of {at.path.name} is another one than was expected")
        if number >= position.frames:
            piece.pages[page] = bytes(data[start + _FRAME_HEADER_SIZE_BYTES : start + frame_size])
            # Pages of a transaction that has not ended yet may lie beyond.
            piece.pages_count = pages_count
    piece.end = Position(at.salts, end, sums)
    return piece


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Broken(f"{path.name} is gone") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)
