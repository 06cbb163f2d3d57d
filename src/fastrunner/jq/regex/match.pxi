"""Stage 4, expressions: the matcher of regular expressions.

Rules: it backtracks over a stack on the heap, whose entries are places to resume at and registers to restore; neither
pattern nor text can make it recurse. Each instruction takes a part of a step of the evaluation's budget, each entry
room on a stack of bounded height. No Python object is touched on the way but for characters' categories.
"""

from cpython.object cimport PyObject
from libc.stdlib cimport realloc
from libc.string cimport memcpy

cdef extern from "Python.h":
    void* PyUnicode_DATA(object text)
    Py_UCS4 PyUnicode_READ(int kind, void* data, Py_ssize_t index)

cdef struct Retreat:
    # Instruction to go on at; below 0: -1 - pc is a register, `at` its value.
    int pc
    int at
    # Of a repetition: how far back it may go, or how many more it may take; -1 if it is none.
    int rest
    int frame
    int frame_top

cdef struct CallFrame:
    int return_pc
    int parent
    int depth

cdef struct Matcher:
    Instruction* code
    int* numbers
    int kind
    void* data
    int size
    int at
    int search_start
    int* registers
    int register_count, groups
    Retreat* stack
    int top
    int frame, frame_top
    long long work_left
    # The longest match so far, of a pattern that wants the longest; -1: none.
    int longest
    int* longest_registers
    int options
    int stack_capacity, register_capacity
    # Each call keeps the caller's registers here.
    CallFrame* call_frames
    int* frame_registers
    int frame_capacity, frame_register_count
    # What the evaluation has paid for: the first pattern it used, and the others by text and flags.
    PyObject* first_paid
    PyObject* paid
    Matcher* next_idle

cdef int WORK_PER_STEP = 4
# Folding a character's case at run time is a call into Python.
cdef int FOLDING_WORK = 40
# Oniguruma's own bound.
cdef int CALL_DEPTH_MAX = 20
cdef int FRAMES_MAX = 20_000
cdef long long FRAME_REGISTERS_MAX = 4_000_000
# Memory kept between matches.
cdef int STACK_KEPT = 65_536
cdef long long FRAME_REGISTERS_KEPT = 262_144


cdef inline unsigned int read_at(Matcher* m, int at) noexcept:
    return PyUnicode_READ(m.kind, m.data, at)


cdef int exhausted() except -1:
    raise BudgetExceeded("expression ran out of steps")


cdef int grow_stack(Matcher* m) except -1:
    cdef Retreat* moved
    if m.stack_capacity >= running().bounds.regex_stack:
        raise BudgetExceeded("expression needs too much memory for a regular expression")
    moved = <Retreat*>realloc(m.stack, max(256, 2 * m.stack_capacity) * sizeof(Retreat))
    if moved == NULL:
        raise MemoryError
    m.stack = moved
    m.stack_capacity = max(256, 2 * m.stack_capacity)
    return 0


cdef inline int push(Matcher* m, int pc, int at, int rest) except -1:
    cdef Retreat* entry
    if m.top >= m.stack_capacity:
        grow_stack(m)
    entry = &m.stack[m.top]
    m.top += 1
    entry.pc = pc
    entry.at = at
    entry.rest = rest
    entry.frame = m.frame
    entry.frame_top = m.frame_top
    return 0


cdef inline int set_register(Matcher* m, int register, int value) except -1:
    """Sets a register so that going back restores it."""
    if m.top > 0:
        push(m, -1 - register, m.registers[register], -1)
    m.registers[register] = value
    return 0


# --- single characters ---

cdef inline bint takes(Instruction* op, unsigned int c) except -1:
    """Whether an instruction for a single character takes this one."""
    if op.code == P_CHAR:
        return c == <unsigned int>op.a
    if op.code == P_SET:
        return in_set(op.chars, c)
    return op.code == P_ALL or c != 10


cdef int run_length(Matcher* m, Instruction* op, int most) except -1:
    """How many characters from here on an instruction takes, at most `most`."""
    cdef int at = m.at
    cdef int end = m.size if most > m.size - at else at + most
    cdef CharacterSet* chars = op.chars
    cdef unsigned int c
    if op.code == P_ALL:
        at = end
    elif op.code == P_SET:
        while at < end and in_set(chars, read_at(m, at)):
            at += 1
    elif op.code == P_CHAR:
        while at < end and read_at(m, at) == <unsigned int>op.a:
            at += 1
    else:
        while at < end and read_at(m, at) != 10:
            at += 1
    m.work_left -= (at - m.at) >> 1
    return at - m.at


