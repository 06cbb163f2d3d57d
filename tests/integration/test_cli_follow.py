"""How commands show the progress of an execution: a tree on a terminal, lines elsewhere, and through restarts."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2
from fastrunner.cli.tree import ExecutionTree
from tests.integration.runner_process import ROOT, SERVE, RunnerProcess, running, until
from tests.integration.test_cli import LONG
from tests.integration.test_cli_shown import COMMAND, fastrunner, on_terminal

ROUNDS = """\
document: {dsl: 1.0.3, namespace: test, name: rounds, version: 1.0.0}
do:
- each:
    for: {each: n, in: '${ [1, 2, 3] }'}
    do:
    - block:
        do:
        - note: {set: {n: '${ $n }'}}
- race:
    fork:
      compete: true
      branches:
      - quick: {wait: {milliseconds: 50}}
      - slow: {wait: {hours: 1}}
- pay:
    try:
    - charge: {raise: {error: {type: https://example.com/busy, status: 503, title: Busy}}}
    catch:
      retry: {delay: {milliseconds: 1}, limit: {attempt: {count: 1}}}
"""
LARGE = """\
document: {dsl: 1.0.3, namespace: test, name: large, version: 1.0.0}
do:
- many: {set: {text: '${ [range(30000) | "ab"] | add | . + . }'}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("documents")
    for name, text in (("rounds", ROUNDS), ("large", LARGE), ("long", LONG)):
        (path / f"{name}.yaml").write_text(text)
    return path


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunnerProcess]:
    with running(tmp_path_factory.mktemp("followed") / "data", SERVE) as started:
        started.wait_ready()
        until(started.ready)
        yield started


@contextmanager
def following(runner: RunnerProcess, *arguments: str) -> "Iterator[subprocess.Popen[str]]":
    """The command, going on; gone afterwards."""
    environment = {**os.environ, "FASTRUNNER_TARGET": runner.target}
    with subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def told(lines: list[str]) -> list[list[str]]:
    """What lines of progress say: word and place, and what follows of attempts, runs and errors."""
    rows = [line[18:].split("  ") for line in lines]
    return [[cell.strip() for cell in row if cell.strip() and not cell.strip().endswith((" ms", " s"))] for row in rows]


def test_lines_tell_each_step_once(runner: RunnerProcess, folder: Path) -> None:
    """A loop's runs differ, losers of a race are told, a retry has its reason, and the error comes last."""
    done = fastrunner(runner, "submit", str(folder / "rounds.yaml"), "--id", "rounds", "--follow")
    assert done.returncode == 1
    error = {
        "type": "https://example.com/busy",
        "status": 503,
        "title": "Busy",
        "instance": "/do/2/pay/try/0/charge",
    }
    assert json.loads(done.stdout) == error
    *lines, last = fastrunner(runner, "events", "rounds").stdout.splitlines()
    assert json.loads(last) == error
    assert "\x1b" not in done.stderr
    note, block = "/do/0/each/do/0/block/do/0/note", "/do/0/each/do/0/block"
    assert told(lines) == [
        ["started", "rounds"],
        *(["completed", task, f"[{index}]"] for index in range(3) for task in (note, block)),
        ["completed", "/do/0/each"],
        ["completed", "/do/1/race/fork/branches/0/quick"],
        ["interrupted", "/do/1/race/fork/branches/1/slow"],
        ["completed", "/do/1/race"],
        ["failed", "/do/2/pay/try/0/charge", "Busy"],
        ["retrying", "/do/2/pay", "attempt 2", "Busy"],
        ["failed", "/do/2/pay/try/0/charge", "attempt 2", "Busy"],
        ["failed", "/do/2/pay", "attempt 2", "Busy"],
        ["failed", "rounds", "Busy"],
    ]


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_gets_a_tree(runner: RunnerProcess, folder: Path, columns: int) -> None:
    file = str(folder / "rounds.yaml")
    shown = on_terminal(runner, columns, "submit", file, "--follow", code=1)
    static = on_terminal(runner, columns, "events", "rounds", "--outputs")
    for lines in (shown, static):
        tree = [line for line in lines if line.startswith(("├", "└", "│", " "))][-8:]
        marks = [line.strip("├└│─ ").split("  ")[0] for line in tree]
        assert marks == ["✓ each", "✓ block", "✓ note", "✓ race", "✓ quick", "– slow", "✗ pay", "✗ charge"]
        assert [line for line in tree if "block" in line and "[2]" in line]
        assert [line for line in tree if "charge" in line and "attempt 2" in line and "Busy" in line]
        assert max(map(len, tree)) <= columns
    assert [line for line in static if line.strip("├└│─ ").startswith("✓ note") and line.rstrip().endswith('{"n":3}')]


def test_from_beyond_the_end_there_is_nothing(runner: RunnerProcess, folder: Path) -> None:
    """The exit code is that of the end."""
    fastrunner(runner, "submit", str(folder / "large.yaml"), "--id", "over", "--follow")
    for flags in ((), ("--follow",)):
        done = fastrunner(runner, "events", "over", "--from", "999", *flags)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    fastrunner(runner, "submit", str(folder / "rounds.yaml"), "--id", "failed", "--follow")
    assert fastrunner(runner, "events", "failed", "--from", "999", "--follow").returncode == 1


def test_a_large_output_is_printed_whole(runner: RunnerProcess, folder: Path) -> None:
    """Events leave it out."""
    done = fastrunner(runner, "submit", str(folder / "large.yaml"), "--follow", "--outputs")
    assert json.loads(done.stdout) == {"text": "ab" * 60000}
    assert len(done.stderr) < 1000


def test_following_goes_through_restarts(tmp_path: Path, folder: Path) -> None:
    """Every worker is replaced, then the whole runner; each event comes once. The start of a long task is told."""
    with running(tmp_path / "data", SERVE) as first:
        first.wait_ready()
        until(first.ready)
        port = str(first.ports["grpc_port"])
        with ExitStack() as stack:
            submit = ("submit", str(folder / "long.yaml"), "--id", "long", "--follow", "--json")
            child = stack.enter_context(following(first, *submit))
            assert child.stdout is not None
            numbers = [json.loads(child.stdout.readline()).get("sequenceNumber", "0") for _ in range(5)]
            lines = stack.enter_context(following(first, "events", "long", "--follow"))
            assert lines.stdout is not None
            assert lines.stdout.readline().split()[2:] == ["started", "long"]
            assert lines.stdout.readline().split()[2:] == ["running", "/do/0/rest"]
            pids = [worker["pid"] for worker in first.workers()]
            first.signal(signal.SIGHUP)
            until(lambda: first.replaced(*pids))
            assert fastrunner(first, "pause", "long").returncode == 0
            numbers.append(json.loads(child.stdout.readline())["sequenceNumber"])
            assert lines.stdout.readline().split()[2:4] == ["paused", "long"]
            assert first.stop()[0] == 0
            with running(tmp_path / "data", SERVE, GRPC_PORT=port) as second:
                second.wait_ready()
                until(second.ready)
                assert fastrunner(second, "cancel", "long", "--reason", "enough").returncode == 0
                out, err = child.communicate(timeout=60)
                numbers += [json.loads(line)["sequenceNumber"] for line in out.splitlines()]
                assert child.returncode == 3, err
                out, err = lines.communicate(timeout=60)
                assert lines.returncode == 3, err
                assert out.splitlines()[-1].endswith("enough")
    assert numbers == [str(number) for number in range(len(numbers))]


def test_ctrl_c_ends_following_alone(runner: RunnerProcess, folder: Path) -> None:
    with following(runner, "submit", str(folder / "long.yaml"), "--id", "left", "--follow") as child:
        assert child.stderr is not None
        for line in child.stderr:
            if "running" in line and "/do/0/rest" in line:
                break
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "fastrunner events left --follow" in err
    assert "fastrunner cancel left" in err
    assert json.loads(fastrunner(runner, "get", "left", "--json").stdout)["status"] == "running"


def test_nobody_there_is_said_at_once(folder: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "events", "some", "--follow", "--target", "127.0.0.1:1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 4
    assert "is the runner up there?" in done.stderr


def event(kind: str, reference: str = "", at_ms: int = 1, **fields: Any) -> messages_pb2.WorkflowProgressEvent:
    name = reference.rpartition("/")[2]
    return messages_pb2.WorkflowProgressEvent(
        event_type=kind, task_reference=reference, task_name=name, timestamp_ms=at_ms, workflow_name="w", **fields
    )


def test_a_tree_fits_its_lines() -> None:
    """What happened last is shown, with the tasks around it, and how many are left out."""
    tree = ExecutionTree()
    tree.take(event("workflow_started", status="running"))
    for number in range(50):
        tree.take(event("task_started", f"/do/{number}/outer{number}", attempt=1))
        tree.take(event("task_started", f"/do/{number}/outer{number}/do/0/inner{number}", attempt=1))
    shown = tree.shown(now_ms=10, lines_max=8)
    assert "(94 tasks more)" in str(shown.label)
    assert [str(child.label).split()[1] for child in shown.children] == ["outer47", "outer48", "outer49"]
    assert all(len(child.children) == 1 for child in shown.children)
