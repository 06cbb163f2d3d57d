"""Support: the rules of the code itself: who may import whom, what the core may know, names, sizes, what is tracked.

Each rule names its offenders; the only exceptions are the lists below, which may shrink and not grow.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from fastrunner.base.crash import CrashPoint

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "fastrunner"
EXTENSIONS = {"_core": "core", "_jq": "jq", "_wire": "wire", "_http2": "http2"}
"""Compiled modules, and the folder of each one's parts."""
CORE_PARTS = sorted(
    path
    for name, folder in EXTENSIONS.items()
    for path in [*SOURCE.glob(f"{name}.p[yx][xd]"), *(SOURCE / folder).rglob("*.px[id]")]
)
MODULES = sorted(path for path in SOURCE.rglob("*.py") if "_pb" not in path.relative_to(SOURCE).parts)
OTHERS = sorted(path for name in ("tests", "tools", "benchmarks", "examples") for path in (ROOT / name).rglob("*.py"))

BELOW = {"__version__", "_pb", "_version", "base", "config", "counts", "errors", "progress"}
"""What every room may use; these know nobody above them."""
PLACED = BELOW | {"tracing.context"}
"""The same for those that pass on where in a trace something is."""
TRACED = PLACED | {"tracing.execution", "tracing.span"}
"""And for those that say what is traced of an execution."""
STORE = BELOW | {"engine.embedded.store"}
MAY_IMPORT = {
    **dict.fromkeys(BELOW, BELOW),
    "api": {"_pb"},
    "blobs": BELOW,
    "core": {"base"},
    "diagram": BELOW,
    "jq": {"base"},
    "wire": {"base"},
    "http2": {"base"},
    "progress": BELOW | {"_wire"},
    "tracing": BELOW,
    "engine": PLACED | {"_core", "access.principal", "tracing.span"},
    "engine.embedded.store": BELOW | {"_wire", "access.sealing", "engine", "tracing.span"},
    "engine.build": BELOW
    | {"access.sealing", "blobs", "engine", "engine.embedded", "engine.temporal", "routing.placement"}
    | {"events.schedules.calls", "events.sinks.delivery", "tracing.tracer"},
    "engine.temporal": BELOW
    | {"_core", "access.files", "access.principal", "access.sealing", "blobs", "engine", "engine.embedded.admit"}
    | {"engine.embedded.run.commands", "engine.embedded.run.family", "events.attributes", "events.file", "events.index"}
    | {"events.lifecycle.translate", "events.schedules", "events.sinks.delivery", "tracing"},
    "engine.embedded.admit": BELOW | {"_core", "_wire", "engine", "routing.placement"},
    "engine.embedded.run": TRACED | {"_core", "_wire", "engine", "engine.embedded.admit", "engine.embedded.store"},
    "engine.embedded.commit": STORE
    | {"_core", "_wire", "engine", "engine.embedded.admit", "engine.embedded.run", "routing.placement"}
    | {"tracing.span"},
    "engine.embedded": STORE
    | {"_core", "_wire", "engine", "engine.embedded.admit", "engine.embedded.commit", "engine.embedded.run"}
    | {"access.principal", "events.index", "routing.placement", "tracing"},
    "registry": STORE | {"_core", "blobs", "engine"},
    "events": STORE,
    "events.schedules": STORE | {"_core", "access.principal", "engine", "events.bus", "events.file"},
    "events.lifecycle": STORE | {"engine", "events.sinks.delivery"},
    "tasks": PLACED | {"_core", "access.egress", "engine", "events.sinks.delivery"},
    "resources": BELOW | {"_core", "access.egress", "engine", "tasks"},
    "access": BELOW,
    "callback": TRACED | {"access.files", "engine", "tracing.tracer"},
    "routing": PLACED | {"_wire", "access.principal"},
    "service": BELOW
    | {"_core", "_wire", "access.audit", "access.principal", "access.roles", "engine", "routing.facts"}
    | {"events.attributes"},
    "service.transport": PLACED | {"_http2", "access", "routing.facts", "service"},
    "web": PLACED | {"access", "events.attributes"},
    "web.documents": BELOW | {"_core", "diagram", "web"},
    "replica": STORE | {"blobs", "data.backup"},
    "data": STORE
    | {
        "access.sealing",
        "engine",
        "events.file",
        "events.schedules.file",
        "events.lifecycle.positions",
        "registry.file",
    },
    "stigmer": STORE | {"_core", "access", "registry.versions", "web", "web.documents"},
    "scenarios": BELOW | {"_core", "events.attributes", "tasks.emit.arguments"},
    "processes": {"*"},
    "cli": {"*"},
}
"""Imports flow one way: service -> engine -> core. Tasks and callbacks are reached through the engine's protocols."""
EXCEPTIONS: set[tuple[str, str]] = set()
"""Uses that the table forbids, as (module, what it imports); may shrink."""

