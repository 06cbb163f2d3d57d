"""Stage 5, tasks: the .proto files of a description: the one that a document names, and those that it imports.

Theory of operation: an import names a file from a root that no file tells. So a name is looked for beside the file
that the document names, and then wherever that file's folder has the beginning of the name: `app/b.proto`, imported by
`https://host/protos/app/v1/a.proto`, is `https://host/protos/app/b.proto`. What Google publishes for everybody is at
hand.

Rules: files, folders, bytes are bounded; the policy of the resource goes to its own origin alone; a text whose imports
cannot be read is the compiler's to refuse.
"""

import asyncio
import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from fastrunner.base import limits
from fastrunner.base.printable import printable
from fastrunner.tasks.call_grpc.outcome import GrpcProblem
from fastrunner.tasks.descriptions import Description, Descriptions, NoDescription

__all__ = ["Gatherer", "Sources", "imports_of", "invalid_proto"]

_TOKEN: Final = re.compile(
    r"""//[^\n]*|/\*(?:.*?\*/|.*)"""
    r"""|\bimport\b\s*(?:(?:public|weak|option)\b\s*)?(?P<name>"[^"\\\n]*"|'[^'\\\n]*')"""
    r"""|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?""",
    re.DOTALL,
)
"""What may hold an import without being one, and imports; each alternative takes what it begins with, so that no text
takes longer than its length."""
_PART: Final = r"[A-Za-z0-9_][A-Za-z0-9_.+\-]*"
"""A folder or a file: no way up, nothing hidden, no option of the compiler."""
_NAME: Final = re.compile(rf"{_PART}(?:/{_PART})*\.proto")
_WELL_KNOWN: Final = "google/protobuf/"
"""The compiler has them."""
_PUBLISHED: Final = ("google/api/", "google/longrunning/", "google/rpc/", "google/type/")
"""In the package `googleapis-common-protos`."""
_MAIN: Final = "described.proto"
_SHOWN_SIZE_CHARS_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Sources:
    """A description's files."""

    main: str
    """The name of the one that the document names."""
    files: Mapping[str, str]
    """All texts by name."""
    digest: bytes
    """SHA-256 over names and what SHA-256 makes of texts."""


def invalid_proto(sentence: str) -> GrpcProblem:
    """The problem of a description that is none."""
    return GrpcProblem("configuration", 400, "Invalid Proto", sentence)


def imports_of(text: str) -> list[str]:
    """The names that a .proto file imports."""
    return [found["name"][1:-1] for found in _TOKEN.finditer(text) if found["name"] is not None]


class Gatherer:
    """Gathers files for one worker."""

    def __init__(self, descriptions: Descriptions) -> None:
        self._descriptions = descriptions
        self._imports: OrderedDict[bytes, Sequence[str]] = OrderedDict()
        """Of the latest texts, by digest."""

    async def gather(self, resource: Mapping[str, Any]) -> Sources:
        """The file that a resource names and all it imports. Raises GrpcProblem."""
        main = await self._fetched(resource)
        folder, _, name = urlsplit(main.url).path.rpartition("/")
        name = name if _NAME.fullmatch(name) else _MAIN
        files = {name: main}
        _check_size(files)
        pending = [each for each in await self._imported(main.text, main.digest) if each not in files]
        while pending:
            _check_number(len(files) + len(pending))
            found = await asyncio.gather(*(self._imported_file(resource, main.url, folder, each) for each in pending))
            files.update(zip(pending, found, strict=True))
            _check_size(files)
            following: dict[str, None] = {}
            for each in found:
                following.update(dict.fromkeys(await self._imported(each.text, each.digest)))
            pending = [each for each in following if each not in files]
        return Sources(name, {each: file.text for each, file in files.items()}, _digest(name, files))

    async def _imported(self, text: str, digest: bytes) -> Sequence[str]:
        """The names that a text imports and the compiler does not have. Raises GrpcProblem."""
        names = self._imports.get(digest)
        if names is None:
            names = await asyncio.to_thread(imports_of, text)
            # A file that imports more is refused; nothing keeps its list.
            _check_number(len(names))
            self._imports[digest] = names
            while len(self._imports) > limits.GRPC_COMPILED_COUNT_MAX * 2:
                self._imports.popitem(last=False)
        kept = dict.fromkeys(name for name in names if not name.startswith(_WELL_KNOWN))
        for name in kept:
            is_name = _NAME.fullmatch(name) and name.count("/") <= limits.GRPC_IMPORT_DEPTH_MAX
            if not is_name or len(name) > limits.GRPC_IMPORT_SIZE_CHARS_MAX:
                shown = printable(name)[:_SHOWN_SIZE_CHARS_MAX]
                raise invalid_proto(f"it imports {shown!r}, which is not how a .proto file is named from its root")
        return list(kept)

    async def _imported_file(self, resource: Mapping[str, Any], url: str, folder: str, name: str) -> Description:
        if name.startswith(_PUBLISHED):
            published = await asyncio.to_thread(_published, name)
            if published is not None:
                return published
        first: GrpcProblem | None = None
        for path in _paths(folder, name):
            try:
                return await self._fetched(_beside(resource, url, path))
            except _Absent as absent:
                first = first or absent
        assert first is not None
        raise first

    async def _fetched(self, resource: Mapping[str, Any]) -> Description:
        """Raises GrpcProblem."""
        try:
            return await self._descriptions.get(resource)
        except NoDescription as why:
            status = why.status or (503 if why.is_transient else 500)
            problem = GrpcProblem if why.is_transient else _Absent
            raise problem(why.type, status, "Proto Not Available", str(why)) from None


class _Absent(GrpcProblem):
    """A file that is not there."""


def _check_number(count: int) -> None:
    if count > limits.GRPC_PROTO_FILES_MAX:
        raise invalid_proto(f"the file and what it imports are more than {limits.GRPC_PROTO_FILES_MAX} files")


def _check_size(files: Mapping[str, Description]) -> None:
    if sum(len(file.text) for file in files.values()) > limits.GRPC_PROTO_SIZE_BYTES_MAX:
        raise invalid_proto(f"the file and what it imports have more than {limits.GRPC_PROTO_SIZE_BYTES_MAX} bytes")


def _paths(folder: str, name: str) -> list[str]:
    """Where a file may be that is imported by one of a folder, the likeliest first."""
    begin, above = name.partition("/")[0], folder.split("/")
    roots = [above[:at] for at in range(len(above) - 1, -1, -1) if above[at] == begin and "/" in name]
    return [f"{folder}/{name}", *("/".join([*root, name]) for root in roots)]


def _beside(resource: Mapping[str, Any], url: str, path: str) -> dict[str, Any]:
    """The resource of another file of the same server."""
    parts = urlsplit(url)
    beside: dict[str, Any] = {"uri": parts._replace(path=quote(path, safe="/%+~!$&'()*,;=:@"), fragment="").geturl()}
    asked = urlsplit(resource["uri"])
    if "authentication" in resource and (asked.scheme, asked.netloc) == (parts.scheme, parts.netloc):
        beside["authentication"] = resource["authentication"]
    return beside


@lru_cache(limits.GRPC_PROTO_FILES_MAX)
def _published(name: str) -> Description | None:
    """A file that comes with the runner."""
    spec = find_spec("google.rpc")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder).parent.parent / name
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            return Description("", text, hashlib.sha256(text.encode()).digest())
    return None


def _digest(main: str, files: Mapping[str, Description]) -> bytes:
    digest = hashlib.sha256(main.encode())
    for name in sorted(files):
        digest.update(f"\0{name}\0".encode() + files[name].digest)
    return digest.digest()
