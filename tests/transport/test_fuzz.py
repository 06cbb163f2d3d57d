"""A short run of `make fuzz-wire`, always the same."""

from tests.transport import fuzz
from tests.transport.server_process import ServerProcess


def test_mutated_frames(server: ServerProcess) -> None:
    assert fuzz.run(server, 20261123, 3.0) >= 2 * fuzz.ROUND
