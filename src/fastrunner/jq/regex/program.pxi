"""Stage 4, expressions: the program of a regular expression: its instructions, and their making from the tree.

Rules: a program is an array of C structs, immutable and shared. Every part of a pattern is emitted once, repetitions
count at run time, so that its size is bounded by the pattern's. What a match keeps lies in registers: two for each
group (0: the whole match), then those of repetitions and look-arounds.
"""

cimport cython
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset

cdef enum PatternOp:
    P_CHAR
    P_PAIR
    P_SET
    P_ANY
    P_ALL
    P_STRING
    P_REPEAT
    P_SPLIT
    P_SPLIT_LAZY
    P_JUMP
    P_MATCH
    P_FAIL
    P_BEGIN
    P_END
    P_END_OR_NEWLINE
    P_BEGIN_LINE
    P_END_LINE
    P_WORD_EDGE
    P_NOT_WORD_EDGE
    P_SEARCH_START
    P_GROUP_START
    P_GROUP_END
    P_LOOP_INIT
    P_LOOP
    P_LOOP_ENTER
    P_LOOP_END
    P_HOLD
    P_HOLD_OR
    P_ATOMIC_END
    P_LOOK_END
    P_NOT_LOOK_END
    P_BACK
    P_KEEP
    P_BACKREF
    P_CHECK
    P_CALL
    P_RETURN

cdef enum RepeatMode:
    REPEAT_GREEDY
    REPEAT_LAZY
    REPEAT_POSSESSIVE

cdef struct Instruction:
    int code
    int a
    int b
    int c
    int d
    CharacterSet* chars


@cython.internal
@cython.final
cdef class Pattern:
    """A compiled regular expression."""

    cdef Instruction* code
    cdef int size, capacity
    cdef int groups, registers
    cdef int options
    # Code points of texts and numbers of groups that instructions refer to.
    cdef int* numbers
    # What the instructions' raw pointers point to.
    cdef list kept
    cdef list names
    # What a match may begin with: code points below 256 by bit, one of them alone if it is the only one.
    cdef unsigned long long first[4]
    cdef bint filtered, first_high, anchored
    cdef int first_code

    def __dealloc__(self):
        free(self.code)
        free(self.numbers)


