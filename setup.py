"""Builds the one compiled extension, `fastrunner._core`; everything static is in pyproject.toml."""

import os

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("FASTRUNNER_DEBUG") == "1"

directives = {
    "language_level": 3,
    # Indices are checked by the code where data decides them; everywhere else they are loop bounds.
    "boundscheck": DEBUG,
    "wraparound": DEBUG,
    "nonecheck": DEBUG,
    # jq and JSON need C's integer division only where we say so explicitly.
    "cdivision": False,
    # Text signatures make the stub test compare parameters.
    "binding": True,
    "embedsignature": False,
    "linetrace": DEBUG,
}
core = Extension(
    "fastrunner._core",
    ["src/fastrunner/_core.pyx"],
    extra_compile_args=["-Og", "-g"] if DEBUG else ["-O2", "-fno-strict-aliasing"],
    define_macros=[("CYTHON_TRACE", "1")] if DEBUG else [],
)
# A change of directives alone does not make Cython regenerate, so the debug build always does.
setup(ext_modules=cythonize([core], compiler_directives=directives, force=DEBUG))
