"""Support: sends what is committed in a data directory to the copy, again and again.

    once a second: where each file's journal stands now -> the frames since -> parts -> the store

Rules: a turn takes the places of all files before it reads any frame, in the order of a backup's transactions; what it
sends ends with a cut there, so that a copy is as consistent as a backup. It waits for the store, and nobody for it.
Where frames are gone another generation begins, and where somebody else has written to the one under way. One that has
become long is followed by another one, whose snapshot is sent while the old one goes on; what both need of kept
journals stays until then.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal, TypeVar

import apsw
import orjson

from fastrunner.base import limits
from fastrunner.base.clock import steady_ms
from fastrunner.blobs import BlobMissing, BlobStore
from fastrunner.counts.definitions import Metrics
from fastrunner.data.backup import files_in
from fastrunner.engine.embedded.store.connection import READ_ONLY, connect
from fastrunner.engine.embedded.store.manifest import MANIFEST_NAME, read_shard_count
from fastrunner.engine.embedded.store.statements import named
from fastrunner.errors import StorageFailed
from fastrunner.replica.journals import Broken, Journal, NotNow, Position
from fastrunner.replica.parts import FilePages, Part, name_of
from fastrunner.replica.retention import name_after, tidy
from fastrunner.replica.snapshots import Snapshot, discard, discard_all, take_snapshots
from fastrunner.replica.streams import Stream, as_json

__all__ = ["Shipper", "directory_of"]

_log = logging.getLogger(__name__)

_QUERIES: Final = named("inspect")
_SOON_S: Final = 0.2
_PATIENCE_MS: Final = 10_000
"""How long what is about to be made, such as a shard of a worker that starts, is no trouble."""
_FAILURES: Final = (NotNow, StorageFailed, OSError, apsw.Error)

T = TypeVar("T")
Reason = Literal["first", "gap", "renewed"]


def directory_of(manifest: str) -> str:
    """What a data directory is called in the copy: the same after a restore."""
    return sha256(f"replica {orjson.loads(manifest)['placement_key']}".encode()).hexdigest()[:16]


class Shipper:
    """Sends one data directory; made and used on one loop."""

    def __init__(
        self, folder: Path, url: str, store: BlobStore, metrics: Metrics, told: Callable[[str], object]
    ) -> None:
        """`told` hears why nothing can be sent, and an empty text when it can again."""
        self._folder = folder
        self._url = url
        self._store = store
        self._metrics = metrics
        self._told = told
        self._trouble = ""
        self._stream: Stream | None = None
        self._next_reason: Reason = "first"
        self._is_begun = False
        self._breaks = 0
        """How often in a row it had to begin anew."""
        self._renewing: asyncio.Task[Stream] | None = None
        self._held_ms = 0
        """Since when it has been put off, turn by turn; 0: it is not."""
        self._sent_ms = steady_ms()
        """Everything that was acknowledged before is in the copy; while nothing ever was, when this began."""
        self._alive_ms = 0
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Has `run` end once it has sent what is there now."""
        self._stopping.set()

    async def run(self) -> None:
        """Sends until told to stop. Where the store cannot be reached it goes on trying, until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            measuring = group.create_task(self._measure())
            try:
                is_last = False
                while not is_last:
                    is_stopping = self._stopping.is_set()
                    retry_s = await self._tried_turn()
                    is_last = is_stopping and retry_s is None
                    if not is_stopping:
                        with suppress(TimeoutError):
                            async with asyncio.timeout(limits.REPLICA_INTERVAL_S if retry_s is None else retry_s):
                                await self._stopping.wait()
                    elif retry_s is not None:
                        await asyncio.sleep(retry_s)
            finally:
                measuring.cancel()
                if self._renewing is not None:
                    self._renewing.cancel()

    async def _tried_turn(self) -> float | None:
        """A turn; in how many seconds another one is to make good for it, None if it has sent everything."""
        try:
            if not self._is_begun:
                await self._take_up()
                self._is_begun = True
            await self._turn()
        except Broken as error:
            _log.warning("the copy elsewhere begins anew: %s", error)
            self._drop_stream()
            self._breaks += 1
            return float(min(_SOON_S * 2**self._breaks, limits.REPLICA_RETRY_S_MAX))
        except _FAILURES as error:
            if not isinstance(error, NotNow):
                self._tell(str(error))
                return limits.REPLICA_INTERVAL_S
            self._held_ms = self._held_ms or steady_ms()
            if steady_ms() - self._held_ms > _PATIENCE_MS:
                self._tell(str(error))
            return _SOON_S
        self._breaks = self._held_ms = 0
        self._tell("")
        return None

    def _drop_stream(self) -> None:
        self._stream, self._next_reason = None, "gap"
        if self._renewing is not None:
            self._renewing.cancel()
            self._renewing = None

    def _tell(self, trouble: str) -> None:
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble:
            self._metrics.replica_troubles.inc()
            _log.error("nothing can be copied elsewhere: %s", trouble)
        else:
            _log.info("what is committed is copied elsewhere again")
        self._told(trouble)

    # --- turns ---

    async def _take_up(self) -> None:
        """Goes on with the generation that was noted, if the store has it as it was."""
        await asyncio.to_thread(self._prepare)
        stream = Stream.noted(self._folder, self._url, directory_of(await asyncio.to_thread(self._manifest)))
        if stream is None:
            return
        # How much there may be to lose is told whether it can be gone on with or not.
        # It was written by another clock, which may have gone wrong: what is behind must not look as if it were not.
        self._sent_ms, self._next_reason = min(stream.cut_ms, self._sent_ms), "gap"
        if await stream.take_up(self._store):
            self._stream = stream

    async def _turn(self) -> None:
        if self._stream is None:
            self._stream = await self._begun(self._next_reason)
            await tidy(self._store, self._stream)
        await self._send_changes(self._stream)
        if self._renewing is not None and self._renewing.done():
            renewing, self._renewing = self._renewing, None
            self._stream = renewing.result()
            await self._send_changes(self._stream)
            await tidy(self._store, self._stream)
        await self._say_alive(self._stream)
        if self._renewing is None:
            await asyncio.to_thread(self._forget, self._stream)
            if self._stream.is_old:
                self._renewing = asyncio.create_task(self._begun("renewed"))

    async def _begun(self, reason: Reason) -> Stream:
        """Another generation, with every page of every file. Raises _FAILURES."""
        manifest, now_ms = await asyncio.to_thread(self._manifest), steady_ms()
        directory = directory_of(manifest)
        stream = Stream.new(directory, await self._insist(lambda: name_after(self._store, directory, now_ms)))
        snapshots = await asyncio.to_thread(self._snapshots)
        _log.info("the copy elsewhere begins with %d files, as generation %s", len(snapshots), stream.generation)
        try:
            await self._put(stream.begun_name, b"")
            for snapshot in snapshots[:-1]:
                await self._send_snapshot(stream, snapshot, now_ms)
            await self._send_snapshot(stream, snapshots[-1], now_ms, manifest)
        finally:
            discard(snapshots)
        self._metrics.replica_generations.labels(reason).inc()
        await self._put(stream.alive_name, stream.alive(now_ms))
        return stream

    async def _send_snapshot(self, stream: Stream, snapshot: Snapshot, time_ms: int, manifest: str = "") -> None:
        """Parts with all pages of a file; the last of them is a cut if there is a manifest for it."""
        pieces = snapshot.pieces()
        while (pages := await asyncio.to_thread(next, pieces, None)) is not None:
            part = stream.part(time_ms)
            part.files[snapshot.name] = pages
            if snapshot.pages_count in pages.pages:
                part.positions, part.manifest = {snapshot.name: as_json(snapshot.position)}, manifest
            await self._send(stream, part)

    async def _send_changes(self, stream: Stream) -> None:
        """Everything that is committed now. Raises Broken, _FAILURES."""
        await self._send_new_files(stream)
        now_ms = steady_ms()
        manifest = await asyncio.to_thread(self._manifest)
        targets = await asyncio.to_thread(self._targets)
        if any(journal.path.name not in stream.positions for journal, _ in targets):
            # Made since: a cut without it would lack what others say that it has.
            return await self._send_changes(stream)
        part = stream.part(now_ms)
        size_bytes = 0
        for journal, target in targets:
            name = journal.path.name
            at = stream.positions[name]
            while at != target:
                room_bytes = limits.REPLICA_PART_SIZE_BYTES_MAX - size_bytes
                try:
                    piece = await asyncio.to_thread(journal.read, at, target, room_bytes)
                except Broken as error:
                    self._lose(stream, journal, error)
                    return await self._send_changes(stream)
                at = piece.end
                pages = part.files.setdefault(name, FilePages(piece.page_size_bytes))
                pages.pages.update(piece.pages)
                pages.pages_count = piece.pages_count
                part.positions[name] = as_json(at)
                size_bytes = sum(each.size_bytes for each in part.files.values())
                if size_bytes >= limits.REPLICA_PART_SIZE_BYTES_MAX:
                    await self._send(stream, part)
                    part, size_bytes = stream.part(now_ms), 0
        if part.files or stream.has_uncut_parts or manifest != stream.manifest:
            part.manifest = manifest
            await self._send(stream, part)
        self._sent_ms = now_ms
        return None

    async def _send_new_files(self, stream: Stream) -> None:
        """Files that have come since the generation began, whole. Raises Broken for one that is too large."""
        for path in await asyncio.to_thread(self._paths):
            if path.name in stream.positions:
                continue
            if path.stat().st_size > limits.REPLICA_WHOLE_SIZE_BYTES_MAX:
                raise Broken(f"{path.name} is new, and too large to be sent among the others")
            snapshots = await asyncio.to_thread(take_snapshots, [path])
            try:
                await self._send_snapshot(stream, snapshots[0], steady_ms())
            finally:
                discard(snapshots)

    def _lose(self, stream: Stream, journal: Journal, error: Broken) -> None:
        """Has a file be sent whole. Raises Broken if it is too large: another generation begins then."""
        if journal.path.stat().st_size > limits.REPLICA_WHOLE_SIZE_BYTES_MAX:
            raise error
        _log.warning("%s is sent whole to the copy elsewhere: %s", journal.path.name, error)
        del stream.positions[journal.path.name]

    # --- the store ---

    async def _send(self, stream: Stream, part: Part) -> None:
        data = await asyncio.to_thread(part.encode)
        await self._put_part(name_of(stream.directory, stream.generation, part.number), data)
        stream.stored(part, data)
        self._metrics.replica_parts.inc()
        self._metrics.replica_bytes.inc(len(data))
        if stream.cut_ms:
            await asyncio.to_thread(stream.note, self._folder, self._url)

    async def _put(self, name: str, data: bytes) -> None:
        """Has the store take an object, whenever it does."""
        await self._insist(lambda: self._store.put(name, data))

    async def _put_part(self, name: str, data: bytes) -> None:
        """The same for what is written once. Raises Broken if somebody else has."""
        if await self._insist(lambda: self._store.put_new(name, data)):
            return
        # What was sent before, and not answered, may have arrived.
        if await self._insist(lambda: self._there(name)) != data:
            raise Broken(f"{name} was written by somebody else: by a runner on a copy of this data directory, maybe")

    async def _there(self, name: str) -> bytes:
        try:
            return (await self._store.get(name)).data
        except BlobMissing:
            return b""

    async def _insist(self, action: Callable[[], Awaitable[T]]) -> T:
        """Does something with the store again and again until it has been done."""
        delay_s = _SOON_S
        while True:
            try:
                done = await action()
            except StorageFailed as error:
                self._tell(str(error))
            else:
                self._tell("")
                return done
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, limits.REPLICA_RETRY_S_MAX)

    async def _say_alive(self, stream: Stream) -> None:
        """Says until when everything is in there. Raises Broken if somebody has taken the copy away."""
        if self._sent_ms - self._alive_ms < 1000 * limits.REPLICA_ALIVE_INTERVAL_S:
            return
        if not await stream.is_in(self._store):
            raise Broken(f"generation {stream.generation} is not in the store any more")
        await self._put(stream.alive_name, stream.alive(self._sent_ms))
        self._alive_ms = self._sent_ms

    # --- the files; in threads ---

    def _manifest(self) -> str:
        return (self._folder / MANIFEST_NAME).read_text(encoding="utf-8")

    def _paths(self) -> list[Path]:
        """Raises NotNow until every shard has been made."""
        shard_count = read_shard_count(self._folder)
        for number in range(shard_count):
            if not (self._folder / f"shard-{number:04d}.db").exists():
                raise NotNow(f"shard {number} is yet to be made")
        return [path for path in files_in(self._folder, shard_count) if path.stat().st_size]

    def _snapshots(self) -> list[Snapshot]:
        """Of all files. Raises NotNow if another one has been made meanwhile."""
        paths = self._paths()
        snapshots = take_snapshots(paths)
        if self._paths() != paths:
            discard(snapshots)
            raise NotNow("another file has been made while the others were copied")
        return snapshots

    def _targets(self) -> list[tuple[Journal, Position]]:
        journals = [Journal(path) for path in self._paths()]
        return [(journal, journal.committed()) for journal in journals]

    def _prepare(self) -> None:
        discard_all(self._folder)
        self._make_indexes()

    def _make_indexes(self) -> None:
        """Of files that nobody may open for long; those of shards are their owners'."""
        for path in self._folder.glob("*.db"):
            journal = path.with_name(f"{path.name}-wal")
            if not path.name.startswith("shard-") and journal.exists() and journal.stat().st_size:
                with closing(connect(path, READ_ONLY)) as db:
                    db.execute(_QUERIES["schema_version"]).fetchall()

    def _forget(self, stream: Stream) -> None:
        for name, position in stream.positions.items():
            Journal(self._folder / name).forget(position)

    # --- how far it is behind ---

    async def _measure(self) -> None:
        while True:
            now_ms = steady_ms()
            with suppress(NotNow, OSError):
                behind_bytes = await asyncio.to_thread(self._behind_bytes, self._stream)
                if not behind_bytes:
                    self._sent_ms = max(self._sent_ms, now_ms)
                self._metrics.replica_lag_bytes.set(behind_bytes)
            self._metrics.replica_lag_seconds.set(max(0, steady_ms() - self._sent_ms) / 1000)
            await asyncio.sleep(limits.REPLICA_INTERVAL_S)

    def _behind_bytes(self, stream: Stream | None) -> int:
        """What is committed and not in the copy; 0 only if that is a cut. Raises NotNow, OSError."""
        size_bytes = 0 if stream is not None and not stream.has_uncut_parts else 1
        for path in self._paths():
            at = None if stream is None else stream.positions.get(path.name)
            if at is None:
                size_bytes += path.stat().st_size
            else:
                journal = Journal(path)
                size_bytes += journal.behind_bytes(at, journal.committed())
        return size_bytes
