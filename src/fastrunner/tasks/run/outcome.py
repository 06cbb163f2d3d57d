"""Stage 5, tasks: what the workflow hears of a run: its output or its error.

Rules: an exit code is an error only where the output says nothing of it: with `return: stdout` and `none`. Details hold
the code and the end of stderr, searched for secrets before it is cut; never a command, an argument or a variable.
"""

import errno
import json
import os
from collections.abc import Mapping
from typing import Any

from fastrunner._core import EffectFailure, EffectResult, PerformEffect
from fastrunner.base import limits
from fastrunner.base.redaction import redact
from fastrunner.tasks.run.arguments import RunProblem
from fastrunner.tasks.run.process import Ended, LaunchProblem

__all__ = ["failure_of", "how_it_ended", "overflow_of", "problem_of_launch", "problem_of_resources", "result_of"]

OUT_OF_RESOURCES = "Runner Out Of Resources"
"""Title of a run that did not start for want of descriptors, memory or processes; a moment later it may."""


def failure_of(effect: PerformEffect, problem: RunProblem) -> EffectFailure:
    """The error of a run without an output."""
    kind = effect.kind.replace("_", ": ")
    return EffectFailure(effect.effect_id, problem.type, problem.status, problem.title, f"{kind}: {problem.detail}")


def problem_of_launch(problem: LaunchProblem) -> RunProblem:
    """The problem of a program that did not start."""
    reason = os.strerror(problem.number) if problem.number else "no reason given"
    if problem.step == "exec" and problem.number == errno.E2BIG:
        return RunProblem.of_argument(
            "configuration",
            "command, arguments and environment take more than the system allows (128 KiB for one): pass large data in "
            "stdin",
        )
    if problem.step == "exec":
        return RunProblem.of_argument("configuration", f"its program could not be started ({reason})")
    return RunProblem("runtime", 503, OUT_OF_RESOURCES, f"no process could be set up ({problem.step}: {reason})")


def problem_of_resources(error: OSError) -> RunProblem:
    """The problem of a run that found no room on the machine."""
    reason = os.strerror(error.errno) if error.errno else "no reason given"
    return RunProblem("runtime", 503, OUT_OF_RESOURCES, f"no process could be started ({reason})")


def overflow_of(ended: Ended) -> RunProblem:
    """The problem of a process that wrote too much."""
    return RunProblem(
        "runtime",
        500,
        "Output Too Large",
        f"the process wrote more than {limits.RUN_OUTPUT_SIZE_BYTES_MAX} bytes to {ended.overflowed}, and was "
        "killed for it",
    )


def result_of(effect: PerformEffect, arguments: Mapping[str, Any], ended: Ended) -> EffectResult:
    """The output of a run. Raises RunProblem."""
    form = arguments["return"]
    if ended.overflowed:
        raise overflow_of(ended)
    if ended.code != 0 and form in ("stdout", "none"):
        raise RunProblem("runtime", 500, "Process Failed", how_it_ended(ended))
    return EffectResult(effect.effect_id, _value(form, ended))


def _value(form: str, ended: Ended) -> Any:
    match form:
        case "stdout":
            return _text(ended.stdout, "stdout")
        case "stderr":
            return _text(ended.stderr, "stderr")
        case "code":
            return ended.code
        case "all":
            texts = {"stdout": _text(ended.stdout, "stdout"), "stderr": _text(ended.stderr, "stderr")}
            return {"code": ended.code, **texts}
        case _:
            return None


def _text(output: bytes, stream: str) -> str:
    try:
        return output.decode()
    except UnicodeDecodeError as error:
        raise RunProblem(
            "runtime",
            500,
            "Output Is No Text",
            f"what the process wrote to {stream} is no UTF-8 (byte {error.start + 1}): have it write base64",
        ) from None


def how_it_ended(ended: Ended) -> str:
    """What a process's end means, in words: its code, what the kernel did to it, and the end of stderr."""
    how = f"the process ended with code {ended.code}"
    if ended.out_of_memory:
        how += ", and the kernel killed some of it for want of memory (see FASTRUNNER_RUN_MEMORY_MIB)"
    if ended.out_of_processes:
        how += ", and the kernel refused it more processes (see FASTRUNNER_RUN_PROCESSES_MAX)"
    end = ended.stderr[-limits.RUN_STDERR_SEARCHED_SIZE_BYTES_MAX :].decode("utf-8", "replace")
    shown = redact(end).strip()[-limits.RUN_STDERR_SHOWN_SIZE_CHARS_MAX :]
    return f"{how}; stderr ends with {json.dumps(shown, ensure_ascii=False)}" if shown else how
