"""Rows of events are taken apart as their format says: checked against the same in plain Python."""

import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrunner.progress.wire import field_1, frames, offset_after, split


def plain_frames(messages: bytes) -> Iterator[tuple[int, int]]:
    position, size = 0, len(messages)
    while position < size:
        if messages[position] != 0x0A:
            raise ValueError(f"a row of events is damaged: no event starts at byte {position}")
        position += 1
        length = shift = 0
        while True:
            if position >= size or shift > 28:
                raise ValueError(f"a row of events is damaged: the length before byte {position} is cut short")
            byte = messages[position]
            position += 1
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        start, position = position, position + length
        if position > size:
            raise ValueError(f"a row of events is damaged: the event at byte {start} is cut short")
        yield start, position


EVENTS = st.lists(st.binary(max_size=4) | st.sampled_from([b"x" * 127, b"x" * 128, b"y" * 16_384]), max_size=6)
ROWS = EVENTS.map(lambda events: b"".join(map(field_1, events)))
DAMAGED = st.tuples(ROWS, st.binary(max_size=8), ROWS).map(b"".join) | st.sampled_from(
    [
        b"\x0a",
        b"\x0a\x80\x00",
        b"\x0a\x80\x80\x80\x80\x80\x00",
        b"\x0a\xff\xff\xff\xff\x7f",
        b"\x0a\xff\xff\xff\xff\x0f",
    ]
)


@given(ROWS | DAMAGED)
def test_a_row_is_taken_apart_as_in_plain_python(row: bytes) -> None:
    expected: list[tuple[int, int]] = []
    damage = ""
    try:
        expected += plain_frames(row)
    except ValueError as error:
        damage = str(error)
    if damage:
        for take_apart in (frames, split):
            with pytest.raises(ValueError, match=f"^{re.escape(damage)}$"):
                take_apart(row)
    else:
        assert frames(row) == expected
        assert split(row) == [row[start:end] for start, end in expected]


@given(EVENTS, st.integers(0, 8), st.integers(0, 300))
def test_as_many_events_as_fit(events: list[bytes], count: int, size_bytes_max: int) -> None:
    ends = [end for _, end in plain_frames(b"".join(map(field_1, events)))][:count]
    fitting = [end for place, end in enumerate(ends) if not place or end <= size_bytes_max]
    # The first one that does not fit ends it, whatever follows.
    taken = next((place for place, end in enumerate(ends) if place and end > size_bytes_max), len(ends))
    offset = ends[taken - 1] if taken else 0
    assert offset_after(b"".join(map(field_1, events)), count, size_bytes_max) == (taken, offset)
    assert len(fitting) == taken
