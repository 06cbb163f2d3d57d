"""One server process for each module: what one test does to it must not harm the next."""

from collections.abc import Iterator

import pytest

from tests.integration.conftest import pytest_asyncio_loop_factories
from tests.transport.server_process import ServerProcess, server_process

__all__ = ["pytest_asyncio_loop_factories", "server"]


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A server in a process of its own."""
    with server_process() as server:
        yield server