CORE_MAY_IMPORT = {
    "base64",
    "binascii",
    "bisect",
    "collections",
    "cpython",
    "cython",
    "datetime",
    "decimal",
    "difflib",
    "fastrunner._jq",
    "fastrunner._version",
    "fastrunner.base.limits",
    "functools",
    "hashlib",
    "ipaddress",
    "itertools",
    "json.encoder",
    "libc",
    "math",
    "operator",
    "orjson",
    "re",
    "typing",
    "unicodedata",
    "urllib.parse",
    "zlib",
}
CORE_MUST_NOT_NAME = re.compile(
    r"\b(__import__|importlib)\b|(?<![\w.])(asyncio|grpc|socket|sqlite3|threading|time|random|uuid|os|sys|subprocess)\."
    r"|(?<!int )(?<![\w.])open\(|\.(now|utcnow|today)\("
)

FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 600
TOO_LONG: set[str] = set()
"""Modules and functions beyond the bounds, as `path` or `path:function`."""

SQL = re.compile(
    r"\b(select\s.+\sfrom|insert\s+(or\s+\w+\s+)?into|update\s+\w+\s+set|delete\s+from|(create|drop|alter)\s+"
    r"(unique\s+)?(table|index|view|trigger)|begin\s+(immediate|exclusive|deferred))\b|^\s*pragma\s+\w+",
    re.IGNORECASE | re.DOTALL,
)
MEASURES = {"timeout", "interval", "delay", "age", "wait", "duration", "size", "period", "deadline", "grace"}
UNITS = {"s", "ms", "us", "ns", "bytes", "chars", "count", "max", "min"}
SIZES_IN_ITEMS = {
    "DOCUMENT_KEY_SIZE_MAX",
    "EXPRESSION_ARRAY_SIZE_MAX",
    "EXPRESSION_ERROR_SIZE_MAX",
    "EXPRESSION_STRING_SIZE_MAX",
    "LIST_PAGE_SIZE_MAX",
    "SCHEMA_MESSAGE_SIZE_MAX",
}
"""Sizes whose docstring says what they count; new ones say it in the name."""


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def room_of(module: str) -> str:
    """The room of a module, both named below `fastrunner`: the longest name of the table that leads to it."""
    parts = module.split(".")
    names = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return next((name for name in names if name in MAY_IMPORT), parts[0])


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Modules of fastrunner that a module imports at run time, anywhere in it."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("fastrunner"))
        elif isinstance(node, ast.ImportFrom) and node.module == "fastrunner":
            yield from (f"fastrunner.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastrunner."):
            yield str(node.module)
        pending.extend(ast.iter_child_nodes(node))


# --- boundaries ---


def layer_offences(room: str, tree: ast.AST) -> list[str]:
    """Modules that code of `room` imports and must not."""
    allowed = MAY_IMPORT[room]
    offences = []
    for module in imports_of(tree):
        other = module.removeprefix("fastrunner.")
        names = {room_of(other), other}
        if "*" not in allowed and room_of(other) != room and not names & allowed:
            offences.append(module)
    return offences


def test_imports_flow_one_way() -> None:
    """No room imports one above it."""
    modules = {path: module_of(path) for path in MODULES if module_of(path) not in ("__init__", "__main__")}
    found = {
        (module, offence)
        for path, module in modules.items()
        for offence in layer_offences(room_of(module), tree_of(path))
    }
    assert found - EXCEPTIONS == set()
    assert EXCEPTIONS - found == set(), "these are gone: take them off the list"


