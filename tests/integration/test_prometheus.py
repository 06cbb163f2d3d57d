"""Support: what a real runner counts, through kills and restarts, as a real Prometheus server sees it; and its rules.

Prometheus and promtool are Debian's package `prometheus`, which `make tools` installs.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import ReportProgressBatchRequest, WorkflowExecuteInput
from fastrunner.counts.cells import Segment
from fastrunner.counts.definitions import Metrics
from fastrunner.counts.scrape import TreeCollector
from fastrunner.engine.embedded.store.connection import READ_ONLY, connect
from fastrunner.engine.embedded.store.event_rows import unpacked
from fastrunner.service.methods import METHOD_OF_PATH
from tests.integration.open_loop import channel
from tests.integration.prometheus import RULES, prometheus
from tests.integration.runner_process import RunnerProcess, running, until
from tests.integration.wire import path
from tests.outside import require_tool

ROOT = Path(__file__).resolve().parents[2]
SERVE = ("-m", "fastrunner", "serve")
PREFIX = "workflow_runner_"
HEAD = "document: {dsl: 1.0.3, namespace: count, name: work, version: 1.0.0}\ndo:\n"
DOCUMENTS = (
    HEAD + "- one: {set: {a: 1}}\n- two: {set: {b: 2}}\n- rest: {wait: {milliseconds: 20}}\n- three: {set: {c: 3}}\n",
    HEAD + "- one: {set: {a: 1}}\n- bad: {raise: {error: {type: 'https://e/x', status: 400}}}\n",
    HEAD + "- each: {for: {each: x, in: '${ [1, 2, 3] }'}, do: [{one: {set: {x: '${ $x }'}}}]}\n",
)
KINDS = {"one": "set", "two": "set", "three": "set", "rest": "wait", "bad": "raise", "each": "for"}


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunnerProcess]:
    """A ready tree of two workers."""
    with running(tmp_path / "data", SERVE) as started:
        yield started.wait_ready()


# --- load ---


async def submit(runner: RunnerProcess, executions: int, ended: asyncio.Event) -> None:
    """So many executions, each asked for until it is accepted; sets `ended` when all are."""
    clients = [channel(runner.target, retrying=True) for _ in range(4)]
    places = asyncio.Semaphore(64)

    async def one(number: int) -> None:
        request = WorkflowExecuteInput(
            workflow_execution_id=f"execution-{number}", workflow_yaml=DOCUMENTS[number % len(DOCUMENTS)]
        )
        call = clients[number % len(clients)].unary_unary(path("ExecuteAsync"))
        async with places:
            while True:
                try:
                    await call(request.SerializeToString(), timeout=30, wait_for_ready=True)
                    return
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                    await asyncio.sleep(0.05)

    await asyncio.gather(*(one(number) for number in range(executions)))
    ended.set()
    for client in clients:
        await client.close()


async def kill(runner: RunnerProcess, ended: asyncio.Event, seed: int) -> int:
    """Kills workers at random moments while there is load; how many."""
    chance, kills = random.Random(seed), 0
    while not ended.is_set() and kills < 4:
        await asyncio.sleep(chance.uniform(0.05, 0.3))
        pid = chance.choice(await asyncio.to_thread(lambda: until(runner.workers)))["pid"]
        os.kill(pid, signal.SIGKILL)
        kills += 1
        await asyncio.to_thread(until, lambda pid=pid: runner.replaced(pid), 30)
    return kills


def in_files(data_dir: Path) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """Executions by status, and tasks that ended by kind and outcome, as the shards' files have them."""
    statuses: Counter[str] = Counter()
    tasks: Counter[tuple[str, str]] = Counter()
    for file in sorted(data_dir.glob("shard-*.db")):
        with closing(connect(file, READ_ONLY)) as db:
            statuses.update(dict(db.execute("select status, count(*) from executions group by status")))
            for messages, row_format in db.execute("select messages, format from events"):
                for event in ReportProgressBatchRequest.FromString(unpacked(messages, row_format)).events:
                    if event.event_type in ("task_completed", "task_failed"):
                        tasks[KINDS[event.task_name], event.event_type.removeprefix("task_")] += 1
    return statuses, tasks


def counted(runner: RunnerProcess, name: str) -> dict[tuple[str, ...], float]:
    """The series of a metric that are not 0, by label values."""
    series = {}
    for line in runner.get("/metrics")[1].splitlines():
        if line.startswith((f"{PREFIX}{name}{{", f"{PREFIX}{name} ")):
            labels, value = line.rsplit(" ", 1)
            if float(value):
                series[tuple(part.split('"')[0] for part in labels.split('="')[1:])] = float(value)
    return series


# --- tests ---


