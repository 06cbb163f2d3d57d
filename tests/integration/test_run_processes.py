"""Processes of runs as machines have them that let the runner make no namespaces, and as this one has them: killed
whole, however they end."""

import asyncio
import os
import signal
import sys
import uuid
from pathlib import Path

import pytest

from fastrunner.tasks.run.cgroups import Cgroups
from fastrunner.tasks.run.isolation import Isolation
from fastrunner.tasks.run.process import Command, Process
from tests.integration.runner_process import ROOT
from tests.integration.test_run_runner import marked, until

HIDDEN = 'setsid sh -c \'setsid sh -c "trap \\"\\" TERM; sleep 3600; true $0" {mark} & exit 0\' & '
"""Leaves a process in another session, whose parents have ended."""
WORKER = """\
import asyncio, pathlib, sys
from fastrunner.tasks.run.process import Command, Process

async def main():
    namespaces = [name for name in sys.argv[3].split(",") if name]
    Process(Command([b"/bin/sh", b"-c", sys.argv[1].encode()], {}, pathlib.Path(sys.argv[2]), namespaces=namespaces))
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def mark() -> str:
    return f"mark-{uuid.uuid4().hex}"


@pytest.fixture(params=["without namespaces", "as it is here"])
async def namespaces(request: pytest.FixtureRequest) -> tuple[str, ...]:
    if request.param == "without namespaces":
        return ()
    isolation = Isolation(memory_size_bytes_max=1 << 29, processes_max=64, has_network=False)
    await isolation.find_out()
    return tuple(isolation.namespaces)


def shell(text: str, folder: Path, namespaces: tuple[str, ...], **fields: object) -> Command:
    path = {b"PATH": os.environ["PATH"].encode()}
    return Command([b"/bin/sh", b"-c", text.encode()], path, folder, namespaces=namespaces, **fields)  # type: ignore[arg-type]


async def test_what_it_leaves_behind_is_killed(namespaces: tuple[str, ...], mark: str, tmp_path: Path) -> None:
    text = (
        HIDDEN.format(mark=mark) + f"touch {tmp_path}/up; while [ ! -e {tmp_path}/gate ]; do sleep 0.05; done; exit 3"
    )
    process = Process(shell(text, tmp_path, namespaces))
    await until(lambda: (tmp_path / "up").exists() and marked(mark), "it runs")
    (tmp_path / "gate").touch()
    assert (await process.ended()).code == 3
    await until(lambda: not marked(mark), "nothing is left")


async def test_stopping_kills_all_of_it(namespaces: tuple[str, ...], mark: str, tmp_path: Path) -> None:
    text = "trap '' TERM; " + HIDDEN.format(mark=mark) + f"touch {tmp_path}/up; while :; do sleep 1; done"
    process = Process(shell(text, tmp_path, namespaces))
    await until(lambda: (tmp_path / "up").exists() and marked(mark), "it runs")
    await process.stop()
    assert (await process.ended()).code == 128 + signal.SIGKILL
    await until(lambda: not marked(mark), "nothing is left")


async def test_it_may_end_by_itself_when_it_is_asked_to(namespaces: tuple[str, ...], tmp_path: Path) -> None:
    text = f"trap 'echo asked; exit 4' TERM; touch {tmp_path}/up; while :; do sleep 0.05; done"
    process = Process(shell(text, tmp_path, namespaces))
    await until((tmp_path / "up").exists, "it runs")
    await process.stop()
    ended = await process.ended()
    assert (ended.code, ended.stdout) == (4, b"asked\n")


async def test_the_death_of_its_worker_is_its_own(namespaces: tuple[str, ...], mark: str, tmp_path: Path) -> None:
    text = HIDDEN.format(mark=mark) + f"touch {tmp_path}/up; while :; do sleep 1; done"
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WORKER, text, str(tmp_path), ",".join(namespaces)),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        await until(lambda: (tmp_path / "up").exists() and len(marked(mark)) > 1, "it runs")
    finally:
        worker.kill()
        await worker.wait()
    await until(lambda: not marked(mark), "nothing is left")


async def test_limits_of_a_single_process(namespaces: tuple[str, ...], tmp_path: Path) -> None:
    """Those that stand in where there are no control groups."""
    text = f"{sys.executable} -c 'x = bytes(1 << 28)'"
    process = Process(shell(text, tmp_path, namespaces, limits=[("RLIMIT_DATA", 1 << 27)]))
    ended = await process.ended()
    assert ended.code != 0
    assert b"MemoryError" in ended.stderr


async def test_groups_that_cannot_be_joined_are_done_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As where a part of the tree may be written, but not the part that the runner is in."""
    monkeypatch.setattr("fastrunner.tasks.run.cgroups._parents", lambda: (tmp_path,))
    isolation = Isolation(memory_size_bytes_max=1 << 29, processes_max=64, has_network=False)
    await isolation.find_out()
    assert isolation.cgroup() is None
    assert "RLIMIT_DATA" in dict(isolation.limits)
    assert os.listdir(tmp_path) == []


def test_groups_that_were_left_behind_are_in_nobodys_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A container that is started anew has processes of the same numbers."""
    monkeypatch.setattr("fastrunner.tasks.run.cgroups._parents", lambda: (tmp_path,))
    (tmp_path / f"fastrunner-run-{os.getpid()}-1").mkdir()
    (tmp_path / "fastrunner-run-4194305-1").mkdir()
    cgroups = Cgroups(1 << 29, 64)
    assert [folder.name for folder in cgroups.make().folders] == [f"fastrunner-run-{os.getpid()}-2"]
    assert not (tmp_path / "fastrunner-run-4194305-1").exists()
