"""Dividing a snapshot: whatever changes, it comes back byte for byte, and what stayed is not stored again."""

import random
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrunner.base import limits
from fastrunner.engine.embedded.store.large_values import DividedSnapshot, claimed_by, divide, is_divided, join

PIECE = limits.SNAPSHOT_PIECE_SIZE_BYTES
LARGE = limits.LARGE_VALUE_SIZE_BYTES
CHANCE = random.Random(5)
NOISE = CHANCE.randbytes(10 * PIECE)


class Shelf:
    """Keeps what is claimed, as the store does, and counts what is written."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.before: DividedSnapshot | None = None
        self.written_size_bytes = 0

    def put(self, snapshot: bytes) -> bytes:
        stored, self.before, claims = divide(snapshot, self.before)
        self.written_size_bytes = len(stored)
        if claims is not None:
            self.values.update(claims.added)
            self.written_size_bytes += sum(map(len, claims.added.values()))
            for digest in claims.dropped:
                del self.values[digest]
        assert set(self.values) == set(claimed_by(stored))
        assert (join(stored, self.values.get).data if is_divided(stored) else stored) == snapshot
        return stored


def test_small_snapshot_stays_as_it_is() -> None:
    shelf = Shelf()
    assert shelf.put(NOISE[: LARGE - 1]) == NOISE[: LARGE - 1]
    assert not shelf.values
    assert is_divided(shelf.put(NOISE[:LARGE]))
    shelf.put(NOISE[: LARGE - 1])
    assert not shelf.values


@pytest.mark.parametrize("filler", [NOISE, b"x" * len(NOISE), b'{"a":1},' * (len(NOISE) // 8)])
def test_fields_before_the_values_grow_without_writing_the_values_again(filler: bytes) -> None:
    shelf = Shelf()
    shelf.put(b"fields:1," + filler)
    shelf.put(b"fields:10," + filler)
    for number in (100, 1_000, 10_000, 7):
        shelf.put(b"fields:%d," % number + filler)
        assert shelf.written_size_bytes < 2_000


def test_growing_list_and_wrapped_value_write_what_is_new() -> None:
    shelf = Shelf()
    shelf.put(b"[" + NOISE[: 5 * PIECE] + b"]")
    shelf.put(b"[" + NOISE[: 6 * PIECE] + b"]")
    assert shelf.written_size_bytes < 2 * PIECE + 2_000
    shelf.put(b'{"wrapped":[' + NOISE[: 6 * PIECE] + b'],"more":1}')
    assert shelf.written_size_bytes < 2 * PIECE
    shelf.put(b'{"wrapped":[' + NOISE[: 6 * PIECE] + b'],"more":2}')
    assert shelf.written_size_bytes < 2_000
    shelf.put(b'{"wrapped":[' + NOISE[PIECE : 6 * PIECE] + b'],"more":2}')
    assert shelf.written_size_bytes < PIECE + 2_000


def test_short_rest_is_no_piece() -> None:
    smallest = limits.SNAPSHOT_PIECE_SIZE_BYTES_MIN
    for rest, count in ((smallest - 1, 1), (smallest, 2)):
        shelf = Shelf()
        shelf.put(NOISE[: PIECE + rest])
        assert len(shelf.values) == count


def test_snapshot_that_is_cut_up_further_and_further_is_cut_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SNAPSHOT_PIECES_MAX", 25)
    shelf, snapshot = Shelf(), NOISE
    counts = []
    for _ in range(60):
        at = CHANCE.randrange(len(snapshot))
        snapshot = snapshot[:at] + b"!" + snapshot[at + 1 :]
        shelf.put(snapshot)
        assert shelf.before is not None
        counts.append(len(shelf.before.pieces))
    assert max(counts) <= 25
    assert max(counts) > 10
    assert counts != sorted(counts)


def test_short_parts_are_written_with_the_row() -> None:
    """What small changes leave between them is no piece of its own."""
    shelf, snapshot = Shelf(), NOISE
    for _ in range(200):
        at = CHANCE.randrange(len(snapshot))
        snapshot = snapshot[:at] + b"!" + snapshot[at + 1 :]
        shelf.put(snapshot)
        assert min(map(len, shelf.values.values())) >= limits.SNAPSHOT_PIECE_SIZE_BYTES_MIN


EDITS = st.lists(
    st.tuples(
        st.floats(0, 1), st.integers(0, 3 * PIECE), st.integers(0, 3 * PIECE), st.sampled_from([b"x", b"ab", b"\x00"])
    ),
    max_size=6,
)


@given(st.integers(0, 8 * PIECE), EDITS)
def test_any_history_of_changes_is_put_together_again(
    size_bytes: int, edits: list[tuple[float, int, int, bytes]]
) -> None:
    shelf, snapshot = Shelf(), NOISE[:size_bytes]
    shelf.put(snapshot)
    for place, removed, added, unit in edits:
        at = int(place * len(snapshot))
        snapshot = snapshot[:at] + (unit * added)[:added] + snapshot[at + removed :]
        shelf.put(snapshot)


def test_what_is_stored_is_proven() -> None:
    shelf = Shelf()
    stored = shelf.put(NOISE)
    digest = next(iter(shelf.values))
    with pytest.raises(ValueError, match="does not match its checksum"):
        join(stored[:-1] + b"\x00\x00", shelf.values.get)
    with pytest.raises(ValueError, match="a piece of its snapshot is missing"):
        join(stored, {**shelf.values, digest: None}.get)
    with pytest.raises(ValueError, match="a piece of its snapshot is not what it was"):
        join(stored, {**shelf.values, digest: bytes(len(shelf.values[digest]))}.get)
    assert claimed_by(stored[:5] + b"\x07" + stored[6:]) == ()
    assert stored[:5] == b"\x80" + crc32(stored[5:]).to_bytes(4, "big")