async def test_figures_are_those_of_the_files_whoever_was_killed(runner: RunnerProcess, tmp_path: Path) -> None:
    """Workers are killed under load, then replaced one by one: what was counted is what the files hold."""
    ended = asyncio.Event()
    load = asyncio.ensure_future(submit(runner, 3000, ended))
    kills = await kill(runner, ended, seed=1)
    runner.signal(signal.SIGHUP)
    await load
    await asyncio.to_thread(until, lambda: runner.metric(f"{PREFIX}active_executions") == 0, 30)
    statuses, tasks = in_files(runner.data_dir)
    assert sum(statuses.values()) == 3000
    assert counted(runner, "executions_accepted_total") == {(): 3000}
    assert counted(runner, "executions_finished_total") == {(status,): count for status, count in statuses.items()}
    assert counted(runner, "execution_duration_seconds_count") == {(status,): n for status, n in statuses.items()}
    assert counted(runner, "tasks_total") == tasks
    assert counted(runner, "worker_restarts_total") == {(): kills}
    assert kills >= 2


async def test_prometheus_scrapes_a_running_tree(runner: RunnerProcess, tmp_path: Path) -> None:
    """Its figures become those of what was executed, across a kill and a rolling restart; its rules evaluate."""
    with prometheus(tmp_path / "prometheus", fastrunner=runner.ports["http_port"]) as server:
        await submit(runner, 300, asyncio.Event())
        sum_ = "sum(workflow_runner_executions_accepted_total)"
        await asyncio.to_thread(until, lambda: server.query(sum_) == {(): 300}, 20)
        for index in (0, 1, 0):
            pid = runner.workers()[index]["pid"]
            os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(until, lambda pid=pid: runner.replaced(pid), 30)
        pids = {worker["pid"] for worker in runner.workers()}
        runner.signal(signal.SIGHUP)
        await asyncio.to_thread(until, lambda: runner.replaced(*pids), 30)
        await asyncio.to_thread(until, lambda: server.query(sum_) == {(): 300}, 20)
        finished = f"sum by (status) ({PREFIX}executions_finished_total)"
        expected = {("cancelled",): 0.0, ("completed",): 200.0, ("failed",): 100.0}
        await asyncio.to_thread(until, lambda: server.query(finished) == expected, 20)
        assert server.query(f"{PREFIX}tasks_total{{kind='for',outcome='completed'}}").popitem()[1] == 100
        alert = 'ALERTS{alertname="FastrunnerWorkerCrashes",alertstate="firing"}'
        await asyncio.to_thread(until, lambda: server.query(alert), 20)
        rules = [rule for group in server.get("rules")["groups"] for rule in group["rules"]]
        assert len(rules) > 15
        assert {rule["health"] for rule in rules} == {"ok"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "recording.yml", "alerts.yml"),
        ("test", "rules", "tests.yml"),
    ],
    ids=" ".join,
)
def test_promtool_accepts_what_ships(arguments: tuple[str, ...]) -> None:
    """The example's configuration, the rules, and their own tests."""
    done = subprocess.run([require_tool("promtool"), *arguments], cwd=RULES, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_a_scrape(runner: RunnerProcess) -> None:
    """Names, units, types and help of everything that is served follow the conventions."""
    promtool = require_tool("promtool")
    asyncio.run(submit(runner, 30, asyncio.Event()))
    text = runner.get("/metrics")[1]
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_alert_has_a_runbook() -> None:
    """By the anchor that its annotation names, and none is left of an alert that is gone."""
    text = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")
    sections = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    lines = [line.strip() for line in (RULES / "alerts.yml").read_text(encoding="utf-8").splitlines()]
    alerts = [line.removeprefix("- alert: ") for line in lines if line.startswith("- alert: ")]
    named = [line.removeprefix("runbook: ") for line in lines if line.startswith("runbook: ")]
    assert sections == alerts
    assert named == [f"docs/runbooks.md#{alert.lower()}" for alert in alerts]


def test_documentation_is_generated() -> None:
    """docs/metrics.md says what metrics.py says."""
    command = ["tools/gen_metrics.py", "--check"]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_scrape_of_eight_busy_workers_is_cheap() -> None:
    """Every method with several codes, and all labels known: the time one scrape takes the processor."""
    segments = [Segment() for _ in range(8)]
    for segment in segments:
        metrics = Metrics(segment=segment)
        for method in METHOD_OF_PATH.values():
            labels = ("unary", method.service, method.name)
            metrics.grpc_started.labels(*labels).inc()
            metrics.grpc_duration.labels(*labels).observe(0.001)
            for code in ("OK", "InvalidArgument", "Unavailable", "ResourceExhausted", "NotFound"):
                metrics.grpc_handled.labels(*labels, code).inc()
    registry = CollectorRegistry()
    registry.register(TreeCollector(segments))
    began_s = time.process_time()
    text = generate_latest(registry)
    assert len(text.splitlines()) > 800
    assert time.process_time() - began_s < 0.5
