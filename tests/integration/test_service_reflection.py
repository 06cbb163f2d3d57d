"""Reflection v1 and v1alpha: what tools such as grpcurl learn of the runner, and the given reply in camelCase."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from fastrunner.service.methods import COMMAND_SERVICE, LATER_SERVICE, QUERY_SERVICE, SERVICES
from tests.integration.reflecting import VERSIONS, ReflectingClient
from tests.integration.wire import MemoryWire, served

MESSAGES = "ai/stigmer/workflow/runner/v1/messages.proto"
GIVEN = {
    "workflowExecutionId": "test-123",
    "status": "running",
    "message": "Workflow execution started in background",
}


@pytest_asyncio.fixture
async def wire() -> AsyncIterator[MemoryWire]:
    async with served() as wire:
        yield wire


@pytest.fixture(params=VERSIONS)
def client(wire: MemoryWire, request: pytest.FixtureRequest) -> ReflectingClient:
    return ReflectingClient(wire.channel, request.param)


async def test_all_services_are_listed_and_nothing_internal(client: ReflectingClient) -> None:
    assert await client.services() == sorted(
        [
            *SERVICES,
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        ]
    )
    for name in ("fastrunner.router.v1.Frame", "fastrunner.router.v1.ItemsView"):
        assert (await client.ask(file_containing_symbol=name)).error_response.error_code == 5
    assert (await client.ask(file_by_filename="fastrunner/router/v1/router.proto")).HasField("error_response")


async def test_every_listed_service_can_be_described(client: ReflectingClient) -> None:
    for service in await client.services():
        await client.learn(service)
        assert client.pool.FindServiceByName(service).methods


async def test_the_given_call_has_the_given_reply(client: ReflectingClient) -> None:
    request = {
        "workflow_execution_id": "test-123",
        "workflow_yaml": "document: {}",
        "metadata": {"name": "hello", "namespace": "tests"},
    }
    assert await client.call(COMMAND_SERVICE, "ExecuteAsync", request) == GIVEN
    assert await client.call(LATER_SERVICE, "executeAsync", request) == GIVEN
    assert await client.call(COMMAND_SERVICE, "CancelExecution", {"execution_id": "test-123"}) == {}
    found = await client.call(QUERY_SERVICE, "GetExecution", {"executionId": "test-123"})
    assert found["execution"]["lastSequenceNumber"] == "2"


async def test_symbols_of_every_kind_are_found(client: ReflectingClient) -> None:
    package = "ai.stigmer.workflow.runner.v1"
    for symbol in (
        f"{package}.WorkflowExecuteInput",
        f"{package}.WorkflowExecuteInput.input_json",
        f"{package}.WorkflowExecuteInput.EnvVarsEntry",
        f"{package}.ExecuteAsyncBatchResult.result",
        f"{COMMAND_SERVICE}.ExecuteAsync",
        f"{package}.CloudEvent",
        "google.rpc.Status",
        "google.rpc.BadRequest.FieldViolation",
        "google.protobuf.NullValue",
        "google.protobuf.NULL_VALUE",
        "grpc.health.v1.HealthCheckResponse.ServingStatus",
        "grpc.health.v1.HealthCheckResponse.SERVING",
        "grpc.reflection.v1.ServerReflectionRequest",
    ):
        response = await client.ask(file_containing_symbol=symbol)
        assert response.file_descriptor_response.file_descriptor_proto, symbol


async def test_a_file_comes_with_what_it_imports_and_its_comments(client: ReflectingClient) -> None:
    response = await client.ask(file_by_filename=MESSAGES)
    files = [FileDescriptorProto.FromString(file) for file in response.file_descriptor_response.file_descriptor_proto]
    assert files[0].name == MESSAGES
    names = {file.name for file in files}
    assert {"google/protobuf/struct.proto", "google/protobuf/any.proto"} <= names
    assert any("One workflow to execute" in place.leading_comments for place in files[0].source_code_info.location)


async def test_what_is_not_there_is_an_answer(client: ReflectingClient) -> None:
    message = "ai.stigmer.workflow.runner.v1.WorkflowExecuteInput"
    extension = {"containing_type": message, "extension_number": 100}
    for question in (
        {"file_by_filename": "nothing.proto"},
        {"file_containing_symbol": "nothing.Here"},
        {"file_containing_extension": extension},
        {"all_extension_numbers_of_type": "nothing.Here"},
    ):
        assert (await client.ask(**question)).error_response.error_code == 5, question
    numbers = (await client.ask(all_extension_numbers_of_type=message)).all_extension_numbers_response
    assert (numbers.base_type_name, list(numbers.extension_number)) == (message, [])
    assert (await client.ask()).error_response.error_code == 3
