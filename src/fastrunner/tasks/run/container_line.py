"""Stage 5, tasks: the evaluated arguments of a container as what the engine's command line takes.

Rules: as of `arguments`: refused before anything is started, no value in a problem's text. A command line is seen by
everybody on the machine, so the variables are a file, in memory. Images are plain references: nothing that an engine
takes for an option, a path or another transport.
"""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastrunner.base import limits
from fastrunner.tasks.run.arguments import RunProblem, pairs_of, text_of

__all__ = ["PULLS", "effect_of", "environment_file", "image_of", "mounts_of", "name_of", "publications_of"]

PULLS = {"ifNotPresent": "missing", "always": "always", "never": "never"}
"""What the engines call the pull policies."""

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:(?:[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?/)?{_COMPONENT}(?:/{_COMPONENT})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_.-]+")
_HOST_PORT = re.compile(r"[0-9]{1,5}")
_PORT = re.compile(r"([0-9]{1,5})(?:/(tcp|udp))?")
_PORT_MAX = 65_535
_IN_VARIABLES_NAME = re.compile(r"[^\s#=\0][^\s=\0]*")
_LINE_ENDS = re.compile(r"[\r\n]")
_NOT_IN_MOUNT = re.compile(r"[,:\"\x00-\x1f\x7f]")


def _refused(detail: str) -> RunProblem:
    return RunProblem.of_argument("configuration", detail)


def image_of(given: Any) -> str:
    """The reference of an image. Raises RunProblem."""
    image = text_of(given, "image")
    if not _IMAGE.fullmatch(image):
        raise _refused("image is no reference of an image, as in ghcr.io/acme/tool:1.2")
    return image


def name_of(given: Any, parts: Sequence[str], effect: str) -> str:
    """The container's name: the document's, else one made of workflow, effect, namespace and task, as the DSL
    recommends. Raises RunProblem."""
    if given is None:
        workflow, namespace, task = (
            _NOT_IN_NAME.sub("-", part)[: limits.CONTAINER_NAME_PART_SIZE_CHARS] for part in parts
        )
        return f"{workflow.lstrip('-_.') or 'workflow'}-{effect}.{namespace}-{task}"
    name = text_of(given, "name")
    if len(name) > limits.CONTAINER_NAME_SIZE_CHARS_MAX or not _NAME.fullmatch(name):
        raise _refused(
            "name is no name of a container: it begins with a letter or digit and has those, '_', '.' and '-', "
            f"{limits.CONTAINER_NAME_SIZE_CHARS_MAX} characters at most"
        )
    return name


def effect_of(runner: str, idempotency_key: str) -> str:
    """What an effect is called in its container's name and label: the same when it is performed again, and by no other
    runner."""
    return hashlib.sha256(f"{runner}\n{idempotency_key}".encode()).hexdigest()[:32]


def publications_of(given: Any) -> list[str]:
    """Ports of the machine by ports of the container, as `--publish` takes them: on loopback alone. Raises
    RunProblem."""
    publications = []
    for host, inner in pairs_of(given, "ports"):
        match = _PORT.fullmatch(inner)
        if not _HOST_PORT.fullmatch(host) or match is None or not all(_is_port(each) for each in (host, match[1])):
            raise _refused(
                "ports has something else than ports of the machine by ports of the container, as in 8880: 80"
            )
        publications.append(f"127.0.0.1:{int(host)}:{int(match[1])}/{match[2] or 'tcp'}")
    return publications


def _is_port(text: str) -> bool:
    return 1 <= int(text) <= _PORT_MAX


def mounts_of(given: Any, root: Path | None) -> list[str]:
    """Folders of the machine by those of the container, as `--mount` takes them: none but below the root, wherever
    links lead. Raises RunProblem."""
    mounts = []
    for outer, inner in pairs_of(given, "volumes"):
        if root is None:
            raise _refused(
                "volumes are not allowed here: set FASTRUNNER_RUN_VOLUMES to the folder below which they may lie"
            )
        target, _, access = inner.partition(":")
        if access not in ("", "ro", "rw") or not os.path.isabs(target) or _NOT_IN_MOUNT.search(target):
            raise _refused("volumes has a folder of the container that is no absolute path, with :ro after it or not")
        if not os.path.isabs(outer) or _NOT_IN_MOUNT.search(outer):
            raise _refused(
                "volumes has a folder of the machine that is no absolute path, or has one of , : and quotes in it"
            )
        real = os.path.realpath(outer)
        if not Path(real).is_relative_to(os.path.realpath(root)) or _NOT_IN_MOUNT.search(real):
            raise _refused("volumes has a folder that does not lie below the one that FASTRUNNER_RUN_VOLUMES names")
        if not os.path.exists(real):
            raise _refused("volumes has a folder that does not exist: containers make none")
        mounts.append(f"type=bind,source={real},destination={target}{',readonly' if access == 'ro' else ''}")
    return mounts


def environment_file(environment: Mapping[bytes, bytes]) -> bytes:
    """A file of variables, one in a line, which is all that engines read. Raises RunProblem."""
    lines = []
    for name, value in environment.items():
        shown = f"environment variable {name.decode()[:100]!r}"
        if not _IN_VARIABLES_NAME.fullmatch(name.decode()):
            raise _refused(f"{shown} has a name that no container can be given: it holds blanks, or begins with '#'")
        if _LINE_ENDS.search(value.decode()):
            raise _refused(
                f"{shown} holds the end of a line, which no container can be given: pass it in stdin, or in base64"
            )
        if len(name) + len(value) > limits.CONTAINER_VARIABLE_SIZE_BYTES_MAX:
            raise _refused(
                f"{shown} has more than the {limits.CONTAINER_VARIABLE_SIZE_BYTES_MAX} bytes that a container can be "
                "given: pass large data in stdin"
            )
        lines.append(name + b"=" + value + b"\n")
    return b"".join(lines)
