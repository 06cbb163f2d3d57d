"""Stage 3, journal: a walk as bytes, and the walk that goes on exactly where it stood.

    byte 0      format
    bytes 1-4   CRC-32 of the rest, big-endian
    from 5      JSON: what identifies the execution, its behaviour, the walk's fields, the strands with their frames,
                effects without a frame, what belongs where in the value table, the table

Rules: what the plan knows is not written: bodies and scopes follow from tasks and positions. A value that several
frames hold is written once, in the table; a part of the workflow's input is written as the path to it. Every value is
plain JSON already (`values.pxi`), so nothing changes on the way. What is read may be anything with a right checksum, so
everything that decides where the walk goes is checked. A change of the layout changes the format byte, and
`earlier.pxi` brings what earlier ones wrote up to date.
"""

cimport cython

from itertools import islice
from zlib import crc32 as _crc32

cdef int SNAPSHOT_FORMAT = 2
cdef Py_ssize_t SNAPSHOT_HEADER_SIZE = 5
# Half of a SHA-256: nobody else makes the documents of one data directory collide.
cdef Py_ssize_t DIGEST_SIZE_BYTES = 16
# Strings up to this length cost less in place than as an entry of the table.
cdef Py_ssize_t INLINE_TEXT_SIZE_MAX = 48
# What is read must leave room to count on, and be a time of this calendar (the end of the year 9999).
cdef long long COUNT_MAX = 1 << 60
cdef long long MOMENT_MS_MAX = 253_402_300_799_999
# Brackets up to which a body cannot be nested deeper than it could be written again.
cdef Py_ssize_t BRACKETS_SAFE_MAX = 240
# How much of the input is looked through for values to be written as paths.
cdef Py_ssize_t INPUT_PATHS_MAX = 256
# Fewer are found again for each snapshot: that takes microseconds, and executions that wait are many.
cdef Py_ssize_t INPUT_PATHS_KEPT_MIN = 8

# How a resource is written.
cdef enum:
    WRITTEN_EFFECT      # its capsule has what its frame has
    WRITTEN_CAPSULE
    WRITTEN_RENDERED    # asked for before there were capsules
    WRITTEN_SUBSCRIPTION


cdef dict find_input_paths(object input):
    """The first containers and long strings of the input by identity: id -> path. The walk keeps the input alive."""
    cdef dict paths = {}
    cdef list queue = [(input, [-1])]
    cdef Py_ssize_t head = 0
    while head < len(queue) and len(paths) < INPUT_PATHS_MAX:
        value, path = queue[head]
        head += 1
        if not is_tabled(value) or id(value) in paths:
            continue
        paths[id(value)] = path
        if len(queue) >= 4 * INPUT_PATHS_MAX or isinstance(value, str):
            continue
        for key, part in islice(value.items() if isinstance(value, dict) else enumerate(value), INPUT_PATHS_MAX):
            if is_tabled(part):
                queue.append((part, [*path, key]))
    return paths


cdef inline bint is_tabled(object value):
    return isinstance(value, (dict, list)) or (isinstance(value, str) and len(<str> value) > INLINE_TEXT_SIZE_MAX)


cdef list identity_of(Plan plan, str execution_id):
    """What a snapshot must share with the walk it is restored into."""
    return [execution_id, plan.digest[:DIGEST_SIZE_BYTES].hex(), len(plan.tasks)]


# --- writing ---

@cython.final
cdef class SnapshotWriter:
    """Writes values; frames and strands are written by the functions below."""

    cdef object value(self, object value):
        """A scalar as itself, anything else as a list: its number in the table, or -1 and a path into the input."""
        cdef object place
        if not is_tabled(value):
            return value
        place = self.input_paths.get(id(value))
        if place is None:
            place = self.places.get(id(value))
        if place is None:
            place = self.places[id(value)] = [len(self.table)]
            self.table.append(value)
        return place

    cdef list values(self, list values):
        return [self.value(value) for value in values]


cdef list written_strand(SnapshotWriter writer, Strand strand):
    cdef list frames = []
    cdef TaskFrame frame = strand.top
    while frame is not None:
        frames.append(written_frame(writer, strand, frame))
        frame = frame.parent
    frames.reverse()
    return [
        strand.id,
        0 if strand.owner is None else strand.owner_strand.id,
        strand.branch,
        writer.value(strand.context),
        strand.has_exported,
        strand.wake_at_ms,
        strand.steps_left,
        frames,
    ]


