"""Refusals become google.rpc.Status with details that fit a client's trailers."""

import base64
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status

from fastrunner import errors
from fastrunner._core import Problem
from fastrunner.base import limits
from fastrunner.service.status import reason_of, status_of

TRAILERS_SIZE_BYTES = 8192


def details(status: Status) -> dict[str, Any]:
    found = {}
    for detail in status.details:
        for kind in (BadRequest, ErrorInfo, ResourceInfo, RetryInfo):
            message = kind()
            if detail.Unpack(message):
                found[kind.__name__] = message
    assert len(found) == len(status.details)
    return found


def problems(count: int, message: str = "`sett` is not allowed here: a task has one of call, do, ...") -> list[Problem]:
    return [Problem("unknown-key", f"/do/{at}/step/sett", at + 3, 7, message) for at in range(count)]


REFUSALS: dict[str, list[errors.RunnerError]] = {
    "INVALID_ARGUMENT": [errors.InvalidRequest("f", "m"), errors.DocumentRefused(problems(1))],
    "RESOURCE_EXHAUSTED": [errors.TooLarge("m"), errors.AtCapacity("m", 2.5), errors.StorageFull("m")],
    "NOT_FOUND": [
        errors.UnknownExecution("e"),
        errors.UnknownDocument("m"),
        errors.UnknownService("m"),
        errors.UnknownWorkflow("s", "n", ""),
        errors.UnknownSchedule("s"),
    ],
    "ALREADY_EXISTS": [errors.IdTaken("e"), errors.AlreadyRegistered("s", "n", "1.0.0"), errors.ScheduleExists("s")],
    "FAILED_PRECONDITION": [errors.WrongState("m")],
    "UNAVAILABLE": [
        errors.Unavailable("m"),
        errors.Stopping("m"),
        errors.ResourceUnavailable("m"),
        errors.Elsewhere("e"),
        errors.ShortHanded(),
        errors.StorageFailed("m"),
        errors.ShardDamaged("m"),
    ],
    "DATA_LOSS": [errors.Damaged("m")],
    "UNIMPLEMENTED": [errors.NotServed("m")],
    "PERMISSION_DENIED": [errors.PermissionDenied("m")],
    "UNAUTHENTICATED": [errors.Unauthenticated("m")],
}


@pytest.mark.parametrize(
    ("code", "error"),
    [(code, error) for code, group in REFUSALS.items() for error in group],
    ids=lambda value: str(value),
)
def test_each_refusal_has_its_code_and_reason(code: str, error: errors.RunnerError) -> None:
    status = status_of(error)
    assert code_pb2.Code.Name(status.code) == code
    assert status.message == error.message
    info = details(status)["ErrorInfo"]
    assert info.domain == "fastrunner"
    assert info.reason.replace("_", "").lower() == type(error).__name__.lower()


def _subclasses(kind: type[errors.RunnerError]) -> Iterator[type[errors.RunnerError]]:
    for subclass in kind.__subclasses__():
        # Tests have refusals of their own.
        if subclass.__module__ == errors.__name__:
            yield subclass
            yield from _subclasses(subclass)


def test_every_class_of_refusal_is_covered_here() -> None:
    covered = {type(error) for group in REFUSALS.values() for error in group} | {errors.ForwardedError}
    assert covered == set(_subclasses(errors.RunnerError))


def test_every_reason_is_documented() -> None:
    documented = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    for code, group in REFUSALS.items():
        for error in group:
            assert f"| {code} | {reason_of(error)} |" in documented


def test_a_refused_document_names_every_problem() -> None:
    violations = details(status_of(errors.DocumentRefused(problems(3))))["BadRequest"].field_violations
    assert [violation.field for violation in violations] == ["workflow_yaml"] * 3
    assert [violation.reason for violation in violations] == ["UNKNOWN_KEY"] * 3
    assert violations[1].description.startswith("line 4, column 7, /do/1/step/sett [unknown-key]: `sett` is not")


@pytest.mark.parametrize("message", ["short", "x" * 5000, "日本" * 2000])
@pytest.mark.parametrize("count", [1, limits.PROBLEMS_MAX])
def test_any_refusal_fits_the_trailers_of_default_clients(message: str, count: int) -> None:
    status = status_of(errors.DocumentRefused(problems(count, message)))
    encoded = base64.b64encode(status.SerializeToString())
    percent_encoded = quote(status.message)
    sizes = [len(encoded), len(percent_encoded), len("grpc-status-details-bin"), len("grpc-message"), 4 * 32 + 32]
    assert sum(sizes) < TRAILERS_SIZE_BYTES
    violations = details(status)["BadRequest"].field_violations
    if len(violations) < count:
        assert (
            violations[-1].description
            == f"{count - len(violations) + 1} more problems: ValidateWorkflow lists them all"
        )


def test_capacity_says_when_to_retry() -> None:
    delay = details(status_of(errors.AtCapacity("m", 2.5)))["RetryInfo"].retry_delay
    assert delay.ToMilliseconds() == 2500


@pytest.mark.parametrize("error", [errors.UnknownExecution("order-7"), errors.IdTaken("order-7")])
def test_the_execution_is_named_as_a_resource(error: errors.RunnerError) -> None:
    resource = details(status_of(error))["ResourceInfo"]
    assert (resource.resource_name, resource.resource_type) == ("order-7", "ai.stigmer.workflow.runner.v1.Execution")


def test_a_forwarded_refusal_is_passed_on_unchanged() -> None:
    original = status_of(errors.AtCapacity("full"))
    forwarded = errors.ForwardedError(original.code, original.message, original.SerializeToString())
    assert status_of(forwarded) == original
    assert status_of(errors.ForwardedError(14, "gone", b"")) == Status(code=14, message="gone")


def test_what_is_no_refusal_is_logged_and_told_as_internal(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        status = status_of(ValueError("the caller's data"))
    assert status.code == code_pb2.INTERNAL
    assert "data" not in status.message
    assert caplog.records[0].exc_info is not None
