"""Bounds of the engine that are reached without a file: as the settings have them, and in what it remembers."""

import logging
from pathlib import Path

import pytest

from fastrunner.base import limits
from fastrunner.config import load_config
from fastrunner.engine.embedded.admit.admission import Admission
from fastrunner.engine.embedded.run.execution import Execution
from fastrunner.engine.embedded.run.residency import Residents
from fastrunner.engine.embedded.store.file import Store
from fastrunner.engine.embedded.store.proofs import Damage
from fastrunner.errors import AtCapacity
from tests.integration.engines import admission_of, engine_on, folder, submission


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, as a list of one time."""
    now = [1_000.0]
    monkeypatch.setattr("fastrunner.engine.embedded.admit.admission.monotonic_s", lambda: now[0])
    return now


def execution(number: int) -> Execution:
    made = Execution(0, number, f"execution-{number}", 0, b"", False)
    made.client = "client"
    return made


async def test_unfinished_executions_unless_set_otherwise() -> None:
    async with engine_on(folder()) as engine:
        engine._count_active(limits.EXECUTIONS_MAX - 1)
        await engine.submit(submission("last"))
        engine._count_active(1)
        with pytest.raises(AtCapacity, match=f"{limits.EXECUTIONS_MAX} executions are unfinished"):
            await engine.submit(submission("one-more"))


def test_executions_of_a_client_in_a_second_unless_set_otherwise(at: list[float]) -> None:
    admission = admission_of(load_config().client_executions_per_s)
    for _ in range(int(limits.CLIENT_EXECUTIONS_PER_S_MAX)):
        admission.check("client")
    with pytest.raises(AtCapacity):
        admission.check("client")
    at[0] += 1.0
    for _ in range(int(limits.CLIENT_EXECUTIONS_PER_S_MAX)):
        admission.check("client")


def test_parked_executions_in_memory_unless_set_otherwise() -> None:
    residents = Residents(load_config().parked_resident_max, limits.PARKED_RESIDENT_SIZE_BYTES_MAX)
    parked = [execution(number) for number in range(limits.PARKED_RESIDENT_MAX + 3)]
    for each in parked:
        residents.park(each)
    assert list(residents.surplus()) == parked[:3]


def crowd(admission: Admission, first: int, count: int) -> list[Execution]:
    waiting = [execution(first + number) for number in range(count)]
    for each in waiting:
        admission.entered(each, 0)
    return waiting


def test_judgement_outlasts_the_last_refusal(at: list[float]) -> None:
    """A wait that would be none of anybody's business is one too long for a while after others were refused."""
    admission = admission_of(1e9)
    waiting = crowd(admission, 0, limits.ADMISSION_BURST_COUNT_MAX)
    at[0] += limits.ADMISSION_BURST_S_MAX + 0.5
    with pytest.raises(AtCapacity):
        admission.check("client")
    for each in waiting:
        admission.left(each)
    at[0] += limits.ADMISSION_STRICT_S - 0.7
    waiting = crowd(admission, 10_000, limits.ADMISSION_EXECUTIONS_MIN)
    # Beyond two commits as well: those landed a while apart.
    at[0] += 0.6
    with pytest.raises(AtCapacity):
        admission.check("client")
    at[0] += limits.ADMISSION_STRICT_S + 0.1
    admission.check("client")


def test_executions_of_one_commit_land_together(at: list[float]) -> None:
    """Commits of a slow disk, a second apart, each with many executions: their pace is a second, not their gaps'."""
    admission = admission_of(1e9)
    gap_s = limits.ADMISSION_LANDING_S / 4
    for commit in range(60):
        waiting = crowd(admission, commit * 100, 100)
        at[0] += 0.9
        for each in waiting:
            at[0] += gap_s
            admission.left(each)
        admission.check("client")
    crowd(admission, 10_000, limits.ADMISSION_EXECUTIONS_MIN)
    at[0] += 0.9
    admission.check("client")


def test_damages_that_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DAMAGES_KNOWN_MAX", 3)
    store = Store(tmp_path / "shard.db", outbox=False)
    told: list[Damage] = []
    store.on_damage = told.append
    damages = [Damage("events", f"e-{number}", "damaged") for number in range(5)]
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            for each in damages:
                store.report(each)
    assert told == [*damages, *damages[3:]]
    assert len(caplog.records) == 7