cdef list written_frame(SnapshotWriter writer, Strand strand, TaskFrame frame):
    cdef list fields, resources = None
    if frame.task is None:
        return [-1, frame.position, writer.value(frame.data), frame.body_attempt]
    if frame.resources is not None:
        resources = [written_resource(writer, strand, frame, <Resource> resource) for resource in frame.resources]
    fields = [
        frame.task.index,
        frame.task.kind.written,
        frame.position,
        writer.value(frame.data),
        frame.body_attempt,
        writer.value(frame.raw_input),
        writer.value(frame.input),
        frame.started_at_ms,
        frame.timeout_at_ms,
        frame.attempt,
        resources,
    ]
    frame.task.kind.write(writer, frame, fields)
    return fields


cdef list written_resource(SnapshotWriter writer, Strand strand, TaskFrame frame, Resource resource):
    cdef PerformEffect effect
    cdef Capsule capsule
    if isinstance(resource.action, Subscribe):
        return [WRITTEN_SUBSCRIPTION, resource.id, False, writer.value((<Subscribe> resource.action).filter)]
    effect = <PerformEffect> resource.action
    capsule = effect.capsule
    if capsule.rendered is not None:
        return [WRITTEN_RENDERED, resource.id, resource.is_answered, effect.idempotency_key,
                writer.value(capsule.rendered)]
    if frame is not None and has_what_the_frame_has(capsule, strand, frame):
        return [WRITTEN_EFFECT, resource.id, resource.is_answered, effect.idempotency_key, capsule.now_ms]
    return [
        WRITTEN_CAPSULE,
        resource.id,
        resource.is_answered,
        effect.idempotency_key,
        capsule.now_ms,
        capsule.started_at_ms,
        capsule.task_index,
        writer.value(capsule.context),
        writer.value(capsule.raw_input),
        writer.value(capsule.input),
        [writer.values(pair) for pair in scope_values(capsule.scope)],
    ]


cdef bint has_what_the_frame_has(Capsule capsule, Strand strand, TaskFrame frame):
    """Whether a frame gives all a capsule holds, so that nothing of it needs to be written."""
    cdef int reads = frame.task.reads
    return (
        capsule.input is frame.input
        and capsule.task_index == frame.task.index
        and capsule.started_at_ms == frame.started_at_ms
        and (not reads & READS_CONTEXT or capsule.context is strand.context)
        and (not reads & READS_TASK or capsule.raw_input is frame.raw_input)
        and (not reads & READS_SCOPE or capsule.scope is frame.parent.scope)
    )


cdef bytes write_snapshot(Walk walk):
    cdef SnapshotWriter writer = SnapshotWriter.__new__(SnapshotWriter)
    cdef Sharing sharing
    cdef list fields, table
    cdef bytes body
    leave_rest(walk)
    if walk.input_paths is None:
        walk.input_paths = find_input_paths(walk.facts.input)
    writer.input_paths = walk.input_paths
    if len(walk.input_paths) < INPUT_PATHS_KEPT_MIN:
        walk.input_paths = None
    writer.table = []
    writer.places = {}
    fields = [
        identity_of(walk.plan, walk.facts.execution_id),
        walk.facts.behaviour.written,
        walk.state,
        writer.value(walk.output),
        writer.value(walk.error),
        walk.last_sequence,
        walk.now_ms,
        walk.facts.started_at_ms,
        walk.timeout_at_ms,
        walk.paused_at_ms,
        walk.grace_until_ms,
        walk.cancel_reason,
        walk.random_state,
        walk.next_strand_id,
        walk.next_resource_id,
        walk.steps_taken,
        [(<Strand> strand).id for strand in walk.ready],
        [[(<Resource> held).id, writer.value(value), writer.value(error)] for held, value, error in walk.held],
        [[index, visit[0], visit[1]] for index, visit in walk.visits.items()],
        [written_strand(writer, <Strand> strand) for strand in walk.strands.values()],
        [written_resource(writer, None, None, <Resource> resource)
         for resource in walk.resources.values() if (<Resource> resource).frame is None],
    ]
    come_to_rest(walk)
    sharing = Sharing(writer)
    table = sharing.table()
    body = dump_json([*fields, sharing.notes, table])
    return bytes([SNAPSHOT_FORMAT]) + _crc32(body).to_bytes(4, "big") + body


# --- reading ---

