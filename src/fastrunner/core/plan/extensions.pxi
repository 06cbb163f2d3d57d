"""Stage 2, compile: extensions in the plan: a node around each task that they extend, with copies of their tasks.

Theory of operation: the node stands in the list in the place of the task, and the task in a list of its own within the
node. Where the task leads on is coded as a position that no list has (POSITION_EXTENDED), whichever of its kind's ways
it goes, so its extensions come first. Lists without extended tasks have none of this.

Rules: a copy's reference is that of the extended task and the pointer of the extension's task in the document after it,
so that it is no other task's. Extensions see `$task`, the extended one, as a scoped variable, and nothing else of what
surrounds that. No extension extends their tasks.
"""

cimport cython

# What tasks of an extension see of what surrounds them, and its `when`.
cdef Bindings EXTENSION_BINDINGS = bind(NO_BINDINGS, BINDS_TASK, {})


@cython.final
@cython.internal
cdef class ExtensionSource:
    """One extension of the document."""

    cdef str pointer
    cdef Expression when
    cdef object before, after
    """Items, or None."""


@cython.final
@cython.internal
cdef class Extension:
    """One extension at one task."""

    cdef Expression when
    """None: always."""
    cdef TaskList before, after
    """None without such tasks."""


@cython.final
@cython.internal
cdef class ExtendedNode(TaskNode):
    """In the place of a task that extensions surround: it has what is looked at before a task begins."""

    cdef tuple extensions
    """Outermost first."""
    cdef TaskNode inner
    """The task."""
    cdef TaskList body
    """It alone."""


cdef dict sources_of_extensions(PlanBuilder builder):
    """What surrounds each kind of task, by the words for kinds."""
    cdef dict sources = {}
    cdef ExtensionSource source
    cdef dict definition
    for number, item in enumerate(builder.use["extensions"]):
        ((name, definition),) = item.items()
        source = ExtensionSource.__new__(ExtensionSource)
        source.pointer = f"/use/extensions/{number}/{escape_pointer(name)}"
        source.when = builder.condition(AT_EXTENSION_WHEN, definition.get("when"), EXTENSION_BINDINGS)
        source.before, source.after = definition.get("before"), definition.get("after")
        for word in EXTENDED_WORDS:
            if extends(definition, word):
                sources.setdefault(word, []).append(source)
    return sources


cdef TaskNode surround(PlanBuilder builder, Cursor cursor, Siblings siblings, TaskNode inner, list sources):
    """The node around a task that has been built."""
    cdef ExtendedNode task = ExtendedNode.__new__(ExtendedNode)
    siblings.is_extended = False
    task.kind, task.index, task.name = inner.kind.extended, <int> len(builder.plan.tasks), inner.name
    task.reference, task.definition, task.scopes = inner.reference, inner.definition, inner.scopes
    task.is_plain = True
    task.condition = inner.condition
    task.event_started, task.event_failed = inner.event_started, inner.event_failed
    task.following = POSITION_DONE if cursor.is_branch else siblings.target(None)
    task.then = task.following
    task.inner = inner
    task.body = TaskList.__new__(TaskList)
    task.body.tasks, task.body.count = (inner,), 1
    task.body.outlets = len(siblings.names) - POSITION_END
    task.extensions = tuple([extension_at(builder, source, inner.reference) for source in sources])
    builder.plan.tasks.append(task)
    return task


cdef Extension extension_at(PlanBuilder builder, ExtensionSource source, str reference):
    cdef Extension extension = Extension.__new__(Extension)
    extension.when = source.when
    extension.before = extension_tasks(builder, source.before, f"{reference}{source.pointer}/before")
    extension.after = extension_tasks(builder, source.after, f"{reference}{source.pointer}/after")
    return extension


cdef TaskList extension_tasks(PlanBuilder builder, object items, str pointer):
    cdef TaskList body
    if not items:
        return None
    body = builder.tasks(AT_EXTENSION_TASKS, items, pointer, EXTENSION_BINDINGS)
    (<Cursor> builder.opened[len(builder.opened) - 1]).is_extended = False
    return body
