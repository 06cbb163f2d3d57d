"""Support: the reference receiver: serves ReportProgress and ReportProgressBatch, checks what arrives, keeps it.

Rules: what is acknowledged is kept; an answer never goes beyond a gap; it fails only where its options say so.
"""

import asyncio
import contextlib
import hmac
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import orjson
from google.protobuf.message import DecodeError
from rich.console import Console
from rich.text import Text

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import (
    ProgressAcknowledgement,
    ProgressAckResponse,
    ReportProgressBatchResponse,
    WorkflowProgressEvent,
)
from fastrunner.base.limits import REQUEST_SIZE_BYTES_MAX
from fastrunner.base.printable import printable
from fastrunner.progress.wire import frames
from fastrunner.stigmer.ledger import Ledger, Violation, event_fields

__all__ = ["EventListener", "Receiver", "ReceiverOptions", "run_receiver", "serve_receiver"]

_SERVICE = "ai.stigmer.workflow.runner.v1.WorkflowRunnerCommandController"
_CLOSE_GRACE_S = 1.0
EventListener = Callable[[WorkflowProgressEvent], None]
"""Told of each event taken for the first time."""
_STYLES = {"completed": "green", "failed": "red", "cancelled": "yellow", "paused": "cyan", "running": "blue"}


@dataclass(frozen=True, slots=True)
class ReceiverOptions:
    """How the reference receiver runs."""

    port: int = 50051
    """Port to listen on; 0 chooses a free one."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    token: str | None = None
    """Bearer token callers must send; none: no check."""
    store: Path | None = None
    """File of JSON lines that keeps what arrives, read again at the next start; none: memory only."""
    no_batch: bool = False
    """Answer ReportProgressBatch with UNIMPLEMENTED."""
    fail_rate: float = 0.0
    """Share of calls to answer with UNAVAILABLE, 0 to 1; every other one of them is taken first."""
    delay_ms: int = 0
    """Wait before each answer, in milliseconds."""
    as_json: bool = False
    """Print JSON lines: where it listens, each event, the summary."""
    quiet: bool = False
    """Print no events."""
    keep_events: bool = True
    """Keep events in memory, not only their digests; for those who read them back."""
    tls_certificate: Path | None = None
    """PEM file of the server's certificate chain; together with `tls_key` it turns TLS on."""
    tls_key: Path | None = None
    """PEM file of the certificate's private key."""
    tls_client_ca: Path | None = None
    """PEM file of the authorities one of which must vouch for every caller; none: callers show no certificate."""


class Receiver:
    """Answers the two reports; handlers take bytes and give bytes."""

    def __init__(self, options: ReceiverOptions, listener: EventListener | None = None) -> None:
        self.ledger = Ledger(options.store, keep_events=options.keep_events)
        """What has arrived."""
        self.calls: dict[str, int] = {"ReportProgress": 0, "ReportProgressBatch": 0}
        """Calls with the right token, by method."""
        self._options = options
        self._listener = listener
        self._expected = f"Bearer {options.token}".encode() if options.token else b""
        self._failures = 0

    async def report(self, request: bytes, context: Any) -> bytes:
        """ReportProgress: one event; not taken behind a gap."""
        await self._admit("ReportProgress", context)
        event = await self._decode(request, context)
        await self._fail_sometimes(context, lambda: self._take(event, request))
        taken = self._take(event, request)
        highest = self.ledger.highest(event.workflow_execution_id)
        message = "" if taken else f"events up to {highest} are here: send {highest + 1} first"
        return ProgressAckResponse(success=taken, message=message).SerializeToString()

    async def report_batch(self, request: bytes, context: Any) -> bytes:
        """ReportProgressBatch: several events; of each execution up to its first gap."""
        await self._admit("ReportProgressBatch", context)
        if self._options.no_batch:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "ReportProgressBatch is not served here")
        try:
            encoded = [request[start:end] for start, end in frames(request)]
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not a ReportProgressBatchRequest: {error}")
        events = [await self._decode(message, context) for message in encoded]
        await self._fail_sometimes(context, lambda: self._take_all(events, encoded))
        self._take_all(events, encoded)
        response = ReportProgressBatchResponse(
            acknowledgements=[
                ProgressAcknowledgement(workflow_execution_id=each, sequence_number=self.ledger.highest(each))
                for each in dict.fromkeys(event.workflow_execution_id for event in events)
            ]
        )
        return response.SerializeToString()

    def _take_all(self, events: list[WorkflowProgressEvent], encoded: list[bytes]) -> None:
        broken: set[str] = set()
        for event, message in zip(events, encoded, strict=True):
            # One gap is one violation, not one for each event behind it.
            if event.workflow_execution_id not in broken and not self._take(event, message, flush=False):
                broken.add(event.workflow_execution_id)
        self.ledger.flush()

    def _take(self, event: WorkflowProgressEvent, encoded: bytes, flush: bool = True) -> bool:
        new = event.sequence_number > self.ledger.highest(event.workflow_execution_id)
        taken = self.ledger.take(event, encoded)
        if flush:
            self.ledger.flush()
        if taken and new and self._listener is not None:
            self._listener(event)
        return taken

    async def _admit(self, method: str, context: Any) -> None:
        if self._expected:
            metadata = {key: value for key, value in context.invocation_metadata() or ()}  # noqa: C416
            given = metadata.get("authorization", "")
            if not hmac.compare_digest(given.encode(), self._expected):
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no or wrong bearer token")
        self.calls[method] += 1

    async def _decode(self, encoded: bytes, context: Any) -> WorkflowProgressEvent:
        try:
            event = WorkflowProgressEvent.FromString(encoded)
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a WorkflowProgressEvent")
        if not event.workflow_execution_id or event.sequence_number < 1:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, "an event needs workflow_execution_id and sequence_number from 1"
            )
        return event

    async def _fail_sometimes(self, context: Any, take: Callable[[], object]) -> None:
        if self._options.delay_ms:
            await asyncio.sleep(self._options.delay_ms / 1000)
        if random.random() >= self._options.fail_rate:
            return
        self._failures += 1
        if self._failures % 2 == 0:
            # The call arrived, only its answer is lost: the sender cannot tell, and must send the same again.
            take()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "failing on purpose")


