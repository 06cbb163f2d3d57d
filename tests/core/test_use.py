"""What `use` has, in every place that names it: in workflows, in functions, and in what those call."""

from typing import Any

import pytest

from fastrunner._core import PerformEffect
from tests.core.documents import found, workflow
from tests.core.walking import Run, error_type, finish, plan_of, raising

USE: dict[str, Any] = {
    "authentications": {"key": {"basic": {"username": "u", "password": "${ .password }"}}},
    "errors": {"teapot": {"type": "https://tests/teapot", "status": 418, "title": "${ .title }"}},
    "retries": {"twice": {"limit": {"attempt": {"count": 2}}, "when": "${ $error.status == 503 }"}},
    "timeouts": {"short": {"after": "${ .timeout }"}},
    "secrets": ["mine"],
}
POLICY = {"use": "key"}


def openapi(**more: Any) -> dict[str, Any]:
    return {"call": "openapi", "with": {"document": {"endpoint": "https://x.test"}, "operationId": "o", **more}}


def grpc(**service: Any) -> dict[str, Any]:
    service = {"name": "s", "host": "h.test", **service}
    return {"call": "grpc", "with": {"proto": {"endpoint": "https://x.test"}, "service": service, "method": "m"}}


def with_policy(uri: str = "https://x.test") -> dict[str, Any]:
    return {"uri": uri, "authentication": POLICY}


PROVEN: dict[str, dict[str, Any]] = {
    "http": {"call": "http", "with": {"method": "get", "endpoint": with_policy()}},
    "openapi": openapi(authentication=POLICY),
    "openapi's document": openapi(document={"endpoint": with_policy()}),
    "grpc": grpc(authentication=POLICY),
    "asyncapi": {
        "call": "asyncapi",
        "with": {
            "document": {"endpoint": "https://x.test"}, "operation": "o", "message": {}, "authentication": POLICY,
        },
    },
    "mcp": {"call": "mcp", "with": {"method": "tools/list", "transport": {"http": {"endpoint": with_policy()}}}},
    "a2a": {"call": "a2a", "with": {"method": "tasks/get", "server": with_policy()}},
    "a2a's card": {"call": "a2a", "with": {"method": "tasks/get", "agentCard": {"endpoint": with_policy()}}},
    "script": {"run": {"script": {"language": "python", "source": {"endpoint": with_policy()}}}},
}  # fmt: skip
"""Every place that names an authentication and is evaluated with its task."""


def in_function(task: dict[str, Any], **use: Any) -> dict[str, Any]:
    """A workflow that calls a function that calls a function with the task."""
    given = {"password": "${ .password }", "title": "${ .title }", "timeout": "${ .timeout }"}
    functions = {"outer": {"do": [{"inner": {"call": "inner", "with": given}}]}, "inner": task}
    return {**workflow({"call": "outer"}), "use": {**USE, **use, "functions": functions}}


@pytest.mark.parametrize("place", list(PROVEN))
@pytest.mark.parametrize("nested", [False, True])
def test_policies_by_name(place: str, nested: bool) -> None:
    task = PROVEN[place]
    document = in_function(task) if nested else workflow(task, use=USE)
    assert found(document) == []
    plan = plan_of(document["do"], use=document["use"])
    run = Run(plan, {"password": "p", "title": "t", "timeout": "PT1S"})
    (effect,) = [each for each in run.open.values() if isinstance(each, PerformEffect)]
    assert "'username': 'u', 'password': 'p'" in str(plan.render(effect.capsule, {"mine": "secret"}))
    none: dict[str, Any] = {"authentications": {}}
    dangling = in_function(task, **none) if nested else workflow(task, use={**USE, **none})
    assert [code for code, _ in found(dangling)] == ["unknown-reference"]


@pytest.mark.parametrize("nested", [False, True])
def test_errors_retries_and_timeouts_by_name(nested: bool) -> None:
    given = {"password": "p", "title": "Tea", "timeout": "PT5S"}

    def finished(task: dict[str, Any]) -> Run:
        document = in_function(task) if nested else workflow(task, use=USE)
        assert found(document) == []
        return finish(document["do"], given, use=document["use"])

    error = finished({"raise": {"error": "teapot"}}).error
    assert (error["type"], error["status"], error["title"]) == ("https://tests/teapot", 418, "Tea")
    error = finished({"wait": {"hours": 1}, "timeout": "short"}).error
    assert error["type"] == error_type("timeout")
    retried = {"try": [{"no": raising(503)}], "catch": {"retry": "twice"}}
    run = finished(retried)
    assert run.started.count("no") == 3
    assert finished({"try": [{"no": raising(500)}], "catch": {"retry": "twice"}}).started.count("no") == 1


@pytest.mark.parametrize("task", [
    {"raise": {"error": "teapots"}}, {"set": {"a": 1}, "timeout": "shorter"},
    {"try": [{"a": {"set": {"a": 1}}}], "catch": {"retry": "thrice"}}, {"call": "inners"}, {"call": "f:1.0.0@teams"},
])  # fmt: skip
def test_names_that_lead_nowhere(task: dict[str, Any]) -> None:
    """In the workflow, in a function that is called, in one that is not, and wherever lists of tasks stand."""
    for document in (
        workflow(task, use=USE),
        in_function(task),
        workflow({"set": {"a": 1}}, use={**USE, "functions": {"unused": task}}),
        workflow({"fork": {"branches": [{"a": {"do": [{"b": task}]}}]}}, use=USE),
        workflow({"try": [], "catch": {"do": [{"b": task}]}}, use=USE),
        workflow({"for": {"in": "[1]"}, "do": [{"b": task}]}, use=USE),
        workflow({"listen": {"to": {"any": []}}, "foreach": {"do": [{"b": task}]}}, use=USE),
    ):
        assert [code for code, _ in found(document)] == ["unknown-reference"], document


def test_a_timeout_of_the_workflow_by_name() -> None:
    use = {"timeouts": USE["timeouts"]}
    run = finish([{"long": {"wait": {"hours": 1}}}], {"timeout": "PT5S"}, use=use, timeout="short")
    assert run.error["type"] == error_type("timeout")


def test_what_a_policy_names_has_to_be_there() -> None:
    """A catalog's and a schema's policy may be a name as well, and a policy's secret one of `use.secrets`."""
    catalogs = {"team": {"endpoint": {"uri": "https://cat.test", "authentication": {"use": "gone"}}}}
    assert found(workflow({"set": {"a": 1}}, use={"catalogs": catalogs})) == [
        ("unknown-reference", "/use/catalogs/team/endpoint/authentication/use")
    ]
    schema = {"schema": {"resource": {"endpoint": {"uri": "https://s.test", "authentication": {"use": "gone"}}}}}
    assert found(workflow({"set": {"a": 1}, "input": schema})) == [
        ("unknown-reference", "/do/0/t0/input/schema/resource/endpoint/authentication/use")
    ]
    policies = {"key": {"bearer": {"use": "gone"}}}
    assert found(workflow({"set": {"a": 1}}, use={"authentications": policies})) == [
        ("unknown-reference", "/use/authentications/key/bearer/use")
    ]
