"""Stages 2 and 4, compile and walk: the parts of the compiled core.

The `.pxi` files here are included by `_core.pyx` into one extension; nothing here can be imported by itself. The parts
do no I/O and know no clock: time, ids and randomness arrive as arguments.
"""
