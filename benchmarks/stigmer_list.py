"""Support: how quickly a Stigmer Service with a full store on SQLite answers lists and counts, over HTTP.

    python -m benchmarks.stigmer_list --executions 1000000 --rounds 40 [--folder FOLDER]

The store is filled once, by direct inserts: 300 versions of workflows in ten namespaces, some of them executed often
and most of them rarely, nearly all executions completed, what failed long ago or now and then, a few that run. Then
each filter that a console can set is asked for in turn, first page and a page in the middle, and the counts beside it.
With `--folder` the store stays, and is used again.
"""

import argparse
import asyncio
import contextlib
import json
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import apsw

from fastrunner.base.clock import monotonic_s, wall_ms
from fastrunner.stigmer.store.sqlite import FILE_NAME, SqliteStore
from tests.integration.stigmer import ServiceProcess

NAMESPACES = 10
NAMES = 10
"""Of workflows in each."""
VERSIONS = ("1.0.0", "1.1.0", "2.0.0")
BATCH = 20_000
PAGE = 50
FILTERS: tuple[dict[str, str], ...] = (
    {},
    {"status": "completed"},
    {"status": "failed"},
    {"status": "running"},
    {"status": "cancelled"},
    {"namespace": "n0"},
    {"namespace": "n9"},
    {"namespace": "n9", "status": "failed"},
    {"namespace": "n0", "name": "w0"},
    {"namespace": "n9", "name": "w9"},
    {"namespace": "n0", "name": "w0", "status": "failed"},
    {"namespace": "n9", "name": "w9", "version": "2.0.0"},
    {"name": "w9"},
    {"name": "w9", "status": "running"},
    {"version": "2.0.0", "status": "failed"},
    {"namespace": "n0", "version": "9.9.9"},
)
"""What a console can ask for; the last finds nothing."""


def rows_of(first: int, count: int, total: int, chance: random.Random) -> Iterator[tuple[Any, ...]]:
    """Executions as the store has them."""
    now_ms = wall_ms()
    for number in range(first, first + count):
        # The first names are executed most, the last ones hardly ever.
        namespace = min(int(chance.expovariate(0.7)), NAMESPACES - 1)
        name = min(int(chance.expovariate(0.5)), NAMES - 1)
        version = VERSIONS[min(int(chance.expovariate(1.0)), len(VERSIONS) - 1)]
        at_ms = now_ms - (total - number) * 1000
        status = "completed"
        if number > total - 200:
            status = "running"
        elif (number < total // 10 and chance.random() < 0.02) or chance.random() < 0.0005:
            status = "failed"
        elif number < 100:
            status = "cancelled"
        has_ended = status != "running"
        yield (
            number, f"execution-{number:08d}", f"n{namespace}", f"w{name}", version, '{"team":"billing"}', at_ms,
            status, 12, 12, at_ms, at_ms + 900, at_ms + 900 if has_ended else 0,
            now_ms + 2_592_000_000 if has_ended else 0,
            '{"answer":42}' if status == "completed" else "",
        )  # fmt: skip


async def fill(folder: Path, executions: int) -> None:
    """Makes the store, unless it is there."""
    if (folder / FILE_NAME).exists():
        return
    store = SqliteStore(folder, retention_s=2_592_000.0)
    await store.open()
    await store.close()
    chance = random.Random(7)
    db = apsw.Connection(str(folder / FILE_NAME))
    db.execute("pragma synchronous = off")
    for first in range(1, executions + 1, BATCH):
        with db:
            db.executemany(
                "insert into executions (number, id, namespace, name, version, labels_json, created_ms, launch,"
                " asked_hash, request, status, last_sequence, stored_sequence, started_ms, updated_ms, ended_ms,"
                " expires_ms, output_json) values (?, ?, ?, ?, ?, ?, ?, 'accepted', x'', x'', ?, ?, ?, ?, ?, ?, ?, ?)",
                rows_of(first, min(BATCH, executions + 1 - first), executions, chance),
            )
    with db:
        db.execute(
            "insert into counters select namespace, name, version, status, count(*) from executions"
            " group by namespace, name, version, status"
        )
    db.close()


async def measure(port: int, executions: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of each question, and of all of them."""
    took: dict[str, list[float]] = {}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}/api/v1/") as session:

        async def ask(kind: str, path: str, **query: str) -> Any:
            began_s = monotonic_s()
            async with session.get(path, params=query) as reply:
                body = await reply.json()
            took.setdefault(kind, []).append((monotonic_s() - began_s) * 1e3)
            assert reply.status == 200, body
            return body

        for _ in range(rounds):
            for which in FILTERS:
                says = " ".join(f"{key}={value}" for key, value in which.items()) or "everything"
                page = await ask(f"list {says}", "executions", count=str(PAGE), **which)
                counts = await ask(f"counts {says}", "counts", **which)
                assert len(page["executions"]) == min(PAGE, counts["total"]), (which, counts)
                middle = await ask(
                    f"middle {says}", "executions", count=str(PAGE), before=str(executions // 2), **which
                )
                assert all(each[key] == value for each in middle["executions"] for key, value in which.items())
    everything = sorted(each for kind in took.values() for each in kind)
    slowest = sorted(((_p95(sorted(each)), kind) for kind, each in took.items()), reverse=True)
    return {
        "executions": executions,
        "questions": len(everything),
        "p50_ms": round(everything[len(everything) // 2], 1),
        "p95_ms": round(_p95(everything), 1),
        "slowest_p95_ms": {kind: round(each, 1) for each, kind in slowest[:8]},
    }


def _p95(ordered: list[float]) -> float:
    return ordered[len(ordered) * 95 // 100]


def main() -> None:
    """Measures, and prints a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executions", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=40, help="how often each question is asked")
    parser.add_argument("--folder", type=Path, help="where the store is, or is to be; default: a new one, for once")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stigmer-list-")))
        folder.mkdir(parents=True, exist_ok=True)
        began_s = monotonic_s()
        asyncio.run(fill(folder, arguments.executions))
        filled_s = monotonic_s() - began_s
        service = ServiceProcess(folder, "127.0.0.1:1")
        stack.callback(service.kill)
        found = asyncio.run(measure(service.http_port, arguments.executions, arguments.rounds))
        print(json.dumps({"at": time.strftime("%FT%TZ", time.gmtime()), "filled_s": round(filled_s, 1), **found}))


if __name__ == "__main__":
    main()
