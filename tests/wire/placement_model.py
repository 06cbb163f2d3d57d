"""Support: the operations of one stripe of the placement table, a store at a time, and a search through all orders.

A process is a generator that stops before each store and wherever it asks for the lock. The search runs every order of
the steps of all processes, and lets one process be killed before any of its steps; its successor then opens the shard.
It replays a schedule from the start for each continuation, and follows none that leads to a state it has seen.

What a process does beside the table is its shard's commit, a set of ids. After every step whatever is committed must be
found by a probe, no id is committed in two shards, and entries of a shard that does nothing are all there. At the end
the table has exactly what is committed.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

EMPTY, GONE = None, "gone"
LOG2_MIN = 2
Shape = tuple[int, int]
"""Binary logarithm of the capacity, and side."""
Slot = tuple[int, int] | str | None
"""(hash, shard), or one of the above."""
Process = Generator[str, bool, None]
"""Yields "lock" to be resumed when it has the lock, with whether its holder was killed, and "step" before a store."""


class Broken(AssertionError):
    """A promise that an order of steps does not keep."""


@dataclass
class Stripe:
    """The shared memory of a stripe, and what its shards have committed."""

    hashes: dict[str, int]
    faults: frozenset[str] = frozenset()
    """Mistakes to make, by name: the search must find each."""
    shape: Shape = (LOG2_MIN, 0)
    regions: dict[Shape, list[Slot]] = field(default_factory=dict)
    live: int = 0
    used: int = 0
    owner: int | None = None
    owner_died: bool = False
    committed: dict[int, set[str]] = field(default_factory=dict)
    idle: Counter[tuple[int, int]] = field(default_factory=Counter)

    def region(self, shape: Shape) -> list[Slot]:
        return self.regions.setdefault(shape, [EMPTY] * (1 << shape[0]))

    @property
    def slots(self) -> list[Slot]:
        return self.region(self.shape)

    def probe(self, hashed: int) -> Iterator[int]:
        """Places where an entry with a hash may be, up to and with the first empty one."""
        slots = self.slots
        for distance in range(len(slots)):
            at = (hashed + distance) % len(slots)
            yield at
            if slots[at] is EMPTY:
                return
        raise Broken("a probe does not end")

    def shards_of(self, name: str) -> set[int]:
        slots = (self.slots[at] for at in self.probe(self.hashes[name]))
        return {slot[1] for slot in slots if isinstance(slot, tuple) and slot[0] == self.hashes[name]}


# --- operations ---


def locked(stripe: Stripe) -> Process:
    if (yield "lock") and "no repair" not in stripe.faults:
        for shape in list(stripe.regions):
            if shape != stripe.shape:
                stripe.regions[shape] = [EMPTY] * (1 << shape[0])
        yield "step"
        stripe.live = sum(isinstance(slot, tuple) for slot in stripe.slots)
        yield "step"
        stripe.used = sum(slot is not EMPTY for slot in stripe.slots)
    yield "step"


def reshape(stripe: Stripe) -> Process:
    old = stripe.shape
    log2 = LOG2_MIN
    while 8 * stripe.live > 3 << log2:
        log2 += 1
    new = (log2, old[1] ^ 1) if log2 == old[0] else (log2, 0)
    if "flip first" in stripe.faults:
        stripe.shape = new
        yield "step"
    target = stripe.region(new)
    for _place, slot in enumerate(stripe.region(old)):
        if isinstance(slot, tuple):
            at = slot[0] % len(target)
            while target[at] is not EMPTY:
                at = (at + 1) % len(target)
            target[at] = slot
            yield "step"
    stripe.shape = new
    yield "step"
    stripe.regions[old] = [EMPTY] * (1 << old[0])
    yield "step"
    stripe.used = stripe.live
    yield "step"


def add(stripe: Stripe, entry: tuple[int, int], at: int | None) -> Process:
    def free() -> int:
        return next(at for at in stripe.probe(entry[0]) if not isinstance(stripe.slots[at], tuple))

    at = free() if at is None else at
    if stripe.slots[at] is EMPTY and 4 * (stripe.used + 1) > 3 * len(stripe.slots):
        yield from reshape(stripe)
        at = free()
    if stripe.slots[at] is EMPTY:
        stripe.used += 1
        yield "step"
    stripe.slots[at] = entry
    yield "step"
    stripe.live += 1
    yield "step"


def take_away(stripe: Stripe, at: int) -> Process:
    slots = stripe.slots
    emptied = 0
    if slots[(at + 1) % len(slots)] is not EMPTY and "always empty" not in stripe.faults:
        slots[at] = GONE
        yield "step"
    else:
        while True:
            slots[at] = EMPTY
            emptied += 1
            yield "step"
            at = (at - 1) % len(slots)
            if slots[at] is not GONE:
                break
    stripe.live -= 1
    yield "step"
    stripe.used -= emptied
    yield "step"


def shrink(stripe: Stripe) -> Process:
    if stripe.shape[0] > LOG2_MIN and 16 * stripe.live < len(stripe.slots):
        yield from reshape(stripe)


def claim(stripe: Stripe, name: str, shard: int) -> Process:
    """Claims and, if it won, commits."""
    hashed = stripe.hashes[name]
    if "no lock" not in stripe.faults:
        yield from locked(stripe)
    free = None
    found = False
    for at in stripe.probe(hashed):
        slot = stripe.slots[at]
        if slot == GONE and free is None:
            free = at
            if "early reuse" in stripe.faults:
                break
        found = found or (isinstance(slot, tuple) and slot[0] == hashed)
    yield "step"
    if not found:
        last = at if free is None else free
        yield from add(stripe, (hashed, shard), last)
    unlock(stripe)
    yield "step"
    if not found:
        commit(stripe, name, shard)


def commit(stripe: Stripe, name: str, shard: int) -> None:
    if any(name in names for names in stripe.committed.values()):
        raise Broken(f"{name} has two winners")
    stripe.committed.setdefault(shard, set()).add(name)


def release(stripe: Stripe, name: str, shard: int) -> Process:
    """What retention does: the commit that deletes it, then the entry."""
    stripe.committed[shard].remove(name)
    yield "step"
    yield from locked(stripe)
    entry = stripe.hashes[name], shard
    at = next((at for at in stripe.probe(entry[0]) if stripe.slots[at] == entry), None)
    if at is None:
        raise Broken(f"{name} was not there to be released")
    yield from take_away(stripe, at)
    yield from shrink(stripe)
    unlock(stripe)


def settle(stripe: Stripe, shard: int) -> Process:
    """What a successor does that has opened the shard."""
    yield from locked(stripe)
    missing = Counter(stripe.hashes[name] for name in stripe.committed.get(shard, ()))
    for at in range(len(stripe.slots)):
        slot = stripe.slots[at]
        if isinstance(slot, tuple) and slot[1] == shard:
            if missing[slot[0]]:
                missing[slot[0]] -= 1
            else:
                yield from take_away(stripe, at)
    for hashed in missing.elements():
        raise Broken(f"hash {hashed} lives and was not in the table")
    yield from shrink(stripe)
    unlock(stripe)


def unlock(stripe: Stripe) -> None:
    stripe.owner = None


# --- the search ---


@dataclass
class Scenario:
    """What there is at first, and what each process does; the process number is its shard."""

    hashes: dict[str, int]
    programs: list[list[tuple[Any, ...]]]
    """For each process its operations: (claim, id) or (release, id)."""
    committed: dict[int, list[str]] = field(default_factory=dict)
    idle: list[tuple[int, int]] = field(default_factory=list)
    """Entries of shards that do nothing."""
    gone: list[int] = field(default_factory=list)
    """Places of what was taken away before."""
    kills: int = 1

    def stripe(self, faults: frozenset[str]) -> Stripe:
        stripe = Stripe(self.hashes, faults)
        for at in self.gone:
            stripe.slots[at] = GONE
        entries = [
            *self.idle,
            *((self.hashes[name], shard) for shard, names in self.committed.items() for name in names),
        ]
        for entry in entries:
            at = entry[0] % len(stripe.slots)
            while stripe.slots[at] is not EMPTY:
                at = (at + 1) % len(stripe.slots)
            stripe.slots[at] = entry
        stripe.live = len(entries)
        stripe.used = sum(slot is not EMPTY for slot in stripe.slots)
        stripe.committed = {shard: set(names) for shard, names in self.committed.items()}
        stripe.idle = Counter(self.idle)
        return stripe


class Run:
    """One order of steps."""

    def __init__(self, scenario: Scenario, faults: frozenset[str]) -> None:
        self.stripe = scenario.stripe(faults)
        self.kills_left = scenario.kills
        self.processes: dict[int, Process] = {
            shard: self._program(shard, steps) for shard, steps in enumerate(scenario.programs)
        }
        self.asks: dict[int, str] = {}
        for shard in list(self.processes):
            self._resume(shard, None)

    def _program(self, shard: int, steps: list[tuple[Any, ...]]) -> Process:
        for operation, name in steps:
            yield "step"
            yield from operation(self.stripe, name, shard)

    def _resume(self, shard: int, sent: bool | None) -> None:
        process = self.processes[shard]
        try:
            self.asks[shard] = next(process) if sent is None else process.send(sent)
        except StopIteration:
            del self.processes[shard]

    def choices(self) -> list[tuple[str, int]]:
        able = [shard for shard in self.processes if self.asks[shard] != "lock" or self.stripe.owner is None]
        kills = [("kill", shard) for shard in self.processes] if self.kills_left else []
        return [("go", shard) for shard in able] + kills

    def take(self, choice: tuple[str, int]) -> None:
        verb, shard = choice
        stripe = self.stripe
        if verb == "kill":
            self.kills_left -= 1
            if stripe.owner == shard:
                stripe.owner, stripe.owner_died = None, True
            self.processes[shard] = settle(stripe, shard)
            self._resume(shard, None)
        elif self.asks[shard] == "lock":
            died, stripe.owner_died = stripe.owner_died, False
            stripe.owner = shard
            self._resume(shard, died)
        else:
            self._resume(shard, None)
        self.check()

    def check(self) -> None:
        stripe = self.stripe
        for shard, names in stripe.committed.items():
            for name in names:
                if shard not in stripe.shards_of(name):
                    raise Broken(f"{name} lives in shard {shard} and is not found")
        entries = Counter(slot for slot in stripe.slots if isinstance(slot, tuple))
        if stripe.idle - entries:
            raise Broken(f"entries of others are lost: {stripe.idle - entries}")
        if not self.processes:
            expected = stripe.idle + Counter(
                (stripe.hashes[name], shard) for shard, names in stripe.committed.items() for name in names
            )
            if entries != expected:
                raise Broken(f"the table has {entries}, and {expected} lives")
            if (stripe.live, stripe.used) != (entries.total(), sum(slot is not EMPTY for slot in stripe.slots)):
                raise Broken("the counts are wrong")


def place_of(process: Process) -> tuple[Any, ...]:
    """Where a process is, and what it remembers, for comparison."""
    found: list[Any] = []
    inner: Any = process
    while inner is not None:
        frame = inner.gi_frame
        kept = [each for each in frame.f_locals.items() if isinstance(each[1], int | str | tuple | Counter | None)]
        found.append((inner.gi_code.co_name, frame.f_lasti, repr(kept)))
        inner = inner.gi_yieldfrom
    return tuple(found)


def state_of(run: Run) -> tuple[Any, ...]:
    stripe = run.stripe
    return (
        repr((stripe.shape, stripe.regions, stripe.live, stripe.used, stripe.owner, stripe.owner_died)),
        repr(sorted((shard, sorted(names)) for shard, names in stripe.committed.items())),
        run.kills_left,
        tuple((shard, place_of(process)) for shard, process in sorted(run.processes.items())),
    )


def search(scenario: Scenario, faults: frozenset[str] = frozenset(), seen: Callable[[Run], None] | None = None) -> int:
    """Runs every order; how many states there are. Calls `seen` where an order ends. Raises Broken."""
    pending: list[list[tuple[str, int]]] = [[]]
    states = set()
    while pending:
        schedule = pending.pop()
        run = Run(scenario, faults)
        for choice in schedule:
            run.take(choice)
        # Straight on as long as there is something new.
        while (state := state_of(run)) not in states:
            states.add(state)
            choices = run.choices()
            if not choices:
                if run.processes:
                    raise Broken(f"{sorted(run.processes)} wait for ever")
                if seen is not None:
                    seen(run)
                break
            pending.extend([*schedule, other] for other in choices[1:])
            schedule = [*schedule, choices[0]]
            run.take(choices[0])
    return len(states)
