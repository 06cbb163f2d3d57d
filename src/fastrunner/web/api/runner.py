"""Support: what a runner alone can do, whoever is asked: schedules, CloudEvents, commands; as messages to its methods.

Rule: nothing is checked here that the runner checks; its refusals come in its words.
"""

import base64
import binascii
from typing import Any, Final, Protocol, TypeVar

import orjson
from google.protobuf.message import DecodeError, Message

from fastrunner._pb.ai.stigmer.workflow.runner.v1.events_pb2 import CloudEvent, SendEventsRequest
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import (
    CancelExecutionRequest,
    PauseExecutionRequest,
    ResumeExecutionRequest,
    WorkflowExecuteInput,
)
from fastrunner._pb.ai.stigmer.workflow.runner.v1.schedules_pb2 import (
    AddScheduleRequest,
    AddScheduleResponse,
    DeleteScheduleRequest,
    FireScheduleRequest,
    FireScheduleResponse,
    ListSchedulesRequest,
    ListSchedulesResponse,
    MisfirePolicy,
    OverlapPolicy,
    PauseScheduleRequest,
    ResumeScheduleRequest,
    Schedule,
    ScheduleOptions,
    ScheduleTrigger,
)
from fastrunner.access.principal import Principal
from fastrunner.base import limits
from fastrunner.errors import InvalidRequest, TooLarge, Unavailable
from fastrunner.events.attributes import is_json
from fastrunner.web.api import shapes

__all__ = ["Calls", "RunnerSide", "execution_input", "parsed"]

_ATTRIBUTES: Final = {"specversion": "spec_version", "id": "id", "source": "source", "type": "type"}


M = TypeVar("M", bound=Message)


class Calls(Protocol):
    """Who calls a runner's methods."""

    async def call(self, method: str, request: Message, principal: Principal | None) -> bytes:
        """The encoded reply of a method by its canonical name, on behalf of a caller. Raises RunnerError."""


def parsed(kind: type[M], reply: bytes) -> M:
    """A reply. Raises Unavailable if it is none."""
    try:
        return kind.FromString(reply)
    except DecodeError:
        raise Unavailable("what answers is no runner of this version: is its address right?") from None


def execution_input(execution_id: str, new: shapes.StartExecution | shapes.NewSchedule) -> WorkflowExecuteInput:
    """What both starts and schedules say of an execution, but for the workflow. Raises TooLarge."""
    input_json = orjson.dumps(new.input)
    if len(input_json) > limits.INPUT_SIZE_BYTES_MAX:
        raise TooLarge(f"input has {len(input_json)} bytes as JSON: {limits.INPUT_SIZE_BYTES_MAX} are taken at most")
    request = WorkflowExecuteInput(
        workflow_execution_id=execution_id, env_vars=new.env, input_json=input_json.decode(), labels=new.labels
    )
    request.config.max_timeout_seconds = new.timeout_s
    return request


