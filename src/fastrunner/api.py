"""Support: what programs that talk to a runner import: messages, client stubs, and the base of a receiver of progress.

    from fastrunner.api import WorkflowExecuteInput, WorkflowRunnerCommandControllerStub

What is here is generated from `protos/` into `fastrunner._pb`, which is no place to import from. A stub takes a channel
of `grpc.aio`; its calls are awaited (those that stream are iterated) and raise `grpc.aio.AioRpcError` when refused. Of
the servicer a program overrides with `async def` what it serves; the rest answers UNIMPLEMENTED. Rules: nothing of the
runner itself is imported; every public message is here. docs/clients.md and docs/callbacks.md have examples.
"""

from fastrunner._pb.ai.stigmer.workflow.runner.v1.command_pb2_grpc import (
    WorkflowRunnerCommandControllerServicer,
    WorkflowRunnerCommandControllerStub,
    add_WorkflowRunnerCommandControllerServicer_to_server,
)
from fastrunner._pb.ai.stigmer.workflow.runner.v1.events_pb2 import (
    CloudEvent,
    CloudEventAttributeValue,
    SendEventsRequest,
    SendEventsResponse,
)
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import (
    CancelExecutionRequest,
    ErrorDetails,
    ExecuteAsyncBatchRequest,
    ExecuteAsyncBatchResponse,
    ExecuteAsyncBatchResult,
    PauseExecutionRequest,
    ProgressAcknowledgement,
    ProgressAckResponse,
    Refusal,
    ReportProgressBatchRequest,
    ReportProgressBatchResponse,
    ResumeExecutionRequest,
    WorkflowExecuteInput,
    WorkflowExecuteResponse,
    WorkflowExecutionConfig,
    WorkflowMetadata,
    WorkflowProgressEvent,
    WorkflowRef,
)
from fastrunner._pb.ai.stigmer.workflow.runner.v1.query_pb2 import (
    DeleteExecutionRequest,
    Execution,
    GetEventsRequest,
    GetEventsResponse,
    GetExecutionRequest,
    GetExecutionResponse,
    ListExecutionsRequest,
    ListExecutionsResponse,
    StateChange,
    SubscribeAllRequest,
    SubscribeRequest,
    ValidateWorkflowRequest,
    ValidateWorkflowResponse,
    WorkflowProblem,
)
from fastrunner._pb.ai.stigmer.workflow.runner.v1.query_pb2_grpc import (
    WorkflowRunnerQueryControllerStub,
)
from fastrunner._pb.ai.stigmer.workflow.runner.v1.registry_pb2 import (
    DeleteWorkflowRequest,
    DeleteWorkflowResponse,
    GetWorkflowRequest,
    GetWorkflowResponse,
    ListWorkflowsRequest,
    ListWorkflowsResponse,
    RegisteredWorkflow,
    RegisterWorkflowRequest,
    RegisterWorkflowResponse,
)
from fastrunner._pb.ai.stigmer.workflow.runner.v1.registry_pb2_grpc import (
    WorkflowRegistryControllerStub,
)

__all__ = [
    "CancelExecutionRequest",
    "CloudEvent",
    "CloudEventAttributeValue",
    "DeleteExecutionRequest",
    "DeleteWorkflowRequest",
    "DeleteWorkflowResponse",
    "ErrorDetails",
    "ExecuteAsyncBatchRequest",
    "ExecuteAsyncBatchResponse",
    "ExecuteAsyncBatchResult",
    "Execution",
    "GetEventsRequest",
    "GetEventsResponse",
    "GetExecutionRequest",
    "GetExecutionResponse",
    "GetWorkflowRequest",
    "GetWorkflowResponse",
    "ListExecutionsRequest",
    "ListExecutionsResponse",
    "ListWorkflowsRequest",
    "ListWorkflowsResponse",
    "PauseExecutionRequest",
    "ProgressAckResponse",
    "ProgressAcknowledgement",
    "Refusal",
    "RegisterWorkflowRequest",
    "RegisterWorkflowResponse",
    "RegisteredWorkflow",
    "ReportProgressBatchRequest",
    "ReportProgressBatchResponse",
    "ResumeExecutionRequest",
    "SendEventsRequest",
    "SendEventsResponse",
    "StateChange",
    "SubscribeAllRequest",
    "SubscribeRequest",
    "ValidateWorkflowRequest",
    "ValidateWorkflowResponse",
    "WorkflowExecuteInput",
    "WorkflowExecuteResponse",
    "WorkflowExecutionConfig",
    "WorkflowMetadata",
    "WorkflowProblem",
    "WorkflowProgressEvent",
    "WorkflowRef",
    "WorkflowRegistryControllerStub",
    "WorkflowRunnerCommandControllerServicer",
    "WorkflowRunnerCommandControllerStub",
    "WorkflowRunnerQueryControllerStub",
    "add_WorkflowRunnerCommandControllerServicer_to_server",
]
