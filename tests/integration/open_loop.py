"""Support: a load that does not wait for answers: so many executions per second, whatever becomes of them."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowExecuteInput
from fastrunner.base.clock import monotonic_s
from tests.integration.wire import path

__all__ = ["RETRYING", "Load", "Tally", "channel", "work"]

RETRYING = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)
"""An ordinary client's service config: what gRPC's documentation suggests, for UNAVAILABLE only."""


def work(tasks: int) -> str:
    """A document of so many small tasks."""
    steps = "".join(
        f"- step{number}: {{set: {{value: {number}, text: some words of output}}}}\n" for number in range(tasks)
    )
    return "document: {dsl: 1.0.3, namespace: load, name: work, version: 1.0.0}\ndo:\n" + steps


def channel(target: str, retrying: bool = False) -> Any:
    """A connection of its own."""
    options: list[tuple[str, Any]] = [("grpc.use_local_subchannel_pool", 1)]
    if retrying:
        options += [("grpc.service_config", RETRYING), ("grpc.enable_retries", 1)]
    return grpc.aio.insecure_channel(target, options)


@dataclass
class Tally:
    """What became of the calls."""

    span_s: float = 0.0
    latencies_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By code."""
    accepted: list[str] = field(default_factory=list)
    """Ids of executions the runner answered for."""
    retry_infos: int = 0
    """Refusals that said when to come again."""
    lags_s: list[float] = field(default_factory=list)
    """How late the load's own loop was, which its latencies contain."""
    messages: Counter[str] = field(default_factory=Counter)
    """Of everything that was not accepted."""

    def quantile_ms(self, code: str, share: float) -> float:
        """A latency's quantile in milliseconds; 0.0 without such calls."""
        ordered = sorted(self.latencies_s.get(code, []))
        return 1000 * ordered[int(share * (len(ordered) - 1))] if ordered else 0.0

    def count(self, code: str) -> int:
        """Calls that ended so."""
        return len(self.latencies_s.get(code, []))


class Load:
    """Submits one document over and over through some connections."""

    def __init__(self, channels: Sequence[Any], document: str, prefix: str) -> None:
        self._calls = [each.unary_unary(path("ExecuteAsync")) for each in channels]
        self._document = document
        self._prefix = prefix
        self._sent = 0

    async def submit(self, tally: Tally) -> None:
        """One execution."""
        self._sent += 1
        execution_id = f"{self._prefix}-{self._sent}"
        request = WorkflowExecuteInput(workflow_execution_id=execution_id, workflow_yaml=self._document)
        call = self._calls[self._sent % len(self._calls)]
        began_s = monotonic_s()
        try:
            await call(request.SerializeToString(), timeout=60)
        except grpc.aio.AioRpcError as error:
            tally.latencies_s[error.code().name].append(monotonic_s() - began_s)
            tally.messages[f"{error.code().name}: {error.details()}"] += 1
            tally.retry_infos += _has_retry_info(error)
        else:
            tally.latencies_s["OK"].append(monotonic_s() - began_s)
            tally.accepted.append(execution_id)

    async def closed(self, callers: int, span_s: float) -> Tally:
        """So many callers that each wait for their answer: as much as the runner can take."""
        tally = Tally()
        began_s = monotonic_s()

        async def caller() -> None:
            while monotonic_s() - began_s < span_s:
                await self.submit(tally)

        await asyncio.gather(*(caller() for _ in range(callers)))
        tally.span_s = monotonic_s() - began_s
        return tally

    async def open(self, rate_per_s: float, span_s: float) -> Tally:
        """So many per second, evenly, whether or not they are answered; ends when all are."""
        tally = Tally()
        began_s = monotonic_s()
        flying: set[asyncio.Task[None]] = set()
        sent = 0
        while (passed_s := monotonic_s() - began_s) < span_s:
            while sent < passed_s * rate_per_s:
                sent += 1
                task = asyncio.ensure_future(self.submit(tally))
                flying.add(task)
                task.add_done_callback(flying.discard)
            slept_s = monotonic_s()
            await asyncio.sleep(0.001)
            tally.lags_s.append(monotonic_s() - slept_s - 0.001)
        tally.span_s = monotonic_s() - began_s
        await asyncio.gather(*flying)
        return tally


def _has_retry_info(error: Any) -> bool:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return any(detail.Is(RetryInfo.DESCRIPTOR) for detail in Status.FromString(value).details)
    return False
