"""Support: a worker of Temporal's Python SDK, by hand: what that SDK costs whoever uses it.

    python -m benchmarks.temporal_python ADDRESS NAMESPACE QUEUE URL

    empty   a workflow that does nothing: the most that Temporal's server lets anybody have
    calls   an activity for each call, and one that stands for the last report: what the runner asks of Temporal,
            without the runner

Rule: nothing is set that costs more than it has to: no sandbox, no codec, the library's own converter.
"""

import sys
from datetime import timedelta
from typing import Any

import aiohttp
import uvloop
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

_TIMEOUT = timedelta(minutes=1)


@workflow.defn(name="empty", sandboxed=False)
class Empty:
    """A workflow that has ended when it begins."""

    @workflow.run
    async def run(self, tasks: int) -> int:
        """Gives what it was given."""
        return tasks


@workflow.defn(name="calls", sandboxed=False)
class Calls:
    """A workflow of calls, one after the other."""

    @workflow.run
    async def run(self, tasks: int) -> Any:
        """Gives what the last call has."""
        value = None
        for _ in range(tasks):
            value = await workflow.execute_activity("call", start_to_close_timeout=_TIMEOUT)
        await workflow.execute_activity("report", start_to_close_timeout=_TIMEOUT)
        return value


@activity.defn(name="report")
async def report() -> int:
    """Reports nothing."""
    return 0


async def serve(address: str, namespace: str, queue: str, url: str) -> None:
    """Until it is ended."""
    client = await Client.connect(address, namespace=namespace)
    async with aiohttp.ClientSession() as session:

        @activity.defn(name="call")
        async def call() -> Any:
            async with session.get(url) as response:
                return await response.json()

        await Worker(
            client,
            task_queue=queue,
            workflows=[Empty, Calls],
            activities=[call, report],
            workflow_runner=UnsandboxedWorkflowRunner(),
        ).run()


if __name__ == "__main__":
    uvloop.run(serve(*sys.argv[1:5]))