cdef Walk read_snapshot(Plan plan, str execution_id, object input, bytes snapshot, object env):
    """The walk a snapshot tells. Raises ValueError for a damaged or foreign snapshot."""
    cdef bytes body = snapshot[SNAPSHOT_HEADER_SIZE:]
    if len(snapshot) <= SNAPSHOT_HEADER_SIZE or not 1 <= snapshot[0] <= SNAPSHOT_FORMAT:
        raise ValueError("not a snapshot of a walk, or one of a format this runner does not know")
    if _crc32(body) != int.from_bytes(snapshot[1:SNAPSHOT_HEADER_SIZE], "big"):
        raise ValueError("the snapshot is damaged: its checksum does not match")
    try:
        *fields, table = load_json(body)
        if body.count(b"[") + body.count(b"{") > BRACKETS_SAFE_MAX:
            dump_json(table)
        if snapshot[0] == 1:
            fields = from_format_1(plan, fields)
        identity, behaviour, *fields = fields
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the snapshot is damaged, it holds no walk: {error}") from None
    if identity != identity_of(plan, execution_id):
        raise ValueError("the snapshot belongs to another execution or another document")
    try:
        return read_walk(plan, execution_id, input, env, behaviour, fields, table)
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"the snapshot is damaged: {error}") from None


@cython.final
cdef class SnapshotReader:
    """Reads values; frames and strands are read by the functions below."""

    cdef object value(self, object place):
        cdef object value
        if not isinstance(place, list):
            return place
        if place[0] >= 0:
            return self.table[place[0]]
        value = self.walk.facts.input
        for key in place[1:]:
            value = value[key]
        return value

    cdef list values(self, list places):
        return [self.value(place) for place in places]

    cdef dict error(self, object place):
        """An error object, or None."""
        cdef object error = self.value(place)
        if error is not None and not (
            isinstance(error, dict) and isinstance(error["type"], str) and isinstance(error["instance"], str)
            and isinstance(error["status"], (int, float))
            and isinstance(error.get("title", ""), str) and isinstance(error.get("detail", ""), str)
        ):
            raise ValueError("an error is not made of an error's members")
        return error


cdef long long count_of(object value) except -1:
    """A number that counts, or a deadline: never negative, and far from the end of the integers that hold it."""
    if not isinstance(value, int) or not 0 <= value <= COUNT_MAX:
        raise ValueError("a number is not what it counts")
    return value


cdef long long moment_of(object value) except -1:
    """When something was: a time that the calendar has."""
    if count_of(value) > MOMENT_MS_MAX:
        raise ValueError("a time is not in the calendar")
    return value


cdef int attempt_of(object value) except -1:
    if not 1 <= count_of(value) <= INT32_MAX:
        raise ValueError("not the number of an attempt")
    return value


cdef Walk read_walk(Plan plan, str execution_id, object input, object env, list behaviour, list fields, list table):
    cdef Walk walk = make_walk(plan, execution_id, env, behaviour_of(behaviour, plan.behaviour))
    cdef SnapshotReader reader = SnapshotReader.__new__(SnapshotReader)
    reader.walk = walk
    reader.table = table
    walk.facts.input = input_as_kept(walk.facts.behaviour, input)
    (walk.state, output, error, last_sequence, now_ms, started_at_ms, timeout_at_ms, paused_at_ms, grace_until_ms,
     walk.cancel_reason, random_state, next_strand_id, next_resource_id, steps_taken, ready, held, visits, strands,
     detached, notes) = fields
    restore_shared(reader, notes)
    if not STATUS_RUNNING <= walk.state <= STATUS_CANCELLED:
        raise ValueError("no status of a walk")
    walk.last_sequence, walk.timeout_at_ms = count_of(last_sequence), count_of(timeout_at_ms)
    walk.now_ms, walk.facts.started_at_ms = moment_of(now_ms), moment_of(started_at_ms)
    walk.paused_at_ms, walk.grace_until_ms = moment_of(paused_at_ms), count_of(grace_until_ms)
    walk.next_strand_id, walk.next_resource_id = count_of(next_strand_id), count_of(next_resource_id)
    walk.steps_taken = count_of(steps_taken)
    if walk.next_strand_id < 1 or walk.next_resource_id < 1:
        raise ValueError("numbers begin with 1")
    walk.random_state = random_state
    walk.output = reader.value(output)
    walk.error = reader.error(error)
    for index, iteration, attempt in visits:
        keep_visit(walk, <TaskNode?> plan.tasks[index], [count_of(iteration), attempt_of(attempt)])
    for entry in strands:
        read_strand(reader, entry)
    for entry in detached:
        read_resource(reader, None, None, entry)
    if walk.resources:
        walk.resources = {number: walk.resources[number] for number in sorted(walk.resources)}
    read_ready(walk, ready)
    read_held(reader, held)
    check_walk(walk)
    find_wake(walk)
    come_to_rest(walk)
    return walk


