"""Ids whose hashes meet in the table of places: each is answered for by the shard that has it, whoever is asked."""

import asyncio
from types import SimpleNamespace

import pytest

from fastrunner._wire import Placement
from fastrunner.base import clock
from fastrunner.config import Config
from fastrunner.processes import shared
from tests.integration.engines import folder
from tests.simulation.clients import Job
from tests.simulation.pace import live
from tests.simulation.runner import Runner
from tests.simulation.virtual import VirtualTime
from tests.simulation.world import Receiver, Service, World


class _ShortHashes(SimpleNamespace):
    """Placement whose hashes have one bit."""

    create = staticmethod(Placement.create)

    def __call__(self, descriptor: int, key: bytes) -> Placement:
        return Placement(descriptor, key, hash_bits=1)


def test_ids_with_one_hash_at_two_workers_are_told_apart_by_a_third(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(0)
    world.calm, world.trouble = True, dict.fromkeys(world.trouble, 0.0)
    monkeypatch.setattr(clock, "time", world.clock)
    monkeypatch.setattr(shared, "Placement", _ShortHashes())

    async def main() -> None:
        receiver = Receiver(world)
        config = Config(data_dir=folder(), stigmer_service_endpoint="localhost:1")
        runner = Runner(world, config, 3, 3, bytes(16), Service(world, receiver), receiver)
        await runner.ready()
        table = runner.shared.places(0, 3).table
        same = [each for each in map(str, range(99)) if table.hash_of(each) == table.hash_of("0")][:2]
        jobs = [Job(each, "chain", 0.0, [0], False, []) for each in same]
        await jobs[0].submit_again(runner, 0, 0)
        # As from a directory of format 1, in which nothing kept ids whose hashes meet in one shard.
        assert table.release(same[0], 0)
        await jobs[1].submit_again(runner, 0, 1)
        assert table.claim(same[0], 0, (1,)) == -1
        assert table.find(same[0]) == (0, 1)
        for job in jobs:
            for worker in range(3):
                await asyncio.wait_for(job.submit_again(runner, 0, worker), 100)
                await asyncio.wait_for(job.submit_other(runner, worker), 100)
        await runner.drain()
        runner.close()

    assert isinstance(world.clock, VirtualTime)
    live(world.clock, main())
    assert not world.violations
