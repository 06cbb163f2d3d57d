"""Stage 4, expressions: the run loop.

Rules: one current value; forks are the only way back. Going back pops the topmost fork and restores frames, cells
and path as they were. An error unwinds forks until a `try` takes it; a break unwinds to its label. Each instruction
is a step.
"""

cdef enum ForkKind:
    F_PLAIN
    F_ITERATE_ARRAY
    F_ITERATE_OBJECT
    F_RANGE
    F_RECURSE
    F_TRY
    F_TRY_END
    F_LABEL
    F_ALTERNATIVE
    F_PATTERN


cdef inline bint range_ended(double number, double limit, double step, bint has_step) noexcept:
    """Whether a range ends before `number`; nan is below all numbers, but a range without a step counts on from it."""
    if not has_step:
        return number >= limit
    if step > 0:
        return not (isnan(number) or number < limit)
    return step == 0 or isnan(number) or number <= limit


cdef class Runner(Stack):
    # The current value and program counter live here while an error is handled.
    cdef object current
    cdef int pc
    cdef Unit unit
    cdef list outputs

    cdef bint catch(self, object value) except -1:
        """Unwinds to the handler of an error; False if there is none."""
        cdef Fork* fork
        cdef int ended = 0
        charge(ERROR_STEPS)
        while self.fork_top > 0:
            fork = &self.forks[self.fork_top - 1]
            if fork.kind == F_TRY_END:
                # The error comes from behind that `try`, which therefore does not see it.
                ended += 1
            elif fork.kind == F_TRY:
                if ended == 0:
                    self.rewind(fork)
                    self.unit = <Unit>self.frames[self.frame].unit
                    self.pc = fork.pc
                    self.current = value
                    self.drop_fork()
                    return True
                ended -= 1
            elif fork.kind == F_PATTERN:
                self.rewind(fork)
                self.unit = <Unit>self.frames[self.frame].unit
                self.pc = fork.pc
                self.current = <object>fork.value
                self.drop_fork()
                return True
            self.drop_fork()
        return False

    cdef bint back(self) except -1:
        """Goes back to the topmost fork that has something left; False if there is none."""
        cdef Fork* fork
        while self.fork_top > 0:
            fork = &self.forks[self.fork_top - 1]
            self.rewind(fork)
            self.pc = fork.pc
            self.unit = <Unit>self.frames[fork.frame].unit
            if fork.kind == F_PLAIN:
                self.current = <object>fork.value
                self.drop_fork()
                return True
            if fork.kind == F_ITERATE_ARRAY or fork.kind == F_ITERATE_OBJECT:
                self.next_element(fork)
                return True
            if fork.kind == F_RANGE:
                self.next_number(fork)
                return True
            if fork.kind == F_RECURSE:
                self.next_descendant(fork)
                return True
            if fork.kind == F_ALTERNATIVE and not self.alternative_found(fork):
                self.current = <object>fork.value
                self.drop_fork()
                return True
            self.drop_fork()
        return False

    cdef bint alternative_found(self, Fork* fork):
        return self.cells[self.frames[fork.frame].cells + fork.index] != NULL

    # --- generators ---

    cdef int iterate(self, object value, bint optional) except -1:
        """Starts `.[]`; 0: nothing to yield, 1: the first element is current."""
        cdef Fork* fork
        cdef int kind
        if self.path != NULL and value is not <object>self.path_value:
            raise ExpressionError(
                f"Invalid path expression near attempt to iterate through {dump_short(value)}"
            )
        if type(value) is list:
            if PyList_GET_SIZE(value) == 0:
                return 0
            kind = F_ITERATE_ARRAY
        elif type(value) is dict:
            if not <dict>value:
                return 0
            kind = F_ITERATE_OBJECT
        elif optional:
            return 0
        else:
            raise ExpressionError(f"Cannot iterate over {kind_name(value)} ({dump_short(value)})")
        fork = self.push_fork(kind, self.pc, value)
        fork.index = 0
        self.next_element(fork)
        return 1

    cdef int next_element(self, Fork* fork) except -1:
        """Makes the next element current; the fork goes with the last one."""
        cdef PyObject* key = NULL
        cdef PyObject* value = NULL
        cdef Py_ssize_t index = fork.index
        cdef object element
        cdef object step = None
        cdef bint last = False
        if fork.kind == F_ITERATE_ARRAY:
            element = <object>PyList_GET_ITEM(<object>fork.value, index)
            if fork.path != NULL:
                step = index
            fork.index = index + 1
            last = fork.index >= PyList_GET_SIZE(<object>fork.value)
        else:
            PyDict_Next(<object>fork.value, &index, &key, &value)
            element = <object>value
            step = <object>key
            fork.index = index
            last = PyDict_Next(<object>fork.value, &index, &key, &value) == 0
        if fork.path != NULL:
            self.append_path(fork.path, step, element)
        self.current = element
        if last:
            self.drop_fork()
        return 0

    cdef int append_path(self, PyObject* parent, object step, object value) except -1:
        cdef tuple chain = (<object>parent, step)
        self.set_path(<PyObject*>chain, <PyObject*>value)
        return 0

    cdef int start_range(self, int slot, bint has_step) except -1:
        """0: nothing to yield, 1: the first number is current."""
        cdef object low = self.load(0, slot)
        cdef object high = self.load(0, slot + 1)
        cdef object step = self.load(0, slot + 2) if has_step else 1
        cdef Fork* fork
        if not is_number(low) or not is_number(high) or not is_number(step):
            fail("Range bounds must be numeric")
        cdef double number = to_double(low)
        cdef double limit = to_double(high)
        cdef double by = to_double(step)
        if range_ended(number, limit, by, has_step):
            return 0
        fork = self.push_fork(F_RANGE, self.pc, None)
        fork.number = number
        fork.limit = limit
        fork.step = by
        fork.index = has_step
        self.next_number(fork)
        return 1

    cdef int next_number(self, Fork* fork) except -1:
        cdef double number = fork.number
        self.current = from_double(number)
        number += fork.step
        fork.number = number
        if range_ended(number, fork.limit, fork.step, fork.index == 1):
            self.drop_fork()
        return 0

    cdef int recurse(self, object value) except -1:
        """Starts `..`: the value, then all below it, depth first."""
        cdef Fork* fork
        cdef list pending = []
        if self.path != NULL and value is not <object>self.path_value:
            # The value itself passes; what is below it is refused when asked for.
            self.push_fork(F_RECURSE, self.pc, value).index = 1
            return 0
        pending.append(value if self.path == NULL else (<object>self.path, value))
        fork = self.push_fork(F_RECURSE, self.pc, pending)
        fork.index = 0
        self.next_descendant(fork)
        return 0

    cdef int next_descendant(self, Fork* fork) except -1:
        cdef list pending
        cdef object value
        cdef object path = None
        if fork.index:
            raise ExpressionError(
                f"Invalid path expression near attempt to iterate through {dump_short(<object>fork.value)}"
            )
        pending = <list>fork.value
        value = pending.pop()
        if fork.path != NULL:
            path, value = <tuple>value
            self.set_path(<PyObject*>path, <PyObject*>value)
            if type(value) is list:
                charge(5 * len(<list>value))
                for index in range(len(<list>value) - 1, -1, -1):
                    pending.append(((path, index), (<list>value)[index]))
            elif type(value) is dict:
                charge(5 * len(<dict>value))
                for key in reversed(<dict>value):
                    pending.append(((path, key), (<dict>value)[key]))
        elif type(value) is list:
            charge_elements(len(<list>value))
            pending.extend(reversed(<list>value))
        elif type(value) is dict:
            charge_elements(len(<dict>value))
            pending.extend(reversed((<dict>value).values()))
        self.current = value
        charge(1)
        if not pending:
            self.drop_fork()
        return 0

    # --- paths ---

    cdef int check_path(self, object value, object key) except -1:
        """Refuses a step from a value that is not the one the tracked path leads to."""
        if value is not <object>self.path_value:
            raise ExpressionError(
                f"Invalid path expression near attempt to access element {dump_short(key)} of {dump_short(value)}"
            )
        return 0

    cdef int start_path(self, int slot) except -1:
        self.save_path(slot)
        self.set_path(<PyObject*>EMPTY_PATH, <PyObject*>self.current)
        return 0

    cdef int save_path(self, int slot) except -1:
        """Keeps path and value in two cells; an empty cell stands for NULL."""
        cdef PyObject** cells = self.cell(0, slot)
        cdef PyObject* old = cells[0]
        cdef PyObject* old_value = cells[1]
        Py_XINCREF(self.path)
        Py_XINCREF(self.path_value)
        cells[0] = self.path
        cells[1] = self.path_value
        Py_XDECREF(old)
        Py_XDECREF(old_value)
        return 0

    cdef int restore_path(self, int slot) except -1:
        cdef PyObject** cells = self.cell(0, slot)
        self.set_path(cells[0], cells[1])
        return 0

    cdef int end_path(self, int slot) except -1:
        if self.current is not <object>self.path_value:
            raise ExpressionError(f"Invalid path expression with result {dump_short(self.current)}")
        self.current = path_list(<object>self.path)
        self.restore_path(slot)
        return 0

    cdef int get_path(self, object steps) except -1:
        """`getpath` where paths may be tracked: its steps become part of the path."""
        cdef object found
        cdef object chain
        if self.path == NULL:
            self.current = path_get(self.current, steps)
            return 0
        found = path_get(self.current, steps)
        if self.current is <object>self.path_value:
            chain = <object>self.path
            for step in steps:
                chain = (chain, step)
            self.set_path(<PyObject*>chain, <PyObject*>found)
        self.current = found
        return 0

    # --- calls ---

    cdef int call(self, Op* op) except -1:
        """Enters a function: its frame's closures are those of the arguments that follow the instruction."""
        cdef Unit unit = <Unit>op.p
        cdef int env = -1
        cdef int level = op.a
        cdef int i
        cdef Op* argument
        cdef Py_ssize_t base = self.closure_top
        cdef Closure* known
        if level >= 0:
            env = self.frame
            while level > 0:
                env = self.frames[env].env
                level -= 1
        for i in range(op.b):
            argument = op + 1 + i
            if argument.p != NULL:
                self.push_closure(argument.p, self.frame)
            else:
                known = self.closure(argument.a, argument.b)
                self.push_closure(known.unit, known.env)
        self.enter(unit, env, self.pc + 1 + op.b, op.c and self.may_replace(env, base))
        return 0

    cdef Closure* closure(self, int level, int index) noexcept:
        cdef int frame = self.frame
        while level > 0:
            frame = self.frames[frame].env
            level -= 1
        return &self.closures[self.frames[frame].closures + index]

    cdef int call_closure(self, Op* op) except -1:
        cdef Closure closure = self.closure(op.a, op.b)[0]
        cdef Unit unit = <Unit>closure.unit
        cdef object value
        if unit.direct is not None and self.path == NULL:
            self.push_frame(unit, closure.env, 0)
            value = evaluate(self, unit.direct, self.current)
            self.frame_top -= 1
            self.frame = self.frames[self.frame_top].return_frame
            self.current = value
            self.pc += 1
            return 0
        self.enter(unit, closure.env, self.pc + 1, op.c and self.may_replace(closure.env, self.closure_top))
        return 0

    cdef bint may_replace(self, int env, Py_ssize_t base):
        """Whether a tail call may take the current frame's place: nothing else needs that frame."""
        cdef Py_ssize_t i
        if env == self.frame or self.frame + 1 != self.frame_top:
            return False
        if self.fork_top > 0 and self.forks[self.fork_top - 1].frame_top > self.frame:
            return False
        for i in range(base, self.closure_top):
            if self.closures[i].env == self.frame:
                return False
        return True

    cdef int enter(self, Unit unit, int env, int return_pc, bint replace) except -1:
        cdef Frame frame
        cdef Py_ssize_t i
        if replace:
            frame = self.frames[self.frame]
            self.release_cells(frame.cells)
            for i in range(unit.parameter_count):
                self.closures[frame.closures + i] = self.closures[self.closure_top - unit.parameter_count + i]
            self.closure_top = frame.closures + unit.parameter_count
            self.frame_top -= 1
            self.frame = frame.return_frame
            return_pc = frame.return_pc
        self.push_frame(unit, env, return_pc)
        self.unit = unit
        self.pc = 0
        return 0

    cdef int leave(self) except -1:
        """Returns from a function; its frame goes unless a fork may come back into it."""
        cdef Frame* frame = &self.frames[self.frame]
        cdef int index = self.frame
        self.pc = frame.return_pc
        self.frame = frame.return_frame
        if index + 1 == self.frame_top and (
            self.fork_top == 0 or self.forks[self.fork_top - 1].frame_top <= index
        ):
            self.release_cells(frame.cells)
            self.closure_top = frame.closures
            self.frame_top = index
        self.unit = <Unit>self.frames[self.frame].unit
        return 0

    # --- labels ---

    cdef int set_label(self, int slot) except -1:
        cdef Fork* fork
        self.next_label += 1
        self.store(slot, self.next_label)
        fork = self.push_fork(F_LABEL, 0, None)
        fork.index = self.next_label
        return 0

    cdef bint take_break(self, Py_ssize_t label) except -1:
        """Leaves a label, unless a `try` in between takes it for an error, as jq's does."""
        cdef Py_ssize_t i = self.fork_top - 1
        cdef int ended = 0
        while i >= 0 and not (self.forks[i].kind == F_LABEL and self.forks[i].index == label):
            if self.forks[i].kind == F_TRY_END:
                ended += 1
            elif self.forks[i].kind == F_PATTERN or self.forks[i].kind == F_TRY and ended == 0:
                return self.catch({"__jq": label - 1})
            elif self.forks[i].kind == F_TRY:
                ended -= 1
            i -= 1
        self.unwind(label)
        return False

    cdef int unwind(self, Py_ssize_t label) except -1:
        """Forgets all forks down to a label's, that one included."""
        while self.fork_top > 0:
            self.drop_fork()
            if self.forks[self.fork_top].kind == F_LABEL and self.forks[self.fork_top].index == label:
                return 0
        raise SystemError("label without a fork")


cdef tuple EMPTY_PATH = ()


cdef list path_list(object chain):
    cdef list result = []
    charge(2)
    while chain is not EMPTY_PATH:
        charge(1)
        result.append((<tuple>chain)[1])
        chain = (<tuple>chain)[0]
    result.reverse()
    return result
