"""A new kind of task is one part and one row: shown by building one that uses all of the seam, and driving it."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from fastrunner._core import KINDS

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "fastrunner"
MADE_UP = Path(__file__).parent / "made_up"
SUFFIX = str(sysconfig.get_config_var("EXT_SUFFIX"))
ROW = f"""
add_kind({len(KINDS)}, "probe", "probe", True, False,
         build_probe, probe_frame, begin_probe, leave_probe, wake_probe, answer_probe,
         nothing_cut, shift_probe, write_probe, read_probe, render_probe, PROBE)
"""
DIRECTIVES = ("wraparound=False", "boundscheck=True", "nonecheck=True", "auto_pickle=False", "binding=True")


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=600, check=False
    )


def insert(path: Path, before: str, text: str) -> None:
    """Puts text before a line that a file has once."""
    code = path.read_text(encoding="utf-8")
    assert code.count(before) == 1
    path.write_text(code.replace(before, text + before), encoding="utf-8")


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package `fastrunner` that has the kind `probe`: two insertions and one part."""
    folder = tmp_path_factory.mktemp("made_up")
    package = folder / "fastrunner"
    shutil.copytree(SOURCE, package, ignore=shutil.ignore_patterns("*.so", "*.c", "__pycache__"))
    (jq,) = SOURCE.glob("_jq.*.so")
    shutil.copy(jq, package)
    shutil.copy(MADE_UP / "probe.pxi", package / "core/walk/tasks/probe.pxi")
    insert(package / "_core.pyx", 'include "core/walk/kinds.pxi"\n', 'include "core/walk/tasks/probe.pxi"\n')
    insert(package / "core/walk/kinds.pxi", "\nKINDS = ", ROW)
    options = [part for directive in DIRECTIVES for part in ("-X", directive)]
    core = str(package / "_core.c")
    cython = run(sys.executable, "-m", "cython", "-3", *options, "-I", str(folder), core.replace(".c", ".pyx"))
    assert cython.returncode == 0, cython.stderr
    include = sysconfig.get_path("include")
    gcc = run("gcc", "-shared", "-fPIC", "-O0", "-w", "-I", include, core, "-o", core.replace(".c", SUFFIX))
    assert gcc.returncode == 0, gcc.stderr
    return folder


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_kind_that_uses_all_of_the_seam(made_up: Path) -> None:
    """Each case of `made_up/probing.py`, in a process of its own with that package."""
    cases = str(MADE_UP / "probing.py")
    done = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", cases, PYTHONPATH=f"{made_up}:{ROOT}")
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed.group(1)) == (MADE_UP / "probing.py").read_text(encoding="utf-8").count("\ndef test_")
