"""`fastrunner dev`: a document runs again on every save."""

import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.runner_process import ROOT
from tests.integration.test_cli import BROKEN, GREETING, LONG
from tests.integration.test_cli_shown import COMMAND


class Dev:
    """The command, and what it says: its results and its other lines."""

    def __init__(self, child: "subprocess.Popen[str]") -> None:
        self.child = child
        self._lines: queue.Queue[str] = queue.Queue()
        for stream in (child.stdout, child.stderr):
            threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream: "Iterator[str]") -> None:
        for line in stream:
            self._lines.put(line.rstrip("\n"))

    def wait_for(self, text: str) -> str:
        """The first line to come that has the text."""
        while text not in (line := self._lines.get(timeout=60)):
            pass
        return line


@contextmanager
def developing(tmp_path: Path, *arguments: str) -> Iterator[Dev]:
    with subprocess.Popen(
        [*COMMAND, "dev", *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            yield Dev(child)
        finally:
            child.kill()


def test_every_save_runs_it_again(tmp_path: Path) -> None:
    """Saved in place, renamed over, broken and mended; then its input changes."""
    file, given, scratch = tmp_path / "flow.yaml", tmp_path / "input.json", tmp_path / "scratch"
    scratch.mkdir()
    file.write_text(GREETING)
    given.write_text('{"name": "Ada"}')
    with developing(scratch, str(file), "--input", f"@{given}") as dev:
        assert json.loads(dev.wait_for("{")) == {"text": "Hello Ada"}
        dev.wait_for("-- completed")
        file.write_text(GREETING.replace("Hello", "Good day"))
        assert json.loads(dev.wait_for("{")) == {"text": "Good day Ada"}
        dev.wait_for("-- completed")
        other = tmp_path / "other.yaml"
        other.write_text(BROKEN)
        other.rename(file)
        dev.wait_for(f"{file}:3:")
        dev.wait_for("problems")
        file.write_text(GREETING)
        assert json.loads(dev.wait_for("{")) == {"text": "Hello Ada"}
        dev.wait_for("-- completed")
        given.write_text("{name: Ada}")
        dev.wait_for("not JSON")
        given.write_text('{"name": "Grace"}')
        assert json.loads(dev.wait_for("{")) == {"text": "Hello Grace"}
        dev.child.send_signal(signal.SIGINT)
        assert dev.child.wait(timeout=30) == 0
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_still_runs_is_cancelled(tmp_path: Path, number: int) -> None:
    file, scratch = tmp_path / "flow.yaml", tmp_path / "scratch"
    scratch.mkdir()
    file.write_text(LONG)
    with developing(scratch, str(file)) as dev:
        dev.wait_for("/do/0/rest")
        file.write_text(GREETING)
        dev.wait_for("cancelled")
        assert json.loads(dev.wait_for("{")) == {"text": "Hello "}
        file.write_text(LONG)
        dev.wait_for("/do/0/rest")
        dev.child.send_signal(number)
        assert dev.child.wait(timeout=30) == 0
    assert list(scratch.iterdir()) == []
