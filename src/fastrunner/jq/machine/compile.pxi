"""Stage 4, expressions: the syntax tree to instructions.

Rules: every node that yields exactly one value stays a tree and is evaluated directly; all others become
instructions over one current value. Names are resolved to (frames up, slot) here; a free variable becomes an
argument of the program. Code that may run while paths are tracked (`path(f)`, updates, functions, closures) keeps
field access as instructions.
"""

cimport cython
from libc.stdlib cimport realloc

cdef enum OpCode:
    OP_EVALUATE  # p: node
    OP_UPDATE  # p: node; evaluates it on the current value's last use
    OP_DIRECT  # p: node, a: target; evaluates and jumps unless paths are tracked
    OP_STORE  # a: slot
    OP_LOAD  # a: slot, b: 0 or, for the last time, 1 and how many forks pushed since the store never read it
    OP_TAKE  # a: slot; leaves null there
    OP_JUMP  # a: target
    OP_BRANCH  # p: node, a: target if false; leaves the current value
    OP_JUMP_FALSE  # a: target
    OP_FORK  # a: target, b: the value is not needed there
    OP_BACKTRACK
    OP_ITERATE  # a: optional
    OP_FIELD  # p: name, a: optional
    OP_INDEX  # a: slot of the key, b: optional
    OP_SLICE  # a: slot of start (end follows), b: optional
    OP_COLLECT  # a: slot, b: target when done
    OP_APPEND  # a: slot
    OP_CALL  # p: unit, a: frames up to its definition or -1, b: arguments (OP_ARGUMENT each), c: tail
    OP_ARGUMENT  # p: unit or NULL, a: frames up, b: index of a closure of that frame
    OP_CALL_CLOSURE  # a: frames up, b: index, c: tail
    OP_RETURN
    OP_TRY  # a: target of the handler
    OP_TRY_END
    OP_LABEL  # a: slot
    OP_BREAK  # a: frames up, b: slot
    OP_CUT  # a: slot
    OP_CLEAR  # a: slot
    OP_LAST  # a: slot; goes back if it is empty
    OP_ALTERNATIVE  # a: target of the right side, b: slot of the flag
    OP_FOUND  # b: slot of the flag
    OP_PATH  # a: slot (3 of them)
    OP_PATH_END  # a: slot
    OP_SUBEXPRESSION  # a: slot (2 of them)
    OP_SUBEXPRESSION_END  # a: slot
    OP_RANGE  # a: slot of from (to, by follow)
    OP_RECURSE
    OP_GETPATH  # a: slot
    OP_SETPATH  # a: slot of the result, b: slot of the path; the current value is put there
    OP_VALUE_AT  # a: slot of the value, b: slot of the path, c: what is there will be set in any case
    OP_DELETE_LATER  # a: slot of the list, b: slot of the path
    OP_OFF_PATH  # fails where paths are tracked
    OP_PATTERN_FORK  # a: target of the next pattern

cdef enum EntryKind:
    E_VARIABLE
    E_LABEL
    # Those from here on are callable.
    E_FUNCTION
    E_CLOSURE


# A longer unknown name has no similar one, and comparing it takes its square.
cdef int NAME_SIZE_SIMILAR = 40


@cython.internal
@cython.final
cdef class Entry:
    """One name in scope; entries form a chain from the innermost outwards."""

    cdef Entry outer
    cdef int kind, arity, slot
    cdef str name
    # Unit whose frame holds the slot or closure, or in which the function is defined.
    cdef Unit unit
    cdef Unit function


cdef Entry new_entry(Entry outer, int kind, str name, Unit unit, int slot):
    cdef Entry entry = Entry.__new__(Entry)
    entry.outer = outer
    entry.kind = kind
    entry.name = name
    entry.unit = unit
    entry.slot = slot
    return entry


cdef dict REFUSED = {
    "input": "reads the host's input", "inputs": "reads the host's input", "debug": "writes to the host",
    "stderr": "writes to the host", "input_filename": "reads the host's input",
    "input_line_number": "reads the host's input", "halt": "ends the host", "halt_error": "ends the host",
    "env": "reads the host's environment", "get_search_list": "reads the host's module path",
    "modulemeta": "needs modules", "get_prog_origin": "reads the host's files",
    "get_jq_origin": "reads the host's files",
}


# --- units and instructions ---


cdef Unit new_unit(Unit parent):
    cdef Unit unit = Unit.__new__(Unit)
    charge(40)
    unit.parent = parent
    return unit


