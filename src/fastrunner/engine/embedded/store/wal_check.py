"""Stage 3, journal: whether a shard's journal (`-wal`) still has every commit that was confirmed.

SQLite takes a journal up to the first frame that does not follow from the one before, and takes what comes then for a
commit that a power cut interrupted. Damage in the middle looks the same and hides confirmed commits. Two things tell
them apart, and cost a commit nothing:

- The index of the journal (`-shm`) says how many frames are confirmed. It is written after their fsync, so it is never
  ahead of them, and it outlives a killed process. SQLite makes it anew when the file is opened: it is read before.
- A transaction begins only when the one before is confirmed. So a frame beyond the end that follows, by its checksum,
  from a frame that ends a transaction proves that this one was confirmed.

Rules: no false alarm: what a power cut, a failed commit or an older round of the journal leaves behind proves nothing.
Nothing here writes into a journal; one that is found damaged is kept as it was, beside the file.
"""

import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Final

__all__ = ["Mark", "find_loss", "keep", "kept_journal", "put_aside_if_overtaken", "read_mark"]

_HEADER: Final = struct.Struct(">IIIi8sII")
_FRAME_HEADER: Final = struct.Struct(">II8sII")
_MAGIC: Final = 0x377F0682
_INDEX: Final = struct.Struct("=IIIBBHII8s8s8s")
_CHECKPOINT_OFFSET: Final = 2 * _INDEX.size
_MASK: Final = 0xFFFFFFFF

_Sums = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a journal goes, as its index has it."""

    salts: bytes
    """Which round of the journal this is about."""
    frames: int
    """Frames that are confirmed; 0 after the journal has been folded in whole."""
    folded: int
    """How many of them are in the file itself as well."""
    sums: bytes
    """Checksum of the last of them, as its header has it."""


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def kept_journal(path: Path) -> Path:
    """Where the damaged journal of a shard is kept."""
    return _beside(path, "-wal.damaged")


def read_mark(path: Path, held: ExitStack) -> Mark | None:
    """What the index beside a shard's file says; None if there is none, or none that is whole.

    Whoever closes any descriptor of the index gives up every lock of this process on it, those of SQLite included: the
    next process that opens the shard would cut the index off under a map of it, and kill its owner by SIGBUS. So it
    stays open in `held`, to be closed only when no connection of this process to the shard is open.
    """
    try:
        data = held.enter_context(_beside(path, "-shm").open("rb")).read(_CHECKPOINT_OFFSET + 4)
    except OSError:
        return None
    if len(data) < _CHECKPOINT_OFFSET + 4:
        return None
    one, two = data[: _INDEX.size], data[_INDEX.size : _CHECKPOINT_OFFSET]
    _, _, _, is_made, _, _, frames, _, frame_sums, salts, sums = _INDEX.unpack(one)
    if one != two or not is_made or _sums(one[:-8], "=", (0, 0)) != struct.unpack("=II", sums):
        return None
    (folded,) = struct.unpack_from("=I", data, _CHECKPOINT_OFFSET)
    return Mark(salts, frames, folded, struct.pack(">II", *struct.unpack("=II", frame_sums)))


def _sums(data: bytes, order: str, seed: _Sums) -> _Sums:
    """SQLite's checksum of whole pairs of 32-bit words, going on from `seed`."""
    one, two = seed
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for first, second in zip(words, words, strict=True):
        one = (one + first + two) & _MASK
        two = (two + second + one) & _MASK
    return one, two


