"""What Temporal keeps of executions: large values in a blob store, sealed histories, against a real server."""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from fastrunner._core import EffectFailure, EffectResult, PerformEffect
from fastrunner.access.sealing import DataKeys
from fastrunner.base import clock, limits
from fastrunner.blobs.directory import Directory
from fastrunner.errors import Unavailable
from tests.integration.engines import SET, Performer, document, submission, until, until_status
from tests.integration.temporal_engines import cluster_on, reported, serving_temporal
from tests.integration.test_temporal import ended, histories, replay
from tests.outside import require

if TYPE_CHECKING:
    from temporalio.client import WorkflowHistory

require(find_spec("temporalio"), "temporalio", module=True)

SECRET = "a-secret-of-these-tests"
OF_ENV = "another-one-of-these-tests"
KEY_FILE = "FASTRUNNER_TEMPORAL_KEY_FILE"
OLD, NEW = DataKeys({"old": bytes(32)}, KEY_FILE), DataKeys({"new": bytes(range(32)), "old": bytes(32)}, KEY_FILE)
MIB = 1_048_576
ASK = "        - ask:\n            call: http\n            with: { method: get, endpoint: 'http://127.0.0.1:1/' }\n"
LARGE = document(
    "  - each:\n      for: { each: item, in: '${ [1, 2] }' }\n      do:\n" + ASK
    + "        - rest:\n            wait: { milliseconds: 1 }\n"
    "  - sum:\n      set: { answer: '${ . }', remark: '" + "r" * 300_000 + "' }\n"
)  # fmt: skip


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving_temporal() as address:
        yield address


