"""Support: who may call: every kind of caller against every method, on real runners of two workers."""

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import registry_pb2 as r
from fastrunner.access.callers import digest_of, line_of, read_callers
from fastrunner.access.principal import Principal, Role
from fastrunner.access.roles import ROLE_OF_METHOD, ROLE_OF_PATH, Open
from fastrunner.config import load_config
from fastrunner.processes.cleartext import secrets_in_clear
from fastrunner.service.health import HEALTH_SERVICE
from fastrunner.service.methods import METHOD_OF_PATH, Method
from fastrunner.service.reflection import REFLECTION_SERVICES
from fastrunner.web.app import build_app
from tests.integration import commands
from tests.integration.runner_process import ROOT, SERVE, RunnerProcess, logged_until, running, until

OK, DENIED, UNKNOWN = grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED
CALLERS = ("none", "wrong", *Role)
"""`none` has no token, `wrong` an unknown one, the others the role of their name."""
WAITS = """
document: {{dsl: 1.0.0, namespace: {}, name: waits, version: 1.0.0}}
do: [{{hold: {{wait: {{hours: 1}}}}}}]
"""


def token(name: str) -> str:
    return f"a-token-of-{name}"


def write_callers(file: Path) -> None:
    lines = [line_of(str(role), str(role), "", token(role)) for role in Role]
    lines += [
        line_of("shop", "admin", "shop", token("shop")),
        line_of("billing", "admin", "billing", token("billing")),
    ]
    file.write_text("# callers\n" + "\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunnerProcess]:
    folder = tmp_path_factory.mktemp("callers")
    write_callers(folder / "callers")
    with running(folder / "data", SERVE, FASTRUNNER_CALLERS_FILE=str(folder / "callers")) as runner:
        yield runner.wait_ready()
        code, _, logged = runner.stop()
        assert code == 0
        assert "a-token-of-" not in logged


class Caller:
    """One connection."""

    def __init__(self, runner: RunnerProcess, name: str) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channel: Any = grpc.insecure_channel(runner.target, options)
        self.metadata: tuple[tuple[str, str], ...] = (
            () if name == "none" else (("authorization", f"Bearer {token(name)}"),)
        )

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def code(self, path: str, request: bytes = b"", *, streams: bool = False) -> grpc.StatusCode:
        """What a call ends with; of a stream, after its first message."""
        try:
            if streams:
                stream = self.channel.unary_stream(path)(request, timeout=20, metadata=self.metadata)
                next(iter(stream))
                stream.cancel()
            else:
                self.channel.unary_unary(path)(request, timeout=20, metadata=self.metadata)
        except StopIteration:
            pass
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
        return OK

    def call(self, path: str, request: Any, reply: Any) -> Any:
        invoke = self.channel.unary_unary(path, response_deserializer=reply.FromString)
        return invoke(request.SerializeToString(), timeout=20, metadata=self.metadata)


def path_of(name: str) -> str:
    return next(path for path, method in METHOD_OF_PATH.items() if method.name == name and path.endswith(f"/{name}"))


def submit(caller: Caller, execution_id: str, namespace: str = "shop") -> None:
    request = m.WorkflowExecuteInput(workflow_execution_id=execution_id, workflow_yaml=WAITS.format(namespace))
    caller.call(path_of("ExecuteAsync"), request, m.WorkflowExecuteResponse)


def test_every_served_method_has_a_role() -> None:
    served = {method.name for method in METHOD_OF_PATH.values()} | {"Check", "Watch", "ServerReflectionInfo"}
    assert served <= set(ROLE_OF_METHOD)
    assert {name for name, wanted in ROLE_OF_METHOD.items() if wanted is Open.TO_ALL} == {"Check", "Watch"}


def served_paths() -> list[tuple[str, Method]]:
    paths = list(METHOD_OF_PATH.items())
    paths += [
        (f"/{HEALTH_SERVICE}/{name}", Method(HEALTH_SERVICE, name, name == "Watch")) for name in ("Check", "Watch")
    ]
    return paths + [
        (f"/{service}/ServerReflectionInfo", Method(service, "ServerReflectionInfo", True))
        for service in REFLECTION_SERVICES
    ]


@pytest.mark.parametrize("name", CALLERS)
def test_caller_by_method(runner: RunnerProcess, name: str) -> None:
    """Every path, every spelling: let in (whatever the method then says of an empty request), or refused."""
    with Caller(runner, name) as caller:
        for path, method in served_paths():
            wanted = ROLE_OF_METHOD[method.name]
            code = caller.code(path, streams=method.streams)
            if wanted is Open.TO_ALL:
                assert code is OK, path
            elif name in ("none", "wrong"):
                assert code is UNKNOWN, path
            elif isinstance(wanted, Open) or name in (wanted, Role.ADMIN):
                assert code not in (UNKNOWN, DENIED), path
            else:
                assert code is DENIED, path


@pytest.fixture
def shop(runner: RunnerProcess) -> list[str]:
    """New executions of the namespace `shop`, some in each worker."""
    ids = [f"shop-{uuid.uuid4()}" for _ in range(16)]
    for execution_id in ids:
        with Caller(runner, "shop") as caller:
            submit(caller, execution_id)
    return ids


def about(name: str, execution_id: str) -> bytes:
    """A request about an execution: its id is field 1 of all of them."""
    return m.CancelExecutionRequest(execution_id=execution_id).SerializeToString()


def forwards(runner: RunnerProcess) -> float:
    lines = http_get(runner, "/metrics", "read")[1].splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("workflow_runner_router_forwards_total"))


