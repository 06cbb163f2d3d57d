"""Stages 2 and 4 of the data path: the map of the compiled core.

What a plan is made of, what a walk remembers, what it asks and hears. The parts in `core/` have the code, and classes
that only one part needs. Later sections use earlier ones.
"""

cimport cython

from fastrunner._jq cimport Bounds, Machine, Program


# --- the document and its language: core/document/, core/language/ ---

@cython.final
cdef class Document:
    """A document's data, the problems its text had, and what validation compiles for the plan."""

    cdef str text
    cdef object root
    cdef list problems
    cdef dict programs, schemas
    cdef dict use, functions, origins  # groups of `use`; tasks, and where those from elsewhere come from
    cdef dict schemas_elsewhere, texts, given  # by reference: data of schemas, the texts used, all that there are
    cdef object origin  # the ExternalResource that it is; None: it is a workflow
    cdef str default_catalog  # the root of the runner's own; None: there is none
    cdef bint pins, is_pinned  # whether descriptions are asked for; whether all of them are among its texts
    cdef long long steps_left
    cdef bint is_paid, is_stored, is_json
    # Whether something in it does: 1 or -1; 0 while nobody asked.
    cdef int authenticates
    cdef object mark  # where its values stand in the text, once something asked for it
    cdef object refuse  # why something is not performed here; None: everything is

    cdef (Py_ssize_t, Py_ssize_t) position(self, str pointer, bint key)


@cython.final
cdef class Position:
    """One row of the table of positions; `_core.pyi` has the contract."""

    cdef readonly str where, dot
    cdef int form, variables, binds
    cdef bint is_own, is_condition


@cython.final
cdef class Bindings:
    """The scoped variables at a holder: a `for` task, a `foreach`, a `catch`, or any other task, which binds none."""

    cdef tuple around
    """Pairs of names, outermost first, the second None where a scope has one: what surrounds the holder."""
    cdef tuple own
    """The same and what the holder binds."""

    cdef tuple at(self, Position position)


# --- values: core/behaviour.pxi, core/values.pxi, core/progress.pxi, core/tally.pxi ---

@cython.final
cdef class Behaviour:
    """What decides the outcomes of an execution beside its document and data: it keeps what it was started with."""

    cdef readonly int version
    """Of the semantics; grows when the same document and data would go another way."""
    cdef readonly str runner_version
    """`$runtime.version`."""
    cdef readonly tuple bounds
    """The values of BOUND_NAMES."""
    cdef list written
    """All of it, for snapshots."""
    cdef long long steps_per_slice_max, expression_steps_per_step, strand_steps_max
    cdef long long events_max, iterations_max, data_depth_max, data_size_bytes_max
    cdef long long output_json_size_bytes_max, schema_steps_max, data_bytes_per_step
    cdef long long steps_max, event_error_size_max
    cdef Bounds expressions


cdef struct Measure:
    # How large values may be that enter a walk, and what is left of it for the one that is being checked.
    bint is_plain
    int depth_max
    long long size_bytes_max
    long long size_left
    long long size_spent


@cython.final
cdef class EventParts:
    """The constant fields of one kind of event of one plan or task."""

    cdef bytes head
    """Event type, workflow name, task name and status: what comes before the message."""
    cdef bytes message
    """The message unless the event has one of its own."""
    cdef bytes tail
    """Progress and reference: what comes after the sequence number."""


@cython.final
cdef class EventBuffer:
    """The encoded events of one turn."""

    cdef char *data
    cdef Py_ssize_t size
    cdef Py_ssize_t capacity

    cdef char *reserve(self, Py_ssize_t size) except NULL
    cdef bytes take(self)
    cdef int add(self, bytes id_field, EventParts parts, bytes message, bytes time_field, bytes error,
                 long long sequence, int attempt, bytes output, bytes iteration) except -1