cdef int read_held(SnapshotReader reader, list held) except -1:
    """Outcomes that wait for Resume; an effect has one of them, and none without being answered."""
    cdef Resource resource
    cdef dict answers = {}
    for resource_id, value, error in held:
        resource = <Resource> reader.walk.resources[resource_id]
        if error is not None and value is not None and count_of(value) > RETRY_AFTER_MS_MAX:
            raise ValueError("no retry is left alone for as long")
        if isinstance(resource.action, PerformEffect):
            answers[resource.id] = answers.get(resource.id, 0) + 1
        hold_outcome(reader.walk, resource, reader.value(value), reader.error(error))
    for resource in reader.walk.resources.values():
        if answers.get(resource.id, 0) != resource.is_answered:
            raise ValueError("an effect is answered without an outcome that is held, or the other way round")
    return 0


cdef int check_walk(Walk walk) except -1:
    """What must be right between the parts: an ended walk has none, and in another one each strand goes on by itself,
    by time, by an outcome or by its branches."""
    cdef Strand strand
    cdef set owners = set()
    cdef Py_ssize_t roots = 0
    if walk.state > STATUS_PAUSED:
        if walk.strands or walk.resources:
            raise ValueError("a walk that has ended runs something")
        return 0
    if walk.held and walk.state != STATUS_PAUSED:
        raise ValueError("outcomes are held though the walk is not paused")
    for strand in walk.strands.values():
        roots += strand.owner is None
        if strand.owner is not None:
            owners.add(strand.owner)
    if roots != 1:
        raise ValueError("a walk has one strand that is no branch")
    for strand in walk.strands.values():
        if strand.is_ready != (strand.top.position != POSITION_BLOCKED):
            raise ValueError("a strand can take a step and is not ready, or the other way round")
        if not (
            strand.is_ready or strand.wake_at_ms or strand.top.resources or strand.top in owners or walk.grace_until_ms
        ):
            raise ValueError("a strand waits for nothing")
    return 0


cdef object input_as_kept(Behaviour behaviour, object input):
    """The input as plain JSON; None if it is nested too deeply (then the walk has failed at its start)."""
    cdef Workspace work = borrow_workspace(behaviour)
    try:
        return json_safe(&work.measure, input)
    except Unkept:
        return None
    finally:
        return_workspace(work)


cdef int read_ready(Walk walk, list ready) except -1:
    cdef Strand strand
    for strand_id in ready:
        strand = <Strand?> walk.strands[strand_id]
        if strand.is_ready or strand.top.position == POSITION_BLOCKED:
            raise ValueError("a strand that is ready cannot take a step")
        strand.is_ready = True
        walk.ready.append(strand)
    return 0


cdef int read_strand(SnapshotReader reader, list entry) except -1:
    cdef Walk walk = reader.walk
    cdef Strand strand = Strand.__new__(Strand)
    cdef TaskFrame frame
    cdef TaskList body = walk.plan.root
    cdef Scope scope = None
    (strand.id, owner_id, branch, context, strand.has_exported, wake_at_ms, steps_left, frames) = entry
    strand.wake_at_ms, strand.steps_left = count_of(wake_at_ms), <int> min(count_of(steps_left), INT32_MAX)
    if not 0 < strand.id < walk.next_strand_id or strand.id in walk.strands:
        raise ValueError("a strand's number is not its own")
    if owner_id:
        # A strand that runs a fork has the fork's frame on top, and was written before its branches.
        body = adopt_branch(strand, <Strand?> walk.strands[owner_id], branch)
        scope = strand.owner.scope
    strand.context = reader.value(context)
    index, position, data, attempt = frames[0]
    frame = bottom_frame(body, reader.value(data), scope, attempt_of(attempt))
    check_position(frame, position)
    reader.strand = strand
    for fields in frames[1:]:
        frame = read_frame(reader, frame, fields)
    if strand.wake_at_ms and (frame.position != POSITION_BLOCKED or frame.task.kind.wake is never_wakes):
        raise ValueError("a strand waits for a time that nothing takes")
    strand.top = frame
    walk.strands[strand.id] = strand
    return 0