cdef int repeat(Matcher* m, int pc) except -2:
    """Runs a repetition of one character; gives the next instruction or -1."""
    cdef Instruction* op = &m.code[pc]
    cdef int high = op.b if op.b >= 0 else m.size
    cdef int least = m.at + op.a
    cdef int count
    if op.a > m.size - m.at:
        return -1
    if op.c == REPEAT_LAZY:
        if run_length(m, op + 1, op.a) < op.a:
            return -1
        m.at = least
        if high > op.a:
            push(m, pc, m.at, high - op.a)
        return pc + 2
    count = run_length(m, op + 1, high)
    if count < op.a:
        return -1
    m.at += count
    if op.c == REPEAT_POSSESSIVE or count == op.a:
        return pc + 2
    return give_back(m, pc, least)


cdef int give_back(Matcher* m, int pc, int least) except -2:
    """From the most a greedy repetition took down to where what must follow does; gives the next instruction or -1."""
    cdef int wanted = m.code[pc].d
    cdef int at = m.at
    if wanted >= 0:
        while at >= least and (at >= m.size or read_at(m, at) != <unsigned int>wanted):
            at -= 1
        m.work_left -= (m.at - at) >> 1
        if at < least:
            return -1
        m.at = at
    if at > least:
        push(m, pc, at, least)
    return pc + 2


cdef int resume_repeat(Matcher* m, int pc, int rest) except -2:
    """Goes on with a repetition after what came next has failed at the current place."""
    cdef Instruction* op = &m.code[pc]
    if op.c != REPEAT_LAZY:
        m.at -= 1
        return give_back(m, pc, rest)
    if m.at >= m.size or not takes(op + 1, read_at(m, m.at)):
        return -1
    m.at += 1
    if rest > 1:
        push(m, pc, m.at, rest - 1)
    return pc + 2


cdef int go_back(Matcher* m) except -2:
    """The latest place to resume at: restores it and gives its instruction, -1 if there is none."""
    cdef Retreat* entry
    cdef int pc
    while m.top > 0:
        m.top -= 1
        m.work_left -= 1
        entry = &m.stack[m.top]
        if entry.pc < 0:
            m.registers[-1 - entry.pc] = entry.at
            continue
        m.at = entry.at
        m.frame = entry.frame
        m.frame_top = entry.frame_top
        if entry.rest < 0:
            return entry.pc
        pc = resume_repeat(m, entry.pc, entry.rest)
        if pc >= 0:
            return pc
    return -1


# --- the loop ---

cdef int run_at(Matcher* m, int start) except -1:
    """Whether the pattern matches from `start` on."""
    cdef Instruction* op
    cdef int pc = 0
    cdef int code
    m.at = start
    while True:
        m.work_left -= 1
        if m.work_left < 0:
            exhausted()
        op = &m.code[pc]
        code = op.code
        if code <= P_ALL:
            if m.at < m.size and takes(op, read_at(m, m.at)):
                m.at += 1
                pc += 1
            else:
                pc = -1
        elif code == P_STRING:
            pc = pc + 1 if takes_text(m, op) else -1
        elif code == P_REPEAT:
            pc = repeat(m, pc)
        elif code == P_SPLIT:
            push(m, op.a, m.at, -1)
            pc += 1
        elif code == P_SPLIT_LAZY:
            push(m, pc + 1, m.at, -1)
            pc = op.a
        elif code == P_JUMP:
            pc = op.a
        elif code == P_MATCH:
            if is_wanted(m, start):
                return True
            pc = -1
        elif code <= P_SEARCH_START:
            pc = pc + 1 if holds_here(m, code) else -1
        elif code <= P_LOOP_END:
            pc = step_group(m, op, pc)
        else:
            pc = step_other(m, op, pc)
        if pc < 0:
            pc = go_back(m)
            if pc < 0:
                return m.longest >= 0


cdef bint takes_text(Matcher* m, Instruction* op) noexcept:
    cdef int* text = m.numbers + op.a
    cdef int i
    if op.b > m.size - m.at:
        return False
    for i in range(op.b):
        if read_at(m, m.at + i) != <unsigned int>text[i]:
            return False
    m.at += op.b
    return True


