"""Support: a process that dies leaves no dump of its memory, neither in a file nor with a program that takes dumps."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ALLOW = "import os, resource, signal\nresource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(4)[1],) * 2)\n"
FORBID = "from fastrunner.config import Config\nfrom fastrunner.processes.dumps import forbid_dumps\nforbid_dumps({})\n"
LOCAL = "Config(env='local')"
STAGING = "Config(env='staging', stigmer_service_endpoint='runner.test:1')"
SEALED = "Config(env='local', data_key_file='keys')"


def _is_dumped(code: str) -> bool:
    """Whether the kernel says of a process that aborts, or of its child, that it was dumped."""
    abort = (
        "pid = os.fork()\nif pid: os._exit(os.WCOREDUMP(os.waitpid(pid, 0)[1]))\nos.kill(os.getpid(), signal.SIGABRT)"
    )
    return subprocess.run([sys.executable, "-c", f"{ALLOW}{code}{abort}"], check=False).returncode != 0


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A core file would be here."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys").touch()


@pytest.mark.parametrize("config", [LOCAL, STAGING, SEALED])
def test_no_process_is_dumped(config: str) -> None:
    if not _is_dumped(""):
        pytest.skip("this system dumps no process")
    assert not _is_dumped(FORBID.format(config))


@pytest.mark.parametrize(("config", "is_open"), [(LOCAL, True), (STAGING, False), (SEALED, False)])
def test_debuggers_are_kept_out_of_what_is_in_earnest(config: str, is_open: bool) -> None:
    """PR_GET_DUMPABLE is 3; with a hard limit of 0, which may not be raised, the limit keeps no program from dumps."""
    ask = "import ctypes\nprint(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))\n"
    cases = [("", 1, is_open)] if resource.getrlimit(resource.RLIMIT_CORE)[1] else []
    for before, limit, expected in (*cases, ("resource.setrlimit(4, (0, 0))\n", 0, False)):
        code = f"{ALLOW}{before}{FORBID.format(config)}{ask}"
        output = subprocess.check_output([sys.executable, "-c", code], text=True)
        assert output == f"{int(expected)} ({limit}, {limit})\n"
