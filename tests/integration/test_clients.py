"""The clients and the receiver of the documentation, taken from its pages as they stand, against a real runner.

Rule: what a page tells a newcomer to type is what is run here: only the addresses are others, and what `pip install`
would bring is there already. Java, Go and TypeScript fetch and compile for minutes the first time: `make languages`.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.runner_process import ROOT, SERVE, RunnerProcess, running, until
from tests.outside import require
from tests.ports import free_port

CLIENTS = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
CALLBACKS = (ROOT / "docs" / "callbacks.md").read_text(encoding="utf-8")
FILE = re.compile(r"^`([\w./]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DONE = re.compile(r'^6 workflow_completed \{"text":"Hello \w+"\}$', re.MULTILINE)
BUILD_TIMEOUT_S = 900
PROGRAMS = {
    "fastrunner": f'exec "{sys.executable}" -m fastrunner "$@"',
    "protoc": f'exec "{sys.executable}" -m grpc_tools.protoc "$@"',
    "python": f'exec "{sys.executable}" "$@"',
}


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunnerProcess]:
    with running(tmp_path_factory.mktemp("runner") / "data", SERVE, FASTRUNNER_WORKERS="1") as process:
        process.wait_ready()
        until(process.ready)
        yield process


def section(page: str, title: str) -> str:
    """The text under a heading."""
    [text] = re.findall(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", page, flags=re.MULTILINE | re.DOTALL)
    return str(text)


def environment(folder: Path) -> dict[str, str]:
    """Where the programs of the page are those of this test; Go's go into the folder, from the modules' usual cache."""
    programs = folder / "programs"
    programs.mkdir()
    for name, line in PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    variables = {name: value for name, value in os.environ.items() if name != "FASTRUNNER_TARGET"}
    variables["PATH"] = os.pathsep.join([str(programs), variables["PATH"], "/usr/local/go/bin"])
    if go := shutil.which("go", path=variables["PATH"]):
        cache = subprocess.run([go, "env", "GOMODCACHE"], capture_output=True, text=True, check=True).stdout
        variables |= {"GOMODCACHE": cache.strip(), "GOPATH": str(folder / "go"), "GOFLAGS": "-modcacherw"}
    return variables


def follow_the_page(title: str, folder: Path, runner: RunnerProcess) -> str:
    """Does what a section of clients.md says, in a new folder; gives what is printed."""
    intro, text = CLIENTS.split("\n## ", 1)[0], section(CLIENTS, title)
    for name, content in FILE.findall(intro + text):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content.replace("localhost:9090", runner.target))
    commands = "".join(COMMANDS.findall(intro + text))
    script = "".join(line for line in commands.splitlines(keepends=True) if not line.startswith("pip install"))
    done = subprocess.run(
        ["sh", "-eu", "-c", script],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def assert_followed_to_the_end(printed: str) -> None:
    assert printed.count("running\n1 workflow_started ") == 1
    assert DONE.findall(printed)


@pytest.mark.parametrize("title", ["Python", "Python, without fastrunner"])
def test_the_client_in_python(title: str, tmp_path: Path, runner: RunnerProcess) -> None:
    assert_followed_to_the_end(follow_the_page(title, tmp_path, runner))


@pytest.mark.languages
@pytest.mark.timeout(BUILD_TIMEOUT_S)
@pytest.mark.parametrize(("title", "program"), [("Java", "mvn"), ("Go", "go"), ("TypeScript", "npm")])
def test_the_client_in(title: str, program: str, tmp_path: Path, runner: RunnerProcess) -> None:
    require(shutil.which(program, path=f"{os.environ['PATH']}:/usr/local/go/bin"), program)
    assert_followed_to_the_end(follow_the_page(title, tmp_path, runner))


@pytest.mark.parametrize(("page", "name"), [(CLIENTS, "client.py"), (CALLBACKS, "receiver.py")])
def test_the_pages_show_the_examples(page: str, name: str) -> None:
    """So what a page shows is linted and type-checked as `examples/` is."""
    shown: dict[str, Any] = dict(reversed(FILE.findall(page)))
    assert shown[name] == (ROOT / "examples" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("served", ["both", "ReportProgress", "ReportProgressBatch"])
def test_the_receiver(served: str, tmp_path: Path) -> None:
    """It gets every event once and in order, and the runner is told so; either method alone is enough."""
    [program] = [content for name, content in FILE.findall(CALLBACKS) if name == "receiver.py"]
    address = f"127.0.0.1:{free_port()}"
    if served != "both":
        other = {"ReportProgress": "ReportProgressBatch", "ReportProgressBatch": "ReportProgress"}[served]
        program = re.sub(rf"async def {other}\b", f"async def not_{other}", program)
    (tmp_path / "receiver.py").write_text(program.replace("localhost:50051", address))
    printed = tmp_path / "printed"
    with printed.open("w") as output:
        receiver = subprocess.Popen([sys.executable, "receiver.py"], cwd=tmp_path, stdout=output, stderr=output)
    settings = {"STIGMER_SERVICE_ENDPOINT": address, "STIGMER_SERVICE_USE_TLS": "false", "FASTRUNNER_WORKERS": "1"}
    try:
        with running(tmp_path / "data", SERVE, **settings) as runner:
            runner.wait_ready()
            until(runner.ready)
            follow_the_page("Python", tmp_path, runner)
            until(lambda: "workflow_completed" in printed.read_text())
            until(lambda: 'outcome="acknowledged"} 6' in runner.get("/metrics")[1])
    finally:
        receiver.kill()
        receiver.wait()
    events = [line.split()[1:3] for line in printed.read_text().splitlines() if line.startswith("from-python ")]
    assert [int(number) for number, _ in events] == [1, 2, 3, 4, 5, 6]
    assert [kind for _, kind in events][-1] == "workflow_completed"
