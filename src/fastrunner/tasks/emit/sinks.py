"""Stage 5, tasks: requests to sinks of emitted events: through the HTTP client of calls, under the same egress policy.

Rules: what an answer holds beside its status is not read; no redirect is followed: a sink is where the operator says.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fastrunner.access.egress import Egress
from fastrunner.base.redaction import hide
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics

if TYPE_CHECKING:
    from fastrunner.tasks.call_http.client import Client

__all__ = ["HttpPost"]


class HttpPost:
    """Posts to sinks. The HTTP client is loaded for the first event."""

    def __init__(self, config: Config, metrics: Metrics, egress: Egress) -> None:
        self._make = (config, metrics, egress)
        self._client: Client | None = None

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        """The status of the answer. Raises NotSent."""
        import aiohttp
        from yarl import URL

        from fastrunner.events.sinks.delivery import NotSent
        from fastrunner.tasks.call_http.client import Client
        from fastrunner.tasks.call_http.failures import CallProblem, connection_problem

        if self._client is None:
            self._client = Client(*self._make)
        target = URL(url, encoded=True)
        hide([target.password, target.raw_password])
        try:
            async with self._client.request("POST", target, headers=headers, data=body) as response:
                return response.status
        except CallProblem as problem:
            raise NotSent(problem.sentence) from None
        except TimeoutError:
            # One of the library's own is a ClientError as well.
            raise NotSent("no connection in time") from None
        except (aiohttp.ClientError, ValueError, OSError) as error:
            raise NotSent(connection_problem(error).sentence) from None

    async def close(self) -> None:
        """Closes the pooled connections."""
        if self._client is not None:
            await self._client.close()
