"""Stage 2, compile: the plan, a checked document with everything computed once. `_core.pxd` has the fields.

Rules: nodes are immutable once built and shared by all executions of a document. A template's constant parts are
shared values, which nobody modifies. Positions in a list count siblings from 0; what is no sibling is one of the
negative POSITION values. What only one kind of task needs is in that kind's part, in `walk/tasks/`.
"""

cimport cython

cdef int TASK_KINDS_MAX = 64
cdef list kind_rows = []
cdef dict KINDS_BY_FEATURE = {}


@cython.final
cdef class Expression:
    """A program at a position."""


@cython.final
cdef class Template:
    """A value with expressions in it."""


@cython.final
cdef class Duration:
    """Milliseconds, known beforehand or from an expression."""


@cython.final
cdef class UriTemplate:
    """A URI with variables in it, or an expression that makes one."""


@cython.final
cdef class TaskList:
    """Siblings in a scope of their own."""


cdef class TaskNode:
    """What every task has."""


@cython.final
cdef class Scope:
    """The variables of a loop or a handler."""


@cython.final
cdef class Place:
    """The place a task is at."""


@cython.final
cdef class Workspace:
    """What a turn, or a render, works with."""


@cython.final
cdef class TaskKind:
    """One row of the table of kinds."""

    def __init__(self):
        raise TypeError("kinds of tasks are rows of the core's own table")

    @property
    def has_frame(self):
        """Whether its tasks may last longer than the step they begin in."""
        return self.frame is not no_frame

    def __repr__(self):
        return f"TaskKind({self.name!r})"


cdef TaskFrame no_frame():
    """For kinds whose tasks begin and end in one step."""
    raise AssertionError("a task of this kind has no frame")


cdef Scope make_scope(Scope parent, object first, object second):
    """What a loop binds, an item and its index; or a handler: an error and None."""
    cdef Scope scope = Scope.__new__(Scope)
    cdef bytes outer = None if parent is None else parent.iteration
    scope.parent, scope.first, scope.second = parent, first, second
    scope.iteration = outer if second is None else with_varint(outer, second)
    return scope


@cython.final
cdef class Siblings:
    """Where a task stands while it is built."""

    cdef int target(self, object then) except? -100:
        """The position in the list that a directive leads to."""
        cdef int position
        if then is None or then == "continue":
            position = self.position + 1 if self.position + 1 < len(self.names) else POSITION_DONE
        elif then == "exit":
            position = POSITION_EXIT
        elif then == "end":
            position = POSITION_END
        else:
            position = self.names.index(then)
        return POSITION_EXTENDED - position if self.is_extended else position