@pytest.mark.parametrize(
    ("room", "code"),
    [
        ("engine", "from fastrunner.routing.facts import CallFacts"),
        ("engine", "def late():\n    import fastrunner.tasks.call_http"),
        ("service", "from fastrunner.engine.embedded.engine import EmbeddedEngine"),
        ("errors", "from fastrunner import engine"),
        ("routing", "from fastrunner.service.status import status_of"),
        ("web", "from fastrunner.processes.worker import Worker"),
        ("engine.embedded.store", "from fastrunner.engine.embedded.run.execution import Execution"),
    ],
)
def test_layer_rule_bites(room: str, code: str) -> None:
    """The rule sees imports in any form and anywhere."""
    assert layer_offences(room, ast.parse(code))
    assert not layer_offences(room, ast.parse(f"if TYPE_CHECKING:\n    {code}" if "\n" not in code else ""))


def test_no_relative_imports() -> None:
    """Imports say where they lead, so that the rule above sees them all."""
    relative = [
        f"{shown(path)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not relative


def strip_strings(code: str) -> str:
    """Cython code without triple-quoted strings and comments, line numbers kept."""
    code = re.sub(r'("""|\'\'\')(.*?)\1', lambda found: "\n" * found.group(2).count("\n"), code, flags=re.DOTALL)
    return re.sub(r"(?m)(?<!['\"])#.*$", "", code)


def is_wire(path: Path) -> bool:
    """Whether a part belongs to what is compiled outside the core."""
    return bool({path.stem, *path.relative_to(SOURCE).parts} & {"_wire", "wire"})


JQ_MAY_IMPORT = CORE_MAY_IMPORT - {"_ruamel_yaml", "fastrunner._version", "jsonschema_rs", "orjson"}
"""The engine for expressions uses nothing of the core, and of `_jq` only its own declarations."""


WIRE_MAY_IMPORT = {"cpython", "cython", "fastrunner.base.limits", "fcntl", "libc", "os", "posix"}
"""What is compiled outside the core may do I/O, and uses nothing of the core."""


def may_import(path: Path) -> set[str]:
    """What a part of an extension may import."""
    if is_wire(path):
        return WIRE_MAY_IMPORT
    return JQ_MAY_IMPORT if {path.stem, *path.relative_to(SOURCE).parts} & {"_jq", "jq"} else CORE_MAY_IMPORT


def core_offences(
    code: str, allowed: set[str] = CORE_MAY_IMPORT, must_not_name: re.Pattern[str] = CORE_MUST_NOT_NAME
) -> list[str]:
    """Lines of the core that import what it must not, or reach for it in another way."""
    offences = []
    for number, line in enumerate(strip_strings(code).splitlines(), 1):
        origin = re.match(r"\s*from\s+([\w.]+)\s+c?import\b", line)
        plain = re.match(r"\s*c?import\s+(.+)", line)
        modules = [origin.group(1)] if origin else plain.group(1).split(",") if plain else []
        if modules in (["fastrunner"], ["fastrunner.base"]):
            modules = [f"{modules[0]}.{name.strip()}" for name in line.split("import")[1].split(",")]
        names = [module.split(" as ")[0].strip() for module in modules]
        refused = [name for name in names if not {name, name.split(".")[0]} & allowed]
        if refused or must_not_name.search(line):
            offences.append(f"{number}: {line.strip()}")
    return offences


def test_core_does_no_io_and_knows_no_clock() -> None:
    """The core imports and names nothing that could do I/O, tell the time or make up a random number."""
    found = {
        shown(path): core_offences(path.read_text(encoding="utf-8"), may_import(path))
        for path in CORE_PARTS
        if not is_wire(path)
    }
    assert {path: offences for path, offences in found.items() if offences} == {}


def test_what_is_compiled_outside_the_core_knows_nothing_of_it() -> None:
    """And of Python's rooms only the bounds."""
    found = {
        shown(path): core_offences(path.read_text(encoding="utf-8"), WIRE_MAY_IMPORT, re.compile(r"\b__import__\b"))
        for path in CORE_PARTS
        if is_wire(path)
    }
    assert found
    assert {path: offences for path, offences in found.items() if offences} == {}
    assert core_offences("from fastrunner._core cimport Walk", WIRE_MAY_IMPORT)


@pytest.mark.parametrize(
    "code",
    [
        "import time",
        "from asyncio import sleep",
        "import orjson, os",
        "    import socket as s",
        "from fastrunner.engine import Engine",
        "cimport posix.time",
        "__import__('grpc')",
        "now = time.time()",
        "from fastrunner.base import limits, clock",
        "now = _datetime.now(_timezone.utc)",
        "text = open(path).read()",
        "sqlite3.connect('x')",
    ],
)
def test_core_ban_bites(code: str) -> None:
    """The ban sees what it is for."""
    assert core_offences(code)


@pytest.mark.parametrize(
    "code", ["from fastrunner._core import load", "from fastrunner._core cimport Walk", "import orjson"]
)
def test_expressions_use_nothing_of_the_core(code: str) -> None:
    """Imports between the extensions go one way."""
    assert core_offences(code, JQ_MAY_IMPORT)
    assert not core_offences("from fastrunner._jq cimport Program", may_import(SOURCE / "core" / "walk.pxi"))


def test_core_ban_spares_names_that_look_alike() -> None:
    """Prose, methods and variables are no I/O."""
    assert not core_offences('"""import time"""\nscanner.open(text)\ncdef int open(self):\n# import os\ntime_ms = 1')


@pytest.mark.parametrize(("name", "folder"), EXTENSIONS.items())
def test_core_root_only_assembles(name: str, folder: str) -> None:
    """`_core.pyx` and its like are a docstring and includes, and every part is included."""
    root = strip_strings((SOURCE / f"{name}.pyx").read_text(encoding="utf-8"))
    lines = [line for line in root.splitlines() if line.strip()]
    assert [
        line for line in lines if not re.fullmatch(rf'include "{folder}/[\w/]+\.pxi"|(from|cimport) .*', line)
    ] == []
    assert sorted(line.split('"')[1] for line in lines if line.startswith("include")) == sorted(
        str(path.relative_to(SOURCE)) for path in (SOURCE / folder).rglob("*.pxi")
    )


@pytest.mark.parametrize("module", ["fastrunner.processes.supervisor", "fastrunner.cli", "fastrunner.cli.serve"])
def test_supervisor_forks_from_a_clean_process(module: str) -> None:
    """What `fastrunner serve` imports before it forks has no grpc, no metrics, no thread and no event loop."""
    code = (
        f"import {module}, sys, threading\n"
        "bad = {'grpc', 'prometheus_client', 'uvloop', 'aiohttp', 'google.protobuf'} & set(sys.modules)\n"
        "assert not bad, bad\n"
        "assert threading.active_count() == 1\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_worker_loads_no_client_before_an_effect_needs_it() -> None:
    """It is most of what an idle worker would take, gRPC's library before all. Nor does it load what other processes
    need, or rare calls."""
    code = (
        "import fastrunner.processes.worker, sys\n"
        "from fastrunner.base.extras import EXTRAS\n"
        "rare = {'aiohttp', 'cryptography', 'google.protobuf.json_format', 'joserfc', 'prometheus_client', 'rich'}\n"
        "rare |= {'anyio', 'grpc', 'httpx', 'httpx2', 'mcp_types'} | {extra.module for extra in EXTRAS.values()}\n"
        "assert not rare & {*sys.modules}, rare & {*sys.modules}\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


_LOADED_BEFORE = (
    *("aiohttp", "asyncio", "google.protobuf.json_format", "grpc.aio", "pydantic_settings", "pymongo"),
    *("temporalio.client", "temporalio.worker", "uvloop"),
)
"""Libraries that are loaded once for all modules: they know none of them, and are nine tenths of the time."""
_IMPORTED_TOGETHER = 60
"""Modules that one test imports: on a slow machine each takes a second."""


def importable_names() -> Iterator[tuple[str, list[str]]]:
    """All modules in groups, each with one that is loaded before: none, or the settings for those that settings may not
    import, as the test of rooms has it."""
    names = [name for name in map(module_of, MODULES) if not name.endswith("__main__")]
    below = {name for name in names if name.partition(".")[0] in BELOW or "." not in name}
    for before, group in (("", sorted(below)), ("fastrunner.config", sorted({*names} - below))):
        for first in range(0, len(group), _IMPORTED_TOGETHER):
            yield before, [f"fastrunner.{name}" for name in group[first : first + _IMPORTED_TOGETHER]]


@pytest.mark.parametrize(("before", "names"), [pytest.param(*each, id=each[1][0]) for each in importable_names()])
def test_every_module_imports_alone(before: str, names: list[str]) -> None:
    """Each module can be the first one imported, without a warning and without creating a file."""
    # One interpreter that forks per module is twenty times cheaper than an interpreter each.
    code = """
import contextlib, gc, os, sys
before, names = (each.split() for each in sys.argv[1:])
gc.disable()
for name in before:
    with contextlib.suppress(ModuleNotFoundError):
        __import__(name)
gc.freeze()
for name in names:
    pid = os.fork()
    if not pid:
        try:
            __import__(name)
        except BaseException as error:
            print(f"{name}: {type(error).__name__}: {error}", flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
"""
    arguments = (" ".join((*_LOADED_BEFORE, before)), " ".join(names))
    completed = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments], capture_output=True, text=True, check=True, timeout=110
    )
    assert completed.stdout == ""


# --- where things live ---


def test_environment_is_read_in_one_place() -> None:
    """Only `config` reads or sets environment variables."""
    offenders = [
        f"{shown(path)}:{node.lineno}"
        for path in MODULES
        if path.parent.name != "config"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "putenv", "environb")
    ]
    assert not offenders


