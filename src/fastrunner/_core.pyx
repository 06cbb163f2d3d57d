"""Stages 2 and 4 of the data path, compiled: the assembly root. `_core.pyi` is its contract, `core/*.pxi` its parts."""

include "core/actions.pxi"
