"""Stage 4, expressions: instructions for every kind of node that may yield any number of values.

Rules: `walk` appends code that turns the current value into each result in turn; the machine goes back for the next
one. Operands other than the one a path runs through are sub-expressions: path tracking is off while they run.
"""

cimport cython


@cython.internal
@cython.final
cdef class Emitter:
    cdef Names names

    def __cinit__(self):
        self.names = Names()

    cdef int walk(self, Node node, Unit unit, Entry scope, bint paths) except -1:
        cdef int skip, kind
        if node is None:
            return 0
        if self.names.single(node, unit, scope):
            if node.kind == N_IDENTITY:
                return 0
            if not paths or not on_path(node):
                return emit_evaluation(unit, node)
            skip = emit_with(unit, OP_DIRECT, node)
            self.walk_node(node, unit, scope, paths)
            land(unit, skip)
            return 0
        return self.walk_node(node, unit, scope, paths)

    cdef int walk_node(self, Node node, Unit unit, Entry scope, bint paths) except -1:
        cdef int kind = node.kind
        if kind == N_PIPE:
            self.walk(node.a, unit, scope, paths)
            return self.walk(node.b, unit, scope, paths)
        if kind == N_FIELD:
            self.walk(node.a, unit, scope, paths)
            return emit(unit, OP_FIELD, node.optional, 0, 0, node.key)
        if kind == N_ITERATE:
            self.walk(node.a, unit, scope, paths)
            return emit(unit, OP_ITERATE, node.optional)
        if kind == N_INDEX:
            return self.walk_index(node, unit, scope, paths)
        if kind == N_SLICE:
            return self.walk_slice(node, unit, scope, paths)
        if kind == N_COMMA:
            return self.walk_comma(node, unit, scope, paths)
        if kind == N_IF:
            return self.walk_if(node, unit, scope, paths)
        if kind == N_ALTERNATIVE:
            return self.walk_alternative(node, unit, scope, paths)
        if kind == N_TRY:
            return self.walk_try(node, unit, scope, paths)
        if kind == N_BIND:
            return self.walk_binding(node, unit, scope, paths)
        if kind == N_CALL:
            return self.walk_call(node, unit, scope)
        if kind == N_ARRAY:
            return self.walk_array(node, unit, scope, paths)
        if kind == N_NATIVE:
            return self.walk_native(node, unit, scope, paths)
        return self.walk_other(node, unit, scope, paths)

    cdef int walk_other(self, Node node, Unit unit, Entry scope, bint paths) except -1:
        cdef int kind = node.kind
        if kind == N_BINARY or kind == N_OBJECT or kind == N_STRING or kind == N_NEGATE:
            return self.walk_operands(node, unit, scope, paths)
        if kind == N_AND or kind == N_OR:
            return self.walk_logic(node, unit, scope, paths)
        if kind == N_REDUCE:
            return self.walk_reduce(node, unit, scope, paths)
        if kind == N_FOREACH:
            return self.walk_foreach(node, unit, scope, paths)
        if kind == N_ASSIGN:
            return self.walk_assign(node, unit, scope, paths)
        if kind == N_LABEL:
            return self.walk_label(node, unit, scope, paths)
        if kind == N_BREAK:
            return self.walk_break(node, unit, scope)
        if kind == N_DEFINE:
            return self.walk_definition(node, unit, scope, paths)
        if kind == N_EMPTY:
            return emit(unit, OP_BACKTRACK)
        if kind == N_FIRST:
            return self.walk_first(node, unit, scope, paths)
        if kind == N_LAST:
            return self.walk_last(node, unit, scope, paths)
        if kind == N_PATH:
            return self.walk_paths(node.a, unit, scope)
        if kind == N_RANGE:
            return self.walk_range(node, unit, scope, paths)
        if kind == N_RECURSE:
            return emit(unit, OP_RECURSE)
        raise SystemError(f"node {kind} cannot be compiled")

    # --- operands ---

    cdef int operand(self, Node node, Unit unit, Entry scope, bint paths, int source) except -1:
        """Computes an operand from the value in slot `source` and gives the slot of each of its results."""
        cdef int slot = new_slot(unit)
        cdef int saved = -1
        emit(unit, OP_LOAD, source)
        if not self.names.single(node, unit, scope) and paths:
            saved = new_slot(unit, 2)
            emit(unit, OP_SUBEXPRESSION, saved)
        if node.single == S_YES and node.kind != N_IDENTITY:
            # Its value is not the one a path runs through, however equal they are.
            unit.code[emit_with(unit, OP_EVALUATE, node)].a = 1
        else:
            # Paths are off here at run time, but closures the code calls must still be able to start their own.
            self.walk(node, unit, scope, False)
        emit(unit, OP_STORE, slot)
        if saved >= 0:
            emit(unit, OP_SUBEXPRESSION_END, saved)
        return slot

    cdef int save(self, Unit unit) except -1:
        cdef int slot = new_slot(unit)
        emit(unit, OP_STORE, slot)
        return slot

    cdef int walk_operands(self, Node node, Unit unit, Entry scope, bint paths) except -1:
        """Puts the results of the operands into slots, in jq's order, and evaluates the operation on those."""
        cdef Node copy, kid
        cdef int source = self.save(unit)
        cdef list kids = [node.a, node.b] if node.kids is None else list(node.kids)
        cdef object key = node.key
        cdef Py_ssize_t i, index
        if node.kind == N_STRING and key in REFUSING_FORMATS:
            # Each part is formatted before the next one is computed, because either may fail.
            kids = [part_formatter(<Node>kid, <str>key) for kid in kids]
            key = "text"
        for i in range(len(kids)):
            # Objects go from first to last, all others from last to first.
            index = i if node.kind == N_OBJECT else len(kids) - 1 - i
            kid = <Node>kids[index]
            if not trivial(kid):
                self.names.single(kid, unit, scope)
                if kid.kind != N_VARIABLE:
                    kids[index] = slot_node(self.operand(kid, unit, scope, paths, source))
            if node.kind == N_OBJECT and i % 2 == 1 and i + 1 < len(kids) and (<Node>kids[i - 1]).kind != N_CONST:
                emit_with(unit, OP_EVALUATE, key_checker(<Node>kids[i - 1]))
        emit(unit, OP_LOAD, source, 1)
        if node.kids is None:
            copy = new_node(node.kind, node.offset, <Node>kids[0], <Node>kids[1])
        else:
            copy = list_node(node.kind, node.offset, kids)
        copy.op = node.op
        copy.key = key
        copy.single = S_YES
        for kid in kids:
            if kid is not None:
                kid.single = S_YES
        copy.consumes = consumes_input(copy)
        return emit_evaluation(unit, copy)

    cdef int walk_native(self, Node node, Unit unit, Entry scope, bint paths) except -1:
        cdef int source, slot
        if node.key is not GETPATH or not paths:
            return self.walk_operands(node, unit, scope, paths)
        source = self.save(unit)
        slot = self.operand(<Node>node.kids[0], unit, scope, paths, source)
        emit(unit, OP_LOAD, source, 1)
        return emit(unit, OP_GETPATH, slot)

    cdef int walk_index(self, Node node, Unit unit, Entry scope, bint paths) except -1:
        cdef int source = self.save(unit)
        cdef int slot = self.operand(node.b, unit, scope, paths, source)
        emit(unit, OP_LOAD, source, 1)
        self.walk(node.a, unit, scope, paths)
        return emit(unit, OP_INDEX, slot, node.optional)

    cdef int walk_slice(self, Node node, Unit unit, Entry scope, bint paths) except -1:
        cdef int source = self.save(unit)
        cdef int low = -1
        cdef int high = -1
        cdef int bounds
        if node.b is not None:
            low = self.operand(node.b, unit, scope, paths, source)
        if node.c is not None:
            high = self.operand(node.c, unit, scope, paths, source)
        bounds = new_slot(unit, 2)
        if low >= 0:
            emit(unit, OP_LOAD, low)
            emit(unit, OP_STORE, bounds)
        if high >= 0:
            emit(unit, OP_LOAD, high)
            emit(unit, OP_STORE, bounds + 1)
        emit(unit, OP_LOAD, source, 1)
        self.walk(node.a, unit, scope, paths)
        return emit(unit, OP_SLICE, bounds, node.optional)

    # --- control ---

    cdef int walk_comma(self, Node node, Unit unit, Entry scope, bint paths) except -1:
        cdef list ends = []
        cdef Py_ssize_t i
        cdef int fork
        for i in range(len(node.kids) - 1):
            fork = emit(unit, OP_FORK)
            self.walk(<Node>node.kids[i], unit, scope, paths)
            ends.append(emit(unit, OP_JUMP))
            land(unit, fork)
        self.walk(<Node>node.kids[len(node.kids) - 1], unit, scope, paths)
        for end in ends:
            land(unit, end)
        return 0

    cdef int walk_if(self, Node node, Unit unit, Entry scope, bint paths) except -1:
        cdef int source, slot, other, end
        if self.names.single(node.a, unit, scope):
            other = emit_with(unit, OP_BRANCH, node.a)
            source = -1
        else:
            source = self.save(unit)
            slot = self.operand(node.a, unit, scope, paths, source)
            emit(unit, OP_LOAD, slot)
            other = emit(unit, OP_JUMP_FALSE)
            emit(unit, OP_LOAD, source, 1)
        self.walk(node.b, unit, scope, paths)
        end = emit(unit, OP_JUMP)
        land(unit, other)
        if source >= 0:
            emit(unit, OP_LOAD, source, 1)
        self.walk(node.c, unit, scope, paths)
        return land(unit, end)

    cdef int walk_logic(self, Node node, Unit unit, Entry scope, bint paths) except -1:
        """`and` and `or`: the right side runs only where the left one does not decide."""
        cdef int source = self.save(unit)
        cdef int slot, other
        cdef int last = -1
        cdef Node decided = constant(node.kind == N_OR)
        decided.single = S_YES
        slot = self.operand(node.a, unit, scope, paths, source)
        emit(unit, OP_LOAD, slot)
        other = emit(unit, OP_JUMP_FALSE)
        if node.kind == N_OR:
            emit_with(unit, OP_EVALUATE, decided)
            last = emit(unit, OP_JUMP)
            land(unit, other)
        slot = self.operand(node.b, unit, scope, paths, source)
        emit(unit, OP_LOAD, slot)
        emit_with(unit, OP_EVALUATE, TO_BOOLEAN)
        if node.kind == N_AND:
            last = emit(unit, OP_JUMP)
            land(unit, other)
            emit_with(unit, OP_EVALUATE, decided)
        return land(unit, last)

    cdef int walk_alternative(self, Node node, Unit unit, Entry scope, bint paths) except -1:
        cdef int flag = new_slot(unit)
        cdef int fork = emit(unit, OP_ALTERNATIVE, 0, flag)
        cdef int end
        self.walk(node.a, unit, scope, paths)
        emit(unit, OP_FOUND, 0, flag)
        end = emit(unit, OP_JUMP)
        land(unit, fork)
        self.walk(node.b, unit, scope, paths)
        return land(unit, end)

    cdef int walk_try(self, Node node, Unit unit, Entry scope, bint paths) except -1:
        cdef int handler = emit(unit, OP_TRY)
        cdef int end
        self.walk(node.a, unit, scope, paths)
        emit(unit, OP_TRY_END)
        end = emit(unit, OP_JUMP)
        land(unit, handler)
        if node.b is None:
            emit(unit, OP_BACKTRACK)
        else:
            self.walk(node.b, unit, scope, paths)
        return land(unit, end)

    cdef int walk_array(self, Node node, Unit unit, Entry scope, bint paths) except -1:
        cdef int slot = new_slot(unit)
        cdef int start = emit(unit, OP_COLLECT, slot)
        if paths:
            # What is collected is no path; the fork of OP_COLLECT turns tracking on again.
            emit(unit, OP_SUBEXPRESSION, new_slot(unit, 2))
        self.walk(node.a, unit, scope, False)
        emit(unit, OP_APPEND, slot)
        unit.code[start].b = unit.size
        return 0

    cdef int walk_label(self, Node node, Unit unit, Entry scope, bint paths) except -1:
        cdef int slot = new_slot(unit)
        emit(unit, OP_LABEL, slot)
        return self.walk(node.a, unit, new_entry(scope, E_LABEL, <str>node.key, unit, slot), paths)

    cdef int walk_break(self, Node node, Unit unit, Entry scope) except -1:
        while scope is not None:
            if scope.kind == E_LABEL and scope.name == node.key:
                return emit(unit, OP_BREAK, level_of(unit, scope.unit), scope.slot)
            scope = scope.outer
        raise ExpressionProblem(f"found 'break ${node.key}' outside of 'label ${node.key} | ...'", node.offset)

    cdef int walk_first(self, Node node, Unit unit, Entry scope, bint paths) except -1:
        cdef int slot = new_slot(unit)
        emit(unit, OP_LABEL, slot)
        self.walk(node.a, unit, scope, paths)
        return emit(unit, OP_CUT, slot)

    cdef int walk_last(self, Node node, Unit unit, Entry scope, bint paths) except -1:
        cdef int slot = new_slot(unit)
        cdef int end
        emit(unit, OP_CLEAR, slot)
        end = emit(unit, OP_FORK)
        self.walk(node.a, unit, scope, paths)
        emit(unit, OP_STORE, slot)
        emit(unit, OP_BACKTRACK)
        land(unit, end)
        return emit(unit, OP_LAST, slot)

    cdef int walk_range(self, Node node, Unit unit, Entry scope, bint paths) except -1:
        cdef int source = self.save(unit)
        cdef int bounds
        cdef list slots = [self.operand(<Node>kid, unit, scope, paths, source) for kid in node.kids]
        bounds = new_slot(unit, 3)
        for i, slot in enumerate(slots):
            emit(unit, OP_LOAD, slot)
            emit(unit, OP_STORE, bounds + i)
        return emit(unit, OP_RANGE, bounds, len(slots) == 3)

    # --- bindings ---

    cdef int walk_binding(self, Node node, Unit unit, Entry scope, bint paths) except -1:
        cdef int source = self.save(unit)
        cdef int slot = self.operand(node.a, unit, scope, paths, source)
        return self.match(node, slot, source, unit, scope, paths, -1)

    cdef Entry declare_all(self, Node node, Unit unit, Entry scope):
        """Variables of all alternatives; equal names share one slot, so that each alternative sets what all read."""
        cdef Entry outer = scope
        cdef Entry entry, other
        for pattern in node.kids:
            scope = self.names.declare(<Node>pattern, unit, scope)
        if len(node.kids) > 1:
            for pattern in node.kids:
                self.share_slots(<Node>pattern, scope, outer)
        return scope

    cdef int share_slots(self, Node pattern, Entry scope, Entry outer) except -1:
        cdef Entry entry = scope
        if pattern is None:
            return 0
        if pattern.kind == N_VARIABLE:
            pattern.slot = find_entry(scope, <str>pattern.key, 0, False).slot
        elif pattern.kind == P_ARRAY:
            for kid in pattern.kids:
                self.share_slots(<Node>kid, scope, outer)
        elif pattern.kind == P_OBJECT:
            for i, kid in enumerate(pattern.kids):
                if i % 2 == 1 or (<Node>kid).kind == N_VARIABLE:
                    self.share_slots(<Node>kid, scope, outer)
        return 0

    cdef int match(self, Node node, int value, int source, Unit unit, Entry scope, bint paths, int state) except -1:
        """Binds the value in slot `value` to the patterns, then runs the body.

        The body is a binding's (`state` < 0, from the value in `source`) or a fold's update of `state`.
        """
        cdef Entry outer = scope
        cdef Entry entry
        cdef list ends = []
        cdef Py_ssize_t i
        cdef int fork
        scope = self.declare_all(node, unit, scope)
        for i in range(len(node.kids)):
            fork = -1
            if len(node.kids) > 1:
                entry = scope
                emit_with(unit, OP_EVALUATE, NULL_NODE)
                while entry is not outer:
                    emit(unit, OP_STORE, entry.slot)
                    entry = entry.outer
                if i + 1 < len(node.kids):
                    fork = emit(unit, OP_PATTERN_FORK)
            self.bind(<Node>node.kids[i], value, unit, outer, scope, paths)
            self.run_body(node, source, unit, scope, paths, state)
            if fork >= 0:
                ends.append(emit(unit, OP_JUMP))
                land(unit, fork)
        for end in ends:
            land(unit, end)
        return 0

    cdef int run_body(self, Node node, int source, Unit unit, Entry scope, bint paths, int state) except -1:
        if state < 0:
            emit(unit, OP_LOAD, source, 1)
            return self.walk(node.b, unit, scope, paths)
        emit(unit, OP_TAKE, state)
        self.walk(node.c, unit, scope, paths)
        emit(unit, OP_STORE, state)
        if node.kind == N_FOREACH:
            return self.walk(node.d, unit, scope, paths)
        return emit(unit, OP_BACKTRACK)

    cdef int bind(self, Node pattern, int value, Unit unit, Entry outer, Entry scope, bint paths) except -1:
        """Stores a pattern's variables from the value in slot `value`."""
        cdef Py_ssize_t i
        cdef int slot, key_slot
        cdef Node key, target
        emit(unit, OP_LOAD, value)
        if pattern.kind == N_VARIABLE:
            return emit(unit, OP_STORE, pattern.slot)
        if self.names.pattern_single(pattern, unit, outer):
            return emit_with(unit, OP_EVALUATE, binder(pattern))
        slot = new_slot(unit)
        indices = range(0, len(pattern.kids), 2)
        if pattern.kind == P_ARRAY:
            # jq goes from the last element to the first.
            indices = range(len(pattern.kids) - 1, -1, -1)
        for i in indices:
            key = constant(i) if pattern.kind == P_ARRAY else <Node>pattern.kids[i]
            target = <Node>pattern.kids[i if pattern.kind == P_ARRAY else i + 1]
            name = key
            if key.kind == N_VARIABLE:
                name = constant(key.key)
            key_slot = self.operand(<Node>name, unit, scope, paths, value)
            emit(unit, OP_LOAD, value)
            emit_with(unit, OP_EVALUATE, indexer(key_slot))
            slot = self.save(unit)
            if key.kind == N_VARIABLE:
                emit(unit, OP_STORE, key.slot)
            if target is not None:
                self.bind(target, slot, unit, outer, scope, paths)
        return 0

    # --- folds ---

    cdef int walk_reduce(self, Node node, Unit unit, Entry scope, bint paths) except -1:
        cdef int source = self.save(unit)
        cdef int state = new_slot(unit)
        cdef int value = new_slot(unit)
        cdef int end
        self.walk(node.b, unit, scope, paths)
        emit(unit, OP_STORE, state)
        end = emit(unit, OP_FORK, 0, 1)
        emit(unit, OP_LOAD, source, 2)
        self.walk(node.a, unit, scope, paths)
        emit(unit, OP_STORE, value)
        self.match(node, value, source, unit, scope, paths, state)
        land(unit, end)
        return emit(unit, OP_TAKE, state)

    cdef int walk_foreach(self, Node node, Unit unit, Entry scope, bint paths) except -1:
        cdef int source = self.save(unit)
        cdef int state = new_slot(unit)
        cdef int value = new_slot(unit)
        self.walk(node.b, unit, scope, paths)
        emit(unit, OP_STORE, state)
        emit(unit, OP_LOAD, source, 1)
        self.walk(node.a, unit, scope, paths)
        emit(unit, OP_STORE, value)
        return self.match(node, value, source, unit, scope, paths, state)

    # --- paths and updates ---

    cdef int walk_paths(self, Node of, Unit unit, Entry scope) except -1:
        cdef int slot = new_slot(unit, 2)
        emit(unit, OP_PATH, slot)
        self.walk(of, unit, scope, True)
        return emit(unit, OP_PATH_END, slot)

    cdef int walk_assign(self, Node node, Unit unit, Entry scope, bint paths) except -1:
        cdef int source = self.save(unit)
        cdef int result = new_slot(unit)
        cdef int path = new_slot(unit)
        cdef int value = -1
        cdef int deletions = -1
        cdef int end
        if node.op != A_MODIFY:
            value = self.operand(node.b, unit, scope, paths, source)
        if node.op == A_MODIFY and not self.names.single(node.b, unit, scope):
            deletions = new_slot(unit)
            emit_with(unit, OP_EVALUATE, NULL_NODE)
            emit(unit, OP_STORE, deletions)
        emit(unit, OP_LOAD, source, 1)
        emit(unit, OP_STORE, result)
        end = emit(unit, OP_FORK, 0, 1)
        self.walk_paths(node.a, unit, scope)
        emit(unit, OP_STORE, path)
        self.walk_update(node, unit, scope, result, path, value, deletions)
        emit(unit, OP_SETPATH, result, path)
        emit(unit, OP_BACKTRACK)
        land(unit, end)
        emit(unit, OP_TAKE, result)
        if deletions >= 0:
            emit_with(unit, OP_EVALUATE, deleter(deletions))
        if paths and node.op != A_SET:
            emit(unit, OP_OFF_PATH)
        return 0

    cdef int walk_update(self, Node node, Unit unit, Entry scope, int result, int path, int value, int gone) except -1:
        """The new value at one path."""
        cdef Node change
        cdef int label, none, saved
        if node.op == A_SET:
            return emit(unit, OP_LOAD, value)
        emit(unit, OP_VALUE_AT, result, path, gone < 0)
        if node.op != A_MODIFY:
            change = new_node(N_BINARY, node.offset, new_node(N_IDENTITY, node.offset), slot_node(value))
            change.op = node.op
            change.consumes = consumes_input(change)
            return emit_evaluation(unit, change)
        if gone < 0:
            return self.walk(node.b, unit, scope, False)
        label = new_slot(unit)
        saved = new_slot(unit, 2)
        emit(unit, OP_LABEL, label)
        none = emit(unit, OP_FORK)
        emit(unit, OP_SUBEXPRESSION, saved)
        self.walk(node.b, unit, scope, False)
        emit(unit, OP_SUBEXPRESSION_END, saved)
        end = emit(unit, OP_JUMP)
        land(unit, none)
        emit(unit, OP_DELETE_LATER, gone, path)
        emit(unit, OP_BACKTRACK)
        land(unit, end)
        return emit(unit, OP_CUT, label)

    # --- functions ---

    cdef int walk_definition(self, Node node, Unit unit, Entry scope, bint paths) except -1:
        cdef Entry entry = new_entry(scope, E_FUNCTION, <str>node.key, unit, 0)
        entry.arity = len(node.parameters)
        entry.function = new_unit(unit)
        unit.kept.append(entry.function)
        self.define(node, entry.function, entry)
        return self.walk(node.b, unit, entry, paths)

    cdef int define(self, Node node, Unit function, Entry scope) except -1:
        """Compiles a definition's body into `function`."""
        cdef int index, slot, saved
        cdef Entry entry
        cdef list values = []
        function.parameter_count = len(node.parameters)
        for index, name in enumerate(node.parameters):
            entry = new_entry(scope, E_CLOSURE, name.lstrip("$"), function, index)
            scope = entry
            if name.startswith("$"):
                values.append((index, name[1:]))
        if values:
            saved = self.save(function)
            for index, name in values:
                slot = new_slot(function, 3)
                emit(function, OP_LOAD, saved)
                emit(function, OP_SUBEXPRESSION, slot + 1)
                emit(function, OP_CALL_CLOSURE, 0, index)
                emit(function, OP_STORE, slot)
                emit(function, OP_SUBEXPRESSION_END, slot + 1)
                scope = new_entry(scope, E_VARIABLE, name, function, slot)
            emit(function, OP_LOAD, saved, 1)
        self.walk(node.a, function, scope, True)
        return finish(function)

    cdef int walk_call(self, Node node, Unit unit, Entry scope) except -1:
        cdef int arity = len(node.kids)
        cdef Entry entry = find_entry(scope, <str>node.key, arity, True) if node.op == 0 else None
        cdef list arguments
        if entry is None:
            arguments = [self.argument(<Node>kid, unit, scope) for kid in node.kids]
            emit(unit, OP_CALL, -1, arity, 0, library_unit(<str>node.key, arity))
        elif entry.kind == E_CLOSURE:
            return emit(unit, OP_CALL_CLOSURE, level_of(unit, entry.unit), entry.slot)
        else:
            arguments = [self.argument(<Node>kid, unit, scope) for kid in node.kids]
            emit(unit, OP_CALL, level_of(unit, entry.unit), arity, 0, entry.function)
        for closure, level, index in arguments:
            emit(unit, OP_ARGUMENT, level, index, 0, closure)
        return 0

    cdef tuple argument(self, Node node, Unit unit, Entry scope):
        """A closure for an argument, as (unit or None, frames up, index); a bare parameter is passed on as it is."""
        cdef Entry entry
        cdef Unit closure
        if node.kind == N_CALL and not node.kids and node.op == 0:
            entry = find_entry(scope, <str>node.key, 0, True)
            if entry is not None and entry.kind == E_CLOSURE:
                return (None, level_of(unit, entry.unit), entry.slot)
        closure = new_unit(unit)
        self.walk(node, closure, scope, True)
        finish(closure)
        if node.single == S_YES and closure.cell_count == 0:
            closure.direct = node
            closure.kept.append(node)
        return (closure, 0, 0)
