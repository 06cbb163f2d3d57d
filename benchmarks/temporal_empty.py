"""Support: a worker of the Python SDK whose workflow does nothing: the most that Temporal's server lets anybody have.

python -m benchmarks.temporal_empty ADDRESS NAMESPACE QUEUE
"""

import asyncio
import sys

from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker


@workflow.defn(name="empty", sandboxed=False)
class Empty:
    """A workflow that has ended when it begins."""

    @workflow.run
    async def run(self, tasks: int) -> int:
        """Gives what it was given."""
        return tasks


async def serve(address: str, namespace: str, queue: str) -> None:
    """Until it is ended."""
    client = await Client.connect(address, namespace=namespace)
    await Worker(client, task_queue=queue, workflows=[Empty], workflow_runner=UnsandboxedWorkflowRunner()).run()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:4]))
