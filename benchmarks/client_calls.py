"""Support: what an empty `grpc.aio` client call costs: calls per second, so many in flight.

python -m benchmarks.client_calls TARGET COUNT
"""

import asyncio
import sys
from typing import Any

import grpc
import uvloop

from fastrunner.base.clock import monotonic_s

_IN_FLIGHT = 64


async def _calls_per_s(target: str, count: int) -> float:
    opened: Any = grpc.aio.insecure_channel(target)
    async with opened as channel:
        await channel.channel_ready()
        call = channel.unary_unary("/benchmark/Empty")
        left = iter(range(count))

        async def caller() -> None:
            for _ in left:
                await call(b"")

        begun_s = monotonic_s()
        await asyncio.gather(*(caller() for _ in range(_IN_FLIGHT)))
        return count / (monotonic_s() - begun_s)


if __name__ == "__main__":
    print(uvloop.run(_calls_per_s(sys.argv[1], int(sys.argv[2]))))
