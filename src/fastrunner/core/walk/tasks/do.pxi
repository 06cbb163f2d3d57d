"""Stage 4, walk: `do` and `for`: lists of tasks within a task, once or for each item of a collection."""

cimport cython


@cython.final
@cython.internal
cdef class DoNode(TaskNode):
    cdef TaskList body


cdef TaskNode build_do(PlanBuilder builder, dict definition, Siblings siblings):
    cdef DoNode task = DoNode.__new__(DoNode)
    task.body = builder.tasks(AT_DO, definition["do"], siblings.reference + "/do", siblings.bindings)
    return task


cdef int begin_do(Walk walk, Place at, object data) except -1:
    return begin_list(push(walk, at, data), (<DoNode> at.task).body, data)


cdef int leave_do(Walk walk, Strand strand, TaskFrame frame) except -1:
    return finish(walk, strand, frame, frame.data, frame.task.then)


cdef int read_do(SnapshotReader reader, TaskFrame frame, list fields) except -1:
    frame.body = (<DoNode> frame.task).body
    return nothing_to_read(reader, frame, fields)


# --- for ---

@cython.final
@cython.internal
cdef class ForNode(TaskNode):
    cdef Template collection
    cdef Expression condition_to_go_on
    """`while`."""
    cdef TaskList body


@cython.final
@cython.internal
cdef class ForFrame(TaskFrame):
    cdef list items
    cdef Py_ssize_t iteration
    """The iteration that runs; -1 before the first."""


cdef TaskNode build_for(PlanBuilder builder, dict definition, Siblings siblings):
    cdef ForNode task = ForNode.__new__(ForNode)
    cdef Bindings bindings = bind(siblings.bindings, BINDS_LOOP, definition)
    task.collection = builder.slot(AT_FOR_IN, definition["for"]["in"], bindings)
    task.condition_to_go_on = builder.condition(AT_FOR_WHILE, definition.get("while"), bindings)
    task.body = builder.tasks(AT_FOR_DO, definition["do"], siblings.reference + "/do", bindings)
    return task


cdef TaskFrame for_frame():
    return ForFrame.__new__(ForFrame)


cdef int begin_for(Walk walk, Place at, object data) except -1:
    """A loop before its first iteration; the collection is evaluated once, here."""
    cdef object items = fill(at, (<ForNode> at.task).collection, data, 0)
    cdef long long items_max = walk.facts.behaviour.iterations_max
    cdef ForFrame frame
    if items is None:
        items = []
    elif not isinstance(items, list):
        raise fault_here(at, "expression", "the collection of `for.in` is neither an array nor null")
    elif len(items) > items_max:
        raise fault_here(
            at, "runtime", f"the collection of `for.in` has {len(items)} items: at most {items_max} are allowed"
        )
    frame = <ForFrame> push(walk, at, data)
    frame.body = (<ForNode> at.task).body
    frame.items = items
    frame.iteration = -1
    frame.position = POSITION_DONE
    return 0


cdef int leave_for(Walk walk, Strand strand, TaskFrame frame) except -1:
    """An iteration has ended: the next one, unless it has left the loop."""
    cdef ForFrame loop = <ForFrame> frame
    cdef ForNode task = <ForNode> frame.task
    cdef Place at
    if frame.position != POSITION_DONE:
        return finish(walk, strand, frame, frame.data, task.then)
    loop.iteration += 1
    if loop.iteration >= len(loop.items):
        return finish(walk, strand, frame, frame.data, task.then)
    frame.scope = make_scope(frame.parent.scope, loop.items[loop.iteration], loop.iteration)
    if task.condition_to_go_on is not None:
        at = return_to(walk, strand, frame)
        at.own_scope = frame.scope
        try:
            if not holds(at, task.condition_to_go_on, frame.data):
                return finish(walk, strand, frame, frame.data, task.then)
        except WalkFault as fault:
            return fail_frame(walk, strand, frame, fault.error)
    return begin_list(frame, frame.body, frame.data)


cdef int write_for(SnapshotWriter writer, TaskFrame frame, list fields) except -1:
    cdef ForFrame loop = <ForFrame> frame
    fields += [writer.value(loop.items), loop.iteration]
    return 0


cdef int read_for(SnapshotReader reader, TaskFrame frame, list fields) except -1:
    cdef ForFrame loop = <ForFrame> frame
    items, loop.iteration = fields
    loop.items = <list?> reader.value(items)
    frame.body = (<ForNode> frame.task).body
    if not -1 <= loop.iteration < len(loop.items) or (loop.iteration < 0 and frame.position != POSITION_DONE):
        raise ValueError("no iteration of the loop")
    if loop.iteration >= 0:
        frame.scope = make_scope(frame.parent.scope, loop.items[loop.iteration], loop.iteration)
    return 0