@cython.internal
@cython.final
cdef class PatternEmitter:
    cdef Pattern pattern
    cdef list numbers
    cdef set called, referred
    # Instruction at which a called group begins, by number; calls to be pointed there.
    cdef dict entries
    cdef list calls

    cdef Pattern compile(self, PatternNode root, PatternParser parser, int options):
        cdef Pattern pattern = Pattern.__new__(Pattern)
        cdef PatternNode call
        cdef int i
        self.pattern = pattern
        self.numbers = []
        self.entries = {}
        self.calls = []
        self.called = {call.low for call in parser.calls}
        self.referred = parser.referred_closed
        pattern.kept = []
        pattern.names = parser.names
        pattern.groups = parser.groups
        pattern.registers = 2 * parser.groups + 2
        pattern.options = options
        if 0 in self.called:
            self.emit_callable(root, 0)
        else:
            self.emit(root)
        self.op(P_MATCH)
        for i, number in self.calls:
            pattern.code[i].a = self.entries[number]
        pattern.numbers = <int*>malloc((len(self.numbers) + 1) * sizeof(int))
        if pattern.numbers == NULL:
            raise MemoryError
        for i in range(len(self.numbers)):
            pattern.numbers[i] = self.numbers[i]
        self.look_ahead()
        set_first(pattern, root)
        return pattern

    cdef int op(self, PatternOp code, int a=0, int b=0, int c=0) except -1:
        """Appends an instruction; gives its index."""
        cdef Pattern pattern = self.pattern
        cdef Instruction* moved
        cdef Instruction* made
        if pattern.size >= running().bounds.regex_instructions:
            refuse("too big pattern")
        if pattern.size >= pattern.capacity:
            moved = <Instruction*>realloc(pattern.code, (2 * pattern.capacity + 16) * sizeof(Instruction))
            if moved == NULL:
                raise MemoryError
            pattern.code = moved
            pattern.capacity = 2 * pattern.capacity + 16
        made = &pattern.code[pattern.size]
        made.code = code
        made.a = a
        made.b = b
        made.c = c
        made.d = -1
        made.chars = NULL
        pattern.size += 1
        return pattern.size - 1

    cdef int registers(self, int count) except -1:
        """Takes `count` registers; gives the first."""
        self.pattern.registers += count
        return self.pattern.registers - count

    cdef int point(self, int index) except -1:
        """Makes an instruction lead to the next one to come."""
        self.pattern.code[index].a = self.pattern.size
        return 0

    cdef int emit(self, PatternNode node) except -1:
        cdef PatternNode kid
        cdef PatternKind kind = node.kind
        cdef int register
        if kind == R_CHAR:
            self.emit_run([node])
        elif kind == R_ANY:
            self.op(P_ALL if node.flag else P_ANY)
        elif kind == R_SET:
            self.pattern.kept.append(node.chars)
            register = self.op(P_SET)
            self.pattern.code[register].chars = &node.chars.chars
        elif kind == R_CAT:
            self.emit_sequence(node.kids)
        elif kind == R_ALT:
            self.emit_choices(node.kids)
        elif kind == R_GROUP:
            if node.low in self.called:
                self.emit_callable(node, node.low)
            else:
                self.emit_group(node)
        elif kind == R_REPEAT:
            self.emit_repeat(node)
        elif kind == R_ATOMIC:
            self.emit_atomic(node.kids[0])
        elif kind == R_LOOK:
            self.emit_look(node)
        elif kind == R_ANCHOR:
            self.op(<PatternOp>node.low)
        elif kind == R_KEEP:
            self.op(P_KEEP)
        elif kind == R_BACKREF:
            self.op(P_BACKREF, self.number_list(node.key), len(node.key), node.fold)
        elif kind == R_CHECK:
            register = self.op(P_CHECK, 0, self.number_list(node.key), len(node.key))
            self.pattern.code[register].a = -1
        elif kind == R_CALL:
            self.calls.append((self.op(P_CALL), node.low))
        elif kind == R_CONDITION:
            self.emit_condition(node)
        elif kind == R_FAIL:
            self.op(P_FAIL)
        return 0

    cdef int number_list(self, list numbers) except -1:
        self.numbers.extend(numbers)
        return len(self.numbers) - len(numbers)

    cdef int emit_sequence(self, list kids) except -1:
        cdef list run = []
        cdef PatternNode kid
        for kid in kids:
            if kid.kind == R_CHAR and (not run or (<PatternNode>run[0]).fold == kid.fold):
                run.append(kid)
                continue
            if run:
                self.emit_run(run)
                run = []
            if kid.kind == R_CHAR:
                run.append(kid)
            else:
                self.emit(kid)
        if run:
            self.emit_run(run)
        return 0

    cdef int emit_run(self, list run) except -1:
        """Characters in a row, all of them with or all without regard to case."""
        cdef PatternNode first = run[0]
        cdef PatternNode kid
        if first.fold:
            for kid in folded_run(run):
                self.emit(kid)
        elif len(run) == 1:
            self.op(P_CHAR, first.code)
        else:
            self.op(P_STRING, self.number_list([kid.code for kid in run]), len(run), first.code)
        return 0

    cdef int emit_choices(self, list kids) except -1:
        cdef list ends = []
        cdef int split
        cdef Py_ssize_t i
        for i in range(len(kids) - 1):
            split = self.op(P_SPLIT)
            self.emit(kids[i])
            ends.append(self.op(P_JUMP))
            self.point(split)
        self.emit(kids[len(kids) - 1])
        for split in ends:
            self.point(split)
        return 0

    cdef int emit_group(self, PatternNode node) except -1:
        self.op(P_GROUP_START, node.low)
        self.emit(node.kids[0])
        self.op(P_GROUP_END, node.low)
        return 0

    cdef int emit_callable(self, PatternNode node, int number) except -1:
        """A group that is called from elsewhere: a routine, and a call of it here."""
        cdef int jump
        self.calls.append((self.op(P_CALL), number))
        jump = self.op(P_JUMP)
        self.entries[number] = self.pattern.size
        if number:
            self.emit_group(node)
        else:
            self.emit(node)
        self.op(P_RETURN)
        return self.point(jump)

    # --- repetition ---

    cdef int emit_repeat(self, PatternNode node) except -1:
        cdef PatternNode kid = node.kids[0]
        cdef int start, split
        if node.high == 0:
            if self.called:
                # A routine may stand within.
                start = self.op(P_JUMP)
                self.emit(kid)
                self.point(start)
        elif is_single(kid):
            self.op(P_REPEAT, node.low, node.high, REPEAT_LAZY if node.flag else REPEAT_GREEDY)
            self.emit(kid)
        elif node.low == 0 and node.high == 1:
            split = self.op(P_SPLIT_LAZY if node.flag else P_SPLIT)
            self.emit(kid)
            self.point(split)
        elif node.high == -1 and node.low <= 1 and width_of(kid).low > 0:
            start = self.pattern.size
            if node.low == 0:
                split = self.op(P_SPLIT_LAZY if node.flag else P_SPLIT)
                self.emit(kid)
            else:
                self.emit(kid)
                split = self.op(P_SPLIT_LAZY if node.flag else P_SPLIT)
            self.op(P_JUMP, start)
            self.point(split)
        else:
            self.emit_loop(node)
        return 0

    cdef int emit_loop(self, PatternNode node) except -1:
        """A repetition that counts, or whose body may match nothing. Registers: count, start, height of the stack."""
        cdef int base = self.registers(3)
        cdef int loop
        cdef set groups = set()
        self.op(P_LOOP_INIT, base)
        loop = self.op(P_LOOP, 0, node.low, node.high)
        self.pattern.code[loop].d = 2 * base + node.flag
        self.op(P_LOOP_ENTER, base)
        self.emit(node.kids[0])
        collect_groups(node.kids[0], groups)
        self.op(P_LOOP_END, loop, base, 1 if groups & self.referred else 0)
        return self.point(loop)

    cdef int emit_atomic(self, PatternNode node) except -1:
        cdef int base
        if node.kind == R_REPEAT and not node.flag and node.high != 0 and is_single(node.kids[0]):
            self.op(P_REPEAT, node.low, node.high, REPEAT_POSSESSIVE)
            return self.emit(node.kids[0])
        base = self.registers(2)
        self.op(P_HOLD, base, base)
        self.emit(node)
        self.op(P_ATOMIC_END, base)
        return 0

    # --- look-around, conditions ---

    cdef int emit_look(self, PatternNode node) except -1:
        cdef int base = self.registers(2)
        cdef bint negated = node.low == LOOK_NOT_AHEAD or node.low == LOOK_NOT_BEHIND
        cdef int hold = self.op(P_HOLD_OR if negated else P_HOLD, base, base)
        if node.low >= LOOK_BEHIND:
            self.op(P_BACK, node.high)
        self.emit(node.kids[0])
        self.op(P_NOT_LOOK_END if negated else P_LOOK_END, base)
        return self.point(hold) if negated else 0

    cdef int emit_condition(self, PatternNode node) except -1:
        cdef int base, test, jump
        if node.kids[2] is None:
            test = self.op(P_CHECK, 0, self.number_list(node.key), len(node.key))
        else:
            base = self.registers(2)
            test = self.op(P_HOLD_OR, 0, base)
            self.emit(node.kids[2])
            self.op(P_ATOMIC_END, base)
        self.emit(node.kids[0])
        jump = self.op(P_JUMP)
        self.point(test)
        self.emit(node.kids[1])
        return self.point(jump)

    cdef int look_ahead(self) except -1:
        """Tells greedy repetitions which character has to follow, so that they go back no further than they must."""
        cdef Instruction* code = self.pattern.code
        cdef int i
        for i in range(self.pattern.size - 2):
            if code[i].code == P_REPEAT and code[i + 2].code == P_CHAR:
                code[i].d = code[i + 2].a
            elif code[i].code == P_REPEAT and code[i + 2].code == P_STRING:
                code[i].d = code[i + 2].c
        return 0


