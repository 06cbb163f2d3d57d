"""Marks: whose turn was its worker's death, how often, and what voids a count."""

import logging
import os
from pathlib import Path

import pytest

from fastrunner.base import limits
from fastrunner.base.deaths import CAUSES, HUNG, Death
from fastrunner.engine.embedded.store.marks import Marks, Standing

SEGV = Death("SIGSEGV", 100.0)


class File:
    """Executions of a shard as they stand."""

    def __init__(self, *keys: int) -> None:
        self.rows = {key: Standing(f"x{key}", 1000 + key, 4) for key in keys}

    def find(self, key: int) -> Standing | None:
        return self.rows.get(key)

    def go_on(self, key: int) -> None:
        self.rows[key] = self.rows[key]._replace(last_sequence=self.rows[key].last_sequence + 1)


def successor(folder: Path) -> Marks:
    marks = Marks(folder / "shard-0000.marks")
    marks.open()
    return marks


def die(folder: Path, file: File, key: int, death: Death | None = SEGV, began_s: float = 99.99) -> int:
    """A worker dies in a turn of `key`; the deaths of it that its successor knows."""
    successor(folder).begin(key, began_s)
    suspect = successor(folder).judge(death, file.find)
    return 0 if suspect is None else suspect.deaths_count


def test_third_death_without_progress_condemns(tmp_path: Path) -> None:
    file = File(1)
    assert limits.DEATHS_IN_TURN_MAX == 3
    assert [die(tmp_path, file, 1) for _ in range(2)] == [1, 2]
    assert successor(tmp_path).condemned(file.find) == []
    assert die(tmp_path, file, 1, Death("SIGBUS", 100.0)) == 3
    [condemned] = successor(tmp_path).condemned(file.find)
    assert (condemned.execution_key, condemned.cause_name) == (1, "SIGBUS")
    file.go_on(1)
    assert successor(tmp_path).condemned(file.find) == []


def test_progress_voids_a_count(tmp_path: Path) -> None:
    file = File(1)
    assert [die(tmp_path, file, 1) for _ in range(2)] == [1, 2]
    file.go_on(1)
    assert die(tmp_path, file, 1) == 1
    # The same number in a file restored from a backup is somebody else.
    file.rows[1] = file.rows[1]._replace(accepted_ms=5)
    assert die(tmp_path, file, 1) == 1


def test_two_are_counted_apart(tmp_path: Path) -> None:
    file = File(1, 2)
    assert [die(tmp_path, file, 1 + number % 2) for number in range(6)] == [1, 1, 2, 2, 3, 3]


def test_only_who_was_marked_and_is_stored_is_counted(tmp_path: Path) -> None:
    file = File(1)
    marks = successor(tmp_path)
    marks.begin(1, 99.0)
    marks.end()
    assert successor(tmp_path).judge(SEGV, file.find) is None
    assert die(tmp_path, file, 7) == 0
    # A mark is judged once, whoever died of what afterwards.
    assert die(tmp_path, file, 1, None) == 0
    assert successor(tmp_path).judge(SEGV, file.find) is None


@pytest.mark.parametrize(
    ("cause", "lasted_s", "counts"),
    [
        *[(cause, 0.001, True) for cause in CAUSES if cause != "SIGKILL"],
        ("SIGKILL", 0.001, False),
        ("SIGKILL", limits.TURN_S_MAX - 0.1, False),
        ("SIGKILL", limits.TURN_S_MAX + 0.1, True),
        ("SIGTERM", 10.0, False),
        ("SIGINT", 10.0, False),
    ],
)
def test_what_a_turn_can_be_blamed_for(cause: str, lasted_s: float, counts: bool) -> None:
    assert Death(cause, 100.0).was_of(100.0 - lasted_s) is counts


def test_suspects_beyond_the_bound_give_way_to_the_worse_ones(tmp_path: Path) -> None:
    keys = range(1, limits.SUSPECTS_MAX + 2)
    file = File(*keys)
    assert [die(tmp_path, file, 1) for _ in range(2)] == [1, 2]
    for key in keys[1:]:
        assert die(tmp_path, file, key) == 1
    assert die(tmp_path, file, 1) == 3
    assert die(tmp_path, file, keys[-1]) == 2
    assert die(tmp_path, file, 2) == 1


@pytest.mark.parametrize(
    "damage", [b"", b"nothing", b"\0" * 4096, b"FRMARKS1" + b"\1" * 4088, b"FRMARKS1" + bytes(9000)]
)
def test_damaged_file_is_made_anew(tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "shard-0000.marks").write_bytes(damage)
    file = File(1)
    with caplog.at_level(logging.WARNING):
        successor(tmp_path)
    assert ("damaged" in caplog.text) is bool(damage)
    assert [die(tmp_path, file, 1) for _ in range(2)] == [1, 2]
    assert (tmp_path / "shard-0000.marks").stat().st_size == 4096


def test_changed_count_is_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = File(1)
    assert [die(tmp_path, file, 1) for _ in range(2)] == [1, 2]
    content = bytearray((tmp_path / "shard-0000.marks").read_bytes())
    content[64 + 24] += 1
    (tmp_path / "shard-0000.marks").write_bytes(content)
    assert successor(tmp_path).condemned(file.find) == []
    assert "damaged" in caplog.text
    assert die(tmp_path, file, 1) == 1


def test_disk_without_room_costs_the_counts_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(descriptor: int, offset: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    marks = successor(tmp_path)
    assert "No space left" in caplog.text
    marks.begin(1, 5.0)
    assert marks.judge(Death(HUNG, 9.0), File(1).find) is not None
