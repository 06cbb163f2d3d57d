"""Stage 4, walk: `wait`: nothing but time."""

cimport cython


@cython.final
@cython.internal
cdef class WaitNode(TaskNode):
    cdef Duration duration


cdef TaskNode build_wait(PlanBuilder builder, dict definition, Siblings siblings):
    cdef WaitNode task = WaitNode.__new__(WaitNode)
    task.duration = builder.duration(AT_WAIT, definition["wait"], siblings.bindings)
    return task


cdef int begin_wait(Walk walk, Place at, object data) except -1:
    cdef long long wait_ms = duration_of(at, (<WaitNode> at.task).duration, data)
    if wait_ms == 0:
        return complete(walk, at, data, at.task.then)
    push(walk, at, data)
    at.strand.wake_at_ms = walk.now_ms + wait_ms
    return block(walk, at.strand)


cdef int wake_wait(Walk walk, Strand strand, TaskFrame frame) except -1:
    finish(walk, strand, frame, frame.input, frame.task.then)
    return make_ready(walk, strand)
