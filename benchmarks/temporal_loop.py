"""Support: a loop of ITERATIONS rounds, each with a wait of 0, on Temporal: its histories stay bounded.

    python -m benchmarks.temporal_loop --iterations 999000

That is about what one execution may have: a million tasks, with the loops that are around them. A real server, one
replica of the runner, and the reference receiver unless --silent. Afterwards every history that the execution has had
is read: how many there are, and how long the longest is.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc.aio
import orjson
from rich.console import Console
from rich.progress import Progress

from benchmarks.servers import runner
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from fastrunner.base import limits
from fastrunner.progress.names import FINAL_STATUSES
from fastrunner.stigmer.receiver import Receiver, ReceiverOptions, serve_receiver
from tests.integration.temporal_server import TemporalServer
from tests.integration.test_placement_runner import Connection

ID = "loop"
_LOOPS = 100
"""Rounds are in so many loops, one after the other: what a loop goes through is in every snapshot."""


def document(iterations: int) -> str:
    """Rounds that count, and wait for nothing."""
    inner = -(-iterations // _LOOPS)
    rest = {"wait": {"milliseconds": 0}, "output": {"as": {"n": "${ .n + 1 }"}}}
    rounds = {"for": {"in": f"[range([{inner}, {iterations} - $index * {inner}] | min)]"}, "do": [{"rest": rest}]}
    tasks = [{"loops": {"for": {"in": f"[range({_LOOPS})]"}, "do": [{"rounds": rounds}]}}]
    head = {"dsl": "1.0.3", "namespace": "bench", "name": "loop", "version": "1.0.0"}
    return orjson.dumps({"document": head, "do": tasks}).decode()


async def histories(address: str) -> list[tuple[int, int]]:
    """Events and bytes of each history that the execution has had."""
    from temporalio.client import Client

    client = await Client.connect(address)
    found = []
    async for run in client.list_workflows(f"WorkflowId = '{ID}'"):
        description = await client.get_workflow_handle(ID, run_id=run.run_id).describe()
        info = description.raw_description.workflow_execution_info
        found.append((description.history_length, info.history_size_bytes))
    return found


async def loop(iterations: int, *, silent: bool) -> int:
    """Runs it; the exit code."""
    console = Console()
    server = TemporalServer(Path(tempfile.mkdtemp(prefix="bench-")) / "temporal.db")
    options = ReceiverOptions(port=0, quiet=True)
    receiver = Receiver(options)
    with ExitStack() as stack:
        server.start()
        stack.callback(server.stop)
        async with serve_receiver(receiver, options) as port:
            settings = {"TEMPORAL_SERVICE_ADDRESS": server.address, "STIGMER_SERVICE_USE_TLS": "false"}
            if not silent:
                settings["STIGMER_SERVICE_ENDPOINT"] = f"127.0.0.1:{port}"
            process = stack.enter_context(runner(1, **settings))
            connection = Connection(process.target)
            began_s = time.monotonic()
            await connection.execute(ID, document(iterations), input_json='{"n": 0}')
            execution = await _ended(connection, iterations)
            took_s = time.monotonic() - began_s
            found = await histories(server.address)
            await connection.channel.close()
    longest, largest = max(each[0] for each in found), max(each[1] for each in found)
    console.print(f"{execution.status}: {execution.output_json}, in {took_s:.0f} s: {iterations / took_s:.0f} rounds/s")
    console.print(f"{execution.last_sequence_number} events, {len(found)} histories")
    console.print(f"the longest history has {longest} events, the largest {largest} bytes")
    events_max = limits.TEMPORAL_HOLD_RATIO * limits.TEMPORAL_HISTORY_EVENTS_MAX
    bytes_max = limits.TEMPORAL_HOLD_RATIO * limits.TEMPORAL_HISTORY_SIZE_BYTES_MAX
    is_right = execution.output_json == f'{{"n":{iterations}}}' and receiver.ledger.violations == []
    return 0 if is_right and longest <= events_max and largest <= bytes_max else 1


async def _ended(connection: Connection, iterations: int) -> Any:
    with Progress() as progress:
        bar = progress.add_task("rounds", total=iterations)
        while True:
            request = q.GetExecutionRequest(execution_id=ID)
            try:
                reply = await connection.call("GetExecution", request, q.GetExecutionResponse)
            except grpc.aio.AioRpcError as error:
                # A workflow that is busy may be asked in vain.
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            else:
                execution = reply.execution
                # Each round has an event for the beginning and the end of its task.
                progress.update(bar, completed=min(execution.last_sequence_number // 2, iterations))
                if execution.status in FINAL_STATUSES:
                    return execution
            await asyncio.sleep(1)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--iterations", type=int, default=999_000, help="how many rounds (999000)")
    parser.add_argument("--silent", action="store_true", help="without a receiver")
    arguments = parser.parse_args()
    return asyncio.run(loop(arguments.iterations, silent=arguments.silent))


if __name__ == "__main__":
    sys.exit(main())
