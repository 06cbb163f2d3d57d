"""Walk: equal calls give equal turns, whatever ran before and whatever other threads do meanwhile."""

import gc
import hashlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastrunner._core import MoreSteps, TaskTally, Turn, Walk
from tests.core.drives import Case, documents, drive
from tests.core.walking import START_MS, Run, plan_of

ROOT = Path(__file__).resolve().parents[2]
THREADS = 4
ROUNDS = 3
HEAVY = [
    {"s": {"set": "[range(3000)] | map(. * 2) | add"}},
    {"t": {"try": [{"e": {"set": "[range(1e9)] | length"}}], "catch": {"do": [{"c": {"set": "$error.detail"}}]}}},
    {"r": {"set": '[range(50) | tostring] | join(",") | [scan("[0-9]+")] | length'}},
    {"d": {"set": "reduce range(150) as $i (0; [.]) | tojson | length"}},
    {"f": {"fork": {"branches": [{"a": {"set": "[recurse(if . < 300 then . + 1 else empty end)] | length"}}]}}},
]


def digest_of(run: Run, tallies: list[bytes]) -> str:
    """Everything a run has said, as one text."""
    digest = hashlib.sha256(run.encoded)
    digest.update(repr(getattr(run, "kept", None)).encode())
    digest.update(run.walk.snapshot())
    for tally in tallies:
        digest.update(tally)
    return digest.hexdigest()


class Tallied(Run):
    """A run that keeps its tallies."""

    def keep(self, turn: Turn) -> None:
        self.tallies = [*getattr(self, "tallies", []), turn.tally]
        super().keep(turn)


def heavy() -> str:
    run = Tallied(plan_of(HEAVY), 0)
    run.finish()
    return digest_of(run, run.tallies)


def said(case: Case) -> str:
    return digest_of(drive(case), [])


@contextmanager
def switching() -> Iterator[None]:
    """Threads take turns often, and within a turn of a walk as well: compiled code is not interrupted, but what the
    collector of garbage calls is."""
    interval_s, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(30)
    gc.callbacks.append(linger)
    yield
    gc.callbacks.remove(linger)
    gc.set_threshold(*thresholds)
    sys.setswitchinterval(interval_s)


def linger(phase: str, info: dict[str, int]) -> None:
    for _ in range(10):
        pass


def in_threads(work: Callable[[int], None]) -> None:
    """Runs work in all threads, beginning at once; raises what one of them raised."""
    barrier = threading.Barrier(THREADS)
    raised: list[BaseException] = []

    def one(number: int) -> None:
        barrier.wait()
        try:
            work(number)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


def test_four_threads_say_what_one_does() -> None:
    """Documents of all kinds, jq that takes its time, budgets that end, plans that are shared."""
    shared = plan_of(HEAVY)
    alone = said_by(shared)
    expected = heavy()

    def work(number: int) -> None:
        for _ in range(ROUNDS):
            assert heavy() == expected
            assert said_by(shared) == alone

    with switching():
        in_threads(work)


def said_by(plan: object) -> str:
    """A walk of a plan that others walk too, in slices."""
    walk, turn = Walk.start(plan, "e", 1, START_MS)  # type: ignore[arg-type]
    tally = TaskTally([10])
    digest = hashlib.sha256()
    while True:
        tally.add(turn.tally)
        digest.update(turn.events + walk.snapshot())
        if not turn.more:
            return digest.hexdigest() + repr(tally.take())
        turn = walk.resume(MoreSteps(), START_MS)


def test_random_drives_in_four_threads() -> None:
    """`drive` patches bounds before a start, so walks are started here and driven there."""
    cases = list(documents(80, 17))
    started = [Walk.start(case.plan, "e", case.input, START_MS, seed=case.seed) for case in cases]
    expected = [told(*start) for start in started]

    def work(number: int) -> None:
        for _ in range(ROUNDS):
            for case, wanted in zip(cases, expected, strict=True):
                assert told(*Walk.start(case.plan, "e", case.input, START_MS, seed=case.seed)) == wanted

    with switching():
        in_threads(work)


def told(walk: Walk, turn: Turn) -> str:
    digest = hashlib.sha256()
    for _ in range(30):
        digest.update(turn.events + turn.tally + walk.snapshot() + repr(turn.actions).encode())
        if not turn.more:
            break
        turn = walk.resume(MoreSteps(), START_MS)
    return digest.hexdigest()


# --- whatever ran before ---

FRESH = "import tests.core.test_walk_threads as here; print(here.ten_drives())"


def ten_drives() -> str:
    """Ten drives of known cases, and the heavy one."""
    return "\n".join([*(said(case) for case in documents(10, 23)), heavy()])


@pytest.mark.slow
def test_a_thousand_executions_before_change_nothing() -> None:
    """In a fresh process, and after executions that leave workspaces, machines and caches behind."""
    fresh = subprocess.run(
        [sys.executable, "-c", FRESH], cwd=ROOT, capture_output=True, text=True, check=True, timeout=100
    )
    for case in documents(1000, 29):
        drive(case)
    heavy()
    assert ten_drives() == fresh.stdout.strip()
