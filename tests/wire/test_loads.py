"""Stage 1, routing: what workers tell each other, and the buckets of clients they share."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrunner._wire import Loads
from fastrunner.base import limits
from tests.properties import examples

WORKERS = 3


@pytest.fixture
def descriptor() -> Iterator[int]:
    made = Loads.create(WORKERS)
    yield made
    os.close(made)


@pytest.fixture
def loads(descriptor: int) -> Iterator[Loads]:
    opened = Loads(descriptor)
    yield opened
    opened.close()


def run(descriptor: int, code: str) -> str:
    """Runs code in a process that has the memory as `loads`."""
    code = f"from fastrunner._wire import Loads\nloads = Loads({descriptor})\n{code}"
    return subprocess.run(
        [sys.executable, "-c", code], pass_fds=[descriptor], capture_output=True, text=True, check=True, timeout=60
    ).stdout


# --- cells ---


def test_cells_are_seen_by_all(loads: Loads, descriptor: int) -> None:
    """And outlive who wrote them."""
    run(descriptor, "loads.set(1, 0, 2.5); loads.set(2, 0, -1); loads.set(2, 15, 4)")
    loads.set(0, 0, 8.0)
    assert loads.row(0) == (8.0, 2.5, -1.0)
    assert loads.total(0) == 9.5
    assert loads.get(2, 15) == 4.0
    assert loads.row(14) == (0.0, 0.0, 0.0)


# --- buckets ---


def test_client_has_one_bucket_in_all_processes(loads: Loads, descriptor: int) -> None:
    """Three of ten are taken elsewhere: seven are left."""
    taken = run(descriptor, "print([loads.take('client', 1, 2.0, 10.0, 1000.0) for _ in range(3)])")
    assert taken.strip() == "[0.0, 0.0, 0.0]"
    assert loads.take("client", 7, 2.0, 10.0, 1000.0) == 0.0
    assert loads.take("client", 1, 2.0, 10.0, 1000.0) == pytest.approx(0.5)
    assert loads.take("another", 10, 2.0, 10.0, 1000.0) == 0.0
    assert loads.take("client", 3, 2.0, 10.0, 1001.0) == pytest.approx(0.5)
    assert loads.take("client", 3, 2.0, 10.0, 1001.5) == 0.0


@examples(100)
@given(
    steps=st.lists(
        st.tuples(st.floats(0, 3), st.sampled_from("ab"), st.floats(0, 4)),
        max_size=30,
    ),
    rate_per_s=st.floats(0.1, 10),
)
def test_buckets_are_as_in_the_book(steps: list[tuple[float, str, float]], rate_per_s: float) -> None:
    """A number of tokens, what was gained since, at most the burst."""
    made = Loads.create(1)
    loads = Loads(made)
    os.close(made)
    burst, now_s = 4.0, 50.0
    buckets = dict.fromkeys("ab", (burst, now_s))
    for pause_s, client, count in steps:
        now_s += pause_s
        left, at_s = buckets[client]
        left = min(burst, left + (now_s - at_s) * rate_per_s)
        wait_s = loads.take(client, count, rate_per_s, burst, now_s)
        if wait_s:
            assert wait_s == pytest.approx((count - left) / rate_per_s, rel=1e-3, abs=1e-5)
        else:
            assert left - count >= -1e-4
            left -= count
        buckets[client] = left, now_s
    loads.close()


def test_whoever_waits_as_told_is_taken(loads: Loads) -> None:
    """Far from the zero of the clock, where seconds have few digits behind the point."""
    now_s = 12_345_678.9
    assert loads.take("client", 1, 3.0, 1.0, now_s) == 0.0
    for _ in range(1_000):
        wait_s = loads.take("client", 1, 3.0, 1.0, now_s)
        assert wait_s > 0
        now_s += wait_s
        assert loads.take("client", 1, 3.0, 1.0, now_s) == 0.0


def test_only_so_many_buckets_are_kept(loads: Loads) -> None:
    """Those that were not seen for longest are forgotten."""
    clients = [f"client {number}" for number in range(3 * limits.CLIENTS_KNOWN_MAX)]
    for number, client in enumerate(clients):
        assert loads.take(client, 1, 1e-6, 1.0, float(number)) == 0.0
    now_s = float(len(clients))
    # The latest first, so that only what was forgotten makes others give way.
    kept = [client for client in reversed(clients) if loads.take(client, 1, 1e-6, 1.0, now_s) > 0]
    assert 0.9 * limits.CLIENTS_KNOWN_MAX < len(kept) <= limits.CLIENTS_KNOWN_MAX
    assert set(clients[-1_000:]) <= set(kept)


# --- what is refused ---


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda loads: loads.set(3, 0, 1.0), "worker 3 is none: there are 3"),
        (lambda loads: loads.get(-1, 0), "worker -1"),
        (lambda loads: loads.get(0, 16), "cell 16 is none: a worker has 16"),
        (lambda loads: loads.total(-1), "cell -1"),
        (lambda loads: loads.row(16), "cell 16"),
        (lambda loads: loads.take("c", 2, 1.0, 1.0, 0.0), "count is 2.0, burst 1.0"),
        (lambda loads: loads.take("c", -1, 1.0, 1.0, 0.0), "count is -1.0"),
        (lambda loads: loads.take("c", 1, 0.0, 1.0, 0.0), "rate_per_s 0.0"),
        (lambda loads: loads.take("c", 1, float("nan"), 1.0, 0.0), "rate_per_s nan"),
        (lambda loads: Loads.create(0), "workers is 0"),
        (lambda loads: Loads.create(5_000), "workers is 5000: it must be 1 to 4096"),
    ],
)
def test_misuse_is_told(loads: Loads, use: Callable[[Loads], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        use(loads)


def test_closed_memory(loads: Loads) -> None:
    loads.close()
    loads.close()
    for use in (lambda: loads.get(0, 0), lambda: loads.row(0), lambda: loads.take("c", 1, 1, 1, 1)):
        with pytest.raises(ValueError, match="the cells are closed"):
            use()


def test_what_is_no_memory_of_loads() -> None:
    with open(os.devnull) as nothing, pytest.raises(ValueError, match="is no memory of loads"):
        Loads(nothing.fileno())
