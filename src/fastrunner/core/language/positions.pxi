"""Stage 2, compile: every place of a document that holds something to evaluate, and what is seen there, as one table.

Rules: one row per place. The checker and the plan builder take what a string may be from a row's form, what `.` and
the arguments are from its columns, and which scoped variables it sees from `Bindings.at`; neither has rules of its
own beside it, so what is checked is what is evaluated. The tables of docs/expressions.md and docs/validation.md are
made from it. Scopes are lexical: a variable becomes a number of scopes outwards, never a name.
"""

cimport cython

# What stands at a position.
cdef enum:
    FORM_EXPRESSION  # a string that is jq, bare or in `${ }`
    FORM_WRAPPED  # a string must be jq in `${ }`; anything else is a template
    FORM_TEXT  # a string: jq if all of it is one `${ }`
    FORM_SLOT  # a string is jq, bare or in `${ }`; anything else is a template
    FORM_TEMPLATE  # any JSON; each string in it is jq if all of it is one `${ }`
    FORM_DURATION  # an object, an ISO 8601 string, or jq in `${ }`
    FORM_ENDPOINT  # a URI template, or jq in `${ }`
    FORM_URI  # a URI template
    FORM_TASKS  # a list of tasks: what they see beside their own positions
    FORM_PLAIN  # taken as it is

cdef tuple FORM_WORDS = ("expression", "wrapped", "text", "slot", "template", "duration", "endpoint", "uri", "tasks",
                         "plain")

# What a free variable of an expression stands for; from ARGUMENT_SCOPED on, twice the number of scopes outwards,
# plus one for the second name of a scope.
cdef enum:
    ARGUMENT_CONTEXT
    ARGUMENT_INPUT
    ARGUMENT_OUTPUT
    ARGUMENT_TASK
    ARGUMENT_WORKFLOW
    ARGUMENT_RUNTIME
    ARGUMENT_SECRETS
    ARGUMENT_AUTHORIZATION
    ARGUMENT_SCOPED

cdef enum:
    ARGUMENT_UNKNOWN = -1  # nothing binds it
    ARGUMENT_UNAVAILABLE = -2  # the runner binds it, but not here

# In the order in which texts list them.
cdef dict RUNNER_ARGUMENTS = {
    "context": ARGUMENT_CONTEXT,
    "input": ARGUMENT_INPUT,
    "output": ARGUMENT_OUTPUT,
    "secrets": ARGUMENT_SECRETS,
    "task": ARGUMENT_TASK,
    "workflow": ARGUMENT_WORKFLOW,
    "runtime": ARGUMENT_RUNTIME,
    "authorization": ARGUMENT_AUTHORIZATION,
}

# The arguments of a position, a bit each. `$output` in output.as is a harmless superset of what the DSL has there.
cdef enum:
    SEES_NOTHING = 0
    SEES_WORKFLOW = 1 << ARGUMENT_SECRETS | 1 << ARGUMENT_WORKFLOW | 1 << ARGUMENT_RUNTIME
    SEES_WORKFLOW_OUTPUT = SEES_WORKFLOW | 1 << ARGUMENT_CONTEXT
    SEES_TASK_INPUT = SEES_WORKFLOW_OUTPUT | 1 << ARGUMENT_TASK
    SEES_TASK = SEES_TASK_INPUT | 1 << ARGUMENT_INPUT | 1 << ARGUMENT_AUTHORIZATION
    SEES_TASK_OUTPUT = SEES_TASK | 1 << ARGUMENT_OUTPUT
    SEES_TASK_UNPROVEN = SEES_TASK_INPUT | 1 << ARGUMENT_INPUT  # what `$authorization` comes from

# What a holder binds for some of its positions.
cdef enum:
    BINDS_NOTHING
    BINDS_LOOP  # a `for` task: `for.each` and `for.at`
    BINDS_ITEM  # a `foreach`: `item` and `at`
    BINDS_ERROR  # a `catch`: `as`
    BINDS_TASK  # an extension: `$task`, which is the extended one

cdef tuple BINDS_WORDS = ("", "for", "foreach", "catch", "extension")


# --- scopes ---

@cython.final
cdef class Bindings:
    """The scoped variables at a holder: a `for` task, a `foreach`, a `catch`, an extension, or any other task, which
    binds none."""

    cdef tuple at(self, Position position):
        """What an expression of a position sees."""
        return self.own if position.is_own else self.around


cdef Bindings bindings_of(tuple scopes):
    """The bindings of tasks that stand in these scopes."""
    cdef Bindings bindings = Bindings.__new__(Bindings)
    bindings.around = bindings.own = scopes
    return bindings


