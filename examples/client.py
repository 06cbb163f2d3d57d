"""A client: submits a workflow and follows it to its end."""

import asyncio
from pathlib import Path

import grpc.aio

from fastrunner import api

DOCUMENT = Path("hello.yaml").read_text(encoding="utf-8")


async def main() -> None:
    async with grpc.aio.insecure_channel("localhost:9090") as channel:
        commands = api.WorkflowRunnerCommandControllerStub(channel)
        queries = api.WorkflowRunnerQueryControllerStub(channel)
        accepted = await commands.ExecuteAsync(
            api.WorkflowExecuteInput(
                workflow_execution_id="from-python",
                workflow_yaml=DOCUMENT,
                input_json='{"name": "Python"}',
            )
        )
        print(accepted.status)
        async for event in queries.Subscribe(api.SubscribeRequest(execution_id="from-python")):
            print(event.sequence_number, event.event_type, event.output_json)


asyncio.run(main())
