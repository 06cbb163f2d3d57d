"""Stages 2 to 5: the table of kinds: what each kind of task is, from building to the snapshot.

Rules: a new kind is one row here and one part in `walk/tasks/`; nothing else asks which kind a task is. A row has every
column: what a kind does not do is one of the functions that say so. A task that extensions surround has another kind
around it, made of its own one's row. Numbers stand in snapshots and tallies, so they are
never used again for something else.
"""

cdef int add_kind(int number, str name, str feature, bint has_effect, bint counts_attempts, BuildFunction build,
                  FrameFunction frame, BeginFunction begin, LeaveFunction leave, LeaveFunction wake,
                  AnswerFunction answer, CutFunction cut, ShiftFunction shift, WriteFunction write, ReadFunction read,
                  RenderFunction render, Shape shape=None) except -1:
    """One row. A kind that the DSL does not have brings its shape."""
    cdef TaskKind kind = TaskKind.__new__(TaskKind)
    if number != len(kind_rows) or number >= TASK_KINDS_MAX or feature in KINDS_BY_FEATURE:
        raise ValueError(f"the table of kinds has another row {number} or {feature!r}")
    kind.number, kind.name, kind.feature = number, name, feature
    kind.written = number
    kind.has_effect, kind.counts_attempts = has_effect, counts_attempts
    kind.build, kind.frame = build, frame
    kind.begin, kind.leave, kind.wake, kind.answer = begin, leave, wake, answer
    kind.cut, kind.shift, kind.write, kind.read, kind.render = cut, shift, write, read, render
    kind.extended = extended_kind(kind)
    kind_rows.append(kind)
    KINDS_BY_FEATURE[feature] = kind
    return execute(feature, shape)


cdef TaskKind extended_kind(TaskKind kind):
    """What stands for tasks of a kind that extensions surround: they count as that kind, and this is done with them."""
    cdef TaskKind extended = TaskKind.__new__(TaskKind)
    extended.number, extended.name, extended.feature = kind.number, kind.name, kind.feature
    extended.written, extended.counts_attempts = TASK_KINDS_MAX + kind.number, kind.counts_attempts
    extended.build, extended.frame = never_built, extended_frame
    extended.begin, extended.leave, extended.wake = begin_extended, leave_extended, never_wakes
    extended.answer, extended.cut, extended.shift = never_answered, nothing_cut, no_times
    extended.write, extended.read, extended.render = write_extended, read_extended, never_rendered
    return extended


#        number, name, feature, has_effect, counts_attempts,
#        build, frame, begin, leave, wake, answer, cut, shift, write, read, render
add_kind(0, "set", "set", False, False,
         build_set, no_frame, begin_set, never_leaves, never_wakes, never_answered,
         nothing_cut, no_times, nothing_to_write, nothing_to_read, never_rendered)
add_kind(1, "do", "do", False, False,
         build_do, plain_frame, begin_do, leave_do, never_wakes, never_answered,
         nothing_cut, no_times, nothing_to_write, read_do, never_rendered)
add_kind(2, "switch", "switch", False, False,
         build_switch, no_frame, begin_switch, never_leaves, never_wakes, never_answered,
         nothing_cut, no_times, nothing_to_write, nothing_to_read, never_rendered)
add_kind(3, "for", "for", False, False,
         build_for, for_frame, begin_for, leave_for, never_wakes, never_answered,
         nothing_cut, no_times, write_for, read_for, never_rendered)
add_kind(4, "fork", "fork", False, False,
         build_fork, fork_frame, begin_fork, never_leaves, never_wakes, never_answered,
         cut_fork, no_times, write_fork, read_fork, never_rendered)
add_kind(5, "try", "try", False, True,
         build_try, try_frame, begin_try, leave_try, wake_try, never_answered,
         nothing_cut, shift_try, write_try, read_try, never_rendered)
add_kind(6, "raise", "raise", False, False,
         build_raise, no_frame, begin_raise, never_leaves, never_wakes, never_answered,
         nothing_cut, no_times, nothing_to_write, nothing_to_read, never_rendered)
add_kind(7, "wait", "wait", False, False,
         build_wait, plain_frame, begin_wait, never_leaves, wake_wait, never_answered,
         nothing_cut, no_times, nothing_to_write, nothing_to_read, never_rendered)
add_kind(8, "call_http", "call: http", True, False,
         build_call_http, plain_frame, begin_effect, never_leaves, never_wakes, end_with_answer,
         nothing_cut, no_times, nothing_to_write, nothing_to_read, render_call_http)
add_kind(9, "call_function", "call", False, False,
         build_call_function, plain_frame, begin_call_function, leave_call_function, never_wakes, never_answered,
         nothing_cut, no_times, nothing_to_write, read_call_function, never_rendered)
add_kind(10, "run_workflow", "run: workflow", True, False,
         build_run_workflow, plain_frame, begin_effect, never_leaves, never_wakes, answer_run_workflow,
         nothing_cut, no_times, nothing_to_write, nothing_to_read, render_run_workflow)
add_kind(11, "run_shell", "run: shell", True, False,
         build_run, plain_frame, begin_effect, never_leaves, never_wakes, answer_run,
         nothing_cut, no_times, nothing_to_write, nothing_to_read, render_run)
add_kind(12, "run_script", "run: script", True, False,
         build_run, plain_frame, begin_effect, never_leaves, never_wakes, answer_run,
         nothing_cut, no_times, nothing_to_write, nothing_to_read, render_run)
add_kind(13, "emit", "emit", True, False,
         build_emit, plain_frame, begin_effect, never_leaves, never_wakes, end_with_answer,
         nothing_cut, no_times, nothing_to_write, nothing_to_read, render_emit)
add_kind(14, "listen", "listen", False, False,
         build_listen, listen_frame, begin_listen, leave_listen, never_wakes, answer_listen,
         nothing_cut, no_times, write_listen, read_listen, never_rendered)
add_kind(15, "run_container", "run: container", True, False,
         build_run, plain_frame, begin_effect, never_leaves, never_wakes, answer_run,
         nothing_cut, no_times, nothing_to_write, nothing_to_read, render_run)
add_kind(16, "call_openapi", "call: openapi", True, False,
         build_call_openapi, plain_frame, begin_effect, never_leaves, never_wakes, end_with_answer,
         nothing_cut, no_times, nothing_to_write, nothing_to_read, render_protocol)
add_kind(17, "call_grpc", "call: grpc", True, False,
         build_call_grpc, plain_frame, begin_effect, never_leaves, never_wakes, end_with_answer,
         nothing_cut, no_times, nothing_to_write, nothing_to_read, render_protocol)
add_kind(18, "call_mcp", "call: mcp", True, False,
         build_call_mcp, plain_frame, begin_effect, never_leaves, never_wakes, end_with_answer,
         nothing_cut, no_times, nothing_to_write, nothing_to_read, render_protocol)
add_kind(19, "call_a2a", "call: a2a", True, False,
         build_call_a2a, plain_frame, begin_effect, never_leaves, never_wakes, end_with_answer,
         nothing_cut, no_times, nothing_to_write, nothing_to_read, render_protocol)
add_kind(20, "call_asyncapi", "call: asyncapi", True, False,
         build_call_asyncapi, subscription_frame, begin_call_asyncapi, leave_call_asyncapi, never_wakes,
         answer_call_asyncapi, nothing_cut, no_times, write_call_asyncapi, read_call_asyncapi, render_call_asyncapi)

KINDS = tuple(kind_rows)
