"""Support: starts the server program, asks it and measures it from outside."""

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from fastrunner.service.methods import COMMAND_SERVICE, QUERY_SERVICE

ROOT = Path(__file__).parent.parent.parent
EXECUTE_ASYNC = f"/{COMMAND_SERVICE}/ExecuteAsync"
SUBSCRIBE = f"/{QUERY_SERVICE}/Subscribe"
GET = f"/{QUERY_SERVICE}/GetExecution"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
DEADLINE_S = 15.0
OPEN = "open"
"""The execution whose last sequence number is how many submissions and subscriptions are open in the engine."""


def until(condition: Callable[[], Any], what: str) -> None:
    """Waits for what nobody tells."""
    end_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end_s, what
        time.sleep(0.01)


class ServerProcess:
    """A server on a free port."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "tests.transport.server_program", *arguments]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - `close` does
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=self._log, text=True)
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], 30)[0], "the server does not start"
        self.port = int(self.process.stdout.readline())
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        self.channel: Any = grpc.insecure_channel(self.target, options)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        self.channel.close()
        self.process.kill()
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()

    def log(self) -> bytes:
        """What it has said so far."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0)

    def busy_s(self) -> float:
        """Processor time that its loop has taken."""
        return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[0]) / 1e9

    def submit(self, execution_id: str, document: str) -> None:
        """ExecuteAsync."""
        request = m.WorkflowExecuteInput(workflow_execution_id=execution_id, workflow_yaml=document)
        self.channel.unary_unary(EXECUTE_ASYNC)(request.SerializeToString(), timeout=DEADLINE_S)

    def serves_others(self) -> None:
        """Whoever else asks is answered; in an overload, new executions may be refused."""
        self.open()

    def open(self) -> int:
        """Submissions and subscriptions that the engine has not ended."""
        request = q.GetExecutionRequest(execution_id=OPEN).SerializeToString()
        reply = q.GetExecutionResponse.FromString(self.channel.unary_unary(GET)(request, timeout=DEADLINE_S))
        return reply.execution.last_sequence_number

    def resident_mib(self) -> float:
        """Memory that the process has now."""
        return self._memory("VmRSS")

    def peak_mib(self) -> float:
        """The most it has had since `reset_peak`."""
        return self._memory("VmHWM")

    def reset_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def _memory(self, name: str) -> float:
        assert self.process.poll() is None, "the server is dead"
        status = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        [line] = [line for line in status if line.startswith(f"{name}:")]
        return int(line.split()[1]) / 1024

    def descriptors(self) -> int:
        """Open files and connections."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def drain(self) -> None:
        """SIGTERM."""
        self.process.send_signal(signal.SIGTERM)


@contextmanager
def server_process(*arguments: str) -> Iterator[ServerProcess]:
    """A server that is gone afterwards."""
    server = ServerProcess(*arguments)
    try:
        yield server
    finally:
        server.close()
