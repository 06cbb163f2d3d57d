"""Stage 4, expressions: instructions, and the stacks of the run that follows them.

Rules: a run holds explicit stacks on the heap - frames, cells (variables and temporaries), closures, forks
(points to go back to) - so that no program reaches the end of the C stack. Everything above the tops a fork
remembers dies when the run goes back to it. Owned references in C arrays are counted by hand, only here and in
the run loop.
"""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF, Py_XINCREF
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset

ctypedef object (*native_function)(object input, object a, object b, object c)

ctypedef double (*unary_function)(double) noexcept nogil
ctypedef double (*binary_function)(double, double) noexcept nogil

cdef struct Op:
    int code
    int a
    int b
    int c
    void* p

cdef struct Closure:
    void* unit
    int env

cdef struct Frame:
    void* unit
    # Frame of the enclosing function's definition; -1: none.
    int env
    int return_frame
    int return_pc
    Py_ssize_t cells
    Py_ssize_t closures

cdef struct Cell:
    PyObject* value
    # Set if the value was the one a tracked path led to: that path.
    PyObject* path
    # How many forks there were when it was stored: the others may come back to read it again.
    Py_ssize_t forks

cdef struct Fork:
    int kind
    int pc
    int frame
    int frame_top
    Py_ssize_t cell_top
    Py_ssize_t closure_top
    Py_ssize_t index
    # Value at the fork, or what is iterated over.
    PyObject* value
    PyObject* path
    PyObject* path_value
    # Whether the value is the one the path leads to.
    bint at_path
    double number
    double limit
    double step


@cython.internal
cdef class Native:
    """A builtin in C: `arity` arguments, one result."""

    cdef str name
    cdef int arity
    cdef native_function function


@cython.internal
@cython.final
cdef class MathNative(Native):
    """A native whose work is one function of doubles."""

    cdef unary_function unary
    cdef binary_function binary
    # In steps.
    cdef int cost


@cython.internal
@cython.final
cdef class Unit:
    """A compiled function, closure or main expression."""

    cdef Op* code
    cdef int size, capacity
    cdef int cell_count, parameter_count
    cdef Unit parent
    # What the code's raw pointers point to.
    cdef list kept
    # Set if the whole body is one single-valued expression without cells of its own.
    cdef Node direct

    def __cinit__(self):
        self.kept = []

    def __dealloc__(self):
        free(self.code)


