"""Stage 4, walk: `probe`: a kind that no document has: all that a kind may ask for outside, at once, then a body.

    probe: {effects: 2, detached: 1, with: {...}, subscribe: {...}, events: 3, wait: PT1S, patience: PT9S, do: [...]}

It waits for its effects, its events and its time; then its body runs. Without a number of events the subscription lasts
as long as the task, and an event ends the task wherever its body is.
"""


@cython.final
@cython.internal
cdef class ProbeNode(TaskNode):
    cdef int effects
    cdef int detached
    cdef int events
    cdef Template arguments
    cdef Template filter
    cdef Duration wait
    cdef Duration patience
    cdef TaskList body


@cython.final
@cython.internal
cdef class ProbeFrame(TaskFrame):
    cdef list results
    cdef list heard
    cdef int effects_left
    cdef int events_left
    cdef bint is_waiting
    cdef bint has_begun
    """The body runs."""
    cdef long long patient_until_ms


cdef Shape PROBE = _task({"probe": Field(Shape("a probe", IS_OBJECT, fields={
    "effects": INTEGER, "detached": INTEGER, "events": INTEGER,
    "with": Field(ANYTHING, AT_SET), "subscribe": Field(ANYTHING, AT_SET),
    "wait": Field(DURATION, AT_WAIT), "patience": Field(DURATION, AT_WAIT), "do": Field(TASKS, AT_DO),
}))}, ("probe",))


cdef TaskNode build_probe(PlanBuilder builder, dict definition, Siblings siblings):
    cdef ProbeNode task = ProbeNode.__new__(ProbeNode)
    cdef dict probe = definition["probe"]
    cdef Bindings bindings = siblings.bindings
    task.effects, task.detached = probe.get("effects", 0), probe.get("detached", 0)
    task.events = probe.get("events", 0)
    task.arguments = builder.template(AT_SET, probe.get("with"), bindings)
    if "subscribe" in probe:
        task.filter = builder.template(AT_SET, probe["subscribe"], bindings)
    task.wait = builder.duration(AT_WAIT, probe.get("wait"), bindings)
    task.patience = builder.duration(AT_WAIT, probe.get("patience"), bindings)
    task.body = builder.tasks(AT_DO, probe.get("do", []), siblings.reference + "/probe/do", bindings)
    return task


cdef TaskFrame probe_frame():
    return ProbeFrame.__new__(ProbeFrame)


cdef int begin_probe(Walk walk, Place at, object data) except -1:
    cdef ProbeNode task = <ProbeNode> at.task
    cdef long long wait_ms = 0 if task.wait is None else duration_of(at, task.wait, data)
    cdef long long until_ms = deadline_of(at, task.patience, data)
    cdef object filter = None if task.filter is None else fill(at, task.filter, data, 0)
    cdef ProbeFrame frame = <ProbeFrame> push(walk, at, data)
    frame.results, frame.heard = [], []
    frame.effects_left, frame.events_left = task.effects, task.events
    frame.patient_until_ms = until_ms
    for _ in range(task.effects):
        ask_effect(walk, at, frame)
    for _ in range(task.detached):
        ask_effect(walk, at, None)
    if task.filter is not None:
        ask_events(walk, at, frame, filter)
    if wait_ms:
        frame.is_waiting = True
        at.strand.wake_at_ms = walk.now_ms + wait_ms
    block(walk, at.strand)
    return go_on(walk, at.strand, frame)


cdef int go_on(Walk walk, Strand strand, ProbeFrame frame) except -1:
    """The body begins once there is nothing to wait for."""
    if not (frame.has_begun or frame.effects_left or frame.events_left or frame.is_waiting):
        frame.has_begun = True
        begin_list(frame, (<ProbeNode> frame.task).body, frame.input)
        make_ready(walk, strand)
    return 0


cdef object probe_output(ProbeFrame frame):
    return {"results": frame.results, "heard": frame.heard, "until": frame.patient_until_ms, "body": frame.data}


cdef int answer_probe(Walk walk, Resource resource, object value, dict error) except -1:
    cdef ProbeFrame frame = <ProbeFrame> resource.frame
    if error is not None:
        return fail_frame(walk, resource.strand, frame, error)
    if isinstance(resource.action, PerformEffect):
        frame.results = [*frame.results, value]
        frame.effects_left -= 1
        return go_on(walk, resource.strand, frame)
    frame.heard = [*frame.heard, value]
    if (<ProbeNode> frame.task).events == 0:
        finish(walk, resource.strand, frame, probe_output(frame), frame.task.then)
        return make_ready(walk, resource.strand)
    frame.events_left -= 1
    if frame.events_left == 0:
        give_back(walk, resource)
    return go_on(walk, resource.strand, frame)


cdef int wake_probe(Walk walk, Strand strand, TaskFrame frame) except -1:
    (<ProbeFrame> frame).is_waiting = False
    return go_on(walk, strand, <ProbeFrame> frame)


cdef int leave_probe(Walk walk, Strand strand, TaskFrame frame) except -1:
    return finish(walk, strand, frame, probe_output(<ProbeFrame> frame), frame.task.then)


cdef int shift_probe(TaskFrame frame, long long paused_ms) except -1:
    (<ProbeFrame> frame).patient_until_ms += paused_ms
    return 0


cdef dict render_probe(Place at):
    return {"with": fill(at, (<ProbeNode> at.task).arguments, at.input, 0)}


# --- snapshots ---

cdef int write_probe(SnapshotWriter writer, TaskFrame frame, list fields) except -1:
    cdef ProbeFrame probe = <ProbeFrame> frame
    fields += [writer.value(probe.results), writer.value(probe.heard), probe.effects_left, probe.events_left,
               probe.is_waiting, probe.has_begun, probe.patient_until_ms]
    return 0


cdef int read_probe(SnapshotReader reader, TaskFrame frame, list fields) except -1:
    cdef ProbeFrame probe = <ProbeFrame> frame
    (results, heard, probe.effects_left, probe.events_left, probe.is_waiting, probe.has_begun,
     probe.patient_until_ms) = fields
    probe.results, probe.heard = <list?> reader.value(results), <list?> reader.value(heard)
    if probe.has_begun:
        frame.body = (<ProbeNode> frame.task).body
    return 0
