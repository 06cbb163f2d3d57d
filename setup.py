"""Builds the compiled extensions, `_core`, `_jq`, `_wire` and `_http2`; everything static is in pyproject.toml."""

import os

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("FASTRUNNER_DEBUG") == "1"

directives = {
    "language_level": 3,
    # No index is negative.
    "wraparound": DEBUG,
    # jq and JSON need C's integer division only where we say so explicitly.
    "cdivision": False,
    # Objects of compiled classes are no data; their state is stored in formats of its own.
    "auto_pickle": False,
    # Text signatures make the stub test compare parameters.
    "binding": True,
    "embedsignature": False,
}
UNCHECKED = {"boundscheck": DEBUG, "nonecheck": DEBUG}
CHECKED = {"boundscheck": True, "nonecheck": True}


# Python's own flags ask for debug information, which takes a fifth of the time and most of the files; profilers show
# names of functions without it.
RELEASE = ["-O2", "-g0", "-fno-strict-aliasing"]


def extension(name: str) -> Extension:
    return Extension(
        f"fastrunner.{name}",
        [f"src/fastrunner/{name}.pyx"],
        extra_compile_args=["-O0", "-g"] if DEBUG else RELEASE,
        define_macros=[("FASTRUNNER_DEBUG", "1")] if DEBUG else [],
    )


def cythonized(name: str, checks: dict[str, bool]) -> list[Extension]:
    # A change of directives alone does not make Cython regenerate, so the debug build has its own C.
    return cythonize(
        [extension(name)],
        compiler_directives=directives | checks,
        include_path=["src"],
        build_dir="build/debug-c" if DEBUG else None,
        force=DEBUG,
    )


setup(
    ext_modules=[
        # The first takes as long as the others together.
        *cythonized("_core", CHECKED),
        # Indices are checked by the code where data decides them; everywhere else they are loop bounds.
        *cythonized("_jq", UNCHECKED),
        *cythonized("_wire", CHECKED),
        *cythonized("_http2", CHECKED),
    ],
    options={"build_ext": {"parallel": os.cpu_count()}},
)