cdef bint is_single(PatternNode node) except -1:
    """Whether a node matches exactly one character by one instruction."""
    if node.kind == R_CHAR:
        return not node.fold or node.flag or len(chr(node.code).casefold() if node.code < NO_CODE else "-") == 1
    return node.kind == R_ANY or node.kind == R_SET


cdef int collect_groups(PatternNode node, set groups) except -1:
    """Numbers of the groups within."""
    cdef PatternNode kid
    charge(1)
    if node.kind == R_GROUP:
        groups.add(node.low)
    if node.kids is not None:
        for kid in node.kids:
            if kid is not None:
                collect_groups(kid, groups)
    return 0


# --- case ---

cdef list folded_run(list run):
    """Characters that ignore case, as sets; where several fold like one other does, that one, too."""
    cdef list nodes = []
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t length
    cdef PatternNode kid
    load_folds()
    while i < len(run):
        kid = run[i]
        text = chr(kid.code) if kid.code < NO_CODE else "-"
        folded = text.casefold()
        length = 1 if kid.flag else longest_fold(run, i)
        if length > 1:
            text = "".join([chr((<PatternNode>other).code) for other in run[i : i + length]])
            nodes.append(fold_choice(text.casefold()))
        elif len(folded) > 1 and not kid.flag:
            nodes.append(fold_choice(folded))
        else:
            nodes.append(folded_char(kid.code))
        i += length
    return nodes


