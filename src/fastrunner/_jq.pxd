"""Stage 4, expressions: what other extensions cimport of the engine for jq expressions.

Rules: whoever evaluates has a machine, which keeps the bounds it was made with and counts what evaluations cost; a
machine evaluates one expression at a time. `Machine` and `Program` come from functions, never from their classes.
"""

cimport cython


# Why the result of an expression is true whatever it is asked of, by its syntax alone.
cdef enum Truth:
    TRUTH_OPEN
    TRUTH_UPDATE  # an update gives all of its input
    TRUTH_DEFAULT  # `//` has a right side that is true
    TRUTH_NUMBER
    TRUTH_TEXT
    TRUTH_ARRAY
    TRUTH_OBJECT


cdef struct Bounds:
    long long steps
    Py_ssize_t depth
    Py_ssize_t outputs
    Py_ssize_t array_size
    Py_ssize_t string_size
    Py_ssize_t error_size
    Py_ssize_t regex_size
    int regex_depth
    int regex_instructions
    int regex_stack


cdef struct State:
    const Bounds* bounds
    long long steps_left
    long long steps_spent
    long long now_ms
    # Whether nan was below something: it is then below itself, too, which a sort must not be told.
    bint met_nan
    # Whether a number came about that leaves as another one: nan, an infinity, the zero below zero.
    bint met_special
    bint busy
    # Memory of regular expressions' matcher while an evaluation has it.
    void* matcher
    # An object none of whose members may be asked for that it has not; borrowed.
    void* guarded


cdef inline void settle(State* state) noexcept:
    """Counts what the budget lost as spent, and makes the budget whole."""
    state.steps_spent += state.bounds.steps - (state.steps_left if state.steps_left > 0 else 0)
    state.steps_left = state.bounds.steps


@cython.final
cdef class Machine:
    cdef State state
    cdef Bounds own_bounds

    cdef Bounds bounds(self) noexcept
    cdef int set_bounds(self, const Bounds* bounds) except -1

    cdef inline void allow(self) noexcept:
        """Another evaluation begins, with a whole budget."""
        settle(&self.state)

    cdef inline long long take_spent(self) noexcept:
        """Steps evaluations took since this was asked last."""
        cdef long long spent
        settle(&self.state)
        spent = self.state.steps_spent
        self.state.steps_spent = 0
        return spent


@cython.final
cdef class Program:
    cdef readonly str text
    cdef readonly tuple arguments
    cdef dict offsets
    cdef int argument_count
    cdef list slots
    # The compiled unit; the syntax tree if the whole expression yields exactly one value by construction.
    cdef object unit
    cdef object direct
    # A direct expression without variables needs no frame.
    cdef bint bare
    # Whether one of its constants is a number that leaves as another one.
    cdef bint special
    # Its syntax alone says that it yields its results one by one: `.a[]`, `.a, .b`.
    cdef bint is_generator
    cdef Truth truth
    # Asks an update as a condition: `select(.a = 1)`.
    cdef bint is_doubtful

    cdef object evaluate(self, Machine machine, object input, tuple arguments, long long now_ms)
    cdef object evaluate_in(self, State* state, object input, tuple arguments, long long now_ms)
    cdef object run_in(self, State* state, object input, tuple arguments, long long now_ms)


cdef Bounds default_bounds() noexcept
cdef Machine new_machine(const Bounds* bounds)
cpdef Program compile_expression(str text)
cdef Program compile_within(str text, long long* steps_left, bint hinting)
cdef set input_members(Program program)


@cython.final
cdef class TextPattern:
    """A regular expression of ECMA-262, as JSON Schema has them."""

    cdef object pattern

    cdef bint found_in(self, str text, const Bounds* bounds, long long* steps_left) except -1


cdef TextPattern compile_text_pattern(str text, long long* steps_left)
