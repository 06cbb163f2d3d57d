"""Support: what the runner refuses or fails with, and the gRPC status each one becomes.

    RunnerError
      InvalidRequest        INVALID_ARGUMENT      empty or over-long id, empty document, bad input JSON
      DocumentRefused       INVALID_ARGUMENT      the document does not parse or validate; carries every problem
      TooLarge              RESOURCE_EXHAUSTED    document, input or batch over its size bound
      AtCapacity            RESOURCE_EXHAUSTED    more unfinished executions than the bound
        StorageFull         RESOURCE_EXHAUSTED    the disk is full or nearly so
      UnknownExecution      NOT_FOUND             no execution with this id
      UnknownWorkflow       NOT_FOUND             no such definition is registered
      UnknownDocument       NOT_FOUND             the document of an execution is not known here
      UnknownSchedule       NOT_FOUND             no schedule with this id
      UnknownService        NOT_FOUND             health of a service this runner does not have
      IdTaken               ALREADY_EXISTS        same id, different request
      AlreadyRegistered     ALREADY_EXISTS        a version is registered with another text
      ScheduleExists        ALREADY_EXISTS        a schedule was added by another request
      WrongState            FAILED_PRECONDITION   the execution's state does not allow the command
      ResourceUnavailable   UNAVAILABLE           a text that the document needs cannot be fetched for the moment
      Unavailable           UNAVAILABLE           draining, or the owner did not come back in time
        Stopping            UNAVAILABLE           the worker is stopping; its successor answers
        Elsewhere           UNAVAILABLE           another worker has the id, or is just taking it
        StorageFailed       UNAVAILABLE           the data directory cannot be read or written
        ShardDamaged        UNAVAILABLE           nor will it, because a shard's file is damaged
      Damaged               DATA_LOSS             what is stored of the execution is not what was written
      NotServed             UNIMPLEMENTED         the method exists but this side does not serve it
      Unauthenticated       UNAUTHENTICATED       no or wrong credentials where they are configured
      PermissionDenied      PERMISSION_DENIED     the caller's roles or namespaces do not cover it
      ForwardedError        as the owner said     a refusal by another worker, passed on unchanged

Rule: a task that fails or a workflow that faults is never one of these; events and status tell it.
"""

from typing import TYPE_CHECKING, ClassVar

from fastrunner.base import limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastrunner._core import Problem