cdef int emit(Unit unit, int code, int a=0, int b=0, int c=0, object p=None) except -1:
    """Appends an instruction and gives its index."""
    cdef Op* moved
    cdef Op* op
    charge(4)
    if unit.size >= unit.capacity:
        unit.capacity = 8 if unit.capacity == 0 else 2 * unit.capacity
        moved = <Op*>realloc(unit.code, unit.capacity * sizeof(Op))
        if moved == NULL:
            raise MemoryError
        unit.code = moved
    op = &unit.code[unit.size]
    op.code = code
    op.a = a
    op.b = b
    op.c = c
    op.p = NULL
    if p is not None:
        unit.kept.append(p)
        op.p = <void*>p
    unit.size += 1
    return unit.size - 1


cdef int emit_with(Unit unit, int code, object p) except -1:
    return emit(unit, code, 0, 0, 0, p)


cdef int emit_evaluation(Unit unit, Node node) except -1:
    """For a single-valued node that replaces the current value."""
    return emit_with(unit, OP_UPDATE if node.consumes else OP_EVALUATE, node)


cdef int land(Unit unit, int at) noexcept:
    """Makes the instruction at `at` jump to here."""
    unit.code[at].a = unit.size
    return 0


cdef int new_slot(Unit unit, int count=1) noexcept:
    unit.cell_count += count
    return unit.cell_count - count


cdef int finish(Unit unit) except -1:
    """Ends a function: marks calls whose result is the function's own as tail calls."""
    cdef int i, target
    emit(unit, OP_RETURN)
    for i in range(unit.size):
        if unit.code[i].code == OP_CALL:
            target = i + 1 + unit.code[i].b
        elif unit.code[i].code == OP_CALL_CLOSURE:
            target = i + 1
        else:
            continue
        while unit.code[target].code == OP_JUMP:
            target = unit.code[target].a
        if unit.code[target].code == OP_RETURN:
            unit.code[i].c = 1
    return 0

# --- names ---


cdef int level_of(Unit unit, Unit owner) except -1:
    cdef int level = 0
    while unit is not owner:
        unit = unit.parent
        level += 1
    return level


cdef Entry find_entry(Entry scope, str name, int arity, bint function):
    while scope is not None:
        charge(1)
        if function:
            if scope.kind >= E_FUNCTION and scope.arity == arity and scope.name == name:
                return scope
        elif scope.kind == E_VARIABLE and scope.name == name:
            return scope
        scope = scope.outer
    return None


