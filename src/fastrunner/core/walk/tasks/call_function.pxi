"""Stage 4, walk: a call of a function, of `use.functions` or from elsewhere: a task that runs a copy of its one.

Rules: `with` is evaluated where the call stands and becomes the function's raw input; without it the call's own input
does. The function sees no variables from around the call, but tells the indices of the loops that lie there.
"""

cimport cython

# One scope without names: what a function's tasks see of the outside, in expressions.
cdef Bindings FUNCTION_BINDINGS = bindings_of(((None, None),))


@cython.final
@cython.internal
cdef class CallFunctionNode(TaskNode):
    cdef Template arguments
    """None: the task's input."""
    cdef TaskList body
    """The function's task."""


cdef TaskNode build_call_function(PlanBuilder builder, dict definition, Siblings siblings):
    cdef CallFunctionNode task = CallFunctionNode.__new__(CallFunctionNode)
    cdef str name = called_name(builder.document, builder.origin, definition["call"])
    cdef Cursor cursor
    if "with" in definition:
        task.arguments = builder.template(AT_FUNCTION_WITH, definition["with"], siblings.bindings)
    item = {name: builder.document.functions[name]}
    # As of a branch, there is no task after it to go to.
    task.body = builder.branch(AT_DO, item, 0, siblings.reference + "/call", FUNCTION_BINDINGS)
    cursor = <Cursor> builder.opened[len(builder.opened) - 1]
    cursor.is_function = True
    cursor.origin = builder.document.origins.get(name)
    if cursor.origin is not None:
        # What comes from elsewhere knows nothing of its caller's document.
        cursor.is_loose = cursor.is_extended = False
    return task


cdef Scope function_scope(TaskFrame caller):
    """Ends what expressions see, and goes on with the loops' indices."""
    cdef Scope scope = make_scope(None, None, None)
    if caller.scope is not None:
        scope.iteration = caller.scope.iteration
    return scope


cdef int begin_call_function(Walk walk, Place at, object data) except -1:
    cdef CallFunctionNode task = <CallFunctionNode> at.task
    cdef object given = data if task.arguments is None else fill(at, task.arguments, data, 0)
    cdef TaskFrame frame = push(walk, at, data)
    frame.scope = function_scope(frame.parent)
    return begin_list(frame, task.body, given)


cdef int leave_call_function(Walk walk, Strand strand, TaskFrame frame) except -1:
    return finish(walk, strand, frame, frame.data, frame.task.then)


cdef int read_call_function(SnapshotReader reader, TaskFrame frame, list fields) except -1:
    frame.body = (<CallFunctionNode> frame.task).body
    frame.scope = function_scope(frame.parent)
    return nothing_to_read(reader, frame, fields)