ABOUT_ONE = (
    "GetExecution",
    "GetEvents",
    "Subscribe",
    "PauseExecution",
    "ResumeExecution",
    "CancelExecution",
    "DeleteExecution",
)
"""In an order in which each of them is in place."""


def test_namespaces(runner: RunnerProcess, shop: list[str]) -> None:
    """What is another namespace's is neither shown nor controlled, by whichever worker is asked; one's own is."""
    before = forwards(runner)
    with Caller(runner, "billing") as stranger, Caller(runner, "shop") as own:
        for name in ABOUT_ONE:
            for execution_id in shop:
                request, streams = about(name, execution_id), name == "Subscribe"
                assert stranger.code(path_of(name), request, streams=streams) is DENIED, name
                assert own.code(path_of(name), request, streams=streams) is OK, name
    # 14 calls each: some of them went to the other worker, and none of them slipped through there.
    assert 0 < forwards(runner) - before < 14 * len(shop)


def test_lists_show_own_namespaces(runner: RunnerProcess, shop: list[str]) -> None:
    path = path_of("ListExecutions")
    with Caller(runner, "billing") as stranger, Caller(runner, "shop") as own, Caller(runner, "read") as reader:
        submit(stranger, "billing-1", "billing")
        listed = {
            caller: {
                each.execution_id
                for each in caller.call(path, q.ListExecutionsRequest(), q.ListExecutionsResponse).executions
            }
            for caller in (stranger, own, reader)
        }
        request = q.ListExecutionsRequest(workflow_namespace="shop").SerializeToString()
        assert stranger.code(path, request) is DENIED
        assert own.code(path, request) is OK
    assert listed[stranger] == {"billing-1"}
    assert listed[own] >= set(shop)
    assert all(execution_id.startswith("shop-") for execution_id in listed[own])
    assert listed[reader] >= {"billing-1", *shop}


def test_submissions_are_of_own_namespaces(runner: RunnerProcess, shop: list[str]) -> None:
    """Nor does a repeat, or another document under a taken id, tell anything of another namespace's execution."""
    document = WAITS.format("shop")
    with Caller(runner, "billing") as stranger:
        for execution_id in ("billing-new", *shop):
            request = m.WorkflowExecuteInput(workflow_execution_id=execution_id, workflow_yaml=document)
            assert stranger.code(path_of("ExecuteAsync"), request.SerializeToString()) is DENIED
            assert stranger.code(path_of("Execute"), request.SerializeToString(), streams=True) is DENIED
        items = [
            m.WorkflowExecuteInput(workflow_execution_id="billing-a", workflow_yaml=document),
            m.WorkflowExecuteInput(workflow_execution_id="billing-b", workflow_yaml=WAITS.format("billing")),
        ]
        batch = m.ExecuteAsyncBatchRequest(executions=items)
        results = stranger.call(path_of("ExecuteAsyncBatch"), batch, m.ExecuteAsyncBatchResponse).results
        assert [result.refused.code for result in results] == [DENIED.value[0], 0]
    with Caller(runner, "admin") as admin:
        assert admin.code(path_of("GetExecution"), about("", "billing-new")) is grpc.StatusCode.NOT_FOUND
        assert admin.code(path_of("GetExecution"), about("", "billing-a")) is grpc.StatusCode.NOT_FOUND


