"""Support: a Stigmer Service under load: events that it stores, and clients that follow.

    python -m benchmarks.stigmer --store sqlite --store mongodb --events 200000 --clients 10000 --seconds 60

Rates: several reporters send batches, each of executions of its own, as a runner does; an event counts when it is
acknowledged. Clients: each follows one of a hundred executions by server-sent events, while every execution has an
event in each period; the time of an event is from its acknowledgement, which comes after the commit, to the client that
has it. Everything is on one machine, and `mongodb` is the stand-in of the tests, so its rate says what the
service itself takes for each event, and nothing of MongoDB.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import uvloop

from benchmarks.servers import memory_mib, processor_s
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import (
    ReportProgressBatchRequest,
    ReportProgressBatchResponse,
)
from fastrunner.base import descriptors
from fastrunner.base.clock import monotonic_s
from tests.integration.stigmer import Reporter, ServiceProcess, event
from tests.mongodb import MongoServer

REPORTERS = 8
BATCH_EXECUTIONS = 20
EVENTS = 24
"""Of one execution."""
FOLLOWED = 100
REPORTED = 10
"""Executions of one report."""
PERIOD_S = 1.0
CONNECTING = 64
"""Clients that connect at the same time."""
BEGIN_S_MAX = 300.0


@contextmanager
def served(store: str) -> Iterator[ServiceProcess]:
    """A service on an empty store."""
    with tempfile.TemporaryDirectory(prefix="stigmer-bench-") as folder:
        mongo = MongoServer(Path(folder) / "store").start() if store == "mongodb" else None
        settings: dict[str, Any] = {"FASTRUNNER_STIGMER_MONGODB_URL": mongo.url} if mongo is not None else {}
        service = ServiceProcess(Path(folder) / "data", "127.0.0.1:1", **settings)
        try:
            yield service
        finally:
            service.kill()
            if mongo is not None:
                mongo.kill()


def whole(execution_id: str) -> list[Any]:
    """All events of an execution."""
    types = ["workflow_started", *["task_started", "task_completed"] * ((EVENTS - 2) // 2), "workflow_completed"]
    return [event(execution_id, number, name) for number, name in enumerate(types, 1)]


async def rate(service: ServiceProcess, events: int) -> dict[str, float]:
    """Events per second that are acknowledged; what is sent is made before."""
    batches = max(1, events // (EVENTS * BATCH_EXECUTIONS * REPORTERS))
    requests = [[batch_of(f"r{reporter}-{batch}") for batch in range(batches)] for reporter in range(REPORTERS)]

    async def report(batches: list[bytes]) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel:
            reporter = Reporter(channel)
            for request in batches:
                reply = ReportProgressBatchResponse.FromString(await reporter.raw("ReportProgressBatch", request))
                assert {each.sequence_number for each in reply.acknowledgements} == {EVENTS}

    cpu_s, began_s = processor_s(service.process.pid), monotonic_s()
    await asyncio.gather(*map(report, requests))
    took_s = monotonic_s() - began_s
    count = batches * BATCH_EXECUTIONS * REPORTERS * EVENTS
    return {
        "events": count,
        "events_per_s": round(count / took_s),
        "cpu_us_per_event": round((processor_s(service.process.pid) - cpu_s) / count * 1e6, 1),
    }


def batch_of(name: str) -> bytes:
    """A report of several whole executions."""
    events = [each for number in range(BATCH_EXECUTIONS) for each in whole(f"{name}-{number}")]
    return ReportProgressBatchRequest(events=events).SerializeToString()


class Following(asyncio.Protocol):
    """One client, which notes when it has which event."""

    def __init__(self, execution: int, acknowledged: dict[tuple[int, int], float], late_s: list[float]) -> None:
        self._request = (
            f"GET /api/v1/executions/f{execution}/events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        )
        self._execution = execution
        self._acknowledged = acknowledged
        self._late_s = late_s
        self.last = 0
        """The number that it has received last."""
        self.is_open = False
        """Whether it is connected."""

    def connection_made(self, transport: Any) -> None:
        """See Protocol."""
        self.is_open = True
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """See Protocol."""
        now_s = monotonic_s()
        for part in data.split(b"id: ")[1:]:
            number = int(part[: part.index(b"\n")])
            assert number == self.last + 1, f"event {number} after event {self.last}"
            self.last = number
            known_s = self._acknowledged.get((self._execution, number))
            # Before its acknowledgement is here, it is here as early as can be.
            self._late_s.append(0.0 if known_s is None else now_s - known_s)

    def connection_lost(self, _error: Exception | None) -> None:
        """See Protocol."""
        self.is_open = False


async def follow(service: ServiceProcess, clients: int, seconds: float) -> dict[str, Any]:
    """How late clients are, and what memory the service takes meanwhile."""
    acknowledged: dict[tuple[int, int], float] = {}
    late_s: list[float] = []
    memory = [memory_mib(service.process.pid, "Rss")]
    loop = asyncio.get_running_loop()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel:
        reporter = Reporter(channel)
        await reporter.send(*(event(f"f{each}", 1, "workflow_started") for each in range(FOLLOWED)))
        following = [Following(number % FOLLOWED, acknowledged, late_s) for number in range(clients)]
        places = asyncio.Semaphore(CONNECTING)

        async def begin(client: Following) -> None:
            async with places:
                await loop.create_connection(lambda: client, "127.0.0.1", service.http_port)

        cpu_s = processor_s(service.process.pid)
        give_up_s = monotonic_s() + BEGIN_S_MAX
        await asyncio.gather(*map(begin, following))
        while not all(client.last for client in following):
            assert monotonic_s() < give_up_s, f"{sum(not client.last for client in following)} have not begun"
            await asyncio.sleep(0.1)
        began_cpu_s = processor_s(service.process.pid) - cpu_s
        late_s.clear()
        cpu_s = processor_s(service.process.pid)
        memory.append(memory_mib(service.process.pid, "Rss"))
        sequence, ends_s = 1, monotonic_s() + seconds
        while monotonic_s() < ends_s:
            sequence += 1
            # Spread over the period, as executions are.
            for first in range(0, FOLLOWED, REPORTED):
                some = range(first, first + REPORTED)
                await reporter.send(*(event(f"f{each}", sequence) for each in some))
                acknowledged |= dict.fromkeys(((each, sequence) for each in some), monotonic_s())
                await asyncio.sleep(PERIOD_S * REPORTED / FOLLOWED)
            memory.append(memory_mib(service.process.pid, "Rss"))
        while not all(client.last == sequence for client in following):
            assert monotonic_s() < ends_s + BEGIN_S_MAX, "not everybody has everything"
            await asyncio.sleep(0.1)
    late_s.sort()
    return {
        "clients": sum(client.is_open for client in following),
        "cpu_us_per_client_that_begins": round(began_cpu_s / clients * 1e6),
        "events_received": len(late_s),
        "cpu_us_per_event_received": round((processor_s(service.process.pid) - cpu_s) / len(late_s) * 1e6),
        "p50_ms": round(late_s[len(late_s) // 2] * 1e3, 1),
        "p99_ms": round(late_s[len(late_s) * 99 // 100] * 1e3, 1),
        "memory_mib": [round(each) for each in (memory[0], memory[1], memory[2], memory[-1])],
    }


async def measure(store: str, events: int, clients: int, seconds: float) -> dict[str, Any]:
    """All of one store."""
    found: dict[str, Any] = {"store": store}
    if events:
        with served(store) as service:
            found["rate"] = await rate(service, events)
    if clients:
        with served(store) as service:
            found["followers"] = await follow(service, clients, seconds)
    return found


def main() -> None:
    """Measures and prints, a line of JSON for each store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", action="append", choices=("sqlite", "mongodb"))
    parser.add_argument("--events", type=int, default=200_000, help="0: no rates")
    parser.add_argument("--clients", type=int, default=10_000, help="0: nobody follows")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long clients follow")
    arguments = parser.parse_args()
    descriptors.allow()
    for store in arguments.store or ("sqlite", "mongodb"):
        found = uvloop.run(measure(store, arguments.events, arguments.clients, arguments.seconds))
        print(json.dumps({"at": time.strftime("%FT%TZ", time.gmtime()), **found}))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