@dataclass
class Large(Performer):
    """Answers with so many bytes, and something that is told again."""

    size_bytes: int = 0

    async def perform(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        await super().perform(effect, arguments)
        return EffectResult(effect.effect_id, SECRET + "x" * self.size_bytes)


def largest_payload(history: "WorkflowHistory") -> int:
    return max(event.ByteSize() for event in history.events)


def blobs_in(folder: Path) -> list[Path]:
    # What is being written has another name until it is whole.
    return [path for path in (folder / "payloads").rglob("*") if path.is_file() and not path.name.startswith(".")]


@pytest.mark.parametrize(
    ("size_bytes", "keys"),
    [(2 * MIB - 1000, None), (2 * MIB + 1000, NEW), (7 * MIB, NEW)],
    ids=["less", "more", "much more"],
)
async def test_values_on_both_sides_of_two_mebibytes(
    address: str, tmp_path: Path, size_bytes: int, keys: DataKeys | None
) -> None:
    """Documents, inputs, results, states and outputs that no payload has room for lie in the blob store, through
    histories that are continued; any replica shows them."""
    performer = Large(size_bytes=size_bytes)
    performer.gate.set()
    options: dict[str, Any] = {"blobs": Directory(tmp_path), "keys": keys}
    async with (
        cluster_on(address) as cluster,
        cluster.engine({"call_http": performer}, history_events_max=1, **options) as engine,
        cluster.engine(works=False, **options) as other,
    ):
        execution_id = f"{cluster.queue}-1"
        given = {"n": SECRET + "y" * min(size_bytes, limits.INPUT_SIZE_BYTES_MAX - 1000)}
        await engine.submit(submission(execution_id, LARGE, input_json=orjson.dumps(given)))
        view = await ended(other, execution_id)
        assert view.status == "completed"
        output = orjson.loads(view.output_json)
        assert output == {"answer": SECRET + "x" * size_bytes, "remark": "r" * 300_000}
        assert len(performer.performed) == 2
        await reported(cluster, execution_id)
        [history] = await histories(engine, [execution_id])
        assert history.events[0].workflow_execution_started_event_attributes.continued_execution_run_id
        assert largest_payload(history) < limits.TEMPORAL_INLINE_SIZE_BYTES_MAX
        shows = [SECRET.encode() in path.read_bytes() for path in blobs_in(tmp_path)]
        assert len(shows) > 4
        assert any(shows) is (keys is None)
        assert SECRET not in history.to_json()


async def test_what_is_small_stays_in_the_history(address: str, tmp_path: Path) -> None:
    """A blob store gets what is large alone."""
    bound = limits.TEMPORAL_INLINE_SIZE_BYTES_MAX
    performer = Large(size_bytes=bound - 1000)
    performer.gate.set()
    async with (
        cluster_on(address) as cluster,
        cluster.engine({"call_http": performer}, blobs=Directory(tmp_path)) as engine,
    ):
        text = document("  - ask:\n      call: http\n      with: { method: get, endpoint: 'http://127.0.0.1:1/' }\n")
        await engine.submit(submission(f"{cluster.queue}-1", text))
        assert (await ended(engine, f"{cluster.queue}-1")).status == "completed"
        assert blobs_in(tmp_path) == []
        performer.size_bytes = bound
        await engine.submit(submission(f"{cluster.queue}-2", text))
        assert (await ended(engine, f"{cluster.queue}-2")).status == "completed"
        # The result and the output; the state has not become an input of anything.
        assert len(blobs_in(tmp_path)) >= 2


async def test_a_store_that_is_away_has_no_effect_performed_again(
    address: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large result waits for it, with heartbeats."""
    monkeypatch.setattr(limits, "TEMPORAL_BLOB_PAUSE_S", 0.1)
    performer, folder = Large(size_bytes=MIB), tmp_path / "blobs"
    folder.mkdir()
    async with (
        cluster_on(address) as cluster,
        cluster.engine({"call_http": performer}, blobs=Directory(folder)) as engine,
    ):
        text = document("  - ask:\n      call: http\n      with: { method: get, endpoint: 'http://127.0.0.1:1/' }\n")
        await engine.submit(submission(f"{cluster.queue}-1", text))
        await until(lambda: performer.performed, "the effect", 60)
        folder.rename(tmp_path / "aside")
        folder.write_text("no folder")
        with caplog.at_level(logging.WARNING):
            performer.gate.set()
            await until(lambda: caplog.text.count("waits for the blob store") > 2, "attempts", 60)
        folder.unlink()
        assert (await ended(engine, f"{cluster.queue}-1")).status == "completed"
        assert len(performer.performed) == 1


async def test_sealed_histories(address: str) -> None:
    """Documents, env, inputs, results, memos and errors are in no history to be read."""
    performer = Large()
    performer.gate.set()
    text = document(
        "  - ask:\n      call: http\n      with: { method: get, endpoint: 'http://127.0.0.1:1/' }\n"
        "  - bad:\n"
        "      raise: { error: { type: 'https://e.org/bad', status: 400, title: '${ . }', detail: '${ . }' } }\n"
    ).replace("do:\n", "use: { secrets: [token] }\ndo:\n", 1)
    async with cluster_on(address) as cluster, cluster.engine({"call_http": performer}, keys=OLD) as engine:
        execution_id = f"{cluster.queue}-1"
        await engine.submit(
            submission(
                execution_id,
                text,
                # Its document names it a secret, which no history that is not sealed takes.
                env_vars={"token": OF_ENV},
                input_json=orjson.dumps({"n": SECRET}),
                metadata=SECRET.encode(),
            )
        )
        view = await ended(engine, execution_id)
        assert view.status == "failed"
        assert view.error is not None
        assert view.error["detail"] == SECRET
        await reported(cluster, execution_id)
        [history] = await histories(engine, [execution_id])
        kept = b"".join(event.SerializeToString() for event in history.events)
        for what in (SECRET, OF_ENV, "do:", "call_http", "e.org/bad"):
            assert what.encode() not in kept


async def test_keys_that_are_replaced(address: str) -> None:
    """With an earlier key among others everything is read; without a key nothing is."""
    async with (
        cluster_on(address) as cluster,
        cluster.engine(keys=OLD, works=False) as predecessor,
        cluster.engine(keys=NEW) as successor,
        cluster.engine(works=False) as without,
    ):
        execution_id = f"{cluster.queue}-1"
        await predecessor.submit(submission(execution_id))
        view = await ended(successor, execution_id)
        assert (view.status, orjson.loads(view.output_json)) == ("completed", {"b": 2})
        with pytest.raises(Unavailable, match="'new', which FASTRUNNER_TEMPORAL_KEY_FILE has not"):
            await predecessor.get(execution_id)
        with pytest.raises(Unavailable, match="give this runner the FASTRUNNER_TEMPORAL_KEY_FILE"):
            await without.get(execution_id)
        await reported(cluster, execution_id)


async def test_blobs_go_with_their_executions_alone(address: str, tmp_path: Path) -> None:
    """Those of an execution that Temporal has forgotten, and of none that is open or kept; nothing that is new."""
    from temporalio.converter import WorkflowSerializationContext

    from fastrunner.engine.temporal.codec import owner_of
    from fastrunner.engine.temporal.sweeping import Sweep

    store, now_ms = Directory(tmp_path), clock.wall_ms()
    later_ms = now_ms + (limits.BLOB_GRACE_DAYS + 1) * 24 * 3_600_000
    large = orjson.dumps({"n": "x" * limits.TEMPORAL_INLINE_SIZE_BYTES_MAX})
    registered = {"inner": document("  - one: { set: { a: '${ .n }' } }\n", "inner")}
    parent = document(
        "  - child: { run: { workflow: { namespace: tests, name: inner, version: 1.0.0, input: { n: '${ .n }' } } } }\n"
        "  - rest: { wait: { hours: 1 } }\n"
    )
    async with (
        cluster_on(address) as cluster,
        cluster.engine(blobs=store, documents=registered) as one,
    ):
        client = one._connection.client
        gone, open_, kept = (f"{cluster.queue}/{name}" for name in ("gone", "open", "kept"))
        for execution_id, text in ((open_, parent), (kept, SET)):
            await one.submit(submission(execution_id, text, input_json=large))
        await ended(one, kept)
        await reported(cluster, kept)
        await until_status(one, f"{open_}~1", "completed", timeout_s=60)  # type: ignore[arg-type]
        await client.data_converter.encode([large.decode()])
        # As of one that was deleted, which takes a server half a minute.
        of_gone = WorkflowSerializationContext("default", f"{gone}~2~1")
        await client.data_converter.with_context(of_gone).encode([large.decode()])

        async def unwanted(at_ms: int) -> set[str]:
            return {name.split("/", 2)[2].rpartition("/")[0] async for name in Sweep(client, store, at_ms).unwanted()}

        deadline_s = clock.monotonic_s() + 60
        while await unwanted(later_ms) != {owner_of(gone)}:
            assert clock.monotonic_s() < deadline_s, await unwanted(later_ms)
            await asyncio.sleep(0.2)
        assert await unwanted(now_ms) == set()
        assert {path.parent.name for path in blobs_in(tmp_path)} > {owner_of(open_), owner_of(kept), "shared"}
        await one.cancel(open_, "over", True)
        await ended(one, open_)
        await reported(cluster, open_)


async def test_much_that_is_begun_at_once(address: str) -> None:
    """Effects and children whose data together no message has room for begin one after the other, in replays, too."""
    each = "          - {0}: {{ call: http, with: {{ method: post, endpoint: 'http://e.org/', body: '${{ .n }}' }} }}\n"
    child = (
        "          - {0}: {{ run: {{ workflow: {{ namespace: tests, name: inner, version: 1.0.0, "
        "input: {{ n: '${{ .n }}' }} }} }} }}\n"
    )
    branches = "".join(each.format(f"a{number}") + child.format(f"b{number}") for number in range(4))
    text = document(f"  - all:\n      fork:\n        branches:\n{branches}")
    registered = {"inner": document("  - one: { set: { a: 1 } }\n", "inner")}
    performer = Large()
    performer.gate.set()
    async with (
        cluster_on(address) as cluster,
        cluster.engine({"call_http": performer}, documents=registered) as engine,
    ):
        execution_id = f"{cluster.queue}-1"
        await engine.submit(submission(execution_id, text, input_json=orjson.dumps({"n": "x" * 700_000})))
        assert (await ended(engine, execution_id)).status == "completed"
        assert len(performer.performed) == 4
        await reported(cluster, execution_id)
        [history] = await histories(engine, [execution_id])
        begun_size_bytes: dict[int, int] = {}
        for event in history.events:
            scheduled = event.activity_task_scheduled_event_attributes
            if scheduled.activity_type.name in ("fastrunner.perform", "fastrunner.prepare"):
                task = scheduled.workflow_task_completed_event_id
                begun_size_bytes[task] = begun_size_bytes.get(task, 0) + scheduled.ByteSize()
        assert len(begun_size_bytes) > 2
        assert max(begun_size_bytes.values()) < limits.TEMPORAL_TASK_SIZE_BYTES_MAX
        await replay([history])


async def test_data_that_no_payload_has_room_for(address: str, tmp_path: Path) -> None:
    """Are a failure of the task that has grown them, and none with a blob store."""
    grown = document(
        "  - grow: { set: { a: '${ [range(300000)] | map(\"abcd\") }' } }\n"
        "  - ask: { call: http, with: { method: post, endpoint: 'http://127.0.0.1:1/', body: '${ .a }' } }\n"
        "  - after: { set: { b: 1 } }\n"
    )
    async with cluster_on(address) as cluster:
        for number, store in enumerate((None, Directory(tmp_path))):
            async with cluster.engine(blobs=store) as engine:
                execution_id = f"{cluster.queue}-{number}"
                await engine.submit(submission(execution_id, grown))
                view = await ended(engine, execution_id)
                await reported(cluster, execution_id)
                assert view.status == ("failed" if store is None else "completed"), view.error
                assert store is not None or (view.error or {})["title"] == "Data Too Large"
