"""Stage 1, service and routing: the parts of what is compiled outside the core.

The `.pxi` files here are included by `_wire.pyx` into one extension; nothing here can be imported by itself. The parts
know nothing of the core and of the rooms that use them.
"""