cdef bint is_wanted(Matcher* m, int start) except -1:
    """At the end of the pattern: whether this match is the result."""
    cdef int i
    if m.options & X_NOT_EMPTY and m.at == start:
        return False
    m.registers[1] = m.at
    if not m.options & X_LONGEST:
        return True
    if m.at - start > m.longest:
        m.longest = m.at - start
        for i in range(2 * m.groups + 2):
            m.longest_registers[i] = m.registers[i]
    return False


cdef bint holds_here(Matcher* m, int code) except -1:
    """Whether an anchor holds at the current place."""
    cdef int at = m.at
    cdef bint before, after
    if code == P_FAIL:
        return False
    if code == P_BEGIN:
        return at == 0
    if code == P_END:
        return at == m.size
    if code == P_END_OR_NEWLINE:
        return at == m.size or (at == m.size - 1 and read_at(m, at) == 10)
    if code == P_BEGIN_LINE:
        return at == 0 or (at < m.size and read_at(m, at - 1) == 10)
    if code == P_END_LINE:
        return at == m.size or read_at(m, at) == 10
    if code == P_SEARCH_START:
        return at == m.search_start
    before = at > 0 and is_word(read_at(m, at - 1))
    after = at < m.size and is_word(read_at(m, at))
    return (before != after) == (code == P_WORD_EDGE)


# --- groups and repetitions ---

cdef int step_group(Matcher* m, Instruction* op, int pc) except -2:
    """Gives the next instruction or -1."""
    cdef int code = op.code
    cdef int base
    if code == P_GROUP_START:
        # Until it ends, the group has not matched.
        set_register(m, 2 * op.a, m.at)
        set_register(m, 2 * op.a + 1, -1)
    elif code == P_GROUP_END:
        set_register(m, 2 * op.a + 1, m.at)
    elif code == P_LOOP_INIT:
        set_register(m, op.a, 0)
    elif code == P_LOOP:
        base = op.d >> 1
        if m.registers[base] < op.b:
            return pc + 1
        if op.c >= 0 and m.registers[base] >= op.c:
            return op.a
        if op.d & 1:
            push(m, pc + 1, m.at, -1)
            return op.a
        push(m, op.a, m.at, -1)
    elif code == P_LOOP_ENTER:
        set_register(m, op.a, m.registers[op.a] + 1)
        set_register(m, op.a + 1, m.at)
        set_register(m, op.a + 2, m.top)
    else:
        # A round that took nothing is the last one, but if it set a group referred to for the first time.
        if m.at == m.registers[op.b + 1] and not (op.c and has_news(m, m.registers[op.b + 2])):
            return m.code[op.a].a
        return op.a
    return pc + 1


cdef bint has_news(Matcher* m, int height) except -1:
    """Whether a group has matched since the stack had that height that had not before."""
    cdef int i, register
    m.work_left -= m.top - height
    for i in range(height, m.top):
        register = -1 - m.stack[i].pc
        if 1 < register < 2 * m.groups + 2 and register & 1 and m.stack[i].at < 0 and m.registers[register] >= 0:
            if not was_set(m, height, i, register):
                return True
    return False


cdef bint was_set(Matcher* m, int height, int last, int register) noexcept:
    """Whether an entry below `last` tells that the group had matched before."""
    cdef int i
    m.work_left -= last - height
    for i in range(height, last):
        if m.stack[i].pc == -1 - register and m.stack[i].at >= 0:
            return True
    return False


# --- look-around, references, calls ---

cdef int step_other(Matcher* m, Instruction* op, int pc) except -2:
    """Gives the next instruction or -1."""
    cdef int code = op.code
    if code == P_HOLD or code == P_HOLD_OR:
        set_register(m, op.b + 1, m.at)
        set_register(m, op.b, m.top if m.top == 0 else m.top + 1)
        if code == P_HOLD_OR:
            push(m, op.a, m.at, -1)
    elif code == P_ATOMIC_END:
        cut_stack(m, m.registers[op.a])
    elif code == P_LOOK_END:
        m.at = m.registers[op.a + 1]
        cut_stack(m, m.registers[op.a])
    elif code == P_NOT_LOOK_END:
        unwind(m, m.registers[op.a])
        return -1
    elif code == P_BACK:
        if m.at < op.a:
            return -1
        m.at -= op.a
    elif code == P_KEEP:
        set_register(m, 0, m.at)
    elif code == P_BACKREF:
        return pc + 1 if takes_group(m, op) else -1
    elif code == P_CHECK:
        return pc + 1 if has_matched(m, op) else op.a
    elif code == P_CALL:
        return call_group(m, op.a, pc + 1)
    else:
        return return_from_group(m)
    return pc + 1


