"""Stage 1, service: what a call asks for, and what came of it, in words for the audit log.

Rules: nothing of a document, an input or a secret is told, only names, ids and the caller's own reason; a payload is
read once, when its call arrives, and not kept. What cannot be read is told without what it is about.
"""

from typing import Any, Final

from google.protobuf.message import DecodeError
from google.rpc.code_pb2 import OK, PERMISSION_DENIED, Code

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import CancelExecutionRequest, ExecuteAsyncBatchResponse
from fastrunner._pb.ai.stigmer.workflow.runner.v1.registry_pb2 import DeleteWorkflowRequest, RegisterWorkflowResponse
from fastrunner._pb.ai.stigmer.workflow.runner.v1.schedules_pb2 import (
    AddScheduleResponse,
    FireScheduleResponse,
    PauseScheduleRequest,
)
from fastrunner._pb.fastrunner.router.v1.views_pb2 import ItemsView
from fastrunner.access.audit import AuditLog
from fastrunner.access.principal import Principal, Role
from fastrunner.access.roles import ROLE_OF_METHOD, Open
from fastrunner.errors import RunnerError
from fastrunner.routing.facts import peek_execution_id

__all__ = ["AuditEntry"]

_BATCH: Final = "ExecuteAsyncBatch"
_COMMANDS: Final = {"CancelExecution", "PauseExecution", "ResumeExecution"}
"""Their requests have a reason in one and the same place."""
_WITH_REASON: Final = {"PauseSchedule", "ResumeSchedule"}
_OF_SCHEDULES: Final = {*_WITH_REASON, "AddSchedule", "DeleteSchedule", "FireSchedule", "BackfillSchedule"}
"""Field 1 of their requests names the schedule."""
_OF_EXECUTIONS: Final = {"DeleteExecution", "GetExecution", "GetDocument", "GetEvents", "Subscribe"}
_SUBMISSIONS: Final = {"Execute", "ExecuteAsync"}

About = list[dict[str, Any]]


class AuditEntry:
    """A call that is to be told."""

    __slots__ = ("_about", "_address", "_caller", "_is_told", "_log", "_method", "_only_looks")

    def __init__(self, log: AuditLog, method: str, principal: Principal | None, address: str) -> None:
        self._log = log
        self._method = method
        self._caller = principal.name if principal is not None else ""
        self._address = address
        self._about: About = [{}]
        self._is_told = False
        wanted = ROLE_OF_METHOD[method]
        self._only_looks = isinstance(wanted, Open) or wanted is Role.READ

    def asked(self, payload: bytes) -> None:
        """The request is there."""
        try:
            self._about = _about(self._method, payload)
        except (DecodeError, RunnerError):
            # It is refused in a moment.
            self._about = [{}]

    def ended(self, code: int, message: str = "", reply: bytes = b"") -> None:
        """What came of it: told once; what only looks is told if it was denied."""
        if self._is_told or (self._only_looks and code != PERMISSION_DENIED):
            return
        self._is_told = True
        outcome: dict[str, Any] = {"outcome": Code.Name(code)}
        if message:
            outcome["detail"] = message
        about = [each | outcome for each in self._about]
        if code == OK and self._method == _BATCH:
            results = ExecuteAsyncBatchResponse.FromString(reply).results
            for each, result in zip(about, results, strict=False):
                if result.HasField("refused"):
                    each |= {"outcome": Code.Name(result.refused.code), "detail": result.refused.message}
        elif code == OK and self._method == "RegisterWorkflow":
            workflow = RegisterWorkflowResponse.FromString(reply).workflow
            about[0]["workflow"] = f"{workflow.namespace}/{workflow.name}:{workflow.version}"
        elif code == OK and self._method == "AddSchedule":
            # It may have been given an id.
            about[0]["schedule"] = AddScheduleResponse.FromString(reply).schedule.schedule_id
        elif code == OK and self._method == "FireSchedule":
            about[0]["execution"] = FireScheduleResponse.FromString(reply).execution_id
        self._log.tell(caller=self._caller, address=self._address, method=self._method, about=about)


def _about(method: str, payload: bytes) -> About:
    """Raises DecodeError, InvalidRequest."""
    if method in _COMMANDS:
        request = CancelExecutionRequest.FromString(payload)
        reason = {"reason": request.reason} if request.reason else {}
        return [{"execution": request.execution_id} | reason]
    if method in _OF_SCHEDULES:
        reason_given = PauseScheduleRequest.FromString(payload).reason if method in _WITH_REASON else ""
        return [{"schedule": peek_execution_id(payload)} | ({"reason": reason_given} if reason_given else {})]
    if method == _BATCH:
        return [{"execution": _id(item)} for item in ItemsView.FromString(payload).items]
    if method == "SendEvents":
        return [{"events": len(ItemsView.FromString(payload).items)}]
    if method == "DeleteWorkflow":
        ref = DeleteWorkflowRequest.FromString(payload).workflow_ref
        return [{"workflow": f"{ref.namespace}/{ref.name}:{ref.version}"}]
    if method in _SUBMISSIONS or method in _OF_EXECUTIONS:
        return [{"execution": peek_execution_id(payload)}]
    return [{}]


def _id(item: bytes) -> str:
    try:
        return peek_execution_id(item)
    except RunnerError:
        return ""
