"""Support: writes the golden files of this version's formats; run once for each new schema version, never again.

    python -m tests.golden.make

`shard-v<schema version>.db.gz` is a whole shard with executions in every state a reader must cope with. Times, digests,
seeds and the runner's version, which snapshots keep, are fixed, so that a second run gives the same rows, with a later
release too; files of older versions are not touched.

`format-1.tar.gz` is a data directory of format 1, as a runner with two shards wrote it in which ids said by their hash
where executions live.
"""

import asyncio
import gzip
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

import apsw

from fastrunner import _version
from fastrunner._core import ExternalResource
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import Definition, DefinitionRef
from fastrunner.engine.embedded.store.statements import SCHEMA_VERSION
from fastrunner.tracing.context import TraceContext
from fastrunner.tracing.span import Span
from fastrunner.tracing.tracer import Answer, Sampler, Tracer
from tests.integration.engines import (
    CALL,
    SET,
    WAIT,
    Performer,
    document,
    engine_on,
    send,
    submission,
    until,
    until_status,
)

FOLDER = Path(__file__).parent
NOW_MS = 1_800_000_000_000
"""When everything in the files happened: 2027-01-15T08:00:00Z."""

RUNNER_VERSION = "1.2.3"
"""Which runner the files say wrote them."""

POST = document(
    "  - each:\n      for: {each: item, in: '${ .a }'}\n      do:\n        - send:\n            call: http\n"
    "            with: {method: post, endpoint: 'http://127.0.0.1:1/{x}', body: {item: '${ $item }', all: '${ . }'}}\n"
)
"""Its effect has arguments made of a variable and of data."""

ROW = "a row of a table that is large enough for its parts to be stored elsewhere, in pieces, each under its hash"
LARGE = document(
    f"  - make:\n      set: {{rows: '${{ [range(300) | {{row: ., text: \"{ROW}\"}}] }}'}}\n"
    "  - rest:\n      wait: {milliseconds: 200}\n"
)
"""Its state is divided; see large_values.py."""
DESCRIBED = WAIT.replace("  version: '1.0.0'\n", "  version: '1.0.0'\n  metadata: {owner: {name: Ada}}\n")
"""A document that says something of itself."""
LARGE_INPUT = b'{"text": "' + b"0123456789" * 3_500 + b'"}'


RUN = document(
    "  - sub:\n      run: {workflow: {namespace: tests, name: child, version: latest, input: {a: '${ . }'}}}\n"
)
"""Its child waits for an effect."""


FAR = document("  - rest:\n      wait: {milliseconds: 200}\n  - then:\n      call: https://host.test/function.yaml\n")
"""Its function was fetched."""


HEAR = document("  - hear:\n      listen: {to: {one: {with: {type: t, data: '${ .n == 1 }'}}}}\n")
"""It waits for an event."""


class _Resources:
    """Has one text for all URLs."""

    async def fetch(self, wanted: Sequence[ExternalResource]) -> Mapping[str, str]:
        return {resource.reference: "set: {far: true}" for resource in wanted}

    async def close(self) -> None:
        pass


class _Registry:
    """Has one workflow."""

    def find(self, ref: DefinitionRef) -> Definition:
        return Definition(
            DefinitionRef(ref.namespace, ref.name, "1.0.0"), NOW_MS, True, CALL.replace("name: test", "name: child")
        )


TRACED = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", True, "vendor=a")
"""Where the caller of one is, which has spans that no collector has taken."""


class _Away:
    """A collector that takes nothing."""

    def export(self, spans: Sequence[Span]) -> Answer:
        return Answer(is_final=False)

    def close(self) -> None:
        pass


async def fill(path: Path) -> None:
    """Executions that are finished, failed, waiting for an effect or a timer, and paused."""
    with mock.patch.object(_version, "__version__", RUNNER_VERSION):
        await _fill(path)


async def _fill(path: Path) -> None:
    performer = Performer()
    settings: dict[str, Any] = {"listener": lambda row: None, "wall_ms": lambda: NOW_MS, "definitions": _Registry()}
    settings["resources"] = _Resources()
    settings["tracer"] = Tracer(Sampler(ratio=0, is_parent_based=True), _Away, Metrics())
    async with engine_on(path, performer, **settings) as engine:
        await engine.submit(submission("finished", SET, metadata=b"\x0a\x00"))
        await engine.submit(submission("failed", CALL.replace("{kept: true}", "'${ error(\"no\") }'")))
        await until(lambda: len(performer.performed) == 1, "the effect to start")
        performer.gate.set()
        await until_status(engine, "failed", "failed")
        performer.gate.clear()
        await engine.submit(submission("calling", CALL, input_json=b'{"a": [1, 2.5, "\\u00e9"]}', env_vars={"K": "v"}))
        await engine.submit(submission("waiting", WAIT, debug=True, silent=True))
        await engine.submit(submission("paused", DESCRIBED, labels={"team": "a", "order": "7"}))
        await engine.pause("paused", "for the archive")
        await until(lambda: len(performer.performed) == 2, "the effect to start")
        engine.outbox.acknowledge("finished", 3)
        await engine.submit(submission("large", LARGE, input_json=LARGE_INPUT, client="a-client"))
        await engine.submit(submission("result", LARGE.partition("  - rest")[0]))
        await engine.submit(submission("posting", POST, input_json=b'{"a": [1, 2.5], "x": "y"}'))
        await until(lambda: len(performer.performed) == 3, "the effect to start")
        await engine.submit(submission("parent", RUN))
        await until(lambda: len(performer.performed) == 4, "the child's effect to start")
        await engine.submit(submission("far", FAR))
        await engine.submit(submission("hearing", HEAR.replace("== 1", "== 2")))
        await engine.submit(submission("told", HEAR))
        await engine.pause("told", "")
        await send(engine, {"id": "e", "data": {"n": 1}})
        await until(lambda: engine._metrics.events_matched.value == 1, "the event to be found")
        await engine.submit(submission("traced", SET, trace=TRACED))
        await engine.submit(submission("last", SET))
        await until(lambda: _acknowledged(engine), "the acknowledgement")


def _acknowledged(engine: object) -> bool:
    shard = engine._shards.by_number[0]  # type: ignore[attr-defined]
    return bool(shard.store.view("finished").acknowledged_sequence == 3)


def main() -> None:
    path = Path(tempfile.mkdtemp())
    try:
        asyncio.run(fill(path))
        with closing(apsw.Connection(str(path / "shard-0000.db"))) as db:
            db.execute("pragma journal_mode = delete")
            db.execute("vacuum")
        data = (path / "shard-0000.db").read_bytes()
    finally:
        shutil.rmtree(path)
    target = FOLDER / f"shard-v{SCHEMA_VERSION}.db.gz"
    target.write_bytes(gzip.compress(data, 9, mtime=0))
    print(f"{target.name}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
