"""Support: what a commit costs the processor in the store alone, here and in another tree of this code.

    python -m benchmarks.commits [--against OTHER/src] [--executions 1 40] [--rounds 8]

Executions are accepted in one commit and end in the next, their events are acknowledged and what is older goes, as on a
shard that has run for a while. Both trees do the same in processes of their own, in turns: what counts is the ratio of
two neighbours, not a figure. The file lies in memory, because the disk's part is the same for both.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import Any, cast
from zlib import crc32

from fastrunner.engine import UnacknowledgedEvents
from fastrunner.engine.embedded.store.changes import Accepted, Batch, Change, Deletion, Settled
from fastrunner.engine.embedded.store.file import Store

HERE = Path(__file__).parents[1]
WARM_UP_COMMITS = 200
KEPT_EXECUTIONS = 4_000
"""How many finished ones stay."""

_STATE = b"state of a walk that waits for an effect " * 12
_SNAPSHOT = b"\x02" + crc32(_STATE).to_bytes(4, "big") + _STATE
_MESSAGES = (b"\x0a\xe6\x01" + b"x" * 230) * 4


class _Plan:
    """What the store reads of a document."""

    namespace, name, version, digest = "tests", "a", "1.0.0", sha256(b"document").digest()


class _Document:
    plan, document = _Plan, "document"


def _execution_id(key: int) -> str:
    return f"{crc32(key.to_bytes(8)):08x}-{key}"


def _changed(key: int, **fields: Any) -> Change:
    common: dict[str, Any] = {
        "execution_key": key,
        "execution_id": _execution_id(key),
        "wake_at_ms": 0,
        "parked": False,
        "error_json": None,
        "effects": (),
        "waiters": (),
    }
    return Change(**(common | fields))


def _accepted(key: int) -> Change:
    request = Accepted(b"d" * 32, cast(Any, _Document), 1_800_000_000_000 + key, b"m" * 40, b'{"a":1}', b"{}", False)
    events = UnacknowledgedEvents("", 1, 4, _MESSAGES)
    return _changed(
        key, accepted=request, status="running", finished_ms=0, last_sequence=4, snapshot=_SNAPSHOT, output_json=None,
        events=events,
    )  # fmt: skip


def _ended(key: int) -> Change:
    events = UnacknowledgedEvents("", 5, 8, _MESSAGES)
    return _changed(
        key, accepted=None, status="completed", finished_ms=1_800_000_001_000 + key, last_sequence=8, snapshot=None,
        output_json='{"answer":42}', events=events,
    )  # fmt: skip


def _batches(executions: int, first_key: int) -> tuple[Batch, Batch]:
    """Two commits: so many executions are accepted, and those before them acknowledged; they end, and as many go."""
    keys = range(first_key, first_key + executions)
    before = [key for key in range(first_key - executions, first_key) if key > 0]
    gone = [key for key in range(first_key - KEPT_EXECUTIONS, first_key - KEPT_EXECUTIONS + executions) if key > 0]
    begin, end = [_accepted(key) for key in keys], [_ended(key) for key in keys]
    acknowledged = {_execution_id(key): Settled(acknowledged=8) for key in before}
    deletions = [Deletion(key, 1, _execution_id(key), 0) for key in gone]
    return Batch(begin, acknowledgements=acknowledged), Batch(end, deletions=deletions)


def measure(executions: int, commits: int) -> float:
    """Microseconds of the processor for each commit of so many executions."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        store = Store(Path(folder) / "shard-0000.db", outbox=True)
        store.try_lock()
        store.open()
        key, taken_ns = 1, 0
        warm_up = max(WARM_UP_COMMITS, 2 * KEPT_EXECUTIONS // executions)
        for number in range((warm_up + commits) // 2):
            batches = _batches(executions, key)
            key += executions
            began_ns = time.process_time_ns()
            for batch in batches:
                store.write(batch)
                store.commit()
            if 2 * number >= warm_up:
                taken_ns += time.process_time_ns() - began_ns
        store.close()
    return taken_ns / 1000 / commits


def _measured_in(source: Path, executions: int, commits: int) -> float:
    environment = os.environ | {"PYTHONPATH": f"{source}:{HERE}"}
    command = [sys.executable, "-m", "benchmarks.commits", "--only", str(commits), "--executions", str(executions)]
    return float(subprocess.check_output(command, env=environment, cwd="/", text=True))


def _main(arguments: argparse.Namespace) -> None:
    if arguments.only:
        print(measure(arguments.executions[0], arguments.only))
        return
    for executions in arguments.executions:
        commits = max(200, 12_000 // executions)
        sides: dict[Path, list[float]] = {HERE / "src": []}
        if arguments.against:
            sides[arguments.against.resolve()] = []
        for number in range(arguments.rounds):
            for source in sorted(sides, reverse=bool(number % 2)):
                sides[source].append(_measured_in(source, executions, commits))
        print(f"commits of {executions} executions")
        for source, found in sides.items():
            print(f"    {min(found):8.1f} us of the processor at best, {statistics.median(found):8.1f} p50   {source}")
        if arguments.against:
            here, there = sides.values()
            ratios = [one / other for one, other in zip(here, there, strict=True)]
            print(f"    {statistics.median(ratios):.3f} of the other's ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="the sources of another checkout, compiled modules included")
    parser.add_argument("--executions", type=int, nargs="+", default=[1, 40], help="in a commit")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--only", type=int, default=0, metavar="COMMITS", help=argparse.SUPPRESS)
    _main(parser.parse_args())
