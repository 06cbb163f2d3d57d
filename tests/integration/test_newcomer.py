"""What a newcomer types, from README.md, docs/tutorial.md and docs/performance.md as they stand, in a clean folder.

Rule: every `sh` block is run, in its order, by a shell. Only ports are others, and figures smaller where a command
measures for seconds. A command that serves gets a terminal of its own, until its port is served by the next one.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.runner_process import ROOT, until
from tests.outside import find_tool, require
from tests.ports import free_port

pytestmark = pytest.mark.timeout(400)
"""Each of them is a dozen processes after the other."""
BLOCK = re.compile(r"(?:^`([\w.]+)`:\n\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SERVING = re.compile(r"\bfastrunner (serve|receiver|dev|stigmer serve)\b|^python shop\.py$")
COMMAND_TIMEOUT_S = 120


class Terminals:
    """A folder, an environment in which `fastrunner` is this one, and what was started there."""

    def __init__(self, folder: Path, ports: dict[str, int]) -> None:
        self.folder = folder
        self.ports = ports
        self.places: dict[str, str] = {}
        """What stands for other places that a page names."""
        programs = folder / ".programs"
        programs.mkdir()
        for name, line in (("fastrunner", "-m fastrunner "), ("python", "")):
            (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {line}"$@"\n')
            (programs / name).chmod(0o755)
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("FASTRUNNER_", "STIGMER_"))
        }
        self.environment = {
            **inherited,
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "src"),
            "XDG_STATE_HOME": str(folder / ".state"),
            "GRPC_PORT": str(ports["9090"]),
            "FASTRUNNER_HTTP_PORT": str(ports["8080"]),
            "FASTRUNNER_TARGET": f"localhost:{ports['9090']}",
            "FASTRUNNER_STIGMER_GRPC_PORT": str(ports["50051"]),
            "FASTRUNNER_STIGMER_HTTP_PORT": str(ports["8090"]),
            "FASTRUNNER_WORKERS": "2",
            "FASTRUNNER_DRAIN_TIMEOUT_S": "5",
        }
        self.serving: dict[str, subprocess.Popen[str]] = {}

    def here(self, text: str) -> str:
        """A text of a page with the ports and places of this test."""
        for there, port in self.ports.items():
            text = re.sub(rf"\b{there}\b", str(port), text)
        for there, place in self.places.items():
            text = text.replace(there, place)
        return text

    def run(self, command: str) -> str:
        """Runs a command to its end; gives what it writes to stdout."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.here(command)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def start(self, kind: str, command: str) -> Path:
        """Starts a command that serves, in place of an earlier one of its kind; gives the file of what it writes."""
        self.stop(kind)
        said = self.folder / f".{kind.replace(' ', '-')}-{len(self.serving)}.log"
        with said.open("w") as file:
            self.serving[kind] = subprocess.Popen(
                ["bash", "-c", f"exec env {self.here(command).removesuffix('&').strip()}"],
                cwd=self.folder,
                env=self.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
            )
        return said

    def stop(self, kind: str) -> None:
        """Ctrl-C for a command that serves."""
        child = self.serving.pop(kind, None)
        if child is not None and child.poll() is None:
            child.send_signal(signal.SIGINT)
            try:
                child.wait(timeout=30)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    opened = Terminals(tmp_path, {there: free_port() for there in ("9090", "8080", "50051", "7070", "8090")})
    try:
        yield opened
    finally:
        for kind in list(opened.serving):
            opened.stop(kind)


def commands(text: str) -> Iterator[str]:
    """The commands of a block: a line each, or several where quotes or a backslash go on."""
    command = ""
    for line in text.splitlines():
        command += line + "\n"
        read = subprocess.run(["bash", "-n", "-c", command], capture_output=True, check=False)
        # A here-document that has not ended is only warned of.
        whole = read.returncode == 0 and not read.stderr
        if whole and not line.endswith("\\"):
            if command.strip():
                yield command.strip()
            command = ""
    assert not command, command


