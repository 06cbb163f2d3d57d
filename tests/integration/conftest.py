"""Integration tests run on the loop that production runs on."""

from collections.abc import Callable, Mapping
from typing import Any

import uvloop


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Callable[[], Any]]:
    """uvloop for every asynchronous test of this folder."""
    return {"uvloop": uvloop.new_event_loop}