def test_clocks_are_read_in_one_place() -> None:
    """Only clock.py reads clocks."""
    clocks = {"time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.perf_counter"}
    clocks |= {"datetime.now", "datetime.utcnow", "datetime.datetime.now"}
    offenders = [
        f"{shown(path)}:{node.lineno}"
        for path in MODULES
        if path.name != "clock.py"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in clocks
    ]
    assert not offenders


def docstrings_of(tree: ast.AST) -> set[int]:
    """Ids of the string nodes that document something."""
    return {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }


def test_sql_lives_in_sql_files() -> None:
    """No statement is written in Python."""
    offenders = []
    for path in MODULES:
        documentation = docstrings_of(tree_of(path))
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in documentation:
                continue
            if SQL.search(node.value):
                offenders.append(f"{shown(path)}:{node.lineno}: {node.value[:60]!r}")
    assert not offenders


def test_shards_are_opened_by_one_library_only() -> None:
    """Two copies of SQLite in one process drop each other's file locks, and Python's own may lose commits."""
    offenders = [
        shown(path)
        for path in [*MODULES, *OTHERS]
        for node in ast.walk(tree_of(path))
        if (isinstance(node, ast.Import) and any(name.name.partition(".")[0] == "sqlite3" for name in node.names))
        or (isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "sqlite3")
    ]
    assert not offenders, f"import apsw instead: {offenders}"


