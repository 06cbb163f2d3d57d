"""Stage 4, expressions: the search for a match of a regular expression, and the matcher's memory.

Rules: a matcher belongs to one evaluation at a time. Its arrays are kept between matches while they are small. Places
where no match can begin are passed over without the matcher; passing over them is paid for, too.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from libc.stdlib cimport calloc, free, realloc

from fastrunner._jq cimport State

# Between evaluations a matcher is memory only; which one an evaluation gets makes no difference.
cdef Matcher* idle_matchers = NULL


cdef Matcher* own_matcher() except NULL:
    """The matcher of the running evaluation, which has it until it ends."""
    global idle_matchers
    cdef State* state = running()
    cdef Matcher* m = <Matcher*>state.matcher
    if m != NULL:
        return m
    m = idle_matchers
    if m == NULL:
        m = <Matcher*>calloc(1, sizeof(Matcher))
        if m == NULL:
            raise MemoryError
    else:
        idle_matchers = m.next_idle
    state.matcher = m
    return m


cdef void let_go_of_matcher(State* state) noexcept:
    global idle_matchers
    cdef Matcher* m = <Matcher*>state.matcher
    cdef PyObject* first_paid = m.first_paid
    cdef PyObject* paid = m.paid
    state.matcher = NULL
    m.first_paid = NULL
    m.paid = NULL
    m.next_idle = idle_matchers
    idle_matchers = m
    Py_XDECREF(first_paid)
    Py_XDECREF(paid)


cdef int prepare(Matcher* m, Pattern pattern, str text) except -1:
    """Points the matcher at a pattern and a text."""
    cdef void* moved
    m.code = pattern.code
    m.numbers = pattern.numbers
    m.kind = PyUnicode_KIND(text)
    m.data = PyUnicode_DATA(text)
    m.size = <int>len(text)
    m.groups = pattern.groups
    m.options = pattern.options
    m.register_count = pattern.registers
    if pattern.registers > m.register_capacity:
        moved = realloc(m.registers, 2 * pattern.registers * sizeof(int))
        if moved == NULL:
            raise MemoryError
        m.registers = <int*>moved
        moved = realloc(m.longest_registers, 2 * pattern.registers * sizeof(int))
        if moved == NULL:
            raise MemoryError
        m.longest_registers = <int*>moved
        m.register_capacity = 2 * pattern.registers
    if m.frame_register_count != pattern.registers:
        # Frames are laid out for a number of registers.
        m.frame_register_count = pattern.registers
        m.frame_capacity = 0
    return 0


cdef int next_start(Matcher* m, Pattern pattern, int at) except -2:
    """The first place from `at` on where a match may begin, -1 if there is none."""
    cdef int start = at
    cdef int size = m.size
    cdef unsigned int c
    if not pattern.filtered:
        return at if at <= size else -1
    if pattern.first_code >= 0:
        while at < size and read_at(m, at) != <unsigned int>pattern.first_code:
            at += 1
    else:
        while at < size:
            c = read_at(m, at)
            if (pattern.first[c >> 6] >> (c & 63)) & 1 if c < 256 else pattern.first_high:
                break
            at += 1
    m.work_left -= (at - start) >> 2
    return at if at < size else -1


cdef bint search(Matcher* m, Pattern pattern, int at) except -1:
    """Whether there is a match from `at` on; registers then tell where."""
    cdef State* state = running()
    cdef int i
    m.search_start = at
    m.longest = -1
    m.work_left = state.steps_left * WORK_PER_STEP
    try:
        while not (pattern.anchored and at > 0):
            at = next_start(m, pattern, at)
            if at < 0:
                break
            m.top = 0
            m.frame = -1
            m.frame_top = 0
            m.registers[0] = at
            for i in range(1, m.register_count):
                m.registers[i] = -1
            m.work_left -= m.register_count >> 3
            if run_at(m, at) and not m.options & X_LONGEST:
                return True
            at += 1
        if m.longest >= 0:
            for i in range(2 * m.groups + 2):
                m.registers[i] = m.longest_registers[i]
        return m.longest >= 0
    finally:
        state.steps_left = max(m.work_left, 0) // WORK_PER_STEP
        if m.stack_capacity > STACK_KEPT or <long long>m.frame_capacity * m.register_count > FRAME_REGISTERS_KEPT:
            give_up_memory(m)


cdef void give_up_memory(Matcher* m) noexcept:
    """After a match that needed much: the next ones hardly will."""
    free(m.stack)
    m.stack = NULL
    m.stack_capacity = 0
    free(m.frame_registers)
    m.frame_registers = NULL
    m.frame_capacity = 0
