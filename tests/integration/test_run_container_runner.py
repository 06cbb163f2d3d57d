"""Containers on a whole runner: those whose worker is killed, with or without whoever watches over it, run again, and
nothing is left of them."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.containers import IMAGE, Podman, podman_with_image
from tests.integration.runner_process import SERVE, RunnerProcess, children, running
from tests.integration.runs import document
from tests.integration.test_call_http_runner import Client
from tests.integration.test_run_container import process, until


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    with podman_with_image(tmp_path_factory.mktemp("podman")) as podman:
        yield podman


@pytest.fixture
def podman(engine: Podman) -> Iterator[Podman]:
    yield engine
    engine.remove_all()


def settings(podman: Podman, tmp_path: Path, **others: str) -> dict[str, str]:
    (tmp_path / "v").mkdir(exist_ok=True)
    return {
        "FASTRUNNER_WORKERS": "1",
        "FASTRUNNER_RUN_ALLOWED": f"container:{IMAGE}",
        "FASTRUNNER_RUN_VOLUMES": str(tmp_path / "v"),
        **podman.variables,
        **others,
    }


def text(tmp_path: Path, cleanup: str = "always", *, awaited: bool = True) -> str:
    """A container that says which effect it is, and ends when it may."""
    command = "echo $FASTRUNNER_IDEMPOTENCY_KEY >> /v/keys; while [ ! -e /v/gate ]; do sleep 0.1; done; echo done"
    volumes = {str(tmp_path / "v"): "/v"}
    return document({**process(command, volumes=volumes, lifetime={"cleanup": cleanup}), "await": awaited})


def keys(tmp_path: Path) -> list[str]:
    file = tmp_path / "v" / "keys"
    return file.read_text().split() if file.exists() else []


@pytest.mark.parametrize("kills_launcher", [False, True])
async def test_a_killed_worker(podman: Podman, tmp_path: Path, kills_launcher: bool) -> None:
    """Its container is removed, and its successor runs another, with the same key."""
    with running(tmp_path / "data", SERVE, **settings(podman, tmp_path)) as runner:
        client = Client(runner.wait_ready())
        await client.execute("one", text(tmp_path))
        await until(lambda: len(keys(tmp_path)) == 1, "it runs")
        [name] = podman.running()
        first = podman.look(name)["Id"]
        kill_worker(runner, kills_launcher)
        await until(lambda: len(keys(tmp_path)) == 2, "it runs again")
        assert podman.names() == [name]
        assert podman.look(name)["Id"] != first
        (tmp_path / "v" / "gate").touch()
        await until(runner.ready, "the worker is replaced")
        ended = await client.end("one")
        assert (ended.status, ended.output_json) == ("completed", '"done\\n"')
        assert keys(tmp_path) == ["one/do/0/x/1/1"] * 2
        await until(lambda: not podman.names(), "nothing is left")
        await client.close()


def kill_worker(runner: RunnerProcess, kills_launcher: bool) -> None:
    """With whoever would remove its containers, if so."""
    [worker] = runner.workers()
    pid = worker["pid"]
    # It starts and ends nothing more while its children are looked at.
    os.kill(pid, signal.SIGSTOP)
    launchers = [each for each in children(pid) if "launcher.py" in Path(f"/proc/{each}/cmdline").read_text()]
    assert launchers
    if kills_launcher:
        for each in launchers:
            os.kill(each, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)


async def test_a_crash_between_a_container_and_its_outcome(podman: Podman, tmp_path: Path) -> None:
    """The container that had ended makes way, although the document keeps containers."""
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "gate").touch()
    given = settings(podman, tmp_path, FASTRUNNER_CRASH_POINT="before-outcome-commit")
    with running(tmp_path / "data", SERVE, **given) as runner:
        client = Client(runner.wait_ready())
        await client.execute("one", text(tmp_path, "never"))
        await until(lambda: len(keys(tmp_path)) == 2, "it runs again")
        await client.close()
    assert set(keys(tmp_path)) == {"one/do/0/x/1/1"}
    with running(tmp_path / "data", SERVE, **settings(podman, tmp_path)) as runner:
        client = Client(runner.wait_ready())
        assert (await client.end("one")).status == "completed"
        assert len(podman.names()) == 1
        await client.close()


async def test_a_cancelled_execution(podman: Podman, tmp_path: Path) -> None:
    with running(tmp_path / "data", SERVE, **settings(podman, tmp_path)) as runner:
        client = Client(runner.wait_ready())
        await client.execute("one", text(tmp_path))
        await until(podman.running, "it runs")
        await client.cancel("one")
        assert (await client.end("one")).status == "cancelled"
        await until(lambda: not podman.names(), "it is removed")
        await client.close()


async def test_what_nobody_awaits_ends_with_the_runner(podman: Podman, tmp_path: Path) -> None:
    """It outlives its workflow, and no longer."""
    given = settings(podman, tmp_path, FASTRUNNER_DRAIN_TIMEOUT_S="1")
    with running(tmp_path / "data", SERVE, **given) as runner:
        client = Client(runner.wait_ready())
        await client.execute("one", text(tmp_path, awaited=False))
        assert (await client.end("one")).status == "completed"
        await until(lambda: len(keys(tmp_path)) == 1, "it runs")
        assert len(podman.running()) == 1
        await client.close()
        code, _, errors = await asyncio.to_thread(runner.stop)
        assert code == 0, errors
    await until(lambda: not podman.names(), "it is removed")
