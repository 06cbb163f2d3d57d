"""Stages 2 and 4 of the data path, compiled: the assembly root. `_core.pyi` is its contract, `core/*.pxi` its parts."""

from cpython.object cimport PyObject

include "core/problems.pxi"
include "core/load.pxi"
include "core/load_json.pxi"
include "core/load_yaml.pxi"
include "core/validate_text.pxi"
include "core/validate_shapes.pxi"
include "core/validate_tasks.pxi"
include "core/actions.pxi"
