"""Bounds of a worker's end, to the virtual millisecond: which part gets how much of the time there is."""

import asyncio
from typing import Any

import pytest

from fastrunner.base import clock, limits
from fastrunner.processes.worker import Worker
from tests.simulation.pace import live
from tests.simulation.virtual import VirtualTime

_AT_ONCE = {"looks", "memory", "registry", "troubles"}
"""Parts whose end takes no time."""


class Part:
    """Takes all the time it is given, and notes when it was told what."""

    def __init__(self, name: str, told: dict[str, tuple[float, float]]) -> None:
        self._name = name
        self._told = told

    def __getattr__(self, method: str) -> Any:
        async def take(timeout_s: float = 0.0) -> None:
            self._told[f"{self._name}.{method}"] = (asyncio.get_running_loop().time(), timeout_s)
            await asyncio.sleep(timeout_s)

        def note() -> None:
            self._told[f"{self._name}.{method}"] = (asyncio.get_running_loop().time(), 0.0)

        is_at_once = method == "stop_waiting" or (self._name, method) == ("schedules", "close")
        return note if is_at_once or self._name in _AT_ONCE else take


class Wakes:
    """Nobody wakes the worker any more."""

    def fileno(self, _: int) -> int:
        return 0


@pytest.mark.parametrize("timeout_s", [30.0, 3.0])
def test_parts_of_the_drain_timeout(timeout_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    time = VirtualTime()
    monkeypatch.setattr(clock, "time", time)
    told: dict[str, tuple[float, float]] = {}

    async def main() -> None:
        worker = Worker.__new__(Worker)
        parts = ("server", "engine", "callbacks", "lifecycle", "tracer", "reports", "sinks", "bus", "schedules")
        for name in (*parts, "router", "credentials", *_AT_ONCE):
            setattr(worker, f"_{name}", Part(name, told))
        worker._wakes, worker._index = Wakes(), 0  # type: ignore[assignment]
        # The loop of virtual time looks at no files.
        monkeypatch.setattr(asyncio.get_running_loop(), "remove_reader", lambda _: True, raising=False)
        await worker.drain(timeout_s)

    live(time, main())
    began_s = told["server.stop"][0]
    assert told["router.stop_waiting"][0] - began_s == pytest.approx(limits.DRAIN_WAITING_S_MAX, abs=0.01)
    calls_s = min(timeout_s, limits.DRAIN_CALLS_S_MAX)
    assert told["server.stop"][1] == calls_s
    left_s = timeout_s - calls_s
    callbacks_s = min(limits.DRAIN_CALLBACKS_S_MAX, left_s / 2)
    assert told["engine.quiesce"][1] == pytest.approx(left_s - callbacks_s, abs=0.01)
    assert told["callbacks.drain"][1] == pytest.approx(callbacks_s, abs=0.01)
    # Its shards must still be open.
    assert [*told].index("lifecycle.close") < [*told].index("tracer.close") < [*told].index("engine.drain")
    assert told["engine.drain"][1] == pytest.approx(0.0, abs=0.01)
    assert told["router.close"][1] == limits.DRAIN_CALLS_S_MAX
