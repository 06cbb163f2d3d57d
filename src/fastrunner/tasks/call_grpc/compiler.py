"""Stage 5, tasks: .proto files compiled by a process of its own, and kept compiled by what is in them.

Theory of operation: `protoc` is a library of C++ that reads what strangers write. So it runs in a process that has none
of the runner's environment, descriptors, capabilities or time, whose memory and output are bounded, and that dies with
the worker. Texts are known by their hash: the same ones are compiled once, also if several calls wait for them, and
those that are no .proto files are told so again without another process.

Rules: the worker never loads the compiler. Its words are shown as they are, and name files as imports do: it runs in a
folder that has nothing else.
"""

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import DecodeError

from fastrunner.base import limits
from fastrunner.base.printable import printable
from fastrunner.tasks.call_grpc.described import Described
from fastrunner.tasks.call_grpc.outcome import GrpcProblem
from fastrunner.tasks.call_grpc.sources import Sources, invalid_proto
from fastrunner.tasks.call_http.failures import OUT_OF_RESOURCES
from fastrunner.tasks.run.process import Command, Ended, LaunchProblem, Process

__all__ = ["Compiler"]

_FOLDER: Final = "fastrunner-proto-"
_PROTOC: Final = ("-I", "-B", "-m", "grpc_tools.protoc", "-I.", "--include_imports", "--descriptor_set_out=/dev/stdout")
_FAULTS_SHOWN_MAX: Final = 5


class Compiler:
    """Compiles for one worker."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Described | str] = OrderedDict()
        """By digest, the latest last: what texts describe, or why they do not."""
        self._kept_size_bytes = 0
        self._compiling: dict[bytes, asyncio.Task[Described]] = {}
        self._places = asyncio.Semaphore(limits.GRPC_COMPILERS_MAX)
        self._has_swept = False
        self.compiled_count = 0
        """Processes that it has started."""

    async def described(self, sources: Sources) -> Described:
        """What files describe. Raises GrpcProblem."""
        kept = self._kept.get(sources.digest)
        if kept is not None:
            self._kept.move_to_end(sources.digest)
            if isinstance(kept, str):
                raise invalid_proto(kept)
            return kept
        task = self._compiling.get(sources.digest)
        if task is None:
            task = asyncio.create_task(self._compiled(sources))
            self._compiling[sources.digest] = task
            task.add_done_callback(partial(self._ended, sources.digest))
        # One of the calls that wait for it may be interrupted; the others go on waiting.
        return await asyncio.shield(task)

    def _ended(self, digest: bytes, task: asyncio.Task[Described]) -> None:
        del self._compiling[digest]
        # Maybe nobody waits for it any more.
        if not task.cancelled():
            task.exception()

    async def close(self) -> None:
        """Ends what is being compiled."""
        tasks = list(self._compiling.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _compiled(self, sources: Sources) -> Described:
        async with self._places:
            self.compiled_count += 1
            try:
                ended = await self._run(sources)
            except OSError as error:
                reason = os.strerror(error.errno) if error.errno else "no reason given"
                raise _out_of_resources(reason) from None
            except LaunchProblem as problem:
                raise _out_of_resources(str(problem)) from None
        try:
            described = await asyncio.to_thread(_read, ended)
        except GrpcProblem as problem:
            self._keep(sources.digest, problem.sentence)
            raise
        self._keep(sources.digest, described)
        return described

    def _keep(self, digest: bytes, what: Described | str) -> None:
        self._kept[digest] = what
        self._kept_size_bytes += _size_bytes(what)
        while (
            len(self._kept) > limits.GRPC_COMPILED_COUNT_MAX
            or self._kept_size_bytes > limits.GRPC_COMPILED_KEPT_SIZE_BYTES_MAX
        ):
            _, dropped = self._kept.popitem(last=False)
            self._kept_size_bytes -= _size_bytes(dropped)

    async def _run(self, sources: Sources) -> Ended:
        """Raises GrpcProblem, OSError, LaunchProblem."""
        if not self._has_swept:
            self._has_swept = True
            await asyncio.to_thread(_sweep)
        folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-"))
        process = None
        try:
            await asyncio.to_thread(_write, folder, sources.files)
            process = Process(_command(folder, sources.main))
            async with asyncio.timeout(limits.GRPC_COMPILE_S_MAX):
                return await process.ended()
        except TimeoutError:
            raise invalid_proto(f"it takes longer than {limits.GRPC_COMPILE_S_MAX:g} s to compile") from None
        finally:
            if process is not None:
                await process.stop()
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _command(folder: Path, main: str) -> Command:
    bounds = [
        ("RLIMIT_AS", limits.GRPC_COMPILE_MEMORY_SIZE_BYTES_MAX),
        ("RLIMIT_CORE", 0),
        # The other bound is told apart; this one is for when nobody is left to keep that.
        ("RLIMIT_CPU", int(limits.GRPC_COMPILE_S_MAX) + 1),
        ("RLIMIT_FSIZE", limits.RUN_OUTPUT_SIZE_BYTES_MAX),
        ("RLIMIT_NOFILE", limits.RUN_DESCRIPTORS_MAX),
    ]
    return Command([os.fsencode(each) for each in (sys.executable, *_PROTOC, main)], {}, folder, limits=bounds)


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except (FileExistsError, IsADirectoryError, NotADirectoryError):
            raise invalid_proto(f"it imports {name}, where another import is a folder or a file") from None


def _read(ended: Ended) -> Described:
    """What a compiler has made. Raises GrpcProblem."""
    if ended.overflowed == "stdout" or len(ended.stdout) > limits.GRPC_COMPILED_SIZE_BYTES_MAX:
        raise invalid_proto(f"its descriptors have more than {limits.GRPC_COMPILED_SIZE_BYTES_MAX} bytes")
    if ended.code != 0:
        raise invalid_proto(_words(ended))
    try:
        return Described(FileDescriptorSet.FromString(ended.stdout).file)
    except DecodeError:
        raise invalid_proto("the compiler made nothing of it that can be read") from None


def _words(ended: Ended) -> str:
    """What the compiler says of it."""
    lines = dict.fromkeys(ended.stderr[: limits.RUN_OUTPUT_SIZE_BYTES_MAX].decode(errors="replace").splitlines())
    faults = [line for line in lines if ".proto:" in line and "warning:" not in line][:_FAULTS_SHOWN_MAX]
    if not faults:
        return f"the compiler of .proto files ended with code {ended.code} and without a word on why"
    return printable("; ".join(faults))[: limits.GRPC_COMPILER_SHOWN_SIZE_CHARS_MAX]


def _size_bytes(kept: Described | str) -> int:
    return len(kept) if isinstance(kept, str) else kept.size_bytes


def _out_of_resources(reason: str) -> GrpcProblem:
    sentence = f"the compiler of .proto files could not be started ({reason})"
    return GrpcProblem("communication", 503, OUT_OF_RESOURCES, sentence)


def _sweep() -> None:
    """Removes the folders of workers that are no more and were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*-*"):
        worker = folder.name.removeprefix(_FOLDER).partition("-")[0]
        with contextlib.suppress(OSError):
            is_ours = folder.stat(follow_symlinks=False).st_uid == os.geteuid() and not folder.is_symlink()
            if is_ours and worker.isdigit() and not Path(f"/proc/{worker}").exists():
                shutil.rmtree(folder, ignore_errors=True)
