"""Support: documents with one `run`, and performers that run real processes."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import CollectorRegistry

from fastrunner.config import load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import EffectPerformer
from fastrunner.tasks import build_performers
from tests.driver import Execution, run

__all__ = ["Performers", "document", "running", "shell"]

Performers = Mapping[str, EffectPerformer]


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Performers]:
    """The performers of a worker, closed at the end."""
    built = build_performers(load_config(**settings), Metrics(CollectorRegistry()))
    try:
        yield built
    finally:
        for performer in built.values():
            await performer.close()


def document(process: Any, **task: Any) -> str:
    """One task `x` that runs something, or nothing; `task` is what it has beside `run`."""
    header = {"dsl": "1.0.3", "namespace": "a", "name": "b", "version": "1.0.0"}
    running = {} if process is None else {"run": process}
    return json.dumps({"document": header, "do": [{"x": {**running, **task}}]})


async def shell(performers: Performers, command: str, form: str = "stdout", **fields: Any) -> Execution:
    """Runs a workflow that runs a command, with the input `{"a": "q"}`."""
    process = {"return": form, "shell": {"command": command, **fields}}
    return await run(document(process), {"a": "q"}, performers)
