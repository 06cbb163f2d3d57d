"""Stage 5, tasks: capsules become arguments: in this worker or another process, the same each time.

Rules: a capsule holds what the arguments of its task read and nothing else; what is written of it too. Secrets are
given when it is rendered and are in no capsule. Each position of the arguments has a budget of its own.
"""

cdef int CAPSULE_FORMAT = 2


class RenderFault(Exception):
    """Arguments that could not be made; `error` is the DSL error the task fails with."""

    def __init__(self, error):
        super().__init__(error["type"])
        self.error = error


cdef Capsule make_capsule(Place at):
    """The effect of the task at a place."""
    cdef Capsule capsule = Capsule.__new__(Capsule, KEY)
    capsule.facts = at.facts
    capsule.task_index = at.task.index
    capsule.now_ms = at.now_ms
    capsule.started_at_ms = at.started_at_ms
    capsule.input = at.input
    if at.task.reads & READS_CONTEXT:
        capsule.context = at.context
    if at.task.reads & READS_TASK:
        capsule.raw_input = at.raw_input
    if at.task.reads & READS_SCOPE:
        capsule.scope = at.scope
    return capsule


cdef bint asks_authorization(Plan plan, Capsule capsule) except -1:
    """Whether arguments of the effect name `$authorization`, which comes from its policy."""
    cdef TaskNode task = <TaskNode> plan.tasks[capsule.task_index]
    return task.authentication is not None and task.reads & READS_AUTHORIZATION != 0


cdef dict render_capsule(Plan plan, Capsule capsule, object secrets, object authorization, bint is_policy):
    """The arguments of an effect, or only its policy. Raises RenderFault."""
    cdef Workspace work
    cdef Place at
    cdef dict arguments
    cdef TaskNode task = <TaskNode> plan.tasks[capsule.task_index]
    if capsule.rendered is not None:
        return dict(capsule.rendered)
    if not task.kind.has_effect:
        raise ValueError("the capsule belongs to another document")
    work = borrow_workspace(capsule.facts.behaviour)
    at = work.place
    at.facts = capsule.facts
    at.now_ms = capsule.now_ms
    show_secrets(at, known_secrets(plan, secrets))
    at.task = task
    at.instance = task.reference
    at.scope = at.own_scope = capsule.scope
    at.context, at.raw_input, at.input = capsule.context, capsule.raw_input, capsule.input
    at.raw_output = at.output = None
    at.started_at_ms = capsule.started_at_ms
    at.authorization = authorization
    at.asked = capsule.asked
    try:
        arguments = {} if is_policy else task.kind.render(at)
        if task.authentication is not None:
            arguments["authentication"] = render_authentication(at, <Authentication> task.authentication)
    except WalkFault as fault:
        return_workspace(work)
        raise RenderFault(fault.error) from None
    return_workspace(work)
    return arguments


# --- capsules as bytes ---

cdef list scope_values(Scope scope):
    """Variables from the innermost scope outwards."""
    cdef list values = []
    while scope is not None:
        values.append([scope.first, scope.second])
        scope = scope.parent
    return values


cdef Scope scope_of(TaskNode task, list values):
    """The scopes a task's arguments read. Raises ValueError if they are not as many as surround it."""
    cdef Scope scope = None
    if len(values) != (task.scopes if task.reads & READS_SCOPE else 0):
        raise ValueError("not the variables that surround the task")
    for first, second in reversed(values):
        scope = make_scope(scope, first, second)
    return scope


cdef bytes dump_capsule(Plan plan, Capsule capsule):
    """All that `load_capsule` needs in another process, but for the plan."""
    cdef Facts facts = capsule.facts
    return bytes([CAPSULE_FORMAT]) + dump_json([
        plan.digest.hex(),
        facts.execution_id,
        facts.input if (<TaskNode> plan.tasks[capsule.task_index]).reads & READS_WORKFLOW else None,
        facts.env,
        facts.started_at_ms,
        facts.behaviour.written,
        capsule.task_index,
        capsule.now_ms,
        capsule.started_at_ms,
        capsule.context,
        capsule.raw_input,
        capsule.input,
        scope_values(capsule.scope),
        capsule.rendered,
        capsule.asked,
    ])


cdef Capsule read_capsule(Plan plan, bytes data):
    """Raises ValueError for what no plan of this document has dumped."""
    cdef Capsule capsule = Capsule.__new__(Capsule, KEY)
    cdef Facts facts = Facts.__new__(Facts)
    if not data or data[0] != CAPSULE_FORMAT:
        raise ValueError("not a capsule, or one of a format this runner does not know")
    try:
        (digest, facts.execution_id, facts.input, facts.env, facts.started_at_ms, behaviour, capsule.task_index,
         capsule.now_ms, capsule.started_at_ms, capsule.context, capsule.raw_input, capsule.input, scopes,
         capsule.rendered, capsule.asked) = load_json(data[1:])
        if digest != plan.digest.hex() or not 0 <= capsule.task_index < len(plan.tasks):
            raise ValueError("it belongs to another document")
        facts.behaviour = behaviour_of(behaviour, plan.behaviour)
        capsule.scope = scope_of(<TaskNode> plan.tasks[capsule.task_index], scopes)
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"the capsule is damaged: {error}") from None
    facts.document = plan.document
    capsule.facts = facts
    return capsule