@contextlib.asynccontextmanager
async def serve_receiver(receiver: Receiver, options: ReceiverOptions) -> AsyncIterator[int]:
    """Serves while the context is open; gives the port. Raises OSError if the address cannot be bound."""
    handlers = {
        spelling: grpc.unary_unary_rpc_method_handler(handler)
        for spellings, handler in (
            (("ReportProgress", "report_progress", "reportProgress"), receiver.report),
            (("ReportProgressBatch", "report_progress_batch", "reportProgressBatch"), receiver.report_batch),
        )
        for spelling in spellings
    }
    server = grpc.aio.server(
        options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", REQUEST_SIZE_BYTES_MAX)]
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    address = f"{options.host}:{options.port}"
    try:
        if options.tls_certificate is not None and options.tls_key is not None:
            pair = (options.tls_key.read_bytes(), options.tls_certificate.read_bytes())
            authorities = options.tls_client_ca.read_bytes() if options.tls_client_ca is not None else None
            credentials = grpc.ssl_server_credentials([pair], authorities, authorities is not None)
            port = server.add_secure_port(address, credentials)
        else:
            port = server.add_insecure_port(address)
    except RuntimeError:
        raise OSError(f"cannot listen on {address}: the port is taken or the address is not this machine's") from None
    await server.start()
    try:
        yield port
    finally:
        await server.stop(_CLOSE_GRACE_S)
        receiver.ledger.close()


def run_receiver(options: ReceiverOptions) -> int:
    """Serves until SIGINT or SIGTERM and prints a summary; gives the exit code: 1 after violations, 2 if it could not
    start."""
    try:
        return asyncio.run(_run(options))
    except OSError as error:
        print(f"fastrunner receiver: {error}", file=sys.stderr)  # noqa: T201
        return 2


async def _run(options: ReceiverOptions) -> int:
    show = _Output(options)
    receiver = Receiver(options, None if options.quiet else show.event)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with serve_receiver(receiver, options) as port:
        show.listening(f"{options.host}:{port}")
        await stop.wait()
    show.summary(receiver.ledger)
    return 1 if receiver.ledger.summary().violations else 0


class _Output:
    """Prints to stdout, for people or as JSON lines."""

    def __init__(self, options: ReceiverOptions) -> None:
        self._json = options.as_json
        self._console = Console(highlight=False)

    def listening(self, address: str) -> None:
        if self._json:
            self._line({"listening": address})
        else:
            self._console.print(f"receiving progress on {address}; Ctrl-C ends with a summary")

    def event(self, event: WorkflowProgressEvent) -> None:
        if self._json:
            self._line(event_fields(event))
            return
        line = Text(f"{printable(event.workflow_execution_id)} {event.sequence_number:>4}  ", style="dim")
        line.append(printable(event.event_type), style=_STYLES.get(event.status, ""))
        if event.task_reference:
            line.append(f"  {printable(event.task_reference)}")
        if event.error.message:
            line.append(f"  {printable(event.error.message)}", style="red")
        self._console.print(line, soft_wrap=True)

    def summary(self, ledger: Ledger) -> None:
        summary = ledger.summary()
        if self._json:
            self._line({"summary": asdict(summary), "violations": [asdict(one) for one in ledger.violations]})
            return
        self._console.print(
            f"{summary.events} events of {summary.executions} executions ({summary.finished} finished), "
            f"{summary.duplicates} duplicates"
        )
        for violation in ledger.violations:
            self._console.print(Text(self._sentence(violation), style="red"), soft_wrap=True)
        self._console.print(f"{summary.violations} violations", style="red" if summary.violations else "green")

    @staticmethod
    def _sentence(violation: Violation) -> str:
        return printable(f"{violation.execution_id}: {violation.kind}: {violation.message}")

    @staticmethod
    def _line(fields: dict[str, Any]) -> None:
        sys.stdout.buffer.write(orjson.dumps(fields) + b"\n")
        sys.stdout.buffer.flush()
