"""Stage 1: the placement table with a million ids, a call at a time, and settled whole."""

import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest

from fastrunner._wire import Loads, Placement

COUNT = 1_000_000
IDS = [f"order-{number:012d}" for number in range(COUNT)]
KEY = bytes(range(16))


@pytest.fixture(scope="module")
def table() -> Iterator[Placement]:
    """A million executions in one shard."""
    opened = new_table()
    opened.settle(0, IDS)
    yield opened
    opened.close()


def new_table() -> Placement:
    descriptor = Placement.create()
    opened = Placement(descriptor, KEY)
    os.close(descriptor)
    return opened


def test_find(benchmark: Any, table: Placement) -> None:
    names = itertools.cycle(IDS[::7])
    assert benchmark(lambda: table.find(next(names))) == (0,)


def test_find_nothing(benchmark: Any, table: Placement) -> None:
    assert benchmark(table.find, "nothing") == ()


def test_claim_and_release(benchmark: Any, table: Placement) -> None:
    names = itertools.cycle([f"new-{number}" for number in range(100_000)])

    def both() -> bool:
        name = next(names)
        return table.claim(name, 1) == -1 and table.release(name, 1)

    assert benchmark(both)


def test_claim_of_what_another_has(benchmark: Any, table: Placement) -> None:
    names = itertools.cycle(IDS[::7])
    assert benchmark(lambda: table.claim(next(names), 1)) == 0


def test_settle_a_million(benchmark: Any) -> None:
    """Into an empty table."""
    opened = new_table()
    settled = benchmark.pedantic(opened.settle, (0, IDS), setup=lambda: opened.settle(0, ()) and None, rounds=3)
    assert settled == (COUNT, 0)
    opened.close()


def test_settle_a_million_that_are_there(benchmark: Any, table: Placement) -> None:
    packed = table.hashes(0)
    assert benchmark.pedantic(table.settle_hashes, (0, packed), rounds=3) == (0, 0)


def test_take(benchmark: Any) -> None:
    """From the bucket of one of a thousand clients."""
    descriptor = Loads.create(2)
    loads = Loads(descriptor)
    os.close(descriptor)
    clients = itertools.cycle([f"10.0.{number >> 8}.{number & 255}" for number in range(1_000)])
    assert benchmark(lambda: loads.take(next(clients), 1, 1e9, 1e9, 1000.0)) == 0.0
    loads.close()
