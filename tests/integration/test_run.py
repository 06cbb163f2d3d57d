"""Runs of shells and scripts: real processes, what they are given, how they end, and what the workflow hears."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fastrunner._core import Compilation, InvalidWorkflow
from fastrunner.config import load_config
from fastrunner.tasks.run.isolation import Isolation
from tests.driver import run
from tests.integration.engines import until
from tests.integration.http_calls import Remote, serve
from tests.integration.runs import Performers, document, running, shell


@pytest.fixture
async def performers() -> AsyncIterator[Performers]:
    async with running() as built:
        yield built


@pytest.fixture
async def remote() -> AsyncIterator[Remote]:
    remote = Remote()
    server = await serve(remote)
    yield remote
    await server.cleanup()


async def test_a_shell_gets_what_the_document_gives(performers: Performers) -> None:
    fields: dict[str, Any] = {"arguments": ["${ .a }", "two words"], "stdin": "${ . }", "environment": {"A": "${ .a }"}}
    execution = await shell(performers, 'echo "$1-$2-$A"; cat', **fields)
    assert execution.output == 'q-two words-q\n{"a":"q"}'


async def test_a_shell_gets_nothing_of_the_runner(performers: Performers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_RUNNER", "1")
    held = os.memfd_create("held", 0)
    os.set_inheritable(held, True)
    try:
        variables = await shell(performers, "env | cut -d= -f1 | sort | grep -v PWD")
        descriptors = await shell(performers, "ls /proc/$$/fd")
    finally:
        os.close(held)
    assert variables.output.split() == ["FASTRUNNER_IDEMPOTENCY_KEY", "PATH"]
    assert set(descriptors.output.split()) <= {"0", "1", "2"}


@pytest.mark.parametrize(
    ("form", "output"),
    [("code", 3), ("stderr", "b\n"), ("all", {"code": 3, "stdout": "a\n", "stderr": "b\n"})],
)
async def test_forms_that_tell_of_a_failure(performers: Performers, form: str, output: Any) -> None:
    assert (await shell(performers, "echo a; echo b >&2; exit 3", form)).output == output


@pytest.mark.parametrize("form", ["stdout", "none"])
async def test_an_exit_code_is_an_error_elsewhere(performers: Performers, form: str) -> None:
    error = (await shell(performers, "echo b >&2; exit 3", form)).error
    assert error is not None
    assert error["detail"] == 'run: shell: the process ended with code 3; stderr ends with "b"'


@pytest.mark.parametrize(
    ("command", "title"),
    [("yes", "Output Too Large"), ("head -c 9 /dev/urandom | tr '\\0-\\177' '\\377'", "Output Is No Text")],
)
async def test_output_that_cannot_be_taken(performers: Performers, command: str, title: str) -> None:
    error = (await shell(performers, command)).error
    assert error is not None
    assert error["title"] == title


async def test_a_timeout_ends_all_that_was_started(performers: Performers, tmp_path: Path) -> None:
    beat = tmp_path / "beat"
    stubborn = f"trap '' TERM; setsid sh -c 'trap \"\" TERM; while :; do date +%N > {beat}; sleep 0.05; done' & wait"
    execution = await run(document({"shell": {"command": stubborn}}, timeout={"after": "PT2S"}), None, performers)
    assert execution.error is not None
    assert execution.error["status"] == 408
    for performer in performers.values():
        await performer.close()
    assert beat.exists()
    last = beat.read_text()
    assert (await shell(performers, "sleep 0.5")).status == "completed"
    assert beat.read_text() == last


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("python", "import sys; print(sys.argv[1:], sys.stdin.read(), end='')"),
        ("js", "import fs from 'node:fs'; process.stdout.write(`['${process.argv[2]}'] ${fs.readFileSync(0)}`)"),
    ],
)
async def test_scripts(performers: Performers, language: str, code: str) -> None:
    script = {"language": language, "code": code, "arguments": {"a": 1}, "stdin": "hi"}
    assert (await run(document({"script": script}), None, performers)).output == "['a=1'] hi"


async def test_a_process_that_nobody_awaits(performers: Performers, tmp_path: Path) -> None:
    """The task ends once it runs, and it goes on."""
    gate, done = tmp_path / "gate", tmp_path / "done"
    process = {"await": False, "shell": {"command": f"while [ ! -e {gate} ]; do sleep 0.05; done; touch {done}"}}
    assert (await run(document(process), {"a": 1}, performers)).output == {"a": 1}
    assert not done.exists()
    gate.touch()
    await until(done.exists, "it has gone on")


def compiled(compilation: Compilation) -> None:
    while compilation.step(1000) is None:
        pass


def test_what_is_not_allowed_is_refused() -> None:
    text = document({"shell": {"command": "true"}})
    open_to_all = {"grpc_host": "0.0.0.0", "auth": "none"}
    for settings in ({"run_allowed": "script:python"}, {"run_allowed": "none"}, open_to_all):
        compilation = Compilation(text, refuse=load_config(**settings).runs.refusal)
        with pytest.raises(InvalidWorkflow) as refused:
            compiled(compilation)
        assert [(problem.code, problem.pointer) for problem in refused.value.problems] == [
            ("not-allowed", "/do/0/x/run/shell")
        ]
        assert "FASTRUNNER_" in refused.value.problems[0].message


async def test_input_that_is_not_read(performers: Performers) -> None:
    """More than a pipe holds."""
    fields = {"stdin": "${ [limit(3000; repeat($input.a * 200))] | add }"}
    assert (await shell(performers, "printf done", **fields)).output == "done"
    assert (await shell(performers, "head -c 3", **fields)).output == "qqq"


async def test_arguments_as_a_map_are_names_and_values_in_the_order_written(performers: Performers) -> None:
    fields: dict[str, Any] = {"arguments": {"z": 1, "a": "${ .a }", "none": None, "b": True}}
    assert (await shell(performers, 'printf "%s;" "$@"', **fields)).output == "z=1;a=q;b=true;"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"arguments": ["${ [] }"]}, "an item of arguments is an array"),
        ({"arguments": ["${ null }"]}, "an item of arguments is null"),
        ({"arguments": ["a\0b"]}, "holds a zero character"),
        ({"environment": {"A=B": "1"}}, "a name that is empty or holds '='"),
        ({"environment": {"A": "${ {} }"}}, "a value in environment is an object"),
    ],
)
async def test_what_no_process_can_be_given(performers: Performers, fields: Any, says: str) -> None:
    error = (await shell(performers, "true", **fields)).error
    assert error is not None
    assert says in error["detail"]


async def test_every_retry_has_its_own_key(performers: Performers, tmp_path: Path) -> None:
    command = f"echo $FASTRUNNER_IDEMPOTENCY_KEY >> {tmp_path}/keys; [ $(wc -l < {tmp_path}/keys) -gt 1 ]"
    attempts = {"try": [{"x": {"run": {"shell": {"command": command}}}}], "catch": {"retry": {"delay": "PT1S"}}}
    assert (await run(document(None, **attempts), None, performers)).status == "completed"
    first, second = (tmp_path / "keys").read_text().split()
    assert (first, second) == ("test-execution/do/0/x/try/0/x/1/1", "test-execution/do/0/x/try/0/x/1/2")


async def test_a_process_sees_no_others_and_reaches_nothing(remote: Remote) -> None:
    """As far as the machine lets the runner see to that; else it is as the log says."""
    code = (
        "import os, socket\n"
        "print(os.getpid())\n"
        "try:\n"
        f"    socket.create_connection(('127.0.0.1', {remote.port}), 5).close()\n"
        "    print('reached')\n"
        "except OSError:\n"
        "    print('alone')\n"
    )
    for has_network in (False, True):
        isolation = Isolation(memory_size_bytes_max=1 << 29, processes_max=64, has_network=has_network)
        await isolation.find_out()
        async with running(run_network=has_network) as performers:
            output = (await run(document({"script": {"language": "python", "code": code}}), None, performers)).output
        pid, network = output.split()
        assert (int(pid) < 10) == ("pid" in isolation.namespaces)
        assert network == ("alone" if "network" in isolation.namespaces else "reached")


@pytest.mark.parametrize("path", ["/script.py", "/{name}"])
async def test_a_script_from_elsewhere(remote: Remote, performers: Performers, path: str) -> None:
    remote.answers(text="import sys; print(sys.argv[1], end='')")
    source = {"endpoint": {"uri": remote.url + path, "authentication": {"bearer": {"token": "of-the-test"}}}}
    script = {"language": "python", "source": source, "arguments": ["hi"]}
    assert (await run(document({"script": script}), {"name": "other.py"}, performers)).output == "hi"
    assert remote.last.headers["Authorization"] == "Bearer of-the-test"
    assert remote.last.path == path.format(name="other.py")


async def test_a_script_that_is_empty(remote: Remote, performers: Performers) -> None:
    remote.answers(body=b"")
    script = {"language": "python", "source": {"endpoint": remote.url}}
    assert (await run(document({"script": script}), None, performers)).output == ""


async def test_a_script_that_cannot_be_had(remote: Remote, performers: Performers) -> None:
    """It goes where calls may go."""
    remote.answers(status=404)
    for uri, status in ((remote.url, 404), ("http://169.254.169.254/", 403)):
        script = {"language": "python", "source": {"endpoint": uri}}
        error = (await run(document({"script": script}), None, performers)).error
        assert error is not None
        assert error["status"] == status


async def test_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "node").write_text("no program")
    async with running(run_node=tmp_path / "node") as performers:
        script = {"language": "js", "code": "1"}
        error = (await run(document({"script": script}), None, performers)).error
    assert error is not None
    assert "its program could not be started" in error["detail"]
