"""Runs on a whole runner: processes that are cancelled, lose races, or lose their worker; what becomes of them and of
the workflow, and that others go on beside those that go wrong."""

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastrunner.base import clock
from fastrunner.tasks.run.cgroups import Cgroups
from tests.integration.runner_process import SERVE, RunnerProcess, running
from tests.integration.runs import document
from tests.integration.test_call_http_runner import Client

SETTINGS = {"FASTRUNNER_WORKERS": "1", "FASTRUNNER_RUN_PROCESSES_MAX": "64", "FASTRUNNER_DRAIN_TIMEOUT_S": "60"}
HAS_CGROUPS = Cgroups(1 << 29, 64).are_there


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunnerProcess]:
    with running(tmp_path / "data", SERVE, **SETTINGS) as process:
        yield process.wait_ready()


@pytest.fixture
async def client(runner: RunnerProcess) -> AsyncIterator[Client]:
    client = Client(runner)
    yield client
    await client.close()


@pytest.fixture
def mark() -> str:
    """An argument by which processes are found."""
    return f"mark-{uuid.uuid4().hex}"


def marked(mark: str) -> list[int]:
    """Processes that have it in their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


async def until(condition: Callable[[], Any], what: str) -> None:
    """Not often: some conditions read all of /proc."""
    deadline_s = clock.monotonic_s() + 60
    while not condition():
        assert clock.monotonic_s() < deadline_s, f"waited 60 s for: {what}"
        await asyncio.sleep(0.05)


def sleeping(mark: str, folder: Path) -> dict[str, Any]:
    """A shell that leaves a process behind in a session of its own, and never ends."""
    return {
        "shell": {
            "command": f"setsid sh -c 'touch {folder}/up; sleep 3600' {mark} & trap '' TERM; wait; sleep 3600",
            "arguments": [mark],
        }
    }


async def test_a_cancel_in_flight_kills_all_of_it(client: Client, mark: str, tmp_path: Path) -> None:
    await client.execute("one", document(sleeping(mark, tmp_path)))
    await until((tmp_path / "up").exists, "the process runs")
    assert marked(mark)
    await client.cancel("one")
    assert (await client.end("one")).status == "cancelled"
    await until(lambda: not marked(mark), "nothing of it runs")


async def test_the_loser_of_a_race_is_killed(client: Client, mark: str, tmp_path: Path) -> None:
    winner = {"shell": {"command": f"while [ ! -e {tmp_path}/up ]; do sleep 0.05; done; printf won"}}
    branches = [{"loses": {"run": sleeping(mark, tmp_path)}}, {"wins": {"run": winner}}]
    await client.execute("race", document(None, fork={"compete": True, "branches": branches}))
    ended = await client.end("race")
    assert (ended.status, ended.output_json) == ("completed", '"won"')
    await until(lambda: not marked(mark), "the loser has ended")


async def test_a_killed_worker_takes_its_processes_along_and_its_successor_runs_them_again(
    runner: RunnerProcess, client: Client, mark: str, tmp_path: Path
) -> None:
    """With the same idempotency key; a retry of the task has another."""
    keys, gate = tmp_path / "keys", tmp_path / "gate"
    command = (
        f"setsid sleep 3600 & echo $FASTRUNNER_IDEMPOTENCY_KEY >> {keys}; "
        f"while [ ! -e {gate} ]; do sleep 0.05; done; [ $(wc -l < {keys}) -gt 2 ]"
    )
    body = {"run": {"shell": {"command": command, "arguments": [mark]}}}
    guarded = {"try": [{"x": body}], "catch": {"retry": {"limit": {"attempt": {"count": 1}}}}}
    await client.execute("one", document(None, **guarded))
    await until(keys.exists, "it runs")
    [worker] = runner.workers()
    before = marked(mark)
    os.kill(worker["pid"], signal.SIGKILL)
    await until(lambda: not set(before) & set(marked(mark)), "its processes have died")
    await until(lambda: len(keys.read_text().split()) == 2, "it runs again")
    gate.touch()
    await until(lambda: runner.replaced(worker["pid"]), "the worker is replaced")
    assert (await client.end("one")).status == "completed"
    first, again, retried = keys.read_text().split()
    assert first == again == "one/do/0/x/try/0/x/1/1"
    assert retried == "one/do/0/x/try/0/x/1/2"
    await until(lambda: not marked(mark), "nothing is left")


async def test_a_crash_between_a_process_and_its_outcome(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    process = {"shell": {"command": f"echo $FASTRUNNER_IDEMPOTENCY_KEY >> {keys}; wc -l < {keys}"}}
    settings = {**SETTINGS, "FASTRUNNER_CRASH_POINT": "before-outcome-commit"}
    with running(tmp_path / "data", SERVE, **settings) as runner:
        client = Client(runner.wait_ready())
        await client.execute("one", document(process))
        await until(lambda: keys.exists() and len(keys.read_text().split()) == 2, "it runs again")
        await client.close()
    assert set(keys.read_text().split()) == {"one/do/0/x/1/1"}
    with running(tmp_path / "data", SERVE, **SETTINGS) as runner:
        client = Client(runner.wait_ready())
        assert (await client.end("one")).status == "completed"
        await client.close()


async def test_what_nobody_awaits_outlives_its_workflow_and_is_waited_for_by_a_drain(
    runner: RunnerProcess, client: Client, mark: str, tmp_path: Path
) -> None:
    command = (
        f"trap 'touch {tmp_path}/asked' TERM; touch {tmp_path}/up; "
        f"while [ ! -e {tmp_path}/gate ]; do sleep 0.05; done; touch {tmp_path}/done"
    )
    process = {"await": False, "shell": {"command": command, "arguments": [mark]}}
    await client.execute("one", document(process, input={"from": {"kept": 1}}))
    ended = await client.end("one")
    assert (ended.status, ended.output_json) == ("completed", '{"kept":1}')
    await until((tmp_path / "up").exists, "it runs")
    await client.close()
    runner.signal(signal.SIGTERM)
    await until(lambda: not runner_listens(runner), "the worker drains")
    assert marked(mark)
    (tmp_path / "gate").touch()
    code, _, errors = await asyncio.to_thread(runner.end)
    assert code == 0, errors
    assert (tmp_path / "done").exists()
    assert not (tmp_path / "asked").exists()


def runner_listens(runner: RunnerProcess) -> bool:
    try:
        return runner.ready()
    except OSError:
        return False


async def test_what_nobody_awaits_is_ended_with_the_runner(mark: str, tmp_path: Path) -> None:
    with running(tmp_path / "data", SERVE, **{**SETTINGS, "FASTRUNNER_DRAIN_TIMEOUT_S": "1"}) as runner:
        client = Client(runner.wait_ready())
        process = {**sleeping(mark, tmp_path), "await": False}
        await client.execute("one", document(process))
        assert (await client.end("one")).status == "completed"
        await until((tmp_path / "up").exists, "it runs")
        await client.close()
        code, _, errors = await asyncio.to_thread(runner.stop)
        assert code == 0, errors
    await until(lambda: not marked(mark), "nothing is left")


async def test_what_keeps_a_process_that_nobody_awaits_from_running_is_the_tasks_fault(client: Client) -> None:
    """Arguments that cannot be evaluated or given to a process, a source that cannot be had."""
    unread = {"language": "python", "source": {"endpoint": "http://127.0.0.1:1/x.py"}}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"shell": {"command": '${ error("no") }'}}, "expression"),
        ({"shell": {"command": "true", "environment": {"A": "a\0b"}}}, "configuration"),
        ({"shell": {"command": "true", "arguments": ["${ [range(40000)] | tojson }"]}}, "configuration"),
        ({"script": unread}, "communication"),
    ]
    for number, (process, kind) in enumerate(cases):
        await client.execute(f"bad-{number}", document({**process, "await": False}))
        ended = await client.end(f"bad-{number}")
        assert ended.status == "failed"
        assert ended.error.type.endswith(f"/{kind}"), ended.error


async def test_a_process_that_nobody_awaits_and_that_fails_is_logged_and_counted(
    runner: RunnerProcess, client: Client
) -> None:
    await client.execute("one", document({"await": False, "shell": {"command": "echo why >&2; exit 3"}}))
    assert (await client.end("one")).status == "completed"
    failed = 'workflow_runner_effects_total{kind="run_shell",outcome="failed"} 1.0'
    await until(lambda: failed in runner.get("/metrics")[1], "it is counted")
    await client.close()
    _, _, logged = await asyncio.to_thread(runner.stop)
    assert "one/do/0/x/1/1, which nobody awaits, failed" in logged
    assert "why" in logged


async def test_floods_and_bombs_fail_while_others_go_on(client: Client) -> None:
    flood = {"shell": {"command": "head -c 1000000000 /dev/zero"}}
    fork = "import os\nwhile True:\n    os.fork()\n"
    memory = "x = [b'x' * (1 << 24) for _ in range(1 << 10)]"
    hostile: dict[str, Any] = {"flood": flood, "memory": {"script": {"language": "python", "code": memory}}}
    # Nothing binds root but a control group.
    if HAS_CGROUPS or os.geteuid() != 0:
        hostile["bomb"] = {"script": {"language": "python", "code": fork}}
    for name, process in hostile.items():
        await client.execute(name, document(process))
    for number in range(10):
        await client.execute(f"quick-{number}", document({"shell": {"command": "printf ok"}}))
    for number in range(10):
        ended = await client.end(f"quick-{number}")
        assert (ended.status, ended.output_json) == ("completed", '"ok"')
    errors = {name: (await client.end(name)).error for name in hostile}
    assert errors["flood"].title == "Output Too Large"
    assert errors["memory"].title == "Process Failed"
    assert "MemoryError" in errors["memory"].detail or "FASTRUNNER_RUN_MEMORY_MIB" in errors["memory"].detail
    if "bomb" in errors:
        assert errors["bomb"].title == "Process Failed"
        assert "BlockingIOError" in errors["bomb"].detail or "FASTRUNNER_RUN_PROCESSES_MAX" in errors["bomb"].detail


async def test_no_secret_that_a_process_is_given_is_stored_or_shown(tmp_path: Path) -> None:
    """Although the process says it all, where nobody has asked for that."""
    secret = f"canary-{uuid.uuid4().hex}"
    head = "document: {dsl: 1.0.3, namespace: test, name: secretive, version: 1.0.0}\nuse: {secrets: [key]}\n"
    given = "arguments: ['${ $secrets.key }'], stdin: '${ $secrets.key }', environment: {KEY: '${ $secrets.key }'}"
    command = f'[ "$1" = "$KEY" ] && [ "$1" = "$(cat)" ] && touch {tmp_path}/same; echo "$1" >&2; exit 1'
    text = f"{head}do: [{{x: {{run: {{shell: {{command: '{command}', {given}}}}}}}}}]\n"
    settings = {**SETTINGS, "FASTRUNNER_SECRET_KEY": secret, "LOG_LEVEL": "debug"}
    with running(tmp_path / "data", SERVE, **settings) as runner:
        client = Client(runner.wait_ready())
        await client.execute("one", text)
        ended = await client.end("one")
        assert (tmp_path / "same").exists()
        assert 'stderr ends with "***"' in ended.error.detail
        files = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
        await client.close()
        _, out, errors = await asyncio.to_thread(runner.stop)
    assert b"secretive" in files
    assert secret not in f"{ended}{out}{errors}"
    assert secret.encode() not in files