def test_nothing_built_is_tracked() -> None:
    """Generated C and compiled files stay out of the repository."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    assert [name for name in listed.stdout.splitlines() if name.endswith((".c", ".so", ".o", ".pyc"))] == []


# --- names, documentation, sizes ---


@pytest.mark.parametrize("path", [*MODULES, *OTHERS], ids=shown)
def test_module_opens_with_its_place(path: Path) -> None:
    """Every module says first what it is; those of the package say where on the data path."""
    documentation = ast.get_docstring(tree_of(path))
    if path.name == "__init__.py" and not path.read_text(encoding="utf-8").strip():
        assert SOURCE not in path.parents
        return
    assert documentation
    if SOURCE in path.parents and path != SOURCE / "__init__.py":
        assert re.match(r"(Stages? \d.*?|Support): ", documentation) or documentation.startswith("Stage"), documentation


@pytest.mark.parametrize("path", CORE_PARTS, ids=shown)
def test_core_part_opens_with_its_place(path: Path) -> None:
    """So does every part of the core."""
    assert re.match(r'"""(Stages?|Support of stages?) \d', path.read_text(encoding="utf-8"))


def limits() -> Iterator[tuple[str, bool]]:
    """Names of the limits, and whether a docstring follows each."""
    body = [node for path in sorted((SOURCE / "base/limits").glob("*.py")) for node in tree_of(path).body]
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)


