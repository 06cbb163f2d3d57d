"""Support: which role each method of the gRPC port and each path of the HTTP port wants: the one table of them.

Rule: what has no row here is not served once callers are told apart; a test finds a served method without a row.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final

from fastrunner.access.principal import Principal, Role
from fastrunner.errors import PermissionDenied

__all__ = ["ROLE_OF_METHOD", "ROLE_OF_PATH", "Open", "Wanted", "check_role"]


class Open(Enum):
    """What wants no role."""

    TO_ALL = "to all"
    """Needs no credentials: whoever restarts and balances runners has none."""
    TO_CALLERS = "to callers"
    """Any credentials do."""


Wanted = Role | Open

ROLE_OF_METHOD: Final[Mapping[str, Wanted]] = {
    "Execute": Role.SUBMIT,
    "ExecuteAsync": Role.SUBMIT,
    "ExecuteAsyncBatch": Role.SUBMIT,
    "CancelExecution": Role.CONTROL,
    "PauseExecution": Role.CONTROL,
    "ResumeExecution": Role.CONTROL,
    "SendEvents": Role.SUBMIT,
    # Answered with a refusal whoever calls: the runner is their client.
    "ReportProgress": Open.TO_CALLERS,
    "ReportProgressBatch": Open.TO_CALLERS,
    "GetExecution": Role.READ,
    "ListExecutions": Role.READ,
    "CountExecutions": Role.READ,
    "GetDocument": Role.READ,
    "GetEvents": Role.READ,
    "Subscribe": Role.READ,
    "SubscribeAll": Role.READ,
    "ValidateWorkflow": Role.READ,
    "DeleteExecution": Role.ADMIN,
    "RegisterWorkflow": Role.ADMIN,
    "DeleteWorkflow": Role.ADMIN,
    "GetWorkflow": Role.READ,
    "ListWorkflows": Role.READ,
    "AddSchedule": Role.SUBMIT,
    "FireSchedule": Role.SUBMIT,
    "BackfillSchedule": Role.SUBMIT,
    "PauseSchedule": Role.CONTROL,
    "ResumeSchedule": Role.CONTROL,
    "DeleteSchedule": Role.CONTROL,
    "ListSchedules": Role.READ,
    # Health: probes have no credentials, and learn nothing but whether it serves.
    "Check": Open.TO_ALL,
    "Watch": Open.TO_ALL,
    # Reflection tells the published protos; strangers need not have a stream for it.
    "ServerReflectionInfo": Open.TO_CALLERS,
}
"""By canonical name of the method."""

ROLE_OF_PATH: Final[Mapping[str, Wanted]] = {
    "/": Open.TO_CALLERS,
    "/healthz": Open.TO_ALL,
    "/readyz": Open.TO_ALL,
    "/metrics": Role.READ,
    "/events": Role.SUBMIT,
}
"""By path of the HTTP port."""


def check_role(principal: Principal, wanted: Wanted, what: str) -> None:
    """Raises PermissionDenied unless a caller has the role that `what` wants."""
    if isinstance(wanted, Open) or wanted in principal.roles:
        return
    having = ", ".join(sorted(principal.roles)) or "none"
    raise PermissionDenied(f"{what} wants the role {wanted}; {principal.name} has: {having}")
