"""Support: runs executions on the embedded engine over a data directory of its own."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import CollectorRegistry

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.config import load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import EffectPerformer, Engine, SecretSource, Submission
from fastrunner.engine.embedded.engine import EmbeddedEngine
from tests.driver import Execution

__all__ = ["execute", "open_engine"]

_DRAIN_TIMEOUT_S = 5.0


@asynccontextmanager
async def open_engine(
    performers: Mapping[str, EffectPerformer],
    data_dir: Path,
    metrics: Metrics | None = None,
    secrets: SecretSource | None = None,
) -> AsyncIterator[Engine]:
    """An engine that owns the one shard of `data_dir`. It closes the performers when it has drained."""
    metrics = metrics or Metrics(CollectorRegistry())
    config = load_config(data_dir=data_dir)
    engine = EmbeddedEngine(config, metrics, performers, secrets=secrets)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.drain(_DRAIN_TIMEOUT_S)


async def execute(engine: Engine, document: str, input_: Any, execution_id: str = "test-execution") -> Execution:
    """Submits a document and follows its events to its end."""
    await engine.submit(
        Submission(
            execution_id=execution_id,
            document=document,
            input_json=orjson.dumps(input_),
            input_value=input_,
            env_vars={},
            metadata=b"",
            timeout_s_max=0,
            debug=False,
        )
    )
    events = [WorkflowProgressEvent.FromString(message) async for message in engine.subscribe(execution_id, 1)]
    view = await engine.get(execution_id)
    output = orjson.loads(view.output_json) if view.output_json else None
    return Execution(view.status, output, view.error, events)
