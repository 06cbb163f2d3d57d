"""The published protos are documented, carry their options, and are what the generated code was made from."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from fastrunner.service.methods import METHOD_OF_PATH, SERVICES, spellings

ROOT = Path(__file__).resolve().parents[2]
OURS = ("ai.stigmer.", "fastrunner.", "io.cloudevents.")


def all_files() -> list[FileDescriptorProto]:
    written = FileDescriptorSet.FromString(files("fastrunner._pb").joinpath("descriptors.binpb").read_bytes())
    return [file for file in written.file if file.package.startswith(OURS)]


FILES = all_files()


def test_generated_code_is_what_the_protos_give() -> None:
    result = subprocess.run(
        [sys.executable, "tools/gen_protos.py", "--check"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr


def elements(file: FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    """Path in the file's source info, and name, of everything that wants a comment."""

    def of_message(path: tuple[int, ...], message: Any) -> Iterator[tuple[tuple[int, ...], str]]:
        yield path, message.name
        for at, field in enumerate(message.field):
            yield (*path, 2, at), f"{message.name}.{field.name}"
        for at, nested in enumerate(message.nested_type):
            if not nested.options.map_entry:
                yield from of_message((*path, 3, at), nested)

    for at, message in enumerate(file.message_type):
        yield from of_message((4, at), message)
    for at, service in enumerate(file.service):
        yield (6, at), service.name
        for method_at, method in enumerate(service.method):
            yield (6, at, 2, method_at), f"{service.name}.{method.name}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_everything_has_a_comment(file: FileDescriptorProto) -> None:
    commented = {tuple(place.path) for place in file.source_code_info.location if place.leading_comments.strip()}
    assert (2,) in commented, "the package says what the file is for"
    assert [name for path, name in elements(file) if path not in commented] == []


@pytest.mark.parametrize(
    "file", [file for file in FILES if not file.package.startswith("fastrunner.")], ids=lambda file: file.name
)
def test_public_files_carry_the_options_of_other_languages(file: FileDescriptorProto) -> None:
    assert file.options.java_multiple_files
    assert file.options.java_package.startswith(file.package)
    version = "/".join(file.package.split("."))
    assert version in file.options.go_package


def test_the_descriptor_set_has_json_names() -> None:
    fields = {
        f"{message.name}.{field.name}": field.json_name
        for file in FILES
        for message in file.message_type
        for field in message.field
    }
    assert fields["WorkflowExecuteResponse.workflow_execution_id"] == "workflowExecutionId"
    assert all(fields.values())


def test_field_numbers_are_the_contracts() -> None:
    numbers = {
        message.name: {field.name: field.number for field in message.field}
        for file in FILES
        for message in file.message_type
    }
    assert numbers["WorkflowExecuteInput"] == {
        "workflow_execution_id": 1,
        "workflow_yaml": 2,
        "env_vars": 3,
        "metadata": 4,
        "workflow_input": 5,
        "config": 6,
        "input": 7,
        "input_json": 8,
    }
    assert numbers["WorkflowExecuteResponse"] == {
        "workflow_execution_id": 1,
        "status": 2,
        "message": 3,
        "temporal_workflow_id": 4,
        "subscribe_url": 5,
        "status_url": 6,
    }
    assert numbers["WorkflowProgressEvent"] == {
        "workflow_execution_id": 1,
        "event_type": 2,
        "workflow_name": 3,
        "task_name": 4,
        "status": 5,
        "message": 6,
        "timestamp_ms": 7,
        "error": 9,
        "sequence_number": 10,
        "task_progress": 11,
        "task_reference": 20,
        "attempt": 21,
        "output_json": 22,
    }
    assert numbers["CancelExecutionRequest"] == {"execution_id": 1, "reason": 2, "force": 3}


def test_every_method_of_the_protos_answers_in_three_spellings() -> None:
    declared = {
        (f"{file.package}.{service.name}", method.name, method.server_streaming)
        for file in FILES
        for service in file.service
        for method in service.method
    }
    assert {service for service, _, _ in declared} == set(SERVICES)
    for service, name, streams in declared:
        canonical = name[0].upper() + name[1:]
        for spelling in spellings(canonical):
            method = METHOD_OF_PATH[f"/{service}/{spelling}"]
            assert (method.name, method.streams) == (canonical, streams)
    assert len(METHOD_OF_PATH) == sum(len(set(spellings(name[0].upper() + name[1:]))) for _, name, _ in declared)
