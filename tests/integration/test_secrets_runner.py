"""Support: the whole runner with secrets everywhere they may stand: no file, log, event, metric or reply has one.

Every value is a canary, as is every token an authority gives. The service sends back all it is sent, in bodies, headers
and reason phrases of refusals.
"""

import asyncio
import base64
import json
import os
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowExecuteInput, WorkflowExecuteResponse
from fastrunner._pb.ai.stigmer.workflow.runner.v1.query_pb2 import (
    GetEventsRequest,
    GetExecutionRequest,
    GetExecutionResponse,
)
from fastrunner.access.sealing import add_key
from fastrunner.service.methods import COMMAND_SERVICE, QUERY_SERVICE
from tests.integration.http_calls import Remote, serve
from tests.integration.runner_process import ROOT, RunnerProcess, running, until

SERVE = ("-m", "fastrunner", "serve")
FACTS = "document: {dsl: 1.0.3, namespace: test, name: secretive, version: 1.0.0}\n"


def canary() -> str:
    return f"canary-{uuid.uuid4().hex}"


class Canaries:
    """The values of one test, and where the runner finds them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.values: list[str] = []
        folder.mkdir()

    def value(self) -> str:
        self.values.append(canary())
        return self.values[-1]

    def file(self, name: str, content: Any = None) -> None:
        content = self.value() if content is None else content
        (self.folder / name).write_text(f"{content if isinstance(content, str) else json.dumps(content)}\n")

    def found_in(self, data: bytes) -> list[str]:
        """Every value that data has, as it is or in base64."""
        forms = {value: (value.encode(), base64.b64encode(value.encode())) for value in self.values}
        return [value for value, each in forms.items() if any(form in data for form in each)]


class Gossip(Remote):
    """A service and an authority that send back whatever they are sent."""

    def __init__(self, canaries: Canaries) -> None:
        super().__init__()
        self.canaries = canaries
        self.answer = self.tell

    async def tell(self, request: web.Request) -> web.StreamResponse:
        said = f"{request.path_qs} {dict(request.headers)} {self.bodies[-1]!r}"
        if request.path.endswith("/oauth2/token"):
            token = self.canaries.value()
            return web.json_response({"access_token": token, "token_type": "Bearer", "refresh_token": "r" + token})
        if request.path == "/refuse":
            reason = request.headers.get("Authorization", "nobody")
            return web.Response(status=500, reason=reason[:150], text=said, headers={"X-Said": reason})
        return web.json_response({"said": said, "size": len(said)})


class Caller:
    """What a client sees of a runner."""

    def __init__(self, runner: RunnerProcess) -> None:
        self._runner = runner
        self._channel = grpc.insecure_channel(runner.target)
        self.replies: list[bytes] = []

    def execute(self, execution_id: str, document: str, **env: str) -> None:
        request = WorkflowExecuteInput(workflow_execution_id=execution_id, workflow_yaml=document, env_vars=env)
        call = self._channel.unary_unary(
            f"/{COMMAND_SERVICE}/ExecuteAsync",
            WorkflowExecuteInput.SerializeToString,
            WorkflowExecuteResponse.FromString,
        )
        call(request, timeout=30)

    def view(self, execution_id: str) -> GetExecutionResponse:
        call = self._channel.unary_unary(
            f"/{QUERY_SERVICE}/GetExecution", GetExecutionRequest.SerializeToString, lambda data: data
        )
        reply: bytes = call(GetExecutionRequest(execution_id=execution_id), timeout=30)
        self.replies.append(reply)
        return GetExecutionResponse.FromString(reply)

    def ended(self, execution_id: str) -> GetExecutionResponse:
        events = self._channel.unary_unary(
            f"/{QUERY_SERVICE}/GetEvents", GetEventsRequest.SerializeToString, lambda data: data
        )
        view: GetExecutionResponse | None = until(lambda: self._final(execution_id))
        assert view is not None
        self.replies.append(events(GetEventsRequest(execution_id=execution_id), timeout=30))
        return view

    def _final(self, execution_id: str) -> GetExecutionResponse | None:
        try:
            view = self.view(execution_id)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                # Its worker has been killed.
                return None
            raise
        return view if view.execution.status in ("completed", "failed", "cancelled") else None

    def close(self) -> None:
        self._channel.close()


@pytest.fixture
def canaries(tmp_path: Path) -> Canaries:
    return Canaries(tmp_path / "secrets")


@pytest.fixture
async def gossip(canaries: Canaries) -> AsyncIterator[Gossip]:
    remote = Gossip(canaries)
    server = await serve(remote)
    yield remote
    await server.cleanup()


def positions(url: str, path: str) -> str:
    """Calls with a secret wherever a call may have one; what comes back is reduced to its size."""
    endpoint = f"uri: '{url}{path}', authentication"
    oauth = f"authority: '{url}', grant: client_credentials, client: {{id: me, secret: '${{ $secrets.key }}'}}"
    calls = {
        "basic": f"{{{endpoint}: {{basic: {{use: pair}}}}}}",
        "bearer": f"{{{endpoint}: {{bearer: {{token: '${{ $secrets.key }}'}}}}}}",
        "digest": f"{{{endpoint}: {{digest: {{use: pair}}}}}}",
        "named": f"{{{endpoint}: {{use: policy}}}}",
        "oauth2": f"{{{endpoint}: {{oauth2: {{{oauth}}}}}}}",
        "address": f"'${{ \"{url}{path}?in=\" + $secrets.key }}'",
    }
    tasks = [
        f"- {name}: {{call: http, with: {{method: post, endpoint: {target}, output: response,"
        " headers: {X-Key: '${ $secrets.key }', X-Env: '${ $secrets.from-env }'}, query: {q: '${ $secrets.key }'},"
        " body: {deep: ['${ $secrets.pair }']}}, output: {as: '${ .request }'}}"
        for name, target in calls.items()
    ]
    tasks.append(
        f"- proof: {{call: http, with: {{method: get, endpoint: {calls['oauth2']},"
        " headers: {X-Proof: '${ $authorization.parameter }'}}, output: {as: '${ $authorization.scheme }'}}"
    )
    use = "use: {secrets: [key, pair, from-env], authentications: {policy: {basic: {use: pair}}}}\n"
    return (FACTS + use + "do:\n" + "\n".join(tasks) + "\n").replace("$secrets.from-env", '$secrets["from-env"]')


def failing(url: str) -> list[str]:
    """Documents that fail with a secret in the middle of it."""
    use = "use: {secrets: [key, pair]}\n"
    bodies = [
        f"- a: {{call: http, with: {{method: get, endpoint: {{uri: '{url}/refuse', authentication: {policy}}}}}}}\n"
        for policy in (
            "{bearer: {token: '${ $secrets.key }'}}",
            "{basic: {use: pair}}",
            f"{{oauth2: {{authority: '{url}', grant: client_credentials}}}}",
        )
    ]
    bodies += [
        *(
            f"- a: {{call: http, with: {{method: get, endpoint: '{url}', headers: {{X: '${{ {text} }}'}}}}}}\n"
            for text in ("$secrets.key | tonumber", "$secrets")
        ),
        "- a: {call: http, with: {method: get, endpoint: '${ $secrets.key }'}}\n",
        "- a: {if: '$secrets.key + 1', set: {x: 1}}\n",
        "- a: {set: {x: '${ error($secrets.key) }'}}\n",
        "- a: {raise: {error: {type: 'https://a.test/e', status: 400, detail: '${ $secrets.key }'}}}\n",
    ]
    return [FACTS + use + "do:\n" + body for body in bodies]


async def test_no_secret_is_found_anywhere(tmp_path: Path, canaries: Canaries, gossip: Gossip) -> None:
    canaries.file("key")
    canaries.file("pair", {"username": "ada", "password": canaries.value()})
    data_dir = tmp_path / "data"
    environment = {
        "FASTRUNNER_SECRETS_DIR": str(canaries.folder),
        "FASTRUNNER_SECRET_FROM_ENV": canaries.value(),
        "LOG_LEVEL": "debug",
    }

    def drive() -> tuple[bytes, bytes]:
        with running(data_dir, SERVE, **environment) as runner:
            runner.wait_ready()
            caller = Caller(runner)
            caller.execute("good", positions(gossip.url, "/tell"))
            view = caller.ended("good")
            assert view.execution.status == "completed", view
            assert json.loads(view.execution.output_json) == "Bearer"
            for number, document in enumerate(failing(gossip.url)):
                caller.execute(f"bad-{number}", document)
                assert caller.ended(f"bad-{number}").execution.status == "failed", document
            metrics = runner.get("/metrics")[1].encode()
            files = b"".join(path.read_bytes() for path in data_dir.rglob("*") if path.is_file())
            caller.close()
            _, out, err = runner.stop()
        return b"\0".join([*caller.replies, metrics, out.encode(), err.encode()]), files

    told, files = await asyncio.to_thread(drive)
    sent = b"".join(
        str(dict(request.headers)).encode() + body for request, body in zip(gossip.requests, gossip.bodies, strict=True)
    )
    # The test would find nothing if nothing had been sent.
    assert set(canaries.found_in(sent)) >= set(canaries.values[:3])
    assert len(canaries.values) > 3, "the authority was asked for no token"
    stopped = b"".join(path.read_bytes() for path in data_dir.rglob("*") if path.is_file())
    assert b"secretive" in files
    assert canaries.found_in(told) == []
    assert canaries.found_in(files + stopped) == []


DATA_POSITIONS = """
use: {secrets: [key, env]}
input: {from: '${ {given: ., key: $secrets.key} }'}
do:
- set: {set: {key: '${ $secrets.key }', env: '${ $runtime.metadata.env.env }', in: '${ $input }'}}
- taken:
    input: {from: '${ [$secrets.key] }'}
    set: {x: 1}
    output: {as: '${ $secrets.key }'}
    export: {as: '${ [$secrets.key] }'}
