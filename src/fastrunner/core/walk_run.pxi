"""Stage 4, walk: a step. A task begins, or a list of tasks has ended.

Rules: a task that needs nothing but the processor begins and ends in one step, without a frame. Everything that can
fail is evaluated before a frame is pushed, so that a fault in `begin` finds the stack as it was.
"""

from fastrunner.limits import STRAND_STEPS_MAX as _STRAND_STEPS_MAX

cdef long long EXPRESSION_STEPS_PER_STEP = _limits.WALK_EXPRESSION_STEPS_PER_STEP
cdef int STRAND_STEPS_MAX = _STRAND_STEPS_MAX
cdef TaskList NO_TASKS = TaskList.__new__(TaskList)
NO_TASKS.tasks = ()


cdef int run(Walk walk) except -1:
    """Takes steps until nothing can go on or the slice is over. Strands take turns, whatever the slices are."""
    cdef int budget = _limits.WALK_STEPS_PER_SLICE_MAX
    cdef long long events_max = _limits.EVENTS_PER_EXECUTION_MAX
    cdef Strand strand
    cdef TaskFrame frame
    walk.machine.take_spent()
    while budget > 0 and walk.state == STATUS_RUNNING and walk.grace_until_ms == 0 and len(walk.ready) > 0:
        strand = <Strand> walk.ready[0]
        frame = strand.top
        if walk.last_sequence >= events_max:
            return end_runaway(walk, frame, events_max)
        if frame.position >= 0:
            begin(walk, strand, frame)
        else:
            leave(walk, strand, frame)
        # Long evaluations end a slice early, so that others get their turn between them.
        budget -= 1 + <int> min(walk.machine.take_spent() // EXPRESSION_STEPS_PER_STEP, budget)
        strand.steps_left -= 1
        if strand.steps_left <= 0 and strand.is_ready:
            strand.steps_left = STRAND_STEPS_MAX
            walk.ready.remove(strand)
            walk.ready.append(strand)
    return 0


cdef int end_runaway(Walk walk, TaskFrame frame, long long events_max) except -1:
    """A bound of the whole execution is reached. Nothing catches that: a `try` in an endless loop would go on."""
    cdef str detail = f"the execution has {events_max} events, two for each task: no more are allowed"
    return fail_workflow(walk, make_error("runtime", detail, "/do" if frame.task is None else frame.task.reference))


cdef int begin(Walk walk, Strand strand, TaskFrame frame) except -1:
    """The task at the frame's position begins; many end here as well."""
    cdef TaskNode task = <TaskNode> frame.body.tasks[frame.position]
    cdef int attempt = 1 if task.kind == KIND_TRY else frame.body_attempt
    cdef object data = frame.data
    cdef bint has_started = False
    cdef long long timeout_at_ms = 0
    at_place(walk, task, strand, frame.scope, data, None, walk.now_ms)
    try:
        if task.condition is not None and not is_true(evaluate_here(walk, task.condition, data, 0)):
            frame.position = task.following
            return 0
        emit(walk, task.event_started, attempt)
        has_started = True
        if not task.is_plain:
            match_schema(walk, task.input_schema, data, "input")
            if task.input_from is not None:
                data = render(walk, task.input_from, data, 0)
            walk.at_input = data
            timeout_at_ms = timeout_at(walk, task.timeout, data)
        walk.at_input = data
        perform(walk, strand, frame, task, data, attempt, timeout_at_ms)
    except WalkFault as fault:
        if not has_started:
            emit(walk, task.event_started, attempt)
        fail_task(walk, strand, frame, task, attempt, fault.error, walk.now_ms)
    return 0


cdef int perform(Walk walk, Strand strand, TaskFrame frame, TaskNode task, object data, int attempt,
                 long long timeout_at_ms) except -1:
    """The task's own work, or its beginning."""
    cdef TaskFrame pushed
    if task.kind == KIND_SET:
        return complete(walk, strand, frame, task, render(walk, (<SetNode> task).value, data, 0), attempt, task.then)
    if task.kind == KIND_SWITCH:
        return complete(walk, strand, frame, task, data, attempt, choose(walk, <SwitchNode> task, data))
    if task.kind == KIND_RAISE:
        raise WalkFault(render_error(walk, <RaiseNode> task, data))
    if task.kind == KIND_DO:
        pushed = fill_frame(walk, TaskFrame.__new__(TaskFrame), frame, task, data, attempt, timeout_at_ms)
        pushed.body = (<DoNode> task).body
        pushed.position = 0 if pushed.body.count else POSITION_DONE
    elif task.kind == KIND_FOR:
        pushed = for_frame(walk, frame, <ForNode> task, data, attempt, timeout_at_ms)
    elif task.kind == KIND_TRY:
        pushed = try_frame(walk, frame, <TryNode> task, data, timeout_at_ms)
    elif task.kind == KIND_FORK:
        if not (<ForkNode> task).branches:
            return complete(walk, strand, frame, task, None if (<ForkNode> task).compete else [], attempt, task.then)
        pushed = fork(walk, strand, frame, <ForkNode> task, data, attempt, timeout_at_ms)
    elif task.kind == KIND_WAIT:
        return begin_wait(walk, strand, frame, <WaitNode> task, data, attempt, timeout_at_ms)
    else:
        pushed = begin_call_http(walk, strand, frame, <CallHttpNode> task, data, attempt, timeout_at_ms)
    strand.top = pushed
    return 0


cdef TaskFrame fill_frame(Walk walk, TaskFrame pushed, TaskFrame parent, TaskNode task, object data, int attempt,
                          long long timeout_at_ms):
    """What frames of all kinds begin with."""
    pushed.parent = parent
    pushed.task = task
    pushed.position = POSITION_BLOCKED
    pushed.data = pushed.input = data
    pushed.raw_input = parent.data
    pushed.started_at_ms = walk.now_ms
    pushed.timeout_at_ms = timeout_at_ms
    pushed.scope = parent.scope
    pushed.attempt = attempt
    pushed.body_attempt = parent.body_attempt
    return pushed


# --- kinds ---

cdef int choose(Walk walk, SwitchNode task, object data) except? -100:
    """Where a switch leads: the first case that holds, else the default."""
    cdef Py_ssize_t index
    for index in range(len(task.conditions)):
        if is_true(evaluate_here(walk, <Expression> task.conditions[index], data, 0)):
            return task.targets[index]
    return task.default


cdef dict render_error(Walk walk, RaiseNode task, object data):
    cdef dict error = dict(render(walk, task.error, data, 0))
    for key in ("type", "title", "detail", "instance"):
        if error.get(key) is None:
            error.pop(key, None)
        elif not isinstance(error[key], str):
            raise fault_here(walk, "expression", f"the raised error's {key} is not a string")
    if "type" not in error:
        raise fault_here(walk, "expression", "the raised error's type is not a string")
    error.setdefault("instance", task.reference)
    # JSON Schema takes 404.0 for an integer.
    error["status"] = int(error["status"])
    return error


cdef ForFrame for_frame(Walk walk, TaskFrame parent, ForNode task, object data, int attempt, long long timeout_at_ms):
    """A loop before its first iteration; the collection is evaluated once, here."""
    cdef object items = render(walk, task.collection, data, 0)
    cdef ForFrame frame
    if items is None:
        items = []
    elif not isinstance(items, list):
        raise fault_here(walk, "expression", "the collection of `for.in` is neither an array nor null")
    elif len(items) > _limits.ITERATIONS_PER_LOOP_MAX:
        raise fault_here(
            walk, "runtime",
            f"the collection of `for.in` has {len(items)} items: at most {_limits.ITERATIONS_PER_LOOP_MAX} are allowed",
        )
    frame = fill_frame(walk, ForFrame.__new__(ForFrame), parent, task, data, attempt, timeout_at_ms)
    frame.body = task.body
    frame.items = items
    frame.iteration = -1
    frame.position = POSITION_DONE
    return frame


cdef int next_iteration(Walk walk, Strand strand, ForFrame frame) except -1:
    cdef ForNode task = <ForNode> frame.task
    frame.iteration += 1
    if frame.iteration >= len(frame.items):
        return finish(walk, strand, frame, frame.data, task.then)
    frame.scope = make_scope(frame.parent.scope, frame.items[frame.iteration], frame.iteration)
    if task.condition is not None:
        at_place(walk, task, strand, frame.scope, frame.raw_input, frame.input, frame.started_at_ms)
        try:
            if not is_true(evaluate_here(walk, task.condition, frame.data, 0)):
                return finish(walk, strand, frame, frame.data, task.then)
        except WalkFault as fault:
            return fail_task(walk, strand, frame.parent, task, frame.attempt, fault.error, frame.started_at_ms)
    frame.position = 0 if frame.body.count else POSITION_DONE
    return 0


cdef ForkFrame fork(Walk walk, Strand strand, TaskFrame parent, ForkNode task, object data, int attempt,
                    long long timeout_at_ms):
    """Starts the branches; each has the fork's input, variables, and context as it is now."""
    cdef ForkFrame frame = fill_frame(walk, ForkFrame.__new__(ForkFrame), parent, task, data, attempt, timeout_at_ms)
    cdef Strand branch
    cdef int count = len(task.branches)
    frame.strand = strand
    frame.outputs = [None] * count
    frame.contexts = [None] * count
    frame.branches = []
    frame.running = count
    block(walk, strand)
    for number in range(count):
        branch = new_strand(walk, <TaskList> task.branches[number], data, parent.scope, parent.body_attempt)
        branch.owner = frame
        branch.branch = number
        branch.context = strand.context
        frame.branches.append(branch)
        make_ready(walk, branch)
    return frame


cdef int branch_done(Walk walk, Strand branch, object output) except -1:
    """A branch has completed: the fork has its winner, or waits for the others."""
    cdef ForkFrame frame = branch.owner
    cdef Strand strand = frame.strand
    cdef TaskNode task = frame.task
    frame.branches[branch.branch] = None
    frame.running -= 1
    drop_strand(walk, branch)
    if (<ForkNode> task).compete:
        drop_branches(walk, frame)
        if branch.has_exported:
            strand.context, strand.has_exported = branch.context, True
        finish(walk, strand, frame, output, task.then)
        return make_ready(walk, strand)
    frame.outputs[branch.branch] = output
    if branch.has_exported:
        frame.contexts[branch.branch] = [branch.context]
    if frame.running:
        return 0
    for context in frame.contexts:
        if context is not None:
            strand.context, strand.has_exported = context[0], True
    try:
        json_safe(frame.outputs, DATA_DEPTH_MAX)
    except _Unkept as error:
        return fail_task(
            walk, strand, frame.parent, task, frame.attempt, make_error("expression", str(error), task.reference),
            frame.started_at_ms,
        )
    finish(walk, strand, frame, frame.outputs, task.then)
    return make_ready(walk, strand)


cdef int begin_wait(Walk walk, Strand strand, TaskFrame frame, WaitNode task, object data, int attempt,
                    long long timeout_at_ms) except -1:
    cdef long long wait_ms = duration_of(walk, task.duration, data)
    if wait_ms == 0:
        return complete(walk, strand, frame, task, data, attempt, task.then)
    strand.top = fill_frame(walk, TaskFrame.__new__(TaskFrame), frame, task, data, attempt, timeout_at_ms)
    strand.wake_at_ms = walk.now_ms + wait_ms
    return block(walk, strand)


cdef TaskFrame begin_call_http(Walk walk, Strand strand, TaskFrame frame, CallHttpNode task, object data, int attempt,
                               long long timeout_at_ms):
    cdef object uri
    cdef dict arguments
    if task.uri is not None:
        uri = expand_uri(walk, task.uri, data)
    else:
        uri = evaluate_here(walk, task.uri_expression, data, 0)
        if not isinstance(uri, str):
            raise fault_here(walk, "expression", "the endpoint is not a string")
    arguments = {"method": task.method, "uri": uri, "output": task.output, "redirect": task.redirect}
    allow_data()
    if task.headers is not None:
        arguments["headers"] = render(walk, task.headers, data, 1)
    if task.query is not None:
        arguments["query"] = render(walk, task.query, data, 1)
    if task.body is not None:
        arguments["body"] = render(walk, task.body, data, 1)
    block(walk, strand)
    strand.effect = PerformEffect(
        walk.next_effect_id, "call_http", arguments, effect_key(walk, task, attempt), task.reference
    )
    walk.next_effect_id += 1
    walk.effects[strand.effect.effect_id] = strand
    walk.actions.append(strand.effect)
    return fill_frame(walk, TaskFrame.__new__(TaskFrame), frame, task, data, attempt, timeout_at_ms)


cdef str effect_key(Walk walk, TaskNode task, int attempt):
    """An idempotency key no other effect of the execution has: a visit is a new iteration unless it is a retry."""
    cdef list visit = walk.visits.get(task.index)
    if visit is None:
        visit = walk.visits[task.index] = [1, attempt]
    else:
        if attempt <= visit[1]:
            visit[0] += 1
        visit[1] = attempt
    return f"{walk.execution_id}{task.reference}/{visit[0]}/{attempt}"


# --- ends ---

cdef int complete(Walk walk, Strand strand, TaskFrame frame, TaskNode task, object output, int attempt,
                  int then) except -1:
    """A task's work is done: its output and export, its last event, and what follows in its list's frame."""
    cdef object context
    if not task.is_plain:
        walk.at_raw_output = walk.at_output = output
        if task.output_as is not None:
            output = render(walk, task.output_as, output, 0)
        match_schema(walk, task.output_schema, output, "output")
        walk.at_output = output
        context = walk.at_context
        if task.export_as is not None:
            context = render(walk, task.export_as, output, 0)
        match_schema(walk, task.export_schema, context, "context")
        if task.export_as is not None:
            strand.context, strand.has_exported = context, True
    emit(walk, task.event_completed, attempt, None, None, output_text(walk, output))
    tally(task.kind, TALLY_COMPLETED, walk.now_ms - walk.at_started_at_ms)
    frame.data = output
    frame.position = then
    if then == POSITION_END:
        end_workflow(walk, strand, output)
    return 0


cdef int finish(Walk walk, Strand strand, TaskFrame frame, object output, int then) except -1:
    """A task with a frame has done its work."""
    cdef TaskNode task = frame.task
    strand.top = frame.parent
    at_place(walk, task, strand, frame.parent.scope, frame.raw_input, frame.input, frame.started_at_ms)
    try:
        complete(walk, strand, frame.parent, task, output, frame.attempt, then)
    except WalkFault as fault:
        fail_task(walk, strand, frame.parent, task, frame.attempt, fault.error, frame.started_at_ms)
    return 0


cdef int leave(Walk walk, Strand strand, TaskFrame frame) except -1:
    """A list of tasks has ended, at its end or by `exit`."""
    cdef TaskNode task = frame.task
    cdef TryFrame attempt
    if task is None:
        if strand.owner is None:
            return end_workflow(walk, strand, frame.data)
        return branch_done(walk, strand, frame.data)
    if task.kind == KIND_FOR and frame.position == POSITION_DONE:
        return next_iteration(walk, strand, <ForFrame> frame)
    if task.kind == KIND_TRY:
        attempt = <TryFrame> frame
        if attempt.phase == TRY_HANDLER and (<TryNode> task).has_catch_then:
            return finish(walk, strand, frame, frame.data, (<TryNode> task).catch_then)
    return finish(walk, strand, frame, frame.data, task.then)
