"""Support: the command's gRPC client: one channel, plain methods, errors as sentences."""

import random
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click
import grpc
from google.protobuf.empty_pb2 import Empty
from grpc_status import rpc_status

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import (
    events_pb2,
    messages_pb2,
    query_pb2,
    registry_pb2,
    schedules_pb2,
)
from fastrunner.base.clock import monotonic_s
from fastrunner.cli.access import Access
from fastrunner.cli.present import say
from fastrunner.config import ConfigurationError, runner_target
from fastrunner.progress.names import TERMINAL_EVENTS

COMMANDS = "/ai.stigmer.workflow.runner.v1.WorkflowRunnerCommandController/"
QUERIES = "/ai.stigmer.workflow.runner.v1.WorkflowRunnerQueryController/"
REGISTRY = "/ai.stigmer.workflow.runner.v1.WorkflowRegistryController/"
EXIT_RPC = 4
_AGAIN_S_MIN = 0.1
_AGAIN_S_MAX = 2.0
"""Pauses between two attempts to follow on."""
_SILENT_S = 3.0
"""How long a runner may be away before that is said: a restart of its workers takes less."""
_AWAY_S_MAX = 300.0
"""How long a runner may be away before following ends: an upgrade with a drain takes less."""

_REPLIES: dict[str, Any] = {
    "ExecuteAsync": messages_pb2.WorkflowExecuteResponse,
    "CancelExecution": Empty,
    "PauseExecution": Empty,
    "ResumeExecution": Empty,
    "DeleteExecution": Empty,
    "SendEvents": events_pb2.SendEventsResponse,
    "GetExecution": query_pb2.GetExecutionResponse,
    "ListExecutions": query_pb2.ListExecutionsResponse,
    "GetEvents": query_pb2.GetEventsResponse,
    "ValidateWorkflow": query_pb2.ValidateWorkflowResponse,
    "RegisterWorkflow": registry_pb2.RegisterWorkflowResponse,
    "GetWorkflow": registry_pb2.GetWorkflowResponse,
    "ListWorkflows": registry_pb2.ListWorkflowsResponse,
    "DeleteWorkflow": registry_pb2.DeleteWorkflowResponse,
    "AddSchedule": schedules_pb2.AddScheduleResponse,
    "ListSchedules": schedules_pb2.ListSchedulesResponse,
    "PauseSchedule": schedules_pb2.PauseScheduleResponse,
    "ResumeSchedule": schedules_pb2.ResumeScheduleResponse,
    "DeleteSchedule": schedules_pb2.DeleteScheduleResponse,
    "FireSchedule": schedules_pb2.FireScheduleResponse,
    "BackfillSchedule": schedules_pb2.BackfillScheduleResponse,
}
_SERVICE_OF = {
    **dict.fromkeys(
        ("GetExecution", "ListExecutions", "GetEvents", "Subscribe", "ValidateWorkflow", "DeleteExecution"), QUERIES
    ),
    **dict.fromkeys(("RegisterWorkflow", "GetWorkflow", "ListWorkflows", "DeleteWorkflow"), REGISTRY),
    **dict.fromkeys(("AddSchedule", "ListSchedules", "PauseSchedule", "ResumeSchedule"), REGISTRY),
    **dict.fromkeys(("DeleteSchedule", "FireSchedule", "BackfillSchedule"), REGISTRY),
}
"""Of the methods that are no commands."""


