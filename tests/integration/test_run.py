"""Runs of shells and scripts: real processes, what they are given, how they end, and what the workflow hears."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fastrunner._core import Compilation, InvalidWorkflow
from fastrunner.config import load_config
from tests.driver import run
from tests.integration.runs import Performers, document, running, shell


@pytest.fixture
async def performers() -> AsyncIterator[Performers]:
    async with running() as built:
        yield built


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
    process = {"await": False, "shell": {"command": f"echo done > {tmp_path}/done"}}
    assert (await run(document(process), {"a": 1}, performers)).output == {"a": 1}


def compiled(compilation: Compilation) -> None:
    while compilation.step(1000) is None:
        pass


def test_what_is_not_allowed_is_refused() -> None:
    text = document({"shell": {"command": "true"}})
    open_to_all = {"grpc_host": "0.0.0.0", "auth": "none"}
    for settings in ({"run_allowed": "script:python"}, {"run_allowed": "none"}, open_to_all):
        compilation = Compilation(text, refuse_run=load_config(**settings).runs.refusal)
        with pytest.raises(InvalidWorkflow) as refused:
            compiled(compilation)
        assert [(problem.code, problem.pointer) for problem in refused.value.problems] == [
            ("not-allowed", "/do/0/x/run/shell")
        ]
        assert "FASTRUNNER_" in refused.value.problems[0].message
