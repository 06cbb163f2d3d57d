"""Bounds of runs: what a process may write, how many there are at once, what of its errors is shown."""

import asyncio
import json
from pathlib import Path

import pytest

from fastrunner.base import clock, limits
from fastrunner.base.redaction import hide
from tests.driver import run
from tests.integration.engines import until
from tests.integration.runs import document, running, shell


async def detail_of(command: str) -> str:
    async with running() as performers:
        error = (await shell(performers, command)).error
    assert error is not None
    return str(error["detail"])


def stderr_in(detail: str) -> str:
    return str(json.loads(detail.partition("stderr ends with ")[2]))


async def test_output_up_to_its_bound() -> None:
    size_bytes = limits.RUN_OUTPUT_SIZE_BYTES_MAX
    async with running() as performers:
        within = await shell(performers, f"head -c {size_bytes} /dev/zero | tr '\\0' a")
        assert len(within.output) == size_bytes
        for stream in ("1", "2"):
            beyond = await shell(performers, f"head -c {size_bytes + 1} /dev/zero >&{stream}", "all")
            assert beyond.error is not None
            assert beyond.error["title"] == "Output Too Large"


async def test_the_end_of_stderr_is_shown() -> None:
    shown = stderr_in(await detail_of("{ echo beginning; head -c 99999 /dev/zero | tr '\\0' a; } >&2; exit 1"))
    assert shown == "a" * limits.RUN_STDERR_SHOWN_SIZE_CHARS_MAX


async def test_no_part_of_a_secret_is_shown() -> None:
    """Not of one that is longer than what is shown, either."""
    secret = "se" * limits.RUN_STDERR_SHOWN_SIZE_CHARS_MAX + "cret"
    hide(secret)
    assert stderr_in(await detail_of(f"echo {secret}. >&2; exit 1")) == "***."


async def test_descriptors_of_a_process() -> None:
    async with running() as performers:
        assert (await shell(performers, "ulimit -n")).output == f"{limits.RUN_DESCRIPTORS_MAX}\n"


async def test_processes_at_once(tmp_path: Path) -> None:
    """Others wait, and have their turn."""
    count = limits.RUN_PROCESSES_PER_WORKER_MAX
    command = (
        f"cd {tmp_path}; mktemp here.XXXXXXXX >/dev/null; ls | grep -c here; "
        "while [ ! -e gate ]; do sleep 0.05; done; rm -f $(ls | grep here | head -n 1)"
    )
    async with running() as performers:
        executions = [asyncio.create_task(shell(performers, command)) for _ in range(count + 2)]
        await until(lambda: len(list(tmp_path.glob("here.*"))) == count, "all places are taken")
        (tmp_path / "gate").touch()
        seen = [int((await execution).output) for execution in executions]
    assert max(seen) == count


async def test_a_stopping_worker_waits_so_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(limits, "RUN_CLOSE_S_MAX", 0.1)
    monkeypatch.setattr(limits, "RUN_GRACE_S", 600.0)
    command = (
        f"trap '' TERM; touch {tmp_path}/up; while [ ! -e {tmp_path}/gate ]; do sleep 0.05; done; rm {tmp_path}/up"
    )
    async with running() as performers:
        execution = asyncio.create_task(run(document({"shell": {"command": command}}), None, performers))
        await until((tmp_path / "up").exists, "the process runs")
        execution.cancel()
        await asyncio.gather(execution, return_exceptions=True)
        began_s = clock.monotonic_s()
        await performers["run_shell"].close()
        assert clock.monotonic_s() - began_s < 60
        assert (tmp_path / "up").exists()
        (tmp_path / "gate").touch()
        await until(lambda: not (tmp_path / "up").exists(), "the process has ended by itself")
        monkeypatch.setattr(limits, "RUN_CLOSE_S_MAX", 60.0)
