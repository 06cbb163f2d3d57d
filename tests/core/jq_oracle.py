"""Support: libjq (PyPI `jq`) in a process of its own, several programs to a compilation.

Rules: a compilation costs milliseconds, so programs are joined into one, each within a `try` that also delivers the
results before an error. libjq cannot be interrupted: the process has limits of memory and time, is started again when
it does not answer, and the programs it died of are left out.
"""

import json
import resource
import select
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

ANSWER_TIMEOUT_S = 5.0
MEMORY_SIZE_BYTES = 2 << 30

# One result: [program, result's JSON]; one error: [program, the caught value's JSON, 1]. The last line ends an input.
WRAPPED = "(try (({program}) | [{index}, tojson]) catch [{index}, tojson, 1])"
END = -1


class Oracle:
    """Asks libjq for the results of programs over inputs."""

    def __init__(self) -> None:
        self.process = self.start()

    def __enter__(self) -> "Oracle":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parent
        )

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()

    def ask(self, programs: list[str], inputs: list[str]) -> list[list[list[str]] | None] | None:
        """Per program and input the lines, `!` before errors; None if libjq refuses the program; None: no answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([programs, inputs]).encode() + b"\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], ANSWER_TIMEOUT_S)
        line = self.process.stdout.readline() if ready else b""
        if not line:
            self.stop()
            self.process = self.start()
            return None
        result: list[list[list[str]] | None] = json.loads(line)
        return result


def compiles(program: str) -> bool:
    import jq

    try:
        jq.compile(program)
    except ValueError:
        return False
    return True


def answer(programs: list[str], inputs: list[str]) -> list[list[list[str]] | None]:
    """Within the process: compiles all programs at once, or each alone if one of them is refused."""
    import jq

    if len(programs) == 1 and not compiles(programs[0]):
        # Alone, because what wraps it could make it whole.
        return [None]
    body = ", ".join(WRAPPED.format(program=program, index=index) for index, program in enumerate(programs))
    try:
        compiled = jq.compile(f"{body}, [{END}]")
    except ValueError:
        if len(programs) == 1:
            return [None]
        middle = len(programs) // 2
        return answer(programs[:middle], inputs) + answer(programs[middle:], inputs)
    results: list[list[list[str]]] = [[[] for _ in inputs] for _ in programs]
    at = 0
    for found in compiled.input_text("\n".join(inputs)):
        if found[0] == END:
            at += 1
        else:
            results[found[0]][at].append(("!" if len(found) > 2 else "") + found[1])
    return list(results)


def serve() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_SIZE_BYTES, MEMORY_SIZE_BYTES))
    for line in sys.stdin.buffer:
        request: Any = json.loads(line)
        sys.stdout.write(json.dumps(answer(*request)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
