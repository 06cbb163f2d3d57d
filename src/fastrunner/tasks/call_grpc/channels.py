"""Stage 5, tasks: connections to gRPC servers, kept for the next call.

Theory of operation: a channel is told addresses that the policy permits, several if the name has them, of which gRPC
tries one after the other; the name is its authority, and what TLS proves. It is used by every call to the same place,
until the name has other addresses, a server could not be reached, or nobody has called for a while.

Rules: no channel is told a name, which it would look up again by itself, nor a proxy, nor shares what is below it with
others. One that calls are using is not closed under them.
"""

import asyncio
import ipaddress
import os
import re
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio

from fastrunner import __version__
from fastrunner.base import clock, limits
from fastrunner.tasks.call_grpc.arguments import Target
from fastrunner.tasks.dialing import permitted_addresses
from fastrunner.tasks.surroundings import Surroundings

__all__ = ["Channels"]

_OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),
    # One attempt of a task is one call; repeating is the workflow's to decide.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    # Else a channel that is closed leaves its connection to the next one, and its pauses after a failure.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.min_reconnect_backoff_ms", int(limits.HTTP_CONNECT_TIMEOUT_S_MAX * 1000)),
    ("grpc.max_receive_message_length", limits.GRPC_MESSAGE_SIZE_BYTES_MAX),
    ("grpc.max_send_message_length", limits.GRPC_MESSAGE_SIZE_BYTES_MAX),
    ("grpc.max_metadata_size", limits.GRPC_METADATA_SIZE_BYTES_MAX),
    ("grpc.absolute_max_metadata_size", limits.GRPC_METADATA_SIZE_BYTES_MAX),
    ("grpc.primary_user_agent", f"fastrunner/{__version__}"),
)
_HASHED: Final = re.compile(r"[0-9a-f]{8}\.[0-9]+")
"""Names of authorities' files in a folder that OpenSSL reads."""


class _Kept:
    """A channel, and who uses it."""

    def __init__(self, channel: grpc.aio.Channel, addresses: frozenset[str]) -> None:
        self.channel = channel
        self.addresses = addresses
        self.looked_up_s = clock.monotonic_s()
        self.users = 0
        self.is_kept = True
        """Whether further calls may use it."""
        self.is_closed = False
        self.idle: asyncio.TimerHandle | None = None


class Channels:
    """The channels of one worker."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._kept: OrderedDict[Target, _Kept] = OrderedDict()
        """The one used last is last."""
        self._closing: set[asyncio.Task[None]] = set()
        self._roots: asyncio.Task[bytes | None] | None = None

    @asynccontextmanager
    async def channel(self, target: Target) -> AsyncIterator[grpc.aio.Channel]:
        """A channel for the calls of one task. Raises CallProblem; one that could not be made, or was lost, has the
        next one connect anew."""
        kept = await self._taken(target)
        kept.users += 1
        if kept.idle is not None:
            kept.idle.cancel()
            kept.idle = None
        try:
            yield kept.channel
        except grpc.aio.AioRpcError as error:
            # What the server says over a connection that is well is no reason for another one.
            is_down = error.code() is grpc.StatusCode.UNAVAILABLE and not kept.is_closed
            if is_down and kept.channel.get_state() is not grpc.ChannelConnectivity.READY:
                self._forget(target, kept)
            raise
        finally:
            kept.users -= 1
            self._rest(target, kept)

    async def close(self) -> None:
        """Closes all; calls still in flight fail."""
        for target, kept in list(self._kept.items()):
            self._forget(target, kept)
            self._close(kept)
        if self._roots is not None:
            self._roots.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def _taken(self, target: Target) -> _Kept:
        kept = self._kept.get(target)
        if kept is None or clock.monotonic_s() - kept.looked_up_s > limits.GRPC_ADDRESSES_S_MAX:
            found = await permitted_addresses(self._around, target.host, target.port)
            credentials = await self._credentials() if target.is_tls else None
            addresses = frozenset(found)
            # Somebody else may have come first.
            kept = self._kept.get(target)
            if kept is not None and kept.addresses != addresses:
                self._forget(target, kept)
                kept = None
            if kept is None:
                kept = self._kept[target] = _Kept(_opened(target, found, credentials), addresses)
            kept.looked_up_s = clock.monotonic_s()
        self._kept.move_to_end(target)
        return kept

    def _rest(self, target: Target, kept: _Kept) -> None:
        """One call less uses it."""
        if kept.users:
            return
        if not kept.is_kept:
            self._close(kept)
            return
        kept.idle = asyncio.get_running_loop().call_later(limits.GRPC_CHANNEL_IDLE_S, self._forget, target, kept)
        idle = [each for each in self._kept.items() if not each[1].users]
        for other, old in idle[: max(0, len(idle) - limits.GRPC_CHANNELS_IDLE_MAX)]:
            self._forget(other, old)

    def _forget(self, target: Target, kept: _Kept) -> None:
        """Lets no further call use it; closes it with the last one that does."""
        kept.is_kept = False
        if self._kept.get(target) is kept:
            del self._kept[target]
        if kept.idle is not None:
            kept.idle.cancel()
            kept.idle = None
        if not kept.users:
            self._close(kept)

    def _close(self, kept: _Kept) -> None:
        if kept.is_closed:
            return
        kept.is_closed = True
        closing = asyncio.get_running_loop().create_task(kept.channel.close(None))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _credentials(self) -> grpc.ChannelCredentials:
        if self._roots is None or (self._roots.done() and self._roots.exception()):
            self._roots = asyncio.create_task(asyncio.to_thread(_roots, self._around.ssl_context))
        return grpc.ssl_channel_credentials(await asyncio.shield(self._roots))


def _opened(target: Target, addresses: Sequence[str], credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    options: tuple[tuple[str, Any], ...] = (*_OPTIONS, ("grpc.default_authority", target.authority))
    where = _address_list(addresses, target.port)
    if credentials is None:
        return grpc.aio.insecure_channel(where, options=options)
    return grpc.aio.secure_channel(
        where, credentials, options=(*options, ("grpc.ssl_target_name_override", target.host))
    )


def _address_list(addresses: Iterable[str], port: int) -> str:
    """Addresses as gRPC takes a list of them: of one family, which IPv4 within IPv6 is."""
    given = [ipaddress.ip_address(each.partition("%")[0]) for each in addresses]
    if all(each.version == 4 for each in given):
        return "ipv4:" + ",".join(f"{each}:{port}" for each in given)
    return "ipv6:" + ",".join(f"[{each if each.version == 6 else f'::ffff:{each}'}]:{port}" for each in given)


def _roots(context: ssl.SSLContext | None) -> bytes | None:
    """The authorities that the HTTP client trusts, too, in PEM; None where they cannot be told: then gRPC's own."""
    found = (context or ssl.create_default_context()).get_ca_certs(binary_form=True)
    if found:
        return "".join(map(ssl.DER_cert_to_PEM_cert, found)).encode()
    folder = ssl.get_default_verify_paths().capath
    there = Path(folder).iterdir() if folder and os.path.isdir(folder) else ()
    files = [path for path in there if _HASHED.fullmatch(path.name)]
    return b"\n".join(path.read_bytes() for path in files) or None
