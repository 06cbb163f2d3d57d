"""Stage 2, compile: the plan, a checked document with everything computed once.

Rules: nodes are immutable once built and shared by all executions of a document. A template's constant parts are
shared values, which nobody modifies. Positions count siblings from 0; what is no sibling is one of the negative
POSITION values. Who builds all this is `plan_build.pxi`.
"""

cimport cython

cdef enum:
    POSITION_DONE = -1      # after the last sibling
    POSITION_EXIT = -2      # the scope completes early
    POSITION_END = -3       # the workflow completes
    POSITION_BLOCKED = -4   # the frame waits for an effect, a timer or its branches

cdef enum:
    KIND_SET
    KIND_DO
    KIND_SWITCH
    KIND_FOR
    KIND_FORK
    KIND_TRY
    KIND_RAISE
    KIND_WAIT
    KIND_CALL_HTTP

cdef enum:
    TEMPLATE_CONSTANT
    TEMPLATE_EXPRESSION
    TEMPLATE_OBJECT
    TEMPLATE_ARRAY

cdef enum:
    BACKOFF_CONSTANT
    BACKOFF_LINEAR
    BACKOFF_EXPONENTIAL


cdef class Expression:
    """A program at a place: where the values of its free variables come from there."""

    cdef Program program
    cdef bytes sources
    """An ARGUMENT code per free variable."""
    cdef bint is_path
    """It only picks a part of data that is clean already, so its result needs no check."""
    cdef str literal
    """In loose mode, the text itself: the value if evaluation fails."""


cdef class Template:
    """A value with expressions in it. Keys are never evaluated."""

    cdef int kind
    cdef object constant
    cdef Expression expression
    cdef tuple keys
    cdef tuple parts


cdef class Duration:
    """Milliseconds, known beforehand or from an expression."""

    cdef long long ms
    cdef Expression expression


cdef class UriTemplate:
    """RFC 6570 with simple expansion only: literal strings, and one-element tuples that name a variable."""

    cdef tuple parts


@cython.final
cdef class TaskList:
    """Siblings in a scope of their own."""

    cdef tuple tasks
    cdef Py_ssize_t count


cdef class TaskNode:
    """What every task has."""

    cdef int kind
    cdef int index
    """Number of the task in the plan, in document order."""
    cdef str name
    cdef str reference
    cdef object definition
    cdef int then
    """Position that follows: a sibling's or a negative one."""
    cdef int following
    """Position that follows without a directive."""
    cdef bint is_plain
    """None of the common properties below is there."""
    cdef Expression condition
    cdef Schema input_schema
    cdef Template input_from
    cdef Template output_as
    cdef Schema output_schema
    cdef Template export_as
    cdef Schema export_schema
    cdef Duration timeout
    cdef EventParts event_started
    cdef EventParts event_retry
    cdef EventParts event_completed
    cdef EventParts event_failed


@cython.final
cdef class SetNode(TaskNode):
    cdef Template value


@cython.final
cdef class DoNode(TaskNode):
    cdef TaskList body


@cython.final
cdef class SwitchNode(TaskNode):
    cdef tuple conditions
    """Expressions in declaration order, without the default case."""
    cdef tuple targets
    """The position each condition leads to."""
    cdef int default
    """Where to go without a match."""


@cython.final
cdef class ForNode(TaskNode):
    cdef Template collection
    cdef Expression condition
    """`while`."""
    cdef TaskList body


@cython.final
cdef class ForkNode(TaskNode):
    cdef tuple branches
    """A TaskList with one task each."""
    cdef bint compete


cdef class RetryPolicy:
    cdef Expression when
    cdef Expression except_when
    cdef Duration delay
    cdef int backoff
    cdef Duration jitter_from
    cdef Duration jitter_to
    cdef long long count_max
    """Retries, not executions; -1: unlimited."""
    cdef Duration attempt_duration
    cdef Duration total_duration


@cython.final
cdef class TryNode(TaskNode):
    cdef TaskList body
    cdef tuple filter
    """Pairs of member and wanted value; all must be equal."""
    cdef Expression when
    cdef Expression except_when
    cdef RetryPolicy retry
    cdef TaskList handler
    """None without `catch.do`."""
    cdef bint has_catch_then
    cdef int catch_then


@cython.final
cdef class RaiseNode(TaskNode):
    cdef Template error


@cython.final
cdef class WaitNode(TaskNode):
    cdef Duration duration


@cython.final
cdef class CallHttpNode(TaskNode):
    cdef str method
    cdef UriTemplate uri
    """None where the endpoint is an expression."""
    cdef Expression uri_expression
    cdef Template headers
    cdef Template query
    cdef Template body
    cdef str output
    cdef bint redirect


@cython.final
cdef class Plan:
    """A compiled document; `_core.pyi` has the contract."""

    cdef readonly str dsl
    cdef readonly str namespace
    cdef readonly str name
    cdef readonly str version
    cdef readonly object document
    cdef list tasks
    """Every TaskNode by index."""
    cdef TaskList root
    cdef Schema input_schema
    cdef Template input_from
    cdef Template output_as
    cdef Schema output_schema
    cdef Duration timeout
    cdef EventParts event_started
    cdef EventParts event_validating
    cdef EventParts event_validated
    cdef EventParts event_paused
    cdef EventParts event_resumed
    cdef EventParts event_completed
    cdef EventParts event_failed
    cdef EventParts event_cancelled
