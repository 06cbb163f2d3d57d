"""Stage 3, journal: large values: what is stored once under its hash, and the claims that keep it.

An input, an output or a snapshot of LARGE_VALUE_SIZE_BYTES or more does not lie in its row. An input or output lies in
`large_values` whole, a snapshot in pieces, and the row has the hash:

    byte 0      128: a divided snapshot (formats below are the core's own)
    bytes 1-4   CRC-32 of the rest, big-endian
    from 5      segments: kind (0 in place, 1 claimed), size (4 bytes, big-endian), the bytes or their SHA-256

Theory of operation. From commit to commit most of a large snapshot stays what it was, but moves by a few bytes, because
sequence numbers and times before it get longer. So the pieces of the snapshot before are looked for in the new one, at
the place where they should be and a little around it. What lies between two that are found is compared with what lay
between them before: what has stayed becomes a piece of its own, so does what is new and large, and the rest, a few
hundred bytes of fields, is written in place. Cutting by the bytes and not by the walk's values also finds what two
values have in common: a list that has grown by one, an object that was wrapped into another.

Rule: pieces are found by comparing bytes, never by trusting a position, so a snapshot put together again is the one
that was taken; its own checksum, within, says so again when it is read.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from zlib import crc32

from fastrunner.base import limits

__all__ = [
    "Claims",
    "DividedSnapshot",
    "claimed_by",
    "digest_of",
    "divide",
    "hash_of",
    "is_divided",
    "is_large",
    "join",
]

_FORMAT: Final = 128
_HEADER_SIZE: Final = 5
_SEGMENT_HEADER_SIZE: Final = 5
_HASH_SIZE: Final = 32
_PROBE_SIZE: Final = 64
_PROBES_MAX: Final = 4

_Pieces = list[tuple[int, int, bytes]]
"""(start, end, hash) of the parts of a snapshot that are stored by hash, in order."""


@dataclass(slots=True)
class Claims:
    """What an execution's snapshot needs from the next commit on, against the one before."""

    added: dict[bytes, bytes]
    """Values by hash."""
    dropped: set[bytes]
    """Hashes no longer needed."""


@dataclass(frozen=True, slots=True)
class DividedSnapshot:
    """A large snapshot as it was stored last."""

    data: bytes
    """All of it."""
    pieces: _Pieces
    """What of it is stored by hash."""


def is_large(size_bytes: int) -> bool:
    """Whether a value is stored under its hash."""
    return size_bytes >= limits.LARGE_VALUE_SIZE_BYTES


def hash_of(value: bytes) -> bytes:
    """Under what a value is stored."""
    return sha256(value).digest()


def digest_of(name: str) -> bytes:
    """A hash by its hexadecimal digits; empty if they are none, so that nothing is stored under it."""
    try:
        return bytes.fromhex(name)
    except ValueError:
        return b""


# --- dividing ---


def divide(snapshot: bytes, before: DividedSnapshot | None) -> tuple[bytes, DividedSnapshot | None, Claims | None]:
    """What to store as the snapshot, how it is divided, and how its claims change; most are small and stay as they are.

    `before` is the execution's last one, as given by the last call.
    """
    if not is_large(len(snapshot)):
        return snapshot, None, None if before is None else Claims({}, {piece[2] for piece in before.pieces})
    pieces = _fresh(snapshot, 0, len(snapshot)) if before is None else _continued(snapshot, before)
    if len(pieces) > limits.SNAPSHOT_PIECES_MAX:
        # Cut up by many small changes.
        pieces = _fresh(snapshot, 0, len(snapshot))
    old = set() if before is None else {piece[2] for piece in before.pieces}
    new = {digest: snapshot[start:end] for start, end, digest in pieces if digest not in old}
    dropped = old.difference(piece[2] for piece in pieces)
    claims = Claims(new, dropped) if new or dropped else None
    return _encoded(snapshot, pieces), DividedSnapshot(snapshot, pieces), claims


def _fresh(data: bytes, begin: int, end: int) -> _Pieces:
    """Even pieces of a part that is new; a short rest at the end is none."""
    pieces = []
    for start in range(begin, end, limits.SNAPSHOT_PIECE_SIZE_BYTES):
        stop = min(end, start + limits.SNAPSHOT_PIECE_SIZE_BYTES)
        if stop - start >= limits.SNAPSHOT_PIECE_SIZE_BYTES_MIN:
            pieces.append((start, stop, hash_of(data[start:stop])))
    return pieces