@cython.internal
@cython.final
cdef class Stack:
    cdef Frame* frames
    cdef Py_ssize_t frame_top, frame_capacity
    cdef Cell* cells
    cdef Py_ssize_t cell_top, cell_capacity
    cdef Closure* closures
    cdef Py_ssize_t closure_top, closure_capacity
    cdef Fork* forks
    cdef Py_ssize_t fork_top, fork_capacity
    cdef int frame
    cdef Py_ssize_t next_label
    # Containers that updates made; the value an update is made of, while it is.
    cdef Owned own
    cdef PyObject* held
    # Path tracking: NULL when off, else a chain of (parent, key) tuples that ends in a list of its own, and the
    # value found there.
    cdef PyObject* path
    cdef PyObject* path_value
    # Whether the run's current value is the one found there: it came that way, however equal another one is.
    cdef bint at_path

    def __cinit__(self):
        self.frame_capacity = 16
        self.frames = <Frame*>malloc(16 * sizeof(Frame))
        self.cell_capacity = 64
        self.cells = <Cell*>malloc(64 * sizeof(Cell))
        self.closure_capacity = 16
        self.closures = <Closure*>malloc(16 * sizeof(Closure))
        self.fork_capacity = 16
        self.forks = <Fork*>malloc(16 * sizeof(Fork))
        if self.frames == NULL or self.cells == NULL or self.closures == NULL or self.forks == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.frames)
        free(self.cells)
        free(self.closures)
        free(self.forks)
        free_owned(&self.own)

    cdef int reserve_cells(self, Py_ssize_t count) except -1:
        """Adds `count` empty cells on top."""
        cdef Cell* moved
        cdef Py_ssize_t needed = self.cell_top + count
        if needed > self.cell_capacity:
            while self.cell_capacity < needed:
                self.cell_capacity *= 2
            moved = <Cell*>realloc(self.cells, self.cell_capacity * sizeof(Cell))
            if moved == NULL:
                raise MemoryError
            self.cells = moved
        memset(self.cells + self.cell_top, 0, count * sizeof(Cell))
        self.cell_top = needed
        return 0

    cdef void release_cells(self, Py_ssize_t top) noexcept:
        cdef Cell cell
        while self.cell_top > top:
            self.cell_top -= 1
            cell = self.cells[self.cell_top]
            self.cells[self.cell_top].value = NULL
            self.cells[self.cell_top].path = NULL
            Py_XDECREF(cell.value)
            Py_XDECREF(cell.path)

    cdef int push_frame(self, Unit unit, int env, int return_pc) except -1:
        """A frame for `unit` becomes the current one; its closures are the ones pushed last."""
        cdef Frame* frame
        cdef Frame* moved
        if self.frame_top >= self.frame_capacity:
            if self.frame_top >= running().bounds.depth:
                raise BudgetExceeded("expression is nested too deeply")
            moved = <Frame*>realloc(self.frames, 2 * self.frame_capacity * sizeof(Frame))
            if moved == NULL:
                raise MemoryError
            self.frames = moved
            self.frame_capacity *= 2
        frame = &self.frames[self.frame_top]
        frame.unit = <void*>unit
        frame.env = env
        frame.return_frame = self.frame
        frame.return_pc = return_pc
        frame.cells = self.cell_top
        frame.closures = self.closure_top - unit.parameter_count
        self.reserve_cells(unit.cell_count)
        self.frame = <int>self.frame_top
        self.frame_top += 1
        return 0

    cdef int push_closure(self, void* unit, int env) except -1:
        cdef Closure* moved
        if self.closure_top >= self.closure_capacity:
            moved = <Closure*>realloc(self.closures, 2 * self.closure_capacity * sizeof(Closure))
            if moved == NULL:
                raise MemoryError
            self.closures = moved
            self.closure_capacity *= 2
        self.closures[self.closure_top].unit = unit
        self.closures[self.closure_top].env = env
        self.closure_top += 1
        return 0

    cdef Fork* push_fork(self, int kind, int pc, object value) except NULL:
        cdef Fork* fork
        cdef Fork* moved
        if self.fork_top >= self.fork_capacity:
            if self.fork_top >= running().bounds.depth:
                raise BudgetExceeded("expression is nested too deeply")
            moved = <Fork*>realloc(self.forks, 2 * self.fork_capacity * sizeof(Fork))
            if moved == NULL:
                raise MemoryError
            self.forks = moved
            self.fork_capacity *= 2
        fork = &self.forks[self.fork_top]
        self.fork_top += 1
        fork.kind = kind
        fork.pc = pc
        fork.frame = self.frame
        fork.frame_top = <int>self.frame_top
        fork.cell_top = self.cell_top
        fork.closure_top = self.closure_top
        fork.value = <PyObject*>value
        fork.path = self.path
        fork.path_value = self.path_value
        fork.at_path = self.at_path
        Py_INCREF(value)
        Py_XINCREF(self.path)
        Py_XINCREF(self.path_value)
        return fork

    cdef void drop_fork(self) noexcept:
        """Forgets the topmost fork."""
        cdef Fork* fork
        self.fork_top -= 1
        fork = &self.forks[self.fork_top]
        Py_XDECREF(fork.value)
        Py_XDECREF(fork.path)
        Py_XDECREF(fork.path_value)

    cdef void rewind(self, Fork* fork) noexcept:
        """Restores everything but the value to what it was when `fork` was pushed; the fork stays."""
        self.release_cells(fork.cell_top)
        self.frame = fork.frame
        self.frame_top = fork.frame_top
        self.closure_top = fork.closure_top
        self.set_path(fork.path, fork.path_value)
        self.at_path = fork.at_path

    cdef void set_path(self, PyObject* path, PyObject* value) noexcept:
        cdef PyObject* old = self.path
        cdef PyObject* old_value = self.path_value
        Py_XINCREF(path)
        Py_XINCREF(value)
        self.path = path
        self.path_value = value
        Py_XDECREF(old)
        Py_XDECREF(old_value)

    cdef bint is_large(self) noexcept:
        """Whether a deep evaluation left it with stacks that are not worth keeping."""
        return max(
            self.frame_capacity, self.cell_capacity, self.closure_capacity, self.fork_capacity
        ) > STACK_SIZE_KEPT_MAX

    cdef void reset(self) noexcept:
        while self.fork_top > 0:
            self.drop_fork()
        self.release_cells(0)
        self.frame_top = 0
        self.closure_top = 0
        self.frame = -1
        self.set_path(NULL, NULL)
        self.at_path = False
        drop(&self.held)
        forget_owned(&self.own)

    cdef inline Cell* cell(self, int level, int slot) noexcept:
        cdef int frame = self.frame
        while level > 0:
            frame = self.frames[frame].env
            level -= 1
        return &self.cells[self.frames[frame].cells + slot]

    cdef inline object load(self, int level, int slot):
        cdef PyObject* value = self.cell(level, slot).value
        return <object>value if value != NULL else None

    cdef inline int store(self, int slot, object value) except -1:
        Py_INCREF(value)
        self.fill(&self.cells[self.frames[self.frame].cells + slot], <PyObject*>value, NULL)
        return 0

    cdef inline int store_current(self, int slot, object value) except -1:
        """Stores the run's current value, and whether a path leads there."""
        cdef PyObject* path = self.path if self.at_path else NULL
        Py_INCREF(value)
        Py_XINCREF(path)
        self.fill(&self.cells[self.frames[self.frame].cells + slot], <PyObject*>value, path)
        return 0

    cdef inline void fill(self, Cell* cell, PyObject* value, PyObject* path) noexcept:
        """Puts owned references into a cell."""
        cdef Cell old = cell[0]
        cell.value = value
        cell.path = path
        cell.forks = self.fork_top
        Py_XDECREF(old.value)
        Py_XDECREF(old.path)

    cdef inline bint holds_path(self, Cell* cell) noexcept:
        """Whether the value in a cell is the one the tracked path leads to."""
        return cell.path != NULL and cell.path == self.path


cdef Py_ssize_t STACK_SIZE_KEPT_MAX = 4_096