class Client:
    """A runner reached at `target` (host:port); None: at FASTRUNNER_TARGET."""

    def __init__(self, target: str | None, access: Access, deadline_s: float) -> None:
        self._flags = (f" --target {shlex.quote(target)}" if target else "") + access.flags
        try:
            target = target or runner_target()
        except ConfigurationError as error:
            raise click.UsageError(str(error)) from None
        access.check(target)
        self._metadata = access.metadata
        options = [("grpc.max_receive_message_length", -1)]
        self._channel = (
            grpc.secure_channel(target, access.credentials(), options)
            if access.tls
            else grpc.insecure_channel(target, options)
        )
        self._target = target
        self._deadline_s = deadline_s

    def call(self, method: str, request: Any) -> Any:
        """One unary call; leaves the process with a sentence when it is refused."""
        with self._sentences():
            return self.invoke(method, request)

    def attempt(self, method: str, request: Any) -> bool:
        """As `call`, for one of several: says why it is refused, and gives whether it was not."""
        try:
            self.invoke(method, request)
        except grpc.RpcError as error:
            _say_refused(error, self._target)
            return False
        return True

    def ask(self, method: str, request: Any) -> Any:
        """As `call`, for what is only shown beside something else: None when it is refused."""
        try:
            return self.invoke(method, request)
        except grpc.RpcError:
            return None

    def invoke(self, method: str, request: Any) -> Any:
        """One unary call. Raises grpc.RpcError."""
        invoke = self._channel.unary_unary(
            _SERVICE_OF.get(method, COMMANDS) + method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=_REPLIES[method].FromString,
        )
        return invoke(request, timeout=self._deadline_s, wait_for_ready=False, metadata=self._metadata)

    def hint(self, command: str, execution_id: str, *flags: str) -> str:
        """What to type to do something with an execution of the same runner."""
        quoted = shlex.quote(execution_id)
        if execution_id.startswith("-"):
            return " ".join(("fastrunner", command, *flags)) + f"{self._flags} -- {quoted}"
        return " ".join(("fastrunner", command, quoted, *flags)) + self._flags

    def follow(self, execution_id: str, from_sequence: int) -> Iterator[messages_pb2.WorkflowProgressEvent]:
        """Events from a sequence number on, until the terminal one, through restarts of the runner.

        A runner that has answered once may be away for some minutes; then the next event is asked of it again.
        """
        away: _Away | None = None
        while True:
            try:
                for event in self._subscribe(execution_id, from_sequence):
                    if away is not None:
                        away.end()
                    away, from_sequence = _Away(self._target), event.sequence_number + 1
                    yield event
                    if event.event_type in TERMINAL_EVENTS:
                        return
            except grpc.RpcError as error:
                if away is None or error.code() is not grpc.StatusCode.UNAVAILABLE or not away.wait():
                    _refused(error, self._target)
            else:
                # There is no event from that number on, and there will be none: it has ended before.
                return

    def follow_all(self, request: query_pb2.SubscribeAllRequest) -> Iterator[query_pb2.StateChange]:
        """What becomes of all executions, without end, through restarts of the runner as `follow`."""
        away: _Away | None = None
        invoke = self._channel.unary_stream(
            QUERIES + "SubscribeAll",
            request_serializer=query_pb2.SubscribeAllRequest.SerializeToString,
            response_deserializer=query_pb2.StateChange.FromString,
        )
        while True:
            try:
                for change in invoke(request, metadata=self._metadata):
                    if away is not None:
                        away.end()
                    away, request.cursor = _Away(self._target), change.cursor
                    yield change
            except grpc.RpcError as error:
                if away is None or error.code() is not grpc.StatusCode.UNAVAILABLE or not away.wait():
                    _refused(error, self._target)

    def _subscribe(self, execution_id: str, from_sequence: int) -> Iterator[messages_pb2.WorkflowProgressEvent]:
        invoke = self._channel.unary_stream(
            QUERIES + "Subscribe",
            request_serializer=query_pb2.SubscribeRequest.SerializeToString,
            response_deserializer=messages_pb2.WorkflowProgressEvent.FromString,
        )
        request = query_pb2.SubscribeRequest(execution_id=execution_id, from_sequence_number=from_sequence)
        return iter(invoke(request, metadata=self._metadata))

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            _refused(error, self._target)


class _Away:
    """A runner that does not answer: when to ask again, and what to say of it."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._since_s = 0.0
        self._pause_s = _AGAIN_S_MIN
        self._said = False

    def wait(self) -> bool:
        """Waits before another attempt; false when it has been away for too long."""
        now_s = monotonic_s()
        self._since_s = self._since_s or now_s
        if now_s - self._since_s > _AWAY_S_MAX:
            return False
        if not self._said and now_s - self._since_s > _SILENT_S:
            self._said = True
            say(f"no answer from {self._target}: asking again until it is back; Ctrl-C ends this, not the execution")
        time.sleep(self._pause_s * random.uniform(0.5, 1.0))
        self._pause_s = min(2 * self._pause_s, _AGAIN_S_MAX)
        return True

    def end(self) -> None:
        """It answers again."""
        if self._said:
            say(f"{self._target} is back")


def _refused(error: Any, target: str) -> NoReturn:
    _say_refused(error, target)
    sys.exit(EXIT_RPC)


def _say_refused(error: Any, target: str) -> None:
    code = error.code()
    if code is grpc.StatusCode.UNAVAILABLE:
        say(f"fastrunner: no answer from {target}: {error.details()}; is the runner up there?")
    else:
        say(f"fastrunner: {code.name}: {error.details()}")
    for detail in _violations(error):
        say(f"  {detail}")


def _violations(error: Any) -> list[str]:
    from google.rpc import error_details_pb2

    status = rpc_status.from_call(error)
    lines: list[str] = []
    for detail in status.details if status is not None else ():
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            lines.extend(f"{violation.field}: {violation.description}" for violation in bad.field_violations)
    return lines
