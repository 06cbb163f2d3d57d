"""The copy elsewhere of a real runner: its machine is lost under load, its store is away, its processes are killed."""

import asyncio
import json
import os
import shutil
import signal
import time
from datetime import datetime
from pathlib import Path

import grpc

from fastrunner.access.sealing import add_key
from tests.integration.commands import fastrunner
from tests.integration.engines import SET
from tests.integration.runner_process import RunnerProcess, children, running, until
from tests.integration.test_cli_backup import WAITING, known
from tests.integration.test_cli_doctor import doctor
from tests.integration.test_placement_runner import Connection, connections, ready

LAG = "workflow_runner_replica_lag_bytes"
PARTS = "workflow_runner_replica_parts_total"
SECRET = "nobody-must-read-this"
QUICK = (
    "-c",
    "import runpy\nfrom fastrunner.base import limits\nlimits.REPLICA_INTERVAL_S = 0.2\n"
    "runpy.run_module('fastrunner', run_name='__main__')",
    "serve",
)
"""A runner that sends more often."""


class Ledger:
    """What was acknowledged, and when that was known."""

    def __init__(self) -> None:
        self.acknowledged_ms: dict[str, float] = {}
        self.is_over = False

    async def load(self, connection: Connection, prefix: str) -> None:
        """Submits one after the other, until the runner is gone."""
        number = 0
        while not self.is_over:
            execution_id = f"{prefix}-{number}"
            text = WAITING if number % 3 == 0 else SET
            try:
                await connection.execute(execution_id, text, input_json=json.dumps({"secret": SECRET}))
            except grpc.aio.AioRpcError:
                # Its worker was killed: it may be there or not.
                await asyncio.sleep(0.02)
            else:
                self.acknowledged_ms[execution_id] = time.time() * 1000
            number += 1


def copying_process(runner: RunnerProcess) -> int:
    """The process that sends: the youngest one, if none has been replaced."""
    return max(children(runner.process.pid))


async def test_a_machine_that_is_lost_loses_what_lies_within_the_lag(tmp_path: Path) -> None:
    """The process that sends is killed, a worker is, then the whole tree, and its files go; all values are sealed."""
    folder, copy, target = tmp_path / "data", tmp_path / "copy", tmp_path / "elsewhere"
    add_key(tmp_path / "key", "one")
    variables = {"FASTRUNNER_REPLICA_URL": copy.as_uri(), "FASTRUNNER_DATA_KEY_FILE": str(tmp_path / "key")}
    ledger = Ledger()
    with running(folder, QUICK, **variables) as runner:
        ready(runner)
        async with connections(runner, 2) as opened:
            loads = [asyncio.create_task(ledger.load(each, str(at))) for at, each in enumerate(opened)]

            async def sent(parts: int) -> None:
                wanted = runner.metric(PARTS) + parts
                await asyncio.to_thread(until, lambda: runner.metric(PARTS) >= wanted, 60)

            await sent(1)
            os.kill(copying_process(runner), signal.SIGKILL)
            await sent(2)
            os.kill(runner.workers()[0]["pid"], signal.SIGKILL)
            await sent(2)
            os.killpg(runner.process.pid, signal.SIGKILL)
            shutil.rmtree(folder, ignore_errors=True)
            ledger.is_over = True
            await asyncio.gather(*loads)
        runner.end()
    shutil.rmtree(folder, ignore_errors=True)
    made = fastrunner("data", "restore", "--from", copy.as_uri(), str(target), "--json")
    assert (made.returncode, made.stderr) == (0, "")
    until_ms = 1000 * datetime.fromisoformat(json.loads(made.stdout)["until"]).timestamp()
    checked = fastrunner("data", "check", "--data-dir", str(target))
    assert checked.returncode == 0, checked.stdout
    with running(target, QUICK, **variables) as runner:
        ready(runner)
        async with connections(runner, 2) as opened:
            lost = [each for each in ledger.acknowledged_ms if not await known(opened[0], each)]
        assert len(lost) < len(ledger.acknowledged_ms)
        assert [each for each in lost if ledger.acknowledged_ms[each] < until_ms] == []
        # The copy goes on from where the runner goes on now, beside what it was made of.
        await asyncio.to_thread(until, lambda: runner.metric(PARTS) and not runner.metric(LAG), 60)
    assert not [path for path in copy.rglob("0*") if path.is_file() and SECRET.encode() in path.read_bytes()]


async def test_a_store_that_is_away_is_told_and_holds_nobody(tmp_path: Path) -> None:
    """The runner is ready and accepts; once the store is there it is caught up with, and a stop sends the rest."""
    folder, copy = tmp_path / "data", tmp_path / "copy"
    copy.write_bytes(b"no folder")
    assert doctor(folder, FASTRUNNER_REPLICA_URL=copy.as_uri())[1]["copy elsewhere"]["state"] == "bad"
    with running(folder, QUICK, FASTRUNNER_WORKERS="1", FASTRUNNER_REPLICA_URL=copy.as_uri()) as runner:
        ready(runner)
        async with connections(runner, 1) as opened:
            for number in range(5):
                await opened[0].execute(f"early-{number}")
            reason = await asyncio.to_thread(until, lambda: runner.readiness()[1], 60)
            assert "nothing is copied elsewhere" in reason
            assert runner.readiness()[0]
            assert runner.metric("workflow_runner_replica_troubles_total") == 1
            copy.unlink()
            await asyncio.to_thread(until, lambda: not runner.metric(LAG) and not runner.readiness()[1], 60)
            finding = doctor(folder, FASTRUNNER_REPLICA_URL=copy.as_uri())[1]["copy elsewhere"]
            assert (finding["state"], "same disk" in finding["text"]) == ("doubtful", True)
            await opened[0].execute("late")
        assert runner.stop()[0] == 0
    assert fastrunner("data", "restore", "--from", copy.as_uri(), str(tmp_path / "restored")).returncode == 0
    exported = fastrunner("data", "export", "--data-dir", str(tmp_path / "restored"))
    assert '"execution_id":"late"' in exported.stdout.replace(" ", "")
