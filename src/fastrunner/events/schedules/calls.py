"""Stage 3, journal: what schedules ask of the rest of the worker: to start an execution, and whether it has ended.

Rule: a schedule's executions go the way of any client's, so they live in any worker, are refused as any are, and count
among their client's.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from google.rpc.code_pb2 import ALREADY_EXISTS, NOT_FOUND

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowExecuteInput
from fastrunner._pb.ai.stigmer.workflow.runner.v1.query_pb2 import GetExecutionRequest, GetExecutionResponse
from fastrunner.access.principal import Principal
from fastrunner.engine.schedules import Schedule
from fastrunner.errors import RunnerError, code_of
from fastrunner.progress.names import FINAL_STATUSES

__all__ = ["LABEL", "Call", "Executions"]

LABEL: Final = "schedule"
"""The label that tells what an execution was started by."""

Call = Callable[[str, bytes, Principal | None], Awaitable[bytes]]
"""The reply to a method of the runner, called on behalf of somebody. Raises RunnerError."""


class Executions:
    """The executions of schedules."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def start(self, schedule: Schedule, execution_id: str, input_json: str = "") -> None:
        """Has an execution accepted, unless it was before; with the schedule's input unless another one is given.

        Raises RunnerError.
        """
        request = WorkflowExecuteInput.FromString(schedule.request)
        request.workflow_execution_id = execution_id
        request.labels[LABEL] = schedule.schedule_id
        # Of the request's inputs this one wins.
        request.input_json = input_json or request.input_json
        try:
            await self._call("ExecuteAsync", request.SerializeToString(deterministic=True), schedule.principal)
        except RunnerError as error:
            # Of the same moment, by a schedule that had this id before.
            if code_of(error) != ALREADY_EXISTS:
                raise

    async def end_ms(self, execution_id: str, now_ms: int) -> int | None:
        """When an execution has ended, in milliseconds since the epoch; one that is not there, now; None if it has not.
        Raises RunnerError."""
        request = GetExecutionRequest(execution_id=execution_id).SerializeToString()
        try:
            reply = await self._call("GetExecution", request, None)
        except RunnerError as error:
            if code_of(error) != NOT_FOUND:
                raise
            return now_ms
        execution = GetExecutionResponse.FromString(reply).execution
        return execution.finished_ms or now_ms if execution.status in FINAL_STATUSES else None
