"""Stigmer Services that share a database: what one takes the other shows, with Redis and without, and whoever dies."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import pytest
from redis.asyncio import Redis

from fastrunner.base import limits
from fastrunner.base.clock import wall_ms
from fastrunner.stigmer.fanout import CHANNEL
from fastrunner.stigmer.server import CannotServe, ServiceOptions, StigmerService
from fastrunner.stigmer.store import Arrived
from fastrunner.stigmer.store.mongodb.store import MongoStore
from tests.integration.stigmer import (
    SMALL,
    Client,
    Reporter,
    ScriptedRunner,
    ServiceProcess,
    event,
    service,
    until,
    verified,
)
from tests.mongodb import MongoServer, fresh_url
from tests.redis import RedisServer, redis_server
from tests.unit.stigmer_deaths import Died, Life, bound
from tests.unit.stigmer_stores import opened

Served = tuple[StigmerService, Reporter, Client]
START = {"workflow": {"namespace": "tests", "name": "small"}}


@pytest.fixture(scope="module")
def shared_redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def url(mongo_url: str) -> str:
    return fresh_url(mongo_url)


def replica(url: str, redis: RedisServer | None = None, runner_port: int = 1, **more: Any) -> Any:
    """A service of the database."""
    redis_url = redis.url if redis is not None else None
    return service(Path("/nowhere"), runner_port, mongodb_url=url, redis_url=redis_url, **more)


@contextlib.asynccontextmanager
async def replicas(url: str, redis: RedisServer | None = None, **more: Any) -> AsyncIterator[tuple[Served, Served]]:
    """Two of them, who hear each other."""
    one: AbstractAsyncContextManager[Served] = replica(url, redis, **more)
    other: AbstractAsyncContextManager[Served] = replica(url, redis, **more)
    async with one as first, other as second:
        if redis is not None:
            await hears(first[0])
            await hears(second[0])
        yield first, second


async def hears(served: StigmerService) -> None:
    async def is_up() -> bool:
        return bool(served.metrics.fanout_up.value == 1)

    await until(is_up, "Redis is there")


async def follows(served: StigmerService, count: int = 1) -> None:
    async def follow() -> bool:
        return served._followers.count == count

    await until(follow, f"{count} follow")


def plain(redis: RedisServer) -> Any:
    """A client that has nothing to do with the services."""
    return Redis.from_url(redis.url, protocol=2, decode_responses=True)


def ids(found: list[dict[str, Any]]) -> list[int]:
    return [int(each["id"]) for each in found if "id" in each]


async def test_what_one_takes_the_other_shows_at_once(
    url: str, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Redis alone: nobody looks at the store by itself."""
    monkeypatch.setattr(limits, "STIGMER_FOLLOWED_INTERVAL_S", 3600.0)
    monkeypatch.setattr(limits, "STIGMER_HEARD_MAX", 1)
    async with replicas(url, shared_redis) as ((_, reporter, here), (there, _, client)):
        assert await reporter.send(event("e", 1, "workflow_started")) == {"e": 1}
        async with client.feed() as changes:
            assert (await anext(changes))["event"] == "begin"
            following = [asyncio.create_task(each.follow("e")) for each in (client, here)]
            await follows(there, 2)
            for sequence in range(2, 6):
                await reporter.send(event("e", sequence))
            await reporter.send(event("e", 6, "workflow_completed"))
            assert [ids(each) for each in await asyncio.gather(*following)] == [[1, 2, 3, 4, 5, 6]] * 2
            async for change in changes:
                if change["data"]["execution"]["status"] == "completed":
                    break
        status, execution = await client.get("/executions/e")
        assert (status, execution["status"], execution["last_sequence"]) == (200, "completed", 6)


