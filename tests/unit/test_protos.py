"""The published protos compile as they lie, are documented and linted, carry their options, and are what was generated.

What other languages make of them is in `integration/test_clients.py`.
"""

import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.rpc.status_pb2 import Status

from fastrunner import api
from fastrunner.service.methods import METHOD_OF_PATH, SERVICES, spellings
from tests.outside import require_tool

ROOT = Path(__file__).resolve().parents[2]
OURS = ("ai.stigmer.", "fastrunner.")
PUBLIC = "ai.stigmer.workflow.runner.v1"


def all_files() -> list[FileDescriptorProto]:
    written = FileDescriptorSet.FromString(files("fastrunner._pb").joinpath("descriptors.binpb").read_bytes())
    return [file for file in written.file if file.package.startswith(OURS)]


FILES = all_files()


def test_generated_code_is_what_the_protos_give() -> None:
    result = subprocess.run(
        [sys.executable, "tools/gen_protos.py", "--check"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr


def test_they_import_only_each_other_and_what_comes_with_protoc() -> None:
    public = {file.name: file for file in FILES if not file.package.startswith("fastrunner.")}
    assert set(public) == {str(path.relative_to(ROOT / "protos")) for path in (ROOT / "protos").rglob("*.proto")}
    imported = {name for file in public.values() for name in file.dependency}
    assert {name for name in imported - set(public) if not name.startswith("google/protobuf/")} == set()


def test_what_is_generated_hides_no_package() -> None:
    """Every file of `protos/` may be compiled into a folder on Python's path."""
    tops = {path.relative_to(ROOT / "protos").parts[0] for path in (ROOT / "protos").rglob("*.proto")}
    assert tops & {*sys.stdlib_module_names, *sys.builtin_module_names, "google", "grpc", "fastrunner"} == set()


def test_they_pass_bufs_lint() -> None:
    done = subprocess.run(
        [require_tool("buf"), "lint"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_has_the_published_files(tmp_path: Path) -> None:
    """As a wheel is built, but for the extensions; `fastrunner protos` gives these out."""
    script = "import setuptools; setuptools.setup()"
    subprocess.run(
        [sys.executable, "-c", script, "--quiet", "build_py", "--build-lib", tmp_path],
        cwd=ROOT,
        check=True,
        timeout=60,
    )
    published = {path.relative_to(ROOT / "protos"): path.read_bytes() for path in (ROOT / "protos").rglob("*.proto")}
    built = tmp_path / "fastrunner" / "protos"
    assert {path.relative_to(built): path.read_bytes() for path in built.rglob("*.proto")} == published
    assert (tmp_path / "fastrunner" / "api.py").exists()


def test_the_api_has_every_public_message_and_service() -> None:
    files = [file for file in FILES if file.package == PUBLIC]
    messages = {message.name for file in files for message in file.message_type}
    stubs = {f"{service.name}Stub" for file in files for service in file.service}
    assert messages | stubs <= set(api.__all__)


def test_our_messages_have_the_bytes_of_those_they_stand_for() -> None:
    """A refusal is a google.rpc.Status and an event one of CloudEvents, whoever reads it."""
    status = Status(code=3, message="no")
    status.details.add(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"x")
    refusal = api.Refusal.FromString(status.SerializeToString())
    assert refusal.SerializeToString() == status.SerializeToString()
    assert (refusal.code, refusal.message, refusal.details[0].value) == (3, "no", b"x")
    # From the specification's cloudevents.proto.
    assert {field.name: (field.number, field.type) for field in api.CloudEvent.DESCRIPTOR.fields} == {
        "id": (1, 9),
        "source": (2, 9),
        "spec_version": (3, 9),
        "type": (4, 9),
        "attributes": (5, 11),
        "binary_data": (6, 12),
        "text_data": (7, 9),
        "proto_data": (8, 11),
    }
    assert {field.name: (field.number, field.type) for field in api.CloudEventAttributeValue.DESCRIPTOR.fields} == {
        "ce_boolean": (1, 8),
        "ce_integer": (2, 5),
        "ce_string": (3, 9),
        "ce_bytes": (4, 12),
        "ce_uri": (5, 9),
        "ce_uri_ref": (6, 9),
        "ce_timestamp": (7, 11),
    }


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
        "workflow_ref": 9,
        "labels": 10,
    }
    assert numbers["WorkflowExecuteResponse"] == {
        "workflow_execution_id": 1,
        "status": 2,
        "message": 3,
        "temporal_workflow_id": 4,
        "subscribe_url": 5,
        "status_url": 6,
        # Ours.
        "warnings": 20,
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
        "iteration": 23,
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
