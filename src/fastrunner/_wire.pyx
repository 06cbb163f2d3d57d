"""Stages 1 and 6 of the data path, service, routing and events, compiled: the assembly root. `_wire.pyi` is its
contract, `wire/` its parts."""

include "wire/memory.pxi"
include "wire/locks.pxi"
include "wire/hashing.pxi"
include "wire/stripes.pxi"
include "wire/settling.pxi"
include "wire/placement.pxi"
include "wire/loads.pxi"
include "wire/requests.pxi"
include "wire/events.pxi"
