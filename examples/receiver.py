"""A receiver of progress: takes every event once and in order, and says so."""

import asyncio

import grpc.aio

from fastrunner import api


class Receiver(api.WorkflowRunnerCommandControllerServicer):
    taken: dict[str, int] = {}  # the highest number of each execution; keep yours where you store the events

    def take(self, event: api.WorkflowProgressEvent) -> api.ProgressAcknowledgement:
        execution_id, number = event.workflow_execution_id, event.sequence_number
        if number == self.taken.setdefault(execution_id, number - 1) + 1:  # else a duplicate, or behind a gap
            print(execution_id, number, event.event_type, event.output_json, flush=True)
            self.taken[execution_id] = number
        return api.ProgressAcknowledgement(workflow_execution_id=execution_id, sequence_number=self.taken[execution_id])

    async def ReportProgress(self, request: api.WorkflowProgressEvent, context: object) -> api.ProgressAckResponse:
        return api.ProgressAckResponse(success=self.take(request).sequence_number >= request.sequence_number)

    async def ReportProgressBatch(
        self, request: api.ReportProgressBatchRequest, context: object
    ) -> api.ReportProgressBatchResponse:
        taken = {event.workflow_execution_id: self.take(event) for event in request.events}
        return api.ReportProgressBatchResponse(acknowledgements=taken.values())


async def main() -> None:
    server = grpc.aio.server()
    api.add_WorkflowRunnerCommandControllerServicer_to_server(Receiver(), server)
    server.add_insecure_port("localhost:50051")
    await server.start()
    await server.wait_for_termination()


asyncio.run(main())
