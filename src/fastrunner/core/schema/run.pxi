"""Stage 4, walk: one check of one value: its budget, where it is, what it knows already.

Rules: a step stands for about 20 ns, as in expressions. What is counted depends on the schema and the data alone: a
value is known by its place in the data, never by its identity, because after a restart two places hold two objects
where one was before. Verdicts are kept only in checks that take long, so that short ones pay nothing for it.
"""

cimport cython
from cpython.ref cimport PyObject

from fastrunner._jq cimport Bounds
from fastrunner.base.limits import SCHEMA_DEPTH_MAX as _SCHEMA_DEPTH_MAX

cdef int SCHEMA_DEPTH_MAX = _SCHEMA_DEPTH_MAX
# Steps after which verdicts are kept.
cdef long long KEEPING_STEPS_MIN = 10_000


class SchemaUndecided(Exception):
    """A check that has to end without a verdict."""


cdef struct Spot:
    # A place in the data: which member or item of the one above; `position` is its number once it has one, or -1.
    Spot* above
    PyObject* name
    Py_ssize_t index
    # The name of the member itself, not its value.
    bint is_name
    long long position


@cython.internal
@cython.final
@cython.freelist(8)
cdef class SchemaScope:
    """What dynamic anchors mean: for each name the rule in the outermost resource that has it."""

    cdef long long number
    cdef dict bound
    cdef dict verdicts
    """What is known: by place and rule."""
    cdef set pending
    """What is being found out, of rules that may lead to themselves."""


@cython.internal
@cython.final
@cython.freelist(8)
cdef class SchemaRun:
    cdef long long left
    cdef long long steps_max
    cdef long long keeping_below
    cdef int depth
    cdef const Bounds* bounds
    cdef long long rule_count
    cdef SchemaScope scope
    cdef dict scopes
    cdef dict positions


cdef SchemaRun new_run(long long rule_count, const Bounds* bounds, long long steps):
    cdef SchemaRun run = SchemaRun.__new__(SchemaRun)
    run.left = run.steps_max = steps
    run.keeping_below = steps - KEEPING_STEPS_MIN
    run.bounds = bounds
    run.rule_count = rule_count
    run.scope = SchemaScope.__new__(SchemaScope)
    return run


cdef int run_out(SchemaRun run) except -1:
    run.left = 0
    raise SchemaUndecided(f"schema took more than {run.steps_max} steps")


cdef inline int spend(SchemaRun run, long long steps) except -1:
    run.left -= steps
    if run.left < 0:
        run_out(run)
    return 0


cdef int nested_too_deep() except -1:
    raise SchemaUndecided(f"schemas apply within schemas more than {SCHEMA_DEPTH_MAX} times")


cdef inline void begin_spot(Spot* spot, Spot* above) noexcept:
    spot.above = above
    spot.name = NULL
    spot.index = 0
    spot.is_name = False
    spot.position = 0 if above == NULL else -1


cdef long long position_of(SchemaRun run, Spot* spot) except -1:
    """The number of a place: places are numbered as they are asked for. Recurses over the data's depth."""
    cdef object key, found
    cdef long long above
    if spot.position >= 0:
        return spot.position
    above = position_of(run, spot.above)
    spend(run, 10)
    if spot.name == NULL:
        key = (above, spot.index)
    else:
        key = (above, <object> spot.name, spot.is_name)
    if run.positions is None:
        run.positions = {}
    found = run.positions.get(key)
    if found is None:
        found = run.positions[key] = len(run.positions) + 1
    spot.position = found
    return spot.position


cdef SchemaScope entered(SchemaRun run, dict names):
    """The scope within a resource: what the ones around it bind stays."""
    cdef SchemaScope scope = run.scope
    cdef dict bound = None
    cdef SchemaRule rule
    for name in names:
        spend(run, 2)
        if scope.bound is None or name not in scope.bound:
            if bound is None:
                bound = {} if scope.bound is None else dict(scope.bound)
            bound[name] = names[name]
    if bound is None:
        return scope
    spend(run, 10 + 4 * len(bound))
    key = tuple([(name, (<SchemaRule> bound[name]).number) for name in sorted(bound)])
    if run.scopes is None:
        run.scopes = {}
    scope = run.scopes.get(key)
    if scope is None:
        scope = SchemaScope.__new__(SchemaScope)
        scope.number = len(run.scopes) + 1
        scope.bound = bound
        run.scopes[key] = scope
    return scope
