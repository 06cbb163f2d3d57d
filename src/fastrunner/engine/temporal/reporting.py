"""Stage 6, events: the events that the workflow of one execution holds, and which of them the receiver is to have.

Rules: pure state, the same in every replay. Events leave in their order, one report at a time; one that was
acknowledged is kept for queries while there is room. Without a receiver the latest are kept, and the others forgotten.
"""

from collections import deque
from itertools import pairwise

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import ReportProgressBatchRequest
from fastrunner.base import limits
from fastrunner.progress.wire import frames

__all__ = ["Report"]


class Report:
    """The events of one execution."""

    def __init__(self, reports: bool, messages: bytes, last: int, acknowledged: int) -> None:
        """`messages` are events that were held before, up to `last`."""
        self.last = last
        """Sequence number of the latest event."""
        self.acknowledged = acknowledged
        """Up to where the receiver has everything."""
        self._reports = reports
        self._frames: deque[bytes] = deque(messages[start:end] for start, end in _framed(messages))
        self._size_bytes = len(messages)

    @property
    def first(self) -> int:
        """Sequence number of the first event that is held."""
        return self.last - len(self._frames) + 1

    @property
    def unreported_count(self) -> int:
        """Events that the receiver is still to have."""
        return self.last - self.acknowledged if self._reports else 0

    @property
    def is_full(self) -> bool:
        """Whether so much is unreported that the walk has to rest."""
        if self.unreported_count == 0:
            return False
        held = self._size_bytes > limits.TEMPORAL_EVENTS_KEPT_SIZE_BYTES_MAX
        return held or self.unreported_count >= limits.TEMPORAL_EVENTS_UNREPORTED_MAX

    def add(self, messages: bytes, last: int) -> None:
        """Takes the events of a turn."""
        for start, end in _framed(messages):
            frame = _reportable(messages[start:end])
            self._frames.append(frame)
            self._size_bytes += len(frame)
        self.last = last
        self._forget()

    def batch(self) -> tuple[bytes, int]:
        """The next report, and the sequence number of its last event; empty if there is nothing to report."""
        messages: list[bytes] = []
        size_bytes = 0
        if self.unreported_count:
            for index in range(self.acknowledged + 1 - self.first, len(self._frames)):
                frame = self._frames[index]
                size_bytes += len(frame)
                if messages and size_bytes > limits.TEMPORAL_REPORT_SIZE_BYTES_MAX:
                    break
                messages.append(frame)
        return b"".join(messages), self.acknowledged + len(messages)

    def rest(self) -> tuple[bytes, int]:
        """What an effect can take along: as `batch`, if that is all there is and nothing waits for its answer."""
        messages, last = self.batch()
        return (messages, last) if last == self.last and not self.is_full else (b"", 0)

    def acknowledge(self, sequence: int) -> None:
        """The receiver has everything up to here."""
        self.acknowledged = max(self.acknowledged, min(sequence, self.last))
        self._forget()

    def page(self, from_sequence: int, count_max: int) -> bytes:
        """Events that are held, from one on: up to a count, and to about the size of a report."""
        messages: list[bytes] = []
        size_bytes = 0
        for index in range(max(0, from_sequence - self.first), len(self._frames)):
            frame = self._frames[index]
            size_bytes += len(frame)
            if len(messages) >= count_max or (messages and size_bytes > limits.TEMPORAL_REPORT_SIZE_BYTES_MAX):
                break
            messages.append(frame)
        return b"".join(messages)

    def held(self) -> bytes:
        """Everything, for the history that continues this one."""
        return b"".join(self._frames)

    def left(self) -> bytes:
        """What is unreported, for another workflow to report."""
        return b"".join(list(self._frames)[self.acknowledged + 1 - self.first :]) if self.unreported_count else b""

    def _forget(self) -> None:
        while self._frames and (
            self._size_bytes > limits.TEMPORAL_EVENTS_KEPT_SIZE_BYTES_MAX
            or len(self._frames) > limits.TEMPORAL_EVENTS_UNREPORTED_MAX
        ):
            if self._reports and self.first > self.acknowledged:
                return
            self._size_bytes -= len(self._frames.popleft())


def _framed(messages: bytes) -> list[tuple[int, int]]:
    """Where each event begins, with what frames it, and ends."""
    ends = [end for _, end in frames(messages)]
    return list(pairwise([0, *ends]))


def _reportable(frame: bytes) -> bytes:
    """An event that a payload has room for: one with a larger output has none."""
    if len(frame) <= limits.TEMPORAL_PAYLOAD_SIZE_BYTES_MAX:
        return frame
    request = ReportProgressBatchRequest.FromString(frame)
    for event in request.events:
        event.ClearField("output_json")
    return request.SerializeToString()
