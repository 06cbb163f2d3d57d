"""Listings: every filter, in pages of every size, over several shards; bounded in what a page reads."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from itertools import product

import pytest
import pytest_asyncio

from fastrunner.base import limits
from fastrunner.engine import ExecutionQuery, ExecutionView
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.engine.embedded.store.listing import LISTINGS
from fastrunner.errors import AtCapacity, Stopping
from tests.integration.engines import document, engine_on, folder, submission, until, until_status

NOW_MS = 1_800_000_000_000
COUNT = 60
STATUSES = ("completed", "failed", "cancelled", "paused", "running")
WAIT = "  - rest:\n      wait: {hours: 1}\n"
TASKS = {
    "completed": "  - one:\n      set: {a: 1}\n",
    "failed": "  - one:\n      raise: {error: {type: 'https://a.example/b', status: 400, title: no}}\n",
    "cancelled": WAIT,
    "paused": WAIT,
    "running": WAIT,
}


class Clock:
    """Several executions are accepted in one millisecond, and the clock is set back once."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def __call__(self) -> int:
        return self.now_ms


def _name(number: int) -> str:
    return f"name-{number % 3}"


def _text(number: int, status: str) -> str:
    """Five versions of each name, two namespaces."""
    text = document(TASKS[status], name=_name(number)).replace("version: '1.0.0'", f"version: '1.0.{number % 5}'")
    return text.replace("namespace: tests", f"namespace: space-{number % 2}")


def _labels(number: int) -> dict[str, str]:
    labels = {"third": str(number % 3), "all": "", 'q"\\': "ü"} if number != 5 else {}
    return labels | ({"rare": "yes"} if number in (2, 5, 59) else {})


