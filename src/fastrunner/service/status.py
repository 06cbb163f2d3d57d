"""Stage 1, service: refusals as google.rpc.Status, with the details a client can act on.

Every refusal carries an ErrorInfo whose reason is its class in capitals, such as `AT_CAPACITY`: two classes may share a
code. Rules: details fit the trailers clients accept by default; what is left out is said in the last violation; nothing
of a document or an input is in a message but what the refusal itself quotes.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.code_pb2 import INTERNAL
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status

from fastrunner._wire import TableBusy, TableFull
from fastrunner.base import limits
from fastrunner.errors import (
    AlreadyRegistered,
    AtCapacity,
    DocumentRefused,
    ForwardedError,
    IdTaken,
    InvalidRequest,
    RunnerError,
    ScheduleExists,
    Unavailable,
    UnknownExecution,
    UnknownSchedule,
    UnknownWorkflow,
)

if TYPE_CHECKING:
    from fastrunner._core import Problem

logger = logging.getLogger(__name__)

ERROR_DOMAIN = "fastrunner"
RESOURCE_TYPE = "ai.stigmer.workflow.runner.v1.Execution"
SCHEDULE_TYPE = "ai.stigmer.workflow.runner.v1.Schedule"
WORKFLOW_TYPE = "ai.stigmer.workflow.runner.v1.RegisteredWorkflow"
_OMITTED_SIZE_BYTES = 96
_VIOLATION_OVERHEAD_BYTES = 16


def status_of(error: Exception, details_size_bytes_max: int = limits.STATUS_DETAILS_SIZE_BYTES_MAX) -> Status:
    """What a caller is told of `error`. An error that is no refusal is logged and told as INTERNAL."""
    if isinstance(error, ForwardedError):
        if error.status:
            return Status.FromString(error.status)
        return Status(code=error.code, message=_clipped(error.message, limits.STATUS_MESSAGE_SIZE_BYTES_MAX))
    if isinstance(error, TableBusy):
        error = Unavailable(f"where executions live cannot be looked up now: {error}: try again")
    elif isinstance(error, TableFull):
        error = AtCapacity(f"no more executions can be told apart: {error}")
    if not isinstance(error, RunnerError):
        logger.error("a request failed unexpectedly", exc_info=error)
        return Status(code=INTERNAL, message="internal error: the runner's log has the cause")
    status = Status(code=error.grpc_code, message=_clipped(error.message, limits.STATUS_MESSAGE_SIZE_BYTES_MAX))
    for detail in _details(error, details_size_bytes_max):
        status.details.add().Pack(detail)
    return status


def reason_of(error: RunnerError) -> str:
    """The class of a refusal as ErrorInfo and metrics name it, such as `AT_CAPACITY`, wherever it was made."""
    if isinstance(error, ForwardedError):
        return reason_in(Status.FromString(error.status).details)
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).upper()


def reason_in(details: Iterable[Any]) -> str:
    """The reason among the details of a refusal; empty if there is none."""
    info = ErrorInfo()
    return next((info.reason for detail in details if detail.Unpack(info)), "")


def _details(error: RunnerError, size_bytes_max: int) -> Iterator[Message]:
    yield ErrorInfo(reason=reason_of(error), domain=ERROR_DOMAIN)
    if isinstance(error, InvalidRequest):
        yield BadRequest(field_violations=[_violation(error.field, error.message)])
    elif isinstance(error, DocumentRefused):
        yield _bad_document(error.problems, size_bytes_max)
    elif error.retry_after_s > 0:
        delay = Duration()
        delay.FromMilliseconds(round(error.retry_after_s * 1000))
        yield RetryInfo(retry_delay=delay)
    elif isinstance(error, UnknownWorkflow | AlreadyRegistered):
        yield ResourceInfo(
            resource_type=WORKFLOW_TYPE,
            resource_name=error.reference,
            description=_clipped(error.message, limits.STATUS_MESSAGE_SIZE_BYTES_MAX),
        )
    elif isinstance(error, UnknownSchedule | ScheduleExists):
        yield ResourceInfo(
            resource_type=SCHEDULE_TYPE,
            resource_name=error.schedule_id,
            description=_clipped(error.message, limits.STATUS_MESSAGE_SIZE_BYTES_MAX),
        )
    elif isinstance(error, UnknownExecution | IdTaken):
        yield ResourceInfo(
            resource_type=RESOURCE_TYPE,
            resource_name=error.execution_id,
            description=_clipped(error.message, limits.STATUS_MESSAGE_SIZE_BYTES_MAX),
        )


def _bad_document(problems: Sequence["Problem"], size_bytes_max: int) -> BadRequest:
    """One violation per problem, as many as fit; the last one counts those that do not."""
    bad = BadRequest()
    room_bytes = size_bytes_max - _OMITTED_SIZE_BYTES
    for position, violation in enumerate(_violations(problems)):
        room_bytes -= violation.ByteSize() + _VIOLATION_OVERHEAD_BYTES
        if room_bytes < 0:
            omitted = f"{len(problems) - position} more problems: ValidateWorkflow lists them all"
            bad.field_violations.append(_violation("workflow_yaml", omitted))
            break
        bad.field_violations.append(violation)
    return bad


def _violations(problems: Iterable["Problem"]) -> Iterator[BadRequest.FieldViolation]:
    for problem in problems:
        where = f"line {problem.line}, column {problem.column}, {problem.pointer or '/'}"
        violation = _violation("workflow_yaml", f"{where} [{problem.code}]: {problem.message}")
        violation.reason = problem.code.upper().replace("-", "_")
        yield violation


def _violation(field: str, description: str) -> BadRequest.FieldViolation:
    return BadRequest.FieldViolation(
        field=field, description=_clipped(description, limits.STATUS_MESSAGE_SIZE_BYTES_MAX)
    )


def _clipped(text: str, size_bytes_max: int) -> str:
    """`text` cut to a size in UTF-8, with a sign that it was."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= size_bytes_max:
        return encoded.decode("utf-8")
    return encoded[: size_bytes_max - 3].decode("utf-8", "ignore") + "..."