@cython.internal
@cython.final
cdef class Names:
    """What the names of an expression stand for, and which of its nodes yield exactly one value."""

    cdef Unit root
    cdef list arguments
    cdef dict argument_offsets
    cdef dict argument_slots
    # Library functions may not take arguments of the program.
    cdef bint library
    # Somebody will read what a name is similar to; looking for that takes a hundred times as long as compiling.
    cdef bint hinting

    def __cinit__(self):
        self.arguments = []
        self.argument_offsets = {}
        self.argument_slots = {}

    cdef int resolve_variable(self, Node node, Unit unit, Entry scope) except -1:
        cdef str name = <str>node.key
        cdef Entry entry = find_entry(scope, name, 0, False)
        if entry is not None:
            node.level = level_of(unit, entry.unit)
            node.slot = entry.slot
            return 0
        if self.library:
            raise SystemError(f"${name} in the library")
        if name == "ENV" or name == "__prog_args":
            raise ExpressionProblem(f"${name} is not available: an expression cannot read its host", node.offset)
        if name not in self.argument_slots:
            self.argument_slots[name] = new_slot(self.root)
            self.argument_offsets[name] = node.offset
            self.arguments.append(name)
        node.level = level_of(unit, self.root)
        node.slot = self.argument_slots[name]
        return 0

    cdef object unknown_function(self, Node node, Entry scope):
        cdef str name = <str>node.key
        cdef int arity = len(node.kids)
        cdef set known = set()
        if name in REFUSED:
            raise ExpressionProblem(f"'{name}' is not available: it {REFUSED[name]}", node.offset)
        if not self.hinting:
            raise ExpressionProblem(f"found {name}/{arity}, which is not defined", node.offset)
        known.update(builtin_names())
        while scope is not None:
            if scope.kind == E_FUNCTION or scope.kind == E_CLOSURE:
                known.add((scope.name, scope.arity))
            scope = scope.outer
        arities = sorted(entry[1] for entry in known if entry[0] == name)
        message = f"found {name}/{arity}, which is not defined"
        hint = call_hint(node, arities)
        if arities:
            message += f"; '{name}' takes {' or '.join(map(str, arities))} argument{'s' * (arities != [1])}"
        if arities or hint:
            raise ExpressionProblem(f"{message}; {hint}" if hint else message, node.offset)
        import difflib
        close = difflib.get_close_matches(name[:NAME_SIZE_SIMILAR], {entry[0] for entry in known}, 1)
        raise ExpressionProblem(message + (f"; did you mean '{close[0]}'?" if close else ""), node.offset)

    # --- single-valued sub-expressions ---

    cdef bint single(self, Node node, Unit unit, Entry scope) except -1:
        """Whether a node yields exactly one value by construction; resolves its names on the way."""
        if node is None:
            return True
        if node.single == S_UNKNOWN:
            node.single = S_YES if self.decide_single(node, unit, scope) else S_NO
            if node.single == S_YES and (node.kind == N_ARRAY or node.kind == N_OBJECT or node.kind == N_NEGATE):
                fold_constants(node)
            node.consumes = node.single == S_YES and consumes_input(node)
        return node.single == S_YES

    cdef bint all_single(self, list nodes, Unit unit, Entry scope) except -1:
        cdef Node node
        cdef bint result = True
        for node in nodes:
            if not self.single(node, unit, scope):
                result = False
        return result

    cdef bint decide_single(self, Node node, Unit unit, Entry scope) except -1:
        cdef int kind = node.kind
        cdef bint a, b
        if kind == N_CALL:
            self.expand_call(node, scope)
            kind = node.kind
        if kind == N_CONST or kind == N_IDENTITY:
            return True
        if kind == N_FORMAT:
            return True
        if kind == N_VARIABLE:
            self.resolve_variable(node, unit, scope)
            return True
        if kind == N_NATIVE and (<Native>node.key).name in BY_KEYS:
            a = self.all_single(node.kids, unit, scope)
            unwrap_keys(node)
            return self.all_single(node.kids, unit, scope) and a
        if kind == N_NATIVE or kind == N_OBJECT or kind == N_STRING:
            return self.all_single(node.kids, unit, scope)
        if kind == N_FIELD or kind == N_INDEX or kind == N_SLICE:
            a = self.single(node.a, unit, scope)
            b = self.single(node.b, unit, scope)
            return self.single(node.c, unit, scope) and a and b and not node.optional
        if kind == N_PIPE or kind == N_BINARY or kind == N_AND or kind == N_OR or kind == N_IF or kind == N_NEGATE:
            a = self.single(node.a, unit, scope)
            b = self.single(node.b, unit, scope)
            return self.single(node.c, unit, scope) and a and b
        if kind == N_ALTERNATIVE:
            a = self.quiet(node.a, unit, scope)
            return self.single(node.b, unit, scope) and a
        if kind == N_TRY:
            a = self.single(node.a, unit, scope)
            return node.b is not None and self.single(node.b, unit, scope) and a
        if kind == N_ARRAY:
            a = self.single(node.a, unit, scope)
            if node.a is not None and node.a.kind == N_COMMA:
                return self.all_single(node.a.kids, unit, scope)
            return a or self.collectable(node.a, unit, scope)
        if kind == N_REDUCE:
            return self.single_reduce(node, unit, scope)
        if kind == N_ASSIGN:
            return self.single_assignment(node, unit, scope)
        if kind == N_PATH:
            return self.single_row(node, unit, scope) and is_place(node.a)
        if kind == N_FIRST:
            self.single(node.a, unit, scope)
            return self.first_single(node.a, unit, scope)
        if kind == N_BIND:
            return self.single_binding(node, unit, scope)
        return False

    cdef bint optional(self, Node node, Unit unit, Entry scope) except -1:
        """Whether a node yields one value or none by construction."""
        if self.single(node, unit, scope) or node.kind == N_EMPTY:
            return True
        if node.kind == N_IF:
            if not self.single(node.a, unit, scope) or not self.optional(node.b, unit, scope):
                return False
            return node.c is None or self.optional(node.c, unit, scope)
        if node.kind == N_PIPE:
            return self.optional(node.a, unit, scope) and self.optional(node.b, unit, scope)
        return False

    cdef bint collectable(self, Node node, Unit unit, Entry scope) except -1:
        """Whether `collect` can make an array of what the node yields."""
        if generates(node):
            return self.single(node.a, unit, scope)
        if node.kind != N_PIPE or not generates(node.a) or not self.single(node.a.a, unit, scope):
            return False
        return self.optional(node.b, unit, scope)

    cdef bint first_single(self, Node node, Unit unit, Entry scope) except -1:
        """Whether `first_directly` can find the first of what the node yields."""
        cdef Node head
        if node.kind != N_COMMA or len(node.kids) != 2:
            return False
        head = <Node>node.kids[0]
        if not self.single(<Node>node.kids[1], unit, scope):
            return False
        return head.kind == N_PIPE and head.a.kind == N_ITERATE and self.collectable(head, unit, scope)

    cdef bint single_reduce(self, Node node, Unit unit, Entry scope) except -1:
        cdef bint single
        self.single(node.a, unit, scope)
        single = self.single(node.b, unit, scope)
        if len(node.kids) != 1 or node.a.kind != N_ITERATE or not generates(node.a):
            return False
        if not self.single(node.a.a, unit, scope) or not self.pattern_single(<Node>node.kids[0], unit, scope):
            return False
        scope = self.declare(<Node>node.kids[0], unit, scope)
        return self.single(node.c, unit, scope) and single

    cdef bint single_row(self, Node node, Unit unit, Entry scope) except -1:
        """Whether the paths in `node.a` are a row of steps, which then become its kids, with single indices."""
        cdef Node step
        cdef bint result = True
        cdef list row = row_of(node.a)
        self.single(node.a, unit, scope)
        if row is None:
            return False
        for step in row:
            if step.kind == N_INDEX:
                node.level = 1
                if not self.single(step.b, unit, scope):
                    result = False
        node.kids = row if result else None
        return result

    cdef bint single_assignment(self, Node node, Unit unit, Entry scope) except -1:
        cdef bint row = self.single_row(node, unit, scope)
        if self.single(node.b, unit, scope):
            return row
        return row and node.op == A_MODIFY and may_leave_out(node.kids) and self.optional(node.b, unit, scope)

    cdef bint quiet(self, Node node, Unit unit, Entry scope) except -1:
        """Single, or at most one value because of a `?` that `//` right behind it makes good."""
        if node.kind == N_FIELD and node.a is not None:
            # Asked first, so that the parts are resolved either way.
            return self.single(node, unit, scope) or self.quiet(node.a, unit, scope)
        if node.kind == N_FIELD:
            return True
        if node.kind == N_TRY and node.b is None:
            self.single(node, unit, scope)
            return self.quiet(node.a, unit, scope)
        return self.single(node, unit, scope)

    cdef bint single_binding(self, Node node, Unit unit, Entry scope) except -1:
        cdef bint source = self.single(node.a, unit, scope)
        if len(node.kids) != 1:
            return False
        if not self.pattern_single(<Node>node.kids[0], unit, scope):
            return False
        scope = self.declare(<Node>node.kids[0], unit, scope)
        return self.single(node.b, unit, scope) and source

    cdef bint pattern_single(self, Node pattern, Unit unit, Entry scope) except -1:
        cdef Py_ssize_t i
        if pattern is None or pattern.kind == N_VARIABLE:
            return True
        if pattern.kind == P_ARRAY:
            return all([self.pattern_single(<Node>kid, unit, scope) for kid in pattern.kids])
        for i in range(0, len(pattern.kids), 2):
            if (<Node>pattern.kids[i]).kind != N_CONST and (<Node>pattern.kids[i]).kind != N_VARIABLE:
                return False
            if not self.pattern_single(<Node>pattern.kids[i + 1], unit, scope):
                return False
        return True

    cdef Entry declare(self, Node pattern, Unit unit, Entry scope):
        """Puts a pattern's variables in scope, each with a slot of its own (one per name and alternative group)."""
        cdef Node kid
        cdef Entry entry
        cdef Py_ssize_t i
        if pattern is None:
            return scope
        if pattern.kind == N_VARIABLE:
            if pattern.single == S_UNKNOWN:
                pattern.slot = new_slot(unit)
                pattern.single = S_YES
            return new_entry(scope, E_VARIABLE, <str>pattern.key, unit, pattern.slot)
        if pattern.kind == P_ARRAY or pattern.kind == P_OBJECT:
            for i in range(len(pattern.kids)):
                kid = <Node>pattern.kids[i]
                if pattern.kind == P_ARRAY or i % 2 == 1 or kid.kind == N_VARIABLE:
                    scope = self.declare(kid, unit, scope)
        return scope

    cdef int expand_call(self, Node node, Entry scope) except -1:
        """Turns a call of a builtin into what it stands for; calls of functions in scope stay."""
        cdef str name = <str>node.key
        cdef Py_ssize_t arity = len(node.kids)
        cdef object native
        if node.op == 0 and find_entry(scope, name, <int>arity, True) is not None:
            return 0
        if expand_macro(node, name, <int>arity):
            return 0
        native = NATIVES.get((name, arity))
        if native is not None:
            node.kind = N_NATIVE
            node.key = native
            return 0
        if library_source(name, <int>arity) is None:
            self.unknown_function(node, scope)
        node.op = 1
        return 0


