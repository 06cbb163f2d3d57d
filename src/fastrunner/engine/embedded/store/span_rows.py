"""Stage 3, journal: the rows of spans that wait for the collector: written, and read at a start.

Rules: as in `file.py` and `reader.py`. Spans hold nothing that is sealed elsewhere, so they are not. One that is
damaged is told, and gone: nothing depends on it. Executions that are accepted and completed in one commit have no
row of spans: their own says it all. Up to which row of events those are told is kept instead.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import apsw

from fastrunner.base import limits
from fastrunner.engine.embedded.store.changes import Batch
from fastrunner.engine.embedded.store.listener_rows import ListenerReader
from fastrunner.engine.embedded.store.proofs import Damage
from fastrunner.engine.embedded.store.statements import QUERIES
from fastrunner.tracing.span import Span

__all__ = ["SpanReader", "SpanWriter", "Untold"]


class Untold(NamedTuple):
    """An execution whose row tells its span."""

    execution_id: str
    trace: str
    """See `ExecutionTrace.text`."""
    finished_ms: int
    workflow: tuple[str, str, str]
    """Namespace, name and version of its document."""


class SpanReader(ListenerReader):
    """What is read of traces; all raise StorageFailed while the file cannot be read."""

    def trace(self, execution_id: str) -> str:
        """What is traced of an execution; empty: nothing."""
        rows = self._sound("select_trace", (execution_id,))
        return str(rows[0][0]) if rows else ""

    def spans(self, count_max: int) -> tuple[list[tuple[int, Span]], list[tuple[int, str]]]:
        """(execution key, span) of those that wait, and (execution key, id) of those that are damaged."""
        found, damaged = [], []
        for key, span_id, data in self._sound("select_spans", (count_max,)):
            try:
                span = Span.decoded(data)
            except ValueError as error:
                self.report(Damage("spans", "", str(error)))
                damaged.append((key, span_id))
            else:
                found.append((key, span))
        return found, damaged

    def untold(self, after_key: int, count_max: int) -> list[Untold]:
        """Executions whose rows tell spans that may be needed still, of rows of events after one."""
        rows = self._sound("select_untold", (after_key, count_max))
        return [Untold(execution_id, trace, ms, (*document,)) for _, execution_id, trace, ms, *document in rows]


class SpanWriter:
    """Writes what is new of spans, within the transaction of a commit."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db
        self._keys: set[int] = set()
        """All executions that have spans in the file, and some that had: of others there is nothing to delete."""
        self._knows_all = not db.execute(QUERIES["has_spans"]).get
        """Whether it does not have to be asked first who has any."""

    def write(self, batch: Batch) -> None:
        """What has ended, then what is settled, then what goes with its execution."""
        ended = [(change.execution_key, span) for change in batch.changes if change.spans for span in change.spans]
        if batch.spans is not None:
            ended += batch.spans.kept
        if ended:
            self._note(ended)
            self._many("put_span", [(key, span.span_id, span.encoded()) for key, span in ended])
        if batch.spans is not None:
            self._many("delete_span", batch.spans.settled)
            if batch.spans.told_key:
                self._db.execute(QUERIES["put_told"], (batch.spans.told_key,))
        if batch.deletions and (self._keys or not self._knows_all):
            keys = [each.execution_key for each in batch.deletions]
            self._many("delete_spans", [(key,) for key in keys if key in self._keys or not self._knows_all])

    def _note(self, ended: Sequence[tuple[int, Span]]) -> None:
        """Executions that will have spans, before anything of the batch is written, which may be taken back."""
        if not self._knows_all or len(self._keys) > limits.TRACE_KEYS_MAX:
            self._keys = {key for (key,) in self._db.execute(QUERIES["select_span_keys"])}
            self._knows_all = True
        self._keys.update([key for key, _ in ended])

    def _many(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            self._db.executemany(QUERIES[name], rows)
