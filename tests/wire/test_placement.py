"""Stage 1, routing: the placement table in one process: against a multiset, at its bounds, and what it refuses."""

import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrunner._wire import Placement, TableFull
from fastrunner.base import limits
from tests.properties import examples

KEY = bytes(range(16))
ONE_STRIPE_BITS = 40
"""Of so many bits of a hash, the ones that choose the stripe are 0."""
STRIPE_SLOTS = 1 << limits.PLACEMENT_STRIPE_LOG2_MAX


def table(hash_bits: int = 48) -> Placement:
    descriptor = Placement.create()
    try:
        return Placement(descriptor, KEY, hash_bits=hash_bits)
    finally:
        os.close(descriptor)


@pytest.fixture
def placement() -> Iterator[Placement]:
    opened = table()
    yield opened
    opened.close()


def packed(hashes: Any) -> bytes:
    return array("Q", hashes).tobytes()


# --- hashes ---


def sip_hash(key: bytes, text: bytes) -> int:
    """SipHash-2-4, written down from its paper."""
    mask = (1 << 64) - 1
    first, second = (int.from_bytes(key[at : at + 8], "little") for at in (0, 8))
    v = [
        first ^ 0x736F6D6570736575,
        second ^ 0x646F72616E646F6D,
        first ^ 0x6C7967656E657261,
        second ^ 0x7465646279746573,
    ]

    def mix(left: int, right: int, count: int, half: bool) -> None:
        v[left] = (v[left] + v[right]) & mask
        v[right] = ((v[right] << count | v[right] >> (64 - count)) & mask) ^ v[left]
        if half:
            v[left] = (v[left] << 32 | v[left] >> 32) & mask

    def rounds(count: int) -> None:
        for _ in range(count):
            mix(0, 1, 13, True)
            mix(2, 3, 16, False)
            mix(0, 3, 21, False)
            mix(2, 1, 17, True)

    padded = text + bytes(-(len(text) + 1) % 8) + bytes([len(text) & 255])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def test_reference_is_as_published() -> None:
    assert sip_hash(KEY, bytes(range(15))) == 0xA129CA6149BE45E5


@examples(100)
@given(key=st.binary(min_size=16, max_size=16), text=st.text(max_size=40))
def test_hashes_are_of_the_text_in_utf_8(key: bytes, text: str) -> None:
    descriptor = Placement.create()
    opened = Placement(descriptor, key)
    os.close(descriptor)
    assert opened.hash_of(text) == sip_hash(key, text.encode()) >> 16
    opened.close()


# --- against a multiset ---

IDS = [f"e{number}" for number in range(24)]
SHARDS = st.integers(0, 3)
STEPS = st.one_of(
    st.tuples(st.just("claim"), st.sampled_from(IDS), SHARDS, st.lists(SHARDS, max_size=3).map(tuple)),
    st.tuples(st.just("release"), st.sampled_from(IDS), SHARDS),
    st.tuples(st.just("settle"), SHARDS, st.lists(st.sampled_from(IDS), max_size=30)),
    st.tuples(st.just("settle_hashes"), SHARDS, st.lists(st.sampled_from(IDS), max_size=30)),
    st.tuples(st.just("claim_many"), st.integers(0, 900), SHARDS),
    st.tuples(st.just("release_many"), st.integers(0, 900), SHARDS),
)