cdef TaskFrame read_frame(SnapshotReader reader, TaskFrame parent, list fields):
    cdef TaskNode task = <TaskNode?> reader.walk.plan.tasks[fields[0]]
    cdef TaskFrame frame
    (index, kind, position, data, body_attempt, raw_input, input, started_at_ms, timeout_at_ms, attempt,
     resources) = fields[:11]
    if task.kind.written != kind or parent.position < 0 or parent.body.tasks[parent.position] is not task:
        raise ValueError("a task does not run where the document has it")
    frame = task.kind.frame()
    frame.parent, frame.task, frame.scope = parent, task, parent.scope
    frame.position, frame.data = position, reader.value(data)
    frame.raw_input, frame.input = reader.value(raw_input), reader.value(input)
    frame.started_at_ms, frame.timeout_at_ms = moment_of(started_at_ms), count_of(timeout_at_ms)
    frame.attempt, frame.body_attempt = attempt_of(attempt), attempt_of(body_attempt)
    task.kind.read(reader, frame, fields[11:])
    check_position(frame, position)
    for entry in resources or ():
        read_resource(reader, reader.strand, frame, entry)
    if task.kind.answer is not never_answered and not task.kind.has_effect and frame.resources is None:
        raise ValueError("a task that events go to has no subscription")
    return frame


cdef int check_position(TaskFrame frame, object position) except -1:
    """Where the frame's list goes on: at one of its tasks or at an end; blocked, if something ends that."""
    cdef TaskKind kind = None if frame.task is None else frame.task.kind
    cdef TaskList body = NO_TASKS if frame.body is None else frame.body
    frame.position = position
    if not POSITION_BLOCKED - body.outlets <= frame.position < body.count:
        raise ValueError("a list goes on where it has no task")
    if frame.position == POSITION_BLOCKED:
        if kind is None:
            raise ValueError("the bottom of a strand waits for nothing")
    elif kind is not None and kind.leave is never_leaves:
        raise ValueError("a task without tasks in it has a list that goes on")
    return 0


cdef int read_resource(SnapshotReader reader, Strand strand, TaskFrame frame, list entry) except -1:
    cdef Walk walk = reader.walk
    cdef Resource resource = Resource.__new__(Resource)
    cdef TaskNode task = None if frame is None else frame.task
    cdef Capsule capsule
    how, number, answered, *fields = entry
    resource.id, resource.is_answered = number, answered
    resource.strand, resource.frame = strand, frame
    if not 0 < resource.id < walk.next_resource_id or resource.id in walk.resources:
        raise ValueError("a resource's number is not its own")
    if frame is not None and task.kind.answer is never_answered:
        raise ValueError("a task has asked for something it has no use for")
    if how == WRITTEN_SUBSCRIPTION and frame is not None:
        resource.action = Subscribe(number, reader.value(fields[0]), task.reference)
    else:
        if how == WRITTEN_CAPSULE:
            task = <TaskNode?> walk.plan.tasks[fields[3]]
        if frame is not None and task is not frame.task:
            raise ValueError("a task has asked for an effect of another one")
        if task is None or not task.kind.has_effect:
            raise ValueError("a task has asked for an effect it does not have")
        capsule = read_written_capsule(reader, task, frame, how, fields)
        if isinstance(frame, SubscriptionFrame) and (<CallAsyncapiNode> task).subscribes:
            capsule.asked = wanted_of(strand, <SubscriptionFrame> frame)
        resource.action = PerformEffect(number, task.kind.name, capsule, fields[0], task.reference)
        walk.effects_in_flight += not resource.is_answered
    if frame is not None:
        if frame.resources is None:
            frame.resources = []
        frame.resources.append(resource)
    keep_resource(walk, resource)
    return 0


cdef Capsule read_written_capsule(SnapshotReader reader, TaskNode task, TaskFrame frame, int how, list fields):
    cdef Capsule capsule = Capsule.__new__(Capsule, KEY)
    capsule.facts = reader.walk.facts
    capsule.task_index = task.index
    if how == WRITTEN_RENDERED:
        capsule.rendered = <dict?> reader.value(fields[1])
        if capsule.rendered is None:
            raise ValueError("an effect has no arguments")
        return capsule
    capsule.now_ms = moment_of(fields[1])
    if how == WRITTEN_CAPSULE:
        capsule.started_at_ms = moment_of(fields[2])
        capsule.context, capsule.raw_input, capsule.input = reader.values(fields[4:7])
        capsule.scope = scope_of(task, [reader.values(pair) for pair in fields[7]])
        return capsule
    if how != WRITTEN_EFFECT or frame is None:
        raise ValueError("no way to write an effect")
    capsule.started_at_ms, capsule.input = frame.started_at_ms, frame.input
    if task.reads & READS_CONTEXT:
        capsule.context = reader.strand.context
    if task.reads & READS_TASK:
        capsule.raw_input = frame.raw_input
    if task.reads & READS_SCOPE:
        capsule.scope = frame.parent.scope
    return capsule