cdef Bindings bind(Bindings outer, int binds, dict holder):
    """The bindings of a holder that binds what its keys name; a name of a wrong type binds nothing."""
    cdef Bindings bindings = Bindings.__new__(Bindings)
    cdef object loop
    cdef tuple names
    if binds == BINDS_LOOP:
        loop = holder.get("for")
        if type(loop) is not dict:
            loop = {}
        names = (bound_name(loop, "each", "item"), bound_name(loop, "at", "index"))
    elif binds == BINDS_ITEM:
        names = (bound_name(holder, "item", "item"), bound_name(holder, "at", "index"))
    elif binds == BINDS_TASK:
        names = ("task", None)
    else:
        names = (bound_name(holder, "as", "error"), None)
    bindings.around = outer.own
    bindings.own = outer.own + (names,)
    return bindings


cdef object bound_name(dict holder, str key, str default):
    cdef object name = holder.get(key, default)
    return name if type(name) is str else None


# --- positions ---

@cython.final
cdef class Position:
    """One row of the table; `_core.pyi` has the contract."""

    def __init__(self, *args, **kwargs):
        raise TypeError("positions come from POSITIONS")

    @property
    def form(self):
        return FORM_WORDS[self.form]

    @property
    def arguments(self):
        return tuple([name for name, code in RUNNER_ARGUMENTS.items() if self.variables & (1 << <int>code)])

    @property
    def sees(self):
        return BINDS_WORDS[self.binds]

    def __repr__(self):
        return f"<Position {self.where}>"


cdef int argument_code(Position position, tuple scopes, str name) except? -100:
    """Where a variable comes from, an ARGUMENT code; the innermost scope wins."""
    cdef int depth = 0
    cdef Py_ssize_t index = len(scopes)
    cdef tuple names
    cdef object code
    while index > 0:
        index -= 1
        names = <tuple>scopes[index]
        if name == names[0]:
            return ARGUMENT_SCOPED + 2 * depth
        if name == names[1]:
            return ARGUMENT_SCOPED + 2 * depth + 1
        depth += 1
    code = RUNNER_ARGUMENTS.get(name)
    if code is None:
        return ARGUMENT_UNKNOWN
    return <int>code if position.variables & (1 << <int>code) else ARGUMENT_UNAVAILABLE


cdef list _rows = []


cdef Position at_row(str where, str dot, int form, int variables, int binds=BINDS_NOTHING):
    """A row; what it binds is what its holder binds for it."""
    cdef Position position = Position.__new__(Position)
    position.where = where
    position.dot = dot
    position.form = form
    position.variables = variables
    position.binds = binds
    position.is_own = binds != BINDS_NOTHING
    _rows.append(position)
    return position


cdef str DOT_WORKFLOW_INPUT = "the workflow's raw input"
cdef str DOT_RAW_INPUT = "the task's raw input"
cdef str DOT_TASK_INPUT = "the task's transformed input"
cdef str DOT_ITERATION = "the iteration's input"
cdef str DOT_CAUGHT = "the error"
cdef str DOT_NULL = "`null`"
cdef str DOT_EVENT = "the event"
cdef str DOT_MESSAGE = "the message"

# The workflow.
cdef Position AT_WORKFLOW_INPUT_FROM = at_row("workflow `input.from`", DOT_WORKFLOW_INPUT, FORM_SLOT, SEES_WORKFLOW)
cdef Position AT_WORKFLOW_TIMEOUT = at_row("workflow `timeout.after`", DOT_WORKFLOW_INPUT, FORM_DURATION, SEES_WORKFLOW)
cdef Position AT_WORKFLOW_OUTPUT_AS = at_row("workflow `output.as`", "the last task's transformed output", FORM_SLOT,
                                             SEES_WORKFLOW_OUTPUT)
cdef Position AT_DO = at_row("workflow and task `do`", DOT_TASK_INPUT, FORM_TASKS, SEES_NOTHING)

# Every task.
cdef Position AT_IF = at_row("task `if`", DOT_RAW_INPUT, FORM_EXPRESSION, SEES_TASK_INPUT)
cdef Position AT_INPUT_FROM = at_row("task `input.from`", DOT_RAW_INPUT, FORM_SLOT, SEES_TASK_INPUT)
cdef Position AT_TIMEOUT = at_row("task `timeout.after`", DOT_TASK_INPUT, FORM_DURATION, SEES_TASK)
cdef Position AT_OUTPUT_AS = at_row("task `output.as`", "the task's raw output", FORM_SLOT, SEES_TASK_OUTPUT)
cdef Position AT_EXPORT_AS = at_row("task `export.as`", "the task's transformed output", FORM_SLOT, SEES_TASK_OUTPUT)

