"""Support: what executions that wait for events cost a worker: memory, the match of an event, who comes back for it.

    python -m benchmarks.listeners --executions 100000 --data-dir /var/tmp/listeners

Runs one engine over a real data directory. Each execution waits for the approval of an order of its own; events are
then for one of them each, or for nobody.
"""

import argparse
import asyncio
import gc
import os
import random
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import orjson

from fastrunner.base import clock
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import Submission
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.engine.embedded.store.seals import Seals
from fastrunner.events.bus import EventBus, StoredEvent
from fastrunner.routing.placement import Places

APPROVAL = """\
document: {dsl: 1.0.3, namespace: bench, name: approval, version: 1.0.0}
do:
- approved:
    listen:
      to:
        one:
          with: {type: order.approved}
          correlate: {order: {from: .order, expect: "${ $workflow.input.order }"}}
"""
BURST = 200
SAMPLE = 2_000


def resident_mib() -> float:
    """Of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def approval(order: int, type: str = "order.approved") -> dict[str, object]:
    """An event."""
    named = {"id": f"{type}-{order}", "source": "/bench", "type": type, "order": f"order-{order}"}
    return {"specversion": "1.0", **named, "data": {"approved": True}}


async def fill(engine: EmbeddedEngine, begin: int, end: int) -> None:
    """Has so many executions wait."""
    for first in range(begin, end, BURST):
        waiting = []
        for number in range(first, min(first + BURST, end)):
            given = {"order": f"order-{number}"}
            submission = Submission(
                execution_id=f"e{number}",
                document=APPROVAL,
                input_json=orjson.dumps(given),
                input_value=given,
                env_vars={},
                metadata=b"",
                timeout_s_max=0,
                debug=False,
            )
            waiting.append(engine.submit(submission))
        await asyncio.gather(*waiting)


def match_times_us(engine: EmbeddedEngine, orders: Sequence[int], type: str) -> list[float]:
    """Processor time that it takes to find whom an event is for, for each of some."""
    registry, times = engine._listeners._registry, []
    for order in orders:
        kept = StoredEvent(1, 0, None, approval(order, type))
        begun_s = time.thread_time()
        found = [each for each in registry.candidates(kept.event) if registry.is_for(each, kept)]
        times.append((time.thread_time() - begun_s) * 1e6)
        assert len(found) == (type == "order.approved"), found
    return times


def told(label: str, values: Sequence[float], unit: str) -> None:
    """One line of figures."""
    p99 = statistics.quantiles(values, n=100)[98]
    print(f"{label:<40}{statistics.median(values):10.1f} {unit} median{p99:10.1f} {unit} p99", flush=True)


async def measure(folder: Path, count: int) -> None:
    """Fills an engine and prints its figures."""
    config = Config(data_dir=folder, parked_resident_max=0)
    metrics = Metrics()
    bus = EventBus(folder, lambda: engine.events_came(), Seals(), config.event_retention_s)
    engine = EmbeddedEngine(config, metrics, {}, events=bus, places=Places.alone(1), wall_ms=clock.steady_ms)
    await engine.start()
    await fill(engine, 0, BURST)
    while engine._live_count():  # noqa: ASYNC110 - the loader and evictions run meanwhile
        await asyncio.sleep(0.1)
    before_mib = resident_mib()
    begun_s = time.perf_counter()
    await fill(engine, BURST, BURST + count)
    while metrics.listeners.value < BURST + count or engine._live_count():  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    took_s = time.perf_counter() - begun_s
    size_mib = resident_mib() - before_mib
    print(f"{count} listeners after {took_s:.1f} s: {size_mib:.0f} MiB, {size_mib * 2**20 / count:.0f} bytes each")
    orders = random.sample(range(count), min(SAMPLE, count))
    told("match, filter read from the file", match_times_us(engine, orders, "order.approved"), "us")
    told("match, nobody listens", match_times_us(engine, orders, "order.refused"), "us")
    back = metrics.resident_executions
    latencies = []
    for order in orders[: SAMPLE // 10]:
        begun_s = time.perf_counter()
        await bus.publish([approval(order)], None)
        while (await engine.get(f"e{order}")).status != "completed":  # noqa: ASYNC110
            await asyncio.sleep(0.0005)
        latencies.append((time.perf_counter() - begun_s) * 1e3)
    told("from sender to end of execution", latencies, "ms")
    print(f"in memory afterwards: {back.value:.0f} of {count + BURST - len(latencies)}")
    await engine.drain(30)
    await bus.close()


def main(arguments: Sequence[str]) -> int:
    """See the module; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executions", type=int, default=100_000)
    parser.add_argument("--data-dir", type=Path, required=True, help="made anew")
    given = parser.parse_args(arguments)
    shutil.rmtree(given.data_dir, ignore_errors=True)
    given.data_dir.mkdir()
    asyncio.run(measure(given.data_dir, given.executions))
    shutil.rmtree(given.data_dir)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
