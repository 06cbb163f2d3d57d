"""Support: the console's files, as they were built into the package, for whichever process serves them.

    GET /                    the page, to browsers; what the process is, to others
    GET /assets/...          files whose names change with what they are: kept for good
    GET /x/..., /workflows   the page again: addresses of the console's own

A page is sent with what it will ask of the API first (`Link: rel=preload`), so that the browser asks for that together
with the files, and not after it has run them.

Rules: files are read into memory for the first request, so that nothing of the file system is reached by a path; a page
loads and calls nothing but its own origin; what is no address of the console is not found.
"""

import gzip
import mimetypes
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from aiohttp import web

from fastrunner.web.api import PREFIX

__all__ = ["CONSOLE_PATHS", "add_console", "wants_page"]

CONSOLE_PATHS: Final = ("/{path:(?:x|workflows|schedules)(?:/.*)?}", "/{path:assets/.+}")
"""Routes of the console beside `/`: the pages of `console/src/router.ts`, and its files."""

_PAGE: Final = "index.html"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_OF_EXECUTION: Final = re.compile(r"/x/([\w.~-]+)(?:@\d+)?", re.ASCII)
"""The page of an execution whose id is written the same everywhere; others are asked for by the page itself."""
_COMPRESSED: Final = ("text/", "application/javascript", "application/json", "image/svg+xml")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    compressed: bytes | None
    media_type: str
    tag: str


def _read(folder: Traversable, before: str = "") -> dict[str, _File]:
    found: dict[str, _File] = {}
    for each in folder.iterdir():
        name = f"{before}{each.name}"
        if each.is_dir():
            found |= _read(each, f"{name}/")
            continue
        content = each.read_bytes()
        media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        compressed = gzip.compress(content, mtime=0) if media_type.startswith(_COMPRESSED) else None
        found[name] = _File(content, compressed, media_type, f'"{sha256(content).hexdigest()[:16]}"')
    return found


@cache
def _files() -> dict[str, _File]:
    """The console's files by their paths; nothing where it was not built."""
    folder = files("fastrunner.web").joinpath("console")
    return _read(folder) if folder.is_dir() else {}


def add_console(app: web.Application, index: Handler) -> None:
    """Serves the console; `index` answers `/` to whoever is no browser."""

    async def root(request: web.Request) -> web.StreamResponse:
        page = _files().get(_PAGE)
        if page is None or not wants_page(request):
            return await index(request)
        return _answer(request, _PAGE, page)

    app.router.add_get("/", root)
    for path in CONSOLE_PATHS:
        app.router.add_get(path, _find)


async def _find(request: web.Request) -> web.StreamResponse:
    path = request.match_info["path"]
    name = path if path.startswith("assets/") else _PAGE
    file = _files().get(name)
    if file is None or (name == _PAGE and not wants_page(request)):
        raise web.HTTPNotFound
    return _answer(request, name, file)


def wants_page(request: web.Request) -> bool:
    """Whether a browser asks for something to show."""
    return "text/html" in request.headers.get("Accept", "")


def _asked_first(raw_path: str) -> str:
    """A Link header: what the page at an address asks for before anything else, as `console/src/api.ts` does."""
    paths = [f"{PREFIX}/info"]
    if found := _OF_EXECUTION.fullmatch(raw_path):
        paths += [f"{PREFIX}/executions/{found[1]}", f"{PREFIX}/executions/{found[1]}/document"]
    return ", ".join(f"<{path}>; rel=preload; as=fetch; crossorigin" for path in paths)


def _answer(request: web.Request, name: str, file: _File) -> web.StreamResponse:
    headers = {
        "Cache-Control": "no-cache" if name == _PAGE else "public, max-age=31536000, immutable",
        "Content-Security-Policy": _POLICY,
        "Cross-Origin-Opener-Policy": "same-origin",
        "ETag": file.tag,
        "Vary": "Accept, Accept-Encoding",
    }
    if name == _PAGE:
        headers["Link"] = _asked_first(request.rel_url.raw_path)
    if file.tag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    body = file.content
    if file.compressed is not None and "gzip" in request.headers.get("Accept-Encoding", ""):
        headers["Content-Encoding"] = "gzip"
        body = file.compressed
    charset = "utf-8" if file.media_type.startswith("text/") else None
    return web.Response(body=body, headers=headers, content_type=file.media_type, charset=charset)
