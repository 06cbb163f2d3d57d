"""Support: a program that writes a shard's file as a worker does, commit by commit, for tests of the copy elsewhere.

python -m tests.replica_writer FILE PAGES_MAX  <- {"rows": ..., "size": ...} per line  -> "done"
"""

import json
import random
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw

from fastrunner.engine.embedded.store.connection import connect
from fastrunner.engine.embedded.store.journal_keeper import JournalKeeper

SCHEMA = (
    "pragma journal_mode = wal; pragma synchronous = off; create table if not exists t (id integer primary key, value)"
)


class Writing:
    """A file that is written."""

    def __init__(self, path: Path, pages_max: int) -> None:
        self.db: apsw.Connection = connect(path)
        self.keeper = JournalKeeper.of(path, self.db, pages_max)
        self.db.execute(SCHEMA).fetchall()
        self.chance = random.Random(len(path.name))

    def commit(self, rows: int, size_bytes: int) -> None:
        """So many rows, most of them anywhere; some are deleted."""
        self.db.execute("begin immediate")
        for _ in range(rows):
            key = self.chance.randrange(400)
            self.db.execute("insert or replace into t values (?, ?)", (key, self.chance.randbytes(size_bytes)))
        self.db.execute("delete from t where id % 50 = ?", (self.chance.randrange(50),))
        self.db.execute("commit")
        if self.keeper is not None:
            self.keeper.committed()

    def content(self) -> list[Any]:
        """Every row."""
        return self.db.execute("select id, value from t order by id").fetchall()


def main(path: Path, pages_max: int) -> None:
    writing = Writing(path, pages_max)
    with closing(writing.db):
        print("ready", flush=True)
        for line in sys.stdin:
            for _ in range(json.loads(line)["commits"]):
                writing.commit(**json.loads(line)["each"])
            print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
