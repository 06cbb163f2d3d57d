"""Stage 3, journal: rows of events, on their way into a shard's file and out of it.

    written    messages -> packed -> sealed, if there is a key -> checksum over what is stored
    read       checksum -> opened -> unpacked -> messages

Events of one execution say much the same one after another: packed (an LZ4 block with its size in front), a commit
writes a quarter of the pages, and a checkpoint again.

    format 0   written by schema version 1: no checksum (0), not packed
    format 1   not packed: rows of before schema version 13, and those that are too small for it
    format 3   packed

Rules: a row is what was written or `EventsDamaged`, in half a sentence without content. Nothing is unpacked before its
checksum holds, nor into more than its size can hold.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import lz4.block

from fastrunner.base import limits
from fastrunner.engine.embedded.store import proofs
from fastrunner.engine.embedded.store.proofs import FORMAT
from fastrunner.engine.embedded.store.seals import NotOpened, Seals, events_place
from fastrunner.progress.wire import frames

__all__ = ["PACKED_FORMAT", "EventsDamaged", "is_proven", "looked_at", "messages_of", "stored", "unpacked"]

_T = TypeVar("_T")

PACKED_FORMAT: Final = 3
"""The format of rows that are packed; 2 is one of other tables'."""

_SIZE_BYTES: Final = 4
"""Of the size in front of a block."""
_GROWTH_MAX: Final = 255
"""No block holds more than so many times its own size (LZ4 block format: a length goes on by at most 255 a byte)."""


class EventsDamaged(ValueError):
    """A row of events is not what was written, or cannot be opened; the message is half a sentence: what they are."""


def stored(seals: Seals, execution_id: str, key: int, first: int, last: int, messages: bytes) -> tuple[bytes, int, int]:
    """What is stored of the events `first` to `last` of an execution: their messages, format and checksum."""
    row_format = FORMAT
    if len(messages) >= limits.EVENTS_PACKED_SIZE_BYTES_MIN:
        messages, row_format = lz4.block.compress(messages), PACKED_FORMAT
    if seals.sealer is not None:
        messages = seals.sealer.seal(messages, events_place(execution_id, first, last))
    return messages, row_format, proofs.events_checksum(key, first, last, messages)


def messages_of(seals: Seals, execution_id: str, key: int, row: Sequence[Any]) -> bytes:
    """The messages of a row (first, last, messages, format, checksum). Raises EventsDamaged."""
    return unpacked(_opened(seals.opened, execution_id, key, row), row[3])


def looked_at(seals: Seals, execution_id: str, key: int, row: Sequence[Any]) -> None:
    """The same for whoever checks, who may have no key for what is sealed. Raises EventsDamaged."""
    opened = _opened(seals.looked_at, execution_id, key, row)
    if opened is not None:
        unpacked(opened, row[3])


def is_proven(key: int, row: Sequence[Any]) -> bool:
    """Whether a row is what was written; without a checksum, whether it has as many events as it says."""
    first: int
    last: int
    value: bytes
    row_format: int
    checksum: int
    first, last, value, row_format, checksum = row
    if row_format == 0:
        # Where there is a checksum, it is the format that is damaged.
        return checksum == 0 and _count(value) == last - first + 1
    return row_format in (FORMAT, PACKED_FORMAT) and checksum == proofs.events_checksum(key, first, last, value)


def _opened(open_value: Callable[[bytes, bytes], _T], execution_id: str, key: int, row: Sequence[Any]) -> _T:
    if not is_proven(key, row):
        raise EventsDamaged("do not match their checksum")
    try:
        return open_value(row[2], events_place(execution_id, row[0], row[1]))
    except NotOpened as error:
        raise EventsDamaged(f"are in a row that {error}") from error


def unpacked(value: bytes, row_format: int) -> bytes:
    """The messages that an opened value holds. Raises EventsDamaged."""
    if row_format != PACKED_FORMAT:
        return value
    if int.from_bytes(value[:_SIZE_BYTES], "little") > _GROWTH_MAX * len(value):
        raise EventsDamaged("are packed as more than they can be")
    try:
        messages: bytes = lz4.block.decompress(value)
    except (lz4.block.LZ4BlockError, ValueError) as error:
        raise EventsDamaged("do not unpack") from error
    return messages


def _count(messages: bytes) -> int:
    try:
        return sum(1 for _ in frames(messages))
    except ValueError:
        return -1
