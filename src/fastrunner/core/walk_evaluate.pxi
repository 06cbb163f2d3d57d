"""Stage 4, walk: values in the place a task is at: expressions, templates, schemas, durations, URIs.

Rules: every failure here is a WalkFault whose `instance` is the place's pointer. Text that arrives in data is never
evaluated. Values of arguments are made only when an expression names them.
"""

from datetime import datetime as _datetime
from datetime import timezone as _timezone

from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM

from fastrunner._jq import BudgetExceeded as _BudgetExceeded
from fastrunner._jq import ExpressionError as _ExpressionError

cdef tuple NO_ARGUMENTS = ()
cdef dict NO_SECRETS = {}
cdef Py_ssize_t EXPRESSION_SHOWN_MAX = 120
cdef str UNRESERVED = "-._~"


cdef int at_workflow(Walk walk, str instance, object context) except -1:
    """Expressions of the workflow itself follow."""
    walk.at_task = None
    walk.at_instance = instance
    walk.at_scope = None
    walk.at_context = context
    walk.at_raw_input = walk.at_input = walk.at_raw_output = walk.at_output = None
    return 0


cdef int at_place(Walk walk, TaskNode task, Strand strand, Scope scope, object raw_input, object input,
                  long long started_at_ms) except -1:
    """Expressions of a task follow."""
    walk.at_task = task
    walk.at_instance = task.reference
    walk.at_scope = scope
    walk.at_context = strand.context
    walk.at_raw_input = raw_input
    walk.at_input = input
    walk.at_raw_output = walk.at_output = None
    walk.at_started_at_ms = started_at_ms
    return 0


cdef object fault_here(Walk walk, str name, str detail):
    """The exception for a standard error of the place."""
    return WalkFault(make_error(name, detail, walk.at_instance))


cdef object evaluate_here(Walk walk, Expression expression, object dot, int depth):
    """An expression's value; `depth` is how deep in a template it stands. A template shares one budget."""
    cdef object value
    cdef str message, text
    if depth == 0:
        walk.machine.allow()
    try:
        value = expression.program.evaluate(
            walk.machine,
            dot,
            arguments_of(walk, expression.sources) if expression.sources else NO_ARGUMENTS,
            walk.now_ms,
        )
        if expression.is_path and depth == 0:
            return value
        return safe_part(value, DATA_DEPTH_MAX - depth) if depth else json_safe(value, DATA_DEPTH_MAX)
    except (_ExpressionError, _Unkept) as error:
        message = str(error)
        if isinstance(error, _BudgetExceeded):
            tally(0, TALLY_OVER_BUDGET, 0)
    if expression.literal is not None:
        return expression.literal
    text = expression.program.text
    if len(text) > EXPRESSION_SHOWN_MAX:
        text = text[:EXPRESSION_SHOWN_MAX] + "..."
    raise fault_here(walk, "expression", f"{message} (in {text})")


cdef tuple arguments_of(Walk walk, bytes sources):
    cdef Py_ssize_t index
    cdef tuple values = PyTuple_New(PyBytes_GET_SIZE(sources))
    cdef object value
    for index in range(PyBytes_GET_SIZE(sources)):
        value = argument(walk, <unsigned char> PyBytes_AS_STRING(sources)[index])
        Py_INCREF(value)
        PyTuple_SET_ITEM(values, index, value)
    return values


cdef object argument(Walk walk, int source):
    cdef Scope scope
    if source >= ARGUMENT_SCOPED:
        source -= ARGUMENT_SCOPED
        scope = walk.at_scope
        while source >= 2:
            scope = scope.parent
            source -= 2
        return scope.second if source else scope.first
    if source == ARGUMENT_CONTEXT:
        return walk.at_context
    if source == ARGUMENT_INPUT:
        return walk.at_input
    if source == ARGUMENT_OUTPUT:
        return walk.at_output
    if source == ARGUMENT_TASK:
        return task_facts(walk)
    if source == ARGUMENT_WORKFLOW:
        return workflow_facts(walk)
    if source == ARGUMENT_RUNTIME:
        return runtime_facts(walk)
    return NO_SECRETS if source == ARGUMENT_SECRETS else None