class Model:
    """What the table promises: a multiset of (hash, shard)."""

    def __init__(self, opened: Placement) -> None:
        self.opened = opened
        self.entries: Counter[tuple[int, int]] = Counter()

    def shards_of(self, name: str) -> list[int]:
        hashed = self.opened.hash_of(name)
        return sorted({shard for found, shard in self.entries if found == hashed})

    def claim(self, name: str, shard: int, excluded: tuple[int, ...] = ()) -> None:
        others = set(self.shards_of(name)) - set(excluded)
        answer = self.opened.claim(name, shard, excluded)
        assert answer in others if others else answer == -1
        if not others:
            self.entries[self.opened.hash_of(name), shard] += 1

    def release(self, name: str, shard: int) -> None:
        entry = self.opened.hash_of(name), shard
        assert self.opened.release(name, shard) == (self.entries[entry] > 0)
        self.entries -= Counter([entry])

    def settle(self, shard: int, names: list[str]) -> None:
        self._settled(shard, names, lambda: self.opened.settle(shard, iter(names)))

    def settle_hashes(self, shard: int, names: list[str]) -> None:
        hashes = packed(self.opened.hash_of(name) for name in names)
        self._settled(shard, names, lambda: self.opened.settle_hashes(shard, hashes))

    def _settled(self, shard: int, names: list[str], settle: Callable[[], tuple[int, int]]) -> None:
        old = Counter({entry: count for entry, count in self.entries.items() if entry[1] == shard})
        new = Counter((self.opened.hash_of(name), shard) for name in names)
        assert settle() == ((new - old).total(), (old - new).total())
        self.entries = self.entries - old + new

    def claim_many(self, count: int, shard: int) -> None:
        for number in range(count):
            self.claim(f"many-{number}", shard)

    def release_many(self, count: int, shard: int) -> None:
        for number in range(count):
            self.release(f"many-{number}", shard)

    def check(self) -> None:
        for name in IDS:
            assert list(self.opened.find(name)) == self.shards_of(name)
        for shard in range(4):
            hashes = sorted(
                found for (found, owner), count in self.entries.items() if owner == shard for _ in range(count)
            )
            assert self.opened.hashes(shard) == packed(hashes)
        assert self.opened.usage()[0] == self.entries.total()


@examples(100)
@given(steps=st.lists(STEPS, max_size=12), hash_bits=st.sampled_from([1, 3, ONE_STRIPE_BITS, 48]))
def test_any_steps_are_as_with_a_multiset(steps: list[tuple[Any, ...]], hash_bits: int) -> None:
    """With hashes that collide, in a stripe that grows and shrinks, and in all of them."""
    model = Model(table(hash_bits))
    for name, *arguments in steps:
        if name.endswith("_many") and hash_bits < ONE_STRIPE_BITS:
            continue
        getattr(model, name)(*arguments)
    model.check()
    model.opened.close()


def test_memory_follows_what_lives() -> None:
    """Ten thousand ids come and go in one stripe, a few live all the time, and none is ever lost."""
    opened = table(ONE_STRIPE_BITS)
    small_bytes = opened.usage()[1]
    for number in range(10_000):
        assert opened.claim(f"e{number}", 1) == -1
    assert opened.usage()[1] >= small_bytes + 8 * 10_000
    for number in range(9_990):
        assert opened.release(f"e{number}", 1)
        assert opened.find("e9999") == (1,)
    assert opened.usage()[:2] == (10, small_bytes)
    for number in range(100_000):
        assert opened.claim(f"f{number}", 2) == -1
        if number >= 100:
            assert opened.release(f"f{number - 100}", 2)
    assert opened.usage()[:2] == (110, small_bytes)
    assert [opened.find(f"e{number}") for number in range(9_990, 10_000)] == [(1,)] * 10
    opened.close()


def test_many_shards_with_one_hash(placement: Placement) -> None:
    """All are found, and each is excluded by its number."""
    for shard in range(300):
        assert placement.claim("e", shard, tuple(range(shard))) == -1
    assert placement.find("e") == tuple(range(300))
    assert placement.claim("e", 7, tuple(set(range(300)) - {123})) == 123


