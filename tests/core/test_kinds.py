"""The table of kinds: a row lacks nothing, and others agree with it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from fastrunner._core import KINDS, TALLIED_OUTCOMES, TaskKind, TaskTally
from fastrunner.access.egress import Egress
from fastrunner.access.secrets import Secrets
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.store.seals import Seals
from fastrunner.events.bus import EventBus
from fastrunner.resources.resolver import Resolver
from fastrunner.tasks import build_performers
from fastrunner.tasks.registry import EFFECTS

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "src/fastrunner/core/walk/kinds.pxi"
COLUMNS = (
    *("number", "name", "feature", "has_effect", "counts_attempts", "build", "frame", "begin", "leave", "wake"),
    *("answer", "cut", "shift", "write", "read", "render"),
)
KINDS_MAX = 64
"""Kinds a tally has room for: a record has six bits for one."""


def rows_of(code: str) -> list[list[str]]:
    """The arguments of each row."""
    found = re.findall(r"^add_kind\(([^()]*)\)$", code, flags=re.MULTILINE)
    return [[argument.strip() for argument in row.split(",")] for row in found]


def lacking(rows: list[list[str]]) -> list[str]:
    """Rows that lack a column, leave it to a default, or have one too many; a kind of its own brings its shape."""
    offences = []
    for row in rows:
        if len(row) not in (len(COLUMNS), len(COLUMNS) + 1) or "" in row or any("=" in cell for cell in row):
            offences.append(f"{row[:2]}: {len(row)} of {len(COLUMNS)} columns")
        offences += [f"{row[1]}: {name} is {cell}" for name, cell in zip(COLUMNS, row, strict=False) if cell == "None"]
    return offences


def test_numbers_are_dense_and_names_unique() -> None:
    assert [kind.number for kind in KINDS] == list(range(len(KINDS)))
    assert len({kind.name for kind in KINDS}) == len({kind.feature for kind in KINDS}) == len(KINDS)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", kind.name) for kind in KINDS)


def test_tallies_know_every_kind() -> None:
    """By its number, and with room to spare for more."""
    assert len(KINDS) <= KINDS_MAX
    tally = TaskTally([10])
    last = KINDS_MAX - 1
    for number in (0, last):
        tally.add((5 << 10 | number << 4).to_bytes(8, "little"))
    assert [cell for cell, _ in tally.take()] == [
        1 + number * tally.cells_per_kind + offset
        for number in (0, last)
        for offset in (0, len(TALLIED_OUTCOMES), tally.cells_per_kind - 1)
    ]


def test_whoever_has_an_effect_has_a_performer(tmp_path: Path) -> None:
    """And no performer waits for a kind that is not there."""
    bus = EventBus(tmp_path, lambda: None, Seals(), 600.0)
    config, metrics = Config(), Metrics(CollectorRegistry())
    described = Resolver(config, metrics, Secrets(None, None), Egress.of(config))
    performers = build_performers(config, metrics, event_sink=bus, descriptions=described)
    # Subflows are the engine's own.
    assert set(performers) == {kind.name for kind in KINDS if kind.has_effect} - {"run_workflow"}


def test_every_effect_says_what_it_means_to_be_performed_again() -> None:
    """Under the name that documents have for it; the page for users says the same."""
    known = {name: effect.feature for name, effect in EFFECTS.items()}
    assert known == {kind.name: kind.feature for kind in KINDS if kind.has_effect}
    command = [sys.executable, str(ROOT / "tools" / "gen_effects.py"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_what_has_an_effect_may_last() -> None:
    assert [kind.name for kind in KINDS if kind.has_effect and not kind.has_frame] == []
    assert [kind.name for kind in KINDS if kind.counts_attempts and not kind.has_frame] == []


def test_kinds_are_not_made() -> None:
    with pytest.raises(TypeError, match="rows"):
        TaskKind()


def test_every_row_has_every_column() -> None:
    rows = rows_of(TABLE.read_text(encoding="utf-8"))
    assert [(int(row[0]), row[1].strip('"')) for row in rows] == [(kind.number, kind.name) for kind in KINDS]
    assert lacking(rows) == []


def test_the_rule_of_rows_bites() -> None:
    (row,) = rows_of(TABLE.read_text(encoding="utf-8"))[:1]
    assert not lacking([row])
    assert lacking([row[:-1]])
    assert lacking([[*row, "SHAPE", "more"]])
    assert lacking([[*row[:-1], "None"]])
    assert lacking([[*row[:-1], "render=never_rendered"]])
