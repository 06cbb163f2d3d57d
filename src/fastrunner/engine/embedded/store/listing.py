"""Stage 3, journal: one shard's page of a listing: by which index it is read, and how far.

Theory of operation: a query becomes one or several sources, each a run through an index in the order of the listing:
that of the parent asked for; else of labels the rarest; else one for each state asked for, unless what has completed is
asked for too; else one for each document of the name asked for; else everything. Every filter is looked at row by row
in whatever a source gives, so none depends on which source it is.

Rules: however much a shard holds, a page reads so many rows at most, all sources together; it ends early where that is
not enough, and says how far it got. All of a page is one state of the file.
"""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

import orjson

from fastrunner.base import limits
from fastrunner.engine import ExecutionPage, ExecutionQuery, ExecutionView
from fastrunner.engine.embedded.store.connection import read_all
from fastrunner.engine.embedded.store.seals import Seals, place
from fastrunner.engine.embedded.store.statements import QUERIES
from fastrunner.engine.pages import Page, merged

if TYPE_CHECKING:
    import apsw

__all__ = ["LISTINGS", "counts_of", "page_of"]

_FOREVER_MS = 2**63 - 1
_UNINDEXED = "completed"
"""The state that `executions_status` leaves out."""

LISTINGS: Final = {
    name: f"{text},\n{QUERIES['list_found']}"
    for name, text in QUERIES.items()
    if name == "list_all" or name.startswith("list_by_")
}
"""A statement for each kind of source: where it looks, and what all of them look at row by row."""


def page_of(db: "apsw.Connection", query: ExecutionQuery, seals: Seals) -> ExecutionPage:
    """A page, newest first. Raises apsw.Error."""
    db.execute(QUERIES["begin_reading"])
    try:
        sources = _sources(db, query)
        before_ms, before_id = query.before or (_FOREVER_MS, "")
        parameters = {
            "accepted_from_ms": query.accepted_from_ms,
            "accepted_until_ms": query.accepted_until_ms or _FOREVER_MS,
            "before_ms": before_ms,
            "before_id": before_id,
            "statuses": orjson.dumps(sorted(query.statuses)).decode(),
            "name": query.name,
            "namespace": query.namespace,
            "version": query.version,
            "labels": orjson.dumps(query.labels).decode(),
            "namespaces": _json_or_none(query.namespaces),
            "count_max": query.count_max,
            "rows_max": max(query.count_max, limits.LIST_ROWS_READ_MAX // max(1, len(sources))),
        }
        parts = [_part(db, statement, parameters | more, query.count_max) for statement, more in sources]
        page = merged(parts, lambda found: (found[0], found[1]), query.count_max)
        return Page(_views(db, [key for _, _, key in page.items], seals), page.complete_to)
    finally:
        db.execute(QUERIES["rollback"])


def _sources(db: "apsw.Connection", query: ExecutionQuery) -> list[tuple[str, dict[str, Any]]]:
    """Statements to run, each with what it needs beside the query."""
    if query.parent_id:
        return [("list_by_parent", {"parent_id": query.parent_id})]
    if query.labels:
        name, value = min(query.labels, key=lambda label: _count(db, label)) if query.labels[1:] else query.labels[0]
        return [("list_by_label", {"label_name": name, "label_value": value})]
    if query.statuses and _UNINDEXED not in query.statuses:
        return [("list_by_status", {"status": status}) for status in sorted(query.statuses)]
    if query.name or query.namespace:
        names: dict[str, Any] = {"name": query.name, "namespace": query.namespace, "version": query.version}
        names["count_max"] = limits.LIST_DOCUMENTS_MAX + 1
        plans = read_all(db, QUERIES["select_plans_by_name" if query.name else "select_plans_by_namespace"], names)
        if len(plans) <= limits.LIST_DOCUMENTS_MAX:
            return [("list_by_plan", {"plan_key": plan_key}) for (plan_key,) in plans]
    return [("list_all", {})]


def counts_of(db: "apsw.Connection", query: ExecutionQuery) -> Mapping[str, int]:
    """How many executions there are in each state, by what of a query names states, workflow and namespaces. Raises
    apsw.Error.

    Those that have completed are most of all, and no index has them: they are what is left of all uses of documents.
    """
    documents: dict[str, Any] = {"name": query.name, "namespace": query.namespace, "version": query.version}
    documents["namespaces"] = _json_or_none(query.namespaces)
    db.execute(QUERIES["begin_reading"])
    try:
        ((uses_count,),) = read_all(db, QUERIES["count_uses"], documents)
        counts = dict(read_all(db, QUERIES["count_by_status"], ()))
        if any(documents.values()) or query.namespaces is not None:
            is_few = uses_count < sum(counts.values())
            counts = dict(read_all(db, QUERIES["count_by_plan" if is_few else "count_by_status_of_some"], documents))
        counts.setdefault(_UNINDEXED, max(0, uses_count - sum(counts.values())))
    finally:
        db.execute(QUERIES["rollback"])
    return {
        status: count for status, count in counts.items() if count and (status in query.statuses or not query.statuses)
    }


def _json_or_none(names: Collection[str] | None) -> str | None:
    return None if names is None else orjson.dumps(sorted(names)).decode()


def _count(db: "apsw.Connection", label: tuple[str, str]) -> int:
    ((count,),) = read_all(db, QUERIES["count_label"], (*label, limits.LIST_ROWS_READ_MAX))
    return int(count)


def _part(db: "apsw.Connection", statement: str, parameters: dict[str, Any], count_max: int) -> Page[Any]:
    """What one source gives: (accepted_ms, execution_id, execution_key)."""
    ((found_text, read_to_text),) = read_all(db, LISTINGS[statement], parameters)
    found = orjson.loads(found_text)
    if len(found) == count_max:
        return Page(found, (found[-1][0], found[-1][1]))
    return Page(found, None if read_to_text is None else tuple(orjson.loads(read_to_text)))


def _views(db: "apsw.Connection", keys: list[int], seals: Seals) -> list[ExecutionView]:
    if not keys:
        return []
    parameters = {
        "keys": orjson.dumps(keys).decode(),
        "metadata_size_bytes_max": limits.LIST_DOCUMENT_METADATA_SIZE_BYTES_MAX,
    }
    ((text,),) = read_all(db, QUERIES["list_views"], parameters)
    views = []
    for *head, error, metadata, labels, document_metadata, parent_id in orjson.loads(text):
        shown = (_error_of(head[0], error, seals), bytes.fromhex(metadata), labels or {}, document_metadata or "")
        views.append(ExecutionView(*(*head, "", *shown, parent_id)))
    return views


def _error_of(execution_id: str, stored: Any, seals: Seals) -> Any:
    """An error as it is shown: none if it is damaged, which hides no other execution."""
    if not isinstance(stored, str):
        return stored
    try:
        return orjson.loads(seals.opened_text(stored, place("error", execution_id)))
    except ValueError:
        return None