def test_a_reader_has_nothing_fetched(runner: RunnerProcess) -> None:
    """A document could send a secret where its author likes: that takes the role to have documents executed."""
    document = WAITS.format("shop").replace("{hold: {wait: {hours: 1}}}", "{far: {call: 'http://127.0.0.1:1/f.yaml'}}")
    for strict in (False, True):
        request = q.ValidateWorkflowRequest(workflow_yaml=document, strict=strict)
        with Caller(runner, "read") as reader, Caller(runner, "admin") as admin:
            reply = reader.call(path_of("ValidateWorkflow"), request, q.ValidateWorkflowResponse)
            assert (reply.valid, [each.code for each in reply.warnings]) == (True, ["not-fetched"])
            assert admin.code(path_of("ValidateWorkflow"), request.SerializeToString()) is grpc.StatusCode.UNAVAILABLE


def test_definitions_are_of_own_namespaces(runner: RunnerProcess) -> None:
    document = WAITS.format("shop")
    ref = m.WorkflowRef(namespace="shop", name="waits", version="1.0.0")
    requests = {
        "RegisterWorkflow": r.RegisterWorkflowRequest(workflow_yaml=document),
        "GetWorkflow": r.GetWorkflowRequest(workflow_ref=ref),
        "ExecuteAsync": m.WorkflowExecuteInput(workflow_execution_id="by-ref", workflow_ref=ref),
        "ListWorkflows": r.ListWorkflowsRequest(namespace="shop"),
        "DeleteWorkflow": r.DeleteWorkflowRequest(workflow_ref=ref),
    }
    with Caller(runner, "billing") as stranger, Caller(runner, "shop") as own:
        other = r.RegisterWorkflowRequest(workflow_yaml=WAITS.format("billing"))
        assert stranger.code(path_of("RegisterWorkflow"), other.SerializeToString()) is OK
        for name, request in requests.items():
            assert stranger.code(path_of(name), request.SerializeToString()) is DENIED, name
            if name == "ListWorkflows":
                for caller, namespace in ((stranger, "billing"), (own, "shop")):
                    listed = caller.call(path_of(name), r.ListWorkflowsRequest(), r.ListWorkflowsResponse)
                    assert {each.namespace for each in listed.workflows} == {namespace}
            assert own.code(path_of(name), request.SerializeToString()) is OK, name


def test_callers_file_is_read_again(tmp_path: Path) -> None:
    """A token counts as long as it stands there; a file that is of no use changes nothing, and the log says why."""
    file = tmp_path / "callers"
    file.write_text(line_of("first", "read", "", token("first")))
    with running(tmp_path / "data", SERVE, FASTRUNNER_CALLERS_FILE=str(file)) as runner:
        runner.wait_ready()
        path = path_of("ListExecutions")
        with Caller(runner, "first") as first, Caller(runner, "second") as second:
            assert (first.code(path), second.code(path)) == (OK, UNKNOWN)
            file.write_text(line_of("second", "read", "", token("second")) + "\n")
            until(lambda: (first.code(path), second.code(path)) == (UNKNOWN, OK))
            file.write_text(f"name=third roles=read sha256={token('third')}\n")
            shown = logged_until(runner, "line 1 needs sha256= of 64 hexadecimal digits")
            with Caller(runner, "third") as third:
                assert (second.code(path), third.code(path)) == (OK, UNKNOWN)
        assert "a-token-of-" not in shown + runner.stop()[2]