cdef int fold_constants(Node node) except -1:
    """Makes an array, object or negation of constants the constant it comes to, unless it fails."""
    cdef Node kid
    cdef list parts = [node.a] if node.kids is None else node.kids
    if node.kind == N_ARRAY and node.a is not None and node.a.kind == N_COMMA:
        parts = node.a.kids
    for kid in parts:
        if kid is not None and kid.kind != N_CONST:
            return 0
    try:
        node.key = evaluate(None, running(), node, None)
    except ExpressionError:
        return 0
    node.kind = N_CONST
    return 0


# Functions of the library that give their results one by one; a function of the expression's own is not resolved.
cdef frozenset GENERATORS = frozenset(("combinations", "leaf_paths", "paths", "range", "recurse", "repeat", "scan",
                                       "splits", "tostream", "while"))


cdef bint generates_results(Node node):
    """Whether a resolved node's syntax alone says that its results come one by one, whatever its functions do."""
    cdef int kind
    if node is None:
        return False
    kind = node.kind
    if kind == N_ITERATE or kind == N_COMMA or kind == N_RANGE or kind == N_RECURSE or kind == N_EMPTY:
        return True
    if kind == N_PIPE or kind == N_BIND:
        return generates_results(node.a) or generates_results(node.b)
    if kind == N_DEFINE:
        return generates_results(node.b)
    if kind == N_CALL:
        return node.op == 1 and node.key in GENERATORS
    if kind == N_FIELD or kind == N_INDEX or kind == N_SLICE or kind == N_ALTERNATIVE:
        return generates_results(node.a)
    # What catches an error may come to one result; so may a label, which a result can break.
    return kind == N_TRY and node.b is None and generates_results(node.a)