class _Journal:
    """A journal's file, open for reading."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        magic, _, page_size, _, self.salts, *self.sums = _HEADER.unpack(file.read(_HEADER.size))
        file.seek(0)
        self._order = ">" if magic & 1 else "<"
        self.is_whole = magic & ~1 == _MAGIC and list(_sums(file.read(24), self._order, (0, 0))) == self.sums
        self._frame_size = _FRAME_HEADER.size + (page_size if self.is_whole else 0)
        size = os.fstat(file.fileno()).st_size - _HEADER.size
        self.frames = size // self._frame_size if self.is_whole else 0

    def header(self, number: int) -> tuple[bool, bytes, _Sums]:
        """(whether it ends a transaction, salts, checksum) of a frame, counted from 1."""
        self._file.seek(_HEADER.size + (number - 1) * self._frame_size)
        _, pages, salts, one, two = _FRAME_HEADER.unpack(self._file.read(_FRAME_HEADER.size))
        return pages > 0, salts, (one, two)

    def follows(self, number: int, before: _Sums) -> bool:
        """Whether a frame was written right after one with such a checksum."""
        _, salts, sums = self.header(number)
        self._file.seek(_HEADER.size + (number - 1) * self._frame_size)
        frame = self._file.read(self._frame_size)
        actual = _sums(frame[_FRAME_HEADER.size :], self._order, _sums(frame[:8], self._order, before))
        return salts == self.salts and actual == sums

    def holds(self, frames: int) -> bool:
        """Whether its first so many frames are what was written; takes a fifth of a millisecond each."""
        before: _Sums = (self.sums[0], self.sums[1])
        for number in range(1, frames + 1):
            if number > self.frames or not self.follows(number, before):
                return False
            before = self.header(number)[2]
        return True

    def confirmed_beyond(self, end: int) -> Iterator[int]:
        """Frames after `end` that end a transaction which the following frame proves to be confirmed."""
        found = ((number, *self.header(number)) for number in range(end + 1, self.frames + 1))
        mine = (frame for frame in found if frame[2] == self.salts)
        for (number, is_last, _, sums), (following, *_) in pairwise(mine):
            if is_last and following == number + 1 and self.follows(following, sums):
                yield number


def _open(path: Path) -> BinaryIO | None:
    """The journal of a shard; None if it is missing, or too short to say anything."""
    try:
        file = _beside(path, "-wal").open("rb")
    except OSError:
        return None
    if os.fstat(file.fileno()).st_size < _HEADER.size + _FRAME_HEADER.size:
        file.close()
        return None
    return file


def put_aside_if_overtaken(path: Path, mark: Mark | None) -> str:
    """Takes a damaged journal away that the file itself is ahead of; what was lost with it, empty if nothing was.

    Call before the file is opened. SQLite would read old pages from such a journal in front of newer ones in the file,
    and in the end write them there. Without it the file is as of the last commit that was folded in.
    """
    if mark is None or not 0 < mark.folded <= mark.frames:
        return ""
    file = _open(path)
    if file is None:
        return ""
    with file:
        journal = _Journal(file)
        if journal.is_whole and (journal.salts != mark.salts or journal.holds(mark.folded)):
            return ""
    if mark.folded == mark.frames:
        # All of it is in the file, so nothing is lost and there is nothing to look into.
        _beside(path, "-wal").unlink()
    else:
        _beside(path, "-wal").replace(kept_journal(path))
    _beside(path, "-shm").unlink()
    return "" if mark.folded == mark.frames else _sentence(mark.frames, mark.folded)


def _sentence(confirmed: int, left: int) -> str:
    return f"its journal is damaged: {confirmed} of its frames were confirmed, {left} are left; later commits are lost"


def find_loss(path: Path, before: Mark | None, held: ExitStack) -> str:
    """Which confirmed commits the journal no longer has, as a sentence; empty if it has them all.

    Call when the file has been opened and read, and before it is written; `before` is its mark from before it was
    opened, `held` as for `read_mark`.
    """
    now = read_mark(path, held)
    left = 0 if now is None else now.frames
    file = _open(path)
    if file is None:
        lost = before is not None and before.frames > max(left, before.folded)
        return "its journal is missing or cut off: commits that were confirmed are lost" if lost else ""
    with file:
        journal = _Journal(file)
        salts = journal.salts if journal.is_whole else journal.header(1)[1]
        if before is not None and before.salts == salts and before.frames > max(left, before.folded if not left else 0):
            return _sentence(before.frames, left)
        for number in journal.confirmed_beyond(left):
            # A running owner may have gone on since: then its index has gone on first.
            now = read_mark(path, held)
            if now is None or now.salts != journal.salts or now.frames < number:
                return _sentence(number, left)
            break
    return ""


def keep(path: Path) -> None:
    """Keeps a copy of a damaged journal for whoever wants to look into it; the first one stays. Raises OSError."""
    target = kept_journal(path)
    if not target.exists() and _beside(path, "-wal").exists():
        shutil.copyfile(_beside(path, "-wal"), target)