def test_shares_follow_the_principal(tmp_path: Path) -> None:
    """One caller under many names has one caller's rate; another one is not held up by it."""
    file = tmp_path / "callers"
    file.write_text("\n".join(line_of(name, "admin", "", token(name)) for name in ("greedy", "modest")))
    settings = {"FASTRUNNER_CALLERS_FILE": str(file), "FASTRUNNER_CLIENT_EXECUTIONS_PER_S": "1"}
    with running(tmp_path / "data", SERVE, **settings) as runner:
        runner.wait_ready()
        with Caller(runner, "greedy") as greedy, Caller(runner, "modest") as modest:
            codes = []
            for number in range(30):
                greedy.metadata = (
                    ("authorization", f"Bearer {token('greedy')}"),
                    ("fastrunner-client", f"client-{number}"),
                )
                request = m.WorkflowExecuteInput(
                    workflow_execution_id=f"greedy-{number}", workflow_yaml=WAITS.format("shop")
                )
                codes.append(greedy.code(path_of("ExecuteAsync"), request.SerializeToString()))
            assert grpc.StatusCode.RESOURCE_EXHAUSTED in codes
            submit(modest, "modest-1")


def http_get(runner: RunnerProcess, path: str, name: str, *, is_token: bool = False) -> tuple[int, str]:
    bearer = name if is_token else token(name)
    headers = {} if name == "none" else {"Authorization": f"Bearer {bearer}"}
    # What /events takes is posted: an event, in headers alone.
    event = {"ce-specversion": "1.0", "ce-id": name, "ce-source": "/", "ce-type": "x"} if path == "/events" else {}
    url, method = f"http://127.0.0.1:{runner.ports['http_port']}{path}", "POST" if event else "GET"
    request = urllib.request.Request(url, headers=headers | event, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def http_code(runner: RunnerProcess, path: str, name: str) -> int:
    return http_get(runner, path, name)[0]


def test_every_served_path_has_a_role() -> None:
    app = build_app(load_config(), ())
    # The console's pages and files are open: who shows them knows nothing yet.
    assert {resource.canonical for resource in app.router.resources()} - {"/{path}"} <= set(ROLE_OF_PATH)


@pytest.mark.parametrize("name", CALLERS)
def test_caller_by_path(runner: RunnerProcess, name: str) -> None:
    for path, wanted in ROLE_OF_PATH.items():
        if wanted is Open.TO_ALL:
            expected = 200
        elif name in ("none", "wrong"):
            expected = 401
        else:
            allowed = 202 if path == "/events" else 200
            expected = allowed if isinstance(wanted, Open) or name in (wanted, Role.ADMIN) else 403
        assert http_code(runner, path, name) == expected, path
    assert http_code(runner, "/elsewhere", name) == 404


def test_metrics_may_be_open(tmp_path: Path) -> None:
    write_callers(tmp_path / "callers")
    settings = {"FASTRUNNER_CALLERS_FILE": str(tmp_path / "callers"), "FASTRUNNER_METRICS_OPEN": "true"}
    with running(tmp_path / "data", SERVE, FASTRUNNER_WORKERS="1", **settings) as runner:
        runner.wait_ready()
        assert [http_code(runner, path, "none") for path in ("/metrics", "/")] == [200, 401]


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, as somebody with this environment runs it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FASTRUNNER_")}
    return commands.fastrunner(*arguments, environment={**inherited, **environment})


def test_commands_send_a_token(runner: RunnerProcess, tmp_path: Path) -> None:
    """Of a file or a variable; what follows, and what looks at the HTTP port, too."""
    (tmp_path / "token").write_text(token("admin") + "\n")
    document = tmp_path / "one.yaml"
    head = "document: {dsl: 1.0.0, namespace: shop, name: one, version: 1.0.0}"
    document.write_text(f"{head}\ndo: [{{a: {{set: {{b: 1}}}}}}]\n")
    target = ("--target", runner.target)
    assert "UNAUTHENTICATED" in command("list", *target).stderr
    by_file = ("--token-file", str(tmp_path / "token"))
    followed = command("submit", str(document), "--follow", *target, *by_file)
    assert followed.returncode == 0, followed.stderr
    listed = command("list", *target, FASTRUNNER_TOKEN=token("read"))
    assert listed.returncode == 0, listed.stderr
    shown = command(
        "status", *target, "--http-target", f"127.0.0.1:{runner.ports['http_port']}", FASTRUNNER_TOKEN=token("read")
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr


def test_tokens_do_not_go_out_for_others_to_read() -> None:
    refused = command("list", "--target", "192.0.2.1:9090", FASTRUNNER_TOKEN="very-secret")
    assert refused.returncode == 2
    assert "connect with --tls" in refused.stderr
    assert "very-secret" not in refused.stderr


def test_tokens_that_are_made_work(tmp_path: Path) -> None:
    """The command's line is one of the file, and its token that caller's."""
    made = json.loads(command("token", "ci", "--roles", "submit,read", "--namespaces", "shop", "--json").stdout)
    file = tmp_path / "callers"
    file.write_text(made["line"] + "\n")
    principal = read_callers(file).of_digest(digest_of(made["token"]))
    assert principal == Principal("token:ci", frozenset({Role.SUBMIT, Role.READ}), frozenset({"shop"}))
    assert made["token"] not in made["line"]
    assert command("token", "ci", "--roles", "root").returncode == 2
    assert made["token"] != json.loads(command("token", "ci", "--roles", "read", "--json").stdout)["token"]


def test_audit_log(tmp_path: Path) -> None:
    """Who did what to which execution, why, and what came of it, by whichever worker; it may be rotated."""
    write_callers(tmp_path / "callers")
    file = tmp_path / "audit.jsonl"
    settings = {"FASTRUNNER_CALLERS_FILE": str(tmp_path / "callers"), "FASTRUNNER_AUDIT_FILE": str(file)}

    def told(file: Path = file) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        return [{name: line[name] for name in line if name not in ("time", "address")} for line in lines]

    with running(tmp_path / "data", SERVE, **settings) as runner:
        runner.wait_ready()
        with Caller(runner, "shop") as shop, Caller(runner, "read") as reader, Caller(runner, "none") as nobody:
            submit(shop, "one")
            document = WAITS.format("billing")
            items = [
                m.WorkflowExecuteInput(workflow_execution_id="two", workflow_yaml=WAITS.format("shop")),
                m.WorkflowExecuteInput(workflow_execution_id="three", workflow_yaml=document),
            ]
            batch = m.ExecuteAsyncBatchRequest(executions=items)
            shop.call(path_of("ExecuteAsyncBatch"), batch, m.ExecuteAsyncBatchResponse)
            shop.code(path_of("GetExecution"), about("", "one"))
            nobody.code(path_of("CancelExecution"), about("", "one"))
            reader.code(path_of("CancelExecution"), about("", "one"))
            pause = m.PauseExecutionRequest(execution_id="one", reason="lunch").SerializeToString()
            shop.code(path_of("PauseExecution"), pause)
            shop.code(path_of("CancelExecution"), about("", "absent"))
            register = r.RegisterWorkflowRequest(workflow_yaml=WAITS.format("shop")).SerializeToString()
            shop.code(path_of("RegisterWorkflow"), register)
            request = m.WorkflowExecuteInput(workflow_execution_id="four", workflow_yaml=WAITS.format("shop"))
            shop.code(path_of("Execute"), request.SerializeToString(), streams=True)
        until(lambda: len(told()) >= 8)
        lines = told()
        details = [line.pop("detail", "") for line in lines]
        expected = [
            {"caller": caller, "method": method, **more, "outcome": outcome}
            for caller, method, more, outcome in (
                ("token:shop", "ExecuteAsync", {"execution": "one"}, "OK"),
                ("token:shop", "ExecuteAsyncBatch", {"execution": "two"}, "OK"),
                ("token:shop", "ExecuteAsyncBatch", {"execution": "three"}, "PERMISSION_DENIED"),
                ("token:read", "CancelExecution", {}, "PERMISSION_DENIED"),
                ("token:shop", "PauseExecution", {"execution": "one", "reason": "lunch"}, "OK"),
                ("token:shop", "CancelExecution", {"execution": "absent"}, "NOT_FOUND"),
                ("token:shop", "RegisterWorkflow", {"workflow": "shop/waits:1.0.0"}, "OK"),
                ("token:shop", "Execute", {"execution": "four"}, "OK"),
            )
        ]
        # Of two workers, the one that answered first may write last.
        assert sorted(lines, key=json.dumps) == sorted(expected, key=json.dumps)
        assert sum(bool(detail) for detail in details) == 3
        file.rename(tmp_path / "old.jsonl")
        until(file.exists)
        with Caller(runner, "shop") as shop:
            submit(shop, "five")
        assert runner.stop()[0] == 0
    rotated = [line["execution"] for line in (*told(tmp_path / "old.jsonl"), *told(file)) if "execution" in line]
    assert "five" in rotated
    assert "a-token-of-" not in file.read_text() + (tmp_path / "old.jsonl").read_text()
    assert "document:" not in file.read_text() + (tmp_path / "old.jsonl").read_text()


def test_json_web_tokens(tmp_path: Path) -> None:
    """On both ports, beside the tokens of a file; its claim of namespaces confines as the file's does."""
    signing = ECKey.generate_key("P-256", {"kid": "one"})
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [signing.as_dict(private=False)]}))
    write_callers(tmp_path / "callers")

    def signed(**claims: Any) -> str:
        given = {"iss": "https://id.example", "aud": "runner", "sub": "alice", "exp": int(time.time()) + 600}
        return jwt.encode({"alg": "ES256", "kid": "one"}, given | claims, signing)

    settings = {
        "FASTRUNNER_CALLERS_FILE": str(tmp_path / "callers"),
        "FASTRUNNER_JWT_ISSUER": "https://id.example",
        "FASTRUNNER_JWT_AUDIENCE": "runner",
        "FASTRUNNER_JWT_JWKS_FILE": str(tmp_path / "keys.json"),
        "FASTRUNNER_JWT_NAMESPACES_CLAIM": "namespaces",
    }
    with running(tmp_path / "data", SERVE, **settings) as runner:
        runner.wait_ready()
        get = path_of("GetExecution")
        with Caller(runner, "shop") as shop, Caller(runner, "none") as caller:
            submit(shop, "one")
            for claims, expected in (
                ({"roles": ["read"], "namespaces": ["shop"]}, OK),
                ({"roles": ["read"], "namespaces": ["billing"]}, DENIED),
                ({"roles": ["read"]}, DENIED),
                ({"roles": ["submit"], "namespaces": ["shop"]}, DENIED),
                ({"roles": ["read"], "namespaces": ["shop"], "aud": "another"}, UNKNOWN),
            ):
                bearer = signed(**claims)
                caller.metadata = (("authorization", f"Bearer {bearer}"),)
                # Verified, then known.
                assert [caller.code(get, about("", "one")) for _ in range(2)] == [expected, expected], claims
        assert http_get(runner, "/metrics", signed(roles=["read"]), is_token=True)[0] == 200
        assert http_get(runner, "/metrics", signed(roles=["submit"]), is_token=True)[0] == 403
        assert runner.stop()[0] == 0


