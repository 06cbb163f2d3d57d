"""Support: the workflows that crash tests run, one kind for each thing that can be in flight.

The service they call answers with the idempotency key it was called with, and so do the shells they run, which also
write it down: the output of a completed effect names it. A workflow that others run ends with its own id, so the output
of a completed `run: workflow` names the child.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from tests.crash.hearing import PARTNERS, talks

__all__ = [
    "CHANNELS",
    "CHILDREN",
    "DESCRIPTION",
    "DETACHED",
    "GIVEN_UP",
    "LINGERS",
    "PROTO",
    "SUB",
    "SULKER",
    "Outside",
    "definitions",
    "document",
    "kinds",
]

_NAMESPACE = "crash"
_HEAD = {"dsl": "1.0.3", "namespace": _NAMESPACE, "version": "1.0.0"}

DESCRIPTION = "/openapi.json"
"""Where the service describes itself."""
PROTO = "/work.proto"
"""Where it describes its gRPC service."""
CHANNELS = "/asyncapi.json"
"""Where it describes the streams of the broker."""
SUB = "sub"
"""What the names of tasks that wait for a child begin with."""
LINGERS = "lingers"
"""The name of tasks that run a shell and do not wait for it."""
DETACHED = "detached"
"""The kind whose child nobody waits for."""
GIVEN_UP = "given-up"
"""The kind that may stop waiting for its children."""
SULKER = "sulker"
"""The workflow that fails if it is the first child."""

CHILDREN: Mapping[str, range] = {
    "subflow": range(2, 3),
    "family": range(1, 2),
    "children": range(6, 7),
    "moody": range(2, 3),
    DETACHED: range(1, 2),
    # Who is given up before the first commit never comes to be.
    GIVEN_UP: range(3),
    "middle": range(1, 2),
}
"""How many children a workflow has had when it completes, by its name; those that are not here have none."""


_WRITE_KEY = """printf '%s\\n' "$FASTRUNNER_IDEMPOTENCY_KEY" >> "$1"; """
_TELL_KEY = """printf '{"key":"%s"}' "$FASTRUNNER_IDEMPOTENCY_KEY\""""
_FAIL_AT_FIRST = """case "$FASTRUNNER_IDEMPOTENCY_KEY" in */1) exit 3;; esac; """


@dataclass(frozen=True)
class Outside:
    """What effects reach."""

    url: str
    """Of the service."""
    file: str
    """Where shells write their keys down."""
    rpc_port: int = 0
    """Of its gRPC service."""
    broker_port: int = 0
    """Of a Redis."""


def _call(url: str) -> dict[str, Any]:
    return {"call": "http", "with": {"method": "get", "endpoint": url}}


def _described(url: str, operation: str) -> dict[str, Any]:
    """The same by what the service says of itself."""
    return {"call": "openapi", "with": {"document": {"endpoint": f"{url}{DESCRIPTION}"}, "operationId": operation}}


