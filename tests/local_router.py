"""Support: the router of one worker alone, for tests of what stands above it."""

from collections.abc import AsyncGenerator, Sequence

from fastrunner.errors import Unavailable
from fastrunner.routing.facts import CallFacts


class LocalRouter:
    """The router of a runner with one worker: it owns every execution."""

    worker = 0
    workers: Sequence[int] = (0,)

    def owners_of(self, execution_id: str) -> Sequence[int]:
        """Always this worker."""
        return self.workers

    def are_new(self, messages: list[bytes]) -> bool:
        """It may be that somebody has one."""
        return False

    def choose(self, count: int) -> int:
        """Always this worker."""
        return self.worker

    def assign(self, worker: int, count: int) -> None:
        """Nobody asks."""

    async def forward(self, worker: int, method: str, payload: bytes, facts: CallFacts) -> bytes:
        """Raises Unavailable: there is nobody else."""
        raise Unavailable(f"there is no worker {worker}")

    async def forward_stream(
        self,
        worker: int,
        method: str,
        payload: bytes,
        facts: CallFacts,
    ) -> AsyncGenerator[bytes, None]:
        """Raises Unavailable at the first step: there is nobody else."""
        raise Unavailable(f"there is no worker {worker}")
        yield b""
