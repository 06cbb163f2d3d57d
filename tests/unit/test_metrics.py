"""Support: what is counted: cells, the memory they share, histograms, what several processes say together, notes."""

import subprocess
import sys
from itertools import pairwise

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.parser import text_string_to_metric_families

from fastrunner._core import KINDS, TALLIED_OUTCOMES, TaskTally
from fastrunner.base import limits
from fastrunner.counts.cells import Cells, Key, Segment
from fastrunner.counts.definitions import CALL_SECONDS, EXECUTION_SECONDS, Metrics
from fastrunner.counts.scrape import TreeCollector

PREFIX = "workflow_runner_"


def scraped(*segments: Segment) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(TreeCollector(segments))
    return registry


def test_processes_are_one_scrape() -> None:
    """Counters and histograms add up, gauges add up or are the largest."""
    segments = [Segment(), Segment()]
    for number, segment in enumerate(segments):
        metrics = Metrics(segment=segment)
        metrics.executions_accepted.inc(10 + number)
        metrics.active_executions.set(3)
        metrics.callback_oldest_age.set(5.0 - number)
        metrics.commit_duration.observe(0.00007)
        metrics.commit_failures.labels(f"Cause{number}").inc()
        metrics.effects_in_flight.labels("call_http").inc()
        metrics.effects_in_flight.labels("call_http").dec()
    value = scraped(*segments).get_sample_value
    assert value(f"{PREFIX}executions_accepted_total") == 21
    assert value(f"{PREFIX}active_executions") == 6
    assert value(f"{PREFIX}callback_oldest_event_age_seconds") == 5
    assert value(f"{PREFIX}commit_duration_seconds_count") == 2
    assert value(f"{PREFIX}commit_duration_seconds_sum") == pytest.approx(0.00014)
    assert value(f"{PREFIX}commit_duration_seconds_bucket", {"le": "5e-05"}) == 0
    assert value(f"{PREFIX}commit_duration_seconds_bucket", {"le": "0.0001"}) == 2
    assert value(f"{PREFIX}commit_failures_total", {"cause": "Cause1"}) == 1
    assert value(f"{PREFIX}effects_in_flight", {"kind": "call_http"}) == 0


def test_successor_counts_on() -> None:
    """What a killed process counted is there, in the same places; what was present with it is not."""
    segment, other = Segment(), Segment()
    Metrics(segment=other).active_executions.set(2)
    first = Metrics(segment=segment)
    first.executions_accepted.inc(5)
    first.commit_failures.labels("StorageFull").inc()
    first.active_executions.set(7)
    first.callback_oldest_age.set(9)
    first.effects_in_flight.labels("call_http").inc()
    segment.forget_gauges()
    value = scraped(segment, other).get_sample_value
    assert value(f"{PREFIX}active_executions") == 2
    assert value(f"{PREFIX}callback_oldest_event_age_seconds") == 0
    assert value(f"{PREFIX}executions_accepted_total") == 5
    second = Metrics(segment=segment)
    second.active_executions.inc()
    second.executions_accepted.inc()
    second.commit_failures.labels("StorageFull").inc()
    second.commit_failures.labels("ShardDamaged").inc()
    assert value(f"{PREFIX}executions_accepted_total") == 6
    assert value(f"{PREFIX}commit_failures_total", {"cause": "StorageFull"}) == 2
    assert value(f"{PREFIX}commit_failures_total", {"cause": "ShardDamaged"}) == 1
    assert value(f"{PREFIX}active_executions") == 3
    assert value(f"{PREFIX}effects_in_flight", {"kind": "call_http"}) == 0


def test_known_series_exist_from_the_start() -> None:
    """A first failure is an increase only where there was a zero before."""
    segment = Segment()
    Metrics(segment=segment)
    value = scraped(segment).get_sample_value
    assert value(f"{PREFIX}executions_finished_total", {"status": "failed"}) == 0
    assert value(f"{PREFIX}callback_events_total", {"outcome": "dropped"}) == 0
    assert value(f"{PREFIX}tasks_total", {"kind": "call_http", "outcome": "failed"}) == 0
    assert value(f"{PREFIX}worker_restarts_total") == 0


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_scrape_parses(accept: str) -> None:
    """Every definition is in it, with its help and type."""
    segment = Segment()
    metrics = Metrics(segment=segment)
    encode, _ = choose_encoder(accept)
    text = encode(scraped(segment)).decode()
    if not accept:
        families = {family.name: family for family in text_string_to_metric_families(text)}
        for name, definition in metrics.definitions.items():
            found = families[name.removesuffix("_total") if definition.kind == "counter" else name]
            assert (found.type, found.documentation) == (definition.kind, definition.text)
    else:
        assert text.endswith("# EOF\n")


def test_segment_that_nobody_counts_in_counts_nothing() -> None:
    """The scrape between a process's fork and its first cell."""
    assert scraped(Segment()).get_sample_value(f"{PREFIX}executions_accepted_total") is None


