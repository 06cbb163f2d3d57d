"""Stage 1, service: the methods this runner answers, and every path they answer under.

gRPC paths are case-sensitive and callers in the wild spell a method three ways: `ExecuteAsync`, `execute_async`,
`executeAsync`. All three answer, for every method, and so does the later name of the command service.
"""

import re
from dataclasses import dataclass
from typing import Final

COMMAND_SERVICE: Final = "ai.stigmer.workflow.runner.v1.WorkflowRunnerCommandController"
QUERY_SERVICE: Final = "ai.stigmer.workflow.runner.v1.WorkflowRunnerQueryController"
REGISTRY_SERVICE: Final = "ai.stigmer.workflow.runner.v1.WorkflowRegistryController"
LATER_SERVICE: Final = "ai.stigmer.agentic.workflowrunner.v1.WorkflowRunnerServiceController"
SERVICES: Final = (COMMAND_SERVICE, QUERY_SERVICE, REGISTRY_SERVICE, LATER_SERVICE)
"""Every service of ours, as health and reflection name them."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method under one service."""

    service: str
    """Full name of the service."""
    name: str
    """Canonical name, such as `ExecuteAsync`: handlers, the router and metrics use it."""
    streams: bool
    """Whether the reply is a stream."""


_COMMANDS: Final = (
    "Execute",
    "ExecuteAsync",
    "ExecuteAsyncBatch",
    "CancelExecution",
    "PauseExecution",
    "ResumeExecution",
    "SendEvents",
    "ReportProgress",
    "ReportProgressBatch",
)
_QUERIES: Final = (
    "GetExecution",
    "ListExecutions",
    "CountExecutions",
    "GetDocument",
    "GetEvents",
    "Subscribe",
    "SubscribeAll",
    "ValidateWorkflow",
    "DeleteExecution",
)
_REGISTRY: Final = (
    "RegisterWorkflow",
    "GetWorkflow",
    "ListWorkflows",
    "DeleteWorkflow",
    "AddSchedule",
    "ListSchedules",
    "PauseSchedule",
    "ResumeSchedule",
    "DeleteSchedule",
    "FireSchedule",
    "BackfillSchedule",
)
_LATER: Final = ("ExecuteAsync", "CancelExecution", "PauseExecution", "ResumeExecution")
STREAMING: Final = frozenset({"Execute", "Subscribe", "SubscribeAll"})
"""Canonical names of the methods whose reply is a stream."""


def spellings(name: str) -> tuple[str, str, str]:
    """The three ways callers write a canonical name: as is, snake_case, camelCase."""
    snake = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    return name, snake, name[0].lower() + name[1:]


def _paths() -> dict[str, Method]:
    paths = {}
    for service, names in (
        (COMMAND_SERVICE, _COMMANDS),
        (QUERY_SERVICE, _QUERIES),
        (REGISTRY_SERVICE, _REGISTRY),
        (LATER_SERVICE, _LATER),
    ):
        for name in names:
            method = Method(service, name, name in STREAMING)
            paths.update({f"/{service}/{spelling}": method for spelling in spellings(name)})
    return paths


METHOD_OF_PATH: Final = _paths()
"""Every path that answers, such as `/package.Service/execute_async`."""
