"""Support: a process tree with tiny workers, run as a program, to test the supervisor without the data path.

    python -m tests.integration.tiny_tree

A worker answers every TCP connection on the gRPC port with its number and process id. Files in the data directory make
the next ones misbehave: `refuse-<n>` cannot start for what the file says, `crash-<n>` dies while starting, `stuck-<n>`
never ends starting, `holes-<n>` starts with much memory that it frees again, `slow-<n>` ignores SIGTERM; `crash-web`
has the web process die while starting. Asked for `garbage`, it answers with when Python looks for some, and for
`short-handed` with whether it is.
"""

import asyncio
import gc
import os
import signal
import sys

from fastrunner.config import load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.processes.child import Running, serve_child
from fastrunner.processes.link import ChildContext, ExitCode, StartError
from fastrunner.processes.slots import run_web_child
from fastrunner.processes.supervisor import run

HOLES_SIZE_BYTES = 64 << 20


class TinyWorker:
    """Answers with who it is."""

    def __init__(self, context: ChildContext) -> None:
        self.context = context
        self.metrics = Metrics(segment=context.segment)
        self.kept: list[bytes] = []
        self.metrics.active_executions.set(10)

    def marked(self, name: str) -> bool:
        return (self.context.config.data_dir / f"{name}-{self.context.index}").exists()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.metrics.executions_accepted.inc()
        command = await reader.readline()
        if command == b"hang\n":
            os.kill(os.getpid(), signal.SIGSTOP)
        if command == b"spin\n":
            while True:  # The supervisor ends it: that is what is tested.
                pass
        if command == b"short-handed\n":
            writer.write(f"{self.context.is_short_handed():d} {os.getpid()}\n".encode())
        if command == b"garbage\n":
            writer.write(f"{gc.get_threshold()}\n".encode())
        writer.write(f"{self.context.index} {os.getpid()}\n".encode())
        await writer.drain()
        writer.close()

    async def drain(self, timeout_s: float) -> None:
        if self.marked("slow"):
            await asyncio.sleep(3600)


async def start(context: ChildContext) -> Running:
    worker = TinyWorker(context)
    refusal = context.config.data_dir / f"refuse-{context.index}"
    if refusal.exists():
        raise StartError(ExitCode.BOOT, refusal.read_text())
    if worker.marked("crash"):
        os.kill(os.getpid(), signal.SIGKILL)
    if worker.marked("holes"):
        blocks = [bytes(1_000) for _ in range(HOLES_SIZE_BYTES // 1_000)]
        # What lies last keeps the C library from giving the rest back by itself.
        del blocks[:-1]
        worker.kept = blocks
    if worker.marked("stuck"):
        await asyncio.sleep(3600)
    config = context.config
    await asyncio.start_server(worker.answer, config.grpc_host, config.grpc_port, reuse_port=True)
    return worker


def worker_main(context: ChildContext) -> int:
    return serve_child(context, start)


def web_main(context: ChildContext) -> int:
    if (context.config.data_dir / "crash-web").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return run_web_child(context)


if __name__ == "__main__":
    sys.exit(run(load_config(), worker=worker_main, web=web_main))