async def test_without_redis_it_is_shown_a_moment_later(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STIGMER_FOLLOWED_INTERVAL_S", 0.02)
    monkeypatch.setattr(limits, "STIGMER_FOLLOWED_BATCH_MAX", 1)
    async with replicas(url) as ((_, reporter, _), (there, _, client)):
        await reporter.send(event("e", 1, "workflow_started"), event("other", 1, "workflow_started"))
        following = [asyncio.create_task(client.follow(each)) for each in ("e", "other")]
        await follows(there, 2)
        for sequence in (2, 3):
            await reporter.send(event("e", sequence), event("other", sequence))
        await reporter.send(event("e", 4, "workflow_failed"), event("other", 4, "workflow_completed"))
        assert [ids(each) for each in await asyncio.gather(*following)] == [[1, 2, 3, 4]] * 2


async def test_what_was_kept_and_not_said_is_found(
    url: str, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a service that dies between the two."""
    monkeypatch.setattr(limits, "STIGMER_FOLLOWED_INTERVAL_S", 0.05)
    async with replica(url, shared_redis) as (there, _, client), replica(url) as (_, reporter, _):
        await reporter.send(event("e", 1, "workflow_started"))
        following = asyncio.create_task(client.follow("e"))

        async def was_told() -> bool:
            return bool(there._followers.told_of("e") == 1)

        await until(was_told, "it has looked once")
        await reporter.send(event("e", 2, "workflow_completed"))
        assert ids(await following) == [1, 2]
        assert there.metrics.followers_late.value >= 1


async def test_redis_may_be_away_and_come_back(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost meanwhile; who follows everything begins anew."""
    monkeypatch.setattr(limits, "STIGMER_FOLLOWED_INTERVAL_S", 0.05)
    monkeypatch.setattr(limits, "STIGMER_REDIS_PAUSE_S", 0.05)
    with redis_server() as redis:
        async with replicas(url, redis) as ((here, reporter, _), (there, _, client)):
            await reporter.send(event("e", 1, "workflow_started"))
            following = asyncio.create_task(client.follow("e"))
            await follows(there)
            async with client.feed() as changes:
                cursor = (await anext(changes))["id"]
                redis.kill()
                await reporter.send(event("e", 2))
                # It ends, and whoever comes again is told to list anew.
                assert [each["event"] async for each in changes if each["event"] != "change"] == []
            async with client.feed(f"?after={cursor}") as changes:
                assert (await anext(changes))["event"] == "reset"
            redis.start()
            await hears(here)
            await hears(there)
            await reporter.send(event("e", 3), event("e", 4, "workflow_completed"))
            assert ids(await following) == [1, 2, 3, 4]


async def test_a_redis_that_hangs_is_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STIGMER_REDIS_CALL_S_MAX", 0.1)
    monkeypatch.setattr(limits, "STIGMER_REDIS_WAIT_S", 0.1)
    with redis_server() as redis:
        async with replica(url, redis) as (here, _, _):
            await hears(here)
            with redis.stopped():

                async def is_down() -> bool:
                    return bool(here.metrics.fanout_up.value == 0)

                await until(is_down, "it is noticed")
            await hears(here)


async def test_news_that_wait_for_redis_are_bounded(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STIGMER_UNSAID_MAX", 2)
    monkeypatch.setattr(limits, "STIGMER_REDIS_PAUSE_S", 0.05)
    redis = RedisServer()
    async with replica(url, redis) as (here, reporter, _):
        for number in range(5):
            await reporter.send(event(f"e{number}", 1))
        assert here.metrics.fanout_dropped.value == 3
        redis.start()
        try:
            async with plain(redis) as client:

                async def is_said() -> bool:
                    found = [await client.xrange(key) for key in await client.keys("{stigmer}:told:*")]
                    said = {fields["execution"] for rows in found for _, fields in rows}
                    return said == {"e3", "e4"}

                await until(is_said, "the latest are said")
        finally:
            redis.kill()


async def test_streams_keep_about_so_much(url: str, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STIGMER_STREAM_LENGTH", 10)
    async with (
        replica(url, shared_redis) as (_, reporter, _),
        plain(shared_redis) as client,
    ):
        await client.flushall()
        await client.config_set("stream-node-max-entries", 10)

        async def is_said(sequence: int) -> bool:
            keys = await client.keys("{stigmer}:told:*")
            rows = [await client.xrevrange(key, count=1) for key in keys]
            return {"execution": "e", "last_sequence": str(sequence)} in [row[0][1] for row in rows if row]

        for sequence in range(1, 41):
            await reporter.send(event("e", sequence))
            await until(lambda sequence=sequence: is_said(sequence), "it is said")  # type: ignore[misc]
        [key] = await client.keys("{stigmer}:told:*")
        # Redis forgets whole nodes.
        assert 10 <= await client.xlen(key) < 30


async def test_everybody_may_be_told_by_plain_channels(url: str, shared_redis: RedisServer) -> None:
    async with (
        replica(url, shared_redis, redis_publish=True) as (_, reporter, _),
        plain(shared_redis) as client,
        client.pubsub() as listener,
    ):
        await listener.subscribe(f"{CHANNEL}e")
        await reporter.send(event("e", 1), event("other", 1))
        await reporter.send(event("e", 2, "workflow_completed"))
        async for message in listener.listen():
            if message["type"] == "message" and json.loads(message["data"])["last_sequence"] == 2:
                assert json.loads(message["data"]) == {"execution": "e", "last_sequence": 2}
                break


async def test_what_one_has_recorded_another_has_started(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner may be asked by both, and takes it as one."""
    monkeypatch.setattr(limits, "STIGMER_LAUNCH_LOOK_INTERVAL_S", 0.05)
    monkeypatch.setattr(limits, "API_START_WAIT_S_MAX", 0.01)
    async with ScriptedRunner().serving() as runner, replica(url, runner_port=runner.port) as (_, _, there):
        async with replica(url) as (_, _, here):
            assert (await here.post("/workflows", {"document": SMALL}))[0] == 201
            for number in range(3):
                assert (await here.post("/executions", {**START, "id": f"e{number}"}))[0] == 202

            async def are_accepted() -> bool:
                _, page = await there.get("/executions")
                return [each["launch"] for each in page["executions"]] == ["accepted"] * 3

            await until(are_accepted, "the other one has asked the runner")
        assert set(runner.ids) == {"e0", "e1", "e2"}
        assert len({call.SerializeToString() for calls in runner.calls for call in calls}) == 3


async def test_a_store_that_hangs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STIGMER_STORE_CALL_S_MAX", 1.0)
    mongo = MongoServer().start()
    try:
        async with replica(fresh_url(mongo.url)) as (_, reporter, _):
            assert await reporter.send(event("e", 1, "workflow_started")) == {"e": 1}
            with mongo.stopped(), pytest.raises(grpc.aio.AioRpcError, match="MongoDB cannot be used"):
                await reporter.send(event("e", 2))

            async def is_taken() -> bool:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    return bool(await reporter.send(event("e", 2)) == {"e": 2})
                return False

            await until(is_taken, "it goes on")
    finally:
        mongo.kill()


async def test_a_store_that_is_away_is_told_and_comes_back(tmp_path: Path) -> None:
    mongo = MongoServer(tmp_path / "store").start()
    served = ServiceProcess(tmp_path, "127.0.0.1:1", FASTRUNNER_STIGMER_MONGODB_URL=mongo.url)
    try:
        async with (
            grpc.aio.insecure_channel(f"127.0.0.1:{served.grpc_port}") as channel,
            aiohttp.ClientSession() as session,
        ):
            reporter, client = Reporter(channel), Client(session, served.http_port)
            assert await reporter.send(event("e", 1, "workflow_started")) == {"e": 1}
            mongo.kill()
            with pytest.raises(grpc.aio.AioRpcError, match="MongoDB cannot be used") as refusal:
                await reporter.send(event("e", 2))
            assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE

            async def is_ready(ready: bool) -> bool:
                async with session.get(f"{client.base}/readyz") as reply:
                    return bool((await reply.json())["ready"] is ready)

            await until(lambda: is_ready(False), "it says so")
            mongo.start()
            await until(lambda: is_ready(True), "it is back")
            assert await reporter.send(event("e", 2), event("e", 3, "workflow_completed")) == {"e": 3}
            assert ids(await client.follow("e")) == [1, 2, 3]
    finally:
        served.kill()
        mongo.kill()


def test_a_database_that_is_not_there_is_told_without_the_password(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fastrunner", "stigmer", "verify"]
    variables = {"FASTRUNNER_STIGMER_MONGODB_URL": "mongodb://me:secret-word@127.0.0.1:1/stigmer"}
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, **variables}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "MongoDB cannot be used" in done.stderr
    assert "127.0.0.1:1" in done.stderr
    assert "secret-word" not in done.stdout + done.stderr


def test_the_command_serves_and_verifies_a_database(tmp_path: Path, url: str, shared_redis: RedisServer) -> None:
    of_redis = shared_redis.url
    served = ServiceProcess(
        tmp_path / "unused", "127.0.0.1:1", FASTRUNNER_STIGMER_MONGODB_URL=url, FASTRUNNER_STIGMER_REDIS_URL=of_redis
    )
    assert served.stop() == 0
    assert not (tmp_path / "unused").exists()
    assert verified(tmp_path, FASTRUNNER_STIGMER_MONGODB_URL=url) == (
        0,
        {"executions": 0, "events": 0, "unfinished": 0, "findings": 0},
        [],
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"redis_url": "redis://localhost"},
            "FASTRUNNER_STIGMER_REDIS_URL is set without FASTRUNNER_STIGMER_MONGODB_URL",
        ),
        ({"redis_publish": True}, "--redis-publish needs"),
        ({"mongodb_url": "http://me:secret-word@localhost"}, "FASTRUNNER_STIGMER_MONGODB_URL is no URL"),
    ],
)
def test_what_does_not_fit_together_is_told(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(CannotServe, match=words) as refusal:
        StigmerService(ServiceOptions(data_dir=tmp_path, runner="localhost:1", **options))
    assert "secret-word" not in str(refusal.value)


async def test_what_is_no_url_of_a_redis_is_told_without_it(url: str) -> None:
    with pytest.raises(CannotServe, match="FASTRUNNER_STIGMER_REDIS_URL is no URL") as refusal:
        async with service(Path("/nowhere"), mongodb_url=url, redis_url="http://me:secret-word@localhost"):
            pass
    assert "secret-word" not in str(refusal.value)


async def test_what_a_dead_one_left_half_done_is_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody sends it again: who follows has it all the same, and so has the feed."""
    monkeypatch.setattr(limits, "STIGMER_SETTLE_INTERVAL_S", 0.05)
    monkeypatch.setattr(limits, "STIGMER_SETTLE_AFTER_S", 0.1)
    async with replica(url) as (served, reporter, client):
        await reporter.send(event("e", 1, "workflow_started"))
        async with client.feed() as changes:
            dead = MongoStore(url, retention_s=3600.0)
            # It notes what it begins, and stores the events.
            bound(dead, Life(1 + 2))
            late = [event("e", 2), event("e", 3, "workflow_completed", status="completed")]
            with pytest.raises(Died):
                await dead.take([Arrived(each, each.SerializeToString()) for each in late])
            await dead.close()
            assert ids(await client.follow("e", after=1)) == [2, 3]
            async for change in changes:
                if json.dumps(change).count("completed"):
                    break
        assert served.metrics.executions_settled.value >= 1
        assert served.metrics.executions_ended.labels("completed").value == 1
    assert verified(Path("/nowhere"), FASTRUNNER_STIGMER_MONGODB_URL=url)[0] == 0


async def test_verify_finishes_what_nobody_is_there_to_finish(url: str) -> None:
    """What ends by that is kept for as long as services keep it."""
    dead = await opened(url, counts=False, retention_s=1.0)
    # It numbers and makes the execution, notes it, and stores both events.
    bound(dead, Life(1 + 1 + 1 + 2))
    late = [event("e", 1, "workflow_started"), event("e", 2, "workflow_completed", status="completed")]
    with pytest.raises(Died):
        await dead.take([Arrived(each, each.SerializeToString()) for each in late])
    await dead.close()
    assert verified(Path("/nowhere"), FASTRUNNER_STIGMER_MONGODB_URL=url)[:2] == (
        0,
        {"executions": 1, "events": 2, "unfinished": 0, "findings": 0},
    )
    store = await opened(url, retention_s=1.0)
    assert await store.expire(wall_ms() + 24 * 3_600_000, 10) == 0
    assert (await store.find("e")).standing.status == "completed"
    await store.close()