cdef dict task_facts(Walk walk):
    """`$task`; None has no task, so workflow-level places see an empty object."""
    if walk.at_task is None:
        return {}
    return {
        "name": walk.at_task.name,
        "reference": walk.at_task.reference,
        "definition": walk.at_task.definition,
        "input": walk.at_raw_input,
        "output": walk.at_raw_output,
        "startedAt": moment(walk.at_started_at_ms),
    }


cdef dict workflow_facts(Walk walk):
    if walk.workflow_facts is None:
        walk.workflow_facts = {
            "id": walk.execution_id,
            "definition": walk.plan.document,
            "input": walk.input,
            "startedAt": moment(walk.started_at_ms),
        }
    return walk.workflow_facts


cdef dict runtime_facts(Walk walk):
    if walk.runtime_facts is None:
        walk.runtime_facts = {"name": "fastrunner", "version": _runner_version, "metadata": {"env": walk.env}}
    return walk.runtime_facts


cdef dict moment(long long at_ms):
    """A time as the DSL has it."""
    cdef object seconds = _datetime.fromtimestamp(at_ms // 1000, _timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    return {
        "iso8601": f"{seconds}.{at_ms % 1000:03d}Z",
        "epoch": {"seconds": at_ms // 1000, "milliseconds": at_ms},
    }


cdef object render(Walk walk, Template template, object dot, int depth):
    """A template's value. Recurses over the template, whose depth the document bounds."""
    cdef list values
    cdef dict fields
    cdef Py_ssize_t index
    if depth == 0:
        allow_data()
        walk.machine.allow()
    if template.kind == TEMPLATE_CONSTANT:
        return template.constant
    if template.kind == TEMPLATE_EXPRESSION:
        return evaluate_here(walk, template.expression, dot, depth)
    if template.kind == TEMPLATE_ARRAY:
        values = []
        for part in template.parts:
            values.append(render(walk, <Template> part, dot, depth + 1))
        return values
    fields = {}
    for index in range(len(template.parts)):
        fields[template.keys[index]] = render(walk, <Template> template.parts[index], dot, depth + 1)
    return fields


cdef int match_schema(Walk walk, Schema schema, object value, str what) except -1:
    cdef str violation
    if schema is not None:
        violation = schema.violation(value)
        if violation is not None:
            raise fault_here(walk, "validation", f"{what} does not match its schema: {violation}")
    return 0


cdef long long duration_of(Walk walk, Duration duration, object dot) except? -1:
    """Milliseconds, not negative."""
    cdef object value
    cdef object ms
    if duration.expression is None:
        return min(max(duration.ms, 0), DURATION_MS_MAX)
    value = evaluate_here(walk, duration.expression, dot, 0)
    try:
        if not isinstance(value, str):
            raise ValueError
        ms = duration_ms(value)
    except ValueError:
        raise fault_here(
            walk, "expression", f"not an ISO 8601 duration (in {duration.expression.program.text})"
        ) from None
    return min(max(ms, 0), DURATION_MS_MAX)


cdef long long timeout_at(Walk walk, Duration timeout, object dot) except? -1:
    """The deadline a timeout sets from now; 0 without a timeout."""
    return 0 if timeout is None else walk.now_ms + duration_of(walk, timeout, dot)


# --- URIs ---

cdef str expand_uri(Walk walk, UriTemplate template, object dot):
    """RFC 6570 simple expansion over the top-level properties of the task's input."""
    cdef list expanded = []
    for part in template.parts:
        expanded.append(part if isinstance(part, str) else uri_value(walk, part[0], dot))
    return "".join(expanded)


cdef str uri_value(Walk walk, str name, object dot):
    if not isinstance(dot, dict):
        raise fault_here(walk, "expression", f"the URI template's {{{name}}} needs an object as the task's input")
    value = dot.get(name)
    if value is None:
        return ""
    if isinstance(value, str):
        return percent_encode(value)
    if isinstance(value, (dict, list)):
        raise fault_here(walk, "expression", f"the URI template's {{{name}}} is an object or an array")
    return percent_encode(dump_json(value).decode())


cdef str percent_encode(str text):
    cdef list encoded = []
    for character in text:
        if character.isascii() and (character.isalnum() or character in UNRESERVED):
            encoded.append(character)
        else:
            encoded.extend([f"%{byte:02X}" for byte in character.encode()])
    return "".join(encoded)
