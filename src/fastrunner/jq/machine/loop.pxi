"""Stage 4, expressions: the dispatch of instructions. See run.pxi for the rules."""


cdef bint makes_numbers(Node node):
    """Whether a number from this node is a new one in jq, not the very input."""
    if node.kind == N_NATIVE:
        return (<Native>node.key).name not in ("tonumber", "abs", "length")
    return node.kind == N_CONST or node.kind == N_BINARY or node.kind == N_NEGATE


cdef class Evaluator(Runner):

    cdef list run(self, Unit unit, object input):
        """All results of the main unit, whose frame is pushed and its arguments stored."""
        self.unit = unit
        self.pc = 0
        self.current = input
        self.outputs = []
        while True:
            try:
                self.loop()
                return self.outputs
            except BudgetExceeded:
                raise
            except ExpressionError as error:
                value = error.value
            if not self.catch(value):
                raise ExpressionError(value)

    cdef int loop(self) except -1:
        """Runs until nothing is left to go back to."""
        cdef State* state = running()
        cdef Op* op
        cdef int code
        cdef bint forward
        while True:
            state.steps_left -= 1
            if state.steps_left < 0:
                raise BudgetExceeded("expression ran out of steps")
            op = &self.unit.code[self.pc]
            code = op.code
            forward = True
            if code == OP_EVALUATE:
                if self.path == NULL or op.a:
                    self.current = evaluate(self, <Node>op.p, self.current)
                else:
                    self.evaluate_off_path(<Node>op.p)
                self.pc += 1
            elif code == OP_STORE:
                self.store(op.a, self.current)
                self.pc += 1
            elif code == OP_LOAD:
                self.current = self.load(0, op.a)
                self.pc += 1
            elif code == OP_JUMP:
                self.pc = op.a
            elif code == OP_BRANCH:
                if truthy(evaluate(self, <Node>op.p, self.current)):
                    self.pc += 1
                else:
                    self.pc = op.a
            elif code == OP_FORK:
                self.push_fork(F_PLAIN, op.a, self.current)
                self.pc += 1
            elif code == OP_BACKTRACK:
                forward = False
            elif code == OP_ITERATE:
                self.pc += 1
                forward = self.iterate(self.current, op.a) == 1
            elif code == OP_APPEND:
                self.append(op.a)
                forward = False
            elif code == OP_FIELD:
                forward = self.field(op)
            elif code == OP_CALL:
                self.call(op)
            elif code == OP_CALL_CLOSURE:
                self.call_closure(op)
            elif code == OP_RETURN:
                if self.frame == 0:
                    self.output()
                    forward = False
                else:
                    self.leave()
            elif code == OP_DIRECT:
                if self.path == NULL:
                    self.current = evaluate(self, <Node>op.p, self.current)
                    self.pc = op.a
                else:
                    self.pc += 1
            elif code == OP_TAKE:
                self.take(op.a)
                self.pc += 1
            else:
                forward = self.control(op)
            if not forward and not self.back():
                return 0

    cdef bint control(self, Op* op) except -1:
        """The rarer instructions; False to go back."""
        cdef int code = op.code
        if code == OP_JUMP_FALSE:
            self.pc = self.pc + 1 if truthy(self.current) else op.a
            return True
        if code == OP_BREAK:
            return self.take_break(self.load(op.a, op.b))
        if code == OP_RANGE:
            self.pc += 1
            return self.start_range(op.a, op.b) == 1
        if code == OP_RECURSE:
            self.pc += 1
            self.recurse(self.current)
            return True
        if code == OP_FOUND:
            if not truthy(self.current):
                return False
            self.store(op.b, True)
        elif code == OP_INDEX or code == OP_SLICE:
            return self.index(op)
        elif code == OP_COLLECT:
            self.store(op.a, [])
            self.push_collect(op)
        elif code == OP_TRY:
            self.push_fork(F_TRY, op.a, self.current)
        elif code == OP_TRY_END:
            self.end_try()
        elif code == OP_LABEL:
            self.set_label(op.a)
        elif code == OP_CLEAR:
            self.clear(op.a)
        elif code == OP_LAST:
            if self.cell(0, op.a)[0] == NULL:
                return False
            self.take(op.a)
        elif code == OP_CUT:
            self.unwind(self.load(0, op.a))
        elif code == OP_ALTERNATIVE:
            self.clear(op.b)
            self.push_fork(F_ALTERNATIVE, op.a, self.current).index = op.b
        elif code == OP_PATTERN_FORK:
            self.push_fork(F_PATTERN, op.a, self.current)
        else:
            self.paths(op)
        self.pc += 1
        return True

    cdef int paths(self, Op* op) except -1:
        cdef int code = op.code
        if code == OP_PATH:
            self.start_path(op.a)
        elif code == OP_PATH_END:
            self.end_path(op.a)
        elif code == OP_SUBEXPRESSION:
            self.save_path(op.a)
            self.set_path(NULL, NULL)
        elif code == OP_SUBEXPRESSION_END:
            self.restore_path(op.a)
        elif code == OP_OFF_PATH:
            self.refuse_update()
        elif code == OP_GETPATH:
            self.get_path(self.load(0, op.a))
        elif code == OP_SETPATH:
            self.store(op.a, path_set(self.load(0, op.a), self.load(0, op.b), self.current))
        elif code == OP_VALUE_AT:
            self.current = path_get(self.load(0, op.a), self.load(0, op.b))
        elif code == OP_DELETE_LATER:
            if self.load(0, op.a) is None:
                self.store(op.a, [])
            (<list>self.load(0, op.a)).append(self.load(0, op.b))
        else:
            raise SystemError(f"unknown instruction {code}")
        return 0

    cdef int evaluate_off_path(self, Node node) except -1:
        """What came about here is no path, even where Python shares one object for equal numbers or short strings."""
        cdef object value = evaluate(self, node, self.current)
        if <PyObject*>value == self.path_value and (
            is_number(value) and makes_numbers(node) or type(value) is str and node.kind == N_CONST
        ):
            self.set_path(self.path, <PyObject*>EMPTY_PATH)
        self.current = value
        return 0

    cdef int refuse_update(self) except -1:
        """An update in the middle of a path; the text shows jq's own way of folding one."""
        if self.path != NULL:
            raise ExpressionError(
                f"Invalid path expression near attempt to access element 0 of {dump_short([self.current, []])}"
            )
        return 0

    cdef int output(self) except -1:
        if len(self.outputs) >= running().bounds.outputs:
            raise BudgetExceeded("expression yields too many results")
        self.outputs.append(self.current)
        return 0

    cdef int append(self, int slot) except -1:
        cdef list values = <list>(<object>self.cell(0, slot)[0])
        charge(2)
        if PyList_GET_SIZE(values) >= running().bounds.array_size:
            raise BudgetExceeded("expression built an array that is too long")
        values.append(self.current)
        return 0

    cdef int push_collect(self, Op* op) except -1:
        """The fork that ends a collection: it comes back with the array."""
        self.push_fork(F_PLAIN, op.b, self.load(0, op.a))
        return 0

    cdef int take(self, int slot) except -1:
        cdef PyObject** cell = self.cell(0, slot)
        cdef PyObject* value = cell[0]
        cell[0] = NULL
        if value == NULL:
            self.current = None
        else:
            self.current = <object>value
            Py_DECREF(<object>value)
        return 0

    cdef int clear(self, int slot) except -1:
        cdef PyObject** cell = self.cell(0, slot)
        cdef PyObject* value = cell[0]
        cell[0] = NULL
        Py_XDECREF(value)
        return 0

    cdef int end_try(self) except -1:
        """Leaves a `try`: without a fork inside it is over, else errors from here on must pass it by."""
        if self.forks[self.fork_top - 1].kind == F_TRY:
            self.drop_fork()
        else:
            self.push_fork(F_TRY_END, 0, None)
        return 0

    cdef bint field(self, Op* op) except -1:
        cdef object value = self.current
        cdef object found
        cdef PyObject* item
        cdef object key = <object>op.p
        if self.path != NULL:
            self.check_path(value, key)
        if type(value) is dict:
            item = PyDict_GetItemWithError(value, key)
            found = <object>item if item != NULL else None
        elif value is None:
            found = None
        elif op.a:
            return False
        else:
            index_error(value, key)
        if self.path != NULL:
            self.append_path(self.path, key, found)
        self.current = found
        self.pc += 1
        return True

    cdef bint index(self, Op* op) except -1:
        cdef object value = self.current
        cdef object key, found
        if op.code == OP_SLICE:
            key = {"start": self.load(0, op.a), "end": self.load(0, op.a + 1)}
        else:
            key = self.load(0, op.a)
        if self.path != NULL:
            self.check_path(value, key)
        try:
            found = index_value(value, key)
        except BudgetExceeded:
            raise
        except ExpressionError:
            if op.b:
                charge(ERROR_STEPS)
                return False
            raise
        if self.path != NULL:
            self.append_path(self.path, key, found)
        self.current = found
        self.pc += 1
        return True