def _rpc(outside: Outside, method: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
    """The same by gRPC."""
    service = {"name": "crash.Work", "host": "127.0.0.1", "port": outside.rpc_port}
    asked = {"proto": {"endpoint": f"{outside.url}{PROTO}"}, "service": service, "method": method}
    return {"call": "grpc", "with": {**asked, "arguments": arguments or {}}}


def _shell(file: str, more: str = "") -> dict[str, Any]:
    """`more` comes between the effect and the answer."""
    command = {"command": _WRITE_KEY + more + _TELL_KEY, "arguments": [file]}
    return {"run": {"shell": command}, "output": {"as": "${ fromjson }"}}


def _lingering(file: str) -> dict[str, Any]:
    return {"run": {"shell": {"command": _WRITE_KEY + "sleep 0.2", "arguments": [file]}, "await": False}}


def _run(name: str, **options: Any) -> dict[str, Any]:
    return {"run": {"workflow": {"namespace": _NAMESPACE, "name": name, "version": "latest"}, **options}}


def _caught(kind: str, tasks: list[Any], **options: Any) -> dict[str, Any]:
    errors = {"with": {"type": f"https://serverlessworkflow.io/spec/1.0.0/errors/{kind}"}}
    return {"try": tasks, "catch": {"errors": errors, **options}}


_RETRY = {"delay": {"milliseconds": 20}, "limit": {"attempt": {"count": 5}}}
_KEEP = {"set": {"kept": "${ . }"}}


def _tasks(outside: Outside) -> dict[str, list[Any]]:
    url = outside.url
    call = _call(f"{url}/work")
    unrenderable = {"call": "http", "with": {**call["with"], "body": '${ error("no body") }'}}
    branches = [{name: {"do": [{f"{name}Call": call}, {f"{name}Keep": _KEEP}]}} for name in ("left", "middle", "right")]
    return {
        "set": [{"one": {"set": {"a": 1}}}, {"two": {"set": {"b": 2}}}],
        "calls": [{f"call{number}": call} for number in range(3)] + [{"keep": _KEEP}],
        "loop": [
            {"spin": {"for": {"each": "i", "in": "[range(150)]"}, "do": [{"step": {"set": {"at": "${ $i }"}}}]}},
            {"each": {"for": {"each": "i", "in": "[1, 2, 3]"}, "do": [{"callEach": call}]}},
        ],
        "wait": [{"rest": {"wait": {"milliseconds": 120}}}, {"ask": call}, {"again": {"wait": {"milliseconds": 60}}}],
        "fork": [
            {"all": {"fork": {"branches": branches}}},
            {"race": {"fork": {"compete": True, "branches": branches}}},
        ],
        "retry": [{"safe": _caught("communication", [{"ask": _call(f"{url}/flaky")}], retry=_RETRY)}, {"keep": _KEEP}],
        "slow": [
            {"first": call},
            {"rest": {"wait": {"milliseconds": 1300}}},
            {"second": call},
            {"again": {"wait": {"milliseconds": 1700}}},
            {"third": call},
        ],
        "fault": [
            {"safe": {"try": [{"ask": unrenderable}], "catch": {"errors": {"with": {"status": 400}}}}},
            {"again": call},
        ],
        "long": [{f"step{number}": call if number % 2 else _KEEP} for number in range(16)],
        "described": [
            {"first": _described(url, "work")},
            {"rest": {"wait": {"milliseconds": 60}}},
            {"safe": _caught("communication", [{"ask": _described(url, "flaky")}], retry=_RETRY)},
            {"again": _described(url, "work")},
        ],
        "remote": _remote(outside),
        "messages": _messages(outside),
        **_runs(outside.file, call),
        **_parents(call),
        **talks(),
    }


def _remote(outside: Outside) -> list[Any]:
    branches = [{name: _rpc(outside, "Do")} for name in ("left", "right")]
    streaming = {**_rpc(outside, "Stream", {"messages": [{}, {}]}), "output": {"as": "${ .[0] }"}}
    return [
        {"first": _rpc(outside, "Do")},
        {"rest": {"wait": {"milliseconds": 60}}},
        {"safe": _caught("communication", [{"ask": _rpc(outside, "Flaky")}], retry=_RETRY)},
        {"race": {"fork": {"compete": True, "branches": branches}}},
        {"stream": streaming},
    ]


def _messages(outside: Outside) -> list[Any]:
    """A stream of each execution's own: what is published before a crash or after it comes, once at least, in order."""
    variables = {"port": f"{outside.broker_port}", "id": "${ $workflow.id }"}
    asked = {
        "document": {"endpoint": f"{outside.url}{CHANNELS}"},
        "operation": "work",
        "server": {"name": "broker", "variables": variables},
    }

    def consume(how: dict[str, Any]) -> dict[str, Any]:
        iterator = {"do": [{"each": {"set": {"n": "${ .payload.n }"}}}], "output": {"as": "${ .n }"}}
        return {"call": "asyncapi", "with": {**asked, "subscription": {"consume": how, "foreach": iterator}}}

    publish = [
        {f"publish{n}": {"call": "asyncapi", "with": {**asked, "message": {"payload": {"n": n}}}}} for n in (1, 2, 3)
    ]
    lost = {"if": "${ (unique) != [1, 2, 3] }", "raise": {"error": {"type": "urn:lost", "status": 500}}}
    return [
        # The group begins with what comes after its first use.
        {"begin": consume({"amount": 1, "for": {"milliseconds": 10}})},
        *publish,
        {"consume": consume({"while": "${ .payload.n != 3 }"})},
        {"lost": lost},
    ]


def _runs(file: str, call: dict[str, Any]) -> dict[str, list[Any]]:
    branches = [{"quick": _shell(file)}, {"slow": _shell(file, "sleep 0.3; ")}]
    return {
        "shell": [{"first": _shell(file)}, {"ask": call}, {"again": _shell(file)}],
        "shells": [
            {LINGERS: _lingering(file)},
            {"all": {"fork": {"branches": branches}}},
            {"safe": _caught("runtime", [{"flaky": _shell(file, _FAIL_AT_FIRST)}], retry=_RETRY)},
        ],
    }


def _parents(call: dict[str, Any]) -> dict[str, list[Any]]:
    leaf = _run("leaf")
    branches = [{f"{SUB}{name}": leaf} for name in ("Left", "Middle", "Right")]
    racers = [{f"{SUB}Slow": _run("sleeper")}, {"quick": call}]
    late = {f"{SUB}Late": {**_run("sleeper"), "timeout": {"after": {"milliseconds": 100}}}}
    return {
        "subflow": [{f"{SUB}First": leaf}, {"ask": call}, {f"{SUB}Again": leaf}],
        "family": [{SUB: _run("middle")}, {"ask": call}],
        "children": [
            {"all": {"fork": {"branches": branches}}},
            {"each": {"for": {"each": "i", "in": "[1, 2, 3]"}, "do": [{f"{SUB}Each": leaf}]}},
        ],
        "moody": [{"safe": _caught("communication", [{SUB: _run(SULKER)}], retry=_RETRY)}, {"keep": _KEEP}],
        DETACHED: [{"start": _run("leaf", **{"await": False})}, {"ask": call}],
        GIVEN_UP: [{"race": {"fork": {"compete": True, "branches": racers}}}, {"safe": _caught("timeout", [late])}],
    }


kinds = tuple(kind for kind in _tasks(Outside("", "")) if kind not in PARTNERS.values())
"""Names of the workflows that clients start; some of them with a partner."""


def document(kind: str, outside: Outside) -> str:
    """One workflow as JSON text."""
    return _text(kind, _tasks(outside)[kind])


def definitions(outside: Outside) -> list[str]:
    """The workflows that others run, to be registered before those are started."""
    ask, tell = {"ask": _call(f"{outside.url}/work")}, {"tell": {"set": {"child": "${ $workflow.id }"}}}
    registered = {
        "leaf": [ask, tell],
        "sleeper": [{"rest": {"wait": {"milliseconds": 400}}}, ask, tell],
        "middle": [{SUB: _run("leaf")}, {"run": _shell(outside.file)}, tell],
        SULKER: [{"ask": _call(f"{outside.url}/sulk")}, tell],
    }
    return [_text(name, tasks) for name, tasks in registered.items()]


def _text(name: str, tasks: list[Any]) -> str:
    return orjson.dumps({"document": {**_HEAD, "name": name}, "do": tasks}).decode()
