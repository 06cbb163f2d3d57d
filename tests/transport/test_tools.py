"""Tools against a running server: those people use, grpcurl, ghz and h2load, and h2spec, which knows HTTP/2 whole.

`make tools` installs them.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner.service.methods import COMMAND_SERVICE, QUERY_SERVICE, SERVICES
from tests.integration.runner_process import RunnerProcess, running
from tests.outside import require_tool
from tests.transport.frames import message

DOCUMENT = """\
document: {dsl: 1.0.0, namespace: tests, name: tools, version: 1.0.0}
do:
  - one:
      set: {answer: 42}
"""


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunnerProcess]:
    """The whole tree with its two workers."""
    data_dir = tmp_path_factory.mktemp("tools") / "data"
    with running(data_dir, ("-m", "fastrunner", "serve")) as runner:
        yield runner.wait_ready()
        assert runner.stop()[0] == 0


def tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a tool to its end."""
    return subprocess.run([require_tool(name), *arguments], capture_output=True, text=True, timeout=60, check=False)


def grpcurl(runner: RunnerProcess, *arguments: str) -> str:
    done = tool("grpcurl", "-plaintext", "-max-time", "20", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_grpcurl(runner: RunnerProcess) -> None:
    """Lists, describes, calls, follows, with headers and compression; a refusal shows its details."""
    assert set(SERVICES) < set(grpcurl(runner, runner.target, "list").split())
    for service in SERVICES:
        assert "rpc " in grpcurl(runner, runner.target, "describe", service)
    request = json.dumps({"workflowExecutionId": "curl", "workflowYaml": DOCUMENT})
    headers = ("-H", "trace-bin: AAEC", "-H", "fastrunner-client: curl")
    reply = grpcurl(runner, *headers, "-d", request, runner.target, f"{COMMAND_SERVICE}/ExecuteAsync")
    assert json.loads(reply)["workflowExecutionId"] == "curl"
    followed = grpcurl(runner, "-d", '{"executionId": "curl"}', runner.target, f"{QUERY_SERVICE}/Subscribe")
    assert "workflow_completed" in followed
    request = json.dumps({"workflowExecutionId": "curl-2", "workflowYaml": DOCUMENT})
    assert "workflow_completed" in grpcurl(runner, "-d", request, runner.target, f"{COMMAND_SERVICE}/Execute")
    grpcurl(runner, runner.target, "grpc.health.v1.Health/Check")
    refused = tool(
        "grpcurl", "-plaintext", "-d", '{"executionId": "none"}', runner.target, f"{QUERY_SERVICE}/GetExecution"
    )
    assert refused.returncode == 64 + 5
    assert "ErrorInfo" in refused.stderr


def test_ghz(runner: RunnerProcess) -> None:
    """A thousand executions over ten connections, gzip'd; none fails."""
    data = json.dumps({"workflowExecutionId": "ghz-{{.RequestNumber}}", "workflowYaml": DOCUMENT})
    load = ("-n", "1000", "-c", "20", "--connections", "10", "--enable-compression", "-O", "json", "-d", data)
    done = tool("ghz", "--insecure", *load, "--call", f"{COMMAND_SERVICE}.ExecuteAsync", runner.target)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["count"], report["statusCodeDistribution"]) == (1000, {"OK": 1000})


@pytest.mark.parametrize("streams", [1, 100])
def test_h2load(runner: RunnerProcess, tmp_path: Path, streams: int) -> None:
    """The same execution again and again, over few streams and many; every answer is a 200."""
    request = m.WorkflowExecuteInput(workflow_execution_id=f"h2load-{streams}", workflow_yaml=DOCUMENT)
    body = tmp_path / "body"
    body.write_bytes(message(request.SerializeToString()))
    headers = ("-H", "content-type: application/grpc", "-H", "te: trailers")
    load = ("-n", "2000", "-c", "10", "-m", str(streams), "-d", str(body), *headers)
    done = tool("h2load", *load, f"http://{runner.target}/{COMMAND_SERVICE}/ExecuteAsync")
    assert done.returncode == 0, done.stderr
    assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in done.stdout
    assert "2000 2xx" in done.stdout
    assert runner.ready()


@pytest.mark.parametrize("suite", ["generic", "http2", "hpack"])
def test_h2spec(runner: RunnerProcess, suite: str) -> None:
    """Every case of it, the strict ones too."""
    host, _, port = runner.target.rpartition(":")
    done = tool("h2spec", suite, "--host", host, "--port", port, "--strict", "--timeout", "10")
    assert done.returncode == 0, done.stdout
    assert " 0 skipped, 0 failed" in done.stdout, done.stdout
    assert runner.ready()