FORKED = """
import os, signal
from fastrunner.counts.cells import Segment
from fastrunner.counts.definitions import Metrics
segment, (read_end, write_end) = Segment(notes=2), os.pipe()
reader = os.fork()
if not reader:
    os.read(read_end, 1)
    print(Metrics(segment=segment).executions_accepted.value, flush=True)
    os._exit(0)
counter = os.fork()
if not counter:
    metrics = Metrics(segment=segment)
    metrics.executions_accepted.inc(7)
    metrics.note("shard-5").write(b"begun")
    os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(counter, 0)
os.write(write_end, b"!")
os.waitpid(reader, 0)
print(Metrics(segment=segment).note("shard-5").read().decode())
"""


def test_child_counts_for_all_who_share_the_segment() -> None:
    """What a killed child has counted and noted is there in its parent, and in one that was forked before it."""
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("7.0\nbegun\n", "")


def test_names_and_labels() -> None:
    """The conventions: one prefix, units, `_total` for counters; no label that could be an execution."""
    for name, definition in Metrics().definitions.items():
        assert name.startswith((PREFIX, "grpc_server_"))
        assert name.endswith("_total") == (definition.kind == "counter")
        assert not {"execution_id", "id", "workflow", "task", "le"} & set(definition.labels)
        assert all(low < high for low, high in pairwise(definition.bounds))


def test_buckets_go_from_microseconds_to_days() -> None:
    """Calls take microseconds, executions may take days."""
    assert CALL_SECONDS[0] <= 100e-6
    assert EXECUTION_SECONDS[-1] >= 24 * 3600
    assert all(round(bound * 1000) == pytest.approx(bound * 1000) for bound in EXECUTION_SECONDS)


def test_tasks_are_labelled_as_the_core_counts_them() -> None:
    """Kinds and outcomes of the core are the known label values."""
    definitions = Metrics().definitions
    kinds = tuple(kind.name for kind in KINDS)
    assert definitions[f"{PREFIX}tasks_total"].labels == {"kind": kinds, "outcome": TALLIED_OUTCOMES}
    effects = tuple(kind.name for kind in KINDS if kind.has_effect and kind.name != "run_workflow")
    assert definitions[f"{PREFIX}effects_in_flight"].labels == {"kind": effects}


def test_cells_end_at_their_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A label whose values have no end is an error, not endless memory."""
    cells = Cells()
    assert cells.place("name", (), limits.METRIC_CELLS_MAX - 1) == 1
    with pytest.raises(RuntimeError, match="too many metrics"):
        cells.place("name", ("another",), 1)
    assert cells.place("name", (), limits.METRIC_CELLS_MAX - 1) == 1


def test_keys_end_at_their_bound() -> None:
    """Long label values as well."""
    cells = Cells()
    value = "x" * (48 * limits.METRIC_CELLS_MAX // 2)
    cells.place("name", (value,), 1)
    with pytest.raises(RuntimeError, match="too many metrics"):
        cells.place("name", (value + "y",), 1)


def test_cells_are_read_by_others() -> None:
    """Whatever is in label values."""
    segment = Segment()
    cells = Cells(segment.counts)
    at = cells.place("name", ('a "b"\n', "ü"), 2)
    cells.values[at] = 1.5
    assert segment.read_counts() == [(Key("name", ('a "b"\n', "ü"), at, 2), [1.5, 0.0])]
    assert segment.read_gauges() == []


def test_note_outlives_its_writer() -> None:
    """The last one written, until it is cleared; one beyond the bound is none. Each name has its own."""
    segment = Segment(notes=2)
    note, other = segment.note("shard-1"), segment.note("shard-11")
    assert note.read() == b""
    other.write(b"other")
    note.write(b"first")
    note.write(b"last")
    assert segment.note("shard-1").read() == b"last"
    note.clear()
    note.write(b"x" * limits.METRIC_NOTE_SIZE_BYTES_MAX)
    assert segment.note("shard-1").read() == b""
    assert segment.note("shard-11").read() == b"other"
    with pytest.raises(RuntimeError, match="no room for the note shard-2"):
        segment.note("shard-2")


def test_tally_sums_by_kind() -> None:
    """Outcomes, buckets and the sum of one kind lie together."""
    tally = TaskTally([10, 100])
    assert tally.cells_per_kind == len(TALLIED_OUTCOMES) + 3 + 1
    records = [(5, 1, 0), (100, 1, 0), (101, 1, 1), (0, 0, 15)]
    tally.add(b"".join((ms << 10 | kind << 4 | outcome).to_bytes(8, "little") for ms, kind, outcome in records))
    first = 1 + tally.cells_per_kind
    expected = [2, 1, 1, 1, 1, 206]
    assert tally.take() == [(0, 1), *((first + cell, count) for cell, count in enumerate(expected))]
    assert tally.take() == []
    with pytest.raises(ValueError, match="tally"):
        tally.add((1 << 10 | 14).to_bytes(8, "little"))
