"""Support: a worker's engine in a process that a test kills.

    python -m tests.crash.engine_child DATA_DIR PREFIX COUNT [DOCUMENT CRASH_POINT]

Accepts COUNT executions named PREFIX-0 and on, besides whatever it recovers, pauses every tenth and cancels every
eleventh. They are of one of DOCUMENTS, and it dies at CRASH_POINT, if these are given. Prints one line per promise it
gave (`accepted ID`, `paused ID`, `cancelled ID`) and appends the key of every effect it finished to DATA_DIR/effects.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastrunner._core import EffectFailure, EffectResult, PerformEffect
from fastrunner.base import crash
from tests.integration.calls import CAUGHT, FAN_OUT, ORDER_JSON, UNRENDERABLE
from tests.integration.engines import document, engine_on, submission

_SHARDS = 2

STEPS = document(
    "".join(
        f"  - ask{number}:\n      call: http\n      with: {{method: get, endpoint: 'http://127.0.0.1:1/x'}}\n"
        f"  - keep{number}:\n      set: {{kept: {number}}}\n"
        for number in range(10)
    )
)
"""Twenty tasks, ten of them effects."""

DOCUMENTS = {"steps": (STEPS, b"{}"), "unrenderable": (UNRENDERABLE, b"{}"), "caught": (CAUGHT, b"{}"),
             "fan-out": (FAN_OUT, ORDER_JSON)}  # fmt: skip
"""By name: text and input."""


class Recorder:
    """Performs effects by writing their keys down."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path / "effects", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def perform(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        await asyncio.sleep(0.001)
        os.write(self._file, f"{effect.idempotency_key}\n".encode())
        return EffectResult(effect.effect_id, {"answer": 42})

    async def close(self) -> None:
        os.close(self._file)


async def _promise(text: str) -> None:
    os.write(sys.stdout.fileno(), f"{text}\n".encode())


async def main(path: Path, prefix: str, count: int, name: str = "steps", crash_point: str = "") -> None:
    """Gives promises until it is killed."""
    text, input_json = DOCUMENTS[name]
    if crash_point:
        crash.arm(crash_point, 0)

    async def one(number: int) -> None:
        execution_id = f"{prefix}-{number}"
        await engine.submit(submission(execution_id, text, input_json=input_json))
        await _promise(f"accepted {execution_id}")
        if number % 10 == 0:
            await engine.pause(execution_id, "")
            await _promise(f"paused {execution_id}")
        elif number % 11 == 0:
            await engine.cancel(execution_id, "", True)
            await _promise(f"cancelled {execution_id}")

    async with engine_on(path, Recorder(path), shards=_SHARDS) as engine:
        await _promise("started")
        await asyncio.gather(*(one(number) for number in range(count)))
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), *sys.argv[4:]))
