"""Stages 4 and 5: `emit`: an effect that publishes an event, and ends with the event as it was published."""

cimport cython


@cython.final
@cython.internal
cdef class EmitNode(TaskNode):
    cdef Template properties
    cdef str source
    """Who sends the event, unless the document says so."""


cdef TaskNode build_emit(PlanBuilder builder, dict definition, Siblings siblings):
    cdef EmitNode task = EmitNode.__new__(EmitNode)
    cdef Plan plan = builder.plan
    task.properties = builder.template(AT_EMIT, definition["emit"]["event"]["with"], siblings.bindings)
    task.source = f"/{plan.namespace}/{plan.name}/{plan.version}"
    return task


cdef dict render_emit(Place at):
    """event: what the document gives of it, specversion and source. Raises WalkFault."""
    cdef EmitNode task = <EmitNode> at.task
    return {"event": emitted_event(at, fill(at, task.properties, at.input, 0), task.source)}