# Tasks by kind.
cdef Position AT_SET = at_row("task `set`", DOT_TASK_INPUT, FORM_SLOT, SEES_TASK)
cdef Position AT_SWITCH_WHEN = at_row("task `switch` `when`", DOT_TASK_INPUT, FORM_EXPRESSION, SEES_TASK)
cdef Position AT_FOR_IN = at_row("task `for.in`", DOT_TASK_INPUT, FORM_SLOT, SEES_TASK)
cdef Position AT_FOR_WHILE = at_row("task `while`", DOT_ITERATION, FORM_EXPRESSION, SEES_TASK, BINDS_LOOP)
cdef Position AT_FOR_DO = at_row("task `do` beside `for`", DOT_ITERATION, FORM_TASKS, SEES_NOTHING,
                                 BINDS_LOOP)
cdef Position AT_FORK_BRANCHES = at_row("task `fork.branches`", DOT_TASK_INPUT, FORM_TASKS, SEES_NOTHING)
cdef Position AT_TRY = at_row("task `try`", DOT_TASK_INPUT, FORM_TASKS, SEES_NOTHING)
cdef Position AT_CATCH_ERRORS = at_row("`catch.errors.with`", "", FORM_PLAIN, SEES_NOTHING)
cdef Position AT_CATCH_WHEN = at_row("`catch.when`", DOT_CAUGHT, FORM_EXPRESSION, SEES_TASK, BINDS_ERROR)
cdef Position AT_CATCH_EXCEPT_WHEN = at_row("`catch.exceptWhen`", DOT_CAUGHT, FORM_EXPRESSION, SEES_TASK, BINDS_ERROR)
cdef Position AT_CATCH_DO = at_row("`catch.do`", DOT_TASK_INPUT, FORM_TASKS, SEES_NOTHING, BINDS_ERROR)
cdef Position AT_RETRY_WHEN = at_row("`retry.when`", DOT_CAUGHT, FORM_EXPRESSION, SEES_TASK, BINDS_ERROR)
cdef Position AT_RETRY_EXCEPT_WHEN = at_row("`retry.exceptWhen`", DOT_CAUGHT, FORM_EXPRESSION, SEES_TASK, BINDS_ERROR)
cdef Position AT_RETRY_DELAY = at_row("`retry.delay`", DOT_TASK_INPUT, FORM_DURATION, SEES_TASK, BINDS_ERROR)
cdef Position AT_RETRY_JITTER = at_row("`retry.jitter.from`, `retry.jitter.to`", DOT_TASK_INPUT, FORM_DURATION,
                                       SEES_TASK, BINDS_ERROR)
# Both limits count from before the first error, so there is none to see.
cdef Position AT_RETRY_ATTEMPT_DURATION = at_row("`retry.limit.attempt.duration`", DOT_TASK_INPUT, FORM_DURATION,
                                                 SEES_TASK)
cdef Position AT_RETRY_DURATION = at_row("`retry.limit.duration`", DOT_TASK_INPUT, FORM_DURATION, SEES_TASK)
cdef Position AT_RAISE_ERROR = at_row("`raise.error`", DOT_TASK_INPUT, FORM_TEMPLATE, SEES_TASK)
cdef Position AT_WAIT = at_row("task `wait`", DOT_TASK_INPUT, FORM_DURATION, SEES_TASK)
cdef Position AT_HTTP_METHOD = at_row("`call: http` `method`", DOT_TASK_INPUT, FORM_TEXT, SEES_TASK)
cdef Position AT_HTTP_ENDPOINT = at_row("`call: http` `endpoint`", DOT_TASK_INPUT, FORM_ENDPOINT, SEES_TASK)
cdef Position AT_HTTP_HEADERS = at_row("`call: http` `headers`", DOT_TASK_INPUT, FORM_WRAPPED, SEES_TASK)
cdef Position AT_HTTP_QUERY = at_row("`call: http` `query`", DOT_TASK_INPUT, FORM_WRAPPED, SEES_TASK)
cdef Position AT_HTTP_BODY = at_row("`call: http` `body`", DOT_TASK_INPUT, FORM_TEMPLATE, SEES_TASK)
cdef Position AT_RUN = at_row("task `run`", DOT_TASK_INPUT, FORM_TEMPLATE, SEES_TASK)
cdef Position AT_RUN_CODE = at_row("`run.script.code`", "", FORM_PLAIN, SEES_NOTHING)
cdef Position AT_RUN_SOURCE = at_row("`run.script.source`", DOT_TASK_INPUT, FORM_ENDPOINT, SEES_TASK)
cdef Position AT_RUN_LIFETIME = at_row("`run.container.lifetime.after`", DOT_TASK_INPUT, FORM_DURATION, SEES_TASK)
cdef Position AT_AUTHENTICATION = at_row("`authentication` of a task", DOT_TASK_INPUT, FORM_TEXT, SEES_TASK_UNPROVEN)
cdef Position AT_AUTHORITY = at_row("`authentication` `authority`", DOT_TASK_INPUT, FORM_URI, SEES_NOTHING)
cdef Position AT_FUNCTION_WITH = at_row("`call` of a function: `with`", DOT_TASK_INPUT, FORM_TEMPLATE, SEES_TASK)
cdef Position AT_FOREACH_DO = at_row("`foreach.do`", DOT_EVENT, FORM_TASKS, SEES_NOTHING, BINDS_ITEM)
cdef Position AT_FOREACH_OUTPUT_AS = at_row("`foreach.output.as`", "the iteration's output", FORM_SLOT,
                                            SEES_TASK_OUTPUT, BINDS_ITEM)
