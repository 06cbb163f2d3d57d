"""Support: processes that use the placement table at once, forked from this one, which has no threads.

    python -m tests.wire.peers race PEERS IDS       all claim the same ids; prints how many each won
    python -m tests.wire.peers kill TAKEOVERS       kills peers until so many locks had to be taken over
    python -m tests.wire.peers die                  with a debug build: kills one before and after each store
    python -m tests.wire.peers stop                 stops one that holds a lock, and waits for it

What does not hold is an AssertionError.
"""

import mmap
import os
import random
import signal
import sys
import time
from array import array
from collections.abc import Callable
from typing import Any

from fastrunner import _wire
from fastrunner._wire import Placement, TableBusy
from fastrunner.base import limits

KEY = bytes(range(16))
ONE_STRIPE_BITS = 40
FREE, CHANGING, HELD = range(3)


def fork(run: Callable[[], object]) -> int:
    """Runs it in a child; its process id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        run()
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def ended(pid: int) -> int:
    """The signal that a child died of; 0 if it ended well."""
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "see above"
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


# --- one winner each ---


def race(peers: int, count: int) -> None:
    """Each peer maps the descriptor itself; what each was told is compared when all are done."""
    descriptor = Placement.create()
    told = mmap.mmap(-1, 8 * peers * count)
    gate = mmap.mmap(-1, 1)

    def run(peer: int) -> None:
        table = Placement(descriptor, KEY)
        answers = memoryview(told).cast("q")[peer * count : (peer + 1) * count]
        while not gate[0]:
            pass
        for number in range(count):
            answers[number] = table.claim(f"e{number}", peer)

    pids = [fork(lambda peer=peer: run(peer)) for peer in range(peers)]  # type: ignore[misc]
    gate[0] = 1
    assert [ended(pid) for pid in pids] == [0] * peers
    answers = array("q", bytes(told))
    table = Placement(descriptor, KEY)
    won = [0] * peers
    for number in range(count):
        of_id = answers[number::count]
        (winner,) = [peer for peer in range(peers) if of_id[peer] == -1]
        assert [each for each in of_id if each != -1] == [winner] * (peers - 1)
        assert table.find(f"e{number}") == (winner,)
        won[winner] += 1
    assert table.usage()[0] == count
    print(*won)


# --- killed at any moment ---


class Peer:
    """One that claims and releases, and keeps beside the table what it has: its shard, as it were."""

    OWN = 300
    CONTESTED = 100

    def __init__(self, number: int, table: Placement) -> None:
        self.number = number
        self.table = table
        names = [f"own-{number}-{each}" for each in range(self.OWN)]
        self.names = names + [f"contested-{each}" for each in range(self.CONTESTED)]
        self.states = mmap.mmap(-1, len(self.names))

    def held(self) -> list[str]:
        return [name for name, state in zip(self.names, self.states[:], strict=True) if state == HELD]

    def run(self) -> None:
        """Until it is killed."""
        pick = random.Random(os.getpid())
        table, states = self.table, self.states
        while True:
            # Waves, so that the stripe grows and shrinks.
            for wanted in (FREE, HELD):
                for place in pick.sample(range(len(self.names)), len(self.names)):
                    if states[place] != wanted:
                        continue
                    states[place] = CHANGING
                    if wanted == HELD:
                        assert table.release(self.names[place], self.number)
                        states[place] = FREE
                    else:
                        won = table.claim(self.names[place], self.number) == -1
                        states[place] = HELD if won else FREE
                    if place % 4 == 0:
                        assert table.settle(self.number, self.held()) == (0, 0)

    def succeed(self) -> None:
        """As who opens the shard of a killed one: what it was changing was not committed."""
        for place, state in enumerate(self.states[:]):
            if state == CHANGING:
                self.states[place] = FREE
        added, _ = self.table.settle(self.number, self.held())
        assert added == 0, "something that lived was not in the table"


def check(table: Placement, peers: list[Peer]) -> None:
    """Every id that is held is found in that shard; one that nobody has or changes is found nowhere."""
    for peer in peers:
        for name, state in zip(peer.names, peer.states[:], strict=True):
            found = table.find(name)
            assert state != HELD or peer.number in found, (name, found)
            assert state != FREE or peer.number not in found, (name, found)
    for name in peers[0].names[Peer.OWN :]:
        assert len(table.find(name)) <= 1, name


def kill(takeovers: int) -> None:
    table = Placement(Placement.create(), KEY, hash_bits=ONE_STRIPE_BITS)
    peers = [Peer(number, table) for number in range(3)]
    pids = {peer.number: fork(peer.run) for peer in peers}
    rounds = 0
    try:
        while table.usage()[2] < takeovers:
            rounds += 1
            time.sleep(random.uniform(0.001, 0.02))
            if rounds % 20 == 0:
                # Only when all are dead does nothing change while it is looked at.
                for pid in pids.values():
                    os.kill(pid, signal.SIGKILL)
                assert {ended(pid) for pid in pids.values()} == {signal.SIGKILL}
                check(table, peers)
                for peer in peers:
                    peer.succeed()
                check(table, peers)
                assert table.usage()[0] == sum(len(peer.held()) for peer in peers)
                pids = {peer.number: fork(peer.run) for peer in peers}
                continue
            killed = random.choice(peers)
            os.kill(pids[killed.number], signal.SIGKILL)
            assert ended(pids[killed.number]) == signal.SIGKILL
            killed.succeed()
            pids[killed.number] = fork(killed.run)
    finally:
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    print(rounds)


# --- killed at each store ---

IDLE = [f"idle-{number}" for number in range(20)]
NAMES = [f"e{number}" for number in range(400)]
OPERATIONS: list[tuple[list[list[str]], list[str], Callable[[Placement], object]]] = [
    ([NAMES[:3]], [*NAMES[:3], "new"], lambda table: table.claim("new", 1)),
    ([NAMES[:3]], NAMES[:2], lambda table: table.release(NAMES[2], 1)),
    ([NAMES[:30]], NAMES[20:36], lambda table: table.settle(1, NAMES[20:36])),
    # The stripe of 512 places grows.
    ([NAMES[:364]], [*NAMES[:364], "new"], lambda table: table.claim("new", 1)),
    # One of 1,024 shrinks.
    ([NAMES, NAMES[:44]], NAMES[:43], lambda table: table.release(NAMES[43], 1)),
]
"""What a shard had one after the other before an operation, what it has after it, and the operation."""


def die() -> None:
    die_after = vars(_wire)["_die_after"]
    kills = 0
    for before, after, operate in OPERATIONS:
        stores = 0
        while True:
            stores += 1
            descriptor = Placement.create()
            table = Placement(descriptor, KEY, hash_bits=ONE_STRIPE_BITS)
            os.close(descriptor)
            table.settle(2, IDLE)
            for names in before:
                table.settle(1, names)

            def run(table: Placement = table, stores: int = stores, operate: Any = operate) -> None:
                die_after(stores)
                operate(table)

            killed = ended(fork(run))
            kept = set(before[-1]) & set(after)
            assert all(table.find(name) == (1,) for name in kept), stores
            assert all(table.find(name) == (2,) for name in IDLE), stores
            table.settle(1, after)
            assert table.hashes(1) == array("Q", sorted(map(table.hash_of, after))).tobytes(), stores
            assert table.usage()[0] == len(after) + len(IDLE), stores
            table.close()
            if not killed:
                break
            assert killed == signal.SIGKILL
            kills += 1
    print(kills)


# --- stopped while it holds a lock ---


def stop() -> None:
    table = Placement(Placement.create(), KEY, hash_bits=ONE_STRIPE_BITS)
    names = [f"e{number}" for number in range(5_000)]
    table.settle(1, names)

    def run() -> None:
        while True:
            table.hashes(1)

    pid = fork(run)
    try:
        while True:
            os.kill(pid, signal.SIGSTOP)
            os.waitpid(pid, os.WUNTRACED)
            started_s = time.monotonic()
            try:
                table.find("e1")
            except TableBusy as error:
                told = str(error)
                break
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.001)
        assert told.startswith("the placement table is locked for longer than")
        assert time.monotonic() - started_s >= limits.SHARED_LOCK_WAIT_S_MAX
        os.kill(pid, signal.SIGCONT)
        assert table.claim("e1", 2) == 1
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert table.claim("e1", 2) == 1


if __name__ == "__main__":
    globals()[sys.argv[1]](*map(int, sys.argv[2:]))
