"""Support: an engine for containers with a storage of its own, and a small image in it.

Rule: needs podman and a static busybox (`make tools`), and no registry.
"""

import json
import os
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from tests.outside import find_tool, require, require_tool

__all__ = ["IMAGE", "IMAGE_WITH_COMMAND", "Podman", "layer_of", "podman_with_image", "static_busybox"]

IMAGE = "localhost/fastrunner-test:1"
IMAGE_WITH_COMMAND = "localhost/fastrunner-test-command:1"
"""The same, with CMD and without ENTRYPOINT."""
_PT_INTERP = 3
_APPLETS = (
    "cat",
    "date",
    "dd",
    "echo",
    "env",
    "head",
    "httpd",
    "id",
    "ls",
    "mkdir",
    "printf",
    "sh",
    "sleep",
    "tail",
    "touch",
)


class Podman:
    """Podman with a storage of its own."""

    def __init__(self, folder: Path) -> None:
        self.program = require_tool("podman")
        storage = folder / "storage.conf"
        # vfs: mounts nothing that the folder could not be deleted for.
        lines = ('driver = "vfs"', f'graphroot = "{folder}/graph"', f'runroot = "{folder}/run"')
        storage.write_text("\n".join(["[storage]", *lines]) + "\n")
        self.variables = {"CONTAINERS_STORAGE_CONF": str(storage)}

    def call(self, *line: str, content: bytes = b"", check: bool = True) -> str:
        """What a command writes."""
        done = subprocess.run(
            [self.program, *line],
            input=content,
            capture_output=True,
            check=False,
            timeout=120,
            env={**os.environ, **self.variables},
        )
        assert not check or done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    @property
    def plain(self) -> list[str]:
        """Options with which a container runs on machines that bound what root may have."""
        return ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--stop-timeout", "0"]

    def has_network(self) -> bool:
        """Whether a container can have one of its own."""
        line = ["run", "--rm", *self.plain, IMAGE, "/bin/echo", "up"]
        return self.call(*line, check=False) == "up\n"

    def without_programs(self) -> str:
        """An image in which nothing can be run."""
        image = "localhost/fastrunner-test-empty:1"
        self.call("import", "-", image, content=layer_of(None))
        return image

    def remove_all(self) -> None:
        """Leaves no container."""
        self.call("rm", "--all", "--force", "--volumes", "--time", "0")

    def names(self) -> list[str]:
        """Names of all containers."""
        return self.call("ps", "--all", "--format", "{{.Names}}").split()

    def running(self) -> list[str]:
        """Names of those that run."""
        return self.call("ps", "--format", "{{.Names}}").split()

    def look(self, name: str) -> dict[str, Any]:
        """What is known of one."""
        return dict(json.loads(self.call("inspect", "--type", "container", name))[0])


@contextmanager
def podman_with_image(folder: Path) -> Iterator[Podman]:
    """Podman that has the images, and at the end nothing."""
    podman = Podman(folder)
    content = layer_of(static_busybox())
    podman.call("import", "-", IMAGE, content=content)
    podman.call("import", "--change", 'CMD ["/bin/echo", "own"]', "-", IMAGE_WITH_COMMAND, content=content)
    try:
        yield podman
    finally:
        podman.remove_all()
        podman.call("rmi", "--all", "--force")


def static_busybox() -> bytes:
    """The program; ends the test if it is absent."""
    path = Path(find_tool("busybox") or "")
    require(path.is_file() and _is_static(path.read_bytes()), "busybox-static")
    return path.read_bytes()


def _is_static(program: bytes) -> bool:
    """Whether a program (ELF, 64 bits) needs no other file: no header of it names an interpreter."""
    (offset,) = struct.unpack_from("<Q", program, 32)
    size, count = struct.unpack_from("<HH", program, 54)
    return all(struct.unpack_from("<I", program, offset + number * size)[0] != _PT_INTERP for number in range(count))


def layer_of(busybox: bytes | None) -> bytes:
    """The files of an image with that program, or with none."""
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in ("bin", "tmp"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        if busybox is not None:
            program = tarfile.TarInfo("bin/busybox")
            program.size, program.mode = len(busybox), 0o755
            tar.addfile(program, BytesIO(busybox))
            for applet in _APPLETS:
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
    return archive.getvalue()