RUNS = "{{run: {{workflow: {{namespace: {}, name: child, version: latest}}}}}}"
"""A task that runs a workflow of a namespace."""


@pytest.mark.parametrize(
    "tasks",
    [
        "do: [{{a: {0}}}]",
        "do: [{{a: {{for: {{in: '${{ [1] }}'}}, do: [{{b: {0}}}]}}}}]",
        "do: [{{a: {{fork: {{branches: [{{b: {0}}}]}}}}}}]",
        "do: [{{a: {{try: [{{b: {{wait: {{seconds: 1}}}}}}], catch: {{do: [{{c: {0}}}]}}}}}}]",
        "use: {{functions: {{f: {0}}}}}\ndo: [{{a: {{call: f}}}}]",
    ],
    ids=["task", "for", "fork", "handler", "function"],
)
def test_documents_run_workflows_of_own_namespaces(runner: RunnerProcess, tasks: str) -> None:
    """Wherever it stands, by whichever worker, submitted or registered; one's own is accepted."""
    head = "document: {dsl: 1.0.3, namespace: billing, name: parent, version: 1.0.0}\n"
    with Caller(runner, "billing") as caller:
        for namespace in ("shop", "'${ \"shop\" }'", "billing"):
            expected = OK if namespace == "billing" else DENIED
            document = head + tasks.format(RUNS.format(namespace))
            for _ in range(2):
                submitted = m.WorkflowExecuteInput(workflow_execution_id=str(uuid.uuid4()), workflow_yaml=document)
                assert caller.code(path_of("ExecuteAsync"), submitted.SerializeToString()) is expected
            batch = m.ExecuteAsyncBatchRequest(executions=[submitted])
            results = caller.call(path_of("ExecuteAsyncBatch"), batch, m.ExecuteAsyncBatchResponse).results
            assert results[0].refused.code == (0 if expected is OK else DENIED.value[0])
        for namespace, expected in (('\'"sh" + "op"\'', DENIED), ("billing", OK)):
            loose = "evaluate: {mode: loose}\n" + head + tasks.format(RUNS.format(namespace))
            submitted = m.WorkflowExecuteInput(workflow_execution_id=str(uuid.uuid4()), workflow_yaml=loose)
            assert caller.code(path_of("ExecuteAsync"), submitted.SerializeToString()) is expected
        data = head + "do: [{a: {set: " + RUNS.format("shop") + "}}]"
        submitted = m.WorkflowExecuteInput(workflow_execution_id=str(uuid.uuid4()), workflow_yaml=data)
        assert caller.code(path_of("ExecuteAsync"), submitted.SerializeToString()) is OK


