"""Parents and children between two commits of a slow disk: what a parent does reaches the children it waits for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fastrunner.base import clock
from fastrunner.engine import DefinitionRef
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.errors import StorageFailed
from fastrunner.registry.file import RegistryFile
from tests.integration.engines import WAIT, document, folder, submission, until_status
from tests.simulation.pace import Disk, engine_at, live
from tests.simulation.test_engine_pace import is_live, until
from tests.simulation.virtual import VirtualTime

HOUR = WAIT.replace("milliseconds: 200", "hours: 1")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    virtual = VirtualTime()
    monkeypatch.setattr(clock, "time", virtual)
    return Disk(virtual)


@asynccontextmanager
async def paused_early(disk: Disk, awaits: str) -> AsyncIterator[EmbeddedEngine]:
    """An engine with an execution `p` that was paused while the first commit of its child `p~1` was under way."""
    path = folder()
    registry = RegistryFile(path)
    registry.register(DefinitionRef("tests", "test", "1.0.0"), HOUR, 1)
    of = "{namespace: tests, name: test, version: latest}"
    text = document(f"  - sub:\n      run: {{workflow: {of}, await: {awaits}}}\n", "parent")
    async with engine_at(disk, path, definitions=registry) as engine:
        await engine.submit(submission("p", text))
        disk.commit_s = 1.0
        await until(lambda: is_live(engine, "p~1"))
        await engine.pause("p", "")
        yield engine
    registry.close()


@pytest.mark.parametrize("ends", ["completed", "cancelled"])
def test_a_pause_does_not_reach_who_is_not_awaited(disk: Disk, ends: str) -> None:
    """Also before its acceptance is heard of: nobody would ever resume it."""

    async def main() -> None:
        async with paused_early(disk, "false") as engine:
            await until_status(engine, "p~1", "running", "paused")
            if ends == "completed":
                await engine.resume("p", "")
            else:
                await engine.cancel("p", "", True)
            await until_status(engine, "p", ends)
            assert (await engine.get("p~1")).status == "running"

    live(disk.clock, main())


def test_a_pause_reaches_who_is_being_accepted(disk: Disk) -> None:
    async def main() -> None:
        async with paused_early(disk, "true") as engine:
            await until_status(engine, "p~1", "paused")
            await engine.resume("p", "")
            await until_status(engine, "p~1", "running")

    live(disk.clock, main())


def test_a_pause_reaches_a_child_that_cannot_be_read_at_once(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows the parent's commit is not cut off by it: all who wait are told."""

    async def main() -> None:
        path = folder()
        registry = RegistryFile(path)
        registry.register(DefinitionRef("tests", "test", "1.0.0"), HOUR, 1)
        text = document("  - sub:\n      run: {workflow: {namespace: tests, name: test, version: latest}}\n", "parent")
        told: list[str] = []
        async with engine_at(
            disk, path, definitions=registry, parked_resident_max=0, listener=lambda row: told.append(row.execution_id)
        ) as engine:
            await engine.submit(submission("p", text))
            await until_status(engine, "p~1", "running")
            await until(lambda: not is_live(engine, "p~1"))
            store, troubles = engine._shards.by_number[0].store, [StorageFailed("cannot be read")]
            acceptance = store.acceptance

            def fails_once(execution_id: str) -> Any:
                if execution_id == "p~1" and troubles:
                    raise troubles.pop()
                return acceptance(execution_id)

            monkeypatch.setattr(store, "acceptance", fails_once)
            told.clear()
            await engine.pause("p", "")
            await until(lambda: "p" in told)
            assert not troubles
            await until_status(engine, "p~1", "paused")
        registry.close()

    live(disk.clock, main())
