"""Stage 3, journal: a walk as bytes, and the walk that goes on exactly where it stood.

    byte 0      format
    bytes 1-4   CRC-32 of the rest, big-endian
    from 5      JSON: what identifies the execution, the walk's fields, the strands with their frames, the value table

Rules: what the plan knows is not written: bodies and scopes follow from tasks and positions. A value that several
frames hold is written once, in the table; a part of the workflow's input is written as the path to it. Every value is
plain JSON already (`walk_values.pxi`), so nothing changes on the way. A change of the layout changes the format byte.
"""

from zlib import crc32 as _crc32

cdef int SNAPSHOT_FORMAT = 1
cdef Py_ssize_t SNAPSHOT_HEADER_SIZE = 5
# Strings up to this length cost less in place than as an entry of the table.
cdef Py_ssize_t INLINE_TEXT_SIZE_MAX = 48
# How much of the input is looked through for values to be written as paths.
cdef Py_ssize_t INPUT_PATHS_MAX = 256


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


# --- writing ---

@cython.final
@cython.internal
cdef class SnapshotWriter:
    cdef dict input_paths
    cdef list table
    cdef dict places

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

    cdef list strand(self, Strand strand):
        cdef list frames = []
        cdef TaskFrame frame = strand.top
        cdef PerformEffect effect = strand.effect
        while frame is not None:
            frames.append(self.frame(frame))
            frame = frame.parent
        frames.reverse()
        return [
            strand.id,
            0 if strand.owner is None else strand.owner.strand.id,
            strand.branch,
            self.value(strand.context),
            strand.has_exported,
            strand.wake_at_ms,
            None if effect is None else [effect.effect_id, self.value(effect.arguments), effect.idempotency_key],
            strand.steps_left,
            frames,
        ]

    cdef list frame(self, TaskFrame frame):
        cdef ForFrame loop
        cdef TryFrame attempt
        cdef ForkFrame fork_frame
        cdef list fields
        if frame.task is None:
            return [-1, frame.position, self.value(frame.data), frame.body_attempt]
        fields = [
            frame.task.index,
            frame.position,
            self.value(frame.data),
            frame.body_attempt,
            self.value(frame.raw_input),
            self.value(frame.input),
            frame.started_at_ms,
            frame.timeout_at_ms,
            frame.attempt,
        ]
        if frame.task.kind == KIND_FOR:
            loop = <ForFrame> frame
            fields += [self.value(loop.items), loop.iteration]
        elif frame.task.kind == KIND_TRY:
            attempt = <TryFrame> frame
            fields += [
                attempt.phase, self.value(attempt.error), attempt.attempt_until_ms, attempt.total_until_ms
            ]
        elif frame.task.kind == KIND_FORK:
            fork_frame = <ForkFrame> frame
            fields += [
                self.values(fork_frame.outputs),
                [None if context is None else self.values(context) for context in fork_frame.contexts],
                fork_frame.running,
            ]
        return fields


cdef list identity_of(Walk walk):
    """What a snapshot must share with the walk it is restored into."""
    cdef Plan plan = walk.plan
    return [walk.execution_id, plan.namespace, plan.name, plan.version, len(plan.tasks)]


cdef bytes write_snapshot(Walk walk):
    cdef SnapshotWriter writer = SnapshotWriter.__new__(SnapshotWriter)
    cdef bytes body
    if walk.input_paths is None:
        walk.input_paths = find_input_paths(walk.input)
    writer.input_paths = walk.input_paths
    writer.table = []
    writer.places = {}
    body = dump_json([
        identity_of(walk),
        walk.state,
        writer.value(walk.output),
        writer.value(walk.error),
        walk.last_sequence,
        walk.now_ms,
        walk.started_at_ms,
        walk.timeout_at_ms,
        walk.paused_at_ms,
        walk.grace_until_ms,
        walk.cancel_reason,
        walk.random_state,
        walk.next_strand_id,
        walk.next_effect_id,
        [(<Strand> strand).id for strand in walk.ready],
        [[strand_id, writer.value(value), writer.value(error)] for strand_id, value, error in walk.held],
        [[index, visit[0], visit[1]] for index, visit in walk.visits.items()],
        list(walk.effects),
        [writer.strand(<Strand> strand) for strand in walk.strands.values()],
        writer.table,
    ])
    return bytes([SNAPSHOT_FORMAT]) + _crc32(body).to_bytes(4, "big") + body


# --- reading ---

cdef int read_snapshot(Walk walk, bytes snapshot) except -1:
    """Fills a new walk. Raises ValueError for a damaged or foreign snapshot."""
    cdef bytes body = snapshot[SNAPSHOT_HEADER_SIZE:]
    if len(snapshot) <= SNAPSHOT_HEADER_SIZE or snapshot[0] != SNAPSHOT_FORMAT:
        raise ValueError("not a snapshot of a walk, or one of a format this runner does not know")
    if _crc32(body) != int.from_bytes(snapshot[1:SNAPSHOT_HEADER_SIZE], "big"):
        raise ValueError("the snapshot is damaged: its checksum does not match")
    try:
        *fields, table = load_json(body)
        identity = fields[0]
    except (TypeError, IndexError, ValueError):
        raise ValueError("the snapshot is damaged: it holds no walk") from None
    if identity != identity_of(walk):
        raise ValueError("the snapshot belongs to another execution or another document")
    try:
        return SnapshotReader(walk, table).read(fields)
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError):
        raise ValueError("the snapshot is damaged: it holds no walk") from None