@cython.final
cdef class TallyRecords:
    """What became of the tasks of one turn."""

    cdef long long *records
    cdef Py_ssize_t count, capacity

    cdef int add(self, int kind, int outcome, long long duration_ms) except -1
    cdef bytes take(self)


@cython.final
cdef class Workspace:
    """What a turn, or a render, works with: borrowed for it, and as if new. Nothing in it outlives the turn."""

    cdef Behaviour behaviour
    cdef Machine machine
    cdef Measure measure
    cdef Place place
    cdef EventBuffer events
    cdef TallyRecords tally
    cdef list actions
    cdef long long first_sequence
    cdef bytes id_field, time_field
    cdef bint is_later
    """The turn's time is another than that of the turn before."""
    cdef bint has_due  # deadlines were too many for the turn: those that are left come first
    cdef long long retry_after_ms  # what the failure that is answered asks of a retry, while it is the error under way
    cdef long long bytes_spent
    """Of values checked and written since the last step."""
    cdef object dumped
    """The output encoded last; outputs often pass through unchanged."""
    cdef bytes dumped_text


# --- the seam: core/seam.pxi ---

@cython.final
cdef class Facts:
    """What expressions may know of an execution as a whole; shared by its walk and its capsules."""

    cdef str execution_id
    cdef object input
    cdef dict env
    cdef object document
    cdef long long started_at_ms
    cdef Behaviour behaviour
    cdef dict workflow
    """`$workflow`, once something asked for it."""
    cdef dict runtime
    """`$runtime`, once something asked for it."""


@cython.final
cdef class Capsule:
    """An effect's arguments before they are rendered: the position, the values it reads, and the time."""

    cdef Facts facts
    cdef readonly int task_index
    cdef readonly long long now_ms
    cdef long long started_at_ms
    cdef object context, raw_input, input
    cdef Scope scope
    cdef object rendered
    """The arguments themselves, if an earlier format stored them; else None."""
    cdef object asked  # what the task's frame adds to the arguments; None for most


@cython.final
cdef class PerformEffect:
    cdef readonly long long effect_id
    cdef readonly Capsule capsule
    cdef readonly str kind, idempotency_key, reference


# --- the plan: core/plan/ ---

cdef enum:
    POSITION_DONE = -1      # after the last sibling
    POSITION_EXIT = -2      # the scope completes early
    POSITION_END = -3       # the workflow completes
    POSITION_BLOCKED = -4   # the frame waits for an effect, a timer or its branches
    POSITION_EXTENDED = -8  # minus the position that follows: where a task leads once its extensions are done


cdef enum:
    TEMPLATE_CONSTANT
    TEMPLATE_EXPRESSION
    TEMPLATE_OBJECT
    TEMPLATE_ARRAY


@cython.final
cdef class Schema:
    """A compiled JSON Schema; `_core.pyi` has the contract."""

    cdef object root
    cdef long long rule_count

    cdef str violation(self, object value, const Bounds* bounds, long long* steps_left)


@cython.final
cdef class Expression:
    """A program at a position: where the values of its free variables come from there."""

    cdef Program program
    cdef bytes sources
    """An ARGUMENT code per free variable."""
    cdef bint is_own
    """It sees what its holder binds (a loop its item, a catch its error), not only what surrounds the holder."""
    cdef bint is_path
    """It only picks a part of data that is clean already, so its result needs no check."""
    cdef str literal
    """In loose mode, the text itself: the value if evaluation fails."""


@cython.final
cdef class Template:
    """A value with expressions in it. Keys are never evaluated."""

    cdef int kind
    cdef object constant
    cdef object constant_before
    """The constant as executions of behaviour 1 have it, if that is another one."""
    cdef Expression expression
    cdef tuple keys
    cdef tuple parts


@cython.final
cdef class Duration:
    """Milliseconds, known beforehand or from an expression."""

    cdef long long ms
    cdef Expression expression