def test_every_limit_has_its_reason() -> None:
    """A bound without a reason cannot be changed with confidence."""
    assert [name for name, documented in limits() if not documented] == []


def test_limits_carry_their_units() -> None:
    """A bound on time ends in its unit, one on size in what it counts; `MAX` and `MIN` come last."""
    offenders = []
    for name, _ in limits():
        words = name.removesuffix("_MAX").removesuffix("_MIN").lower().split("_")
        measured = MEASURES & set(words)
        if measured and words[-1] not in UNITS and not words[-1].endswith("s") and name not in SIZES_IN_ITEMS:
            offenders.append(name)
        if {"MAX", "MIN"} & set(name.split("_")[:-1]):
            offenders.append(name)
    assert not offenders


def test_parameters_carry_their_units() -> None:
    """No parameter or field is a bare timeout, size or delay."""
    offenders = []
    for path in MODULES:
        for node in ast.walk(tree_of(path)):
            name = ""
            if isinstance(node, ast.arg):
                name = node.arg
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                name = node.target.id
            if name.split("_")[-1] in MEASURES:
                offenders.append(f"{shown(path)} {name}")
    assert not offenders


def test_fields_are_documented() -> None:
    """Every public field of a public dataclass, and every setting, has a line below it."""
    offenders = []
    for path in MODULES:
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
                continue
            decorated = any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)
            if not decorated and node.name != "Config":
                continue
            for field, following in zip(node.body, [*node.body[1:], None], strict=True):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    documented = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                    if not documented and not field.target.id.startswith("_"):
                        offenders.append(f"{shown(path)}:{field.lineno} {node.name}.{field.target.id}")
    assert not offenders


def python_lengths(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body
            start = body[0].lineno
            if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
                start = (body[0].end_lineno or start) + 1
            yield node.name, (node.end_lineno or start) - start + 1


def cython_lengths(path: Path) -> Iterator[tuple[str, int]]:
    """Functions by indentation: from the line after the header to the last line indented deeper."""
    head = re.compile(r"^(\s*)(?:c?p?def)\s+(?:inline\s+)?(?!class\b|struct\b|enum\b|extern\b)[^=]*?(\w+)\(")
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        found = head.match(line)
        if not found:
            continue
        depth = len(found.group(1))
        last = number
        for offset, following in enumerate(lines[number + 1 :], number + 1):
            if (
                following.strip()
                and len(following) - len(following.lstrip()) <= depth
                and following.strip()[0] not in ")]"
            ):
                break
            last = offset if following.strip() else last
        yield found.group(2), last - number


def test_modules_and_functions_are_small() -> None:
    """Past these sizes a part has two jobs. The list of exceptions only shrinks."""
    found = set()
    for path in [*MODULES, *CORE_PARTS]:
        if len(path.read_text(encoding="utf-8").splitlines()) > MODULE_LINES_MAX:
            found.add(shown(path))
        lengths = python_lengths(path) if path.suffix == ".py" else cython_lengths(path)
        found |= {f"{shown(path)}:{name}" for name, count in lengths if count > FUNCTION_LINES_MAX}
    assert found - TOO_LONG == set(), "split these"
    assert TOO_LONG - found == set(), "these are small now: take them off the list"


def test_every_crash_point_is_reached_at_one_place() -> None:
    """A point that is never reached proves nothing; one reached at two places does not say where the process died."""
    used = [
        node.args[0].attr
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("crash.reach", "crash.reach_soon")
        and isinstance(node.args[0], ast.Attribute)
    ]
    assert sorted(used) == sorted(point.name for point in CrashPoint)


def test_nothing_is_left_for_later() -> None:
    """No marker of unfinished work."""
    marker = re.compile(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError)\b")
    offenders = [
        f"{shown(path)}:{number}"
        for path in [*MODULES, *CORE_PARTS]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if marker.search(line)
    ]
    assert not offenders


def test_queues_are_bounded() -> None:
    """A queue without a bound is memory without one."""
    offenders = [
        f"{shown(path)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).split(".")[-1] in ("Queue", "LifoQueue", "PriorityQueue")
        and not node.args
        and not node.keywords
    ]
    assert not offenders
