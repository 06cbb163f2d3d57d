"""Support: the rules of the core's rooms: which part may use which, and that each imports what it uses."""

import re

import pytest

from tests.rooms import CORE, Part, parts_of

ROOTS = {"behaviour", "errors", "progress", "seam", "tally", "values"}
MAY_USE: dict[str, set[str]] = {
    "document": set(),
    "schema": {"document", "progress"},
    "language": {"document", "schema"},
    "values": set(),
    "behaviour": set(),
    "tally": set(),
    "timers": set(),
    "errors": {"progress"},
    "progress": {"errors"},
    "seam": {"errors", "progress"},
    "plan": ROOTS | {"document", "language", "schema"},
    "events": ROOTS | {"document", "language", "plan", "schema"},
    "walk": ROOTS | {"events", "plan"},
}
"""The rooms, and the parts below plan and walk, which use only each other."""

KINDS_MAY_USE = {"Bindings", "Field", "Shape", "bind", "execute"}
"""What kinds of tasks take of the language beside its positions: a row brings its shape and says what it binds."""

EXCEPTIONS = {
    # The columns of a row are functions of the walk.
    ("plan/nodes.pxi", "TaskFrame"),
}
"""Uses that the rules forbid; may shrink."""


def uses_across(parts: list[Part]) -> list[tuple[Part, str, Part]]:
    """Names that a part uses and another one defines."""
    owners: dict[str, list[Part]] = {}
    for part in parts:
        for name in part.defined:
            owners.setdefault(name, []).append(part)
    return [
        (part, name, owners[name][0])
        for part in parts
        for name in sorted(part.used & set(owners) - part.defined)
        if part not in owners[name]
    ]


def is_allowed(part: Part, name: str, owner: Part) -> bool:
    if owner.room == part.room or owner.room in MAY_USE[part.room]:
        return True
    if part.room == "walk" and owner.room == "language":
        return owner.path.name == "positions.pxi" or name in KINDS_MAY_USE
    return False


def room_offences(parts: list[Part]) -> set[tuple[str, str]]:
    return {(part.shown, name) for part, name, owner in uses_across(parts) if not is_allowed(part, name, owner)}


def import_offences(parts: list[Part]) -> set[tuple[str, str]]:
    """Names some part imports, used in one that does not, and names imported for nothing."""
    known = set().union(*(part.imported for part in parts))
    missing = {(part.shown, name) for part in parts for name in part.used & known - part.imported - part.defined}
    idle = {(part.shown, f"{name} is not used") for part in parts for name in part.imported - part.used}
    return missing | idle


def test_parts_use_what_lies_below_them() -> None:
    """document <- schema <- language <- plan <- walk; the root parts lie below plan and walk."""
    assert room_offences(parts_of()) - EXCEPTIONS == set()
    assert EXCEPTIONS - room_offences(parts_of()) == set(), "no exceptions any more: take them off the list"


def test_every_part_has_a_room() -> None:
    assert {part.room for part in parts_of()} == set(MAY_USE)


def test_names_are_defined_in_one_room() -> None:
    """Else an include would silently replace one by the other."""
    rooms: dict[str, set[str]] = {}
    for part in parts_of():
        for name in part.defined:
            rooms.setdefault(name, set()).add(part.room)
    assert {name: found for name, found in rooms.items() if len(found) > 1} == {}


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("document/load.pxi", "cdef int late(object text) except -1:\n    return check_word(text)\n"),
        ("language/rules.pxi", "cdef Plan plan_of(object text):\n    return None\n"),
        ("language/formats.pxi", "cdef int measured(object value):\n    return json_safe(None, value)\n"),
        ("plan/plan.pxi", "cdef object hurry(object walk):\n    return run(walk)\n"),
        ("values.pxi", 'cdef str told(object value):\n    return f"{make_error(value)}"\n'),
        ("errors.pxi", "cdef object failed(EffectFailure failure):\n    return failure\n"),
        ("tally.pxi", "FRAMES = plain_frame()\n"),
        ("walk/commands.pxi", "cdef int problem(object value):\n    return duration_ms(value)\n"),
        ("walk/tasks/wait.pxi", "cdef object more(object text):\n    return read_document(text)\n"),
    ],
)
def test_the_rule_of_rooms_bites(path: str, code: str) -> None:
    text = (CORE / path).read_text(encoding="utf-8")
    assert room_offences(parts_of({path: text + "\n\n" + code})) - EXCEPTIONS != set()


def test_words_are_no_uses() -> None:
    """Prose, strings, attributes and local names."""
    prose = '"""run and check_word"""\n# make_error\n'
    harmless = prose + 'cdef int odd(object run):\n    run.expire = "json_safe"\n    return 0\n'
    text = (CORE / "document/load.pxi").read_text(encoding="utf-8")
    assert room_offences(parts_of({"document/load.pxi": text + "\n\n" + harmless})) == room_offences(parts_of())


def test_parts_import_what_they_use() -> None:
    """A part that leans on another one's import breaks when that one changes, or moves."""
    assert import_offences(parts_of()) == set()


@pytest.mark.parametrize(
    "code",
    [
        "cdef char *text_of(bytes text):\n    return PyBytes_AS_STRING(text)\n",
        "@cython.final\ncdef class Odd:\n    cdef int one\n",
        "from libc.math cimport isfinite\n",
    ],
)
def test_the_rule_of_imports_bites(code: str) -> None:
    text = (CORE / "walk/commands.pxi").read_text(encoding="utf-8")
    assert import_offences(parts_of({"walk/commands.pxi": text + "\n\n" + code})) != set()


def test_jq_knows_nobody() -> None:
    """Its parts see each other and the limits."""
    found = {
        line.strip()
        for path in [*(CORE.parent / "jq").rglob("*.px*"), *CORE.parent.glob("_jq.px*")]
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.match(r"\s*(from|c?import)\s+fastrunner", line)
    }
    allowed = r"from fastrunner(\._jq cimport .*|\.base import limits as _limits)$"
    assert {line for line in found if not re.match(allowed, line)} == set()
