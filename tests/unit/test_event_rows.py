"""Rows of events: packed, sealed and proven on their way into a file, and nothing else on their way out."""

import os
import zlib
from pathlib import Path
from typing import Any

import lz4.block
import pytest

from fastrunner.access.sealing import DataKeys, add_key, is_sealed
from fastrunner.base import limits
from fastrunner.engine.embedded.store import event_rows
from fastrunner.engine.embedded.store.event_rows import PACKED_FORMAT, EventsDamaged
from fastrunner.engine.embedded.store.proofs import FORMAT, events_checksum
from fastrunner.engine.embedded.store.seals import Seals

_EVENT = b"\x0a\x04same"
_MANY = _EVENT * limits.EVENTS_PACKED_SIZE_BYTES_MIN


@pytest.fixture
def sealing(tmp_path: Path) -> Seals:
    add_key(tmp_path / "keys", "one")
    return Seals(DataKeys.read(tmp_path / "keys"))


def _row(seals: Seals, messages: bytes) -> tuple[Any, ...]:
    return (1, 3, *event_rows.stored(seals, "some", 7, 1, 3, messages))


def _forged(value: bytes, row_format: int = PACKED_FORMAT) -> tuple[Any, ...]:
    return (1, 3, value, row_format, events_checksum(7, 1, 3, value))


@pytest.mark.parametrize("is_sealing", [False, True])
@pytest.mark.parametrize(
    "messages",
    [
        b"",
        _EVENT,
        _EVENT * 100,
        _MANY,
        os.urandom(limits.EVENTS_PACKED_SIZE_BYTES_MIN),
        os.urandom(100_000),
        bytes(4_000_000),
    ],
    ids=["nothing", "one", "few", "many", "noise", "much noise", "zeros"],
)
def test_a_row_is_read_as_it_was_written(messages: bytes, is_sealing: bool, sealing: Seals) -> None:
    seals = sealing if is_sealing else Seals()
    row = _row(seals, messages)
    assert is_sealed(row[2]) == is_sealing
    assert event_rows.messages_of(seals, "some", 7, row) == messages
    event_rows.looked_at(seals, "some", 7, row)


def test_rows_are_packed_from_a_size_on() -> None:
    size = limits.EVENTS_PACKED_SIZE_BYTES_MIN
    below, at = _row(Seals(), bytes(size - 1)), _row(Seals(), bytes(size))
    assert (below[3], len(below[2])) == (FORMAT, size - 1)
    assert at[3] == PACKED_FORMAT
    assert len(at[2]) < size // 10


def test_whoever_has_no_key_looks_at_what_is_not_sealed(sealing: Seals) -> None:
    row = _row(sealing, _MANY)
    event_rows.looked_at(Seals(), "some", 7, row)
    with pytest.raises(EventsDamaged, match="is sealed with the key 'one'"):
        event_rows.messages_of(Seals(), "some", 7, row)
    with pytest.raises(EventsDamaged, match="it is not what was written there"):
        event_rows.messages_of(sealing, "another", 7, row)


@pytest.mark.parametrize("position", [0, 3, 4, 20, -1])
def test_one_changed_byte_is_noticed_before_anything_is_unpacked(position: int) -> None:
    first, last, value, row_format, checksum = _row(Seals(), _MANY)
    changed = bytearray(value)
    changed[position] ^= 0x40
    for each in (event_rows.messages_of, event_rows.looked_at):
        with pytest.raises(EventsDamaged, match="do not match their checksum"):
            each(Seals(), "some", 7, (first, last, bytes(changed), row_format, checksum))


@pytest.mark.parametrize("key_and_places", [(8, 1, 3), (7, 2, 3), (7, 1, 4)])
def test_a_row_belongs_where_it_was_written(key_and_places: tuple[int, int, int]) -> None:
    key, *places = key_and_places
    row = _row(Seals(), _MANY)
    with pytest.raises(EventsDamaged, match="do not match their checksum"):
        event_rows.messages_of(Seals(), "some", key, (*places, *row[2:]))


@pytest.mark.parametrize("row_format", [0, 2, 4, -1])
def test_a_format_that_events_do_not_have_is_damage(row_format: int) -> None:
    row = _row(Seals(), _MANY)
    assert not event_rows.is_proven(7, (*row[:3], row_format, row[4]))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"", "do not unpack"),
        (b"\x01\x00", "do not unpack"),
        (b"\x10\x00\x00\x00", "do not unpack"),
        (b"\x10\x00\x00\x00\xff\xff", "do not unpack"),
        (lz4.block.compress(_MANY)[:-3], "do not unpack"),
        (b"\x00\x10" + lz4.block.compress(_MANY)[2:], "do not unpack"),
        (zlib.compress(_MANY), "are packed as more than they can be"),
        (b"\xff\xff\xff\x7f" + lz4.block.compress(_MANY)[4:], "are packed as more than they can be"),
        (b"\xff\xff\xff\xff", "are packed as more than they can be"),
    ],
    ids=["empty", "short", "size alone", "cut", "end cut", "size wrong", "another packer's", "2 GiB", "4 GiB"],
)
def test_what_fits_its_checksum_and_is_not_packed_is_damage(value: bytes, says: str) -> None:
    """Somebody who may write the file can write a checksum as well, and no size has memory taken for it."""
    for each in (event_rows.messages_of, event_rows.looked_at):
        with pytest.raises(EventsDamaged, match=says):
            each(Seals(), "some", 7, _forged(value))


def test_rows_of_before_are_read_as_they_are() -> None:
    assert event_rows.messages_of(Seals(), "some", 7, _forged(_MANY, FORMAT)) == _MANY
    three = _EVENT * 3
    assert event_rows.messages_of(Seals(), "some", 7, (1, 3, three, 0, 0)) == three
    for wrong in ((1, 4, three, 0, 0), (1, 3, three, 0, 5), (1, 3, three + b"\x0a", 0, 0)):
        assert not event_rows.is_proven(7, wrong)
