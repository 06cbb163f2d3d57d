"""The events that a workflow of Temporal holds: what is reported, what is kept, and when the walk has to rest."""

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import ReportProgressBatchRequest, WorkflowProgressEvent
from fastrunner.base import limits
from fastrunner.engine.temporal.reporting import Report


def row(first: int, last: int, size_bytes: int = 10) -> bytes:
    """Events of about a size each."""
    events = [
        WorkflowProgressEvent(sequence_number=sequence, output_json="x" * size_bytes)
        for sequence in range(first, last + 1)
    ]
    return ReportProgressBatchRequest(events=events).SerializeToString()


def sequences(messages: bytes) -> list[int]:
    return [event.sequence_number for event in ReportProgressBatchRequest.FromString(messages).events]


def test_events_are_reported_in_order_and_once() -> None:
    report = Report(True, b"", 0, 0)
    assert report.batch() == (b"", 0)
    report.add(row(1, 3), 3)
    messages, last = report.batch()
    assert (sequences(messages), last) == ([1, 2, 3], 3)
    report.acknowledge(2)
    report.add(row(4, 4), 4)
    messages, last = report.batch()
    assert (sequences(messages), last) == ([3, 4], 4)
    report.acknowledge(1)
    report.acknowledge(9)
    assert (report.acknowledged, report.unreported_count, report.batch()[0]) == (4, 0, b"")
    assert sequences(report.page(1, 100)) == [1, 2, 3, 4]
    assert sequences(report.page(3, 1)) == [3]


def test_a_report_has_a_size() -> None:
    """Up to the bound, but for a single event that is larger; what is left comes next."""
    size_bytes = limits.TEMPORAL_REPORT_SIZE_BYTES_MAX // 4
    report = Report(True, b"", 0, 0)
    report.add(row(1, 6, size_bytes), 6)
    assert sequences(report.batch()[0]) == [1, 2, 3]
    report.acknowledge(3)
    assert sequences(report.batch()[0]) == [4, 5, 6]
    assert sequences(report.page(4, 100)) == [4, 5, 6]
    report.acknowledge(6)
    report.add(row(7, 8, 2 * limits.TEMPORAL_REPORT_SIZE_BYTES_MAX), 8)
    assert sequences(report.batch()[0]) == [7]


def test_acknowledged_events_are_kept_while_there_is_room() -> None:
    count = limits.TEMPORAL_EVENTS_UNREPORTED_MAX
    report = Report(True, b"", 0, 0)
    report.add(row(1, count + 5), count + 5)
    assert report.first == 1
    report.acknowledge(count + 5)
    assert report.first == 6
    large = limits.TEMPORAL_EVENTS_KEPT_SIZE_BYTES_MAX // 2
    report.add(row(count + 6, count + 8, large), count + 8)
    report.acknowledge(count + 8)
    assert sequences(report.held()) == [count + 8]


def test_without_a_receiver_the_latest_are_kept() -> None:
    count = limits.TEMPORAL_EVENTS_UNREPORTED_MAX
    report = Report(False, b"", 0, 0)
    report.add(row(1, 2 * count), 2 * count)
    assert (report.first, report.batch()[0], report.is_full) == (count + 1, b"", False)


def test_the_walk_rests_with_too_much_unreported() -> None:
    """By the count, and by the size."""
    report = Report(True, b"", 0, 0)
    report.add(row(1, limits.TEMPORAL_EVENTS_UNREPORTED_MAX - 1), limits.TEMPORAL_EVENTS_UNREPORTED_MAX - 1)
    assert not report.is_full
    bound = limits.TEMPORAL_EVENTS_UNREPORTED_MAX
    report.add(row(bound, bound), bound)
    assert report.is_full
    report.acknowledge(500)
    assert not report.is_full
    report = Report(True, b"", 0, 0)
    report.add(row(1, 1, limits.TEMPORAL_EVENTS_KEPT_SIZE_BYTES_MAX), 1)
    assert report.is_full
    report.acknowledge(1)
    assert not report.is_full


def test_an_event_that_no_payload_has_room_for_has_no_output() -> None:
    report = Report(True, b"", 0, 0)
    report.add(row(1, 1, limits.TEMPORAL_PAYLOAD_SIZE_BYTES_MAX), 1)
    [event] = ReportProgressBatchRequest.FromString(report.batch()[0]).events
    assert (event.sequence_number, event.output_json) == (1, "")


def test_what_is_held_goes_on_in_another_history() -> None:
    report = Report(True, b"", 0, 0)
    report.add(row(1, 5), 5)
    report.acknowledge(2)
    again = Report(True, report.held(), report.last, report.acknowledged)
    assert (again.first, again.batch()) == (1, report.batch())
