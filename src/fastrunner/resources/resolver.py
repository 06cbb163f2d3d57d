"""Stage 2, compile: the one resolver of a worker: files here, HTTP in `http`, loaded by the first URL of it."""

import asyncio
import os
import ssl
import stat
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from fastrunner._core import ExternalResource, Problem
from fastrunner.access.egress import Egress
from fastrunner.base import limits
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import SecretSource
from fastrunner.errors import DocumentRefused, ResourceUnavailable
from fastrunner.resources.described import DescribedTexts, decoded
from fastrunner.resources.kept import Kept
from fastrunner.resources.refusals import Answer, Unresolved
from fastrunner.tasks.descriptions import Description, NoDescription

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver

    from fastrunner.resources.http import HttpTexts

__all__ = ["Resolver"]


class Resolver:
    """Fetches what documents need before they run, and what their calls need; see `Resources` and `Descriptions`."""

    def __init__(
        self,
        config: Config,
        metrics: Metrics,
        secrets: SecretSource,
        egress: Egress | None = None,
        *,
        resolver: "AbstractResolver | None" = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """`egress` says where requests may go; default: as the configuration does, for a process that serves nothing.
        `resolver` and `ssl_context` replace how host names are looked up and whom TLS trusts."""
        self._config = config
        self._metrics = metrics
        self._secrets = secrets
        self._egress = egress or Egress.of(config)
        self._options = {"resolver": resolver, "ssl_context": ssl_context}
        self._http: HttpTexts | None = None
        self._turns = asyncio.Semaphore(limits.RESOURCES_FETCHED_AT_ONCE_MAX)
        self._described = DescribedTexts(self._description, metrics)

    async def fetch(self, wanted: Sequence[ExternalResource]) -> Mapping[str, str | None]:
        """The texts by reference; None for a description that cannot be had now, or not within the bounds. Raises
        DocumentRefused with a problem for each other text that cannot be had; else ResourceUnavailable if one may be
        had later."""
        described = [resource for resource in wanted if resource.kind == "description"]
        others = [resource for resource in wanted if resource.kind != "description"]
        pinned, found = await asyncio.gather(
            self._pinned(described), asyncio.gather(*map(self._text, others), return_exceptions=True)
        )
        problems, later = [], None
        for resource, outcome in zip(others, found, strict=True):
            if isinstance(outcome, Unresolved) and not outcome.is_transient:
                problems.append(_problem(resource, outcome))
            elif isinstance(outcome, Unresolved):
                later = later or ResourceUnavailable(f"{resource.url} cannot be fetched for the moment: {outcome}")
            elif isinstance(outcome, BaseException):
                raise outcome
        if problems:
            raise DocumentRefused(problems)
        if later is not None:
            raise later
        return {**pinned, **{resource.reference: str(text) for resource, text in zip(others, found, strict=True)}}

    async def get(self, resource: Mapping[str, Any]) -> Description:
        """See `Descriptions`."""
        url = resource["uri"]
        if "text" in resource:
            self._metrics.descriptions.labels("pinned").inc()
            return Description(url, resource["text"], resource["digest"])
        try:
            return await self._described.get(url, resource.get("authentication"))
        except Unresolved as why:
            raise NoDescription(
                f"{url} cannot be fetched: {why}", is_transient=why.is_transient, status=why.status, type_=why.type
            ) from None

    async def close(self) -> None:
        """Closes the connections; what is being fetched fails."""
        await self._described.close()
        if self._http is not None:
            await self._http.close()

    async def _pinned(self, wanted: Sequence[ExternalResource]) -> dict[str, str | None]:
        """Descriptions by reference, and where they were found; None for those that their calls have to ask for."""
        texts: dict[str, str | None] = {}
        left_bytes = limits.DESCRIPTIONS_PINNED_SIZE_BYTES_MAX
        for resource, found in zip(wanted, await asyncio.gather(*map(self._early, wanted)), strict=True):
            size_bytes = 0 if found is None else len(found.text.encode())
            if found is None or size_bytes > left_bytes:
                texts[resource.reference] = None
                continue
            left_bytes -= size_bytes
            texts[resource.reference] = found.text
            if found.url != resource.url:
                texts[resource.location_reference] = found.url
        return texts

    async def _early(self, resource: ExternalResource) -> Description | None:
        """A description before a call needs it; None if it cannot be had now."""
        try:
            async with asyncio.timeout(limits.DESCRIPTIONS_PIN_S_MAX):
                return await self._described.get(resource.url, self._policy(resource.authentication))
        except (Unresolved, TimeoutError):
            return None

    async def _text(self, resource: ExternalResource) -> str:
        """Raises Unresolved."""
        policy = self._policy(resource.authentication)
        answer = await self._answer(resource.url, policy, None, limits.RESOURCE_SIZE_BYTES_MAX)
        return decoded(answer.body or b"")

    async def _description(self, url: str, policy: Mapping[str, Any] | None, kept: Kept | None) -> Answer:
        """Raises Unresolved."""
        return await self._answer(url, policy, kept, limits.DESCRIPTION_SIZE_BYTES_MAX)

    async def _answer(
        self, url: str, policy: Mapping[str, Any] | None, kept: Kept | None, size_bytes_max: int
    ) -> Answer:
        """Raises Unresolved."""
        async with self._turns:
            if url.startswith("file:"):
                body = await asyncio.to_thread(_read, url, self._config.resources_dir, size_bytes_max)
                # Files are asked each time: they cost little, and say nothing of how long they stay.
                return Answer(url, body, {"Cache-Control": "no-cache"})
            return await (await self._loaded()).get(url, policy, size_bytes_max=size_bytes_max, kept=kept)

    async def _loaded(self) -> "HttpTexts":
        if self._http is None:
            try:
                # In a thread: the loop serves others meanwhile.
                module = await asyncio.to_thread(import_module, "fastrunner.resources.http")
            except (ImportError, OSError, RuntimeError):
                raise Unresolved("the HTTP client could not be loaded", is_transient=True) from None
            if self._http is None:
                self._http = module.HttpTexts(self._config, self._metrics, self._egress, **self._options)
        return self._http

    def _policy(self, authentication: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """A policy with what a secret has in place of its name. Raises Unresolved."""
        if authentication is None:
            return None
        [(scheme, fields)] = authentication.items()
        if "use" not in fields:
            return authentication
        value = self._secrets.read([fields["use"]]).get(fields["use"])
        if not isinstance(value, dict):
            what = "has no such secret, or may not read it" if value is None else "has it as text, not as a JSON object"
            raise Unresolved(
                f"{scheme} authentication takes its fields from secret {fields['use']!r}: the runner {what}"
            )
        return {scheme: value}


def _problem(resource: ExternalResource, refusal: Unresolved) -> Problem:
    message = f"{resource.url} cannot be fetched: {refusal}"
    return Problem("unresolved-resource", resource.pointer, resource.line, resource.column, message)


def _read(url: str, folder: Path | None, size_bytes_max: int) -> bytes:
    """A file below the folder that is open. Raises Unresolved."""
    if folder is None:
        raise Unresolved(
            "this runner reads no files for documents: FASTRUNNER_RESOURCES_DIR names the folder it may read"
        )
    parts = urlsplit(url)
    # A place where a host would stand is a folder of the one that is open: `file://shop/order.proto`.
    start = "" if parts.netloc in ("", "localhost") else f"{folder}/{parts.netloc}"
    try:
        path = Path(unquote(start + parts.path, errors="strict")).resolve(strict=True)
        if not path.is_relative_to(folder.resolve()):
            raise Unresolved("it is outside of FASTRUNNER_RESOURCES_DIR")
        # What is no file, such as a pipe, must not hold the thread.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Unresolved("it is no file")
            body = file.read(size_bytes_max + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise Unresolved("there is no such file") from None
    except (OSError, ValueError) as error:
        raise Unresolved(f"it cannot be read ({getattr(error, 'strerror', None) or 'no path'})") from None
    if len(body) > size_bytes_max:
        raise Unresolved(f"it has more than {size_bytes_max} bytes")
    return body
