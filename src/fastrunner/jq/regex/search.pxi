"""Stage 4, expressions: the search for a match of a regular expression, and the matcher's memory.

Rules: the matcher's arrays are kept between matches while they are small. Places where no match can begin are passed
over without the matcher; passing over them is paid for, too.
"""


cdef int prepare(Matcher* m, Pattern pattern, str text) except -1:
    """Points the matcher at a pattern and a text."""
    global register_capacity, longest_registers, frame_capacity, frame_register_count
    cdef void* moved
    m.code = pattern.code
    m.numbers = pattern.numbers
    m.kind = PyUnicode_KIND(text)
    m.data = PyUnicode_DATA(text)
    m.size = <int>len(text)
    m.groups = pattern.groups
    m.options = pattern.options
    m.register_count = pattern.registers
    if pattern.registers > register_capacity:
        moved = realloc(m.registers, 2 * pattern.registers * sizeof(int))
        if moved == NULL:
            raise MemoryError
        m.registers = <int*>moved
        moved = realloc(longest_registers, 2 * pattern.registers * sizeof(int))
        if moved == NULL:
            raise MemoryError
        longest_registers = <int*>moved
        register_capacity = 2 * pattern.registers
    if frame_register_count != pattern.registers:
        # Frames are laid out for a number of registers.
        frame_register_count = pattern.registers
        frame_capacity = 0
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
                m.registers[i] = longest_registers[i]
        return m.longest >= 0
    finally:
        state.steps_left = max(m.work_left, 0) // WORK_PER_STEP
        if stack_capacity > STACK_KEPT or <long long>frame_capacity * m.register_count > FRAME_REGISTERS_KEPT:
            give_up_memory(m)


cdef void give_up_memory(Matcher* m) noexcept:
    """After a match that needed much: the next ones hardly will."""
    global stack_capacity, frame_capacity, frame_registers
    free(m.stack)
    m.stack = NULL
    stack_capacity = 0
    free(frame_registers)
    frame_registers = NULL
    frame_capacity = 0
