"""Options of the whole suite."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests import properties
from tests.mongodb import MongoServer


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-factor", type=int, default=1, help="times the usual number of examples in property tests")
    parser.addoption("--jq-seed", type=int, default=20261123, help="seed of the programs compared with libjq")
    parser.addoption("--crash-runs", type=int, default=1, help="how often every crash point is hit")


def pytest_configure(config: pytest.Config) -> None:
    properties.factor = config.getoption("--fuzz-factor")
    # The machine's proxies would be those of the calls under test.
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        os.environ.pop(name, None)
        os.environ.pop(name.lower(), None)
    # A shell starts what runs in its background with Ctrl-C ignored, which the processes under test would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header(config: pytest.Config) -> str:
    return f"jq differential: --jq-seed {config.getoption('--jq-seed')}"


@pytest.fixture(scope="session")
def mongo_url() -> Iterator[str]:
    """Of a server in memory, without a database."""
    server = MongoServer().start()
    yield server.url
    server.kill()