cdef Position AT_FOREACH_EXPORT_AS = at_row("`foreach.export.as`", "the iteration's transformed output", FORM_SLOT,
                                            SEES_TASK_OUTPUT, BINDS_ITEM)
cdef Position AT_EMIT = at_row("`emit.event.with`", DOT_TASK_INPUT, FORM_TEMPLATE, SEES_TASK)
cdef Position AT_LISTEN_WITH = at_row("`listen.to` `with`", DOT_EVENT, FORM_TEMPLATE, SEES_TASK)
cdef Position AT_LISTEN_CORRELATE_FROM = at_row("`listen.to` `correlate` `from`", DOT_EVENT, FORM_EXPRESSION, SEES_TASK)
cdef Position AT_LISTEN_CORRELATE_EXPECT = at_row("`listen.to` `correlate` `expect`", DOT_TASK_INPUT, FORM_TEXT,
                                                  SEES_TASK)
cdef Position AT_LISTEN_UNTIL = at_row("`listen.to.until`", "the events so far", FORM_EXPRESSION, SEES_TASK)

cdef Position AT_CALL_WITH = at_row("other calls' `with`", DOT_TASK_INPUT, FORM_TEMPLATE, SEES_TASK)
cdef Position AT_CALL_ENDPOINT = at_row("other calls' endpoints and resources", DOT_TASK_INPUT,
                                        FORM_ENDPOINT, SEES_TASK)
cdef Position AT_CALL_DURATION = at_row("`call: mcp` `timeout`, `subscription.consume.for`", DOT_TASK_INPUT,
                                        FORM_DURATION, SEES_TASK)
cdef Position AT_SUBSCRIPTION_FILTER = at_row("`subscription.filter`", DOT_MESSAGE, FORM_WRAPPED, SEES_TASK)
cdef Position AT_SUBSCRIPTION_CONSUME = at_row("`subscription.consume.while`, `until`", DOT_MESSAGE, FORM_WRAPPED,
                                               SEES_TASK)
cdef Position AT_SCHEDULE = at_row("`schedule.every`, `schedule.after`", DOT_NULL, FORM_DURATION, SEES_WORKFLOW)
cdef Position AT_SCHEDULE_WITH = at_row("`schedule.on` `with`", DOT_EVENT, FORM_TEMPLATE, SEES_WORKFLOW)
cdef Position AT_SCHEDULE_CORRELATE_FROM = at_row("`schedule.on` `correlate` `from`", DOT_EVENT, FORM_EXPRESSION,
                                                  SEES_WORKFLOW)
cdef Position AT_SCHEDULE_CORRELATE_EXPECT = at_row("`schedule.on` `correlate` `expect`", DOT_NULL, FORM_TEXT,
                                                    SEES_WORKFLOW)
cdef Position AT_SCHEDULE_UNTIL = at_row("`schedule.on.until`", "the events so far", FORM_EXPRESSION, SEES_WORKFLOW)
cdef Position AT_EXTENSION_WHEN = at_row("extension `when`", "the extended task's raw input", FORM_EXPRESSION,
                                         SEES_TASK_INPUT, BINDS_TASK)
cdef Position AT_EXTENSION_TASKS = at_row("extension `before`, `after`", "the extended task's raw input, its output",
                                          FORM_TASKS, SEES_NOTHING, BINDS_TASK)
cdef Position AT_RESOURCE = at_row("endpoints of schemas and catalogs", DOT_NULL, FORM_ENDPOINT,
                                   SEES_WORKFLOW)
cdef Position AT_RESOURCE_AUTHENTICATION = at_row("`authentication` of schemas' and catalogs' endpoints", DOT_NULL,
                                                  FORM_TEXT, SEES_WORKFLOW)

POSITIONS = tuple(_rows)

cdef Position _position
for _position in (AT_IF, AT_SWITCH_WHEN, AT_FOR_WHILE, AT_CATCH_WHEN, AT_CATCH_EXCEPT_WHEN, AT_RETRY_WHEN,
                  AT_RETRY_EXCEPT_WHEN, AT_SUBSCRIPTION_FILTER, AT_SUBSCRIPTION_CONSUME, AT_LISTEN_UNTIL,
                  AT_SCHEDULE_UNTIL, AT_EXTENSION_WHEN):
    _position.is_condition = True