def said(file: Path, text: str) -> Callable[[], bool]:
    return lambda: text in file.read_text()


def serve(terminals: Terminals, command: str) -> Path:
    """Starts what a command serves and waits until it does."""
    found = SERVING.search(command.split("  #")[0])
    assert found is not None
    kind = found[1] or "shop"
    file = terminals.start(kind, command.split("  #")[0])
    words = {
        "serve": "is ready",
        "receiver": "receiving progress",
        "dev": "Ctrl-C ends",
        "stigmer serve": '"serving"',
        "shop": "",
    }
    until(said(file, words[kind]), timeout_s=60)
    return file


def test_the_tutorial(terminals: Terminals) -> None:
    """From an empty folder to an approved order and a receiver; outputs are those that the page shows."""
    files: dict[str, Path] = {}
    output = ""
    for name, language, text in BLOCK.findall((ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")):
        if name:
            (terminals.folder / name).write_text(terminals.here(text))
        elif language == "json":
            assert json.loads(output.splitlines()[-1]) == json.loads(text)
        else:
            assert language == "sh"
            for command in commands(text):
                if SERVING.search(command):
                    file = serve(terminals, command)
                    files[command] = file
                    if "fastrunner dev" in command:
                        assert '{"text":"Hello Ada"}' in file.read_text()
                        terminals.stop("dev")
                else:
                    output = terminals.run(command)
                    check_tutorial(command, output)
    [received] = [file for command, file in files.items() if "receiver" in command]
    until(lambda: re.search(r"hello-1.*workflow_completed", received.read_text()))
    until(lambda: "given up" not in terminals.run("fastrunner get hello-1"))


def check_tutorial(command: str, output: str) -> None:
    """What the page says in words."""
    if command.startswith("fastrunner get order-1"):
        assert re.search(r"^status +paused$", output, re.MULTILINE), output
    elif command == "fastrunner status":
        assert "1 paused" in output
    elif command.startswith("fastrunner events order-1"):
        assert re.search(r"completed +/do/0/addUp/do/0/add .*\[1\]", output)
        assert re.search(r"completed +/do/2/pay .*attempt 3", output)
    elif command == "fastrunner list":
        assert re.search(r"^order-1 .*completed", output, re.MULTILINE)


def test_the_readme(terminals: Terminals) -> None:
    """Its commands in their order, on the examples; what it builds is there already."""
    shutil.copytree(ROOT / "examples", terminals.folder / "examples")
    page = (ROOT / "README.md").read_text(encoding="utf-8").split("## Run it")[1].split("## What it executes")[0]
    for _, language, text in BLOCK.findall(page):
        assert language == "sh"
        for command in commands(text):
            if command.startswith("make build"):
                continue
            if SERVING.search(command):
                serve(terminals, command)
                continue
            if command.startswith("grpcurl") and not shutil.which("grpcurl", path=terminals.environment["PATH"]):
                continue
            quicker = command.replace("fastrunner bench", "fastrunner bench --seconds 0.2")
            output = terminals.run(quicker)
            if command.startswith("fastrunner submit"):
                assert json.loads(output)["team"] == "engineering"
    until(lambda: terminals.run("fastrunner list"))


def load_commands() -> list[str]:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8").split("## Your own load test")[1]
    return [text for _, language, text in BLOCK.findall(page) if language == "sh"]


def test_a_load_test_of_ones_own(terminals: Terminals) -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8").split("## Your own load test")[1]
    serve(terminals, "fastrunner serve")
    [(name, _, text)] = [block for block in BLOCK.findall(page) if block[0]]
    (terminals.folder / name).write_text(terminals.here(text))
    measured, loaded = load_commands()
    assert "test_accept" in terminals.run(measured)
    listed = json.loads(terminals.run("fastrunner status --json"))
    assert listed["recent"]["completed"] >= 600
    require(find_tool("ghz"), "ghz")
    assert "Status code distribution" in terminals.run(loaded)