@cython.final
cdef class UriTemplate:
    """RFC 6570 with simple expansion only: literal strings, and one-element tuples that name a variable."""

    cdef tuple parts
    cdef Expression expression
    """Set where the whole URI is an expression; then there are no parts."""


@cython.final
cdef class TaskList:
    """Siblings in a scope of their own."""

    cdef tuple tasks
    cdef Py_ssize_t count
    cdef Py_ssize_t outlets
    """How many positions below POSITION_BLOCKED its task may lead to; 0 but for a task that extensions surround."""


cdef class TaskNode:
    """What every task has; a kind adds what it needs in its part."""

    cdef TaskKind kind
    cdef int index
    """Number of the task in the plan, in document order."""
    cdef str name, reference
    cdef object definition
    cdef int then
    """Position that follows: a sibling's or a negative one."""
    cdef int following
    """Position that follows without a directive."""
    cdef bint is_plain
    """None of the common properties below is there."""
    cdef Expression condition
    cdef Schema input_schema
    cdef Template input_from, output_as, export_as
    cdef Schema output_schema, export_schema
    cdef Duration timeout
    cdef EventParts event_started, event_retry, event_completed, event_failed
    cdef object authentication
    """How the calls of its effect prove who calls; None: not at all."""
    cdef int reads
    """What the arguments of its effect read, as bits; see READS."""
    cdef int scopes
    """How many scopes of variables surround it."""


@cython.final
cdef class Plan:
    """A compiled document; `_core.pyi` has the contract."""

    cdef readonly str dsl, namespace, name, version
    cdef readonly object document
    cdef readonly bytes digest
    cdef readonly dict resources
    cdef readonly bint is_pinned
    cdef readonly tuple warnings, submission_warnings, secrets
    cdef readonly frozenset namespaces_run
    cdef Behaviour behaviour
    """Of executions that start from it."""
    cdef list tasks
    """Every TaskNode by index."""
    cdef TaskList root
    cdef Schema input_schema
    cdef Template input_from
    cdef Template output_as
    cdef Schema output_schema
    cdef Duration timeout, schedule_every, schedule_after
    cdef EventParts event_started, event_validating, event_validated, event_paused, event_resumed
    cdef EventParts event_completed, event_failed, event_cancelled


@cython.final
cdef class Scope:
    """The variables of a loop or a handler; linked outwards and never modified."""

    cdef Scope parent
    cdef object first
    cdef object second
    cdef bytes iteration
    """Indices of the loops it lies in, outermost first, as events carry them; None outside of loops."""


@cython.final
cdef class Place:
    """The place a task is at: what its expressions see, and where in the walk it stands."""

    cdef Workspace work
    cdef Machine machine
    cdef Measure* measure
    cdef Facts facts
    cdef long long now_ms
    cdef TaskNode task
    """None: the workflow itself."""
    cdef str instance
    """JSON pointer for errors."""
    cdef Scope scope
    """What surrounds the task."""
    cdef Scope own_scope
    """The same with what the task itself binds."""
    cdef object context, raw_input, input, raw_output, output
    cdef dict secrets
    cdef object authorization
    cdef object asked  # see Capsule; while arguments are rendered
    cdef long long started_at_ms
    cdef long long timeout_at_ms
    """When the task that begins has taken too long; 0: never."""
    cdef int attempt
    cdef Strand strand
    cdef TaskFrame frame
    """The frame whose list the task stands in."""