- each: {for: {each: one, in: '${ [$secrets.key] }'}, do: [{keep: {set: {one: '${ $one }'}}}]}
- chosen: {switch: [{yes: {when: '$secrets.key != ""', then: kept}}]}
- kept: {if: '$secrets.key != ""', set: {context: '${ $context }', env: '${ $runtime.metadata.env }'}}
- caught:
    try: [{no: {raise: {error: {type: 'https://a.test/e', status: 400, title: '${ $secrets.key }'}}}}]
    catch: {as: error, do: [{told: {set: {error: '${ $error }'}}}]}
- rest:
    set: {key: '${ $secrets.key }', env: '${ $runtime.metadata.env.env }', large: '${ [range(900) | $secrets.key] }'}
- sleep: {wait: {milliseconds: 300}}
- last: {set: {final: '${ $secrets.key + $runtime.metadata.env.env }', large: '${ .large }'}}
"""


async def test_what_becomes_data_is_in_no_file_that_is_sealed(tmp_path: Path, canaries: Canaries) -> None:
    """With a data key: every position where a value becomes data, and env_vars that the document holds to be secret.

    Clients see them, because data is exact; files, logs, metrics and errors have none.
    """
    canaries.file("key")
    env = canaries.value()
    add_key(tmp_path / "keys", "one")
    data_dir = tmp_path / "data"
    environment = {
        "FASTRUNNER_SECRETS_DIR": str(canaries.folder),
        "FASTRUNNER_DATA_KEY_FILE": str(tmp_path / "keys"),
        "LOG_LEVEL": "debug",
    }
    refused = "use: {secrets: [env]}\ndo:\n- a: {set: {x: '${ error($runtime.metadata.env.env) }'}}\n"

    def files() -> bytes:
        return b"".join(path.read_bytes() for path in data_dir.rglob("*") if path.is_file())

    def drive() -> tuple[bytes, bytes, bytes]:
        seen = b""
        with running(data_dir, SERVE, **environment) as runner:
            runner.wait_ready()
            caller = Caller(runner)
            caller.execute("data", FACTS + DATA_POSITIONS, env=env)
            until(lambda: caller.view("data").execution.status in ("running", "completed"))
            seen += files()
            for worker in runner.workers():
                os.kill(worker["pid"], signal.SIGABRT)
            # Successors read it from the files, and hide what they read there.
            until(runner.ready)
            view = caller.ended("data")
            assert view.execution.status == "completed", view
            assert json.loads(view.execution.output_json)["final"] == canaries.values[0] + env
            told = Caller(runner)
            told.execute("error", FACTS + refused, env=env)
            assert told.ended("error").execution.status == "failed"
            told.replies.append(runner.get("/metrics")[1].encode())
            seen += files()
            caller.close()
            told.close()
            _, out, err = runner.stop()
        cores = [path for path in ROOT.glob("core*") if path.is_file()]
        assert cores == []
        return b"\0".join([*told.replies, out.encode(), err.encode()]), seen, b"".join(caller.replies)

    told, seen, data = await asyncio.to_thread(drive)
    assert set(canaries.found_in(data)) == set(canaries.values)
    assert b"secretive" in seen
    assert canaries.found_in(seen + files()) == []
    assert canaries.found_in(told) == []


async def test_variables_that_are_secret_are_refused(tmp_path: Path, canaries: Canaries) -> None:
    """They would be stored; the refusal does not repeat them."""
    document = FACTS + "use: {secrets: [key]}\ndo:\n- a: {set: {x: 1}}\n"
    value = canaries.value()
    data_dir = tmp_path / "data"

    def drive() -> str:
        with running(data_dir, SERVE) as runner:
            runner.wait_ready()
            caller = Caller(runner)
            with pytest.raises(grpc.RpcError) as caught:
                caller.execute("one", document, key=value)
            caller.execute("one", document, other="data")
            assert caller.ended("one").execution.status == "completed"
            caller.close()
            runner.stop()
        error: Any = caught.value
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        return str(error.details())

    details = await asyncio.to_thread(drive)
    assert "use.secrets" in details
    assert value not in details
    assert canaries.found_in(b"".join(path.read_bytes() for path in data_dir.rglob("*") if path.is_file())) == []
