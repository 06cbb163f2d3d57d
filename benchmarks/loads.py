"""Support: gRPC load on a target, closed (so many calls in flight) or open (so many calls per second, whatever comes).

Rules: the client is ghz, which is compiled and cheaper than what it loads; both sides of a comparison get the same one.
In an open load a call's latency counts from when it was due.
"""

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.servers import ROOT, pinned
from benchmarks.workflows import set_tasks

__all__ = ["BATCH", "CALL", "STREAM", "Figures", "batch_body", "body", "closed", "is_available", "open_load", "version"]

_SERVICE = "ai.stigmer.workflow.runner.v1.WorkflowRunnerCommandController"
CALL = f"{_SERVICE}.ExecuteAsync"
BATCH = f"{_SERVICE}.ExecuteAsyncBatch"
STREAM = f"{_SERVICE}.Execute"
_PROTOSET = ROOT / "src" / "fastrunner" / "_pb" / "descriptors.binpb"
_SHARES = (0.5, 0.95, 0.99, 0.999)


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


def is_available() -> bool:
    """Whether the client is installed."""
    return shutil.which("ghz") is not None


def version() -> str:
    """What the client says it is."""
    text = subprocess.run(["ghz", "--version"], capture_output=True, text=True, check=True)
    return f"ghz {(text.stdout or text.stderr).strip()}"


def body(prefix: str, tasks: int) -> str:
    """An execution of so many `set` tasks; each call gets an id of its own."""
    return json.dumps(_execution(f"{prefix}-{{{{.RequestNumber}}}}", tasks))


def batch_body(prefix: str, tasks: int, count: int) -> str:
    """A batch of so many."""
    ids = [f"{prefix}-{{{{.RequestNumber}}}}-{number}" for number in range(count)]
    return json.dumps({"executions": [_execution(execution_id, tasks) for execution_id in ids]})


def _execution(execution_id: str, tasks: int) -> dict[str, Any]:
    return {
        "workflow_execution_id": execution_id,
        "workflow_yaml": set_tasks(tasks),
        "input_json": '{"counter": 1}',
    }


def closed(
    target: str, call: str, message: str, *, count: int, in_flight: int, cores: Sequence[int], connections: int = 16
) -> Figures:
    """So many calls in flight until `count` have been made."""
    return _run(target, call, message, ["-n", str(count), "-c", str(in_flight)], cores, min(connections, in_flight))


def open_load(
    target: str, call: str, message: str, *, rate_per_s: float, seconds: float, cores: Sequence[int]
) -> Figures:
    """So many calls per second, which wait for no answers."""
    count = max(1, round(rate_per_s * seconds))
    arguments = ["--async", "--rps", str(round(rate_per_s)), "-n", str(count), "-c", "8"]
    return _run(target, call, message, arguments, cores, 8)


def _run(
    target: str, call: str, message: str, arguments: Sequence[str], cores: Sequence[int], connections: int
) -> Figures:
    command = [
        *pinned(*cores),
        "ghz",
        "--insecure",
        "--protoset",
        str(_PROTOSET),
        "--call",
        call,
        "--data-file=/dev/stdin",
    ]
    command += ["--connections", str(connections), "-t", "60s", "-O", "json", *arguments, target]
    done = subprocess.run(command, input=message, capture_output=True, text=True, check=False, cwd=Path("/"))
    if done.returncode or not done.stdout.startswith("{"):
        raise RuntimeError(f"ghz failed: {done.stderr or done.stdout}")
    return _figures(json.loads(done.stdout))


def _figures(report: dict[str, Any]) -> Figures:
    details = report["details"]
    latencies = sorted(each["latency"] / 1e6 for each in details if each["status"] == "OK")
    latency_ms = {"mean": sum(latencies) / max(1, len(latencies))}
    for share in _SHARES:
        latency_ms[f"p{share * 100:g}"] = latencies[int(share * (len(latencies) - 1))] if latencies else 0.0
    seconds = report["total"] / 1e9
    return Figures(len(latencies) / seconds, len(latencies), len(details) - len(latencies), latency_ms)