# What is read may be anything with a right checksum, so here everything is checked.
@cython.boundscheck(True)
@cython.wraparound(True)
@cython.nonecheck(True)
@cython.final
@cython.internal
cdef class SnapshotReader:
    cdef Walk walk
    cdef list table

    def __cinit__(self, Walk walk, list table):
        self.walk = walk
        self.table = table

    cdef object value(self, object place):
        cdef object value
        if not isinstance(place, list):
            return place
        if place[0] >= 0:
            return self.table[place[0]]
        value = self.walk.input
        for key in place[1:]:
            value = value[key]
        return value

    cdef list values(self, list places):
        return [self.value(place) for place in places]

    cdef int read(self, list fields) except -1:
        cdef Walk walk = self.walk
        cdef Strand strand
        (_, walk.state, output, error, walk.last_sequence, walk.now_ms, walk.started_at_ms, walk.timeout_at_ms,
         walk.paused_at_ms, walk.grace_until_ms, walk.cancel_reason, random_state, walk.next_strand_id,
         walk.next_effect_id, ready, held, visits, effects, strands) = fields
        walk.random_state = random_state
        walk.output = self.value(output)
        walk.error = self.value(error)
        walk.visits = {index: [iteration, attempt] for index, iteration, attempt in visits}
        for entry in strands:
            strand = self.strand(entry)
            walk.strands[strand.id] = strand
        for strand_id in ready:
            strand = walk.strands[strand_id]
            strand.is_ready = True
            walk.ready.append(strand)
        walk.held = [(strand_id, self.value(value), self.value(error)) for strand_id, value, error in held]
        in_flight = {
            (<Strand> found).effect.effect_id: found
            for found in walk.strands.values() if (<Strand> found).effect is not None
        }
        walk.effects = {effect_id: in_flight[effect_id] for effect_id in effects}
        return 0

    cdef Strand strand(self, list entry):
        cdef Strand strand = Strand.__new__(Strand)
        cdef TaskFrame frame = None
        cdef TaskList body = self.walk.plan.root
        cdef Scope scope = None
        (strand.id, owner_id, strand.branch, context, strand.has_exported, strand.wake_at_ms, effect,
         strand.steps_left, frames) = entry
        if owner_id:
            # A strand that runs a fork has the fork's frame on top, and was written before its branches.
            strand.owner = <ForkFrame?> (<Strand> self.walk.strands[owner_id]).top
            strand.owner.branches[strand.branch] = strand
            body = <TaskList> (<ForkNode> strand.owner.task).branches[strand.branch]
            scope = strand.owner.scope
        strand.context = self.value(context)
        frame = bottom_frame(body, self.value(frames[0][2]), scope, frames[0][3])
        frame.position = frames[0][1]
        for fields in frames[1:]:
            frame = self.frame(strand, frame, fields)
        strand.top = frame
        if effect is not None:
            strand.effect = PerformEffect(
                effect[0], "call_http", self.value(effect[1]), effect[2], frame.task.reference
            )
        return strand

    cdef TaskFrame frame(self, Strand strand, TaskFrame parent, list fields):
        cdef TaskNode task = <TaskNode> self.walk.plan.tasks[fields[0]]
        cdef TaskFrame frame
        if task.kind == KIND_FOR:
            frame = ForFrame.__new__(ForFrame)
        elif task.kind == KIND_TRY:
            frame = TryFrame.__new__(TryFrame)
        elif task.kind == KIND_FORK:
            frame = ForkFrame.__new__(ForkFrame)
        else:
            frame = TaskFrame.__new__(TaskFrame)
        frame.parent, frame.task, frame.scope = parent, task, parent.scope
        frame.position, frame.data, frame.body_attempt = fields[1], self.value(fields[2]), fields[3]
        frame.raw_input, frame.input = self.value(fields[4]), self.value(fields[5])
        frame.started_at_ms, frame.timeout_at_ms, frame.attempt = fields[6], fields[7], fields[8]
        if task.kind == KIND_DO:
            frame.body = (<DoNode> task).body
        elif task.kind == KIND_FOR:
            self.loop(<ForFrame> frame, fields)
        elif task.kind == KIND_TRY:
            self.attempt(<TryFrame> frame, fields)
        elif task.kind == KIND_FORK:
            self.fork(<ForkFrame> frame, strand, fields)
        return frame

    cdef int loop(self, ForFrame frame, list fields) except -1:
        frame.body = (<ForNode> frame.task).body
        frame.items, frame.iteration = self.value(fields[9]), fields[10]
        if frame.iteration >= 0:
            frame.scope = make_scope(frame.parent.scope, frame.items[frame.iteration], frame.iteration)
        return 0

    cdef int attempt(self, TryFrame frame, list fields) except -1:
        cdef TryNode task = <TryNode> frame.task
        frame.phase, frame.error = fields[9], self.value(fields[10])
        frame.attempt_until_ms, frame.total_until_ms = fields[11], fields[12]
        frame.body = task.body
        if frame.phase == TRY_HANDLER:
            frame.body = NO_TASKS if task.handler is None else task.handler
            frame.scope = make_scope(frame.parent.scope, frame.error, None)
        return 0

    cdef int fork(self, ForkFrame frame, Strand strand, list fields) except -1:
        frame.strand = strand
        frame.outputs = self.values(fields[9])
        frame.contexts = [None if context is None else self.values(context) for context in fields[10]]
        frame.running = fields[11]
        frame.branches = [None] * len(frame.outputs)
        return 0