cdef int cut_stack(Matcher* m, int height) except -1:
    """Forgets the places to resume at above a height; what they would have restored still is if one below is taken."""
    cdef int i
    cdef int top = height
    m.work_left -= (m.top - height) >> 1
    for i in range(height, m.top):
        if m.stack[i].pc < 0:
            m.stack[top] = m.stack[i]
            top += 1
    m.top = top
    return 0


cdef int unwind(Matcher* m, int height) except -1:
    """Undoes all that was done since the stack had a height."""
    m.work_left -= m.top - height
    while m.top > height:
        m.top -= 1
        if m.stack[m.top].pc < 0:
            m.registers[-1 - m.stack[m.top].pc] = m.stack[m.top].at
    return 0


cdef bint has_matched(Matcher* m, Instruction* op) noexcept:
    """Whether one of an instruction's groups has."""
    cdef int i
    for i in range(op.c):
        if m.registers[2 * m.numbers[op.b + i] + 1] >= 0:
            return True
    return False


cdef bint takes_group(Matcher* m, Instruction* op) except -1:
    """Whether the text of one of the groups comes next; of several with one name the last one first."""
    cdef int i = op.b - 1
    cdef int group, length
    while i >= 0:
        group = m.numbers[op.a + i]
        length = m.registers[2 * group + 1] - m.registers[2 * group]
        if m.registers[2 * group + 1] >= 0 and repeats_text(m, m.registers[2 * group], length, op.c):
            m.at += length
            return True
        i -= 1
    return False


cdef bint repeats_text(Matcher* m, int start, int length, bint folded) except -1:
    cdef unsigned int c, wanted
    cdef int i
    if length > m.size - m.at:
        return False
    m.work_left -= length
    for i in range(length):
        c = read_at(m, m.at + i)
        wanted = read_at(m, start + i)
        if c != wanted:
            m.work_left -= FOLDING_WORK
            if not folded or chr(c).casefold() != chr(wanted).casefold():
                return False
    return True


cdef int call_group(Matcher* m, int pc, int return_pc) except -2:
    """Enters a group's routine; the caller's registers are kept for its return."""
    cdef int depth = m.call_frames[m.frame].depth + 1 if m.frame >= 0 else 1
    cdef int frame = m.frame_top
    if depth > CALL_DEPTH_MAX:
        return -1
    if frame >= m.frame_capacity:
        grow_frames(m)
    m.work_left -= m.register_count >> 2
    m.call_frames[frame].return_pc = return_pc
    m.call_frames[frame].parent = m.frame
    m.call_frames[frame].depth = depth
    memcpy(m.frame_registers + <Py_ssize_t>frame * m.register_count, m.registers, m.register_count * sizeof(int))
    m.frame = frame
    m.frame_top = frame + 1
    return pc


cdef int return_from_group(Matcher* m) except -2:
    """Back to the caller: its repetitions and its open groups go on where they were, groups that matched stay so."""
    cdef CallFrame* frame = &m.call_frames[m.frame]
    cdef int* kept = m.frame_registers + <Py_ssize_t>m.frame * m.register_count
    cdef int i
    m.work_left -= m.register_count >> 2
    for i in range(2, m.register_count):
        if i < 2 * m.groups + 2:
            if kept[i | 1] >= 0 or kept[i & ~1] < 0:
                continue
        if m.registers[i] != kept[i]:
            set_register(m, i, kept[i])
    m.frame = frame.parent
    return frame.return_pc


cdef int grow_frames(Matcher* m) except -1:
    cdef int capacity = max(64, 2 * m.frame_capacity)
    cdef void* moved
    if m.frame_capacity >= FRAMES_MAX or <long long>capacity * m.register_count > FRAME_REGISTERS_MAX:
        raise BudgetExceeded("expression needs too much memory for a regular expression")
    moved = realloc(m.call_frames, capacity * sizeof(CallFrame))
    if moved == NULL:
        raise MemoryError
    m.call_frames = <CallFrame*>moved
    moved = realloc(m.frame_registers, <size_t>capacity * m.register_count * sizeof(int))
    if moved == NULL:
        raise MemoryError
    m.frame_registers = <int*>moved
    m.frame_capacity = capacity
    return 0
