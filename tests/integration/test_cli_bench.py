"""`fastrunner bench`: a self-test of a temporary runner and of a given one, and how it leaves when interrupted."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.runner_process import ROOT, until

_COMMAND = [sys.executable, "-m", "fastrunner", "bench", "--seconds", "0.3"]


def test_a_temporary_runner_is_measured_and_gone(tmp_path: Path) -> None:
    command = [*_COMMAND, "--data-dir", str(tmp_path), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    figures = json.loads(done.stdout)
    assert figures["accept"]["per_s"] > 0
    assert figures["whole"]["p99_ms"] >= figures["whole"]["p50_ms"] > 0
    assert figures["fsync"]["p50_ms"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_is_not_there_is_a_sentence() -> None:
    done = subprocess.run(
        [*_COMMAND, "--target", "127.0.0.1:1"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 4
    assert done.stderr.startswith("fastrunner: UNAVAILABLE")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_it_and_its_runner(tmp_path: Path, number: signal.Signals, code: int) -> None:
    command = [*_COMMAND[:-1], "60", "--data-dir", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            until(lambda: process.poll() is not None or list(tmp_path.glob("fastrunner-bench-*/ports.json")))
            process.send_signal(number)
            try:
                _, said = process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                # Python drops an interrupt that comes while a destructor runs; people press the keys again.
                process.send_signal(number)
                _, said = process.communicate(timeout=20)
        finally:
            # Whatever failed, leaving this block must not wait for a minute of load.
            process.kill()
    assert process.returncode == code
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