class RunnerSide:
    """Asks one runner."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    # --- commands ---

    async def cancel(self, principal: Principal | None, execution_id: str, command: shapes.CancelCommand) -> None:
        """See Backend."""
        request = CancelExecutionRequest(execution_id=execution_id, reason=command.reason, force=command.force)
        await self._calls.call("CancelExecution", request, principal)

    async def pause(self, principal: Principal | None, execution_id: str, command: shapes.Command) -> None:
        """See Backend."""
        request = PauseExecutionRequest(execution_id=execution_id, reason=command.reason)
        await self._calls.call("PauseExecution", request, principal)

    async def resume(self, principal: Principal | None, execution_id: str, command: shapes.Command) -> None:
        """See Backend."""
        request = ResumeExecutionRequest(execution_id=execution_id, reason=command.reason)
        await self._calls.call("ResumeExecution", request, principal)

    # --- events ---

    async def send_event(self, principal: Principal | None, event: shapes.CloudEvent) -> None:
        """See Backend."""
        await self._calls.call("SendEvents", SendEventsRequest(events=[_message(event.model_dump())]), principal)

    # --- schedules ---

    async def page_schedules(
        self, principal: Principal | None, namespace: str, after: str, count_max: int
    ) -> shapes.SchedulePage:
        """See Backend."""
        request = ListSchedulesRequest(namespace=namespace, page_size=count_max, page_token=after)
        page = parsed(ListSchedulesResponse, await self._calls.call("ListSchedules", request, principal))
        return shapes.SchedulePage(
            schedules=[_schedule(each) for each in page.schedules], next=page.next_page_token or None
        )

    async def send_schedule(
        self, principal: Principal | None, new: shapes.NewSchedule, execution: WorkflowExecuteInput
    ) -> tuple[shapes.Schedule, bool]:
        """Of what `execution` says; whether it was not there."""
        given = new.options
        options = ScheduleOptions(
            timezone=given.timezone,
            misfire=MisfirePolicy.Value(f"MISFIRE_POLICY_{(given.misfire or 'unspecified').upper()}"),
            misfire_count_max=given.misfire_count_max,
            overlap=OverlapPolicy.Value(f"OVERLAP_POLICY_{(given.overlap or 'unspecified').upper()}"),
            queue_count_max=given.queue_count_max,
            jitter_ms=given.jitter_ms,
        )
        trigger = None if new.trigger is None else ScheduleTrigger(**new.trigger.model_dump())
        request = AddScheduleRequest(schedule_id=new.id, execution=execution, trigger=trigger, options=options)
        reply = parsed(AddScheduleResponse, await self._calls.call("AddSchedule", request, principal))
        return _schedule(reply.schedule), reply.created

    async def pause_schedule(self, principal: Principal | None, schedule_id: str, command: shapes.Command) -> None:
        """See Backend."""
        request = PauseScheduleRequest(schedule_id=schedule_id, reason=command.reason)
        await self._calls.call("PauseSchedule", request, principal)

    async def resume_schedule(self, principal: Principal | None, schedule_id: str, command: shapes.Command) -> None:
        """See Backend."""
        request = ResumeScheduleRequest(schedule_id=schedule_id, reason=command.reason)
        await self._calls.call("ResumeSchedule", request, principal)

    async def delete_schedule(self, principal: Principal | None, schedule_id: str) -> None:
        """See Backend."""
        await self._calls.call("DeleteSchedule", DeleteScheduleRequest(schedule_id=schedule_id), principal)

    async def fire_schedule(
        self, principal: Principal | None, schedule_id: str, command: shapes.FireCommand
    ) -> shapes.Fired:
        """See Backend."""
        request = FireScheduleRequest(schedule_id=schedule_id, key=command.key)
        reply = parsed(FireScheduleResponse, await self._calls.call("FireSchedule", request, principal))
        return shapes.Fired(execution_id=reply.execution_id)


def _schedule(schedule: Schedule) -> shapes.Schedule:
    trigger, options = schedule.trigger, schedule.options
    names = set(shapes.Schedule.model_fields) - {"id", "trigger", "options"}
    return shapes.Schedule.model_construct(
        id=schedule.schedule_id,
        trigger=shapes.Trigger.model_construct(
            **{name: getattr(trigger, name) for name in shapes.Trigger.model_fields}
        ),
        options=shapes.ScheduleOptions.model_construct(
            timezone=options.timezone,
            misfire=_policy(MisfirePolicy.Name(options.misfire), "MISFIRE_POLICY_"),
            misfire_count_max=options.misfire_count_max,
            overlap=_policy(OverlapPolicy.Name(options.overlap), "OVERLAP_POLICY_"),
            queue_count_max=options.queue_count_max,
            jitter_ms=options.jitter_ms,
        ),
        **{name: getattr(schedule, name) for name in names},
    )


def _policy(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower().replace("unspecified", "")


def _message(event: dict[str, Any]) -> CloudEvent:
    """An event in CloudEvents' protobuf format. Raises InvalidRequest."""
    message = CloudEvent()
    for name, value in event.items():
        if name == "data":
            says = event.get("datacontenttype")
            message.text_data = value if isinstance(value, str) and says and not is_json(says) else _text(value)
        elif name == "data_base64":
            try:
                message.binary_data = base64.b64decode(value, validate=True)
            except (binascii.Error, TypeError, ValueError):
                raise InvalidRequest(name, "data_base64 is no base64") from None
        elif name in _ATTRIBUTES:
            setattr(message, _ATTRIBUTES[name], value)
        elif isinstance(value, str | bool | int):
            kind = "ce_boolean" if isinstance(value, bool) else "ce_integer" if isinstance(value, int) else "ce_string"
            try:
                setattr(message.attributes[name], kind, value)
            except ValueError:
                raise InvalidRequest(name, f"{name[:40]} has more than 32 bits: attributes are smaller") from None
        else:
            raise InvalidRequest(
                name, f"{name[:40]} is no text, integer or boolean: attributes are; put more into data"
            )
    return message


def _text(value: Any) -> str:
    return orjson.dumps(value).decode()
