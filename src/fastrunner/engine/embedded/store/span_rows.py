"""Stage 3, journal: the rows of spans that wait for the collector: written, and read at a start.

Rules: as in `file.py` and `reader.py`. Spans hold nothing that is sealed elsewhere, so they are not. One that is
damaged is told, and gone: nothing depends on it.
"""

from collections.abc import Sequence
from typing import Any

import apsw

from fastrunner.engine.embedded.store.changes import Batch
from fastrunner.engine.embedded.store.listener_rows import ListenerReader
from fastrunner.engine.embedded.store.proofs import Damage
from fastrunner.engine.embedded.store.statements import QUERIES
from fastrunner.tracing.span import Span

__all__ = ["SpanReader", "SpanWriter"]


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


class SpanWriter:
    """Writes what is new of spans, within the transaction of a commit."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db
        self._has_any = bool(db.execute(QUERIES["has_spans"]).get)

    def write(self, batch: Batch) -> None:
        """What has ended, then what is settled, then what goes with its execution."""
        ended = [(change.execution_key, span) for change in batch.changes for span in change.spans]
        if batch.spans is not None:
            ended += batch.spans.kept
        self._has_any = self._has_any or bool(ended)
        if self._has_any:
            self._many("put_span", [(key, span.span_id, span.encoded()) for key, span in ended])
            self._many("delete_span", () if batch.spans is None else batch.spans.settled)
            self._many("delete_spans", [(deletion.execution_key,) for deletion in batch.deletions])

    def _many(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            self._db.executemany(QUERIES[name], rows)
