"""`fastrunner status`: is a runner behind, what runs, what fails, how slow; and what a first start says."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.runner_process import ROOT, SERVE, RunnerProcess, running, until
from tests.integration.test_cli import GREETING, LONG, REFUSAL
from tests.integration.test_cli_shown import COMMAND, fastrunner, on_terminal


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunnerProcess]:
    """A runner whose receiver is away, with one execution that waits, one that is paused, three that ended."""
    receiver = {"STIGMER_SERVICE_ENDPOINT": "127.0.0.1:1", "STIGMER_SERVICE_USE_TLS": "false"}
    with running(tmp_path_factory.mktemp("looked-at") / "data", SERVE, **receiver) as started:
        started.wait_ready()
        until(started.ready)
        for text, execution_id, *flags in (
            (LONG, "waits"),
            (LONG, "paused"),
            (REFUSAL, "no-1", "--follow"),
            (REFUSAL, "no-2", "--follow"),
            (GREETING, "hello", "--input", '{"name": "Ada"}', "--follow"),
        ):
            fastrunner(started, "submit", "-", "--id", execution_id, *flags, text=text)
        assert fastrunner(started, "pause", "paused").returncode == 0
        until(lambda: started.metric("workflow_runner_callback_breaker_open") > 0)
        yield started


def http(runner: RunnerProcess) -> tuple[str, str]:
    return "--http-target", f"127.0.0.1:{runner.ports['http_port']}"


def test_readyz_names_a_receiver_that_is_away(runner: RunnerProcess) -> None:
    """It is no reason not to be ready."""
    ready, reason = runner.readiness()
    assert ready
    assert re.search(r"the receiver 127\.0\.0\.1:1 does not take callbacks: suspended by [12] workers", reason)


def test_status_answers_on_one_screen(runner: RunnerProcess) -> None:
    done = fastrunner(runner, "status", *http(runner))
    assert (done.returncode, done.stderr) == (0, "")
    text = done.stdout
    assert "\x1b" not in text
    assert "2 ready" in text
    assert re.search(r"^now +1 running, 0 pending, 1 paused$", text, re.MULTILINE)
    assert re.search(r"^recent +5 accepted in 10 m: 1 completed, 2 failed, 0 cancelled$", text, re.MULTILINE)
    assert re.search(r"^failing +2 x test/refusal: 400 No  \(latest .* ago: no-[12]\)$", text, re.MULTILINE)
    assert re.search(r"^slow +executions +p50 .* p99 .*$", text, re.MULTILINE)
    assert re.search(r"^behind +[0-9]+ events wait for the receiver.* suspended by [12] workers$", text, re.MULTILINE)
    assert len(text.splitlines()) <= 24


def test_status_for_scripts(runner: RunnerProcess) -> None:
    """The runner is found by the ports.json of its data directory alone."""
    environment = {**os.environ, "FASTRUNNER_DATA_DIR": str(runner.data_dir)}
    done = subprocess.run(
        [*COMMAND, "status", "--json", "--since", "1h"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["ready"] is True
    assert seen["unfinished"] == {"running": "1", "pending": "0", "paused": "1"}
    assert seen["recent"] == {"completed": 1, "failed": 2, "running": 1, "paused": 1}
    assert [(group["workflow"], group["count"]) for group in seen["failures"]] == [("test/refusal", 2)]
    assert seen["callback_queue_events"] > 0
    assert len(seen["durations_s"]["executions"]) == 3


def test_what_does_not_answer_is_said(runner: RunnerProcess) -> None:
    """The other port's part is shown."""
    done = fastrunner(runner, "status", "--http-target", "127.0.0.1:1")
    assert done.returncode == 4
    assert "give --http-target" in done.stdout
    assert "1 paused" in done.stdout
    done = fastrunner(runner, "status", "--target", "127.0.0.1:1", *http(runner))
    assert done.returncode == 4
    assert "give --target" in done.stdout
    assert "2 ready" in done.stdout
    strange = fastrunner(runner, "status", "--http-target", runner.target)
    assert strange.returncode == 4
    assert "Traceback" not in strange.stderr


def test_watching_looks_again(runner: RunnerProcess) -> None:
    with subprocess.Popen(
        [*COMMAND, "status", "--watch", "--json", "--interval-s", "0.2", *http(runner)],
        cwd=ROOT,
        env={**os.environ, "FASTRUNNER_TARGET": runner.target},
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        looks = [json.loads(child.stdout.readline())["at_ms"] for _ in range(2)]
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=30)
    assert looks[0] < looks[1]
    assert child.returncode == 130


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_has_no_more_lines(runner: RunnerProcess, columns: int) -> None:
    lines = on_terminal(runner, columns, "status", *http(runner))
    assert len(lines) <= 24
    assert lines[0].startswith("runner")


def test_a_first_start_says_what_where_and_how_to_try(tmp_path: Path) -> None:
    """The first line is its own, and the command that it names works as it stands."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FASTRUNNER_")}
    folder = {"FASTRUNNER_DATA_DIR": str(tmp_path / "data"), "GRPC_PORT": "0", "FASTRUNNER_HTTP_PORT": "0"}
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "fastrunner").write_text(f'#!/bin/sh\nexec {COMMAND[0]} -m fastrunner "$@"\n')
    (bin_folder / "fastrunner").chmod(0o755)
    environment["PATH"] = f"{bin_folder}:{environment['PATH']}"
    with subprocess.Popen(
        ["fastrunner", "serve", "--workers", "2"],
        cwd=ROOT,
        env={**environment, **folder},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as serving:
        try:
            assert serving.stdout is not None
            assert re.match(
                r"fastrunner is ready: grpc 127\.0\.0\.1:\d+, http 127\.0\.0\.1:\d+", serving.stdout.readline()
            )
            said = [serving.stdout.readline().strip() for _ in range(4)]
            assert "STIGMER_SERVICE_ENDPOINT is not set" in said[0]
            for command, shown in ((said[2], '{"text":"hello"}'), (said[3], "1 completed")):
                done = subprocess.run(
                    ["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=60, check=False
                )
                assert done.returncode == 0, done.stderr
                assert shown in done.stdout
        finally:
            serving.terminate()
            serving.communicate(timeout=30)