def test_stripe_takes_as_many_as_it_may() -> None:
    """Then it says so, takes nothing more, and goes on when there is room again."""
    opened = table(ONE_STRIPE_BITS)
    name = "e"
    hashes = sorted({*range(STRIPE_SLOTS // 16 * 15 - 1), opened.hash_of(name)})
    assert opened.settle_hashes(3, packed(hashes)) == (len(hashes), 0)
    with pytest.raises(TableFull, match="takes no more ids in stripe 0"):
        opened.claim("another", 4)
    assert opened.find("another") == ()
    assert opened.claim(name, 4) == 3
    with pytest.raises(TableFull):
        opened.settle_hashes(4, packed(range(2)))
    assert opened.release(name, 3)
    assert opened.claim("another", 4) == -1
    assert opened.hashes(3) == packed(each for each in hashes if each != opened.hash_of(name))
    opened.close()


# --- what shards are known ---


def test_known_shards(placement: Placement) -> None:
    assert placement.unknown(66) == tuple(range(66))
    for shard in (0, 63, 64, 65_534):
        placement.set_known(shard, True)
    placement.set_known(63, False)
    assert placement.unknown(66) == (*range(1, 64), 65)
    assert placement.unknown(65_535)[-1] == 65_533


# --- what is refused ---


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda opened: opened.claim("e", -1), "shard -1 is none"),
        (lambda opened: opened.claim("e", 65_535), "shard 65535 is none: shards are numbered from 0 to 65534"),
        (lambda opened: opened.claim("e", 1, (70_000,)), "shard 70000"),
        (lambda opened: opened.release("e", 65_535), "shard 65535"),
        (lambda opened: opened.settle(65_535, []), "shard 65535"),
        (lambda opened: opened.settle_hashes(65_535, b""), "shard 65535"),
        (lambda opened: opened.hashes(65_535), "shard 65535"),
        (lambda opened: opened.set_known(65_535, True), "shard 65535"),
        (lambda opened: opened.unknown(65_536), "shard_count is 65536"),
        (lambda opened: opened.settle_hashes(1, b"1234"), "4 bytes"),
        (lambda opened: opened.settle_hashes(1, packed([1, 1 << 48])), r"hashes\[1\] is 281474976710656"),
        (lambda opened: opened.find("\ud800"), "surrogates not allowed"),
    ],
)
def test_misuse_is_told(placement: Placement, use: Callable[[Placement], object], message: str) -> None:
    placement.claim("there", 1)
    with pytest.raises(ValueError, match=message):
        use(placement)
    assert placement.usage()[0] == 1
    assert placement.hashes(1) == packed([placement.hash_of("there")])


def test_half_a_settlement_changes_nothing(placement: Placement) -> None:
    """Ids are all read before the first entry changes."""

    def ids() -> Iterator[str]:
        yield "new"
        raise RuntimeError("the file cannot be read")

    placement.claim("there", 1)
    with pytest.raises(RuntimeError):
        placement.settle(1, ids())
    assert placement.find("there") == (1,)
    assert placement.find("new") == ()


@pytest.mark.parametrize(
    "use",
    [
        lambda opened: opened.hash_of("e"),
        lambda opened: opened.find("e"),
        lambda opened: opened.claim("e", 1),
        lambda opened: opened.release("e", 1),
        lambda opened: opened.settle(1, ["e"]),
        lambda opened: opened.settle_hashes(1, b""),
        lambda opened: opened.hashes(1),
        lambda opened: opened.set_known(1, True),
        lambda opened: opened.unknown(1),
        lambda opened: opened.usage(),
    ],
)
def test_closed_table(placement: Placement, use: Callable[[Placement], object]) -> None:
    placement.close()
    placement.close()
    with pytest.raises(ValueError, match="the placement table is closed"):
        use(placement)


def test_closed_while_ids_are_read(placement: Placement) -> None:
    """An iterator may do what it likes."""

    def ids() -> Iterator[str]:
        yield "e"
        placement.close()

    with pytest.raises(ValueError, match="closed"):
        placement.settle(1, ids())


def test_what_is_no_table() -> None:
    with open(os.devnull) as nothing, pytest.raises(ValueError, match="is no placement table"):
        Placement(nothing.fileno(), KEY)
    with open(__file__) as something, pytest.raises((ValueError, OSError)):
        Placement(something.fileno(), KEY)
    with pytest.raises(OSError, match="Bad file descriptor"):
        Placement(-1, KEY)
    descriptor = Placement.create()
    with pytest.raises(ValueError, match="the key has 3 bytes: it must have 16"):
        Placement(descriptor, b"key")
    with pytest.raises(ValueError, match="hash_bits is 49"):
        Placement(descriptor, KEY, hash_bits=49)
    assert not os.get_inheritable(descriptor)
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 0)
    os.close(descriptor)