class RunnerError(Exception):
    """Base of all refusals; `grpc_code` is the numeric google.rpc.Code."""

    grpc_code: ClassVar[int] = 13
    retry_after_s: float = 0.0
    """When a retry may succeed, in seconds; sent as google.rpc.RetryInfo unless 0."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        """One sentence naming the field, the value and the remedy."""


class InvalidRequest(RunnerError):
    """The request itself is malformed; `field` names the protobuf field."""

    grpc_code = 3

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        """Path of the offending field in the request message."""


class DocumentRefused(RunnerError):
    """The workflow document does not parse or validate."""

    grpc_code = 3

    def __init__(self, problems: "Sequence[Problem]") -> None:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"workflow_yaml:{first.line}:{first.column}: {first.message}{more}")
        self.problems = tuple(problems)
        """Every problem found."""


class TooLarge(RunnerError):
    """Something exceeds its size bound."""

    grpc_code = 8


class AtCapacity(RunnerError):
    """No room for new executions now."""

    grpc_code = 8

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StorageFull(AtCapacity):
    """The disk of the data directory is full, or nearly so."""


class UnknownExecution(RunnerError):
    """No execution with this id exists."""

    grpc_code = 5

    def __init__(self, execution_id: str) -> None:
        super().__init__(f"no execution with id {execution_id!r}: it was never accepted, or it has been deleted")
        self.execution_id = execution_id
        """The id asked for."""


class UnknownDocument(RunnerError):
    """What an execution executes is not known to whoever was asked."""

    grpc_code = 5


class UnknownService(RunnerError):
    """Health was asked for a service this runner does not have."""

    grpc_code = 5


class IdTaken(RunnerError):
    """The id belongs to an execution with a different request."""

    grpc_code = 6

    def __init__(self, execution_id: str) -> None:
        super().__init__(f"execution id {execution_id!r} is taken by a different request: use a new id")
        self.execution_id = execution_id
        """The id asked for."""


class UnknownWorkflow(RunnerError):
    """No such definition is registered."""

    grpc_code = 5

    def __init__(self, namespace: str, name: str, version: str) -> None:
        which = f"version {version!r}" if version else "version at all"
        super().__init__(
            f"no {which} of workflow {name!r} in namespace {namespace!r} is registered: `fastrunner workflow list` "
            "shows what is, and `fastrunner workflow register` registers a document"
        )
        self.reference = f"{namespace}/{name}:{version or 'latest'}"
        """What was asked for."""


class AlreadyRegistered(RunnerError):
    """A version is registered with another text."""

    grpc_code = 6

    def __init__(self, namespace: str, name: str, version: str) -> None:
        super().__init__(
            f"version {version!r} of workflow {name!r} in namespace {namespace!r} is registered with another text, and "
            "a version never changes: give the document a higher version"
        )
        self.reference = f"{namespace}/{name}:{version}"
        """What was to be registered."""


class UnknownSchedule(RunnerError):
    """No schedule with this id exists."""

    grpc_code = 5

    def __init__(self, schedule_id: str) -> None:
        super().__init__(f"no schedule with id {schedule_id!r}: `fastrunner schedule list` shows those there are")
        self.schedule_id = schedule_id
        """The id asked for."""


class ScheduleExists(RunnerError):
    """The id belongs to a schedule that another request has added."""

    grpc_code = 6

    def __init__(self, schedule_id: str) -> None:
        super().__init__(
            f"schedule {schedule_id!r} was added by a different request: use another id, or delete it first "
            "(`fastrunner schedule delete`)"
        )
        self.schedule_id = schedule_id
        """The id asked for."""


class WrongState(RunnerError):
    """The execution's state does not allow the command."""

    grpc_code = 9


class ResourceUnavailable(RunnerError):
    """A text from elsewhere that a document needs cannot be fetched for the moment."""

    grpc_code = 14
    retry_after_s = limits.RESOURCE_RETRY_S


class Unavailable(RunnerError):
    """Temporarily not served; a retry is right."""

    grpc_code = 14


class Stopping(Unavailable):
    """The worker is stopping, or does not own the execution: nothing was done, and its successor may do it."""


class ShortHanded(Unavailable):
    """A worker is being replaced, and more comes than is taken meanwhile."""

    def __init__(self) -> None:
        super().__init__("a worker of the runner is being replaced, and more comes than is taken meanwhile: try again")


class Elsewhere(Unavailable):
    """Another worker has an execution with this id, or is just accepting one."""

    def __init__(self, execution_id: str) -> None:
        super().__init__(f"execution {execution_id!r} is being accepted by another worker: try again")


class StorageFailed(Unavailable):
    """The data directory cannot be read or written."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ShardDamaged(StorageFailed):
    """A shard's file is damaged where it is to be read or written: only a backup helps."""


class Damaged(RunnerError):
    """What is stored of an execution is not what was written."""

    grpc_code = 15


class NotServed(RunnerError):
    """A method this side does not serve."""

    grpc_code = 12


class Unauthenticated(RunnerError):
    """No or wrong credentials."""

    grpc_code = 16


class PermissionDenied(RunnerError):
    """The caller is known, and its roles or namespaces do not cover what it asks for."""

    grpc_code = 7


def code_of(error: RunnerError) -> int:
    """The numeric google.rpc.Code of a refusal, wherever it was made."""
    return error.code if isinstance(error, ForwardedError) else error.grpc_code


class ForwardedError(RunnerError):
    """A refusal by the owning worker, passed on unchanged."""

    def __init__(self, code: int, message: str, status: bytes) -> None:
        super().__init__(message)
        self.code = code
        """The numeric google.rpc.Code."""
        self.status = status
        """Serialized google.rpc.Status with details; empty if there are none."""
