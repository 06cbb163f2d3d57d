"""The heap of timers: the earliest first, whatever was put in, taken out and forgotten meanwhile."""

import gc
import random
import weakref

import pytest

from fastrunner._core import TimerHeap


class Thing:
    """Something with a time that the garbage collector sees."""

    heap: TimerHeap | None = None


def test_the_earliest_comes_first_whatever_came_and_went_before() -> None:
    chosen = random.Random(7)
    heap, expected = TimerHeap(), list[tuple[int, int]]()
    for number in range(5_000):
        if expected and chosen.random() < 0.45:
            due_ms, item = heap.pop()
            assert due_ms == min(expected)[0]
            expected.remove((due_ms, item))
        else:
            entry = chosen.randrange(500), number
            heap.push(*entry)
            expected.append(entry)
        assert len(heap) == len(expected)
        assert heap.first_ms == (min(expected)[0] if expected else 0)
        assert not expected or (heap.first_ms, heap.first) in expected
    assert [heap.pop()[0] for _ in range(len(heap))] == sorted(due_ms for due_ms, _ in expected)


def test_what_is_forgotten_does_not_come() -> None:
    heap = TimerHeap()
    times = random.Random(7).sample(range(10_000), 1_000)
    for due_ms in times:
        heap.push(due_ms, due_ms)
    heap.retain(lambda due_ms, item: due_ms == item and due_ms % 7 == 0)
    assert [heap.pop() for _ in range(len(heap))] == [(each, each) for each in sorted(times) if each % 7 == 0]
    heap.push(3, "again")
    assert (heap.first_ms, heap.first, len(heap)) == (3, "again", 1)
    heap.retain(lambda due_ms, item: False)
    assert (heap.first_ms, heap.first, len(heap)) == (0, None, 0)


def test_an_empty_one_has_nothing_to_give() -> None:
    heap = TimerHeap()
    assert (heap.first_ms, heap.first, bool(heap)) == (0, None, False)
    with pytest.raises(IndexError, match="no timers"):
        heap.pop()
    with pytest.raises(TypeError):
        heap.push(1, None)
    assert not heap


def test_a_time_of_more_than_64_bits_leaves_it_as_it_was() -> None:
    heap = TimerHeap()
    heap.push(2**63 - 1, "last")
    with pytest.raises(OverflowError):
        heap.push(2**63, "later")
    assert (heap.pop(), len(heap)) == ((2**63 - 1, "last"), 0)


def test_things_that_know_their_heap_are_garbage_with_it() -> None:
    thing = Thing()
    thing.heap = TimerHeap()
    thing.heap.push(1, thing)
    seen = weakref.ref(thing)
    del thing
    gc.collect()
    assert seen() is None
