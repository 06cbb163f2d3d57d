"""Stage 4, walk: `fork`: branches that run side by side, all of them or in a race.

Rules: each branch is a strand of its own, with the fork's input and variables and the context as it was when the fork
began. The last branch to end carries on, or the first one of a race; what branches exported counts in their order. A
fork that is cut takes its branches with it.
"""

cimport cython


@cython.final
@cython.internal
cdef class ForkNode(TaskNode):
    cdef tuple branches
    """A TaskList with one task each."""
    cdef bint compete


@cython.final
@cython.internal
cdef class ForkFrame(TaskFrame):
    cdef list branches
    """Strands by branch; None for a branch that has ended."""
    cdef list outputs
    """By branch; None until the branch has ended."""
    cdef list contexts
    """By branch: a one-element list with the context it exported, or None."""
    cdef int running


cdef TaskNode build_fork(PlanBuilder builder, dict definition, Siblings siblings):
    cdef ForkNode task = ForkNode.__new__(ForkNode)
    cdef str pointer = siblings.reference + "/fork/branches"
    task.compete = bool(definition["fork"].get("compete"))
    task.branches = tuple([
        builder.branch(AT_FORK_BRANCHES, item, number, pointer, siblings.bindings)
        for number, item in enumerate(definition["fork"]["branches"])
    ])
    return task


cdef TaskFrame fork_frame():
    return ForkFrame.__new__(ForkFrame)


cdef int begin_fork(Walk walk, Place at, object data) except -1:
    """Starts the branches."""
    cdef ForkNode task = <ForkNode> at.task
    cdef Strand strand = at.strand
    cdef Strand branch
    cdef ForkFrame frame
    cdef int count = <int> len(task.branches)
    if count == 0:
        return complete(walk, at, None if task.compete else [], task.then)
    frame = <ForkFrame> push(walk, at, data)
    frame.outputs = [None] * count
    frame.contexts = [None] * count
    frame.branches = []
    frame.running = count
    block(walk, strand)
    for number in range(count):
        branch = new_strand(walk, <TaskList> task.branches[number], data, frame.scope, frame.body_attempt)
        branch.owner, branch.owner_strand = frame, strand
        branch.branch = number
        branch.context = strand.context
        frame.branches.append(branch)
        make_ready(walk, branch)
    return 0


cdef int branch_done(Walk walk, Strand branch, object output) except -1:
    """A branch has completed: the fork has its winner, or waits for the others."""
    cdef ForkFrame frame = <ForkFrame> branch.owner
    cdef Strand strand = branch.owner_strand
    cdef TaskNode task = frame.task
    end_branch(walk, frame, branch)
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
        json_safe(&walk.work.measure, frame.outputs)
    except Unkept as error:
        return fail_frame(walk, strand, frame, make_error("expression", str(error), task.reference))
    finish(walk, strand, frame, frame.outputs, task.then)
    return make_ready(walk, strand)


cdef bint branch_failed(Walk walk, Strand branch) except -1:
    """Whether the fork fails with its branch: a race goes on while anyone runs."""
    cdef ForkFrame frame = <ForkFrame> branch.owner
    end_branch(walk, frame, branch)
    if (<ForkNode> frame.task).compete and frame.running > 0:
        return False
    drop_branches(walk, frame)
    return True


cdef int end_branch(Walk walk, ForkFrame frame, Strand branch) except -1:
    frame.branches[branch.branch] = None
    frame.running -= 1
    return drop_strand(walk, branch)


cdef int drop_branches(Walk walk, ForkFrame frame) except -1:
    """Ends what still runs of a fork, forks within it included."""
    cdef Py_ssize_t number
    for number in range(len(frame.branches)):
        if frame.branches[number] is not None:
            drop_strand(walk, <Strand> frame.branches[number])
            frame.branches[number] = None
    return 0


cdef int cut_fork(Walk walk, TaskFrame frame) except -1:
    return drop_branches(walk, <ForkFrame> frame)


# --- snapshots ---

cdef int write_fork(SnapshotWriter writer, TaskFrame frame, list fields) except -1:
    cdef ForkFrame fork = <ForkFrame> frame
    fields += [
        writer.values(fork.outputs),
        [None if context is None else writer.values(context) for context in fork.contexts],
        fork.running,
    ]
    return 0


cdef int read_fork(SnapshotReader reader, TaskFrame frame, list fields) except -1:
    """Branches are read after the strand that forked, and put themselves in their places."""
    cdef ForkFrame fork = <ForkFrame> frame
    outputs, contexts, _ = fields
    fork.running = 0
    fork.outputs = reader.values(outputs)
    fork.contexts = [None if context is None else reader.values(context) for context in contexts]
    if len(fork.outputs) != len((<ForkNode> frame.task).branches) or len(fork.contexts) != len(fork.outputs):
        raise ValueError("not the branches of the fork")
    for context in fork.contexts:
        if context is not None and len(<list> context) != 1:
            raise ValueError("a branch has exported one context or none")
    fork.branches = [None] * len(fork.outputs)
    return 0


cdef TaskList adopt_branch(Strand branch, Strand owner, int number):
    """Makes a strand that is being read a branch of the fork on top of another one; gives what it runs."""
    cdef ForkFrame frame = <ForkFrame?> owner.top
    if frame.branches[number] is not None:
        raise ValueError("two strands for one branch")
    branch.owner, branch.owner_strand, branch.branch = frame, owner, number
    frame.branches[number] = branch
    frame.running += 1
    return <TaskList> (<ForkNode> frame.task).branches[number]