# A row of the table of kinds (core/walk/kinds.pxi): what the walk does with a task of a kind, and when.
ctypedef TaskNode (*BuildFunction)(PlanBuilder builder, dict definition, Siblings siblings)
ctypedef TaskFrame (*FrameFunction)()
ctypedef int (*BeginFunction)(Walk walk, Place at, object data) except -1
ctypedef int (*LeaveFunction)(Walk walk, Strand strand, TaskFrame frame) except -1
ctypedef int (*AnswerFunction)(Walk walk, Resource resource, object value, dict error) except -1
ctypedef int (*CutFunction)(Walk walk, TaskFrame frame) except -1
ctypedef int (*ShiftFunction)(TaskFrame frame, long long paused_ms) except -1
ctypedef int (*WriteFunction)(SnapshotWriter writer, TaskFrame frame, list fields) except -1
ctypedef int (*ReadFunction)(SnapshotReader reader, TaskFrame frame, list fields) except -1
ctypedef dict (*RenderFunction)(Place at)


@cython.final
cdef class TaskKind:
    """One row of the table of kinds."""

    cdef readonly int number
    """Stands in snapshots and tallies, so it never changes."""
    cdef int written
    """What stands in snapshots: the number, or, of what surrounds tasks of the kind with extensions, one beyond all."""
    cdef readonly str name
    """Of the kind in metrics, and of its effect."""
    cdef readonly str feature
    """What the validator knows it by: the key of a task, or `call: <protocol>`."""
    cdef readonly bint has_effect
    """Something outside is performed for it."""
    cdef readonly bint counts_attempts
    """It counts attempts of its own, from 1; others show those of the `try` around them."""
    cdef BuildFunction build
    cdef FrameFunction frame
    cdef BeginFunction begin
    cdef LeaveFunction leave, wake
    cdef AnswerFunction answer
    cdef CutFunction cut
    cdef ShiftFunction shift
    cdef WriteFunction write
    cdef ReadFunction read
    cdef RenderFunction render
    cdef TaskKind extended
    """Of what stands in the place of a task of this kind that extensions surround."""


@cython.final
cdef class Siblings:
    """Where a task stands while it is built: its list, its position there, the variables it sees."""

    cdef list names
    cdef int position
    cdef str reference
    cdef Bindings bindings
    cdef bint is_extended
    """Extensions surround the task."""

    cdef int target(self, object then) except? -100


@cython.final
cdef class PlanBuilder:
    """Builds one plan, a task at a time."""

    cdef Document document
    cdef dict use
    cdef bint is_loose
    cdef object origin  # the ExternalResource that the task being built comes from; None: the workflow
    cdef Plan plan
    cdef Measure measure
    cdef list cursors
    """Lists that are being built, the innermost last."""
    cdef list opened
    """Lists that the task being built has in it."""
    cdef int reads
    """What the expressions bound so far read, as bits."""
    cdef dict extensions
    """By the word for a kind of task: those that surround such tasks, outermost first; None without any."""
    cdef bint is_extended
    """Extensions surround the tasks that are built."""

    cdef Expression expression(self, Position position, object text, Bindings bindings)
    cdef Expression condition(self, Position position, object value, Bindings bindings)
    cdef Template template(self, Position position, object value, Bindings bindings)
    cdef Template slot(self, Position position, object value, Bindings bindings)
    cdef Schema schema(self, object section)
    cdef Duration duration(self, Position position, object value, Bindings bindings)
    cdef Duration timeout(self, Position position, object value, Bindings bindings)
    cdef UriTemplate uri(self, Position position, object value, Bindings bindings)
    cdef TaskList tasks(self, Position position, list items, str pointer, Bindings bindings)
    cdef TaskList branch(self, Position position, dict item, int number, str pointer, Bindings bindings)
    cdef bint step(self, Py_ssize_t budget) except -1
    cdef int begin(self) except -1
    cdef int add_common(self, TaskNode task, dict definition, Bindings bindings) except -1
    cdef Expression bind(self, Position position, str source, Bindings bindings)
    cdef Expression candidate(self, Position position, str text, Bindings bindings)
    cdef Template text_template(self, Position position, str text, Bindings bindings)


# --- the walk: core/walk/ ---

