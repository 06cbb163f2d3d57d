"""Every position of a document: which arguments and scoped variables it sees, and that nothing else passes there."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fastrunner._core import POSITIONS, Position
from tests.core.documents import found, workflow

ROOT = Path(__file__).parents[2]
ARGUMENTS = ("context", "input", "output", "secrets", "task", "workflow", "runtime", "authorization")
EXPRESSION = "EXPRESSION"
SET = {"set": {"a": 1}}
BODY = [{"step": {"set": EXPRESSION}}]
NEVER_EVALUATED = ("plain", "uri")


def within(task: Any) -> Any:
    """A task within a loop, whose variables surround it."""
    return workflow({"for": {"each": "outer", "at": "place", "in": "."}, "do": [{"inner": task}]})


def call(protocol: str, **arguments: Any) -> Any:
    return within({"call": protocol, "with": arguments})


def http(**arguments: Any) -> Any:
    return call("http", **{"method": "get", "endpoint": "https://example.com", **arguments})


def loop(**keys: Any) -> Any:
    return within({"for": {"each": "own", "at": "ownAt", "in": "."}, "do": [], **keys})


def catch(**keys: Any) -> Any:
    return within({"try": [], "catch": {"as": "own", **keys}})


def listen(strategy: Any, **foreach: Any) -> Any:
    task = {"listen": {"to": strategy}}
    return within({**task, "foreach": {"item": "own", "at": "ownAt", **foreach}} if foreach else task)


def subscribe(**subscription: Any) -> Any:
    subscription = {"consume": {"amount": 1}, **subscription}
    return call("asyncapi", document={"endpoint": "a"}, channel="c", subscription=subscription)


def resource(**endpoint: Any) -> Any:
    schema = {"resource": {"endpoint": {"uri": "https://example.com", **endpoint}}}
    return workflow(SET, input={"schema": schema})


PROVIDING = {
    "secrets": ["keys"],
    "catalogs": {"c": {"endpoint": {"uri": "https://a", "authentication": {"bearer": {"token": "t"}}}}},
}
"""What gives `$secrets` and `$authorization` a value."""
BASIC = {"basic": {"username": EXPRESSION, "password": "p"}}
PLACES: dict[str, Any] = {
    "workflow `input.from`": workflow(SET, input={"from": EXPRESSION}),
    "workflow `timeout.after`": workflow(SET, timeout={"after": EXPRESSION}),
    "workflow `output.as`": workflow(SET, output={"as": EXPRESSION}),
    "workflow and task `do`": within({"do": BODY}),
    "task `if`": within({**SET, "if": EXPRESSION}),
    "task `input.from`": within({**SET, "input": {"from": {"a": [EXPRESSION]}}}),
    "task `timeout.after`": within({**SET, "timeout": {"after": EXPRESSION}}),
    "task `output.as`": within({**SET, "output": {"as": EXPRESSION}}),
    "task `export.as`": within({**SET, "export": {"as": EXPRESSION}}),
    "task `set`": within({"set": {"a": [EXPRESSION]}}),
    "task `switch` `when`": within({"switch": [{"a": {"when": EXPRESSION, "then": "end"}}]}),
    "task `for.in`": loop(**{"for": {"each": "own", "at": "ownAt", "in": [1, [EXPRESSION]]}}),
    "task `while`": loop(**{"while": EXPRESSION}),
    "task `do` beside `for`": loop(do=BODY),
    "task `fork.branches`": within({"fork": {"branches": BODY}}),
    "task `try`": within({"try": BODY, "catch": {"as": "own"}}),
    "`catch.errors.with`": catch(errors={"with": {"title": EXPRESSION}}),
    "`catch.when`": catch(when=EXPRESSION),
    "`catch.exceptWhen`": catch(exceptWhen=EXPRESSION),
    "`catch.do`": catch(do=BODY),
    "`retry.when`": catch(retry={"when": EXPRESSION}),
    "`retry.exceptWhen`": catch(retry={"exceptWhen": EXPRESSION}),
    "`retry.delay`": catch(retry={"delay": EXPRESSION}),
    "`retry.jitter.from`, `retry.jitter.to`": catch(retry={"jitter": {"from": "PT1S", "to": EXPRESSION}}),
    "`retry.limit.attempt.duration`": catch(retry={"limit": {"attempt": {"duration": EXPRESSION}}}),
    "`retry.limit.duration`": catch(retry={"limit": {"duration": EXPRESSION}}),
    "`raise.error`": within({"raise": {"error": {"type": "a", "status": 400, "detail": EXPRESSION}}}),
    "task `wait`": within({"wait": EXPRESSION}),
    "`call: http` `method`": http(method=EXPRESSION),
    "`call: http` `endpoint`": http(endpoint=EXPRESSION),
    "`call: http` `headers`": http(headers=EXPRESSION),
    "`call: http` `query`": http(query={"a": EXPRESSION}),
    "`call: http` `body`": http(body=[{"a": EXPRESSION}]),
    "task `run`": within({"run": {"shell": {"command": EXPRESSION}}}),
    "`run.script.code`": within({"run": {"script": {"language": "js", "code": EXPRESSION}}}),
    "`run.script.source`": within({"run": {"script": {"language": "js", "source": {"endpoint": EXPRESSION}}}}),
    "`run.container.lifetime.after`": within(
        {"run": {"container": {"image": "a", "lifetime": {"cleanup": "eventually", "after": EXPRESSION}}}}
    ),
    "`authentication` of a task": http(endpoint={"uri": "https://example.com", "authentication": BASIC}),
    "`authentication` `authority`": http(
        endpoint={
            "uri": "https://example.com",
            "authentication": {"oauth2": {"authority": EXPRESSION, "grant": "password", "client": {"id": "a"}}},
        }
    ),
    "`call` of a function: `with`": {
        **within({"call": "f", "with": {"a": EXPRESSION}}),
        "use": {"functions": {"f": SET}},
    },
    "`foreach.do`": listen({"any": []}, do=BODY),
    "`foreach.output.as`": listen({"any": []}, output={"as": EXPRESSION}),
    "`foreach.export.as`": subscribe(foreach={"item": "own", "at": "ownAt", "export": {"as": EXPRESSION}}),
    "`emit.event.with`": within({"emit": {"event": {"with": {"type": "a", "data": EXPRESSION}}}}),
    "`listen.to` `with`": listen({"one": {"with": {"subject": EXPRESSION}}}, do=[]),
    "`listen.to` `correlate` `from`": listen(
        {"one": {"with": {"type": "a"}, "correlate": {"a": {"from": EXPRESSION}}}}
    ),
    "`listen.to` `correlate` `expect`": listen(
        {"one": {"with": {"type": "a"}, "correlate": {"a": {"from": ".", "expect": EXPRESSION}}}}
    ),
    "`listen.to.until`": listen({"any": [], "until": EXPRESSION}, do=[]),
    "other calls' `with`": call("openapi", document={"endpoint": "a"}, operationId="a", parameters={"a": EXPRESSION}),
    "other calls' endpoints and resources": call("a2a", method="tasks/get", server=EXPRESSION),
    "`call: mcp` `timeout`, `subscription.consume.for`": subscribe(consume={"amount": 1, "for": EXPRESSION}),
    "`subscription.filter`": subscribe(filter=EXPRESSION),
    "`subscription.consume.while`, `until`": subscribe(consume={"while": EXPRESSION}),
    "`schedule.every`, `schedule.after`": workflow(SET, schedule={"every": EXPRESSION}),
    "`schedule.on` `with`": workflow(SET, schedule={"on": {"any": [{"with": {"type": EXPRESSION}}]}}),
    "`schedule.on` `correlate` `from`": workflow(
        SET, schedule={"on": {"one": {"with": {"type": "a"}, "correlate": {"a": {"from": EXPRESSION}}}}}
    ),
    "`schedule.on` `correlate` `expect`": workflow(
        SET, schedule={"on": {"one": {"with": {"type": "a"}, "correlate": {"a": {"from": ".", "expect": EXPRESSION}}}}}
    ),
    "`schedule.on.until`": workflow(SET, schedule={"on": {"any": [], "until": EXPRESSION}}),
    "extension `when`": workflow(SET, use={"extensions": [{"a": {"extend": "all", "when": EXPRESSION}}]}),
    "extension `before`, `after`": workflow(SET, use={"extensions": [{"a": {"extend": "all", "before": BODY}}]}),
    "endpoints of schemas and catalogs": resource(uri=EXPRESSION),
    "`authentication` of schemas' and catalogs' endpoints": resource(authentication=BASIC),
}


def codes(position: Position, name: str) -> list[str]:
    """The problems of using a variable at a position."""
    document = json.loads(json.dumps(PLACES[position.where]).replace(EXPRESSION, f"${{ ${name} }}"))
    document["use"] = {**document.get("use", {}), **PROVIDING}
    # A constant is wanted there, and what an expression would see is told all the same.
    return [code for code, _ in found(document) if code != "unresolved-resource"]


def is_within(position: Position) -> bool:
    """Whether the sample stands in a loop."""
    return '"outer"' in json.dumps(PLACES[position.where])


def test_every_position_has_a_sample() -> None:
    assert [position.where for position in POSITIONS] == list(PLACES)


@pytest.mark.parametrize("position", POSITIONS, ids=lambda position: position.where)
def test_arguments_by_position(position: Position) -> None:
    for name in ARGUMENTS:
        if position.form == "plain":
            expected = ["never-matches"] if position.where == "`catch.errors.with`" else []
        elif position.form == "uri":
            expected = ["invalid-format"]
        elif position.form == "tasks":
            expected = ["unavailable-variable"] if name == "output" else []
        else:
            expected = [] if name in position.arguments else ["unavailable-variable"]
        assert codes(position, name) == expected, name


@pytest.mark.parametrize(
    "position", [p for p in POSITIONS if p.form not in NEVER_EVALUATED], ids=lambda position: position.where
)
def test_scoped_variables_by_position(position: Position) -> None:
    """What surrounds a holder is seen everywhere in it, what it binds itself only where the table says so."""
    seen = []
    if is_within(position):
        seen += ["outer", "place"]
    if position.sees and position.sees != "extension":
        seen += ["own"] if position.sees == "catch" else ["own", "ownAt"]
    for name in ("outer", "place", "own", "ownAt", "error", "item", "index", "nothing"):
        assert codes(position, name) == ([] if name in seen else ["unknown-variable"]), name


def test_documentation_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "tools" / "gen_positions.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_position_is_made_by_nobody_else() -> None:
    with pytest.raises(TypeError):
        Position()
    with pytest.raises(AttributeError):
        POSITIONS[0].where = "elsewhere"


# --- the limits of a retry: they count from before the first error, so they see what stands around the `try` ---

LIMITS = [{"attempt": {"duration": EXPRESSION}}, {"duration": EXPRESSION}]


def retried(limit: Any, expression: str, **policy: Any) -> Any:
    """A `try` in two loops whose policy has this limit."""
    attempt = {"try": [{"step": SET}], "catch": {"retry": {"limit": limit, **policy}}}
    inner = {"for": {"each": "line", "in": "$order.lines"}, "do": [{"attempt": attempt}]}
    document = workflow({"for": {"each": "order", "in": ".orders"}, "do": [{"inner": inner}]})
    return json.loads(json.dumps(document).replace(EXPRESSION, f"${{ {expression} }}"))


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("expression", ["$order.limit", "$line.limit", "$input.limit + $order.limit"])
def test_limits_see_the_loops_around(limit: Any, expression: str) -> None:
    assert found(retried(limit, expression)) == []


@pytest.mark.parametrize("limit", LIMITS)
def test_limits_see_no_error(limit: Any) -> None:
    assert [code for code, _ in found(retried(limit, "$error.detail"))] == ["unknown-variable"]
    assert found(retried({"attempt": {"count": 1}}, "", delay="${ $error.detail }", when="$order.a")) == []


@pytest.mark.parametrize("limit", LIMITS)
def test_limits_of_a_reusable_policy_see_no_error(limit: Any) -> None:
    policy = json.loads(json.dumps({"limit": limit}).replace(EXPRESSION, "${ $error.detail }"))
    document = workflow({"try": [], "catch": {"retry": "patient"}}, use={"retries": {"patient": policy}})
    assert [code for code, _ in found(document)] == ["unknown-variable"]