cdef Py_ssize_t longest_fold(list run, Py_ssize_t start) except -1:
    """How many of the characters from `start` on fold like a single other one."""
    cdef Py_ssize_t length
    cdef PatternNode kid
    for length in range(min(3, len(run) - start), 1, -1):
        text = ""
        for kid in run[start : start + length]:
            text += chr(kid.code).casefold() if kid.code < NO_CODE else "-"
        if len(text) == length and text in FOLDS:
            return length
    return 1


cdef PatternNode fold_choice(str folded):
    """The characters of a folded text one by one, or one that folds to all of it."""
    cdef SetSpec chars = SetSpec()
    for code in FOLDS.get(folded, ()):
        chars.add(code, code)
    return pattern_node(
        R_ALT, [pattern_node(R_CAT, [folded_char(ord(c)) for c in folded]), set_node(chars)]
    )


# --- what a match begins with ---

cdef struct First:
    unsigned long long low[4]
    bint high
    # Whether it may match without a character.
    bint open


cdef int set_first(Pattern pattern, PatternNode root) except -1:
    cdef First first = first_of_node(root)
    cdef int code
    cdef int count = 0
    pattern.anchored = begins_anchored(root)
    pattern.filtered = not first.open
    pattern.first_high = first.high
    pattern.first_code = -1
    for code in range(4):
        pattern.first[code] = first.low[code]
    for code in range(256):
        if (first.low[code >> 6] >> (code & 63)) & 1:
            count += 1
            pattern.first_code = code
    if count != 1 or first.high:
        pattern.first_code = -1
    return 0


cdef First first_of_node(PatternNode node) except *:
    cdef First first
    cdef PatternKind kind = node.kind
    memset(&first, 0, sizeof(First))
    if kind == R_CHAR or kind == R_SET:
        first_of_chars(node, &first)
    elif kind == R_CAT or kind == R_ALT or kind == R_GROUP or kind == R_ATOMIC:
        merge_first(node.kids, kind == R_ALT, &first)
    elif kind == R_REPEAT:
        if node.high != 0:
            first = first_of_node(node.kids[0])
        first.open = first.open or node.low == 0
    elif kind == R_EMPTY or kind == R_LOOK or kind == R_ANCHOR or kind == R_KEEP or kind == R_CHECK:
        first.open = True
    elif kind != R_FAIL:
        # Anything, of any width or, the dot, of one.
        memset(first.low, 255, sizeof(first.low))
        first.high = True
        first.open = kind != R_ANY
    return first


cdef int first_of_chars(PatternNode node, First* first) except -1:
    cdef int i
    if node.kind == R_SET:
        for i in range(4):
            first.low[i] = node.chars.chars.low[i]
        first.high = node.chars.may_be_high()
        return 0
    first.high = node.fold or node.code > 255
    if node.code < 256:
        first.low[node.code >> 6] |= 1ull << (node.code & 63)
    if node.fold:
        # The sharp s, which folds to two characters, is the only such one below 256.
        first.low[3] |= 1ull << (0xDF & 63)
        text = chr(node.code) if node.code < NO_CODE else "-"
        for other in fold_codes(text) + fold_codes(text.casefold()[0]):
            if other < 256:
                first.low[<int>other >> 6] |= 1ull << (<int>other & 63)
    return 0


cdef int merge_first(list kids, bint choices, First* first) except -1:
    """Of choices all, of a sequence those before something that takes a character."""
    cdef First other
    cdef PatternNode kid
    cdef int i
    cdef bint open_end = not choices
    for kid in kids:
        other = first_of_node(kid)
        for i in range(4):
            first.low[i] |= other.low[i]
        first.high = first.high or other.high
        if choices:
            open_end = open_end or other.open
        elif not other.open:
            open_end = False
            break
    first.open = open_end
    return 0


cdef bint begins_anchored(PatternNode node) except -1:
    """Whether it can only match at the start of the text."""
    cdef PatternNode kid
    if node.kind == R_ANCHOR:
        return node.low == P_BEGIN
    if node.kind == R_CAT or node.kind == R_GROUP or node.kind == R_ATOMIC:
        return begins_anchored(node.kids[0])
    if node.kind == R_ALT:
        for kid in node.kids:
            if not begins_anchored(kid):
                return False
        return True
    return False
