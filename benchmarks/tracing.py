"""Support: what tracing costs an accept: off, on for none, for 1 % and for all of the executions.

    python -m benchmarks.tracing --rounds 9 --count 20000

Three workers' halves in one process, each with an engine over a real data directory, take the same submissions in turn:
from the facts of the call over its commit to its reply, callbacks left out. A workflow of one `set` is accepted,
executed and finished in one commit, so nothing else dilutes what tracing adds. Counted is the processor time of the
process, with the export to a collector in another one. Rounds alternate, in another order each time; what is shown are
ratios of the same round, because a busy machine changes between rounds. A round of one kind should last a second at
least, as long as spans wait for company: shorter ones have more exports than a worker under load.
"""

import argparse
import asyncio
import multiprocessing
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import grpc

from fastrunner import _http2
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowExecuteInput
from fastrunner.base import clock
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.routing.placement import Places
from fastrunner.service.handlers import Service
from fastrunner.service.transport.caller import facts_of
from fastrunner.tracing.tracer import Tracer, new_tracer
from tests.local_router import LocalRouter

DOCUMENT = """\
document: {dsl: 1.0.3, namespace: bench, name: one, version: 1.0.0}
do: [{answer: {set: {n: 42}}}]
"""
BURST = 100
KINDS = {"off": None, "0 %": "0", "1 %": "0.01", "100 %": "1"}


class Call:
    """What is asked of a call of a client that traces nothing."""

    metadata = (("user-agent", "grpc-python/1.85"), ("fastrunner-client", "bench"))
    deadline_s = float("inf")
    principal = None
    client = ""
    peer = "ipv4:127.0.0.1:5"

    def header(self, name: bytes) -> str | None:
        """As `_http2.Call` has it."""
        return "bench" if name == b"fastrunner-client" else None


def collect(ready: Connection) -> None:
    """A collector, in a process of its own: takes spans and forgets them."""
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages

    method = grpc.unary_unary_rpc_method_handler(
        lambda _request, _context: messages.ExportTraceServiceResponse(),
        request_deserializer=None,
        response_serializer=messages.ExportTraceServiceResponse.SerializeToString,
    )
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": method}),))
    ready.send(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    server.wait_for_termination()


class Half:
    """The half of a worker that accepts, traced in some way."""

    def __init__(self, folder: Path, name: str, port: int) -> None:
        ratio = KINDS[name]
        settings: dict[str, Any] = {"data_dir": folder / name.replace(" %", "")}
        if ratio is not None:
            settings["otel_endpoint"] = f"http://127.0.0.1:{port}"
            settings["otel_traces_sampler"] = "parentbased_traceidratio"
            settings["otel_traces_sampler_arg"] = ratio
        config = Config(**settings)
        config.data_dir.mkdir()
        metrics = Metrics()
        self.tracer: Tracer | None = new_tracer(config, metrics)
        self.engine = EmbeddedEngine(
            config, metrics, {}, places=Places.alone(1), wall_ms=clock.steady_ms, tracer=self.tracer
        )
        self.service = Service(self.engine, LocalRouter(), metrics)
        self.spans = metrics.spans
        self.name = name
        self._number = 0

    async def accept(self, count: int) -> float:
        """The processor time per accept, in microseconds, of so many and what they leave behind."""
        began_s = time.process_time()
        for _ in range(count // BURST):
            pending = []
            for _ in range(BURST):
                self._number += 1
                request = WorkflowExecuteInput(workflow_execution_id=f"e-{self._number}", workflow_yaml=DOCUMENT)
                facts = facts_of(cast("_http2.Call", Call()), traces=self.tracer is not None)
                reply = self.service.handle_unary("ExecuteAsync", request.SerializeToString(), facts)
                assert not isinstance(reply, bytes)
                pending.append(reply)
            for each in pending:
                await each
        while self.tracer is not None and self.tracer.waiting_count:  # noqa: ASYNC110 - a thread exports them
            await asyncio.sleep(0.05)
        return (time.process_time() - began_s) / count * 1e6


async def measure(folder: Path, port: int, rounds: int, count: int) -> None:
    """Prints the figures."""
    halves = [Half(folder, name, port) for name in KINDS]
    for half in halves:
        await half.engine.start()
        await half.accept(count)
    ratios: dict[str, list[float]] = {name: [] for name in KINDS}
    for number in range(rounds):
        found = {}
        for half in random.sample(halves, len(halves)):
            found[half.name] = await half.accept(count)
        for name, took_us in found.items():
            ratios[name].append(took_us / found["off"])
        shown = "  ".join(f"{name} {took_us:6.1f} us" for name, took_us in found.items())
        print(f"round {number + 1:2}: {shown}", flush=True)
    for half in halves:
        spread = sorted(ratios[half.name])
        quarter = len(spread) // 4
        print(
            f"{half.name:>6}: {100 * (statistics.median(spread) - 1):+6.2f} % of an accept, quartiles "
            f"{100 * (spread[quarter] - 1):+6.2f} % and {100 * (spread[-1 - quarter] - 1):+6.2f} %; spans exported "
            f"{half.spans.labels('exported').value:.0f}, dropped {half.spans.labels('dropped').value:.0f}"
        )
        await half.engine.quiesce(10)
        if half.tracer is not None:
            await half.tracer.close(10)
        await half.engine.drain(10)


def main(arguments: Sequence[str]) -> int:
    """See the module; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--count", type=int, default=20_000, help="executions of each kind in a round")
    given = parser.parse_args(arguments)
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    collector = context.Process(target=collect, args=(there,), daemon=True)
    collector.start()
    folder = Path(tempfile.mkdtemp(prefix="fastrunner-tracing-"))
    try:
        asyncio.run(measure(folder, here.recv(), given.rounds, given.count))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        collector.terminate()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