def _continued(data: bytes, before: DividedSnapshot) -> _Pieces:
    pieces: _Pieces = []
    done = done_before = shift = 0
    for start, end, digest in before.pieces:
        at = _find(data, before.data[start:end], done, start + shift)
        if at < 0:
            continue
        pieces += _between(data, done, at, before.data[done_before:start])
        pieces.append((at, at + end - start, digest))
        done, done_before, shift = at + end - start, end, at - start
    return pieces + _between(data, done, len(data), before.data[done_before:])


def _find(data: bytes, piece: bytes, begin: int, expected: int) -> int:
    """Where a piece lies at or after `begin`, not far from where it should; -1 if it does not."""
    if expected >= begin and data.startswith(piece, expected):
        return expected
    probe, end = piece[:_PROBE_SIZE], expected + 4 * limits.SNAPSHOT_PIECE_SIZE_BYTES
    at = max(begin, expected - 4 * limits.SNAPSHOT_PIECE_SIZE_BYTES) - 1
    for _ in range(_PROBES_MAX):
        at = data.find(probe, at + 1, max(0, end))
        if at < 0 or data.startswith(piece, at):
            return at
    return -1


def _between(data: bytes, begin: int, end: int, before: bytes) -> _Pieces:
    """Pieces of a part that none of the old ones covers; `before` is what was in its place."""
    if end - begin < limits.SNAPSHOT_PIECE_SIZE_BYTES_MIN:
        return []
    part = data[begin:end]
    head = _common_size(part, before, lambda text, low, high: text[low:high])
    part, before = part[head:], before[head:]
    tail = _common_size(part, before, lambda text, low, high: text[len(text) - high : len(text) - low])
    new_begin, new_end = begin + head, end - tail
    pieces = _fresh(data, begin, new_begin)
    if new_end - new_begin >= limits.SNAPSHOT_PIECE_SIZE_BYTES:
        pieces += _fresh(data, new_begin, new_end)
    return pieces + _fresh(data, new_end, end)


def _common_size(one: bytes, other: bytes, cut: Callable[[bytes, int, int], bytes]) -> int:
    """How many bytes two texts share, counted from the end that `cut` counts from."""
    low, high = 0, min(len(one), len(other))
    if cut(one, 0, high) == cut(other, 0, high):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if cut(one, low, middle) == cut(other, low, middle):
            low = middle
        else:
            high = middle
    return low


# --- the stored form ---


def _encoded(data: bytes, pieces: _Pieces) -> bytes:
    parts = []
    done = 0
    for start, end, digest in pieces:
        if start > done:
            parts += [b"\x00", (start - done).to_bytes(4, "big"), data[done:start]]
        parts += [b"\x01", (end - start).to_bytes(4, "big"), digest]
        done = end
    if done < len(data):
        parts += [b"\x00", (len(data) - done).to_bytes(4, "big"), data[done:]]
    body = b"".join(parts)
    return bytes([_FORMAT]) + crc32(body).to_bytes(4, "big") + body


def is_divided(stored: bytes) -> bool:
    """Whether a stored snapshot has pieces elsewhere."""
    return stored[:1] == bytes([_FORMAT])


def join(stored: bytes, find: Callable[[bytes], bytes | None]) -> DividedSnapshot:
    """A divided snapshot as it was taken; `find` gives a value by its hash. Raises ValueError, saying what is wrong."""
    body = stored[_HEADER_SIZE:]
    if crc32(body) != int.from_bytes(stored[1:_HEADER_SIZE], "big"):
        raise ValueError("its snapshot does not match its checksum")
    parts: list[bytes] = []
    pieces: _Pieces = []
    done = 0
    for kind, size, content in _segments(body):
        if kind:
            value = find(content)
            if value is None or len(value) != size or hash_of(value) != content:
                raise ValueError(f"a piece of its snapshot {'is missing' if value is None else 'is not what it was'}")
            pieces.append((done, done + size, content))
            content = value
        parts.append(content)
        done += size
    return DividedSnapshot(b"".join(parts), pieces)


def _segments(body: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(whether it is claimed, size, bytes or hash) of each segment of a body whose checksum is right."""
    at = 0
    while at < len(body):
        kind, size = body[at], int.from_bytes(body[at + 1 : at + _SEGMENT_HEADER_SIZE], "big")
        at += _SEGMENT_HEADER_SIZE
        stop = at + (_HASH_SIZE if kind else size)
        yield kind, size, body[at:stop]
        at = stop


def claimed_by(stored: bytes) -> Sequence[bytes]:
    """The hashes a stored snapshot needs; none of one that is not divided, or damaged."""
    body = stored[_HEADER_SIZE:]
    if not is_divided(stored) or crc32(body) != int.from_bytes(stored[1:_HEADER_SIZE], "big"):
        return ()
    return [content for kind, _, content in _segments(body) if kind]
