"""Stage 4, walk: values in the place a task is at: expressions, templates, schemas, durations, URIs.

Rules: every failure here is a WalkFault whose `instance` is the place's pointer. Text that arrives in data is never
evaluated. Values of arguments are made only when an expression names them. What is here needs a place and no walk, so
that a capsule renders anywhere as it would in the walk that made it.
"""

from datetime import datetime as _datetime
from datetime import timezone as _timezone

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM

from fastrunner._jq import BudgetExceeded, ExpressionError, MissingMember

cdef tuple NO_ARGUMENTS = ()
cdef Py_ssize_t EXPRESSION_SHOWN_MAX = 120
cdef str UNRESERVED = "-._~"


cdef int enter_workflow(Place at, str instance, object context) except -1:
    """Expressions of the workflow itself follow."""
    at.task = None
    at.instance = instance
    at.scope = at.own_scope = None
    at.context = context
    at.raw_input = at.input = at.raw_output = at.output = None
    at.strand = None
    at.frame = None
    return 0


cdef object fault_here(Place at, str name, str detail):
    """The exception for a standard error of the place."""
    return WalkFault(make_error(name, detail, at.instance))


# --- expressions ---

cdef inline object evaluate(Place at, Expression expression, object dot, int depth):
    """An expression's value, on a budget of its own unless it stands in a template, whose parts share one; `depth` is
    how deep."""
    if depth == 0:
        at.machine.allow()
    return evaluate_on(at, expression, dot, depth)


cdef object evaluate_on(Place at, Expression expression, object dot, int depth):
    """`evaluate` on what is left of the budget."""
    cdef object value
    cdef Measure* measure = at.measure
    cdef str message, text
    try:
        value = expression.program.evaluate(
            at.machine, dot, arguments_of(at, expression) if expression.sources else NO_ARGUMENTS, at.now_ms
        )
        if expression.is_path and depth == 0:
            return value
        return safe_part(measure, value, measure.depth_max - depth) if depth else json_safe(measure, value)
    except MissingMember as error:
        raise fault_here(at, "authorization", secret_fault(at, error.value)) from None
    except (ExpressionError, Unkept) as error:
        message = UNSAID if reads_secrets(expression) else str(error)
        if isinstance(error, BudgetExceeded):
            at.work.tally.add(0, TALLY_OVER_BUDGET, 0)
    if expression.literal is not None:
        return expression.literal
    text = expression.program.text
    if len(text) > EXPRESSION_SHOWN_MAX:
        text = text[:EXPRESSION_SHOWN_MAX] + "..."
    raise fault_here(at, "expression", f"{message} (in {text})")


cdef int show_secrets(Place at, dict secrets) except -1:
    """`$secrets` from here on. Whoever asks for a member that it has not hears why; only a document that was stored
    before secrets were there asks without having declared any, and goes on with null."""
    at.secrets = secrets
    at.machine.state.guarded = NULL if secrets is NO_SECRETS else <void*> secrets
    return 0


cdef bint holds(Place at, Expression condition, object dot) except -1:
    """Whether a condition is true of a value."""
    return is_true(evaluate(at, condition, dot, 0))


cdef bint holds_on(Place at, Expression condition, object dot) except -1:
    """`holds` on what is left of the budget."""
    return is_true(evaluate_on(at, condition, dot, 0))


cdef tuple arguments_of(Place at, Expression expression):
    cdef bytes sources = expression.sources
    cdef Scope scope = at.own_scope if expression.is_own else at.scope
    cdef Py_ssize_t index
    cdef tuple values = PyTuple_New(PyBytes_GET_SIZE(sources))
    cdef object value
    for index in range(PyBytes_GET_SIZE(sources)):
        value = argument(at, scope, <unsigned char> PyBytes_AS_STRING(sources)[index])
        Py_INCREF(value)
        PyTuple_SET_ITEM(values, index, value)
    return values


cdef object argument(Place at, Scope scope, int source):
    if source >= ARGUMENT_SCOPED:
        source -= ARGUMENT_SCOPED
        while source >= 2:
            scope = scope.parent
            source -= 2
        return scope.second if source else scope.first
    if source == ARGUMENT_CONTEXT:
        return at.context
    if source == ARGUMENT_INPUT:
        return at.input
    if source == ARGUMENT_OUTPUT:
        return at.output
    if source == ARGUMENT_TASK:
        return task_facts(at)
    if source == ARGUMENT_WORKFLOW:
        return workflow_facts(at.facts)
    if source == ARGUMENT_RUNTIME:
        return runtime_facts(at.facts)
    return at.secrets if source == ARGUMENT_SECRETS else proven(at)


cdef object proven(Place at):
    """`$authorization`; null in a task that has no policy."""
    if at.authorization is None and at.task is not None and at.task.authentication is not None:
        raise fault_here(at, "authorization", "$authorization has no value: the task has not authenticated yet, or the "
                         "runner was started anew since, and it is kept in no file")
    return at.authorization


cdef dict task_facts(Place at):
    """`$task`; the workflow itself is none, so its places see an empty object."""
    if at.task is None:
        return {}
    return facts_of_task(at.task, at.raw_input, at.raw_output, at.started_at_ms)


