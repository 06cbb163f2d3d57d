"""`make demo`: it starts the whole picture, all ends well, the console is there, and Ctrl-C ends everything."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.integration.runner_process import ROOT
from tests.mongodb import is_there
from tests.outside import require, require_tool

EXAMPLES = {"sqlite": ("order", "routing", "approval_wait"), "mongo": ("order", "routing")}
"""One that calls again after errors, one that is over at once, one that is paused and resumed."""


@contextmanager
def demo(folder: Path, store: str) -> Iterator[subprocess.Popen[str]]:
    """As on a terminal: a group of processes, which Ctrl-C reaches all at once."""
    command = [sys.executable, "-m", "examples.demo", "--store", store, "--scale", "0.01", "--plain", "--stay"]
    command += [word for name in EXAMPLES[store] for word in ("--only", name)]
    environment = {**os.environ, "TMPDIR": str(folder), "COLUMNS": "200"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)


def said(process: subprocess.Popen[str], until: str) -> list[str]:
    """Its lines up to one with these words."""
    lines: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if until in line:
            return lines
    raise AssertionError(f"it ended without {until!r}: {''.join(lines)}")


def children_of(folder: Path) -> list[str]:
    """Processes that the demo has started, and those that they have: they know its folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                environment = (entry / "environ").read_bytes()
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if f"TMPDIR={folder}".encode() in environment.split(b"\0") and command:
                found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


@pytest.mark.parametrize("store", ["sqlite", "mongo"])
async def test_the_demo_is_right_stays_and_ends(tmp_path: Path, store: str) -> None:
    if store == "mongo":
        require(is_there(), "the stand-in for MongoDB")
        require_tool("redis-server")
    with demo(tmp_path, store) as process:
        lines = said(process, "all is right")
        words = f"the service's store: {len(EXAMPLES[store])} executions (0 not ended)"
        assert any(words in line and "0 findings" in line for line in lines), lines
        [places] = [line for line in lines if "the console is at" in line]
        consoles = re.findall(r"http://127\.0\.0\.1:\d+", places)
        assert len(consoles) == (2 if store == "mongo" else 1)
        async with aiohttp.ClientSession() as session:
            for console in consoles:
                async with session.get(f"{console}/", headers={"Accept": "text/html"}) as page:
                    assert (page.status, page.content_type) == (200, "text/html")
                async with session.get(f"{console}/api/v1/executions") as listed:
                    found = {each["id"]: each["status"] for each in (await listed.json())["executions"]}
                assert found == {f"{name}-0": "completed" for name in EXAMPLES[store]}
        assert len(children_of(tmp_path)) > 3
        os.killpg(process.pid, signal.SIGINT)
        rest, _ = process.communicate(timeout=120)
        assert process.returncode == 0, rest
        assert "everything the demo started is stopped" in rest
    assert children_of(tmp_path) == []
    assert os.listdir(tmp_path) == []