cdef class TaskFrame:
    """A running task: a list of subtasks (`do`, or the bottom of a strand), or a task that waits for something."""

    cdef TaskFrame parent
    cdef TaskNode task
    """None at the bottom of a strand."""
    cdef TaskList body
    cdef int position
    """The subtask that comes next, or a negative POSITION."""
    cdef object data
    """What flows into the next subtask."""
    cdef object raw_input
    cdef object input
    cdef long long started_at_ms
    cdef long long timeout_at_ms
    """0: no timeout."""
    cdef long long limit_at_ms
    """When what the frame runs now has taken too long, by a rule of its kind; 0: never."""
    cdef Scope scope
    """The variables of the body."""
    cdef int attempt
    """Of the task itself, for its events."""
    cdef int body_attempt
    """Of subtasks: how often the nearest `try` around them has begun."""
    cdef list resources
    """What it holds outside; None without any."""


@cython.final
cdef class Resource:
    """Something outside that an execution waits for or holds: an effect in flight, a subscription."""

    cdef long long id
    cdef object action
    """The PerformEffect or Subscribe that asked for it."""
    cdef Strand strand
    cdef TaskFrame frame
    """Whose end releases it; None: an effect that goes on whatever the workflow does."""
    cdef bint is_answered
    """Its only outcome has arrived and is held."""
    cdef object authorization
    """What it was performed with, for `$authorization`; in no snapshot."""


@cython.final
cdef class Strand:
    """One line of control: the workflow itself, or a branch of a running fork."""

    cdef long long id
    cdef TaskFrame owner
    """The fork this strand is a branch of; None for the workflow's own."""
    cdef Strand owner_strand
    cdef int branch
    cdef bint has_exported
    cdef TaskFrame top
    cdef object context
    cdef long long wake_at_ms
    """When the top frame goes on; 0 unless it waits for a time."""
    cdef bint is_ready  # it can take a step, and is in the walk's queue
    cdef int steps_left
    """Steps until it lets other strands go first."""


cdef enum:
    STATUS_RUNNING
    STATUS_PAUSED
    STATUS_COMPLETED
    STATUS_FAILED
    STATUS_CANCELLED


@cython.final
cdef class Walk:
    """One execution; `_core.pyi` has the contract.

    Those that wait are many: what has four bytes stands in pairs, here and above."""

    cdef readonly Plan plan
    cdef Facts facts
    cdef dict secrets
    cdef tuple hidden
    """Texts in them that errors must not show."""
    cdef Workspace work
    """During a turn; None between turns."""
    cdef int state
    cdef readonly int effects_in_flight
    cdef readonly object output
    cdef readonly object error
    cdef readonly long long wake_at_ms
    cdef readonly long long last_sequence
    cdef long long now_ms, timeout_at_ms, paused_at_ms
    cdef long long grace_until_ms
    """When a graceful cancel stops waiting for effects; 0 unless one is under way."""
    cdef str cancel_reason
    cdef unsigned long long random_state
    cdef long long next_strand_id, next_resource_id
    cdef dict strands
    """By id, in the order of their ids."""
    cdef Strand lone
    """Between turns: the only strand, which is not in `strands` then."""
    cdef list ready
    """Strands that can take a step; the first one does."""
    cdef dict resources
    """What is held outside, by id, in the order of the ids."""
    cdef long long steps_taken
    cdef list held
    """Outcomes that arrived while paused, in order: (resource, value, error or None)."""
    cdef dict visits
    """Index of a calling task -> [iteration, attempt] of its latest effect."""
    cdef dict input_paths
    """For snapshots: where in the input values are, by identity."""


@cython.final
cdef class SnapshotWriter:
    cdef dict input_paths
    cdef list table
    cdef dict places

    cdef object value(self, object value)
    cdef list values(self, list values)


@cython.final
cdef class SnapshotReader:
    cdef Walk walk
    cdef list table
    cdef Strand strand
    """Whose frames are being read."""

    cdef object value(self, object place)
    cdef list values(self, list places)
    cdef dict error(self, object place)
