"""Support: where the demo's Stigmer Services keep what they have: one in a folder, or two in a MongoDB, with a Redis.

A MongoDB and a Redis of one's own are taken by FASTRUNNER_STIGMER_MONGODB_URL and FASTRUNNER_STIGMER_REDIS_URL. Without
them the demo starts what the tests have in their place: a stand-in that speaks MongoDB's protocol, and Redis.
"""

import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["STORES", "DemoFailed", "DemoStore", "store_of"]

STORES = ("sqlite", "mongo")
"""What `--store` takes."""
_MONGODB_URL, _REDIS_URL = "FASTRUNNER_STIGMER_MONGODB_URL", "FASTRUNNER_STIGMER_REDIS_URL"


class DemoFailed(Exception):
    """The demo cannot go on; the message says why."""


@dataclass(frozen=True, slots=True)
class DemoStore:
    """What the services, and `verify`, are told of their store."""

    services: int
    """How many services have it."""
    flags: tuple[str, ...] = ()
    """For the command line."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """For the environment."""
    suffix: str = ""
    """What ids of executions end with: it may have those of an earlier demo."""
    words: str = ""
    """What people are told of it."""


@asynccontextmanager
async def store_of(kind: str, folder: Path) -> AsyncIterator[DemoStore]:
    """A store; what was started for it ends with the context. Raises DemoFailed."""
    if kind == "sqlite":
        yield DemoStore(1, flags=("--data-dir", str(folder / "service")))
        return
    urls = {name: url for name in (_MONGODB_URL, _REDIS_URL) if (url := os.environ.get(name, "").strip())}
    words = [f"the services have what {name} names" for name in urls]
    suffix = f"-{secrets.token_hex(3)}" if _MONGODB_URL in urls else ""
    with ExitStack() as stack:
        if _MONGODB_URL not in urls:
            urls[_MONGODB_URL] = _mongodb(stack)
            words.append(f"a stand-in for MongoDB is at {urls[_MONGODB_URL]}")
        if _REDIS_URL not in urls:
            urls[_REDIS_URL] = _redis(stack)
            words.append(f"a Redis is at {urls[_REDIS_URL]}")
        yield DemoStore(2, settings=urls, suffix=suffix, words="; ".join(words))


def _mongodb(stack: ExitStack) -> str:
    from tests.mongodb import MongoServer, is_there

    if not is_there():
        raise DemoFailed(f"there is no stand-in for MongoDB: `make tools` gets it; or set {_MONGODB_URL}")
    server = MongoServer()
    stack.callback(server.kill)
    return server.start().url


def _redis(stack: ExitStack) -> str:
    from tests.outside import find_tool
    from tests.redis import RedisServer

    if not find_tool("redis-server"):
        raise DemoFailed(f"there is no redis-server: `make tools` gets it; or set {_REDIS_URL}")
    server = RedisServer()
    stack.callback(server.kill)
    return server.start().url