@pytest_asyncio.fixture
async def engine(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EmbeddedEngine]:
    monkeypatch.setattr(limits, "LIST_ROWS_READ_MAX", 20)
    clock = Clock()
    async with engine_on(folder(), shards=3, wall_ms=clock) as engine:
        for number in range(COUNT):
            status = STATUSES[number // 7 % 5]
            await engine.submit(submission(f"e-{number}", _text(number, status), labels=_labels(number)))
            if status == "cancelled":
                await engine.cancel(f"e-{number}", "", False)
            elif status == "paused":
                await engine.pause(f"e-{number}", "")
            if number % 4 == 0:
                clock.now_ms += 1 if number != 40 else -5
        for number in range(COUNT):
            await until_status(engine, f"e-{number}", STATUSES[number // 7 % 5])
        yield engine


async def _all_pages(engine: EmbeddedEngine, count_max: int, **filters: object) -> list[Sequence[ExecutionView]]:
    pages: list[Sequence[ExecutionView]] = []
    before = None
    while True:
        page = await engine.list(ExecutionQuery(before=before, count_max=count_max, **filters))  # type: ignore[arg-type]
        pages.append(page.items)
        assert len(page.items) <= count_max
        if page.complete_to is None:
            return pages
        assert before is None or page.complete_to < before
        before = page.complete_to


def _place(view: ExecutionView) -> tuple[int, str]:
    return view.accepted_ms, view.execution_id


@pytest.mark.parametrize("count_max", [1, 7, 1_000])
async def test_every_filter_finds_everything_once_in_order(engine: EmbeddedEngine, count_max: int) -> None:
    everything = [await engine.get(f"e-{number}") for number in range(COUNT)]
    everything.sort(key=_place, reverse=True)
    times = [(0, 0), (NOW_MS + 3, NOW_MS + 9)]
    statuses = [
        (),
        ("running",),
        ("completed",),
        ("paused", "failed"),
        ("pending",),
        ("completed", "cancelled"),
        STATUSES,
    ]
    for asked, name, namespace, (from_ms, until_ms) in product(
        statuses, ("", "name-1", "none"), ("", "space-0", "none"), times
    ):
        pages = await _all_pages(
            engine,
            count_max,
            statuses=frozenset(asked),
            name=name,
            namespace=namespace,
            accepted_from_ms=from_ms,
            accepted_until_ms=until_ms,
        )
        assert [view.execution_id for page in pages for view in page] == [
            view.execution_id
            for view in everything
            if (not asked or view.status in asked)
            and name in ("", view.name)
            and namespace in ("", view.namespace)
            and from_ms <= view.accepted_ms
            and (not until_ms or view.accepted_ms < until_ms)
        ]
    [first, *_] = (await engine.list(ExecutionQuery())).items
    assert first == await engine.get(first.execution_id) or first.output_json == ""


@pytest.mark.parametrize("count_max", [1, 7, 1_000])
async def test_labels_are_found_with_every_other_filter(engine: EmbeddedEngine, count_max: int) -> None:
    everything = sorted([await engine.get(f"e-{number}") for number in range(COUNT)], key=_place, reverse=True)
    for labels, asked, name, namespaces, until_ms in product(
        (
            {"third": "1"},
            {"third": "2", "rare": "yes"},
            {"all": "", 'q"\\': "ü"},
            {"third": "1", "rare": "no"},
            {"third": ""},
        ),
        ((), ("completed",), ("paused", "failed")),
        ("", "name-1"),
        (None, frozenset({"space-1", "none"}), frozenset[str]()),
        (0, NOW_MS + 9),
    ):
        pages = await _all_pages(
            engine,
            count_max,
            labels=tuple(labels.items()),
            statuses=frozenset(asked),
            name=name,
            namespaces=namespaces,
            accepted_until_ms=until_ms,
        )
        assert [view.execution_id for page in pages for view in page] == [
            view.execution_id
            for view in everything
            if labels.items() <= view.labels.items()
            and (not asked or view.status in asked)
            and name in ("", view.name)
            and (namespaces is None or view.namespace in namespaces)
            and (not until_ms or view.accepted_ms < until_ms)
        ]


async def test_counts_are_what_listings_list(engine: EmbeddedEngine) -> None:
    """Of every filter; also of documents whose executions are fewer than those that have not completed, and after
    some are gone."""
    await engine.delete("e-0")
    everything = [await engine.get(f"e-{number}") for number in range(1, COUNT)]
    for asked, name, namespace, version, namespaces in product(
        ((), ("completed",), ("paused", "failed"), ("pending",)),
        ("", "name-1", "none"),
        ("", "space-0"),
        ("", "1.0.2"),
        (None, frozenset({"space-1", "none"}), frozenset[str]()),
    ):
        query = ExecutionQuery(frozenset(asked), name, namespace, version, namespaces=namespaces, count_max=COUNT)
        expected = Counter(
            view.status
            for view in everything
            if (not asked or view.status in asked)
            and name in ("", view.name)
            and namespace in ("", view.namespace)
            and version in ("", view.version)
            and (namespaces is None or view.namespace in namespaces)
        )
        assert await engine.count(query) == expected
        pages = await _all_pages(
            engine,
            COUNT,
            statuses=query.statuses,
            name=name,
            namespace=namespace,
            version=version,
            namespaces=namespaces,
        )
        assert Counter(view.status for page in pages for view in page) == expected


async def test_a_label_has_an_index(engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What few have is on the first page, however few rows that may read, also beside a label that all have."""
    monkeypatch.setattr(limits, "LIST_ROWS_READ_MAX", 5)
    for labels in ((("rare", "yes"),), (("all", ""), ("rare", "yes"))):
        (page,) = await _all_pages(engine, 10, labels=labels)
        assert {view.execution_id for view in page} == {"e-2", "e-59"} | ({"e-5"} if len(labels) == 1 else set())
        assert [dict(view.labels) for view in page] == [_labels(int(view.execution_id[2:])) for view in page]


async def test_name_of_many_documents_is_found_among_all(
    engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LIST_ROWS_READ_MAX", 5)
    expected = await _all_pages(engine, 5, name="name-1", statuses=frozenset({"completed"}))
    monkeypatch.setattr(limits, "LIST_DOCUMENTS_MAX", 1)
    found = await _all_pages(engine, 5, name="name-1", statuses=frozenset({"completed"}))
    assert [view for page in found for view in page] == [view for page in expected for view in page]
    assert len(found) > len(expected)


async def test_page_of_what_is_rare_ends_early(engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some rows of each shard make up a page, whatever is found among them."""
    monkeypatch.setattr(limits, "LIST_ROWS_READ_MAX", 5)
    pages = await _all_pages(engine, 5, statuses=frozenset({"completed", "pending"}))
    assert [] in pages
    assert 3 < len(pages) <= 2 + COUNT // 5
    # What has an index needs none of that.
    assert len(await _all_pages(engine, 100, statuses=frozenset({"paused"}))) == 1
    assert await _all_pages(engine, 1, statuses=frozenset({"completed"}), namespace="none") == [[]]


async def test_what_changes_while_it_is_listed_is_listed_once(engine: EmbeddedEngine) -> None:
    """All of a page is one state of a shard, although each state asked for is read by itself."""
    changing = asyncio.ensure_future(_cancel_paused(engine))
    while not changing.done():
        page = await engine.list(ExecutionQuery(statuses=frozenset({"paused", "cancelled"})))
        ids = [view.execution_id for view in page.items]
        assert len(ids) == len(set(ids))
    await changing


async def _cancel_paused(engine: EmbeddedEngine) -> None:
    for view in (await engine.list(ExecutionQuery(statuses=frozenset({"paused"})))).items:
        await engine.cancel(view.execution_id, "", False)


async def test_listings_at_once(engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LISTINGS_AT_ONCE_MAX", 2)
    answers = await asyncio.gather(*(engine.list(ExecutionQuery()) for _ in range(5)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, AtCapacity)]
    assert len(refused) == 3
    assert refused[0].retry_after_s == limits.LISTING_RETRY_S
    assert len((await engine.list(ExecutionQuery())).items) == COUNT


async def test_stopping_waits_for_no_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for one that is being read, however long that takes, nor for one behind it."""
    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*), null from n"
    monkeypatch.setitem(LISTINGS, "list_all", endless)
    async with engine_on(folder(), shards=2) as engine:
        await engine.submit(submission("one"))
        listings = [asyncio.ensure_future(engine.list(ExecutionQuery())) for _ in range(2)]
        await until(lambda: engine._queries._listings._being_read, "the first to be read")
        await engine.drain(0)
        answers = await asyncio.gather(*listings, return_exceptions=True)
        assert [type(answer) for answer in answers] == [Stopping, Stopping]
        with pytest.raises(Stopping):
            await engine.list(ExecutionQuery())
