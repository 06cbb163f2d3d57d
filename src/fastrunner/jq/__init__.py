"""Stage 4, expressions: the parts of the compiled engine for jq expressions.

The `.pxi` files in the rooms here are included by `_jq.pyx` into one extension; nothing here can be imported by
itself. `syntax` makes a tree of text, `machine` a program of the tree and runs it, over `values` with `builtins`,
`regex` and `time`. The parts do no I/O and know no clock, and use nothing of the core.
"""