def test_tokens_without_tls_are_warned_of_where_others_may_read_them(tmp_path: Path) -> None:
    write_callers(tmp_path / "callers")
    settings = {"FASTRUNNER_CALLERS_FILE": str(tmp_path / "callers"), "FASTRUNNER_GRPC_HOST": "0.0.0.0"}
    with running(tmp_path / "data", SERVE, FASTRUNNER_WORKERS="1", LOG_LEVEL="warn", **settings) as runner:
        logged = logged_until(runner, "without TLS")
        assert "FASTRUNNER_GRPC_HOST=0.0.0.0 takes bearer tokens from other machines without TLS" in logged
        runner.wait_ready()
        assert "without TLS" not in runner.stop()[2]


@pytest.mark.parametrize(("changes", "told"), [
    ({}, []),
    ({"callers_file": None}, []),
    ({"grpc_host": "10.0.0.1"}, ["FASTRUNNER_GRPC_HOST=10.0.0.1"]),
    ({"grpc_host": "::", "http_host": "0.0.0.0"}, ["FASTRUNNER_GRPC_HOST=::", "FASTRUNNER_HTTP_HOST=0.0.0.0"]),
    ({"grpc_host": "::", "tls": True}, []),
    ({"http_host": "::", "tls": True}, ["FASTRUNNER_HTTP_HOST=::"]),
    ({"http_host": "::", "tls": True, "http_tls": True}, []),
    ({"stigmer_service_endpoint": "there:1", "stigmer_service_api_key": "k"}, []),
    ({"stigmer_service_endpoint": "there:1", "stigmer_service_api_key": "k", "stigmer_service_use_tls": False},
     ["STIGMER_SERVICE_USE_TLS=false"]),
    ({"stigmer_service_endpoint": "[::1]:1", "stigmer_service_api_key": "k", "stigmer_service_use_tls": False}, []),
    ({"stigmer_service_endpoint": "there:1", "stigmer_service_use_tls": False}, []),
])  # fmt: skip
def test_what_goes_in_clear(tmp_path: Path, changes: dict[str, Any], told: list[str]) -> None:
    write_callers(tmp_path / "callers")
    settings: dict[str, Any] = {"callers_file": tmp_path / "callers"} | changes
    if settings.pop("tls", False):
        certificate = ROOT / "tests" / "certificates" / "server.pem"
        settings |= {"tls_certificate_file": certificate, "tls_key_file": certificate}
    sentences = secrets_in_clear(load_config(**settings))
    assert [sentence.partition(" ")[0] for sentence in sentences] == told
    assert all(word != "k" for sentence in sentences for word in sentence.split())
