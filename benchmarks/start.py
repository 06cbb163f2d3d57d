"""Support: how long a shard with many finished executions takes to be opened, and the table of places to know its ids.

    python -m benchmarks.start --executions 1000000

Makes the shard by multiplying one finished execution, then opens it with a worker's engine: as at a start after a kill,
when the table is empty, and as a successor, when the table has the ids already.
"""

import argparse
import asyncio
import os
import secrets
import shutil
import tempfile
from contextlib import closing
from pathlib import Path

import apsw
import orjson

from fastrunner.base.clock import monotonic_s
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import Submission
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.processes.shared import Shared
from fastrunner.routing.placement import Places

_DOCUMENT = """\
document: {dsl: 1.0.3, namespace: bench, name: one, version: 1.0.0}
do:
- one: {set: {n: 1}}
"""
_MULTIPLY = """
with recursive numbers(n) as (select 2 union all select n + 1 from numbers where n < ?)
insert into executions ({columns}) select {values} from numbers, executions where execution_key = 1
"""
_ID_SIZE_BYTES = 16


async def _finish_one(engine: EmbeddedEngine) -> None:
    await engine.start()
    value = {"n": 0}
    await engine.submit(Submission("first", _DOCUMENT, orjson.dumps(value), value, {}, b"", 0, False))
    await engine.drain(1.0)


def _multiply(file: Path, count: int) -> None:
    """Gives the shard as many executions as that, with ids like UUIDs."""
    with closing(apsw.Connection(str(file))) as db:
        columns = [row[1] for row in db.execute("pragma table_info(executions)")]
        own = {"execution_key": "n", "execution_id": f"lower(hex(randomblob({_ID_SIZE_BYTES})))"}
        values = ", ".join(own.get(column, column) for column in columns)
        db.execute(_MULTIPLY.format(columns=", ".join(columns), values=values), (count,))
        db.execute("update plans set uses = ?", (count,))


async def _open(engine: EmbeddedEngine) -> float:
    """How long it took, in seconds."""
    began_s = monotonic_s()
    await engine.open()
    took_s = monotonic_s() - began_s
    await engine.drain(1.0)
    return took_s


def _forget_cached(file: Path) -> None:
    """The file is read from the disk again, as far as the kernel does as it is asked."""
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--executions", type=int, default=1_000_000)
    parser.add_argument("--data-dir", type=Path, default=None, help="a folder on the disk to measure (a temporary one)")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fastrunner-start-", dir=arguments.data_dir))
    config, key = Config(data_dir=folder, retention_count=10**9), secrets.token_bytes(16)

    def engine_of(places: Places) -> EmbeddedEngine:
        return EmbeddedEngine(config, Metrics(), {}, places=places)

    try:
        asyncio.run(_finish_one(engine_of(Shared.create(1, 1, key).places(0, 1))))
        file = folder / "shard-0000.db"
        _multiply(file, arguments.executions)
        again = Shared.create(1, 1, key)
        for how, shared in (("start, cold", Shared.create(1, 1, key)), ("start", again), ("successor", again)):
            if how == "start, cold":
                _forget_cached(file)
            took_s = asyncio.run(_open(engine_of(shared.places(0, 1))))
            entries, size_bytes, _ = shared.places(0, 1).table.usage()
            print(f"{how}: {took_s:.2f} s, {entries} ids in {size_bytes / 2**20:.0f} MiB of the table")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
