"""Support of stages 2 and 4: what decides an execution's outcomes beside its document and data.

Rules: an execution keeps the behaviour it was started with, through restarts and upgrades. What it keeps is the version
of the semantics, the bounds that decide outcomes or where a slice ends, and the runner's version as `$runtime` has it.
A change of semantics, or of one of these bounds, is a new version: a row in BOUNDS_BY_VERSION, and a condition on
`behaviour.version` where the walk would go another way.
"""

from fastrunner._jq cimport Bounds
from operator import itemgetter as _itemgetter

from fastrunner import _version
from fastrunner.base import limits as _limits

BOUND_NAMES = (
    "WALK_STEPS_PER_SLICE_MAX",
    "WALK_EXPRESSION_STEPS_PER_STEP",
    "STRAND_STEPS_MAX",
    "EVENTS_PER_EXECUTION_MAX",
    "ITERATIONS_PER_LOOP_MAX",
    "DATA_DEPTH_MAX",
    "DATA_SIZE_BYTES_MAX",
    "OUTPUT_JSON_SIZE_BYTES_MAX",
    "SCHEMA_STEPS_MAX",
    "WALK_DATA_BYTES_PER_STEP",
    "STEPS_PER_EXECUTION_MAX",
    "EVENT_ERROR_SIZE_CHARS_MAX",
    "EXPRESSION_STEPS_MAX",
    "EXPRESSION_DEPTH_MAX",
    "EXPRESSION_OUTPUTS_MAX",
    "EXPRESSION_ARRAY_SIZE_MAX",
    "EXPRESSION_STRING_SIZE_MAX",
    "EXPRESSION_ERROR_SIZE_MAX",
    "REGEX_SIZE_CHARS_MAX",
    "REGEX_DEPTH_MAX",
    "REGEX_INSTRUCTIONS_MAX",
    "REGEX_STACK_MAX",
)
# Bounds of what runs on the stack of C; whatever a snapshot tells, it must not overflow.
cdef frozenset STACK_BOUNDS = frozenset(("DATA_DEPTH_MAX", "REGEX_DEPTH_MAX"))
cdef object NESTING_MAX = 1000
cdef object BOUND_MAX = (1 << 31) - 1
cdef object read_bounds = _itemgetter(*BOUND_NAMES)

cdef dict BOUNDS_BY_VERSION = {
    1: (250, 64, 50, 2_000_000, 100_000, 200, 16_777_216, 65_536, 2_000_000, BOUND_MAX, BOUND_MAX, BOUND_MAX,
        2_000_000, 200_000, 100_000, 1_000_000, 8_388_608, 4_096, 10_000, 250, 30_000, 524_288),
    # Numbers leave as plain integers where they are integral, an infinity as the largest double; data counts as steps,
    # and the steps of an execution are bounded; error texts in events are cut.
    2: (250, 64, 50, 2_000_000, 100_000, 200, 33_554_432, 65_536, 2_000_000, 512, 10_000_000, 4_096,
        2_000_000, 200_000, 100_000, 1_000_000, 8_388_608, 4_096, 10_000, 250, 30_000, 524_288),
}
cdef int BEHAVIOUR_VERSION = max(BOUNDS_BY_VERSION)
cdef Behaviour newest_behaviour = None


cdef Behaviour make_behaviour(int version, str runner_version, tuple bounds):
    cdef Behaviour behaviour = Behaviour.__new__(Behaviour)
    cdef Bounds expressions
    if len(bounds) != len(BOUND_NAMES):
        raise ValueError("not the bounds of an execution")
    behaviour.version, behaviour.runner_version, behaviour.bounds = version, runner_version, bounds
    (behaviour.steps_per_slice_max, behaviour.expression_steps_per_step, behaviour.strand_steps_max,
     behaviour.events_max, behaviour.iterations_max, behaviour.data_depth_max, behaviour.data_size_bytes_max,
     behaviour.output_json_size_bytes_max, behaviour.schema_steps_max, behaviour.data_bytes_per_step,
     behaviour.steps_max, behaviour.event_error_size_max, expressions.steps, expressions.depth, expressions.outputs,
     expressions.array_size, expressions.string_size, expressions.error_size,
     expressions.regex_size, expressions.regex_depth, expressions.regex_instructions, expressions.regex_stack) = bounds
    behaviour.expressions = expressions
    # Bounds that are those of the version are not repeated in each snapshot.
    behaviour.written = [version, runner_version, None if bounds == BOUNDS_BY_VERSION[version] else list(bounds)]
    return behaviour


cdef Behaviour behaviour_now():
    """What executions of a plan that is made now keep."""
    global newest_behaviour
    cdef tuple bounds = read_bounds(_limits.__dict__)
    cdef Behaviour newest = newest_behaviour
    if newest is None or newest.bounds != bounds or newest.runner_version != _version.__version__:
        newest = newest_behaviour = make_behaviour(BEHAVIOUR_VERSION, _version.__version__, bounds)
    return newest


cdef Behaviour with_bounds(Behaviour behaviour, object bounds):
    """The same with other bounds, by name. Raises ValueError for a name or a value that is none."""
    cdef list values
    if not bounds:
        return behaviour
    values = list(behaviour.bounds)
    for name, bound in bounds.items():
        values[BOUND_NAMES.index(name)] = bound
    return make_behaviour(behaviour.version, behaviour.runner_version, told_bounds(values))


cdef tuple told_bounds(list told):
    """Bounds that a snapshot tells. Raises ValueError for what nobody has set."""
    cdef tuple bounds = tuple(told)
    for name, bound in zip(BOUND_NAMES, bounds):
        if not isinstance(bound, int) or not 1 <= bound <= (NESTING_MAX if name in STACK_BOUNDS else BOUND_MAX):
            raise ValueError(f"not a bound of an execution: {name} is {bound}")
    return bounds


cdef Behaviour behaviour_of(list written, Behaviour usual):
    """The behaviour a snapshot tells, `usual` if it is that. Raises ValueError for one of a later runner."""
    cdef str runner_version
    if written == usual.written:
        return usual
    version, runner_version, bounds = written
    if version not in BOUNDS_BY_VERSION:
        raise ValueError(f"the snapshot has behaviour version {version}; this runner knows up to {BEHAVIOUR_VERSION}")
    bounds = BOUNDS_BY_VERSION[version] if bounds is None else told_bounds(bounds)
    return make_behaviour(version, runner_version, bounds)