cdef dict facts_of_task(TaskNode task, object raw_input, object raw_output, long long started_at_ms):
    return {
        "name": task.name,
        "reference": task.reference,
        "definition": task.definition,
        "input": raw_input,
        "output": raw_output,
        "startedAt": moment(started_at_ms),
    }


cdef dict workflow_facts(Facts facts):
    if facts.workflow is None:
        facts.workflow = {
            "id": facts.execution_id,
            "definition": facts.document,
            "input": facts.input,
            "startedAt": moment(facts.started_at_ms),
        }
    return facts.workflow


cdef dict runtime_facts(Facts facts):
    if facts.runtime is None:
        facts.runtime = {
            "name": "fastrunner",
            "version": facts.behaviour.runner_version,
            "metadata": {"env": facts.env},
        }
    return facts.runtime


cdef dict moment(long long at_ms):
    """A time as the DSL has it."""
    cdef object seconds = _datetime.fromtimestamp(at_ms // 1000, _timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    return {
        "iso8601": f"{seconds}.{at_ms % 1000:03d}Z",
        "epoch": {"seconds": at_ms // 1000, "milliseconds": at_ms},
    }


# --- templates, schemas, durations ---

cdef object fill(Place at, Template template, object dot, int depth):
    """A template's value. Recurses over the template, whose depth the document bounds."""
    cdef list values
    cdef dict fields
    cdef Py_ssize_t index
    if template.kind == TEMPLATE_EXPRESSION:
        return evaluate(at, template.expression, dot, depth)
    if template.kind == TEMPLATE_CONSTANT:
        if template.constant_before is not None and at.facts.behaviour.version < PLAIN_NUMBERS_SINCE:
            return template.constant_before
        return template.constant
    if depth == 0:
        allow_data(at.measure)
        at.machine.allow()
    if template.kind == TEMPLATE_ARRAY:
        values = []
        for part in template.parts:
            values.append(fill(at, <Template> part, dot, depth + 1))
        return values
    fields = {}
    for index in range(len(template.parts)):
        fields[template.keys[index]] = fill(at, <Template> template.parts[index], dot, depth + 1)
    return fields


cdef int match_schema(Place at, Schema schema, object value, str what) except -1:
    """Raises WalkFault for a value that does not match, and for one whose check takes too long."""
    cdef Behaviour behaviour = at.facts.behaviour
    cdef long long steps_left = behaviour.schema_steps_max
    cdef str violation = schema.violation(value, &behaviour.expressions, &steps_left)
    # Long checks end a slice early, as long evaluations do.
    at.machine.state.steps_spent += behaviour.schema_steps_max - steps_left
    if violation is not None:
        raise fault_here(at, "validation", f"{what} does not match its schema: {violation}")
    return 0


cdef long long duration_of(Place at, Duration duration, object dot) except? -1:
    """Milliseconds, not negative."""
    cdef object value
    cdef object ms
    if duration.expression is None:
        return min(max(duration.ms, 0), DURATION_MS_MAX)
    value = evaluate(at, duration.expression, dot, 0)
    try:
        if not isinstance(value, str):
            raise ValueError
        ms = duration_ms(value)
    except ValueError:
        raise fault_here(
            at, "expression", f"not an ISO 8601 duration (in {duration.expression.program.text})"
        ) from None
    return min(max(ms, 0), DURATION_MS_MAX)


cdef long long bounded_ms(double ms) noexcept:
    """Milliseconds that were calculated: not more than any duration has."""
    return <long long> min(ms, <double> DURATION_MS_MAX)


cdef long long deadline_of(Place at, Duration timeout, object dot) except? -1:
    """The deadline a timeout sets from now; 0 without a timeout."""
    return 0 if timeout is None else at.now_ms + duration_of(at, timeout, dot)


# --- URIs ---

cdef str expand_uri(Place at, UriTemplate template, object dot):
    """A URI: RFC 6570 simple expansion over the top-level properties of the task's input, or an expression's text."""
    cdef list expanded = []
    if template.expression is not None:
        value = evaluate(at, template.expression, dot, 0)
        if not isinstance(value, str):
            raise fault_here(at, "expression", "the endpoint is not a string")
        return value
    for part in template.parts:
        expanded.append(part if isinstance(part, str) else uri_value(at, part[0], dot))
    return "".join(expanded)


cdef str uri_value(Place at, str name, object dot):
    if dot is None:
        return ""
    if not isinstance(dot, dict):
        raise fault_here(at, "expression", f"the URI template's {{{name}}} needs an object as the task's input")
    value = dot.get(name)
    if value is None:
        return ""
    if isinstance(value, str):
        return percent_encode(value)
    if isinstance(value, (dict, list)):
        raise fault_here(at, "expression", f"the URI template's {{{name}}} is an object or an array")
    return percent_encode(dump_json(value).decode())


cdef str percent_encode(str text):
    cdef list encoded = []
    for character in text:
        if character.isascii() and (character.isalnum() or character in UNRESERVED):
            encoded.append(character)
        else:
            encoded.extend([f"%{byte:02X}" for byte in character.encode()])
    return "".join(encoded)
