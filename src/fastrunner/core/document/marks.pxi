"""Stage 2, compile: what all readers of documents share: bounds, and marks.

Rules: a mark says where a value stands in the text; readers make marks only when they are asked to.
"""

from fastrunner.base.limits import (
    DOCUMENT_DEPTH_MAX as _DOCUMENT_DEPTH_MAX,
    DOCUMENT_KEY_SIZE_MAX as _DOCUMENT_KEY_SIZE_MAX,
    DOCUMENT_NODES_MAX as _DOCUMENT_NODES_MAX,
    DOCUMENT_SIZE_BYTES_MAX as _DOCUMENT_SIZE_BYTES_MAX,
)

cimport cython

cdef Py_ssize_t DEPTH_MAX = _DOCUMENT_DEPTH_MAX
cdef Py_ssize_t KEY_SIZE_MAX = _DOCUMENT_KEY_SIZE_MAX
cdef Py_ssize_t NODES_MAX = _DOCUMENT_NODES_MAX
cdef Py_ssize_t SIZE_BYTES_MAX = _DOCUMENT_SIZE_BYTES_MAX


@cython.internal
@cython.final
cdef class Mark:
    """Where a value and the key before it stand in the text; its members mirror the value's."""

    cdef Py_ssize_t line
    cdef Py_ssize_t column
    cdef Py_ssize_t key_line
    cdef Py_ssize_t key_column
    cdef dict members
    cdef list items


cdef Mark inner_mark(Mark mark, str segment):
    if mark.members is not None:
        return mark.members.get(segment)
    if mark.items is not None and segment.isdecimal() and len(segment) < 10 and int(segment) < len(mark.items):
        return mark.items[int(segment)]
    return None
