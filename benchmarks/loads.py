"""Support: gRPC load on a target, closed (so many calls in flight) or open (so many calls per second, whatever comes).

Rules: the client is `benchmarks.h2` in a process of its own, which costs a fraction of what it loads and gives every
execution an id of its own; both sides of a comparison get the same one. In an open load a call's latency counts from
when it was due.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.h2 import Load, Result
from benchmarks.servers import ROOT
from benchmarks.workflows import set_tasks
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowExecuteInput

__all__ = ["BATCH", "CALL", "STREAM", "Figures", "Message", "body", "closed", "execution", "open_load"]

_SERVICE = "/ai.stigmer.workflow.runner.v1.WorkflowRunnerCommandController"
CALL = f"{_SERVICE}/ExecuteAsync"
BATCH = f"{_SERVICE}/ExecuteAsyncBatch"
STREAM = f"{_SERVICE}/Execute"


@dataclass(frozen=True, slots=True)
class Message:
    """What every call sends, but for the ids."""

    tail: bytes
    """An execution without its id, serialized."""
    prefix: str
    """Of the ids: at most ten characters."""
    batch: int = 0
    """Executions in a call of ExecuteAsyncBatch; 0: the message is the execution."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a load saw."""

    rate_per_s: float
    """Calls answered with OK per second."""
    count: int
    """Calls answered with OK."""
    errors_count: int
    """Calls answered otherwise, or not at all."""
    latency_ms: dict[str, float]
    """Of calls answered with OK: `mean`, `p50`, `p95`, `p99`, `p99.9`."""
    late_ms: float
    """The most that a call of an open load was sent after it was due."""


def body(prefix: str, tasks: int, batch: int = 0) -> Message:
    """Executions of so many `set` tasks."""
    return execution(prefix, set_tasks(tasks), batch)


def execution(prefix: str, document: str, batch: int = 0) -> Message:
    """Executions of a document."""
    request = WorkflowExecuteInput(workflow_yaml=document, input_json='{"counter": 1}')
    return Message(request.SerializeToString(), prefix, batch)


def closed(
    target: str, call: str, message: Message, *, count: int, in_flight: int, cores: Sequence[int], connections: int = 16
) -> Figures:
    """So many calls in flight until `count` have been made."""
    return _run(target, call, message, cores, count=count, in_flight=in_flight, connections=min(connections, in_flight))


def open_load(
    target: str, call: str, message: Message, *, rate_per_s: float, seconds: float, cores: Sequence[int]
) -> Figures:
    """So many calls per second at seeded random times, which wait for no answers."""
    return _run(target, call, message, cores, rate_per_s=rate_per_s, span_s=seconds, connections=8)


def _run(target: str, call: str, message: Message, cores: Sequence[int], **options: Any) -> Figures:
    load = Load(
        port=int(target.rpartition(":")[2]),
        path=call,
        tail=message.tail.hex(),
        prefix=message.prefix,
        batch=message.batch,
        cores=list(cores),
        **options,
    )
    command = [sys.executable, "-m", "benchmarks.h2", json.dumps(asdict(load))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"the load failed: {done.stderr}")
    result = Result(**json.loads(done.stdout))
    return Figures(
        rate_per_s=result.per_s,
        count=result.calls,
        errors_count=result.errors + result.dropped,
        latency_ms={"mean": result.mean_ms, **result.quantiles_ms},
        late_ms=result.late_ms,
    )