cdef bint trivial(Node node):
    return node is None or node.kind == N_IDENTITY or node.kind == N_CONST


cdef bint on_path(Node node):
    """Whether a path may run through the node."""
    cdef int kind = node.kind
    return (
        kind == N_FIELD or kind == N_INDEX or kind == N_SLICE or kind == N_PIPE or kind == N_IF or kind == N_ALTERNATIVE
        or kind == N_TRY or kind == N_BIND or kind == N_REDUCE or kind == N_FIRST or kind == N_ASSIGN
        or (kind == N_NATIVE and node.key is GETPATH)
    )


# --- ready-made evaluations ---

cdef Node single_node(int kind):
    cdef Node node = new_node(kind, 0)
    node.single = S_YES
    return node


cdef Node NULL_NODE = single_node(N_CONST)


cdef Node to_boolean():
    cdef Node node = new_node(N_AND, 0, single_node(N_IDENTITY), single_node(N_IDENTITY))
    node.single = S_YES
    return node


cdef Node TO_BOOLEAN = to_boolean()


cdef Node binder(Node pattern):
    """An evaluation that stores a pattern's variables and leaves the value."""
    cdef Node same = single_node(N_IDENTITY)
    cdef Node node = new_node(N_BIND, pattern.offset, same, same, None, None, [pattern])
    node.single = S_YES
    return node


cdef Node indexer(int slot):
    cdef Node node = new_node(N_INDEX, 0, None, slot_node(slot))
    node.single = S_YES
    return node


cdef frozenset REFUSING_FORMATS = frozenset(("csv", "tsv", "sh", "urid", "base64d", "base32d"))


cdef Node part_formatter(Node part, str format):
    """A part of a string in its format; literal text has none."""
    cdef Node formatter
    if part.kind == N_CONST and part.level == 1:
        return part
    formatter = new_node(N_FORMAT, part.offset)
    formatter.key = format
    return new_node(N_PIPE, part.offset, part, formatter)


cdef Node key_checker(Node key):
    cdef Node node = list_node(N_NATIVE, 0, [key])
    node.key = CHECK_KEY
    node.single = S_YES
    return node


cdef Node deleter(int slot):
    cdef Node node = list_node(N_NATIVE, 0, [slot_node(slot)])
    node.key = DELETE_LATER
    node.single = S_YES
    return node
