"""Stage 4, walk: kinds that begin and end in one step: `set`, `switch`, `raise`."""

cimport cython


@cython.final
@cython.internal
cdef class SetNode(TaskNode):
    cdef Template value


cdef TaskNode build_set(PlanBuilder builder, dict definition, Siblings siblings):
    cdef SetNode task = SetNode.__new__(SetNode)
    task.value = builder.slot(AT_SET, definition["set"], siblings.bindings)
    return task


cdef int begin_set(Walk walk, Place at, object data) except -1:
    return complete(walk, at, fill(at, (<SetNode> at.task).value, data, 0), at.task.then)


# --- switch ---

@cython.final
@cython.internal
cdef class SwitchNode(TaskNode):
    cdef tuple conditions
    """Expressions in declaration order, without the default case."""
    cdef tuple targets
    """The position each condition leads to."""
    cdef int default
    """Where to go without a match."""


cdef TaskNode build_switch(PlanBuilder builder, dict definition, Siblings siblings):
    cdef SwitchNode task = SwitchNode.__new__(SwitchNode)
    cdef list conditions = [], targets = []
    task.default = siblings.target(definition.get("then"))
    for item in definition["switch"]:
        (case,) = item.values()
        if case.get("when") is None:
            task.default = siblings.target(case["then"])
        else:
            conditions.append(builder.expression(AT_SWITCH_WHEN, case["when"], siblings.bindings))
            targets.append(siblings.target(case["then"]))
    task.conditions = tuple(conditions)
    task.targets = tuple(targets)
    return task


cdef int begin_switch(Walk walk, Place at, object data) except -1:
    """The first case that holds leads on, else the default. All cases share one budget."""
    cdef SwitchNode task = <SwitchNode> at.task
    cdef Py_ssize_t index
    at.machine.allow()
    for index in range(len(task.conditions)):
        if holds_on(at, <Expression> task.conditions[index], data):
            return complete(walk, at, data, task.targets[index])
    return complete(walk, at, data, task.default)


# --- raise ---

@cython.final
@cython.internal
cdef class RaiseNode(TaskNode):
    cdef Template error


cdef TaskNode build_raise(PlanBuilder builder, dict definition, Siblings siblings):
    cdef RaiseNode task = RaiseNode.__new__(RaiseNode)
    error = definition["raise"]["error"]
    if isinstance(error, str):
        error = builder.use["errors"][error]
    task.error = builder.template(AT_RAISE_ERROR, error, siblings.bindings)
    return task


cdef int begin_raise(Walk walk, Place at, object data) except -1:
    cdef dict error = dict(fill(at, (<RaiseNode> at.task).error, data, 0))
    for key in ("type", "title", "detail", "instance"):
        if error.get(key) is None:
            error.pop(key, None)
        elif not isinstance(error[key], str):
            raise fault_here(at, "expression", f"the raised error's {key} is not a string")
    if "type" not in error:
        raise fault_here(at, "expression", "the raised error's type is not a string")
    error.setdefault("instance", at.task.reference)
    # JSON Schema takes 404.0 for an integer.
    error["status"] = int(error["status"])
    raise WalkFault(error)


cdef int never_leaves(Walk walk, Strand strand, TaskFrame frame) except -1:
    """For kinds that run no tasks within."""
    raise AssertionError("a task of this kind has no tasks in it")


cdef int nothing_to_write(SnapshotWriter writer, TaskFrame frame, list fields) except -1:
    """For kinds that remember nothing but what all do."""
    return 0


cdef int nothing_to_read(SnapshotReader reader, TaskFrame frame, list fields) except -1:
    """For kinds that remember nothing but what all do."""
    if fields:
        raise ValueError("a task of this kind has no fields of its own")
    return 0
